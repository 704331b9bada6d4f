//! Proofs of logging: made by a ledger, taken apart, changed.

use super::*;
use crate::entry::{Entry, entry_leaf};
use crate::ledger::Ledger;
use crate::memory::MemoryLedger;
use crate::note::NoteKey;

fn logged(entries: u8) -> (MemoryLedger, Policy) {
    let ledger = MemoryLedger::new("example.com/log");
    let texts: Vec<Entry> = (0..entries).map(|n| Entry::Statement { commitment: [n; 32] }).collect();
    ledger.append(&texts).unwrap();
    let key = NoteKey::log("example.com/log", MemoryLedger::test_key().public()).unwrap();
    (ledger, Policy::of_log(key, &[]))
}

#[test]
fn each_entry_s_proof_reads_back_and_verifies_for_that_entry_only() {
    for size in [1u8, 2, 3, 7, 8, 9] {
        let (ledger, policy) = logged(size);
        for index in 0..u64::from(size) {
            let text = ledger.tlog_proof(index).unwrap();
            let proof = TlogProof::parse(&text).unwrap();
            assert_eq!(proof.to_text(), text);
            let entries = ledger.entries(0, u64::from(size)).unwrap();
            for (other, entry) in entries.iter().enumerate() {
                let verified = proof.verify(&entry_leaf(entry), &policy);
                assert_eq!(verified.is_ok(), other as u64 == index);
            }
        }
    }
}

#[test]
fn extra_data_is_carried_and_malformed_lines_are_named() {
    let (ledger, _) = logged(3);
    let mut proof = TlogProof::parse(&ledger.tlog_proof(1).unwrap()).unwrap();
    proof.extra = Some(b"anything".to_vec());
    let text = proof.to_text();
    assert_eq!(TlogProof::parse(&text).unwrap(), proof);
    let check = |changed: String, line| {
        assert_eq!(TlogProof::parse(&changed), Err(TlogProofError::Line { line }), "{changed}");
    };
    check(text.replace("proof@v1", "proof@v2"), 1);
    check(text.replace("extra ", "extra  "), 2);
    check(text.replace("index 1", "index 01"), 3);
    check(text.replace("index 1\n", "index 1\nAAAA\n"), 4);
    check(String::new(), 1);
    let long = format!("{MAGIC}\nindex 0\n{}\n", "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n".repeat(65));
    assert_eq!(TlogProof::parse(&long), Err(TlogProofError::TooManyHashes));
}
