//! Statements that DataFusion 55 answers wrongly, or not at all, for a fault of one of its rules (`rules.rs` and `planner.rs` say
//! which). The expected answers follow from SQL alone.

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

/// Guarantee: a condition that no row meets leaves none, whatever columns it names, also where nothing has a row of its own.
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
