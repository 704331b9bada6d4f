//! A small manifest of an answer with fixed keys, for tests here and in the verifier.

use super::{AnswerBytes, AnswerManifest, AnswerProof, Hex32, ProvedEntry, Rerun};
use crate::entry::Entry;
use crate::evidence::sample::{ORIGIN, maker};
use crate::ledger::{Ledger, LedgerError};
use crate::memory::MemoryLedger;
use crate::merkle::{self, Sha256Rfc6962};

/// The statement.
pub const SQL: &str = "SELECT subject, value FROM readings ORDER BY ts";
/// The answer's bytes.
pub const RESULT: &[u8] = b"subject,value\na1,60\n";
/// The log size read.
const READ: u64 = 5;

/// The log of the sample: two batches and a set below size 5, a third batch after it, an access and its completion.
pub fn ledger() -> Result<MemoryLedger, LedgerError> {
    let batch = |n: u8| Entry::Batch {
        id: hex::encode([n; 16]),
        frames: 5,
        root: [n; 32],
        manifest: [n + 1; 32],
        ranges: [n + 2; 32],
        from_us: 1,
        to_us: 2,
    };
    let statement = Entry::Statement { commitment: [9; 32] };
    let ledger = MemoryLedger::new(ORIGIN);
    ledger.append(&[
        statement.clone(),
        batch(1),
        batch(2),
        Entry::Compact { manifest: [7; 32] },
        statement,
        batch(3),
        Entry::Query { commitment: [5; 32], epoch: 2 },
        Entry::Result { commitment: [6; 32] },
    ])?;
    Ok(ledger)
}

/// A whole manifest over [`ledger`], signed by its key.
pub fn manifest() -> Result<AnswerManifest, LedgerError> {
    let ledger = ledger()?;
    let leaves: Vec<_> = ledger.entries(0, READ)?.iter().map(|text| crate::entry_leaf(text)).collect();
    let mut manifest = AnswerManifest {
        v: 1,
        origin: ORIGIN.to_owned(),
        id: hex::encode([0xab; 16]),
        principal: maker().public().did(),
        purpose: "HRESCH".to_owned(),
        study: Some("sleep".to_owned()),
        sql_blake3: Hex32(*blake3::hash(SQL.as_bytes()).as_bytes()),
        asked_us: 1_790_000_000_000_000,
        log_size: READ,
        log_root: Hex32(merkle::root::<Sha256Rfc6962>(&leaves)),
        batches: 2,
        sets: 1,
        live_tail: false,
        consent_epoch: 2,
        query_index: 6,
        result_index: Some(7),
        rows: 1,
        rerun: Some(Rerun { of: hex::encode([0xcd; 16]), withdrawn: 3, joined: 0, changed: 1 }),
        result: AnswerBytes {
            media: "text/csv".to_owned(),
            bytes: RESULT.len() as u64,
            blake3: Hex32(*blake3::hash(RESULT).as_bytes()),
        },
        signed: String::new(),
        sql: Some(SQL.to_owned()),
        proof: Some(proof(&ledger, &[1, 2, 3, 6, 7])?),
    };
    manifest.sign(&MemoryLedger::test_key())?;
    Ok(manifest)
}

/// Proofs of these entries under the newest checkpoint of a log, of which the first five were read.
pub fn proof(ledger: &MemoryLedger, indices: &[u64]) -> Result<AnswerProof, LedgerError> {
    let size = ledger.size();
    let hashes = |path: Vec<merkle::Hash32>| path.into_iter().map(Hex32).collect();
    let mut entries = Vec::new();
    for index in indices {
        let entry = ledger.entries(*index, index + 1)?.pop().unwrap_or_default();
        entries.push(ProvedEntry { index: *index, entry, path: hashes(ledger.inclusion(*index, size)?) });
    }
    Ok(AnswerProof {
        checkpoint: ledger.checkpoint()?,
        consistency: hashes(ledger.consistency(READ, size)?),
        entries,
    })
}
