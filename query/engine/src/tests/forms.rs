//! Forms that are refused because DataFusion 55 would answer them wrongly or without end, with their neighbours that
//! are answered. And conditions that look at each row for itself, so that no failure tells of hidden rows.

use std::sync::Arc;

use tempfile::TempDir;

use super::fixture::{Store, ask, lake, options, visible};
use super::people::World;
use crate::{Engine, EngineError};

/// An engine over rows, and who asks.
struct Asked {
    engine: Engine,
    world: World,
    _dir: TempDir,
}

impl Asked {
    fn of(keep: fn(u32, i64) -> bool) -> Asked {
        let (world, dir) = (World::new(), TempDir::new().unwrap());
        let store = Arc::new(Store(lake(dir.path(), 97, keep)));
        let engine =
            Engine::new(options(), store, Arc::clone(&world.consents), Arc::clone(&world.audit)).unwrap();
        Asked { engine, world, _dir: dir }
    }

    async fn ask(&self, sql: &str) -> Result<Vec<String>, EngineError> {
        Ok(ask(&self.engine, &self.world, sql).await?.split_off(1))
    }
}

async fn refused(code: &str, statements: &[&str]) {
    let asked = Asked::of(|_, _| true);
    for sql in statements {
        let error = asked.ask(sql).await.expect_err(sql);
        assert_eq!(error.code(), code, "{sql}: {error:?}");
    }
}

async fn answered(statements: &[(&str, &[&str])]) {
    let asked = Asked::of(|_, _| true);
    for (sql, expected) in statements {
        assert_eq!(
            asked.ask(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}")),
            **expected,
            "{sql}"
        );
    }
}

/// A statement of some levels, each of which puts `around` around what is below it.
fn nested(levels: usize, inmost: &str, around: impl Fn(&str, usize) -> String) -> String {
    (0..levels).fold(inmost.to_owned(), |below, level| around(&below, level))
}

/// Guarantee: a small statement that would grow without end while it is planned is refused before it does; one that
/// grows a little is answered.
#[tokio::test]
async fn growth_is_bounded() {
    let eightfold =
        |below: &str, level: usize| format!("(SELECT c+c+c+c+c+c+c+c AS c FROM {below} t{level})");
    let doubled = |below: &str, level: usize| format!("(SELECT c+c AS c FROM {below} t{level})");
    let chosen = |below: &str, _| format!("coalesce({below}, nullif(value, 1))");
    let between = |below: &str, _| format!("(({below}) BETWEEN (seq > 0) AND (seq < 50))");
    let cases = |below: &str, _| format!("CASE WHEN {below} THEN value > 2 ELSE seq > 3 END");
    let column = "(SELECT seq AS c FROM readings)";
    let sum = |of: String| format!("SELECT count(*) FROM {of} z WHERE c > 0");
    let condition = |of: String| format!("SELECT count(*) FROM readings WHERE {of}");
    refused(
        "STATEMENT_TOO_BIG",
        &[
            &sum(nested(14, column, eightfold)),
            &sum(nested(15, column, doubled)),
            &format!("SELECT count({}) FROM readings", nested(14, "nullif(value, 0)", chosen)),
            &condition(nested(16, "value > 1", between)),
            &condition(nested(12, "value > 1", cases)),
        ],
    )
    .await;
    // A long condition stays one, though each part of it can fail.
    let chain: Vec<String> = (1..=90).map(|by| format!("value + {by} > seq")).collect();
    let chain = chain.join(" AND ");
    let asked = Asked::of(|_, _| true);
    for few in [
        sum(nested(3, column, eightfold)),
        format!("SELECT count({}) FROM readings", nested(4, "nullif(value, 0)", chosen)),
        condition(nested(4, "value > 1", between)),
        condition(nested(3, "value > 1", cases)),
        condition(chain),
    ] {
        asked.ask(&few).await.unwrap_or_else(|error| panic!("{few}: {error:?}"));
    }
}

/// Guarantee: what would end the process, or panic, for a number in the statement, is refused.
#[tokio::test]
async fn numbers_that_are_no_size() {
    refused(
        "UNSUPPORTED",
        &[
            "SELECT approx_percentile_cont(value, 0.5, 4000000000000) FROM readings",
            "SELECT approx_percentile_cont(0.5, 1001) WITHIN GROUP (ORDER BY value) FROM readings",
            "SELECT sum(value) OVER (ORDER BY ts ROWS BETWEEN 18446744073709551615 PRECEDING AND CURRENT ROW) FROM readings",
            "SELECT sum(value) OVER (ORDER BY seq GROUPS BETWEEN 1 PRECEDING AND 18446744073709551615 FOLLOWING) FROM readings",
            "SELECT sum(value) OVER (ORDER BY ts RANGE BETWEEN INTERVAL '-5 seconds' PRECEDING AND CURRENT ROW) FROM readings",
        ],
    )
    .await;
    answered(&[
        ("SELECT approx_percentile_cont(value, 0.5, 200) > 0 FROM readings", &["true"]),
        (
            "SELECT max(n) FROM (SELECT count(*) OVER (PARTITION BY device ORDER BY ts, signal ROWS BETWEEN 2 PRECEDING AND 1 FOLLOWING) AS n \
             FROM readings) s",
            &["4"],
        ),
    ])
    .await;
}

