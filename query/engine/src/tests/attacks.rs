//! Attacks on the scan leaf. The method: each statement is asked of two lakes, one with hidden rows and one in
//! which they never existed. Whatever differs (rows, types, the class of an error) is a leak.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRng, TestRunner};
use tempfile::TempDir;

use super::fixture::{self, Store, ask, lake, options, visible};
use super::people::{World, person};
use crate::{Engine, EngineError};
use std::sync::Arc;

struct Lakes {
    full: Engine,
    twin: Engine,
    world: World,
    _dirs: (TempDir, TempDir),
}

fn lakes(group: usize) -> Lakes {
    let world = World::new();
    let dirs = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let engine = |dir: &TempDir, keep| {
        let store = Arc::new(Store(lake(dir.path(), group, keep)));
        Engine::new(options(), store, Arc::clone(&world.consents), Arc::clone(&world.audit)).unwrap()
    };
    let (full, twin) = (engine(&dirs.0, |_, _| true), engine(&dirs.1, visible));
    Lakes { full, twin, world, _dirs: dirs }
}

type Answer = Result<Vec<String>, (&'static str, &'static str)>;

fn outside(answer: Result<Vec<String>, EngineError>) -> Answer {
    answer.map_err(|error| (error.code(), error.public()))
}

/// Asks both lakes, insists on the same answer and on the absence of the secret, and gives the answer.
async fn same(lakes: &Lakes, sql: &str) -> Answer {
    let full = outside(ask(&lakes.full, &lakes.world, sql).await);
    let twin = outside(ask(&lakes.twin, &lakes.world, sql).await);
    assert_eq!(full, twin, "hidden rows show in: {sql}");
    if let Ok(lines) = &full {
        let hidden = fixture::HIDDEN.map(|number| super::people::device(number).to_string());
        let cells = |line: &String| line.split('|').map(str::to_owned).collect::<Vec<_>>();
        for cell in lines[1..].iter().flat_map(cells) {
            let secret = ["181.0", "90.5"].contains(&cell.as_str()) || hidden.contains(&cell);
            assert!(!secret, "{cell} in the answer to: {sql}");
        }
    }
    full
}

async fn rows(lakes: &Lakes, sql: &str) -> Vec<String> {
    match same(lakes, sql).await {
        Ok(lines) => lines[1..].to_vec(),
        Err((code, _)) => panic!("{code}: {sql}"),
    }
}

async fn code(lakes: &Lakes, sql: &str) -> &'static str {
    match same(lakes, sql).await {
        Ok(lines) => panic!("{} rows: {sql}", lines.len() - 1),
        Err((code, _)) => code,
    }
}

