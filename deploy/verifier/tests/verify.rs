//! The verifier as its users meet it: files in, text or JSON and an exit code out.
#![expect(clippy::unwrap_used, reason = "a panic is how a test speaks")]

use std::collections::HashMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::thread;

use schemas_evidence::answer::sample as answer_sample;
use schemas_evidence::conformance::sample;
use schemas_evidence::tiles::{encode_bundle, encode_tile, entries_path, tile_path};
use schemas_evidence::{Entry, Ledger, MemoryLedger, entry_leaf};
use serde_json::Value;
use tempfile::TempDir;

struct Ran {
    code: u8,
    out: String,
    err: String,
}

fn run(arguments: &[&str]) -> Ran {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let words = std::iter::once("vitalog-verify").chain(arguments.iter().copied());
    let code = deploy_verifier::run(words, &mut out, &mut err);
    Ran { code, out: String::from_utf8(out).unwrap(), err: String::from_utf8(err).unwrap() }
}

/// A directory with a good evidence file and the policy that accepts it.
fn evidence() -> (TempDir, PathBuf, PathBuf) {
    let dir = TempDir::new().unwrap();
    let (file, policy) = (dir.path().join("good.evidence"), dir.path().join("my.policy"));
    fs::write(&file, sample::evidence(0).unwrap().to_bytes().unwrap()).unwrap();
    fs::write(&policy, sample::policy().to_text()).unwrap();
    (dir, file, policy)
}

