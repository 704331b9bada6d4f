//! The lake against crashes, meddlers and its own readers.

use arrow::array::AsArray;
use arrow::datatypes::{Int64Type, TimestampMicrosecondType, UInt32Type};
use schemas_evidence::{MemoryLedger, frame_leaf, merkle, merkle::Blake3Frames};
use schemas_frame::{FrameBuilder, OutSeries, OutValues, Scale};
use schemas_identity::{BootId, SecretKey};

use super::*;

mod bounds;
mod column;
mod compacted;
mod rebuilt;

const T0: i64 = 1_644_226_061_000_000;

fn series(signal: u32, period_us: u64, raws: &[i64]) -> OutSeries {
    OutSeries {
        signal,
        offset_us: 0,
        period_us,
        scale: Scale { num: 1, den: 100 },
        values: OutValues::narrowest(raws).unwrap(),
        deltas: None,
        quality: None,
    }
}

fn frame(device: u32, seq: u64) -> Admitted {
    let key = SecretKey::from_seed(&[device as u8 + 1; 32]);
    let t0_us = T0 + seq as i64 * 10_000_000;
    let wave: Vec<i64> = (0..320).map(|i| (i * 7 + seq as i64) % 128).collect();
    let bytes = FrameBuilder::new(BootId([device as u8; 8]), seq, [0; 16], Some(t0_us), seq * 10_000_000)
        .series(series(1, 1_000_000, &[8_200, 8_300, 8_250 + seq as i64]))
        .series(series(14, 31_250, &wave))
        .sign(&key)
        .unwrap();
    Admitted {
        position: seq,
        device,
        t0_us,
        received_us: t0_us,
        flags: 0,
        code: Code::Ok,
        frame: bytes.into(),
    }
}

fn open(directory: &Path, ledger: &Arc<MemoryLedger>) -> Lake {
    Lake::open(Options::new(directory), ledger.clone()).unwrap()
}

fn ledger() -> Arc<MemoryLedger> {
    Arc::new(MemoryLedger::new("example.org/log"))
}

fn sealed(directory: &Path, ledger: &Arc<MemoryLedger>) -> (Lake, String) {
    let lake = open(directory, ledger);
    lake.push((0..5).flat_map(|seq| [frame(1, seq), frame(0, seq)]).collect());
    let id = lake.seal().unwrap().unwrap().batch.manifest.batch.clone();
    (lake, id)
}

fn findings(directory: &Path, ledger: &Arc<MemoryLedger>) -> Vec<Finding> {
    audit(directory, ledger.as_ref(), &mut |_, _| {}).unwrap()
}

/// Guarantee: rows are visible before and after the seal, once, and come out as they were sent.
#[test]
fn rows_are_never_doubled_or_lost() {
    let (directory, ledger) = (tempfile::tempdir().unwrap(), ledger());
    let lake = open(directory.path(), &ledger);
    lake.push(vec![frame(0, 0), frame(0, 1)]);
    let rows =
        |chunks: &[arrow::array::RecordBatch]| chunks.iter().map(|chunk| chunk.num_rows()).sum::<usize>();
    assert_eq!(
        (rows(&lake.view().tail_rows().unwrap().scalar), rows(&lake.view().tail_rows().unwrap().wave)),
        (6, 2)
    );
    lake.seal().unwrap().unwrap();
    let view = lake.view();
    assert_eq!((rows(&view.tail_rows().unwrap().scalar), view.batches.len(), view.log_size), (0, 1, 1));
    let file = std::fs::File::open(
        directory
            .path()
            .join(&view.batches[0].manifest.files.iter().find(|file| file.rows == 6).unwrap().name),
    );
    let reader =
        parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(file.unwrap()).unwrap();
    let stored = reader.build().unwrap().next().unwrap().unwrap();
    let raw: Vec<i64> = stored["raw"].as_primitive::<Int64Type>().values().to_vec();
    assert_eq!(raw, [8_200, 8_300, 8_250, 8_200, 8_300, 8_251]);
    let ts = stored["ts"].as_primitive::<TimestampMicrosecondType>().values().to_vec();
    assert_eq!(ts[..3], [T0, T0 + 1_000_000, T0 + 2_000_000]);
    assert_eq!(lake.seal().unwrap().map(|sealed| sealed.covered_to), None);
}

/// Guarantee: files are sorted by device, signal and time, whatever the order of arrival.
#[test]
fn files_are_sorted() {
    let (directory, ledger) = (tempfile::tempdir().unwrap(), ledger());
    let (lake, _) = sealed(directory.path(), &ledger);
    let name = &lake.view().batches[0].manifest.files[0].name.clone();
    let file = std::fs::File::open(directory.path().join(name)).unwrap();
    let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
    let stored = reader.build().unwrap().next().unwrap().unwrap();
    let devices = stored["device"].as_primitive::<UInt32Type>().values().to_vec();
    assert!(devices.is_sorted() && devices[0] == 0 && devices[stored.num_rows() - 1] == 1);
}

