//! The log against a model, on a disk that is killed, loses power, fails to sync and runs full.

use std::sync::Arc;

use proptest::prelude::*;

use super::{is_whole, record};
use crate::sim::SimDisk;
use crate::{Options, Recovered, Wal, WalError};

/// One thing that happens to the log.
#[derive(Debug, Clone)]
enum Op {
    Append(Vec<usize>),
    /// Percent of what was given out.
    Release(u8),
    Prepare,
    Reopen,
    /// Go down in the n-th operation on the disk from now.
    Crash(u64),
    FailSync,
    Full(bool),
}

/// The log under test, and what it may and must hold.
struct Bench {
    disk: SimDisk,
    options: Options,
    wal: Option<Wal>,
    /// Frame by position: everything acknowledged, or found at an open.
    must: Vec<Vec<u8>>,
    /// Frames of the append that was not acknowledged.
    may: Vec<Vec<u8>>,
    released: u64,
    power: bool,
    counter: u64,
    recoveries: u64,
}

impl Bench {
    fn new(seed: u64) -> Bench {
        let segment_bytes = [512, 700, 1024, 4096][(seed % 4) as usize];
        let options = Options {
            dir: "unused".into(),
            segment_bytes,
            bytes_max: segment_bytes * 5,
            free_bytes_min: 0,
            first_position: 0,
        };
        let disk = SimDisk::new(seed);
        let power = seed & 4 == 0;
        let (must, may) = (Vec::new(), Vec::new());
        Bench { disk, options, wal: None, must, may, released: 0, power, counter: 0, recoveries: 0 }
    }

    fn open(&mut self) {
        for attempt in 0.. {
            assert!(attempt < 3, "cannot be opened");
            let opened = Wal::open_on(Arc::new(self.disk.clone()), &self.options)
                .and_then(|(wal, replay)| Ok((wal, replay.collect::<Result<Vec<_>, _>>()?)));
            match opened {
                Ok((wal, found)) => {
                    self.check(&wal, &found);
                    self.wal = Some(wal);
                    return;
                }
                // Only the disk's own faults may stop an open, never what it finds.
                Err(WalError::Io { .. } | WalError::NoSpace(_)) => self.restart(),
                Err(other) => panic!("{other}"),
            }
        }
    }

    /// G2: acknowledged records are there exactly once and in order; of the open append a prefix; nothing else.
    fn check(&mut self, wal: &Wal, found: &[Recovered]) {
        self.recoveries += 1;
        let first = found.first().map_or(wal.next_position(), |record| record.position);
        assert!(first <= self.released.min(self.must.len() as u64), "released only up to {}", self.released);
        for (position, record) in (first..).zip(found) {
            assert_eq!(record.position, position);
            assert!(is_whole(record), "position {position}");
            let index = position as usize;
            let expected = self.must.get(index).or_else(|| self.may.get(index - self.must.len()));
            assert_eq!(expected.map(Vec::as_slice), Some(&record.frame[..]), "position {position}");
        }
        let end = first + found.len() as u64;
        assert!(end >= self.must.len() as u64, "{} acknowledged, log ends at {end}", self.must.len());
        assert_eq!(wal.next_position(), end);
        // What was given out once must stay.
        let kept = end as usize - self.must.len();
        self.must.extend(self.may.drain(..).take(kept));
    }

    fn restart(&mut self) {
        self.wal = None;
        self.power = !self.power;
        if self.power {
            self.disk.restart_after_power_loss();
        } else {
            self.disk.restart_after_kill();
        }
    }

    fn frame(&mut self, len: usize) -> Vec<u8> {
        self.counter += 1;
        let mut frame = self.counter.to_le_bytes().to_vec();
        // Some frames look like the log's own records.
        if self.counter.is_multiple_of(5) {
            let mut forged = Vec::new();
            crate::format::encode_record(&mut forged, &record(b"forged"), self.must.len() as u64 + 1, 0);
            frame.extend_from_slice(&forged);
        }
        frame.resize(frame.len().min(300) + len, (self.counter % 3) as u8);
        frame
    }