/// Good evidence: exit 0, each step with its result, and what is not proved.
#[test]
fn good_evidence_is_verified_step_by_step() {
    let (_dir, file, policy) = evidence();
    let (file, policy) = (file.to_str().unwrap(), policy.to_str().unwrap());
    let ran = run(&["evidence", file, "--policy", policy]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    for step in ["format", "frame", "enrolment", "entry", "path", "proof", "policy", "anchors"] {
        assert!(ran.out.contains(&format!("ok    {step}")), "{}", ran.out);
    }
    assert!(ran.out.contains("VERIFIED") && ran.out.contains("Not proved by this file"));

    let ran = run(&["evidence", file, "--policy", policy, "--json"]);
    let json: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((ran.code, &json["verified"], &json["log_index"]), (0, &Value::from(true), &Value::from(3)));
    assert_eq!(json["device"]["id"], sample::device(0).public().short_id().to_string());
}

/// Any changed byte: exit 3, and the output names the step, in text and in JSON.
#[test]
fn changed_evidence_is_refused_with_the_step_named() {
    let (dir, file, policy) = evidence();
    let bytes = fs::read(&file).unwrap();
    let changed_file = dir.path().join("changed.evidence");
    let (changed_path, policy) = (changed_file.to_str().unwrap(), policy.to_str().unwrap());
    for at in (0..bytes.len()).step_by(53) {
        let mut changed = bytes.clone();
        changed[at] ^= 0x04;
        fs::write(&changed_file, changed).unwrap();
        let ran = run(&["evidence", changed_path, "--policy", policy]);
        assert_eq!(ran.code, 3, "byte {at}");
        assert!(ran.out.contains("REFUSED at step `") && ran.out.contains("FAIL"), "{}", ran.out);
        let json: Value =
            serde_json::from_str(&run(&["evidence", changed_path, "--policy", policy, "--json"]).out)
                .unwrap();
        assert_eq!(json["verified"], false);
        assert!(json["step"].is_string());
    }
}

/// 1 is for what cannot be read, 2 for a wrong command line, 0 for help; each says what and where.
#[test]
fn exit_codes_tell_unreadable_from_refused_from_misused() {
    let (dir, file, policy) = evidence();
    let (file, policy) = (file.to_str().unwrap(), policy.to_str().unwrap());
    let broken = dir.path().join("broken.policy");
    fs::write(&broken, "quorum none\nlog nonsense\n").unwrap();
    let check = |arguments: &[&str], code: u8, says: &str| {
        let ran = run(arguments);
        assert_eq!(ran.code, code, "{arguments:?}: {}{}", ran.out, ran.err);
        assert!(ran.out.contains(says) || ran.err.contains(says), "{arguments:?}: {}{}", ran.out, ran.err);
    };
    check(&["evidence", "/no/such/file", "--policy", policy], 1, "/no/such/file");
    check(&["evidence", file, "--policy", "/no/such/policy"], 1, "/no/such/policy");
    check(&["evidence", file, "--policy", broken.to_str().unwrap()], 1, "line 2");
    check(&["log", dir.path().to_str().unwrap(), "--policy", policy], 1, "no checkpoint");
    check(&["evidence", file], 2, "--policy");
    check(&["nonsense"], 2, "Usage");
    check(&[], 2, "Usage");
    check(&["--help"], 0, "Examples");
    check(&["evidence", "--help"], 0, "Example");
    check(&["manifest", "--help"], 0, "Example");
    check(&["log", "--help"], 0, "Example");
    check(&["--version"], 0, "vitalog-verify");
}

/// A file of the wrong kind, empty or far too long is refused, not choked on.
#[test]
fn files_that_are_no_evidence_are_refused_at_the_format() {
    let (dir, _, policy) = evidence();
    let other = dir.path().join("other");
    for bytes in [Vec::new(), b"hello".to_vec(), vec![0xff; 5_000_000]] {
        fs::write(&other, bytes).unwrap();
        let ran = run(&["evidence", other.to_str().unwrap(), "--policy", policy.to_str().unwrap()]);
        assert!(ran.code == 3 && ran.out.contains("step `format`"), "{}", ran.out);
    }
}

/// A log of 300 entries as files, and the ledger they come from.
fn log_files(dir: &Path) -> MemoryLedger {
    let ledger = MemoryLedger::new(sample::ORIGIN);
    let entries: Vec<Entry> = (0..300u16).map(|n| Entry::Result { commitment: [n as u8; 32] }).collect();
    ledger.append(&entries).unwrap();
    let texts: Vec<String> = entries.iter().map(Entry::to_text).collect();
    let leaves: Vec<_> = texts.iter().map(|text| entry_leaf(text)).collect();
    let mut files = HashMap::from([("checkpoint".to_owned(), ledger.checkpoint().unwrap().into_bytes())]);
    for (n, range) in [(0, 0..256), (1, 256..300)] {
        let width = range.len() as u64;
        files.insert(tile_path(0, n, width), encode_tile(&leaves[range.clone()]));
        let bundle = encode_bundle(texts[range].iter().map(String::as_bytes)).unwrap();
        files.insert(entries_path(n, width), bundle);
    }
    files.insert(tile_path(1, 0, 1), encode_tile(&[schemas_evidence::tiles::tile_root(&leaves[..256])]));
    for (path, bytes) in files {
        let path = dir.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    ledger
}

/// A sound log passes, a kept head must be extended, a changed entry is named.
#[test]
fn a_log_directory_is_audited() {
    let (dir, _, policy) = evidence();
    let log = dir.path().join("log");
    let ledger = log_files(&log);
    let (log_path, policy) = (log.to_str().unwrap(), policy.to_str().unwrap());
    let kept = dir.path().join("kept");
    fs::write(&kept, ledger.checkpoint().unwrap()).unwrap();
    let ran = run(&["log", log_path, "--policy", policy, "--kept", kept.to_str().unwrap()]);
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    assert!(
        ran.out.contains("300 result") && ran.out.contains("SOUND") && ran.out.contains("1 kept"),
        "{}",
        ran.out
    );

    let foreign = MemoryLedger::with_key(sample::ORIGIN, schemas_identity::SecretKey::from_seed(&[9; 32]));
    fs::write(&kept, foreign.checkpoint().unwrap()).unwrap();
    assert_eq!(run(&["log", log_path, "--policy", policy, "--kept", kept.to_str().unwrap()]).code, 3);

    let bundle = log.join("tile/entries/000");
    let text = String::from_utf8(fs::read(&bundle).unwrap()).unwrap();
    fs::write(&bundle, text.replacen("0707", "0708", 1)).unwrap();
    let ran = run(&["log", log_path, "--policy", policy, "--json"]);
    let json: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(
        (ran.code, &json["sound"], &json["findings"][0]["place"]),
        (3, &Value::from(false), &Value::from("entry 7"))
    );

    fs::write(log.join("checkpoint"), foreign.checkpoint().unwrap()).unwrap();
    assert_eq!(run(&["log", log_path, "--policy", policy]).code, 3);
}

/// Serves the files of a directory, one connection after the other; `/evil` answers without end.
fn serve(dir: PathBuf) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 4096];
            let length = stream.read(&mut request).unwrap_or(0);
            let line = String::from_utf8_lossy(&request[..length]).into_owned();
            let path = line.split(' ').nth(1).unwrap_or("/").trim_start_matches('/').to_owned();
            if path.starts_with("evil") {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
                while stream.write_all(&[b'x'; 65_536]).is_ok() {}
                continue;
            }
            let (status, body) = match fs::read(dir.join(path)) {
                Ok(body) => ("200 OK", body),
                Err(_) => ("404 Not Found", Vec::new()),
            };
            let head =
                format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            let _ = stream.write_all(&[head.as_bytes(), &body].concat());
        }
    });
    url
}

