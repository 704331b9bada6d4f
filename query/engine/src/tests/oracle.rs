//! Filter first, then ask: random statements on the guarded table give what they give on a plain table that
//! holds only the permitted rows.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Float64Array, Int32Array, Int64Array, RecordBatch, StringViewArray, TimestampMicrosecondArray,
};
use datafusion::prelude::SessionContext;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};
use schemas_signals::Registry;
use schemas_signals::columns::readings_schema;
use tempfile::TempDir;

use super::fixture::{ROWS, SECOND, Store, ask, lake, options, readings, text_rows, visible, waves};
use super::people::{World, device, person};
use crate::Engine;

struct Row {
    device: u32,
    signal: u16,
    ts: i64,
    value: f64,
    received: i64,
    seq: i64,
}

/// The permitted rows, worked out without any code of the engine.
pub(crate) fn permitted() -> RecordBatch {
    rows_if(visible)
}

/// All rows, those of people who never consented among them.
pub(crate) fn everything() -> RecordBatch {
    rows_if(|_, _| true)
}

fn rows_if(keep: fn(u32, i64) -> bool) -> RecordBatch {
    let mut rows = Vec::new();
    let mut scalar = readings(&[1, 2], 0, ROWS);
    scalar.extend(readings(&[5], 0, 20));
    for row in scalar {
        let received = row.ts + 5 * SECOND;
        rows.push(Row {
            device: row.device,
            signal: row.signal,
            ts: row.ts,
            value: row.raw as f64,
            received,
            seq: row.seq,
        });
    }
    for wave in waves(0, 12) {
        for (sample, raw) in wave.raw.iter().enumerate() {
            rows.push(Row {
                device: wave.device,
                signal: wave.signal,
                ts: wave.first + sample as i64 * wave.period,
                value: *raw as f64 / 2.0,
                received: wave.first + 11 * SECOND,
                seq: 1,
            });
        }
    }
    rows.retain(|row| keep(row.device, row.ts));
    let signal = |row: &Row| Registry::builtin().by_id(u32::from(row.signal)).unwrap();
    let text = |of: &dyn Fn(&Row) -> String| -> ArrayRef {
        Arc::new(StringViewArray::from_iter_values(rows.iter().map(of)))
    };
    let times = |of: fn(&Row) -> i64| -> ArrayRef {
        Arc::new(TimestampMicrosecondArray::from_iter_values(rows.iter().map(of)).with_timezone("UTC"))
    };
    let columns: Vec<ArrayRef> = vec![
        text(&|row| person(row.device).to_string()),
        text(&|row| device(row.device).to_string()),
        text(&|row| signal(row).name.clone()),
        times(|row| row.ts),
        Arc::new(Float64Array::from_iter_values(rows.iter().map(|row| row.value))),
        text(&|row| signal(row).unit.clone()),
        Arc::new(Int32Array::from_value(0, rows.len())),
        times(|row| row.received),
        text(&|row| format!("{:016x}", row.device + 1)),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.seq))),
    ];
    RecordBatch::try_new(readings_schema(), columns).unwrap()
}

fn predicate() -> impl Strategy<Value = String> {
    let name =
        prop::sample::select(vec!["heart_rate", "spo2", "skin_temperature", "acceleration_x", "nosuch"]);
    let device = (0_u32..13).prop_map(|number| device(number).to_string());
    let at = (0_i64..520).prop_map(|quarter| quarter * 250).prop_map(|ms| {
        format!("TIMESTAMP '2026-01-01 00:{:02}:{:02}.{:03}'", ms / 60_000, ms / 1_000 % 60, ms % 1_000)
    });
    let compare = prop::sample::select(vec!["=", "<", "<=", ">", ">=", "<>"]);
    let leaf = prop_oneof![
        (name.clone(), compare.clone()).prop_map(|(name, op)| format!("signal {op} '{name}'")),
        (name.clone(), name).prop_map(|(a, b)| format!("signal IN ('{a}', '{b}')")),
        (device.clone(), compare.clone()).prop_map(|(device, op)| format!("device {op} '{device}'")),
        (device.clone(), device).prop_map(|(a, b)| format!("device NOT IN ('{a}', '{b}')")),
        (at.clone(), compare.clone()).prop_map(|(at, op)| format!("ts {op} {at}")),
        (at.clone(), at.clone()).prop_map(|(a, b)| format!("ts BETWEEN {a} AND {b}")),
        (at, compare.clone()).prop_map(|(at, op)| format!("{at} {op} ts")),
        (0_i32..90, compare.clone()).prop_map(|(value, op)| format!("value {op} {value}")),
        (0_i32..100, compare).prop_map(|(seq, op)| format!("seq % 7 {op} {} ", seq % 7)),
    ];
    leaf.prop_recursive(3, 12, 2, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} AND {b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} OR {b})")),
            inner.prop_map(|a| format!("NOT ({a})")),
        ]
    })
}

fn statement() -> impl Strategy<Value = String> {
    let columns = prop::sample::subsequence(
        vec!["subject", "device", "signal", "ts", "value", "unit", "flags", "received_at", "boot", "seq"],
        1..=10,
    );
    prop_oneof![
        (columns.clone(), predicate()).prop_map(|(columns, p)| format!("SELECT {} FROM readings WHERE {p}", columns.join(", "))),
        predicate().prop_map(|p| format!(
            "SELECT count(*), sum(value), min(ts), max(ts), count(DISTINCT subject) FROM readings WHERE {p}"
        )),
        (columns, predicate()).prop_map(|(columns, p)| {
            let keys = columns.join(", ");
            format!("SELECT {keys}, count(*), sum(value) FROM readings WHERE {p} GROUP BY {keys}")
        }),
        predicate().prop_map(|p| format!("SELECT ts, value FROM readings WHERE {p} ORDER BY ts, signal, device, value LIMIT 9")),
        (predicate(), predicate()).prop_map(|(a, b)| format!(
            "SELECT x.signal, count(*) FROM (SELECT * FROM readings WHERE {a} AND seq < 20) x JOIN \
             (SELECT * FROM readings WHERE {b} AND seq < 20) y ON x.device = y.device AND x.seq = y.seq GROUP BY 1"
        )),
        (predicate(), predicate()).prop_map(|(a, b)| format!(
            "SELECT subject FROM readings WHERE {a} EXCEPT SELECT subject FROM readings WHERE {b}"
        )),
    ]
}

/// Random statements agree with filter-then-ask, on one row group and on many.
#[tokio::test]
async fn agrees_with_filter_then_query() {
    let world = World::new();
    let plain = SessionContext::new();
    plain.register_batch("readings", permitted()).unwrap();
    let mut runner = TestRunner::new_with_rng(
        Config::default(),
        proptest::test_runner::TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha),
    );
    for group in [1_000_000, 97] {
        let dir = TempDir::new().unwrap();
        let store = Arc::new(Store(lake(dir.path(), group, |_, _| true)));
        let engine =
            Engine::new(options(), store, Arc::clone(&world.consents), Arc::clone(&world.audit)).unwrap();
        for _ in 0..120 {
            let sql = statement().new_tree(&mut runner).unwrap().current();
            let mut expected: Vec<String> =
                plain.sql(&sql).await.unwrap().collect().await.unwrap().iter().flat_map(text_rows).collect();
            expected.sort();
            let found = ask(&engine, &world, &sql).await.unwrap();
            assert_eq!(found[1..], expected, "{sql}");
        }
    }
}