/// Oracles that fail, or do not, depending on a value: a hidden value never decides (A1, A2, A4, A16).
#[tokio::test]
async fn value_oracles() {
    let lakes = lakes(1_000_000);
    let oracles = [
        "CAST(CAST(value AS TEXT) AS INT) >= 0",
        "CAST(CASE WHEN value = 181 THEN 'x' ELSE '1' END AS INT) = 1",
        "100 / (CAST(value AS INT) - 181) > -1000",
        "100 / (CAST(value AS BIGINT) - 181) > -1000 AND signal = 'heart_rate'",
        "signal = 'heart_rate' AND 100 / (CAST(value AS BIGINT) - 181) > -1000",
        "1 / CAST(181 - value AS INT) <= 100 OR signal = 'spo2'",
        "ts >= TIMESTAMP '2026-01-01' AND CAST(CASE WHEN value > 100 THEN 'boom' ELSE '7' END AS INT) = 7",
        "device IN ('{1}', '{11}') AND 1 / (181 - CAST(value AS INT)) >= 0",
        "sqrt(180 - value) >= 0 AND 5 / CAST(ceil(181 - value) AS INT) >= 0",
        "CASE WHEN CAST(value AS INT) = 181 THEN 1 / 0 ELSE 1 END = 1",
        "coalesce(nullif(CAST(value AS INT), 181), 1 / 0) > 0",
        "NOT (100 / (CAST(value AS INT) - 181) < -1000)",
        "to_date(CASE WHEN value > 180 THEN 'never' ELSE '2026-01-01' END) = to_date('2026-01-01')",
        "CAST(value * 11000000 AS INT) > 0",
        "power(CAST(value AS INT), CASE WHEN value = 181 THEN 90 ELSE 1 END) > 0",
        "regexp_like(CAST(value AS TEXT), CASE WHEN value = 181 THEN '(' ELSE '6' END) OR true",
    ];
    for oracle in oracles {
        let _ = same(&lakes, &format!("SELECT count(*) FROM readings WHERE {oracle}")).await;
        let _ =
            same(&lakes, &format!("SELECT sum(CASE WHEN {oracle} THEN 1 ELSE 0 END) FROM readings")).await;
        let _ = same(
            &lakes,
            &format!("SELECT subject FROM readings WHERE {oracle} ORDER BY ts, subject LIMIT 3"),
        )
        .await;
        let _ = same(&lakes, &format!("SELECT count(*) FILTER (WHERE {oracle}) FROM readings")).await;
        let _ = same(
            &lakes,
            &format!("SELECT count(*) FROM readings GROUP BY subject HAVING bool_and({oracle})"),
        )
        .await;
    }
    // The sharpest of them gives all visible heart rates, and no error.
    let sql = "SELECT count(*) FROM readings WHERE signal = 'heart_rate' AND 100 / (CAST(value AS INT) - 181) > -1000";
    assert_eq!(rows(&lakes, sql).await, ["950"]);
}

/// The same oracles when row groups hold few rows and page pruning is at work.
#[tokio::test]
async fn value_oracles_with_many_row_groups() {
    let lakes = lakes(64);
    for oracle in ["100 / (CAST(value AS INT) - 181) > -1000", "CAST(CAST(value AS TEXT) AS INT) >= 0"] {
        let _ = same(&lakes, &format!("SELECT count(*) FROM readings WHERE {oracle}")).await;
    }
    assert_eq!(
        rows(&lakes, "SELECT count(*), max(value) FROM readings WHERE signal = 'spo2'").await,
        ["950|79.0"]
    );
}

/// Sub-queries, EXISTS, qualified names, aliases, set operations: each is guarded as the plain table is (A5-A8).
#[tokio::test]
async fn every_way_of_naming_the_table() {
    let lakes = lakes(1_000_000);
    let cases = [
        ("SELECT (SELECT max(value) FROM readings)", "79.0"),
        ("SELECT max(value) FROM vitalog.public.readings", "79.0"),
        ("SELECT max(r.value) FROM public.readings AS r", "79.0"),
        ("SELECT max(value) FROM \"readings\"", "79.0"),
        ("SELECT max(value) FROM READINGS", "79.0"),
        ("SELECT max(v) FROM (SELECT value AS v FROM readings) t", "79.0"),
        ("WITH x AS (SELECT * FROM readings) SELECT max(value) FROM x", "79.0"),
        ("SELECT count(*) FROM readings WHERE value = 181", "0"),
        (
            "SELECT count(*) FROM (SELECT 181.0 AS x) t WHERE EXISTS (SELECT 1 FROM readings v WHERE v.value = t.x)",
            "0",
        ),
        ("SELECT count(*) FROM (SELECT 181.0 AS x) t WHERE x IN (SELECT value FROM readings)", "0"),
        ("SELECT count(*) FROM (SELECT 181.0 AS x) t WHERE x NOT IN (SELECT value FROM readings)", "1"),
        ("SELECT count(*) FROM (SELECT value FROM readings INTERSECT SELECT 181.0) t", "0"),
        ("SELECT count(*) FROM readings WHERE device = '{11}'", "0"),
        ("SELECT count(*) FROM readings WHERE device = '{10}' OR device IN ('{10}', '{11}')", "0"),
        ("SELECT count(DISTINCT subject) FROM readings", "10"),
        ("SELECT count(DISTINCT device) FROM readings", "10"),
        ("SELECT DISTINCT max(value) OVER () FROM readings", "79.0"),
        ("SELECT max(value) FROM (SELECT value FROM readings ORDER BY value DESC LIMIT 1) t", "79.0"),
    ];
    for (sql, expected) in cases {
        assert_eq!(rows(&lakes, sql).await, [expected], "{sql}");
    }
    assert_eq!(code(&lakes, "SELECT max(value) FROM \"Readings\"").await, "NOT_PLANNED");
}

