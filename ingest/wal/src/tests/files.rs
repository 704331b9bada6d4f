//! The log on real files.

use std::fs;
use std::path::Path;

use super::{is_whole, record};
use crate::{Options, Wal, WalError};

fn options(dir: &Path) -> Options {
    Options {
        dir: dir.join("wal"),
        segment_bytes: 4096,
        bytes_max: 64 * 4096,
        free_bytes_min: 0,
        first_position: 0,
    }
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir.join("wal"))
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

// On real files: records come back after a restart, released segments are reused, sizes stay within the bound,
// and the recycled bytes are never read as records.
#[test]
fn append_release_recycle_reopen() {
    let dir = tempfile::tempdir().unwrap();
    let mut next = 0_u64;
    for round in 0..6_u64 {
        let (mut wal, replay) = Wal::open(options(dir.path())).unwrap();
        for found in replay {
            let found = found.unwrap();
            assert!(is_whole(&found) && found.frame[..8] == found.position.to_le_bytes());
        }
        assert_eq!(wal.next_position(), next);
        for _ in 0..40 {
            let frames: Vec<Vec<u8>> = (0..5)
                .map(|i| {
                    let mut frame = (next + i).to_le_bytes().to_vec();
                    frame.resize(60 + (next % 50) as usize, round as u8);
                    frame
                })
                .collect();
            let records: Vec<_> = frames.iter().map(|frame| record(frame)).collect();
            assert_eq!(wal.append(&records).unwrap(), next..next + 5);
            next += 5;
            if next.is_multiple_of(50) {
                wal.release(next - 10).unwrap();
            }
        }
        assert!(wal.bytes_used() <= 3 * 4096, "{}", wal.bytes_used());
    }
    let names = names(dir.path());
    assert!(names.len() <= 3 + crate::SPARES_MAX + 1, "{names:?}");
    assert!(names.iter().any(|name| name.starts_with("spare-")), "{names:?}");
}

// Replay may start at the position the lake has reached; whole segments below are not read.
#[test]
fn replay_from_a_position() {
    let dir = tempfile::tempdir().unwrap();
    let (mut wal, _) = Wal::open(options(dir.path())).unwrap();
    for i in 0..100_u64 {
        wal.append(&[record(&[i as u8; 200])]).unwrap();
    }
    drop(wal);
    let (_, replay) = Wal::open(options(dir.path())).unwrap();
    let positions: Vec<u64> = replay.starting_at(63).map(|found| found.unwrap().position).collect();
    assert_eq!(positions, (63..100).collect::<Vec<_>>());
}

// Two processes cannot write one log; a file cut by hand is refused by name.
#[test]
fn lock_and_truncation() {
    let dir = tempfile::tempdir().unwrap();
    let (wal, replay) = Wal::open(options(dir.path())).unwrap();
    assert!(matches!(Wal::open(options(dir.path())), Err(WalError::Locked)));
    drop((wal, replay));
    let path = dir.path().join("wal/0000000000000001.wal");
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(1000).unwrap();
    let refused = Wal::open(options(dir.path())).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "segment 0000000000000001.wal at offset 0: file has 1000 bytes, its header says 4096"
    );
}

// How long a group takes on this machine's disk: printed, not judged. Run with `--ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn group_rate() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { segment_bytes: 64 << 20, ..Options::new(dir.path().join("wal")) };
    let (mut wal, _) = Wal::open(options).unwrap();
    for group in [1, 64, 1024] {
        let records = vec![record(&[9; 256]); group];
        let start = std::time::Instant::now();
        let mut count = 0;
        while start.elapsed().as_millis() < 1500 {
            wal.append(&records).unwrap();
            count += 1;
            wal.release(wal.next_position()).unwrap();
        }
        let seconds = start.elapsed().as_secs_f64();
        println!(
            "group {group}: {:.0} syncs/s, {:.0} records/s",
            f64::from(count) / seconds,
            f64::from(count) * group as f64 / seconds
        );
    }
}

// How long a start takes with a gigabyte of records to check and to hand out: printed, not judged. A start reads every
// segment twice. Run with `--release --ignored --nocapture`.
#[test]
#[ignore = "a measurement: writes and reads a gigabyte"]
fn replay_rate() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options::new(dir.path().join("wal"));
    let (mut wal, _) = Wal::open(options.clone()).unwrap();
    let records = vec![record(&[9; 900]); 8_192];
    let mut bytes = 0_u64;
    while bytes < 1 << 30 {
        wal.append(&records).unwrap();
        bytes += records.len() as u64 * (900 + Wal::RECORD_OVERHEAD_BYTES);
    }
    drop(wal);
    let start = std::time::Instant::now();
    let (wal, replay) = Wal::open(options).unwrap();
    let opened = start.elapsed().as_secs_f64();
    let count = replay.map(Result::unwrap).count() as u64;
    assert_eq!(count, wal.next_position());
    let done = start.elapsed().as_secs_f64();
    println!("{} MB, {count} records: opened in {opened:.2} s, replayed by {done:.2} s", bytes >> 20);
}
