//! Statements that DataFusion 55 answers wrongly because it believes a joined sub-query's key to determine too much.
//! The expected answers come from the readings themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use datafusion::prelude::SessionContext;
use tempfile::TempDir;

use super::fixture::{Store, ask, lake, options, text_rows};
use super::oracle::permitted;
use super::people::World;
use crate::Engine;

/// Each reading's boot and time, beside a sub-query with one row for each boot.
const JOINED: &str = "SELECT s.boot AS boot, CAST(r.ts AS BIGINT) AS ts FROM readings r JOIN \
                      (SELECT boot, avg(value) AS base FROM readings GROUP BY boot) s ON r.boot = s.boot";

/// Boots and times, in order, with the number of readings of each.
async fn moments() -> BTreeMap<(String, String), u64> {
    let plain = SessionContext::new();
    plain.register_batch("readings", permitted()).unwrap();
    let batches =
        plain.sql("SELECT boot, CAST(ts AS BIGINT) FROM readings").await.unwrap().collect().await.unwrap();
    let mut moments = BTreeMap::new();
    for row in batches.iter().flat_map(text_rows) {
        let (boot, ts) = row.split_once('|').unwrap();
        *moments.entry((boot.to_owned(), ts.to_owned())).or_default() += 1;
    }
    moments
}

/// What the statement gives, in the order given.
async fn asked(engine: &Engine, world: &World, sql: &str) -> Vec<String> {
    use futures::StreamExt;
    let mut running = engine.run(world.warrant(), sql, crate::RunOptions::default()).await.unwrap();
    let mut rows = Vec::new();
    while let Some(batch) = running.next().await {
        rows.extend(text_rows(&batch.unwrap()));
    }
    rows
}

/// Guarantee: a joined grouping that is grouped, made distinct, ordered or cut again is so by all that the statement names.
#[tokio::test]
async fn a_joined_key_does_not_determine_what_is_grouped_with_it() {
    let (world, dir, moments) = (World::new(), TempDir::new().unwrap(), moments().await);
    let store = Arc::new(Store(lake(dir.path(), 97, |_, _| true)));
    let engine =
        Engine::new(options(), store, Arc::clone(&world.consents), Arc::clone(&world.audit)).unwrap();
    let boots: BTreeSet<&String> = moments.keys().map(|(boot, _)| boot).collect();
    let in_order: Vec<String> = moments.keys().map(|(boot, ts)| format!("{boot}|{ts}")).collect();
    assert!(boots.len() > 5 && in_order.len() > 1_000);

    let distinct = format!("SELECT DISTINCT boot, ts FROM ({JOINED})");
    assert_eq!(asked(&engine, &world, &format!("{distinct} ORDER BY boot, ts")).await, in_order);
    let cut = format!("{distinct} ORDER BY boot, ts LIMIT 7 OFFSET 3");
    assert_eq!(asked(&engine, &world, &cut).await, in_order[3..10]);

    let groups = format!("SELECT boot, ts, count(*) FROM ({JOINED}) GROUP BY boot, ts ORDER BY boot, ts");
    let counted: Vec<String> =
        moments.iter().map(|((boot, ts), count)| format!("{boot}|{ts}|{count}")).collect();
    assert_eq!(asked(&engine, &world, &groups).await, counted);

    let once = format!("SELECT count(*) FROM (SELECT DISTINCT boot FROM ({distinct}))");
    assert_eq!(asked(&engine, &world, &once).await, [boots.len().to_string()]);
    let with = format!("WITH d AS ({distinct}) SELECT count(*) FROM (SELECT boot FROM d GROUP BY boot, ts)");
    assert_eq!(asked(&engine, &world, &with).await, [in_order.len().to_string()]);
    let outer = format!("SELECT count(*) FROM (SELECT boot FROM ({distinct}) GROUP BY boot)");
    assert_eq!(asked(&engine, &world, &outer).await, [boots.len().to_string()]);
}

/// Guarantee: filters and columns pass a sub-query as before, and the plan that runs holds nothing else.
#[tokio::test]
async fn plans_stay_as_they_were() {
    let (world, dir) = (World::new(), TempDir::new().unwrap());
    let store = Arc::new(Store(lake(dir.path(), 97, |_, _| true)));
    let engine =
        Engine::new(options(), store, Arc::clone(&world.consents), Arc::clone(&world.audit)).unwrap();
    let sql = "EXPLAIN SELECT s.device, r.value - s.base FROM readings r JOIN (SELECT device, avg(value) AS base, \
               max(ts) AS last FROM readings GROUP BY device) s ON r.device = s.device WHERE s.device > '4'";
    let plan = ask(&engine, &world, sql).await.unwrap().join("\n");
    assert!(!plan.contains("Doubted"), "{plan}");
    assert!(!plan.contains("max("), "a column nobody names is not made: {plan}");
    assert_eq!(
        plan.matches("FilterExec: device").count(),
        2,
        "the condition on the key holds on both sides: {plan}"
    );
}
