//! The engine beside itself: over the lake as it is, and over one in which no hidden row was ever stored. Random
//! statements give the same rows in both, and more than that: in the same order, in the same batches, with the same
//! last digits.
//!
//! One partition each: with several, which of them is heard first is a matter of time. What each of several gives is
//! looked at batch by batch instead.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::RecordBatch;
use futures::StreamExt;
use parking_lot::Mutex;
use tempfile::TempDir;

use super::grammar::statement;
use super::kinds::{self, Kind};
use super::{AT_ONCE, seeds};
use crate::reader::BATCH_ROWS_MAX;
use crate::tests::fixture::{
    ROWS, Store, lake, options, readings, scalar_batch, text_rows, visible, with_ids, write,
};
use crate::tests::people::World;
use crate::{Engine, FileKind, RunOptions, View};

/// What a client sees: the rows of each batch.
type Told = Result<Vec<Vec<String>>, Kind>;

/// Two lakes, one with the hidden rows and one that never had them, and an engine over each.
struct Twins {
    world: World,
    engines: [Engine; 2],
    _dir: TempDir,
}

impl Twins {
    fn new(partitions: usize, group: usize) -> Twins {
        Twins::over(partitions, |folder, keep| lake(folder, group, keep))
    }

    /// The same with so many rows more that each part gives many batches.
    fn many(partitions: usize) -> Twins {
        Twins::over(partitions, |folder, keep| {
            let mut view = lake(folder, 97, keep);
            let mut rows = readings(&[1, 2], ROWS, 4_000);
            rows.retain(|row| keep(row.device, row.ts));
            let file = write(folder, "b.scalar.parquet", FileKind::Scalar, &scalar_batch(&rows), 10_000);
            view.files.insert(0, file);
            view
        })
    }

    fn over(partitions: usize, view: impl Fn(&Path, fn(u32, i64) -> bool) -> View) -> Twins {
        let (world, dir) = (World::new(), TempDir::new().unwrap());
        let engine = |name: &str, keep: fn(u32, i64) -> bool| {
            let folder = dir.path().join(name);
            std::fs::create_dir(&folder).unwrap();
            let store = Arc::new(Store(view(&folder, keep)));
            let options = crate::Options { partitions, ..options() };
            Engine::new(options, store, Arc::clone(&world.consents), Arc::clone(&world.audit)).unwrap()
        };
        let engines = [engine("all", |_, _| true), engine("visible", visible)];
        Twins { world, engines, _dir: dir }
    }

    async fn told(&self, engine: &Engine, sql: &str) -> Told {
        let running = engine.run(self.world.warrant(), &with_ids(sql), RunOptions::default()).await;
        let mut running = running.map_err(|error| kinds::of_engine(&error))?;
        let mut batches = Vec::new();
        while let Some(batch) = running.next().await {
            batches.push(text_rows(&batch.map_err(|error| kinds::of_engine(&error))?));
        }
        Ok(batches)
    }

    async fn both(&self, sql: &str) -> [Told; 2] {
        let [with, without] = &self.engines;
        [self.told(with, sql).await, self.told(without, sql).await]
    }
}

/// Guarantee: of how many hidden rows there are and where they lie, nothing is told: neither by the order of rows that
/// nobody ordered, nor by what a LIMIT takes, nor by the last digit of a sum.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hidden_rows_change_no_byte_of_an_answer() {
    let twins = Twins::new(1, 97);
    let (alike, differing) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    let compare = async |seed: u64| {
        let sql = statement(seed).sql;
        let [with, without] = twins.both(&sql).await;
        if with == without {
            alike.fetch_add(u64::from(with.is_ok_and(|batches| !batches.is_empty())), Ordering::Relaxed);
        } else {
            differing.lock().push(format!("seed {seed}: {sql}\n  {with:?}\n  {without:?}"));
        }
    };
    // One in three; the branches of a union are partitions, too, and in no order.
    let seeds: Vec<u64> = seeds()
        .into_iter()
        .filter(|seed| seed % 3 == 0 && !statement(*seed).sql.contains(" UNION "))
        .collect();
    let total = seeds.len() as u64;
    futures::stream::iter(seeds).for_each_concurrent(AT_ONCE, compare).await;
    let differing = differing.into_inner();
    println!("{total} statements, {alike:?} with rows, {} differ", differing.len());
    differing.iter().take(12).for_each(|text| println!("{}", &text[..text.len().min(1500)]));
    assert!(differing.is_empty(), "{} differ", differing.len());
    assert!(alike.into_inner() * 5 > total * 2, "many statements should find something");
}