/// Joins on keys that fail for hidden values, in both orders and kinds; TopK and join filters at work (A10).
#[tokio::test]
async fn join_keys() {
    let lakes = lakes(1_000_000);
    for kind in ["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN", "LEFT SEMI JOIN", "LEFT ANTI JOIN"] {
        for key in [
            "CAST(CASE WHEN a.value > 180 THEN 'x' ELSE '1' END AS INT) = CAST(b.seq AS INT)",
            "1 / (181 - CAST(a.value AS INT)) = 1 / (181 - CAST(b.value AS INT)) AND a.ts = b.ts",
        ] {
            let of = |name: &str| {
                format!(
                    "(SELECT * FROM readings WHERE signal = 'spo2' AND ts < '2026-01-01 00:00:03') {name}"
                )
            };
            let _ =
                same(&lakes, &format!("SELECT count(a.value) FROM {} {kind} {} ON {key}", of("a"), of("b")))
                    .await;
        }
    }
    let sql =
        "SELECT value FROM readings WHERE 1000 / (CAST(value AS INT) - 181) < 0 ORDER BY value DESC LIMIT 2";
    assert_eq!(rows(&lakes, sql).await, ["79.0", "79.0"]);
}

/// Only the contract's columns exist, an unknown one is told apart from nothing else, and values carry no
/// metadata (B1, B2, B7).
#[tokio::test]
async fn columns() {
    let lakes = lakes(1_000_000);
    let all = same(&lakes, "SELECT * FROM readings LIMIT 0").await.unwrap();
    let names: Vec<&str> = all[0].split('|').map(|column| column.split(':').next().unwrap()).collect();
    assert_eq!(names.join(" "), "subject device signal ts value unit flags received_at boot seq");
    for column in ["raw", "leaf", "num", "quality", "nosuch", "ssn", "\"Subject\"", "__row", "ctid"] {
        assert_eq!(code(&lakes, &format!("SELECT {column} FROM readings")).await, "NOT_PLANNED", "{column}");
    }
}

/// No function tells of files, versions, settings or metadata, and none builds values without bound (B5, B7, B8, G5).
#[tokio::test]
async fn functions_left_out() {
    let lakes = lakes(1_000_000);
    for call in [
        "input_file_name()",
        "file_row_index()",
        "version()",
        "arrow_metadata(value)",
        "arrow_typeof(value)",
        "arrow_field(value)",
        "with_metadata(value, 'a', 'b')",
        "arrow_cast(value, 'Utf8')",
        "repeat(unit, 2000000000)",
        "lpad(unit, 2000000000)",
        "rpad(unit, 2000000000)",
        "array_repeat(1, 2000000000)",
        "range(1, 1000000000)",
        "generate_series(1, 1000000000)",
        "make_array(1)",
        "array_agg(value)",
        "string_agg(unit, ',')",
        "concat(unit, unit)",
        "replace(unit, 'a', 'b')",
        "random()",
        "uuid()",
        "struct(1)",
        "named_struct('a', 1)",
        "map(1, 2)",
        "current_setting('x')",
        "pg_read_file('/etc/passwd')",
        "read_csv('/etc/passwd')",
    ] {
        let found = code(&lakes, &format!("SELECT {call} FROM readings")).await;
        assert!(matches!(found, "NOT_PLANNED" | "UNSUPPORTED"), "{call}: {found}");
    }
}

