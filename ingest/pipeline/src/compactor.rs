//! Compaction in the background: one at a time, and only while nothing else presses. It rests as long as it works, so that
//! it takes half of a core at most, longer the fuller the tail is, and waits while that is more than half full. Under a load
//! that never ends it falls behind, up to a bound, and catches up when the load does.

use std::cell::Cell;
use std::time::{Duration, Instant};

use ingest_lake::Lake;

use crate::{Clock, Metrics, Shared};

/// How often it looks for work.
const TICK: Duration = Duration::from_secs(1);
/// After a failure (a full disk, for instance).
const RETRY: Duration = Duration::from_secs(60);
/// How often the end is looked for while it waits.
const NAP: Duration = Duration::from_millis(50);
/// Longest rest between two slices.
const REST_MAX: Duration = Duration::from_millis(500);
/// Shortest work that is rested from.
const WORK_MIN: Duration = Duration::from_millis(5);
/// How often longer it rests with a full tail than with an empty one.
const RESTS_WHEN_FULL: f64 = 10.0;
/// A tail as full as this comes before everything that can wait.
const PRESSURE_MAX: f64 = 0.5;
/// Parts of the lake above which it no longer waits for the tail: readers look through each of them.
const PARTS_MAX: usize = 1_024;

pub(crate) fn run(lake: &Lake, metrics: &Metrics, clock: &Clock, shared: &Shared) {
    run_within(PARTS_MAX, lake, metrics, clock, shared);
}

fn run_within(parts_max: usize, lake: &Lake, metrics: &Metrics, clock: &Clock, shared: &Shared) {
    while !shared.is_stopping() {
        let went_well =
            remove_replaced(lake, metrics, clock) && compact(parts_max, lake, metrics, clock, shared);
        wait(if went_well { TICK } else { RETRY }, shared);
    }
}

fn wait(time: Duration, shared: &Shared) {
    let started = Instant::now();
    while !shared.is_stopping() && started.elapsed() < time {
        std::thread::sleep(NAP);
    }
}

fn remove_replaced(lake: &Lake, metrics: &Metrics, clock: &Clock) -> bool {
    match lake.remove_replaced(clock()) {
        Ok(0) => true,
        Ok(files) => {
            tracing::info!(files, "replaced files removed");
            true
        }
        Err(error) => {
            metrics.compaction_failed();
            tracing::error!(%error, "replaced files stay");
            false
        }
    }
}

