//! Manifests of answers against the server as built: made, checked with server and data gone, changed, asked again.
//! Not the checks one by one: those stand beside `schemas_evidence::answer`.

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::process::{Server, binary};
use crate::story::{T0, frame, text, wearer};
use crate::studies::{Member, grant, member, revoke_all};

const ALL: &str = "SELECT subject, device, ts, value FROM readings ORDER BY subject, ts, value";

/// A server with [`three_people`], and a policy beside it that believes its log.
fn three_people_and_a_policy(directory: &Path) -> (Server, Member) {
    let server = Server::start(directory);
    let member = three_people(&server, directory);
    let data = text(&directory.join("data"));
    std::fs::write(directory.join("policy"), server.ok(&["policy", "show", "--data", &data]) + "\n")
        .expect("policy");
    (server, member)
}

/// Three people with five frames each, in the lake and granted to a study.
fn three_people(server: &Server, directory: &Path) -> Member {
    let sleep = member(server, directory, "sleep");
    for (number, name) in ["P1", "P2", "P3"].into_iter().enumerate() {
        let key = wearer(server, directory, name);
        for seq in 0..5 {
            let pulse = 60 + 10 * number as i64;
            assert_eq!(server.post(&frame(&key, seq, T0 + seq as i64 * 10_000_000, pulse)).len(), 1);
        }
        grant(server, directory, name, &sleep, &["--signals", "vitals"]);
    }
    sleep
}

/// Asks, and keeps the answer as CSV and its manifest.
fn ask(server: &Server, directory: &Path, who: &Member, name: &str, more: &[&str]) -> (String, Value) {
    let (out, manifest) = (directory.join(format!("{name}.csv")), directory.join(format!("{name}.manifest")));
    let (out_text, manifest_text) = (text(&out), text(&manifest));
    let mut arguments = vec!["sql", ALL, "--token", &who.token, "--format", "csv"];
    arguments.extend(["--out", &out_text, "--manifest", &manifest_text]);
    arguments.extend(more);
    server.ok(&arguments);
    let manifest = std::fs::read_to_string(manifest).expect("manifest");
    (std::fs::read_to_string(out).expect("answer"), serde_json::from_str(&manifest).expect("JSON"))
}

