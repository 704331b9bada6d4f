//! The evidence file: what holds, and that nothing else does.

use schemas_identity::{Body, SecretKey};

use super::sample;
use super::*;
use crate::checkpoint::cosign_checkpoint;
use crate::entry::Entry;
use crate::ledger::Ledger;
use crate::memory::MemoryLedger;
use crate::merkle::{self, Blake3Frames, frame_leaf};
use crate::note::NoteKey;
use crate::proof::TlogProof;

fn good() -> Evidence {
    sample::evidence(0).unwrap()
}

fn refused_at(evidence: &Evidence) -> Step {
    Evidence::verify(&evidence.to_bytes().unwrap(), &sample::policy()).unwrap_err().step()
}

#[test]
fn a_good_file_verifies_and_says_what_it_proves_and_what_not() {
    let bytes = good().to_bytes().unwrap();
    let verified = Evidence::verify(&bytes, &sample::policy()).unwrap();
    assert_eq!((verified.seq, verified.leaf, verified.frames, verified.log_index), (2, 2, 5, 3));
    assert_eq!(verified.device.id, sample::device(0).public().short_id());
    assert_eq!(verified.checkpoint.size, 6);
    assert!(verified.unproved.iter().any(|sentence| sentence.contains("no witness")));
    let all = Verification::run(&bytes, &sample::policy(), Strictness::Everything);
    assert!(all.steps.iter().all(|report| matches!(report.outcome, Outcome::Holds(_))));
}

#[test]
fn any_one_changed_byte_is_refused_with_a_step_named() {
    let policy = sample::policy();
    for rotations in [0, 1] {
        let bytes = sample::evidence(rotations).unwrap().to_bytes().unwrap();
        let mut steps = std::collections::BTreeSet::new();
        for at in 0..bytes.len() {
            for change in [0x01, 0x20, 0x80] {
                let mut changed = bytes.clone();
                changed[at] ^= change;
                let error =
                    Evidence::verify(&changed, &policy).expect_err(&format!("byte {at} ^ {change:#x}"));
                steps.insert(error.step());
            }
        }
        let expected = [Step::Format, Step::Frame, Step::Enrolment, Step::Entry, Step::Path, Step::Proof];
        assert!(expected.iter().all(|step| steps.contains(step)), "{steps:?}");
    }
}

#[test]
fn cut_and_lengthened_files_are_refused() {
    let bytes = good().to_bytes().unwrap();
    for length in 0..bytes.len() {
        assert_eq!(Evidence::verify(&bytes[..length], &sample::policy()).unwrap_err().step(), Step::Format);
    }
    let longer = [bytes.as_slice(), &[0]].concat();
    assert_eq!(Evidence::verify(&longer, &sample::policy()).unwrap_err().step(), Step::Format);
}

#[test]
fn another_encoding_of_the_same_content_is_refused() {
    let evidence = good();
    let bytes = evidence.to_bytes().unwrap();
    assert_eq!(bytes[..4], [0xa7, 0x61, b'v', 0x01]);
    let long_number = [&bytes[..3], &[0x18, 0x01], &bytes[4..]].concat();
    assert!(matches!(Evidence::parse(&long_number), Err(FormatError::NotDeterministic { at: 3 })));
    let indefinite = [&[0xbf], &bytes[1..], &[0xff]].concat();
    assert!(Evidence::parse(&indefinite).is_err());
    let swapped = [&[0xa7], &bytes[4..], &bytes[1..4]].concat();
    assert!(Evidence::parse(&swapped).is_err());
}

#[test]
fn a_rotated_key_is_followed_statement_by_statement() {
    let evidence = sample::evidence(2).unwrap();
    let verified = Evidence::verify(&evidence.to_bytes().unwrap(), &sample::policy()).unwrap();
    assert_eq!((verified.device.rotations, verified.device.id), (2, sample::device(0).public().short_id()));
    assert_eq!(verified.device.key, sample::device(2).public());

    let lines: Vec<&str> = evidence.enrolment.split('\n').collect();
    for chain in
        [vec![lines[0]], vec![lines[0], lines[1]], vec![lines[0], lines[2]], vec![lines[1], lines[2]]]
    {
        let broken = Evidence { enrolment: chain.join("\n"), ..evidence.clone() };
        assert!(matches!(refused_at(&broken), Step::Enrolment | Step::Frame));
    }
    let endless = Evidence { enrolment: vec![lines[0]; ENROLMENT_STATEMENTS_MAX + 1].join("\n"), ..evidence };
    assert_eq!(refused_at(&endless), Step::Enrolment);
}

#[test]
fn a_maker_the_policy_does_not_name_proves_nothing() {
    let key = NoteKey::log(sample::ORIGIN, MemoryLedger::test_key().public()).unwrap();
    let stranger = SecretKey::from_seed(&[0x77; 32]).public().did();
    let policy = Policy::of_log(key, &[stranger]);
    let error = Evidence::verify(&good().to_bytes().unwrap(), &policy).unwrap_err();
    assert!(matches!(error, EvidenceError::Maker { .. }) && error.step() == Step::Enrolment);
}