/// Makes sets until there is nothing to do.
fn compact(parts_max: usize, lake: &Lake, metrics: &Metrics, clock: &Clock, shared: &Shared) -> bool {
    let worked_since = Cell::new(Instant::now());
    let pressure = || if lake.parts() > parts_max { 0.0 } else { lake.pressure() };
    let pace = || {
        let worked = worked_since.get().elapsed();
        if worked >= WORK_MIN {
            std::thread::sleep(worked.mul_f64(1.0 + RESTS_WHEN_FULL * pressure()).min(REST_MAX));
            worked_since.set(Instant::now());
        }
        while pressure() > PRESSURE_MAX && !shared.is_stopping() {
            std::thread::sleep(NAP);
            worked_since.set(Instant::now());
        }
        !shared.is_stopping()
    };
    while pace() {
        let started = Instant::now();
        match lake.compact(clock(), &pace) {
            Ok(None) => return true,
            Ok(Some(compacted)) => {
                let manifest = &compacted.set.manifest;
                tracing::info!(
                    set = manifest.set,
                    batches = manifest.batches.len(),
                    frames = manifest.frames(),
                    files_in = compacted.files_in,
                    bytes_in = compacted.bytes_in,
                    bytes_out = compacted.bytes_out,
                    "batches compacted"
                );
                metrics.compacted(&compacted, started.elapsed());
            }
            Err(error) => {
                metrics.compaction_failed();
                tracing::error!(%error, recoverable = error.is_recoverable(), "compaction failed; files stay as they were");
                return false;
            }
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::Ordering;

    use ingest_lake::{Admitted, Compaction, Options};
    use schemas_evidence::MemoryLedger;
    use schemas_frame::{Code, FrameBuilder, OutSeries, OutValues, Scale};
    use schemas_identity::{BootId, SecretKey};

    use super::*;

    fn frame(seq: u64) -> Admitted {
        let series = OutSeries {
            signal: 1,
            offset_us: 0,
            period_us: 1_000_000,
            scale: Scale::ONE,
            values: OutValues::U8(vec![60, 61]),
            deltas: None,
            quality: None,
        };
        let frame = FrameBuilder::new(BootId([1; 8]), seq, [0; 16], Some(1_000_000), 5).series(series);
        Admitted {
            position: seq,
            device: 0,
            t0_us: 1_000_000,
            received_us: 1_000_000,
            flags: 0,
            code: Code::Ok,
            frame: frame.sign(&SecretKey::from_seed(&[3; 32])).unwrap().into(),
        }
    }

    fn lake(directory: &std::path::Path, batches: u64, tail_bytes_max: u64) -> Lake {
        let compaction = Compaction { fan_in: 2, keep: Duration::ZERO, ..Compaction::default() };
        let options = Options { compaction, tail_bytes_max, ..Options::new(directory) };
        let lake = Lake::open(options, Arc::new(MemoryLedger::new("example.org/log"))).unwrap();
        for seq in 0..batches {
            lake.push(vec![frame(seq)]);
            lake.seal().unwrap().unwrap();
        }
        lake
    }

    /// Runs the thread until the lake is as wanted, ten seconds at most, and ends it.
    fn run_until(lake: &Lake, is_done: impl Fn(&Lake) -> bool) -> Metrics {
        run_within_until(PARTS_MAX, lake, is_done)
    }

    fn run_within_until(parts_max: usize, lake: &Lake, is_done: impl Fn(&Lake) -> bool) -> Metrics {
        let (shared, clock): (Shared, Clock) = (Shared::default(), Arc::new(|| 0));
        let metrics = Metrics::register(&prometheus::Registry::new()).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| run_within(parts_max, lake, &metrics, &clock, &shared));
            let started = Instant::now();
            while !is_done(lake) && started.elapsed() < Duration::from_secs(10) {
                std::thread::sleep(Duration::from_millis(5));
            }
            shared.stop.store(true, Ordering::Release);
        });
        metrics
    }

    fn files(directory: &std::path::Path) -> usize {
        let names = std::fs::read_dir(directory).unwrap();
        names
            .filter(|name| name.as_ref().unwrap().path().extension().is_some_and(|end| end == "parquet"))
            .count()
    }

    /// Guarantee: in the background, batches become sets, those larger ones, and replaced files go; it is counted.
    #[test]
    fn small_files_become_few() {
        let directory = tempfile::tempdir().unwrap();
        let lake = lake(directory.path(), 4, 1 << 20);
        assert_eq!(files(directory.path()), 8);
        let metrics = run_until(&lake, |_| files(directory.path()) == 2);
        assert_eq!((files(directory.path()), lake.view().parts().len()), (2, 1));
        assert_eq!((metrics.compactions(), metrics.compaction_failures()), (3, 0));
    }

    /// Guarantee: while the tail is under pressure nothing is compacted, and the end is not waited for.
    #[test]
    fn sealing_comes_first() {
        let directory = tempfile::tempdir().unwrap();
        let lake = lake(directory.path(), 2, 600);
        lake.push(vec![frame(2)]);
        assert!(lake.pressure() > PRESSURE_MAX && lake.has_room());
        let started = Instant::now();
        run_until(&lake, |_| started.elapsed() > Duration::from_millis(300));
        assert!(started.elapsed() < Duration::from_secs(2));
        assert_eq!(lake.view().parts().len(), 2);
    }

    /// Guarantee: under a pressure that does not end, batches do not grow in number without end; a lake that falls behind
    /// while compaction waits is noticed.
    #[test]
    fn falling_behind_has_a_bound() {
        let directory = tempfile::tempdir().unwrap();
        let lake = lake(directory.path(), 2, 600);
        lake.push(vec![frame(2)]);
        let seals = std::sync::Once::new();
        run_within_until(2, &lake, |lake| {
            assert!(lake.parts() == lake.view().parts().len());
            seals.call_once(|| {
                std::thread::sleep(Duration::from_millis(300));
                assert_eq!(lake.parts(), 2);
                lake.seal().unwrap().unwrap();
                lake.push(vec![frame(3)]);
                assert!(lake.pressure() > PRESSURE_MAX);
            });
            lake.parts() < 3
        });
        assert_eq!(lake.parts(), 2);
    }

    /// Guarantee: a failure is counted, and leaves everything as it was.
    #[test]
    fn a_failure_is_counted() {
        let directory = tempfile::tempdir().unwrap();
        let lake = lake(directory.path(), 2, 1 << 20);
        let moved = directory.path().with_extension("away");
        std::fs::rename(directory.path(), &moved).unwrap();
        let started = Instant::now();
        let metrics = run_until(&lake, |_| started.elapsed() > Duration::from_millis(300));
        std::fs::rename(&moved, directory.path()).unwrap();
        assert_eq!((metrics.compactions(), metrics.compaction_failures()), (0, 1));
        assert_eq!((lake.view().parts().len(), files(directory.path())), (2, 4));
    }
}