/// No catalogue but ours, no settings, no files as tables (B3, B4, B8, D8); the refusal is the same for all.
#[tokio::test]
async fn other_tables() {
    let lakes = lakes(1_000_000);
    for table in [
        "information_schema.tables",
        "information_schema.columns",
        "information_schema.df_settings",
        "information_schema.views",
        "pg_catalog.pg_class",
        "'/etc/passwd'",
        "'/etc/passwd.csv'",
        "\"/etc/passwd\"",
        "'s3://bucket/x.parquet'",
        "'http://127.0.0.1/x.csv'",
        "raw",
        "scalar",
        "frames",
        "vitalog.other.readings",
        "catalog.nosuch",
        "datafusion.public.readings",
    ] {
        assert_eq!(code(&lakes, &format!("SELECT * FROM {table}")).await, "NOT_PLANNED", "{table}");
    }
}

/// Counts and extremes come from visible rows, never from file statistics (C4); LIMIT is not cut short below.
#[tokio::test]
async fn statistics_and_limit() {
    for group in [1_000_000, 64] {
        let lakes = lakes(group);
        let all = "SELECT count(*), min(value), max(value), count(DISTINCT device) FROM readings";
        let answer = rows(&lakes, &format!("{all} WHERE signal IN ('heart_rate', 'spo2')")).await;
        assert_eq!(answer, ["1900|60.0|79.0|10"]);
        assert_eq!(rows(&lakes, "SELECT count(*) FROM readings WHERE signal = 'heart_rate'").await, ["950"]);
        // Which rows an unordered LIMIT picks depends on timing; how many, and that they are visible, does not.
        let some = ask(&lakes.full, &lakes.world, "SELECT value FROM readings LIMIT 7").await.unwrap();
        assert!(some.len() == 8 && !some.contains(&"181.0".to_owned()), "{some:?}");
        let sql = "SELECT * FROM (SELECT * FROM readings LIMIT 1000000) t WHERE signal = 'spo2'";
        assert_eq!(rows(&lakes, sql).await.len(), 950);
        assert_eq!(rows(&lakes, "SELECT DISTINCT unit FROM readings WHERE signal = 'spo2'").await, ["%"]);
    }
}

/// Waves show sample by sample what consent covers, in the middle of a series too.
#[tokio::test]
async fn waves_are_cut_at_the_sample() {
    let lakes = lakes(1_000_000);
    // Ten people, twelve series of forty samples each; the first person's only to second 50.
    let sql = "SELECT count(*), max(value), min(ts), max(ts) FROM readings WHERE signal = 'acceleration_x'";
    let all = rows(&lakes, sql).await;
    assert!(all[0].starts_with(&format!("{}|15.5|2026-01-01T00:00:00Z", 9 * 12 * 40 + 200)), "{all:?}");
    let sql = "SELECT count(*), max(ts) FROM readings WHERE signal = 'acceleration_x' AND device = '{0}'";
    assert_eq!(rows(&lakes, sql).await, ["200|2026-01-01T00:00:49.750Z"]);
    let sql = "SELECT count(*) FROM readings WHERE signal = 'acceleration_x' AND device = '{1}' \
               AND ts > '2026-01-01 00:00:01' AND ts <= '2026-01-01 00:00:02'";
    assert_eq!(rows(&lakes, sql).await, ["4"]);
}

