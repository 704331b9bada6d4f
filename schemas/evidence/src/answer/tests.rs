//! A manifest holds, and no longer does once anything in it, or given beside it, is changed.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::answer::sample::{RESULT, SQL, ledger, manifest, proof};
use crate::evidence::sample::policy;
use crate::ledger::Ledger;
use crate::memory::MemoryLedger;
use crate::note::NoteKey;
use crate::policy::Policy;
use crate::{Checkpoint, cosign_checkpoint};

fn bytes(manifest: &AnswerManifest) -> Vec<u8> {
    serde_json::to_vec(manifest).unwrap()
}

fn answer() -> (u64, Hash32) {
    (RESULT.len() as u64, *blake3::hash(RESULT).as_bytes())
}

fn check(bytes: &[u8]) -> Checking {
    Checking::run(bytes, &policy(), Some(answer()), None)
}

/// The step that is wrong, and the sentence.
fn wrong(bytes: &[u8]) -> (Check, String) {
    check(bytes).result.unwrap_err()
}

/// Signed again by the log, as an operator could who wants to deceive.
fn resigned(change: impl FnOnce(&mut AnswerManifest)) -> Vec<u8> {
    let mut manifest = manifest().unwrap();
    change(&mut manifest);
    manifest.sign(&MemoryLedger::test_key()).unwrap();
    bytes(&manifest)
}

/// Guarantee: a good manifest holds in every step that something was given for, and says what it does not prove.
#[test]
fn a_good_manifest_holds() {
    let good = bytes(&manifest().unwrap());
    let checking = check(&good);
    let checked = checking.result.unwrap();
    for step in &checking.steps {
        let holds = matches!(step.finding, Finding::Holds(_));
        assert_eq!(holds, step.step != Check::Log, "{step:?}");
    }
    assert_eq!(checked.manifest.sql.as_deref(), Some(SQL));
    assert!(checked.unproved.iter().any(|sentence| sentence.contains("that the rows are right")));
    assert!(checked.unproved.iter().any(|sentence| sentence.contains("no copy of the log")));
    // Nothing beside it: not an error, but said.
    let mut bare = manifest().unwrap();
    bare.sql = None;
    let unproved = Checking::run(&bytes(&bare), &policy(), None, None).result.unwrap().unproved;
    assert_eq!(unproved.iter().filter(|sentence| sentence.contains("was given")).count(), 2, "{unproved:?}");
    assert!(unproved.iter().any(|sentence| sentence.contains("does not carry the statement")));
}

/// Guarantee: the manifest as it was once written still holds: the format has not changed unnoticed. (Also a seed of the fuzzer;
/// written anew with VITALOG_CORPUS set.)
#[test]
fn the_golden_file_holds() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fuzz/corpus/manifest");
    if std::env::var_os("VITALOG_CORPUS").is_some() {
        let golden = serde_json::to_string_pretty(&manifest().unwrap()).unwrap();
        std::fs::write(folder.join("golden"), golden + "\n").unwrap();
    }
    let golden = std::fs::read(folder.join("golden")).unwrap();
    assert_eq!(check(&golden).result.unwrap().manifest, manifest().unwrap());
}

/// Every leaf of a JSON value, as a pointer.
fn leaves(value: &Value, at: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            map.iter().for_each(|(key, value)| leaves(value, &format!("{at}/{key}"), found))
        }
        Value::Array(list) => {
            list.iter().enumerate().for_each(|(key, value)| leaves(value, &format!("{at}/{key}"), found))
        }
        _ => found.push(at.to_owned()),
    }
}

/// Another value of the same kind.
fn other(value: &Value) -> Value {
    match value {
        Value::Bool(flag) => json!(!flag),
        Value::Number(number) => json!(number.as_i64().unwrap() + 1),
        Value::String(text) => {
            let last = text.trim_end().chars().last().unwrap();
            let at = text.rfind(last).unwrap();
            let next = if last == '0' { "1" } else { "0" };
            json!(format!("{}{next}{}", &text[..at], &text[at + last.len_utf8()..]))
        }
        _ => json!("x"),
    }
}

/// Guarantee: whichever field is changed, and however deep it lies, the manifest is wrong and the field is named.
#[test]
fn each_changed_field_is_named() {
    let good = serde_json::to_value(manifest().unwrap()).unwrap();
    let mut pointers = Vec::new();
    leaves(&good, "", &mut pointers);
    assert!(pointers.len() > 45, "{pointers:?}");
    for pointer in pointers {
        let mut changed = good.clone();
        let value = changed.pointer_mut(&pointer).unwrap();
        *value = other(value);
        let (step, problem) = wrong(&serde_json::to_vec(&changed).unwrap());
        // In the proof the list is named, and which entry.
        let field = match pointer.split('/').collect::<Vec<_>>()[..] {
            ["", "proof", "entries", ..] => "entr",
            ["", "proof", name, ..] => name,
            ["", outer, inner] => &format!("{outer}.{inner}"),
            [.., name] => name,
            [] => "",
        };
        // A did:key with another last character does not decode; JSON errors tell the line.
        let is_named = problem.contains(field) || (field == "principal" && step == Check::Format);
        assert!(is_named, "{pointer}: {step}: {problem}");
    }
}

