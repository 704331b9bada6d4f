//! A small evidence file with fixed keys, for tests here and for the published vectors.

use schemas_frame::{FrameBuilder, OutSeries, OutValues, Scale};
use schemas_identity::statement::{Enrol, Rotate, proof_of_possession, sign};
use schemas_identity::{Body, BootId, SecretKey};

use super::{BatchPath, Evidence};
use crate::entry::Entry;
use crate::ledger::Ledger;
use crate::memory::MemoryLedger;
use crate::merkle::{self, Blake3Frames, frame_leaf};
use crate::note::NoteKey;
use crate::policy::Policy;

/// The log's name in the sample.
pub const ORIGIN: &str = "log.example/vitalog";

/// The maker, who enrols the device.
pub fn maker() -> SecretKey {
    SecretKey::from_seed(&[0x21; 32])
}

/// The device's key number `n`; 0 is its first.
pub fn device(n: u8) -> SecretKey {
    SecretKey::from_seed(&[0x40 + n; 32])
}

/// The policy that believes the sample's log and maker.
pub fn policy() -> Policy {
    // A literal name without spaces cannot be refused.
    match NoteKey::log(ORIGIN, MemoryLedger::test_key().public()) {
        Ok(key) => Policy::of_log(key, &[maker().public().did()]),
        Err(_) => Policy::default(),
    }
}

/// The device's statements up to key number `rotations`.
pub fn enrolment(rotations: u8) -> String {
    let signer = maker().public().did();
    let first = Body::Enrol(Enrol {
        device_key: device(0).public().did(),
        model: "sample-1".to_owned(),
        signals: vec!["heart_rate".to_owned()],
        pop: proof_of_possession(ORIGIN, &signer, &device(0)),
    });
    let mut statements = vec![sign(&first, ORIGIN, 1_790_000_000, [1; 16], &maker())];
    for n in 0..rotations {
        let rotate = Body::Rotate(Rotate {
            old: device(n).public().did(),
            new: device(n + 1).public().did(),
            pop: proof_of_possession(ORIGIN, &signer, &device(n + 1)),
        });
        let nonce = [2 + n; 16];
        statements.push(sign(&rotate, ORIGIN, 1_790_000_001, nonce, &maker()));
    }
    statements.join("\n")
}

/// Frame number `seq` of the device, signed with key number `key`.
pub fn frame(key: u8, seq: u64) -> Option<Vec<u8>> {
    let series = OutSeries {
        signal: 1,
        offset_us: 0,
        period_us: 1_000_000,
        scale: Scale { num: 1, den: 100 },
        values: OutValues::U16(vec![8272, 8300, 8100 + seq as u16]),
        deltas: None,
        quality: None,
    };
    let builder = FrameBuilder::new(BootId([0xb0; 8]), seq, [0; 16], Some(1_790_000_000_000_000), 5);
    builder.series(series).sign(&device(key)).ok()
}

/// A whole evidence file: frame 2 of a batch of 5, whose entry is number 3 of a log of 6.
pub fn evidence(rotations: u8) -> Option<Evidence> {
    let frames: Vec<Vec<u8>> = (0..5).map(|seq| frame(rotations, seq)).collect::<Option<_>>()?;
    let leaves: Vec<_> = frames.iter().map(|frame| frame_leaf(frame)).collect();
    let entry = Entry::Batch {
        id: "00112233445566778899aabbccddeeff".to_owned(),
        frames: 5,
        root: merkle::root::<Blake3Frames>(&leaves),
        manifest: [0x11; 32],
        ranges: [0x22; 32],
        from_us: 1_790_000_000_000_000,
        to_us: 1_790_000_000_000_000,
    };
    let ledger = MemoryLedger::new(ORIGIN);
    let other = |n| Entry::Statement { commitment: [n; 32] };
    ledger.append(&[other(0), other(1), other(2), entry.clone(), other(4), other(5)]).ok()?;
    Some(Evidence {
        frame: frames.get(2)?.clone(),
        enrolment: enrolment(rotations),
        path: BatchPath { index: 2, size: 5, path: merkle::inclusion_path::<Blake3Frames>(&leaves, 2).ok()? },
        entry: entry.to_text(),
        proof: ledger.tlog_proof(3).ok()?,
        anchors: Vec::new(),
    })
}