    fn append(&mut self, lens: &[usize]) {
        let frames: Vec<_> = lens.iter().map(|len| self.frame(*len)).collect();
        let records: Vec<_> = frames.iter().map(|frame| record(frame)).collect();
        let Some(wal) = self.wal.as_mut() else { return };
        match wal.append(&records) {
            Ok(positions) => {
                assert_eq!(positions, self.must.len() as u64..(self.must.len() + frames.len()) as u64);
                self.must.extend(frames);
            }
            Err(WalError::Full { .. } | WalError::NoSpace(_) | WalError::AppendTooLarge { .. }) => {
                assert!(!wal.is_poisoned());
            }
            Err(_) => {
                assert!(wal.is_poisoned() || self.disk.is_down(), "a failed write or sync poisons");
                self.may = frames;
                self.settle();
            }
        }
    }

    /// After an error that is not back-pressure: nothing more is taken; only a restart helps.
    fn settle(&mut self) {
        let Some(wal) = self.wal.as_mut() else { return };
        if wal.is_poisoned() {
            assert!(matches!(wal.append(&[record(b"x")]), Err(WalError::Poisoned)));
            assert!(matches!(wal.release(u64::MAX), Err(WalError::Poisoned)));
        }
        self.restart();
        self.open();
    }

    fn run(&mut self, op: &Op) {
        match op {
            Op::Append(lens) => self.append(lens),
            Op::Release(percent) => {
                let Some(wal) = self.wal.as_mut() else { return };
                self.released = self.released.max(self.must.len() as u64 * u64::from(*percent) / 100);
                if wal.release(self.released).is_err() {
                    self.settle();
                }
            }
            Op::Prepare => {
                let Some(wal) = self.wal.as_mut() else { return };
                if wal.prepare().is_err_and(|error| !error.is_recoverable()) {
                    self.settle();
                }
            }
            Op::Reopen => {
                self.wal = None;
                self.open();
            }
            Op::Crash(steps) => self.disk.crash_after(*steps),
            Op::FailSync => self.disk.fail_syncs(1),
            Op::Full(full) => self.disk.set_full(*full),
        }
    }

    /// In the end all of it is there, and the log still works.
    fn finish(&mut self) {
        self.restart();
        self.open();
        self.run(&Op::Release(100));
        self.append(&[1, 2]);
        self.power = false;
        self.restart();
        self.open();
    }
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => prop::collection::vec(0_usize..120, 0..6).prop_map(Op::Append),
        2 => (0_u8..=100).prop_map(Op::Release),
        1 => Just(Op::Prepare),
        1 => Just(Op::Reopen),
        3 => (1_u64..12).prop_map(Op::Crash),
        1 => Just(Op::FailSync),
        1 => any::<bool>().prop_map(Op::Full),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    // Whatever happens in whatever order, acknowledged records survive exactly once and in order.
    #[test]
    fn acknowledged_records_survive(seed in any::<u64>(), ops in prop::collection::vec(op(), 1..60)) {
        let mut bench = Bench::new(seed);
        bench.open();
        for op in &ops {
            bench.run(op);
        }
        bench.finish();
    }
}

/// A fixed day in the life of a log: groups, rotations, releases, recycling, a restart.
fn workload() -> Vec<Op> {
    let mut ops = Vec::new();
    for round in 0..12_usize {
        ops.push(Op::Append(vec![round * 7 % 90, 3, 40]));
        ops.push(Op::Append(vec![80; round % 4]));
        if round % 3 == 2 {
            ops.push(Op::Release(60 + 3 * round as u8));
        }
        if round == 5 {
            ops.push(Op::Prepare);
            ops.push(Op::Reopen);
        }
    }
    ops
}