/// Guarantee: any frame is found again, with a path that leads to the root in the log.
#[test]
fn frames_are_found_with_their_path() {
    let (directory, ledger) = (tempfile::tempdir().unwrap(), ledger());
    let (lake, id) = sealed(directory.path(), &ledger);
    let wanted = frame(1, 3);
    let stored = lake.find(1, [1; 8], 3).unwrap().unwrap();
    assert_eq!(stored.frame, wanted.frame);
    let Place::Batch { leaf, .. } = stored.place else { panic!("sealed") };
    let (size, path) = lake.inclusion(&id, leaf).unwrap().unwrap();
    let root = lake.view().batches[0].manifest.root;
    merkle::verify_inclusion::<Blake3Frames>(&frame_leaf(&stored.frame), u64::from(leaf), size, &path, &root)
        .unwrap();
    assert!(lake.find(1, [1; 8], 99).unwrap().is_none());
    lake.push(vec![frame(2, 0)]);
    assert_eq!(lake.find(2, [2; 8], 0).unwrap().unwrap().place, Place::Tail);
}

/// Guarantee: after a restart the log decides: sealed batches are there, leftovers are gone, the WAL mark holds.
#[test]
fn reopening_follows_the_log() {
    let (directory, ledger) = (tempfile::tempdir().unwrap(), ledger());
    let (lake, _) = sealed(directory.path(), &ledger);
    let covered = lake.covered();
    drop(lake);
    let stray = directory.path().join("00000000000000000000000000000000.scalar.parquet");
    std::fs::write(&stray, "half").unwrap();
    let lake = open(directory.path(), &ledger);
    assert!(!stray.exists());
    assert_eq!((lake.covered(), lake.view().batches.len(), covered), (5, 1, 5));
    assert_eq!(lake.ranges().len(), 2);
}

/// Changes single bytes of a file, then takes it away: the audit names it each time. Gives what it said of the changes.
fn every_change_is_found(directory: &Path, ledger: &Arc<MemoryLedger>, name: &str) -> Vec<Finding> {
    let path = directory.join(name);
    let good = std::fs::read(&path).unwrap();
    let mut said = Vec::new();
    for at in [0, good.len() / 2, good.len() - 1] {
        let mut bad = good.clone();
        bad[at] ^= 1;
        std::fs::write(&path, &bad).unwrap();
        let about = |finding: &Finding| finding.file == name;
        let found: Vec<Finding> = findings(directory, ledger).into_iter().filter(about).collect();
        assert!(!found.is_empty(), "{name} byte {at}");
        said.extend(found);
    }
    std::fs::remove_file(&path).unwrap();
    assert!(findings(directory, ledger).iter().any(|finding| finding.file == name), "{name} missing");
    std::fs::write(&path, &good).unwrap();
    said
}

/// Guarantee: one byte changed in any file, a missing file, a stray file: audit names the batch and the file.
#[test]
fn audit_finds_every_change() {
    let (directory, ledger) = (tempfile::tempdir().unwrap(), ledger());
    let (lake, id) = sealed(directory.path(), &ledger);
    assert_eq!(findings(directory.path(), &ledger), []);
    let manifest = lake.view().batches[0].manifest.clone();
    let mut names: Vec<String> = manifest.files.iter().map(|file| file.name.clone()).collect();
    names.push(format!("{id}.manifest.json"));
    for name in names {
        let found = every_change_is_found(directory.path(), &ledger, &name);
        assert!(found.iter().all(|finding| finding.batch == id), "{name}: {found:?}");
    }
    std::fs::write(directory.path().join("ff.scalar.parquet"), "x").unwrap();
    assert_eq!(findings(directory.path(), &ledger).len(), 1);
}

/// Guarantee: a failed seal loses nothing and shows nothing; the next one succeeds.
#[test]
fn a_failed_seal_is_repeated() {
    let (directory, ledger) = (tempfile::tempdir().unwrap(), ledger());
    let lake = open(directory.path(), &ledger);
    lake.push(vec![frame(0, 0)]);
    let moved = directory.path().with_extension("away");
    std::fs::rename(directory.path(), &moved).unwrap();
    assert!(lake.seal().unwrap_err().is_recoverable());
    lake.push(vec![frame(0, 1)]);
    std::fs::rename(&moved, directory.path()).unwrap();
    assert_eq!(lake.seal().unwrap().unwrap().batch.manifest.frames, 1);
    assert_eq!(lake.seal().unwrap().unwrap().batch.manifest.frames, 1);
    assert_eq!(lake.view().batches.len(), 2);
    assert_eq!(findings(directory.path(), &ledger), []);
}
