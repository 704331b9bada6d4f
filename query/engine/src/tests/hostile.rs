//! Statements made to do harm: to the stack, to memory, to everybody else's time. They are refused, or end by a bound; the
//! engine answers others meanwhile and afterwards.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use tempfile::TempDir;

use super::fixture::{self, Store, with_ids};
use super::people::World;
use crate::{Engine, Options, RunOptions, View};

/// Readings per person and signal: enough that multiplying them ends nowhere.
const ROWS: i64 = 5_000;
/// Time a statement may take in these tests.
const TIME_MAX: Duration = Duration::from_secs(5);
/// The same where many share the cores.
const TIME_MAX_SHARED: Duration = Duration::from_secs(60);
/// Revocations of the test that makes them under load.
const REVOCATIONS: usize = 4;

fn engine(world: &World, dir: &TempDir, time_max: Duration) -> Engine {
    let scalar = fixture::scalar_batch(&fixture::readings(&[1, 2], 0, ROWS));
    let small = fixture::lake(dir.path(), 1_000_000, |_, _| true);
    let file = fixture::write(dir.path(), "big.parquet", crate::FileKind::Scalar, &scalar, 50_000);
    let view = View { files: vec![file], tail_scalar: Vec::new(), tail_wave: Vec::new(), ..small };
    let options = Options {
        time_max,
        memory_bytes_max: 64 << 20,
        threads: 16,
        queries_max: 128,
        queries_per_principal_max: 128,
        ..fixture::options()
    };
    Engine::new(options, Arc::new(Store(view)), Arc::clone(&world.consents), Arc::clone(&world.audit))
        .unwrap()
}

/// How a statement ended: `OK` or the code.
async fn ending(engine: &Engine, world: &World, sql: &str) -> &'static str {
    let mut running = match engine.run(world.warrant(), &with_ids(sql), RunOptions::default()).await {
        Ok(running) => running,
        Err(error) => return error.code(),
    };
    while let Some(batch) = running.next().await {
        if let Err(error) = batch {
            return error.code();
        }
    }
    "OK"
}

/// Statements of about so many bytes, each a class of its own.
fn of_size(bytes: usize) -> Vec<(&'static str, String)> {
    let chain = |part: &str, with: &str| vec![part; bytes / (part.len() + with.len())].join(with);
    let nested = |open: &str, inner: &str, close: &str| {
        let count = bytes / (open.len() + close.len());
        format!("{}{inner}{}", open.repeat(count), close.repeat(count))
    };
    vec![
        ("sum", format!("SELECT {}", chain("1", "+"))),
        ("concatenation", format!("SELECT {}", chain("'a'", "||"))),
        ("or", format!("SELECT count(*) FROM readings WHERE {}", chain("value = 1", " OR "))),
        ("and not", format!("SELECT count(*) FROM readings WHERE {}", chain("value <> 1", " AND NOT "))),
        ("list", format!("SELECT count(*) FROM readings WHERE seq IN ({})", chain("7", ","))),
        ("brackets", format!("SELECT {}", nested("(", "1", ")"))),
        ("signs", format!("SELECT {}1", "- ".repeat(bytes / 2))),
        ("nots", format!("SELECT {} true", chain("NOT", " "))),
        ("cases", format!("SELECT {}", nested("CASE WHEN true THEN ", "1", " ELSE 2 END"))),
        ("casts", format!("SELECT 1{}", "::BIGINT".repeat(bytes / 8))),
        ("calls", format!("SELECT {}", nested("abs(", "1", ")"))),
        ("subqueries", nested("SELECT * FROM (", "SELECT 1", ") AS t")),
        ("unions", chain("SELECT 1", " UNION ALL ")),
        ("columns", format!("SELECT {} FROM readings", chain("value", ","))),
        ("joins", format!("SELECT count(*) FROM readings {}", chain("", " NATURAL JOIN readings"))),
        ("tables", format!("SELECT count(*) FROM {}", chain("readings", ","))),
        ("commons", format!("WITH a AS (SELECT 1) {}", chain("SELECT * FROM a", " UNION ALL "))),
        ("keys", format!("SELECT count(*) FROM readings GROUP BY {}", chain("value", ","))),
        ("literal", format!("SELECT '{}'", "a".repeat(bytes))),
        ("pattern", format!("SELECT count(*) FROM readings WHERE subject LIKE '{}'", "%a".repeat(bytes / 2))),
        (
            "expression",
            format!(
                "SELECT count(*) FROM readings WHERE regexp_like(subject, '{}')",
                "(a|b)*".repeat(bytes / 6)
            ),
        ),
        ("number", format!("SELECT {}", "9".repeat(bytes))),
        ("name", format!("SELECT \"{}\" FROM readings", "n".repeat(bytes))),
        ("comment", format!("SELECT 1 /*{}", "/*".repeat(bytes / 2))),
        ("values", format!("VALUES {}", chain("(1)", ","))),
    ]
}