// A crash in each single disk operation of a fixed run, by kill and by power loss, and a second one soon after,
// loses nothing that was acknowledged and brings back nothing twice.
#[test]
fn every_crash_point() {
    let mut recoveries = 0;
    for seed in 0..32 {
        let mut calm = Bench::new(seed);
        calm.open();
        workload().iter().for_each(|op| calm.run(op));
        let steps = calm.disk.steps();
        assert!(steps > 50, "{steps}");
        for step in 1..=steps {
            let mut bench = Bench::new(seed);
            bench.disk.crash_after(step);
            bench.open();
            for (index, op) in workload().iter().enumerate() {
                if index == 13 {
                    bench.disk.crash_after(1 + step % 7);
                }
                bench.run(op);
            }
            bench.finish();
            recoveries += bench.recoveries;
        }
    }
    assert!(recoveries > 3_000, "{recoveries}");
}

// After a failed sync nothing is taken; what a restart then finds in the page cache is made durable before it is
// given out, so a power loss right after does not take it back.
#[test]
fn failed_sync_then_kill_then_power_loss() {
    for seed in 0..64 {
        let mut bench = Bench::new(seed);
        bench.open();
        bench.append(&[10, 20]);
        bench.disk.fail_syncs(1);
        bench.power = true;
        bench.append(&[30, 40]);
        assert_eq!(bench.must.len(), 4, "the kill left the page cache as it was");
        bench.power = false;
        bench.restart();
        bench.open();
        assert_eq!(bench.must.len(), 4);
    }
}

// A full disk and a full log are back-pressure: nothing is lost, nothing is poisoned, and room makes it go on.
#[test]
fn full_is_recoverable() {
    let disk = SimDisk::new(1);
    let options = Options {
        dir: "unused".into(),
        segment_bytes: 512,
        bytes_max: 1536,
        free_bytes_min: 0,
        first_position: 0,
    };
    let (mut wal, _) = Wal::open_on(Arc::new(disk.clone()), &options).unwrap();
    let frame = [7_u8; 300];
    disk.set_full(true);
    wal.append(&[record(&frame)]).unwrap();
    let refused = wal.append(&[record(&frame)]).unwrap_err();
    assert!(matches!(refused, WalError::NoSpace(_)) && refused.is_recoverable());
    disk.set_full(false);
    wal.append(&[record(&frame)]).unwrap();
    wal.append(&[record(&frame)]).unwrap();
    let refused = wal.append(&[record(&frame)]).unwrap_err();
    assert!(refused.is_at_capacity() && refused.is_recoverable(), "{refused}");
    assert_eq!(wal.bytes_used(), 1536);
    wal.release(1).unwrap();
    assert_eq!(wal.append(&[record(&frame)]).unwrap(), 3..4);
    assert_eq!(wal.bytes_used(), 1536);
}

// The log leaves the bytes free that sealing needs, refuses as for a full disk before, and goes on when there is room.
#[test]
fn the_last_bytes_of_the_disk_are_not_taken() {
    let disk = SimDisk::new(1);
    let options = Options {
        dir: "unused".into(),
        segment_bytes: 512,
        bytes_max: 1 << 20,
        free_bytes_min: 1_000,
        first_position: 0,
    };
    let (mut wal, _) = Wal::open_on(Arc::new(disk.clone()), &options).unwrap();
    let frame = [7_u8; 300];
    wal.append(&[record(&frame)]).unwrap();
    disk.set_free_bytes(1_511);
    let refused = wal.append(&[record(&frame)]).unwrap_err();
    assert!(matches!(refused, WalError::NoSpace(_)) && refused.is_recoverable());
    disk.set_free_bytes(1_512);
    assert_eq!(wal.append(&[record(&frame)]).unwrap(), 1..2);
}

// Positions go on where they were although every record was released before the restart.
#[test]
fn positions_never_go_back() {
    let mut bench = Bench::new(0);
    bench.open();
    for _ in 0..40 {
        bench.append(&[100, 100]);
        bench.run(&Op::Release(100));
    }
    bench.run(&Op::Reopen);
    assert_eq!(bench.wal.as_ref().map(Wal::next_position), Some(80));
    bench.append(&[1]);
    assert_eq!(bench.must.len(), 81);
}
