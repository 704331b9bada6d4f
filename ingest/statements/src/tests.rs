//! Statements against crashes, repetition and strangers.

use schemas_evidence::MemoryLedger;
use schemas_identity::SecretKey;
use schemas_identity::statement::{Body, proof_of_possession, sign};
use serde_json::{Value, json};

use super::*;

const ORIGIN: &str = "example.org/log";

fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed(&[seed; 32])
}

fn compact(kind: &str, fields: Value, by: u8, nonce: u8) -> String {
    let body = Body::from_fields(kind, fields.as_object().unwrap().clone()).unwrap();
    sign(&body, ORIGIN, 0, [nonce; 16], &key(by))
}

fn maker(nonce: u8) -> String {
    compact("maker", json!({"party": key(2).public().did()}), 1, nonce)
}

fn enrol() -> String {
    let pop = proof_of_possession(ORIGIN, &key(2).public().did(), &key(3));
    compact("enrol", json!({"device_key": key(3).public().did(), "pop": pop}), 2, 0)
}

fn open(directory: &Path, ledger: &Arc<MemoryLedger>) -> Statements {
    Statements::open(directory, ledger.clone(), ORIGIN, vec![key(1).public().did()]).unwrap()
}

/// Guarantee: what was receipted is in force after a restart, in the same place; repeating it changes nothing.
#[test]
fn receipts_survive_restarts() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = Arc::new(MemoryLedger::new(ORIGIN));
    let statements = open(directory.path(), &ledger);
    let first = statements.submit(&maker(0), 0).unwrap();
    let second = statements.submit(&enrol(), 0).unwrap();
    assert_eq!((first.log_index, second.log_index, second.epoch), (0, 2, 2));
    assert_eq!(statements.submit(&enrol(), 0).unwrap(), second);
    drop(statements);
    let again = open(directory.path(), &ledger);
    assert_eq!(again.submit(&enrol(), 0).unwrap(), second);
    assert_eq!((again.epoch(), ledger.size()), (2, 4));
    assert!(again.register().device_by_kid(key(3).public().short_id()).is_some());
}

/// Guarantee: a crash between book and log leaves a statement that the next start commits, once.
#[test]
fn a_statement_in_the_book_alone_is_committed_at_the_next_start() {
    let directory = tempfile::tempdir().unwrap();
    let full = Arc::new(MemoryLedger::new(ORIGIN));
    open(directory.path(), &full).submit(&maker(0), 0).unwrap();
    let empty = Arc::new(MemoryLedger::new(ORIGIN));
    assert_eq!(open(directory.path(), &empty).epoch(), 1);
    assert_eq!(empty.size(), 2);
    assert_eq!(open(directory.path(), &empty).epoch(), 1);
    assert_eq!(empty.size(), 2);
}

/// Guarantee: a torn last record goes, a damaged earlier one stops the start.
#[test]
fn torn_and_damaged_records() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = Arc::new(MemoryLedger::new(ORIGIN));
    let statements = open(directory.path(), &ledger);
    statements.submit(&maker(0), 0).unwrap();
    statements.submit(&enrol(), 0).unwrap();
    drop(statements);
    let path = directory.path().join("book.log");
    let whole = std::fs::read(&path).unwrap();
    let mut torn = whole.clone();
    torn.extend_from_slice(&whole[..100]);
    std::fs::write(&path, &torn).unwrap();
    assert_eq!(open(directory.path(), &ledger).epoch(), 2);
    let mut damaged = whole.clone();
    damaged[60] ^= 1;
    std::fs::write(&path, &damaged).unwrap();
    let result = Statements::open(directory.path(), ledger.clone(), ORIGIN, vec![key(1).public().did()]);
    assert!(matches!(result, Err(OpenError::Book(BookError::Damaged { offset: 0, .. }))));
    std::fs::write(&path, b"").unwrap();
    let result = Statements::open(directory.path(), ledger.clone(), ORIGIN, vec![key(1).public().did()]);
    assert!(matches!(result, Err(OpenError::Missing(2))));
}

/// Guarantee: refusals say which kind they are, and leave nothing behind.
#[test]
fn refusals() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = Arc::new(MemoryLedger::new(ORIGIN));
    let statements = open(directory.path(), &ledger);
    assert_eq!(statements.submit("x", 0).unwrap_err().parts().2, 400);
    assert_eq!(statements.submit(&enrol(), 0).unwrap_err().parts().0, "not-a-maker");
    let body = Body::from_fields("erase", json!({"scope": "all"}).as_object().unwrap().clone()).unwrap();
    let other = sign(&body, "other.org/log", 0, [0; 16], &key(5));
    assert_eq!(statements.submit(&other, 0).unwrap_err().parts().0, "audience");
    let future = sign(&body, ORIGIN, 10_000, [0; 16], &key(5));
    assert_eq!(statements.submit(&future, 0).unwrap_err().parts().0, "clock");
    assert_eq!(ledger.size(), 0);
}

/// Guarantee: an observer sees every statement once, in order, before the receipt.
#[test]
fn observers_see_all_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = Arc::new(MemoryLedger::new(ORIGIN));
    let statements = open(directory.path(), &ledger);
    statements.submit(&maker(0), 0).unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = seen.clone();
    statements.observe(Box::new(move |_, index, epoch| sink.lock().push((index, epoch))));
    statements.submit(&enrol(), 0).unwrap();
    assert_eq!(*seen.lock(), [(0, 1), (2, 2)]);
}

/// Guarantee: a statement removed from the book or changed in it, and an epoch that others made up, are named by the audit.
#[test]
fn the_audit_compares_book_and_log() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = Arc::new(MemoryLedger::new(ORIGIN));
    let statements = open(directory.path(), &ledger);
    statements.submit(&maker(0), 0).unwrap();
    statements.submit(&enrol(), 0).unwrap();
    drop(statements);
    let found = |ledger: &Arc<MemoryLedger>, directory: &Path, origin: &str| {
        audit(directory, ledger.as_ref(), origin).unwrap().join("; ")
    };
    assert_eq!(found(&ledger, directory.path(), ORIGIN), "");
    let elsewhere = tempfile::tempdir().unwrap();
    assert!(found(&ledger, elsewhere.path(), ORIGIN).contains("log entry 2: its statement"));
    assert!(found(&ledger, directory.path(), "example.org/other").contains("statement"));
    let empty = Arc::new(MemoryLedger::new(ORIGIN));
    assert_eq!(found(&empty, directory.path(), ORIGIN), "2 statements of the book are not in the log");
    ledger.append(&[Entry::ConsentEpoch { epoch: 3, root: [9; 32] }]).unwrap();
    assert!(found(&ledger, directory.path(), ORIGIN).contains("epoch 3"));
}