/// Statements that are small, pass the gate or nearly, and would take for ever or take everything.
const LONG: &[&str] = &[
    "SELECT count(*) FROM readings a, readings b",
    "SELECT count(*) FROM readings a, readings b, readings c WHERE a.value + b.value = c.value",
    "SELECT count(*) FROM readings a JOIN readings b ON a.signal = b.signal",
    "SELECT count(*) FROM readings a JOIN readings b ON a.signal = b.signal JOIN readings c ON b.signal = c.signal",
    "SELECT sum(a.value * b.value) FROM readings a JOIN readings b ON a.unit = b.unit AND a.value < b.value",
    "SELECT count(*) FROM readings a LEFT JOIN readings b ON a.value > b.value",
    "SELECT count(*) FROM readings a WHERE EXISTS (SELECT 1 FROM readings b WHERE b.value > a.value AND b.seq < a.seq)",
    "SELECT count(*) FROM readings a WHERE a.value NOT IN (SELECT b.value + a.seq FROM readings b)",
    "SELECT count(*) FROM readings a WHERE EXISTS (SELECT 1 FROM readings b WHERE b.unit = a.unit AND b.value < a.value - 1000)",
    "SELECT count(*) FROM readings a WHERE a.unit NOT IN (SELECT b.unit FROM readings b WHERE b.value < a.value - 1000)",
    "SELECT count(*) FROM readings a FULL JOIN readings b ON a.unit = b.unit AND a.value + b.value < 0",
    "SELECT count(*) FROM readings a JOIN readings b ON a.unit = b.unit AND a.value + b.value < 0",
    "SELECT count(DISTINCT a.value * b.seq) FROM readings a JOIN readings b USING (flags)",
    "SELECT a.value, b.value FROM readings a JOIN readings b ON a.signal = b.signal ORDER BY 1, 2",
    "SELECT DISTINCT a.value, a.seq, b.seq FROM readings a JOIN readings b ON a.signal = b.signal",
    "SELECT median(value) OVER (ORDER BY ts ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) FROM readings",
    "SELECT count(DISTINCT seq) OVER (ORDER BY ts ROWS BETWEEN 100000 PRECEDING AND CURRENT ROW) FROM readings",
    "SELECT max(value) OVER (ORDER BY ts, device ROWS BETWEEN 100000 PRECEDING AND 100000 FOLLOWING) FROM readings",
    "SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY value) OVER (PARTITION BY signal ORDER BY ts) FROM readings",
    "SELECT lag(value, 1000000000000) OVER (ORDER BY ts) FROM readings",
    "SELECT ntile(9223372036854775807) OVER (ORDER BY ts) FROM readings",
    "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r) SELECT count(*) FROM r",
    "SELECT length(repeat('x', 2000000000))",
    "SELECT character_length(lpad('x', 2000000000, 'y'))",
    "SELECT count(*) FROM generate_series(1, 100000000000)",
    "SELECT unnest(range(1, 1000000000))",
    "SELECT array_agg(subject) FROM readings",
    "SELECT string_agg(subject, subject) FROM readings",
    "SELECT count(*) FROM readings WHERE regexp_like(subject, '((a{1,99}){1,99}){1,99}')",
    "SELECT count(*) FROM readings WHERE regexp_like(subject, '(\\w{0,200}){0,200}b')",
    "SELECT count(*) FROM readings WHERE subject ~ '(x+x+)+y'",
    "SELECT count(*) FROM readings WHERE regexp_like(subject, device || device)",
    "SELECT count(*) FROM readings WHERE regexp_like(subject, reverse(subject))",
    "SELECT factorial(value::BIGINT) FROM readings",
    "SELECT power(value, 1e308) FROM readings",
    "SELECT date_bin(INTERVAL '1 nanosecond', ts), count(*) FROM readings GROUP BY 1",
    "SELECT ts + INTERVAL '200000 years' FROM readings",
    "SELECT * FROM readings ORDER BY subject, ts OFFSET 9223372036854775807",
    "SELECT subject, device, signal, unit, boot, count(*) FROM readings GROUP BY ROLLUP(subject, device, signal, unit, boot, seq, ts, value)",
    "SELECT to_char(ts, '%c%c%c%c%c%c%c%c%c%c%c%c%c%c%c%c') FROM readings",
];

