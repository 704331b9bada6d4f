//! Stored logs that no crash can leave behind are refused, by file and offset, and left as they are.

use std::sync::Arc;

use super::record;
use crate::sim::SimDisk;
use crate::{Disk, Flaw, Options, Wal, WalError};

const FRAME: [u8; 100] = [5; 100];

fn options() -> Options {
    Options {
        dir: "unused".into(),
        segment_bytes: 512,
        bytes_max: 1 << 20,
        free_bytes_min: 0,
        first_position: 0,
    }
}

/// Three segments: two records in each of the first two, one in the last.
fn log() -> SimDisk {
    let disk = SimDisk::new(3);
    let (mut wal, _) = Wal::open_on(Arc::new(disk.clone()), &options()).unwrap();
    for _ in 0..5 {
        wal.append(&[record(&FRAME)]).unwrap();
    }
    disk
}

fn refusal(disk: &SimDisk) -> WalError {
    Wal::open_on(Arc::new(disk.clone()), &options()).map(|_| ()).unwrap_err()
}

fn name(number: u64) -> String {
    format!("{number:016x}.wal")
}

// Every bit of a sealed segment's header and records is guarded, and the refusal names the file.
#[test]
fn a_changed_sealed_segment_is_refused() {
    let used = 96 + 2 * 148;
    for offset in 0..used {
        let disk = log();
        assert!(disk.damage(&name(1), offset, 0x10));
        match refusal(&disk) {
            WalError::Corrupt { file, .. } | WalError::Version { file, .. } => {
                assert_eq!(file, name(1), "{offset}")
            }
            other => panic!("{offset}: {other}"),
        }
    }
}

// The bytes after a sealed segment's last record mean nothing.
#[test]
fn stale_bytes_of_a_sealed_segment_do_not_matter() {
    let disk = log();
    assert!(disk.damage(&name(1), 96 + 2 * 148, 0xff));
    let (_, replay) = Wal::open_on(Arc::new(disk), &options()).unwrap();
    assert_eq!(replay.count(), 5);
}

// A sealed segment that was rewritten with good checksums is found by the chain value of the next header.
#[test]
fn an_exchanged_sealed_segment_is_refused() {
    let disk = log();
    let segment = disk.read_at(&name(1), 0, 96).unwrap();
    let header = crate::format::Header::parse(&segment).unwrap();
    let mut forged = Vec::new();
    crate::format::encode_record(&mut forged, &record(&[6; 100]), header.salt(), 0);
    disk.write_at(&name(1), 96, &forged).unwrap();
    match refusal(&disk) {
        WalError::Corrupt { file, flaw: Flaw::Chain, .. } => assert_eq!(file, name(2)),
        other => panic!("{other}"),
    }
}

// A missing segment in the middle is a refusal, not a shorter log.
#[test]
fn a_missing_segment_is_refused() {
    let disk = log();
    disk.lose_file(&name(2));
    assert!(matches!(refusal(&disk), WalError::Corrupt { flaw: Flaw::Gap, .. }));
}

// The log cannot know of a newest segment that is gone, but its position shows it to whoever knows what was released.
#[test]
fn a_missing_newest_segment_shows_in_the_position() {
    let disk = log();
    disk.lose_file(&name(3));
    let (wal, replay) = Wal::open_on(Arc::new(disk), &options()).unwrap();
    assert_eq!((wal.next_position(), replay.first_position()), (4, Some(0)));
}

// A new log begins where its owner says, so that no position is given out twice; an existing one goes on where it is.
#[test]
fn a_new_log_begins_at_the_position_given() {
    let disk = SimDisk::new(1);
    for (given, first) in [(70, 70), (5, 71)] {
        let options = Options { first_position: given, ..options() };
        let (mut wal, _) = Wal::open_on(Arc::new(disk.clone()), &options).unwrap();
        assert_eq!(wal.append(&[record(b"x")]).unwrap(), first..first + 1);
    }
    let (_, replay) = Wal::open_on(Arc::new(disk), &options()).unwrap();
    assert_eq!(replay.map(|found| found.unwrap().position).collect::<Vec<_>>(), [70, 71]);
}

