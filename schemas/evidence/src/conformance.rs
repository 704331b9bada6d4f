//! What every `Ledger` and every `Anchor` must do, as functions that panic when it does not.
//!
//! An implementation calls these from its own tests (feature `conformance`). What it is not: about durability; a crash is
//! the implementation's own affair, since only it knows its files.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test suite speaks by panicking"
)]

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::thread;

use crate::entry::{Entry, entry_leaf};
use crate::ledger::{Anchor, AnchorError, ENTRIES_PER_READ_MAX, Ledger, LedgerError, Receipt, Ticket};
use crate::merkle::{self, Hash32, Sha256Rfc6962};
use crate::note::NoteKey;
use crate::policy::Policy;
use crate::proof::TlogProof;
use crate::{Checkpoint, open_checkpoint};

pub use crate::evidence::sample;

/// Sizes around the borders where trees and tiles change shape.
const SIZES: [u64; 12] = [1, 2, 3, 7, 8, 9, 255, 256, 257, 511, 513, 700];

/// Runs the whole suite. `fresh` gives an empty log whose checkpoints `key` signs.
pub fn ledger<L: Ledger>(fresh: impl Fn() -> L, key: &NoteKey) {
    an_empty_log_has_a_signed_checkpoint(&fresh(), key);
    indices_are_contiguous_and_texts_read_back(&fresh(), key);
    a_refused_entry_leaves_no_trace(&fresh());
    every_size_is_proved_to_extend_every_older_one(&fresh(), key);
    proofs_verify_offline(&fresh(), key);
    concurrent_appends_keep_each_caller_s_order(&fresh(), key);
}

fn statement(n: u64) -> Entry {
    let mut commitment = [0; 32];
    commitment[..8].copy_from_slice(&n.to_be_bytes());
    Entry::Statement { commitment }
}

fn head(ledger: &dyn Ledger, key: &NoteKey) -> Checkpoint {
    open_checkpoint(&ledger.checkpoint().unwrap(), key).expect("the checkpoint verifies")
}

fn an_empty_log_has_a_signed_checkpoint(ledger: &dyn Ledger, key: &NoteKey) {
    let head = head(ledger, key);
    assert_eq!((head.origin.as_str(), head.size), (ledger.origin(), 0));
    assert_eq!(head.root, merkle::root::<Sha256Rfc6962>(&[]));
    assert_eq!(ledger.size(), 0);
    assert_eq!(ledger.append(&[]).unwrap(), Vec::<u64>::new());
    assert!(ledger.entries(0, 0).unwrap().is_empty());
    assert!(ledger.tlog_proof(0).is_err());
}

fn indices_are_contiguous_and_texts_read_back(ledger: &dyn Ledger, key: &NoteKey) {
    let mut expected = Vec::new();
    for count in [1u64, 3, 300, 1] {
        let from = expected.len() as u64;
        let batch: Vec<Entry> = (from..from + count).map(statement).collect();
        assert_eq!(ledger.append(&batch).unwrap(), (from..from + count).collect::<Vec<_>>());
        expected.extend(batch.iter().map(Entry::to_text));
        assert_eq!(ledger.size(), from + count, "append returns once a checkpoint covers it");
        assert!(head(ledger, key).size >= from + count);
    }
    let size = expected.len() as u64;
    assert_eq!(ledger.entries(0, size).unwrap(), expected);
    assert_eq!(ledger.entries(254, 258).unwrap(), expected[254..258]);
    for (from, to) in [(0, size + 1), (2, 1), (u64::MAX, u64::MAX), (0, ENTRIES_PER_READ_MAX + 1)] {
        assert!(matches!(ledger.entries(from, to), Err(LedgerError::Range { .. })), "{from}..{to}");
    }
}

fn a_refused_entry_leaves_no_trace(ledger: &dyn Ledger) {
    let hash = [0; 32];
    let id = "not hex".to_owned();
    let broken =
        Entry::Batch { id, frames: 1, root: hash, manifest: hash, ranges: hash, from_us: 0, to_us: 0 };
    assert!(matches!(ledger.append(&[statement(0), broken]), Err(LedgerError::Entry(_))));
    assert_eq!(ledger.size(), 0);
    assert_eq!(ledger.append(&[statement(1)]).unwrap(), [0]);
}

