//! The suites for ledgers and anchors, run on the implementations in memory.

use schemas_evidence::{Ledger, MemoryAnchor, MemoryLedger, NoteKey, conformance, sign_checkpoint};
use schemas_identity::SecretKey;

const ORIGIN: &str = "log.example/vitalog";

/// The ledger in memory is a ledger in every respect the suite knows.
#[test]
fn the_ledger_in_memory_conforms() {
    let key = NoteKey::log(ORIGIN, MemoryLedger::test_key().public()).unwrap();
    conformance::ledger(|| MemoryLedger::new(ORIGIN), &key);
}

/// The anchor in memory is an anchor in every respect the suite knows.
#[test]
fn the_anchor_in_memory_conforms() {
    let ledger = MemoryLedger::new(ORIGIN);
    let older = ledger.checkpoint().unwrap();
    let newer = sign_checkpoint(ORIGIN, 3, &[1; 32], &MemoryLedger::test_key()).unwrap();
    let forked = sign_checkpoint(ORIGIN, 3, &[2; 32], &MemoryLedger::test_key()).unwrap();
    let fresh = || MemoryAnchor::new("w.example", SecretKey::from_seed(&[5; 32]), 1_790_000_000);
    conformance::anchor(fresh, &older, &newer, &forked);
}