// In the last segment a bad record before a later append is damage: acknowledged records are not cut away silently.
#[test]
fn damage_in_the_middle_of_the_last_segment_is_refused() {
    let disk = SimDisk::new(3);
    let (mut wal, _) = Wal::open_on(Arc::new(disk.clone()), &options()).unwrap();
    wal.append(&[record(&FRAME)]).unwrap();
    wal.append(&[record(&FRAME)]).unwrap();
    for offset in 96..96 + 148 {
        disk.damage(&name(1), offset, 1);
        match refusal(&disk) {
            WalError::Corrupt { file, offset: at, flaw: Flaw::Middle { later } } => {
                assert_eq!((file, at, later), (name(1), 96, 244));
            }
            other => panic!("{other}"),
        }
        disk.damage(&name(1), offset, 1);
    }
}

// A torn last append is cut and reported; the log goes on at that position.
#[test]
fn a_torn_tail_is_cut_and_reported() {
    let disk = log();
    disk.damage(&name(3), 96 + 147, 1);
    let (mut wal, replay) = Wal::open_on(Arc::new(disk.clone()), &options()).unwrap();
    assert_eq!(replay.count(), 4);
    let torn = wal.torn_tail().unwrap();
    assert_eq!((torn.file.as_str(), torn.offset, torn.position), (name(3).as_str(), 96, 4));
    assert_eq!(wal.append(&[record(&FRAME)]).unwrap(), 4..5);
    drop(wal);
    let (wal, replay) = Wal::open_on(Arc::new(disk), &options()).unwrap();
    assert!(wal.torn_tail().is_none());
    assert_eq!(replay.count(), 5);
}

// What a torn append left behind never follows a later, shorter append as if it were part of it.
#[test]
fn the_rest_of_a_torn_append_never_comes_back() {
    let disk = SimDisk::new(3);
    let (mut wal, _) = Wal::open_on(Arc::new(disk.clone()), &options()).unwrap();
    wal.append(&[record(&FRAME), record(&[6; 100])]).unwrap();
    drop(wal);
    disk.damage(&name(1), 96 + 60, 1);
    let (mut wal, replay) = Wal::open_on(Arc::new(disk.clone()), &options()).unwrap();
    assert_eq!(replay.count(), 0);
    wal.append(&[record(&[7; 100])]).unwrap();
    drop(wal);
    let (_, replay) = Wal::open_on(Arc::new(disk), &options()).unwrap();
    assert_eq!(replay.map(|found| found.unwrap().frame[0]).collect::<Vec<_>>(), [7]);
}

// A segment of a newer program is refused with both versions named.
#[test]
fn a_newer_format_is_refused() {
    let disk = log();
    disk.damage(&name(3), 8, 3);
    match refusal(&disk) {
        WalError::Version { found, supported, .. } => assert_eq!((found, supported), (2, 1)),
        other => panic!("{other}"),
    }
}

// Limits on sizes refuse without writing, and the log goes on.
#[test]
fn too_large_is_refused() {
    let disk = SimDisk::new(3);
    let (mut wal, _) = Wal::open_on(Arc::new(disk), &options()).unwrap();
    let huge = vec![0; crate::RECORD_FRAME_BYTES_MAX + 1];
    assert!(matches!(wal.append(&[record(&huge)]), Err(WalError::RecordTooLarge { .. })));
    assert!(matches!(
        wal.append(&[record(&FRAME); 3]),
        Err(WalError::AppendTooLarge { bytes: 444, max: 416 })
    ));
    assert_eq!(wal.append(&[record(&FRAME); 2]).unwrap(), 0..2);
    let bad = Options { segment_bytes: 511, ..options() };
    assert!(matches!(Wal::open_on(Arc::new(SimDisk::new(0)), &bad), Err(WalError::Options { .. })));
    let bad = Options { bytes_max: 1023, ..options() };
    assert!(matches!(Wal::open_on(Arc::new(SimDisk::new(0)), &bad), Err(WalError::Options { .. })));
}

// A changed segment size is taken over at the next rotation, without losing what is there.
#[test]
fn segment_size_may_change() {
    let disk = log();
    let wider = Options { segment_bytes: 2048, ..options() };
    let (mut wal, replay) = Wal::open_on(Arc::new(disk.clone()), &wider).unwrap();
    assert_eq!(replay.count(), 5);
    wal.append(&[record(&FRAME); 10]).unwrap();
    wal.release(5).unwrap();
    assert_eq!(wal.bytes_used(), 2048);
    drop(wal);
    let (_, replay) = Wal::open_on(Arc::new(disk), &options()).unwrap();
    assert_eq!(replay.count(), 10);
}
