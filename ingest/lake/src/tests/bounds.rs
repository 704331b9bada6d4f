//! Files that lie about their own numbers, made by whoever writes the files: digests fit, so only reading everything tells.

use schemas_evidence::FileRef;

use super::*;
use crate::bounds;

/// A scale that no other bytes of the file look like.
const DEN: u32 = 48_271;

fn scaled(seq: u64) -> Admitted {
    let key = SecretKey::from_seed(&[1; 32]);
    let mut one = series(1, 1_000_000, &[8_200, 8_300, 8_250 + seq as i64]);
    one.scale = Scale { num: 1, den: DEN };
    let t0_us = T0 + seq as i64 * 10_000_000;
    let frame =
        FrameBuilder::new(BootId([0; 8]), seq, [0; 16], Some(t0_us), seq).series(one).sign(&key).unwrap();
    Admitted { frame: frame.into(), ..super::frame(0, seq) }
}

/// Guarantee: a bound narrower than the numbers, which would hide rows from every query, and a constant that is none, which
/// would change their values, are found; and so is a manifest that leaves a time out.
#[test]
fn false_bounds_are_found() {
    let (directory, ledger) = (tempfile::tempdir().unwrap(), ledger());
    let lake = open(directory.path(), &ledger);
    lake.push((0..5).map(scaled).collect());
    lake.seal().unwrap().unwrap();
    let batch = Arc::clone(&lake.view().batches[0]);
    let of_kind = |kind| batch.manifest.files.iter().find(|file| file.kind == kind).unwrap().clone();
    let file = of_kind(schemas_evidence::FileKind::Scalar);
    let problem = |file: &FileRef| bounds::problem(directory.path(), file, &|| Ok(())).unwrap();
    for whole in &batch.manifest.files {
        assert_eq!(problem(whole), None);
    }
    // Long work can be ended: a station that stops does not wait for it.
    let stopped = bounds::problem(directory.path(), &file, &|| Err(LakeError::Stopped));
    assert!(matches!(stopped, Err(LakeError::Stopped)));
    let path = directory.path().join(&file.name);
    let good = std::fs::read(&path).unwrap();
    let lies: [(&str, Vec<u8>, Vec<u8>); 3] = [
        ("ts", T0.to_le_bytes().to_vec(), (T0 + 1).to_le_bytes().to_vec()),
        ("den", DEN.to_le_bytes().to_vec(), (DEN + 1).to_le_bytes().to_vec()),
        ("den", DEN.to_le_bytes().to_vec(), (DEN - 1).to_le_bytes().to_vec()),
    ];
    for (column, truth, lie) in lies {
        let mut bad = good.clone();
        let places: Vec<usize> =
            (0..good.len() - truth.len()).filter(|at| good[*at..].starts_with(&truth)).collect();
        assert!(!places.is_empty(), "{column} is told nowhere");
        for at in places {
            bad[at..at + lie.len()].copy_from_slice(&lie);
        }
        std::fs::write(&path, &bad).unwrap();
        assert_eq!(problem(&file), Some(format!("the file tells false bounds of {column}")));
    }
    std::fs::write(&path, &good).unwrap();
    let narrow = FileRef { ts_max_us: file.ts_max_us - 1, ..file.clone() };
    assert_eq!(problem(&narrow).as_deref(), Some("the manifest tells false bounds of ts"));
    let narrow = FileRef { device_min: 1, device_max: 1, ..file };
    assert_eq!(problem(&narrow).as_deref(), Some("the manifest tells false bounds of device"));
}