/// Guarantee (G12): hostile text of 0.8 kB and of 100 kB, and small statements that multiply, are refused or end by a
/// bound; the process lives, and a plain question is answered after each.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_statements_are_bounded() {
    let (world, dir) = (World::new(), TempDir::new().unwrap());
    let engine = engine(&world, &dir, TIME_MAX);
    let long = LONG.iter().map(|sql| (*sql, (*sql).to_owned()));
    let sized = [800, 100_000].into_iter().flat_map(of_size);
    for (class, sql) in sized.chain(long) {
        let begun = Instant::now();
        let code = ending(&engine, &world, &sql).await;
        println!("{:>6} ms {:<18} {} B {}", begun.elapsed().as_millis(), code, sql.len(), class);
        let is_known = [
            "OK",
            "STATEMENT_TOO_BIG",
            "UNSUPPORTED",
            "READ_ONLY",
            "SYNTAX",
            "NOT_PLANNED",
            "EVALUATION",
            "OVER_BUDGET",
            "TIMEOUT",
        ];
        assert!(is_known.contains(&code), "{code}: {class}");
        let plain = "SELECT count(*) FROM readings WHERE device = '{3}' AND signal = 'heart_rate'";
        assert_eq!(ending(&engine, &world, plain).await, "OK", "after {class}");
    }
}

/// Guarantee (G12): while one principal's statements keep every thread they can get busy without giving a row, somebody
/// else's plain question is answered, and does not wait for them to end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_are_answered_meanwhile() {
    let (world, dir) = (World::new(), TempDir::new().unwrap());
    let engine = engine(&world, &dir, TIME_MAX);
    let never =
        "SELECT count(*) FROM readings a JOIN readings b ON a.unit = b.unit AND a.value + b.value < 0";
    let endings = futures::future::join_all((0..4).map(|_| ending(&engine, &world, never)));
    let answered = async {
        tokio::time::sleep(TIME_MAX / 4).await;
        let plain = "SELECT count(*) FROM readings WHERE device = '{3}' AND signal = 'heart_rate'";
        assert_eq!(ending(&engine, &world, plain).await, "OK");
        Instant::now()
    };
    let ended = async {
        let codes = endings.await;
        assert_eq!(codes, ["TIMEOUT"; 4]);
        Instant::now()
    };
    let (answered, ended) = futures::join!(answered, ended);
    assert!(answered < ended);
}

/// Guarantee (G7): with a hundred queries under way, what is asked once a revocation has returned shows nothing of the
/// person, every time. How long that took is printed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_holds_under_load() {
    let (world, dir) = (World::new(), TempDir::new().unwrap());
    let engine = engine(&world, &dir, TIME_MAX_SHARED);
    let is_over = std::sync::atomic::AtomicBool::new(false);
    let load = futures::future::join_all((0..100).map(|_| async {
        let mut codes = Vec::new();
        while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
            codes.push(
                ending(&engine, &world, "SELECT device, avg(value) FROM readings GROUP BY device").await,
            );
        }
        codes
    }));
    let revoking = async {
        let mut took = Vec::new();
        let rows = "SELECT count(*) AS n FROM readings WHERE device = '{1}' AND signal = 'heart_rate'";
        for _ in 0..REVOCATIONS {
            let revocation = world.revoke();
            let begun = Instant::now();
            assert_eq!(fixture::ask(&engine, &world, rows).await.unwrap()[1..], ["0"]);
            took.push(begun.elapsed());
            world.grant_again(revocation);
            assert_eq!(fixture::ask(&engine, &world, rows).await.unwrap()[1..], ["5000"]);
        }
        is_over.store(true, std::sync::atomic::Ordering::Relaxed);
        took.sort();
        took
    };
    let (codes, took) = futures::join!(load, revoking);
    let codes: Vec<&str> = codes.into_iter().flatten().collect();
    let count = |code: &str| codes.iter().filter(|known| **known == code).count();
    println!(
        "revoked to empty: median {:?}, longest {:?}; {} queries answered, {} broken off",
        took[REVOCATIONS / 2],
        took[REVOCATIONS - 1],
        count("OK"),
        count("CONSENT_CHANGED")
    );
    assert_eq!(count("OK") + count("CONSENT_CHANGED"), codes.len(), "{codes:?}");
    assert!(count("OK") > 0 && count("CONSENT_CHANGED") > 0);
}
