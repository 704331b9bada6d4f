//! Statements that DataFusion 55 answers wrongly, or not at all, for a fault of one of its rules (`rules.rs` and
//! `planner.rs` say which). The expected answers follow from SQL alone.

use std::sync::Arc;

use tempfile::TempDir;

use super::fixture::{Store, ask, lake, options};
use super::people::World;
use crate::Engine;

/// Rows of a sub-query with one row of nothing and a condition on it.
const ONE_ROW: &str = "SELECT n FROM (SELECT count(*) AS n FROM readings) s";

async fn answers(statements: &[(&str, &[&str])]) {
    let (world, dir) = (World::new(), TempDir::new().unwrap());
    let store = Arc::new(Store(lake(dir.path(), 97, |_, _| true)));
    let engine =
        Engine::new(options(), store, Arc::clone(&world.consents), Arc::clone(&world.audit)).unwrap();
    for (sql, expected) in statements {
        let found = ask(&engine, &world, sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        assert_eq!(found[1..], **expected, "{sql}");
    }
}

/// Guarantee: a condition that no row meets leaves none, whatever columns it names, also where nothing has a row of its
/// own.
#[tokio::test]
async fn what_where_excludes_stays_out() {
    let never = "(SELECT max(flags) FROM readings) < 0";
    let sets = "SELECT n FROM (SELECT signal, count(*) AS n FROM readings WHERE value > 1e9 \
                GROUP BY GROUPING SETS ((signal), ())) s";
    answers(&[
        (&format!("{ONE_ROW} WHERE {never}"), &[]),
        (&format!("{ONE_ROW} WHERE {never} AND n >= 0"), &[]),
        (&format!("SELECT n FROM ({ONE_ROW} WHERE n >= 0) t WHERE {never}"), &[]),
        (&format!("{ONE_ROW} JOIN (SELECT 1 AS k) t ON {never}"), &[]),
        ("SELECT count(*) FROM readings WHERE value > 1e9 HAVING (SELECT max(flags) FROM readings) < 0", &[]),
        (&format!("{sets} WHERE {never}"), &[]),
        ("SELECT n FROM (SELECT count(*) AS n FROM readings WHERE value > 1e9) s WHERE n = 0", &["0"]),
    ])
    .await;
}

/// Guarantee: keys of one name are two keys, and a constant among keys is none.
#[tokio::test]
async fn keys_are_grouped_as_they_are_written() {
    answers(&[
        (
            "SELECT count(*) FROM (SELECT max(value) FROM readings GROUP BY CAST(seq AS DOUBLE), seq) s \
             HAVING count(*) = (SELECT count(DISTINCT seq) FROM readings) AND count(*) > 10",
            &["100"],
        ),
        (
            "SELECT count(*) FROM (SELECT CAST(seq AS DOUBLE) AS a, count(DISTINCT ts), seq FROM readings GROUP BY 1, seq) s",
            &["100"],
        ),
        (
            "SELECT count(*) FROM (SELECT CAST(flags AS DOUBLE), max(value) AS v FROM readings \
             GROUP BY CAST(flags AS DOUBLE), flags) s WHERE CASE WHEN v * 2 > 1 THEN v * 2 END BETWEEN 3 AND 1e3",
            &["1"],
        ),
        (
            "SELECT n FROM (SELECT 'x' AS k, flags, count(*) > 0 AS n FROM readings GROUP BY 1, flags) s",
            &["true"],
        ),
    ])
    .await;
}

/// Guarantee: a condition that can never hold, for the NULL in its list, does not keep a statement from being planned.
#[tokio::test]
async fn a_null_in_a_list_is_planned() {
    answers(&[(
        "SELECT count(*) > 10 FROM (SELECT DISTINCT seq, CASE WHEN device NOT IN (NULL, 'x') THEN least(value, value) \
         ELSE coalesce(value, value) END AS c FROM readings) s",
        &["true"],
    )])
    .await;
}

/// Guarantee: LIMIT takes the first rows, also where the parts of a union have a first key that is constant in each.
#[tokio::test]
async fn the_first_rows_are_the_first() {
    answers(&[(
        "SELECT k FROM (SELECT 1 AS k, min(ts) AS t FROM readings UNION ALL SELECT 108, ts FROM readings) s \
         ORDER BY k, t DESC LIMIT 2",
        &["1", "108"],
    )])
    .await;
}

/// Guarantee: a branch of a union that is in no order of its own (one row, or a column twice) comes in the order asked for.
#[tokio::test]
async fn a_union_is_sorted_whatever_its_branches() {
    answers(&[(
        "SELECT value AS a, seq AS b, value AS c FROM readings WHERE seq = 69 AND value > 71.5 AND signal = 'spo2' \
         UNION ALL SELECT min(value), sum(seq) * 0, max(value) FROM readings ORDER BY 1, 2, 3",
        &["0.0|0|79.0", "72.0|69|72.0"],
    )])
    .await;
}

/// Guarantee: a condition on one side of an outer join is a condition on that side, though both have a column of that
/// name. Of nine people two signals have the number 69, and three have a value then, one of which (another device's) is
/// 2.
#[tokio::test]
async fn a_join_keeps_its_sides_apart() {
    let joined = "readings t1 RIGHT JOIN readings t2 ON t1.subject = t2.subject AND t1.ts = t2.ts";
    let at = "coalesce(t1.seq, t2.seq) = 69";
    answers(&[
        (&format!("SELECT count(*) FROM {joined} WHERE {at}"), &["54"]),
        (&format!("SELECT count(*) FROM {joined} WHERE {at} AND t2.value > 61.5"), &["36"]),
        (&format!("SELECT min(t2.value) FROM {joined} WHERE {at} AND t2.value < 61.5"), &["2.0"]),
    ])
    .await;
}

/// Guarantee: LIMIT over groups takes the first of all groups, with and without a value.
#[tokio::test]
async fn no_group_is_lost_to_a_limit() {
    answers(&[
        (
            "SELECT max(value) FROM readings GROUP BY received_at UNION SELECT 1.5 ORDER BY 1 DESC NULLS LAST LIMIT 4",
            &["76.0", "77.0", "78.0", "79.0"],
        ),
        (
            "SELECT count(*) FROM (SELECT max(value) FROM readings GROUP BY received_at UNION SELECT NULL \
             ORDER BY 1 DESC NULLS LAST LIMIT 3 OFFSET 2) s",
            &["3"],
        ),
    ])
    .await;
}

/// Guarantee: a window with two columns that come to the same function is planned, and gives both.
#[tokio::test]
async fn a_window_may_say_a_thing_twice() {
    let twice = "SELECT seq, lag(seq) OVER (PARTITION BY device ORDER BY ts) AS a, \
                 lag(coalesce(seq, seq)) OVER (PARTITION BY device ORDER BY ts) AS b FROM readings";
    answers(&[
        (&format!("SELECT count(*) FROM ({twice}) s WHERE a IS DISTINCT FROM b"), &["0"]),
        (&format!("SELECT max(a), max(b) FROM ({twice}) s WHERE seq > 10"), &["99|99"]),
    ])
    .await;
}

/// Guarantee: where columns cannot be moved and the rows stay in order, they are not, and the statement is answered.
#[tokio::test]
async fn columns_are_moved_only_where_order_is_kept() {
    answers(&[(
        "SELECT TIMESTAMP '2026-01-01T00:02:05.750Z' AS a, s.b, s.c, s.b AS d FROM (SELECT greatest(t1.flags, t2.flags) AS b, \
         t1.signal AS c FROM readings t1 LEFT JOIN readings t2 ON t1.device = t2.device AND t1.ts = t2.ts AND t1.signal = t2.signal \
         WHERE nullif(t2.value, 0.0) BETWEEN 181 AND 1e3) s \
         WHERE s.b = 98 ORDER BY 1, 2, 3 DESC NULLS LAST, 4 DESC LIMIT 59",
        &[],
    )])
    .await;
}