/// Guarantee: forms that come out otherwise than SQL says are refused, and the like of them that come out right are
/// answered.
#[tokio::test]
async fn wrong_answers_are_refused() {
    let of = "FROM (VALUES (1), (2), (500), (NULL)) a(k)";
    let listed = "(SELECT nullif(seq, 5) FROM readings)";
    let like = "FROM readings r WHERE r.seq = a.k";
    refused(
        "UNSUPPORTED",
        &[
            &format!("SELECT k {of} WHERE k NOT IN {listed} OR k = 1"),
            &format!("SELECT k {of} WHERE NOT (k IN {listed} AND k > 1)"),
            &format!("SELECT k {of} WHERE (k IN {listed}) IS NULL"),
            &format!("SELECT k {of} WHERE EXISTS (SELECT count(*) {like})"),
            &format!("SELECT k {of} WHERE NOT EXISTS (SELECT max(seq) {like})"),
            &format!("SELECT k {of} WHERE 0 IN (SELECT count(*) {like})"),
            &format!("SELECT k {of} WHERE EXISTS (SELECT 1 {like} OFFSET 50)"),
            "SELECT signal FROM readings EXCEPT ALL SELECT signal FROM readings WHERE seq = 0",
            "SELECT 1 UNION SELECT signal FROM readings INTERSECT ALL SELECT signal FROM readings",
            "SELECT k FROM (VALUES (1)) a(k) RIGHT JOIN (VALUES (2)) b(k) USING (k)",
            "SELECT count(k) FROM ((VALUES (1)) a(k) NATURAL FULL JOIN (VALUES (2)) b(k))",
            "SELECT count(*) FROM readings WHERE (seq > 5) IS NOT DISTINCT FROM (seq > 5) AND signal = 'spo2'",
            "SELECT extract(epoch FROM max(ts) - min(ts)) FROM readings",
        ],
    )
    .await;
    answered(&[
        (&format!("SELECT k {of} WHERE k IN {listed} OR k = 500"), &["1", "2", "500"]),
        (&format!("SELECT k {of} WHERE k NOT IN (SELECT 1) AND k > 1"), &["2", "500"]),
        (&format!("SELECT k {of} WHERE EXISTS (SELECT 1 {like} LIMIT 1)"), &["1", "2"]),
        (&format!("SELECT k {of} WHERE (SELECT count(*) {like}) = 0"), &["500", "NULL"]),
        ("SELECT k FROM (VALUES (1), (2)) a(k) LEFT JOIN (VALUES (2)) b(k) USING (k)", &["1", "2"]),
        ("SELECT 1 UNION ALL SELECT 1", &["1", "1"]),
        (
            "SELECT count(*) FROM readings WHERE ((seq > 5) IS NOT DISTINCT FROM (seq > 5)) AND signal = 'spo2'",
            &["950"],
        ),
        ("SELECT extract(epoch FROM max(ts)) - extract(epoch FROM min(ts)) FROM readings", &["119.75"]),
    ])
    .await;
}

/// Guarantee: a scalar sub-query that finds nothing is NULL, also of a column that never is.
#[tokio::test]
async fn a_sub_query_may_be_empty() {
    let none = "(SELECT seq FROM readings WHERE value > 1e9)";
    answered(&[
        (&format!("SELECT count(*) > 0 FROM readings WHERE {none} IS NULL"), &["true"]),
        (&format!("SELECT count(*) FROM readings WHERE {none} IS NOT NULL"), &["0"]),
        (&format!("SELECT coalesce({none}, -1)"), &["-1"]),
        ("SELECT (SELECT 5 WHERE false) IS NULL", &["true"]),
        (&format!("SELECT max(n) FROM (SELECT {none} AS n FROM readings) s"), &["NULL"]),
    ])
    .await;
}

/// Guarantee: what the left side of AND or OR decides is not evaluated on the right, whatever other rows, hidden ones
/// among them, it shares a batch with: a query fails with hidden rows if and only if it fails without.
#[tokio::test]
async fn a_condition_looks_at_each_row_for_itself() {
    let hidden = "SELECT count(*) FROM readings WHERE left(signal, 2) = 'sp' AND \
                  CASE WHEN device = '{3}' AND seq = 50 AND left(signal, 1) = 'h' THEN 1 / (seq - 50) ELSE 1 END = 1";
    let unknown = "SELECT count(*) FILTER (WHERE c) = count(*) FILTER (WHERE seq > 5), \
                   count(*) - count(c) = count(*) FILTER (WHERE seq = 3) FROM (SELECT seq, \
                   nullif(seq, 3) > 5 AND 10 / (CASE WHEN seq > 5 OR seq = 3 THEN 1 ELSE 0 END) = 10 AS c FROM readings) s";
    let decided = "SELECT count(*) FILTER (WHERE c) = count(*) FILTER (WHERE seq <> 3), \
                   count(*) - count(c) = count(*) FILTER (WHERE seq = 3) FROM (SELECT seq, \
                   nullif(seq, 3) > 5 OR 10 / (CASE WHEN seq > 5 THEN 0 ELSE seq - 3 + 1 END) = (CASE WHEN seq = 3 THEN 0 ELSE \
                   10 / (CASE WHEN seq > 5 THEN 1 ELSE seq - 3 + 1 END) END) AS c FROM readings WHERE seq <> 2) s";
    for asked in [Asked::of(|_, _| true), Asked::of(visible)] {
        for (sql, expected) in [
            (hidden, "950"),
            ("SELECT count(*) > 0 FROM readings WHERE seq > 50 AND 100 / (seq - 50) >= 1", "true"),
            (
                "SELECT count(*) FROM readings WHERE signal = 'spo2' AND (seq <= 50 OR 100 / (seq - 50) >= 0)",
                "950",
            ),
            (unknown, "true|true"),
            (decided, "true|true"),
        ] {
            assert_eq!(
                asked.ask(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}")),
                [expected],
                "{sql}"
            );
        }
        let fails = asked.ask("SELECT count(*) FROM readings WHERE seq > 40 AND 100 / (seq - 50) >= 1").await;
        assert_eq!(fails.unwrap_err().code(), "EVALUATION");
    }
}
