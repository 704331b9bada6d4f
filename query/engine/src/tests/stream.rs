//! Tests of a query under way: exact counts, revocation, bounds, and one completion whatever happens.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use query_audit::report::Seen;
use tempfile::TempDir;

use super::fixture::{Reading, Store, T0, ask, lake, options, scalar_batch};
use super::people::World;
use crate::{Engine, EngineError, Options, RunOptions, Running, View};

fn engine(world: &World, view: View, options: Options) -> Engine {
    Engine::new(options, Arc::new(Store(view)), Arc::clone(&world.consents), Arc::clone(&world.audit))
        .unwrap()
}

/// A view with very many visible rows in its tail.
fn big(dir: &TempDir, batches: usize) -> View {
    let mut view = lake(dir.path(), 1_000_000, |_, _| true);
    let rows: Vec<Reading> = (0..8_000)
        .map(|row| Reading { device: 1, signal: 1, ts: T0 + row, raw: row % 100, den: 1, seq: row })
        .collect();
    view.tail_scalar = vec![scalar_batch(&rows); batches];
    view
}

async fn drain(mut running: Running) -> (u64, Option<EngineError>) {
    let mut rows = 0;
    while let Some(batch) = running.next().await {
        match batch {
            Ok(batch) => rows += batch.num_rows() as u64,
            Err(error) => return (rows, Some(error)),
        }
    }
    (rows, None)
}

/// The audit gets exactly how many rows of whom left the leaf: all of them for a full scan, the selected ones
/// for a query on time, nothing of those who did not consent. And it gets a scope as narrow as the query.
#[tokio::test]
async fn counts_are_exact() {
    let world = World::new();
    let dir = TempDir::new().unwrap();
    let engine = engine(&world, lake(dir.path(), 64, |_, _| true), options());
    let recent = "ts >= '2026-01-01 00:00:40' AND ts < '2026-01-01 00:01:00'";
    let cases = [
        ("SELECT * FROM readings WHERE signal = 'heart_rate'".to_owned(), 50, 100),
        ("SELECT count(*) FROM readings WHERE signal = 'heart_rate'".to_owned(), 50, 100),
        ("SELECT max(value) FROM readings WHERE signal = 'acceleration_x'".to_owned(), 200, 480),
        (format!("SELECT value FROM readings WHERE signal = 'spo2' AND {recent}"), 10, 20),
        ("SELECT count(*) FROM readings_1m WHERE signal = 'spo2'".to_owned(), 50, 100),
        (
            "SELECT a.ts FROM readings a JOIN readings b ON a.ts = b.ts AND a.device = b.device \
          WHERE a.signal = 'spo2' AND b.signal = 'heart_rate'"
                .to_owned(),
            100,
            200,
        ),
    ];
    for (index, (sql, first, others)) in cases.iter().enumerate() {
        ask(&engine, &world, sql).await.unwrap();
        for number in 0..10 {
            let accesses = world.accesses(number);
            assert_eq!(accesses.len(), index + 1, "{sql}");
            let rows = if number == 0 { first } else { others };
            let last = &accesses[index];
            assert_eq!((last.rows, last.outcome), (Some(*rows), Seen::Released), "{number}: {sql}");
            assert_eq!(last.recipient, super::people::asker().to_string());
        }
        let scope = &world.accesses(1)[index];
        assert!(scope.signals.len() <= 2, "{:?}: {sql}", scope.signals);
        assert_eq!(scope.from_us.is_some(), sql.contains("00:00:40"), "{sql}");
    }
    for number in super::fixture::HIDDEN {
        assert!(world.accesses(number).is_empty());
    }
}