/// Without a grant every query gives what it gives on an empty table, and no error.
#[tokio::test]
async fn no_grant_no_row() {
    let world = World::without_grants();
    let dir = TempDir::new().unwrap();
    let store = Arc::new(Store(lake(dir.path(), 1_000_000, |_, _| true)));
    let engine =
        Engine::new(options(), store, Arc::clone(&world.consents), Arc::clone(&world.audit)).unwrap();
    for (sql, rows) in [
        ("SELECT * FROM readings", vec![]),
        ("SELECT count(*) FROM readings", vec!["0"]),
        ("SELECT max(value) FROM readings", vec!["NULL"]),
        ("SELECT 1 / CAST(value AS INT) FROM readings", vec![]),
        ("SELECT count(*) FROM catalog.grants", vec!["0"]),
        ("SELECT * FROM readings_1m", vec![]),
        ("SELECT count(*) FROM readings_1h", vec!["0"]),
    ] {
        assert_eq!(ask(&engine, &world, sql).await.unwrap()[1..], rows, "{sql}");
    }
}

/// Chains of every kind, as long as the gate lets pass, are planned and evaluated without harm to the stack.
#[tokio::test]
async fn long_chains_do_not_overflow() {
    let lakes = lakes(1_000_000);
    let chain = |first: &str, link: &str, count: usize| format!("{first}{}", link.repeat(count));
    for expression in [
        chain("value", " + value", 390),
        chain("CAST(seq AS BIGINT)", " - seq", 390),
        chain("value > 0", " AND value < 100", 120),
        chain("value > 100", " OR value < seq", 120),
        chain("value", "::TEXT::DOUBLE", 90),
        format!("{}value{}", "abs(".repeat(30), ")".repeat(30)),
        format!("{}value", "- ".repeat(350)),
        format!("{}(value > 1)", "NOT ".repeat(350)),
    ] {
        let found = outside(
            ask(&lakes.full, &lakes.world, &format!("SELECT {expression} FROM readings LIMIT 1")).await,
        );
        assert!(
            found.is_ok() || matches!(found, Err(("NOT_PLANNED" | "SYNTAX" | "STATEMENT_TOO_BIG", _))),
            "{found:?}: {expression}"
        );
    }
    let union = format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(32));
    assert_eq!(rows(&lakes, &union).await.len(), 33);
}

/// Joins that multiply without a key are refused unless one side is small by construction; sums of scans are bounded.
#[tokio::test]
async fn multiplying_plans() {
    let lakes = lakes(1_000_000);
    for sql in [
        "SELECT count(*) FROM readings a CROSS JOIN readings b",
        "SELECT count(*) FROM readings a, readings b",
        "SELECT count(*) FROM readings a JOIN readings b ON a.value < b.value",
        "SELECT count(*) FROM readings a LEFT JOIN readings b ON a.value + b.value = 7 AND a.value < b.value",
    ] {
        let found = outside(ask(&lakes.full, &lakes.world, sql).await);
        assert!(matches!(found, Err(("OVER_BUDGET", _))) || sql.contains("LEFT"), "{sql}: {found:?}");
    }
    let doubled = "WITH a AS (SELECT x.seq FROM readings x, readings y WHERE x.seq = y.seq),
        b AS (SELECT x.seq FROM a x, a y WHERE x.seq = y.seq), c AS (SELECT x.seq FROM b x, b y WHERE x.seq = y.seq),
        d AS (SELECT x.seq FROM c x, c y WHERE x.seq = y.seq), e AS (SELECT x.seq FROM d x, d y WHERE x.seq = y.seq)
        SELECT count(*) FROM e";
    assert_eq!(
        outside(ask(&lakes.full, &lakes.world, doubled).await),
        Err(("STATEMENT_TOO_BIG", EngineError::TooBig(crate::error::Limit::Relations).public()))
    );
    assert_eq!(rows(&lakes, "SELECT count(*) FROM readings a, (SELECT max(value) m FROM readings) b WHERE a.value = b.m AND a.signal = 'spo2'").await.len(), 1);
}

/// The catalogue shows what can be measured and how much is allowed, in numbers only.
#[tokio::test]
async fn catalogue() {
    let lakes = lakes(1_000_000);
    assert_eq!(rows(&lakes, "SELECT unit FROM catalog.signals WHERE name = 'heart_rate'").await, ["/min"]);
    let sql = "SELECT kind, purpose, resolution, export, people FROM catalog.grants";
    assert_eq!(rows(&lakes, sql).await, ["party|HRESCH|raw|rows|10"]);
    assert_eq!(rows(&lakes, "SELECT count(*) FROM catalog.studies").await, ["0"]);
}