/// The same log over HTTP gives the same verdict; a server that never stops talking is cut off, a dead one is an error.
#[test]
fn a_log_behind_a_url_is_audited_within_limits() {
    let (dir, _, policy) = evidence();
    let log = dir.path().join("log");
    log_files(&log);
    let policy = policy.to_str().unwrap();
    let url = serve(log.clone());
    let ran = run(&["log", &format!("{url}/"), "--policy", policy]);
    assert!(ran.code == 0 && ran.out.contains("SOUND"), "{}{}", ran.out, ran.err);
    let ran = run(&["log", &format!("{url}/evil"), "--policy", policy]);
    assert!(ran.code == 1 && ran.err.contains("/evil/checkpoint"), "{}{}", ran.out, ran.err);
    let ran = run(&["log", "http://127.0.0.1:1", "--policy", policy]);
    assert_eq!(ran.code, 1, "{}", ran.err);
    fs::remove_file(log.join("tile/0/000")).unwrap();
    let ran = run(&["log", &url, "--policy", policy]);
    assert!(ran.code == 3 && ran.out.contains("tile/0/000: is missing"), "{}", ran.out);
}

/// A good manifest of an answer with the answer's bytes and the log it speaks of, as files.
fn answer() -> (TempDir, [String; 4]) {
    let dir = TempDir::new().unwrap();
    let [file, policy, result, log] =
        ["m.manifest", "my.policy", "answer.csv", "log"].map(|name| dir.path().join(name));
    fs::write(&file, serde_json::to_string_pretty(&answer_sample::manifest().unwrap()).unwrap()).unwrap();
    fs::write(&policy, sample::policy().to_text()).unwrap();
    fs::write(&result, answer_sample::RESULT).unwrap();
    let ledger = answer_sample::ledger().unwrap();
    let texts = ledger.entries(0, ledger.size()).unwrap();
    let leaves: Vec<_> = texts.iter().map(|text| entry_leaf(text)).collect();
    for (path, bytes) in [
        ("checkpoint".to_owned(), ledger.checkpoint().unwrap().into_bytes()),
        (tile_path(0, 0, ledger.size()), encode_tile(&leaves)),
        (entries_path(0, ledger.size()), encode_bundle(texts.iter().map(|text| text.as_bytes())).unwrap()),
    ] {
        let path = log.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    let paths = [file, policy, result, log].map(|path| path.to_str().unwrap().to_owned());
    (dir, paths)
}

/// A good manifest: exit 0, each step with its word, what is open and what is not proved; with result and log nothing is open.
#[test]
fn a_manifest_is_checked_step_by_step() {
    let (_dir, [file, policy, result, log]) = answer();
    let ran = run(&["manifest", &file, "--policy", &policy]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{}", ran.out);
    for step in ["format", "fields", "policy", "signature", "snapshot", "access", "files", "sql"] {
        assert!(ran.out.contains(&format!("ok    {step}")), "{}", ran.out);
    }
    assert!(ran.out.contains("open  result") && ran.out.contains("open  log"), "{}", ran.out);
    assert!(ran.out.contains("VERIFIED") && ran.out.contains("Not proved by this file"), "{}", ran.out);
    assert!(ran.out.contains("3 people withdrew"), "{}", ran.out);
    let whole = ["manifest", &file, "--policy", &policy, "--result", &result, "--log", &log];
    let ran = run(&whole);
    assert!(ran.code == 0 && !ran.out.contains("open  "), "{}{}", ran.out, ran.err);
    assert!(ran.out.contains("exactly 2 batches before entry 5"), "{}", ran.out);
    let json: Value = serde_json::from_str(&run(&[&whole[..], &["--json"]].concat()).out).unwrap();
    assert_eq!((&json["verified"], &json["rerun"]["withdrawn"]), (&Value::from(true), &Value::from(3)));
    let served = serve(PathBuf::from(&log));
    let ran = run(&["manifest", &file, "--policy", &policy, "--log", &served]);
    assert!(ran.code == 0 && ran.out.contains("ok    log"), "{}{}", ran.out, ran.err);
}

/// Wrong: exit 3 and the step and field named. Unreadable: exit 1, and nothing is said of the manifest.
#[test]
fn a_wrong_manifest_is_told_from_an_unreadable_one() {
    let (dir, [file, policy, result, log]) = answer();
    let good = fs::read_to_string(&file).unwrap();
    let check = |arguments: &[&str], code: u8, says: &str| {
        let ran = run(&[&["manifest", file.as_str(), "--policy", &policy], arguments].concat());
        assert_eq!(ran.code, code, "{arguments:?}: {}{}", ran.out, ran.err);
        assert!(ran.out.contains(says) || ran.err.contains(says), "{arguments:?}: {}{}", ran.out, ran.err);
    };
    fs::write(&result, b"subject,value\na1,61\n").unwrap();
    check(&["--result", &result], 3, "REFUSED at step `result`: field `result.blake3`");
    check(&["--result", "/no/such/file"], 1, "/no/such/file");
    check(&["--log", "/no/such/log"], 1, "there is no checkpoint");
    let bundle = PathBuf::from(&log).join(entries_path(0, 8));
    let entries = fs::read(&bundle).unwrap();
    fs::write(&bundle, String::from_utf8(entries).unwrap().replacen("0101", "0102", 1)).unwrap();
    check(&["--log", &log], 3, "REFUSED at step `log`");
    let foreign = MemoryLedger::with_key(sample::ORIGIN, schemas_identity::SecretKey::from_seed(&[9; 32]));
    fs::write(PathBuf::from(&log).join("checkpoint"), foreign.checkpoint().unwrap()).unwrap();
    check(&["--log", &log], 3, "REFUSED at step `log`");
    fs::write(&file, good.replacen("\"rows\": 1", "\"rows\": 2", 1)).unwrap();
    check(&["--json"], 3, "\"step\": \"fields\"");
    check(&[], 3, "field `rows`");
    fs::write(&file, &good[..good.len() / 2]).unwrap();
    check(&[], 3, "REFUSED at step `format`");
    fs::write(dir.path().join("m.manifest"), vec![b'['; 9_000_000]).unwrap();
    check(&[], 3, "more than");
    fs::remove_file(&file).unwrap();
    check(&[], 1, "m.manifest");
}
