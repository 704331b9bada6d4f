//! Any bytes at all as the files of a write-ahead log, and a good log with any bytes of it changed: it opens or says what
//! is wrong, and what it gives back is bounded by what was there.
#![no_main]

use std::sync::Arc;

use ingest_wal::sim::SimDisk;
use ingest_wal::{Disk, Options, Record, Wal};
use libfuzzer_sys::fuzz_target;

/// Bytes of one segment.
const SEGMENT_BYTES: usize = 4_096;
/// Segments of arbitrary bytes at most.
const SEGMENTS_MAX: usize = 4;

fn options() -> Options {
    Options { segment_bytes: SEGMENT_BYTES as u64, bytes_max: 1 << 20, ..Options::new("unused") }
}

/// The input as it is, cut into segment files; the last one may be short.
fn arbitrary(disk: &SimDisk, bytes: &[u8]) {
    for (index, segment) in bytes.chunks(SEGMENT_BYTES).take(SEGMENTS_MAX).enumerate() {
        let name = format!("{:016x}.wal", index + 1);
        let _ = disk.create_zeroed(&name, segment.len() as u64);
        let _ = disk.write_at(&name, 0, segment);
        let _ = disk.sync(&name);
    }
    let _ = disk.sync_dir();
}

/// A log of a few segments; each four bytes of the input change one byte of one file.
fn changed(disk: &SimDisk, bytes: &[u8]) {
    let Ok((mut wal, _)) = Wal::open_on(Arc::new(disk.clone()), &options()) else { return };
    for device in 0..40 {
        let frame = vec![device as u8; 300];
        let record = Record { received_us: 1, device, t0_us: 2, flags: 0, code: 0, frame: &frame };
        let _ = wal.append(&[record, record]);
    }
    drop(wal);
    let mut names = disk.list().unwrap_or_default();
    names.sort();
    for change in bytes.chunks_exact(4) {
        let Some(name) = names.get(usize::from(change[0]) % names.len().max(1)) else { return };
        disk.damage(name, usize::from(u16::from_le_bytes([change[1], change[2]])), change[3]);
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((mode, bytes)) = bytes.split_first() else { return };
    let disk = SimDisk::new(u64::from(*mode));
    match mode % 2 {
        0 => arbitrary(&disk, bytes),
        _ => changed(&disk, bytes),
    }
    let there: u64 = disk.list().unwrap_or_default().iter().filter_map(|name| disk.len(name).ok()).sum();
    let Ok((mut wal, replay)) = Wal::open_on(Arc::new(disk.clone()), &options()) else { return };
    let mut given = 0;
    for record in replay {
        let Ok(record) = record else { return };
        given += record.frame.len() as u64;
        assert!(given <= there, "more came back than was there");
    }
    let record = Record { received_us: 1, device: 1, t0_us: 2, flags: 0, code: 0, frame: b"next" };
    if wal.append(&[record]).is_ok() {
        drop(wal);
        assert!(Wal::open_on(Arc::new(disk), &options()).is_ok(), "a log that opened and took a record opens again");
    }
});