/// A plan shows the statement and nothing else: it is the same with hidden rows, without them, and without any grant; no
/// name of a file, person or device, no count and no value is in it (C1, C2).
#[tokio::test]
async fn plans_show_nothing_of_the_data() {
    let lakes = lakes(64);
    let (nobody, dir) = (World::without_grants(), TempDir::new().unwrap());
    let store = Arc::new(Store(lake(dir.path(), 64, |_, _| true)));
    let empty =
        Engine::new(options(), store, Arc::clone(&nobody.consents), Arc::clone(&nobody.audit)).unwrap();
    for sql in [
        "EXPLAIN SELECT * FROM readings",
        "EXPLAIN SELECT device, max(value) FROM readings WHERE value > 180 GROUP BY device ORDER BY 2 LIMIT 3",
        "EXPLAIN SELECT count(*) FROM readings WHERE device = '{11}' OR signal = 'heart_rate'",
        "EXPLAIN SELECT * FROM readings a JOIN readings b ON a.device = b.device AND a.ts = b.ts",
        "EXPLAIN WITH w AS (SELECT * FROM readings_1m) SELECT * FROM w WHERE n > (SELECT avg(n) FROM w)",
    ] {
        let shown = same(&lakes, sql).await.unwrap();
        assert_eq!(shown, ask(&empty, &nobody, sql).await.unwrap(), "{sql}");
        let text = shown.join("\n");
        assert!(text.contains("ConsentScan"), "{text}");
        for told in [person(10).to_string(), person(1).to_string(), "parquet".into(), "statistics".into()] {
            assert!(!text.contains(&told), "{sql}: {text}");
        }
        // Of devices only those the asker wrote.
        let named =
            (0..12).filter(|number| text.contains(&super::people::device(*number).to_string())).count();
        assert!(named <= usize::from(sql.contains('{')), "{text}");
    }
    assert!(lakes.world.accesses(1).is_empty(), "looking at a plan reads nobody");
    for sql in [
        "EXPLAIN ANALYZE SELECT 1",
        "EXPLAIN VERBOSE SELECT 1",
        "EXPLAIN FORMAT TREE SELECT 1",
        "EXPLAIN DROP TABLE readings",
    ] {
        assert_ne!(code(&lakes, sql).await, "OK", "{sql}");
    }
}

/// Why rows are missing is told in counts: how many are permitted, and small groups not at all; those who never spoke
/// to the asker do not exist for it.
#[tokio::test]
async fn reasons_in_counts() {
    let lakes = lakes(1_000_000);
    let sql = "SELECT reason, people FROM consent.explain() ORDER BY 1";
    assert_eq!(rows(&lakes, sql).await, ["permitted|10"]);
    lakes.world.revoke();
    assert_eq!(rows(&lakes, sql).await, ["closed by the person|NULL", "permitted|9"]);
    assert_eq!(rows(&lakes, "SELECT count(*) FROM consent.explain").await, ["2"]);
    for sql in
        ["SELECT * FROM consent.explain(1)", "SELECT * FROM explain()", "SELECT * FROM other.explain()"]
    {
        assert_ne!(code(&lakes, sql).await, "OK", "{sql}");
    }
}