/// Asks until everything that was sent is in batches.
fn ask_sealed(server: &Server, directory: &Path, who: &Member, name: &str) -> (String, Value) {
    let started = Instant::now();
    loop {
        let (answer, manifest) = ask(server, directory, who, name, &[]);
        if manifest["live_tail"] == false {
            return (answer, manifest);
        }
        assert!(started.elapsed() < Duration::from_secs(30), "not sealed: {manifest}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn verify(directory: &Path, name: &str, more: &[&str]) -> Output {
    let manifest = directory.join(format!("{name}.manifest"));
    Command::new(binary("vitalog-verify"))
        .arg("manifest")
        .arg(manifest)
        .arg("--policy")
        .arg(directory.join("policy"))
        .args(more)
        .output()
        .expect("runs")
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Guarantee (G9): an answer's manifest is checked with the policy alone, the answer's bytes and a copy of the log beside it
/// if one has them; a question asked again as of the same log size, after a withdrawal, gives the same rows without that
/// person's and says how many people withdrew; both manifests still hold with server and data gone. None of it names a
/// person, a device, a boot or a file.
#[test]
fn an_answer_asked_again_after_a_withdrawal() {
    let directory = tempfile::tempdir().expect("directory");
    let directory = directory.path();
    let (server, sleep) = three_people_and_a_policy(directory);
    let (first, first_manifest) = ask_sealed(&server, directory, &sleep, "first");
    assert_eq!(first.lines().count(), 1 + 3 * 5 * 2, "{first}");
    assert_eq!((&first_manifest["rerun"], &first_manifest["sql"]), (&Value::Null, &Value::from(ALL)));
    let size = first_manifest["log_size"].as_u64().expect("size").to_string();
    revoke_all(&server, directory, "P2");
    let (again, again_manifest) = ask(&server, directory, &sleep, "again", &["--as-of", &size]);
    assert_eq!(again.lines().count(), 1 + 2 * 5 * 2, "{again}");
    // P2's pulses lie in the seventies, in two steps.
    let others = first.lines().filter(|line| !line.ends_with(",70.0") && !line.ends_with(",71.0"));
    assert_eq!(again.lines().collect::<Vec<_>>(), others.collect::<Vec<_>>());
    let rerun = &again_manifest["rerun"];
    let counts = ["withdrawn", "joined", "changed"].map(|name| rerun[name].as_u64().expect("count"));
    assert_eq!((&rerun["of"], counts), (&first_manifest["id"], [1, 0, 0]));

    let (result, log) = (text(&directory.join("first.csv")), text(&directory.join("data/log")));
    let whole = verify(directory, "first", &["--result", &result, "--log", &log]);
    assert!(whole.status.success() && !said(&whole).contains("\nopen"), "{}", said(&whole));
    assert!(said(&whole).contains("Not proved by this file"), "{}", said(&whole));
    let secret = [first_manifest.to_string(), again_manifest.to_string()].concat();
    for name in ["P1", "P2", "P3"] {
        let ids = server.ok(&["key", "show", &text(&directory.join(format!("{name}.device.pem")))]);
        let subject = server.ok(&["key", "show", &text(&directory.join(format!("{name}.subject.pem")))]);
        for id in ids.split_whitespace().chain(subject.split_whitespace()).filter(|id| id.len() >= 16) {
            assert!(!secret.contains(id), "{id} in {secret}");
        }
    }
    assert!(!secret.contains("parquet") && !secret.contains("0707070707070707"), "{secret}");
    server.stop();
    std::fs::remove_dir_all(directory.join("data")).expect("gone");
    for (name, words) in [("first", "VERIFIED"), ("again", "1 people withdrew")] {
        let result = text(&directory.join(format!("{name}.csv")));
        let verified = verify(directory, name, &["--result", &result]);
        assert!(verified.status.success() && said(&verified).contains(words), "{}", said(&verified));
    }
    assert_eq!(verify(directory, "again", &["--result", &result]).status.code(), Some(3));
}

/// Guarantee (G9): every field of a real manifest, changed, is refused with exit code 3 and named.
#[test]
fn a_changed_manifest_is_refused() {
    let directory = tempfile::tempdir().expect("directory");
    let directory = directory.path();
    let (server, sleep) = three_people_and_a_policy(directory);
    let (_, good) = ask_sealed(&server, directory, &sleep, "good");
    assert!(verify(directory, "good", &[]).status.success());
    let mut pointers: Vec<String> =
        good.as_object().expect("object").keys().map(|key| format!("/{key}")).collect();
    pointers.retain(|pointer| !["/result", "/proof"].contains(&pointer.as_str()));
    pointers.extend(["media", "bytes", "blake3"].map(|key| format!("/result/{key}")));
    pointers.extend(["checkpoint", "consistency/0", "entries/0/entry"].map(|key| format!("/proof/{key}")));
    assert!(pointers.len() >= 24, "{pointers:?}");
    for pointer in pointers {
        let mut changed = good.clone();
        let value = changed.pointer_mut(&pointer).expect("value");
        *value = match &*value {
            Value::Bool(flag) => Value::from(!flag),
            Value::Number(number) => Value::from(number.as_u64().expect("number") + 1),
            Value::String(words) => Value::from(words.replacen(|c: char| c.is_ascii_digit(), "x", 1) + "x"),
            _ => Value::from("x"),
        };
        std::fs::write(directory.join("bad.manifest"), changed.to_string()).expect("written");
        let refused = verify(directory, "bad", &[]);
        assert_eq!(refused.status.code(), Some(3), "{pointer}: {}", said(&refused));
        assert!(said(&refused).contains("REFUSED at step"), "{pointer}: {}", said(&refused));
    }
}

/// What the server answers to the question for a manifest: status, and the code of a refusal.
fn fetched(server: &Server, who: &Member, id: &str) -> (u16, String) {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let asked = agent
        .get(format!("{}/v1/manifests/{id}", server.url))
        .header("authorization", format!("Bearer {}", who.token));
    let mut answer = asked.call().expect("answer");
    let body: Value = serde_json::from_str(&answer.body_mut().read_to_string().expect("text")).expect("JSON");
    (answer.status().as_u16(), body["error"]["code"].as_str().unwrap_or_default().to_owned())
}

/// Guarantee: a server keeps as many manifests as its operator says, the newest, and says of an older one what it says of one
/// that never was; also after a restart, and with a smaller number. What was fetched holds all the same.
#[test]
fn the_newest_manifests_are_kept() {
    let directory = tempfile::tempdir().expect("directory");
    let directory = directory.path();
    let server = Server::start_with(directory, &[("VITALOG_QUERY_MANIFESTS_MAX", "2")]);
    let member = three_people(&server, directory);
    let policy = server.ok(&["policy", "show", "--data", &text(&directory.join("data"))]) + "\n";
    std::fs::write(directory.join("policy"), policy).expect("policy");
    let mut ids = vec!["0".repeat(32)];
    for name in ["first", "second", "third"] {
        let (_, manifest) = ask(&server, directory, &member, name, &[]);
        ids.push(manifest["id"].as_str().expect("id").to_owned());
    }
    let all = |server: &Server| ids.iter().map(|id| fetched(server, &member, id)).collect::<Vec<_>>();
    let (kept, gone) = ((200, String::new()), (404, "NOT_FOUND".to_owned()));
    assert_eq!(all(&server), [&gone, &gone, &kept, &kept].map(Clone::clone));
    server.stop();
    let server = Server::start_with(directory, &[("VITALOG_QUERY_MANIFESTS_MAX", "1")]);
    assert_eq!(all(&server), [&gone, &gone, &gone, &kept].map(Clone::clone));
    let result = text(&directory.join("first.csv"));
    let verified = verify(directory, "first", &["--result", &result]);
    assert!(verified.status.success(), "{}", said(&verified));
}