/// A query on one device concerns its wearer alone; a statement without a table concerns nobody.
#[tokio::test]
async fn scope_is_who_is_asked_about() {
    let world = World::new();
    let dir = TempDir::new().unwrap();
    let engine = engine(&world, lake(dir.path(), 64, |_, _| true), options());
    ask(&engine, &world, "SELECT max(value) FROM readings WHERE device = '{3}'").await.unwrap();
    ask(&engine, &world, "SELECT 1").await.unwrap();
    assert!(ask(&engine, &world, "DROP TABLE readings").await.is_err());
    let concerned: Vec<usize> = (0..12).map(|number| world.accesses(number).len()).collect();
    assert_eq!(concerned, [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
}

/// A revocation ends a running stream with its own error, never as a short result, and the completion says so.
#[tokio::test]
async fn revocation_ends_the_stream() {
    let world = World::new();
    let dir = TempDir::new().unwrap();
    let engine = engine(&world, big(&dir, 200), options());
    let mut running =
        engine.run(world.warrant(), "SELECT * FROM readings", RunOptions::default()).await.unwrap();
    assert!(running.next().await.unwrap().unwrap().num_rows() > 0);
    world.revoke();
    // Not one more row, not even of what already waited.
    assert!(matches!(running.next().await, Some(Err(EngineError::ConsentChanged))));
    assert!(running.next().await.is_none());
    assert!(running.take_manifest().is_none());
    assert_eq!(world.ending(1).await, Seen::Revoked);
}

/// An aggregate whose rows are already in is aborted too.
#[tokio::test]
async fn revocation_ends_an_aggregate() {
    let world = World::new();
    let dir = TempDir::new().unwrap();
    let engine = engine(&world, big(&dir, 400), options());
    let sql = "SELECT count(*), sum(value) FROM readings";
    let running = engine.run(world.warrant(), sql, RunOptions::default()).await.unwrap();
    world.revoke();
    let (rows, error) = drain(running).await;
    assert_eq!((rows, error.unwrap().code()), (0, "CONSENT_CHANGED"));
}

/// A reader that goes away stops the query, and one completion is recorded.
#[tokio::test]
async fn dropping_stops_and_completes_once() {
    let world = World::new();
    let dir = TempDir::new().unwrap();
    let engine = engine(&world, big(&dir, 2_000), Options { queries_max: 1, ..options() });
    let mut running =
        engine.run(world.warrant(), "SELECT * FROM readings", RunOptions::default()).await.unwrap();
    let _ = running.next().await;
    assert!(matches!(
        engine.run(world.warrant(), "SELECT 1", RunOptions::default()).await,
        Err(EngineError::Busy)
    ));
    drop(running);
    assert_eq!(world.ending(1).await, Seen::Cancelled);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(world.accesses(1).len(), 1);
    // Its place is free again.
    assert!(engine.run(world.warrant(), "SELECT 1", RunOptions::default()).await.is_ok());
}

/// Bounds of time, rows, bytes and memory end the stream with an error of their own.
#[tokio::test]
async fn bounds() {
    let world = World::new();
    let dir = TempDir::new().unwrap();
    let cases: [(Options, &str, &str); 4] = [
        (Options { rows_max: 20_000, ..options() }, "SELECT * FROM readings", "OVER_BUDGET"),
        (Options { bytes_max: 100_000, ..options() }, "SELECT * FROM readings", "OVER_BUDGET"),
        (
            Options { memory_bytes_max: 200_000, ..options() },
            "SELECT ts, seq, subject, count(*) FROM readings GROUP BY 1, 2, 3",
            "OVER_BUDGET",
        ),
        (
            Options { time_max: Duration::from_millis(300), ..options() },
            "SELECT count(*) FROM readings a JOIN readings b ON a.device = b.device",
            "TIMEOUT",
        ),
    ];
    for (index, (options, sql, code)) in cases.into_iter().enumerate() {
        let engine = engine(&world, big(&dir, 60), options);
        let found = match engine.run(world.warrant(), sql, RunOptions::default()).await {
            Ok(running) => drain(running).await.1,
            Err(error) => Some(error),
        };
        assert_eq!(found.map(|error| error.code()), Some(code), "{sql}");
        assert_eq!(world.ending(index + 1).await, Seen::Error);
    }
}

/// A stalled reader does not hold a query beyond its time.
#[tokio::test]
async fn stalled_reader_times_out() {
    let world = World::new();
    let dir = TempDir::new().unwrap();
    let engine =
        engine(&world, big(&dir, 500), Options { time_max: Duration::from_millis(400), ..options() });
    let running = engine.run(world.warrant(), "SELECT * FROM readings", RunOptions::default()).await.unwrap();
    assert_eq!(world.ending(1).await, Seen::Error);
    assert!(drain(running).await.1.is_some());
}

/// A view of the past has no live tail; an unknown size is refused; the manifest says what was read.
#[tokio::test]
async fn as_of_and_manifest() {
    let world = World::new();
    let dir = TempDir::new().unwrap();
    let engine = engine(&world, lake(dir.path(), 64, |_, _| true), options());
    let sql = "SELECT count(*) FROM readings WHERE signal = 'skin_temperature'";
    let past = RunOptions { as_of: Some(7) };
    let mut running = engine.run(world.warrant(), sql, past).await.unwrap();
    let batch = running.next().await.unwrap().unwrap();
    assert_eq!(super::fixture::text_rows(&batch), ["0"]);
    assert!(running.next().await.is_none());
    let manifest = running.take_manifest().unwrap();
    assert_eq!((manifest.log_size, manifest.live_tail, manifest.rows), (7, false, 1));
    assert_eq!((manifest.sources.batches, &manifest.sources.entries[..]), (2, &[3, 6][..]));
    assert!(manifest.result_index.is_some_and(|result| result > manifest.query_index));
    assert_eq!(manifest.principal, *world.warrant().principal());
    assert_eq!(ask(&engine, &world, sql).await.unwrap()[1], "200");
    let unknown = engine.run(world.warrant(), sql, RunOptions { as_of: Some(8) }).await;
    assert_eq!(unknown.unwrap_err().code(), "NO_SNAPSHOT");
}

/// A lake file that is gone or damaged is an internal error without its path, and the completion is recorded.
#[tokio::test]
async fn damaged_files() {
    let world = World::new();
    let dir = TempDir::new().unwrap();
    let view = lake(dir.path(), 64, |_, _| true);
    let path = view.files[0].path.clone();
    let engine = engine(&world, view, options());
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let error = ask(&engine, &world, "SELECT * FROM readings").await.unwrap_err();
    assert_eq!(error.code(), "INTERNAL");
    assert!(!error.public().contains("parquet"));
    std::fs::remove_file(&path).unwrap();
    assert_eq!(ask(&engine, &world, "SELECT * FROM readings").await.unwrap_err().code(), "INTERNAL");
}

/// A grant or token that runs out while the query runs ends it as a revocation does.
#[tokio::test]
async fn expiry_ends_the_stream() {
    let world = World::new();
    let dir = TempDir::new().unwrap();
    let late = Options { clock: super::people::clock(3_601_000_000), ..options() };
    let engine = engine(&world, lake(dir.path(), 64, |_, _| true), late);
    assert_eq!(ask(&engine, &world, "SELECT * FROM readings").await.unwrap_err().code(), "CONSENT_CHANGED");
}

/// One principal cannot take all places: the second query of the same one is told to wait.
#[tokio::test]
async fn places_per_principal() {
    let world = World::new();
    let dir = TempDir::new().unwrap();
    let engine = engine(&world, big(&dir, 2_000), Options { queries_per_principal_max: 1, ..options() });
    let sql = "SELECT * FROM readings";
    let running = engine.run(world.warrant(), sql, RunOptions::default()).await.unwrap();
    let second = engine.run(world.warrant(), "SELECT 1", RunOptions::default()).await;
    assert_eq!(second.unwrap_err().code(), "BUSY");
    drop(running);
    assert_eq!(world.ending(1).await, Seen::Cancelled);
}

/// Files below a folder.
fn files(folder: &std::path::Path) -> usize {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| if path.is_dir() { files(&path) } else { 1 }).sum()
}

/// Guarantee: a sort larger than its memory is answered by way of the disk, within the disk's bound, and nothing stays
/// there; without a disk, or on one that is full but for what others need, it is refused as before. What a killed
/// process left there is gone at the start.
#[tokio::test]
async fn a_sort_larger_than_memory() {
    let (world, dir, disk) = (World::new(), TempDir::new().unwrap(), TempDir::new().unwrap());
    let folder = disk.path().join("spill");
    std::fs::create_dir_all(folder.join("datafusion-of-before")).unwrap();
    std::fs::write(folder.join("datafusion-of-before/rows"), "left behind").unwrap();
    let sql = "SELECT sum(n) FROM (SELECT row_number() OVER (ORDER BY value, ts, seq) AS n FROM readings)";
    let engine_with = |spill: Option<(u64, u64)>| {
        let spill = spill.map(|(bytes_max, free_bytes_min)| crate::Spill {
            folder: folder.clone(),
            bytes_max,
            free_bytes_min,
        });
        let options = Options { memory_bytes_max: 20 << 20, partitions: 1, spill, ..options() };
        engine(&world, big(&dir, 100), options)
    };
    let refused = |error: EngineError| assert!(matches!(error, EngineError::OverBudget(_)), "{error:?}");
    refused(ask(&engine_with(None), &world, sql).await.unwrap_err());
    assert_eq!(files(&folder), 1);
    refused(ask(&engine_with(Some((1 << 20, 0))), &world, sql).await.unwrap_err());
    // A disk that others need is as good as none.
    refused(ask(&engine_with(Some((1 << 30, u64::MAX))), &world, sql).await.unwrap_err());
    let engine = engine_with(Some((1 << 30, 0)));
    assert_eq!(files(&folder), 0);
    let count: u64 = ask(&engine, &world, "SELECT count(*) FROM readings").await.unwrap()[1].parse().unwrap();
    assert!(count > 800_000);
    let sum: u64 = ask(&engine, &world, sql).await.unwrap()[1].parse().unwrap();
    assert_eq!((sum, files(&folder)), (count * (count + 1) / 2, 0));
}