/// Guarantee: a field changed in both places, the readable and the signed, is found by the signature.
#[test]
fn a_forged_text_is_not_signed() {
    let mut forged = manifest().unwrap();
    let before = forged.to_text();
    forged.rows = 2;
    forged.signed = forged.signed.replacen(&before, &forged.to_text(), 1);
    let (step, problem) = wrong(&bytes(&forged));
    assert_eq!(step, Check::Signature);
    assert!(problem.contains("does not verify"), "{problem}");
    // Signed by somebody: not by the log.
    let mut forged = manifest().unwrap();
    forged.sign(&SecretKey::from_seed(&[1; 32])).unwrap();
    assert_eq!(wrong(&bytes(&forged)).0, Check::Signature);
}

/// Guarantee: even the log's own key cannot sign what the log does not hold.
#[test]
fn what_the_log_does_not_hold_is_wrong_although_signed() {
    let check = |step: Check, field: &str, change: fn(&mut AnswerManifest)| {
        let (found, problem) = wrong(&resigned(change));
        assert!(found == step && problem.contains(field), "{step} {field}: {found}: {problem}");
    };
    check(Check::Signature, "origin", |manifest| manifest.origin = "other.example/log".to_owned());
    check(Check::Snapshot, "log_root", |manifest| manifest.log_root = Hex32([1; 32]));
    check(Check::Snapshot, "log_root", |manifest| manifest.log_size = 4);
    check(Check::Snapshot, "log_size", |manifest| manifest.log_size = 9);
    check(Check::Snapshot, "log_root", |manifest| manifest.log_size = 0);
    check(Check::Access, "consent_epoch", |manifest| manifest.consent_epoch = 3);
    check(Check::Access, "query_index", |manifest| manifest.query_index = 4);
    check(Check::Access, "query_index", |manifest| manifest.query_index = 7);
    check(Check::Access, "result_index", |manifest| manifest.result_index = Some(6));
    check(Check::Files, "entry 7", |manifest| manifest.result_index = None);
    check(Check::Files, "batches", |manifest| manifest.batches = 1);
    check(Check::Files, "sets", |manifest| manifest.sets = 2);
    check(Check::Files, "listed", |manifest| manifest.batches = 5_000);
    check(Check::Files, "entry 5", |manifest| {
        manifest.proof = Some(proof(&ledger().unwrap(), &[1, 2, 3, 5, 6, 7]).unwrap());
    });
    check(Check::Access, "does not follow", |manifest| {
        manifest.proof.as_mut().unwrap().entries.reverse();
    });
    check(Check::Sql, "sql", |manifest| manifest.sql_blake3 = Hex32([2; 32]));
    check(Check::Result, "result.bytes", |manifest| manifest.result.bytes = 1);
    check(Check::Result, "result.blake3", |manifest| manifest.result.blake3 = Hex32([2; 32]));
}

/// Guarantee: more batches than are listed are counted as unproved, not as proved.
#[test]
fn what_is_not_listed_is_unproved() {
    let many = resigned(|manifest| {
        manifest.batches = 5_000;
        manifest.proof = Some(proof(&ledger().unwrap(), &[6, 7]).unwrap());
    });
    let checked = check(&many).result.unwrap();
    assert!(checked.unproved.iter().any(|sentence| sentence.contains("5000 batches")));
}

/// Guarantee: a witness that the policy asks for must have cosigned; a log the policy does not know is refused.
#[test]
fn the_verifier_s_policy_decides() {
    let witness = SecretKey::from_seed(&[0x77; 32]);
    let key = NoteKey::witness("w.example", witness.public()).unwrap();
    let asking = policy().to_text().replace("quorum none", &format!("witness w {key}\nquorum w"));
    let asking = Policy::parse(asking.as_bytes()).unwrap();
    let mut seen = manifest().unwrap();
    let run = |manifest: &AnswerManifest, policy: &Policy| {
        Checking::run(&bytes(manifest), policy, Some(answer()), None).result
    };
    assert_eq!(run(&seen, &asking).unwrap_err().0, Check::Policy);
    let proof = seen.proof.as_mut().unwrap();
    proof.checkpoint = cosign_checkpoint(&proof.checkpoint, "w.example", &witness, 1_790_000_000).unwrap();
    let checked = run(&seen, &asking).unwrap();
    assert_eq!(checked.witnesses, [("w".to_owned(), 1_790_000_000)]);
    assert!(!checked.unproved.iter().any(|sentence| sentence.contains("witness")));
    let foreign = NoteKey::log("log.example/vitalog", SecretKey::from_seed(&[3; 32]).public()).unwrap();
    assert_eq!(run(&seen, &Policy::of_log(foreign, &[])).unwrap_err().0, Check::Policy);
}