/// Guarantee: the same of statements that look for it, and of each of several partitions: its rows, their order, and
/// where its batches end.
#[tokio::test]
async fn rows_are_shared_out_by_what_may_be_seen() {
    let statements = [
        "SELECT * FROM readings",
        "SELECT device, ts, value FROM readings WHERE signal = 'heart_rate'",
        "SELECT 1 FROM readings",
        "SELECT signal, seq, value / 7 FROM readings WHERE ts >= TIMESTAMP '2026-01-01T00:00:20Z'",
    ];
    for (partitions, group) in [(1, 30), (2, 97), (3, 10_000), (7, 30)] {
        let twins = Twins::new(partitions, group);
        for sql in statements {
            let [with, without] = twins.both(sql).await.map(|told| {
                let mut batches = told.unwrap();
                batches.sort();
                batches
            });
            assert_eq!(with.len(), partitions, "{sql}: each partition gives a batch");
            assert_eq!(with, without, "{sql}");
        }
    }
    let twins = Twins::new(1, 97);
    for sql in [
        "SELECT sum(value / 7), avg(value / 3), stddev(value), corr(value, seq) FROM readings",
        "SELECT signal, approx_percentile_cont(value, 0.3) FROM readings GROUP BY signal",
        "SELECT device, seq, value FROM readings LIMIT 7",
        "SELECT first_value(value), last_value(seq) FROM readings",
        "SELECT seq, row_number() OVER (ORDER BY signal) FROM readings",
    ] {
        let [with, without] = twins.both(sql).await;
        assert!(with.as_ref().is_ok_and(|batches| !batches.is_empty()), "{sql}: {with:?}");
        assert_eq!(with, without, "{sql}");
    }
}

/// Guarantee: the same where parts give many batches.
#[tokio::test]
async fn batches_end_where_visible_rows_do() {
    let statements = [
        "SELECT device, signal, ts, value FROM readings",
        "SELECT 1 FROM readings",
        "SELECT seq, value FROM readings WHERE seq % 7 <> 3",
    ];
    for (partitions, sql) in [1, 3].into_iter().flat_map(|count| statements.map(|sql| (count, sql))) {
        let [with, without] = Twins::many(partitions).both(sql).await.map(|told| {
            let mut batches = told.unwrap();
            batches.sort();
            batches
        });
        assert!(with.len() > 3 * partitions, "{sql}: {} batches", with.len());
        assert!(with == without, "{sql}, {partitions} parts");
    }
    let sql = "SELECT value, seq, device FROM readings ORDER BY value LIMIT 9000";
    let [with, without] = Twins::many(1).both(sql).await;
    assert!(with.as_ref().is_ok_and(|batches| batches.len() > 1) && with == without, "ties");
}

/// Guarantee: nor does the memory of a batch, from which it follows where a large sort begins to spill: its buffers
/// have the same sizes, for names and boots, too, and for a last batch that is not full.
#[tokio::test]
async fn batches_hold_what_their_rows_need() {
    for group in [30, 97] {
        let twins = Twins::new(1, group);
        let many = Twins::many(1);
        for sql in [
            "SELECT * FROM readings",
            "SELECT boot FROM readings",
            "SELECT subject, device, unit, value FROM readings WHERE value > 3",
        ] {
            for twins in [&twins, &many] {
                let [with, without] = [&twins.engines[0], &twins.engines[1]].map(async |engine| {
                    let running =
                        engine.run(twins.world.warrant(), sql, RunOptions::default()).await.unwrap();
                    let sizes = |batch: RecordBatch| -> Vec<usize> {
                        batch.columns().iter().map(|column| column.get_array_memory_size()).collect()
                    };
                    running.map(|batch| sizes(batch.unwrap())).collect::<Vec<_>>().await
                });
                let (with, without) = (with.await, without.await);
                assert!(!with.is_empty());
                assert_eq!(with, without, "{sql}");
            }
        }
    }
}

/// Guarantee: where a query is left early, the record counts rows of the batches that left the scan, whole ones, and none
/// that were read ahead: how far that is depends on hidden rows.
#[tokio::test]
async fn rows_read_ahead_are_not_counted() {
    for sql in ["SELECT value FROM readings LIMIT 10", "SELECT 1 FROM readings LIMIT 10"] {
        let twins = Twins::many(1);
        let [with, without] = twins.both(sql).await;
        assert_eq!(with.unwrap(), without.unwrap(), "{sql}");
        let counted = |access: usize| -> Vec<Option<u64>> {
            (0..10).map(|number| twins.world.accesses(number)[access].rows).collect()
        };
        let rows: u64 = counted(0).into_iter().flatten().sum();
        assert!(rows > 0 && rows.is_multiple_of(BATCH_ROWS_MAX as u64), "{sql}: {rows}");
        assert_eq!(counted(0), counted(1), "{sql}");
    }
}