/// Sums per minute and hour are made of visible rows only; a grant of one minute gives sums and not one raw row;
/// a grant of one hour does not give minutes.
#[tokio::test]
async fn coarser_resolutions() {
    let lakes = lakes(64);
    let sql =
        "SELECT bucket, n, min, max, mean FROM readings_1m WHERE signal = 'heart_rate' AND device = '{0}'";
    assert_eq!(rows(&lakes, sql).await, ["2026-01-01T00:00:00Z|50|60.0|79.0|69.1"]);
    let sql = "SELECT count(*), sum(n) FROM readings_1m WHERE signal = 'heart_rate' AND bucket >= '2026-01-01 00:01:00'";
    assert_eq!(rows(&lakes, sql).await, ["9|360"]);
    let sql = "SELECT count(*), sum(n), max(max) FROM readings_1h WHERE signal = 'heart_rate' AND bucket < '2026-01-01 01:00:00'";
    assert_eq!(rows(&lakes, sql).await, ["10|950|79.0"]);
    let _ =
        same(&lakes, "SELECT count(*) FROM readings_1m WHERE 100 / (CAST(max AS INT) - 181) > -1000").await;
    let _ = same(
        &lakes,
        "SELECT count(*) FROM readings_1m WHERE 100 / (CAST(mean AS INT) - 181) > -1000 AND device > '5'",
    )
    .await;
    assert_eq!(code(&lakes, "SELECT value FROM readings_1m").await, "NOT_PLANNED");
    for (resolution, raw, minutes, hours) in
        [("1m", "0", "1800", "1800"), ("1h", "0", "0", "1800"), ("aggregate", "0", "0", "0")]
    {
        let world = World::with_grants(resolution);
        let dir = TempDir::new().unwrap();
        let store = Arc::new(Store(lake(dir.path(), 64, |_, _| true)));
        let engine =
            Engine::new(options(), store, Arc::clone(&world.consents), Arc::clone(&world.audit)).unwrap();
        for (table, column, expected) in [
            ("readings", "count(*)", raw),
            ("readings_1m", "coalesce(sum(n), 0)", minutes),
            ("readings_1h", "coalesce(sum(n), 0)", hours),
        ] {
            let sql = format!(
                "SELECT {column} FROM {table} WHERE signal IN ('heart_rate', 'spo2') AND device <> '{{0}}'"
            );
            assert_eq!(ask(&engine, &world, &sql).await.unwrap()[1], expected, "{resolution}: {table}");
        }
    }
}

/// Expressions that fail on some values, put together at random, over both lakes: the same rows, the same class
/// of error. The lakes' rows lie in other batches and row groups, so where a batch ends must not matter either.
#[tokio::test]
async fn random_oracles() {
    let failing = prop::sample::select(vec![
        "100 / (CAST(value AS INT) - 181) > -1000",
        "1 / (CAST(seq AS INT) - 77) < 5",
        "CAST(CASE WHEN value > 100 THEN 'x' ELSE '1' END AS INT) = 1",
        "CAST(value * 11000000 AS INT) > 0",
        "1 / (CAST(value AS INT) - 61) < 5",
        "CAST(substr(device, 1, 2) AS INT) > 10",
        "CAST(value AS INT) % (CAST(seq AS INT) - 50) = 0",
    ]);
    let harmless = prop::sample::select(vec![
        "signal = 'heart_rate'",
        "seq < 30",
        "value > 70",
        "ts < '2026-01-01 00:00:20'",
        "device > '5'",
        "unit = '%'",
        "device = '{11}'",
        "value > 180",
        "flags = 0",
    ]);
    let leaf = prop_oneof![failing, harmless].prop_map(str::to_owned);
    let predicate = leaf.prop_recursive(3, 8, 2, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} AND {b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} OR {b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("CASE WHEN {a} THEN {b} ELSE true END")),
            inner.prop_map(|a| format!("NOT ({a})")),
        ]
    });
    let mut runner = TestRunner::new_with_rng(
        Config::default(),
        TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha),
    );
    for group in [1_000_000, 64] {
        let lakes = lakes(group);
        for _ in 0..60 {
            let predicate = predicate.new_tree(&mut runner).unwrap().current();
            let _ =
                same(&lakes, &format!("SELECT count(*), sum(value) FROM readings WHERE {predicate}")).await;
        }
    }
}