#[test]
fn a_rotation_signed_by_another_maker_than_the_enrolment_is_refused() {
    let evidence = sample::evidence(1).unwrap();
    let other = SecretKey::from_seed(&[0x78; 32]);
    let line = evidence.enrolment.split('\n').nth(1).unwrap();
    let statement = schemas_identity::Statement::parse(line, sample::ORIGIN).unwrap();
    assert!(matches!(statement.body, Body::Rotate(_)));
    let forged = schemas_identity::statement::sign(&statement.body, sample::ORIGIN, 1, [9; 16], &other);
    let enrolment = evidence.enrolment.replace(line, &forged);
    assert_eq!(refused_at(&Evidence { enrolment, ..evidence }), Step::Enrolment);
}

#[test]
fn pieces_of_other_evidence_do_not_fit_and_the_step_says_where() {
    let evidence = good();
    let other_frame = Evidence { frame: sample::frame(0, 3).unwrap(), ..evidence.clone() };
    assert_eq!(refused_at(&other_frame), Step::Path);
    let foreign_frame = Evidence { frame: sample::frame(1, 2).unwrap(), ..evidence.clone() };
    assert_eq!(refused_at(&foreign_frame), Step::Frame);
    let mut wider = evidence.clone();
    wider.path.size = 6;
    assert_eq!(refused_at(&wider), Step::Path);
    let no_batch = Evidence { entry: Entry::Statement { commitment: [3; 32] }.to_text(), ..evidence.clone() };
    assert_eq!(refused_at(&no_batch), Step::Entry);
    let mut proof = TlogProof::parse(&evidence.proof).unwrap();
    proof.index = 2;
    assert_eq!(refused_at(&Evidence { proof: proof.to_text(), ..evidence.clone() }), Step::Proof);
    proof.index = 3;
    proof.extra = Some(vec![1]);
    assert_eq!(refused_at(&Evidence { proof: proof.to_text(), ..evidence }), Step::Proof);
}

#[test]
fn a_self_made_log_with_a_forged_batch_fails_at_the_policy() {
    let mut evidence = good();
    let leaf = frame_leaf(&evidence.frame);
    let entry = Entry::Batch {
        id: "00".repeat(16),
        frames: 1,
        root: merkle::root::<Blake3Frames>(&[leaf]),
        manifest: [0; 32],
        ranges: [0; 32],
        from_us: 0,
        to_us: 0,
    };
    let forger = MemoryLedger::with_key(sample::ORIGIN, SecretKey::from_seed(&[0x79; 32]));
    forger.append(std::slice::from_ref(&entry)).unwrap();
    evidence.entry = entry.to_text();
    evidence.path = BatchPath { index: 0, size: 1, path: Vec::new() };
    evidence.proof = forger.tlog_proof(0).unwrap();
    assert_eq!(refused_at(&evidence), Step::Policy);
}

#[test]
fn what_cannot_be_checked_refuses_unless_it_may_be_ignored_and_then_it_is_listed() {
    let mut evidence = good();
    let mut proof = TlogProof::parse(&evidence.proof).unwrap();
    proof.checkpoint =
        cosign_checkpoint(&proof.checkpoint, "stranger", &SecretKey::from_seed(&[0x7a; 32]), 1).unwrap();
    evidence.proof = proof.to_text();
    assert_eq!(refused_at(&evidence), Step::Policy);
    evidence.anchors = vec![AnchorRef { kind: "moon".into(), receipt: vec![1, 2] }];
    let bytes = evidence.to_bytes().unwrap();
    let lenient = Verification::run(&bytes, &sample::policy(), Strictness::KnownParts).result.unwrap();
    assert!(lenient.unproved.iter().any(|sentence| sentence.contains("stranger")));
    assert!(lenient.unproved.iter().any(|sentence| sentence.contains("moon")));
    evidence.proof = good().proof;
    assert_eq!(refused_at(&evidence), Step::Anchors);
}

#[test]
fn parts_beyond_their_limit_are_refused_before_they_are_looked_at() {
    let mut evidence = good();
    evidence.path.path = vec![[0; 32]; PATH_MAX + 1];
    assert!(matches!(evidence.to_bytes(), Err(FormatError::Limit { part: "path", .. })));
    let huge = vec![0xa7; EVIDENCE_BYTES_MAX + 1];
    assert!(matches!(Evidence::parse(&huge), Err(FormatError::TooLong { .. })));
    // An array that claims 2^60 elements must not be believed.
    let mut bytes = good().to_bytes().unwrap();
    let at = bytes.windows(4).position(|window| window == b"path").unwrap();
    bytes.splice(at + 10.., [0x9b, 0x10, 0, 0, 0, 0, 0, 0, 0]);
    assert!(Evidence::parse(&bytes).is_err());
}