/// Guarantee: a copy of the log that has another history, or another number of batches, is named; why it could not be read too.
#[test]
fn a_copy_of_the_log_must_agree() {
    let accepted = policy().open(&ledger().unwrap().checkpoint().unwrap()).unwrap();
    let audit = |batches: u64, findings: Vec<crate::tiles::Finding>| crate::tiles::LogAudit {
        head: accepted.clone(),
        kinds: Default::default(),
        batches_at: vec![3, batches],
        findings,
    };
    let run = |read: Reader<'_>| {
        Checking::run(&bytes(&manifest().unwrap()), &policy(), Some(answer()), Some(read)).result
    };
    let mut heads: Vec<Checkpoint> = Vec::new();
    let checked = run(&mut |kept| {
        heads = kept.to_vec();
        Ok(audit(2, Vec::new()))
    });
    assert!(!checked.unwrap().unproved.iter().any(|sentence| sentence.contains("copy of the log")));
    assert_eq!(heads.iter().map(|head| head.size).collect::<Vec<_>>(), [8, 5]);
    assert_eq!(run(&mut |_| Ok(audit(3, Vec::new()))).unwrap_err().0, Check::Log);
    let finding = crate::tiles::Finding { place: "entry 3".to_owned(), problem: "other".to_owned() };
    assert!(run(&mut |_| Ok(audit(2, vec![finding.clone()]))).unwrap_err().1.contains("entry 3"));
    assert!(run(&mut |_| Err("no checkpoint".to_owned())).unwrap_err().1.contains("no checkpoint"));
}

/// Guarantee: what is cut off, too long, doubled, unknown or nested without end is refused at the format, within bounds.
#[test]
fn hostile_files_are_refused() {
    let good = bytes(&manifest().unwrap());
    for length in (0..good.len()).step_by(7) {
        assert_eq!(wrong(&good[..length]).0, Check::Format, "{length}");
    }
    let text = String::from_utf8(good.clone()).unwrap();
    let long = "a".repeat(SQL_BYTES_MAX + 1);
    let path = format!("\"path\":[{}", "\"00\",".repeat(100));
    for hostile in [
        vec![b' '; ANSWER_BYTES_MAX + 1],
        [b'[', b'{'].repeat(100_000),
        b"[".repeat(1_000_000),
        b"{\"proof\":".repeat(100_000),
        b"null".to_vec(),
        vec![0xff; 1_000],
        text.replacen("\"v\":1", "\"v\":1,\"v\":1", 1).into_bytes(),
        text.replacen("\"v\":1", "\"v\":1,\"more\":1", 1).into_bytes(),
        text.replacen("\"v\":1", "\"v\":2", 1).into_bytes(),
        text.replacen("\"rows\":1", "\"rows\":1e400", 1).into_bytes(),
        text.replacen("\"rows\":1", "\"rows\":-1", 1).into_bytes(),
        text.replacen("\"rows\":1", "\"rows\":18446744073709551616", 1).into_bytes(),
        text.replacen("\"path\":[", &path, 1).into_bytes(),
        text.replacen(SQL, &long, 1).into_bytes(),
        bytes(&{
            let mut many = manifest().unwrap();
            let first = many.proof.as_ref().unwrap().entries[0].clone();
            many.proof.as_mut().unwrap().entries = vec![first; LISTED_MAX + 3];
            many
        }),
        bytes(&{
            let mut none = manifest().unwrap();
            none.proof = None;
            none
        }),
    ] {
        let (step, problem) = wrong(&hostile);
        assert_eq!(step, Check::Format, "{problem}");
        assert!(problem.len() < 500, "{problem}");
    }
}

/// Guarantee: text with quotes, line breaks and foreign letters stays on its line of the signed text.
#[test]
fn no_text_breaks_its_line() {
    let mut odd = manifest().unwrap();
    odd.study = Some("a\"\nrows: 99\r\u{1}\u{2028}\u{e9}".to_owned());
    odd.purpose = "\u{7f}\\".to_owned();
    assert_eq!(odd.to_text().lines().count(), manifest().unwrap().to_text().lines().count());
    odd.sign(&MemoryLedger::test_key()).unwrap();
    assert!(check(&bytes(&odd)).result.is_ok());
}

proptest! {
    /// Guarantee: no bytes make the parser fail otherwise than by saying so; what it takes writes back as the same.
    #[test]
    fn any_bytes_are_read_or_refused(noise in proptest::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(AnswerManifest::parse(&noise).is_err());
    }

    /// Guarantee: of a good manifest with some bytes changed, put in or taken out, either it is refused, or it says the same.
    #[test]
    fn damaged_files_do_not_say_something_else(
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        how in 0..3,
    ) {
        let good = manifest().unwrap();
        let mut damaged = bytes(&good);
        let at = at.index(damaged.len());
        match how {
            0 => damaged[at] = byte,
            1 => damaged.insert(at, byte),
            _ => drop(damaged.remove(at)),
        }
        if let Ok(checked) = check(&damaged).result {
            prop_assert_eq!(checked.manifest, good);
        }
    }
}