fn every_size_is_proved_to_extend_every_older_one(ledger: &dyn Ledger, key: &NoteKey) {
    let mut heads: Vec<Checkpoint> = Vec::new();
    for size in SIZES {
        let batch: Vec<Entry> = (ledger.size()..size).map(statement).collect();
        ledger.append(&batch).unwrap();
        heads.push(head(ledger, key));
    }
    let texts = ledger.entries(0, ledger.size()).unwrap();
    let leaves: Vec<Hash32> = texts.iter().map(|text| entry_leaf(text)).collect();
    for (at, new) in heads.iter().enumerate() {
        assert_eq!(new.root, merkle::root::<Sha256Rfc6962>(&leaves[..new.size as usize]));
        for old in &heads[..=at] {
            let path = ledger.consistency(old.size, new.size).unwrap();
            let verdict =
                merkle::verify_consistency::<Sha256Rfc6962>(old.size, new.size, &path, &old.root, &new.root);
            assert_eq!(verdict, Ok(()), "{} to {}", old.size, new.size);
        }
        for index in [0, new.size / 2, new.size - 1] {
            let path = ledger.inclusion(index, new.size).unwrap();
            let leaf = &leaves[index as usize];
            merkle::verify_inclusion::<Sha256Rfc6962>(leaf, index, new.size, &path, &new.root).unwrap();
        }
    }
    let size = ledger.size();
    assert!(ledger.inclusion(size, size).is_err() && ledger.inclusion(0, size + 1).is_err());
    assert!(ledger.consistency(0, size).is_err() && ledger.consistency(1, size + 1).is_err());
    assert!(ledger.consistency(size, 1).is_err());
}

fn proofs_verify_offline(ledger: &dyn Ledger, key: &NoteKey) {
    let policy = Policy::of_log(key.clone(), &[]);
    ledger.append(&(0..300).map(statement).collect::<Vec<_>>()).unwrap();
    for index in [0, 1, 255, 256, 299] {
        let proof = TlogProof::parse(&ledger.tlog_proof(index).unwrap()).unwrap();
        let leaf = entry_leaf(&statement(index).to_text());
        assert_eq!(proof.verify(&leaf, &policy).unwrap().checkpoint.size, 300);
        assert!(proof.verify(&[0; 32], &policy).is_err());
    }
}

fn concurrent_appends_keep_each_caller_s_order(ledger: &dyn Ledger, key: &NoteKey) {
    const CALLERS: u64 = 8;
    const ROUNDS: u64 = 20;
    let seen = Mutex::new(BTreeSet::new());
    thread::scope(|scope| {
        for caller in 0..CALLERS {
            let seen = &seen;
            scope.spawn(move || {
                let mut last = None;
                for round in 0..ROUNDS {
                    let own: Vec<Entry> = (0..3).map(|n| statement(caller << 32 | round << 8 | n)).collect();
                    let indices = ledger.append(&own).unwrap();
                    let first = indices[0];
                    assert_eq!(indices, (first..first + 3).collect::<Vec<_>>());
                    assert!(last < Some(first), "a later call got an earlier index");
                    last = Some(first);
                    let texts: Vec<String> = own.iter().map(Entry::to_text).collect();
                    assert_eq!(ledger.entries(first, first + 3).unwrap(), texts);
                    seen.lock().unwrap().extend(indices);
                }
            });
        }
    });
    let total = CALLERS * ROUNDS * 3;
    assert_eq!(seen.into_inner().unwrap(), (0..total).collect());
    let texts = ledger.entries(0, total).unwrap();
    let leaves: Vec<Hash32> = texts.iter().map(|text| entry_leaf(text)).collect();
    assert_eq!(head(ledger, key).root, merkle::root::<Sha256Rfc6962>(&leaves));
}

/// Runs the suite for anchors. `older` and `newer` are checkpoints of one log in this order; `forked` has the size of `newer`
/// and another root.
pub fn anchor<A: Anchor>(fresh: impl Fn() -> A, older: &str, newer: &str, forked: &str) {
    let anchor = fresh();
    let mut receipts = Vec::new();
    for checkpoint in [older, newer] {
        let ticket = anchor.submit(checkpoint).unwrap();
        let receipt = wait_for(&anchor, &ticket);
        assert_eq!(receipt.kind, anchor.kind());
        anchor.verify(&receipt, checkpoint).unwrap();
        receipts.push(receipt);
    }
    assert!(anchor.verify(&receipts[0], newer).is_err(), "a receipt speaks of one checkpoint");
    assert!(anchor.verify(&receipts[1], older).is_err());
    for at in 0..receipts[1].bytes.len() {
        let mut changed = receipts[1].clone();
        changed.bytes[at] ^= 1;
        assert!(anchor.verify(&changed, newer).is_err(), "byte {at} of the receipt");
    }
    assert!(
        matches!(anchor.submit(forked), Err(AnchorError::Fork { .. })),
        "another history of the same size"
    );
    assert!(matches!(anchor.submit(older), Err(AnchorError::Fork { .. })), "a log that shrank");
    let unknown = Ticket("no such ticket".to_owned());
    assert!(matches!(anchor.poll(&unknown), Err(AnchorError::UnknownTicket { .. })));
}

fn wait_for<A: Anchor>(anchor: &A, ticket: &Ticket) -> Receipt {
    for _ in 0..600 {
        if let Some(receipt) = anchor.poll(ticket).unwrap() {
            return receipt;
        }
        thread::sleep(std::time::Duration::from_millis(100));
    }
    panic!("no receipt within a minute");
}
