//! Grouping by the numbers of names: done where nothing else looks at the names, and nobody can tell from the answer.

use std::sync::Arc;

use datafusion::prelude::SessionContext;
use tempfile::TempDir;

use super::fixture::{Store, ask, lake, options, text_rows};
use super::oracle::permitted;
use super::people::World;
use crate::Engine;

/// Statements, and whether their (topmost possible) grouping goes by numbers.
const STATEMENTS: &[(&str, bool)] = &[
    ("SELECT signal, count(*), avg(value) FROM readings GROUP BY signal", true),
    ("SELECT subject, device, unit, count(*) FROM readings GROUP BY subject, device, unit", true),
    ("SELECT device, date_bin(INTERVAL '1 minute', ts) AS t, min(value) FROM readings GROUP BY 1, 2", true),
    ("SELECT DISTINCT unit FROM readings", true),
    ("SELECT count(DISTINCT subject) FROM readings", true),
    (
        "SELECT device, count(*) FROM readings WHERE value > 20 AND seq % 2 = 0 GROUP BY 1 ORDER BY 2, 1 LIMIT 3",
        true,
    ),
    (
        "SELECT upper(signal), n FROM (SELECT signal, count(*) AS n FROM readings GROUP BY signal) WHERE n > 1",
        true,
    ),
    (
        "SELECT u, count(*) FROM (SELECT unit AS u, value FROM readings WHERE signal = 'spo2') GROUP BY u",
        true,
    ),
    ("SELECT signal, device, count(*) FROM readings WHERE device LIKE '%a%' GROUP BY 1, 2", true),
    ("SELECT signal, max(signal) FROM readings GROUP BY signal", false),
    ("SELECT signal, count(*) FILTER (WHERE signal < 'm') FROM readings GROUP BY signal", false),
    ("SELECT upper(signal), count(*) FROM readings GROUP BY 1", false),
    ("SELECT signal, count(*) FROM readings WHERE signal LIKE '%a%' GROUP BY signal", false),
    ("SELECT signal, device, count(*) FROM readings GROUP BY GROUPING SETS ((signal), (device))", false),
    (
        "SELECT a.signal, a.n, b.n FROM (SELECT signal, count(*) AS n FROM readings GROUP BY signal) a \
         JOIN (SELECT signal, count(*) AS n FROM readings WHERE value > 20 GROUP BY signal) b ON a.signal = b.signal",
        false,
    ),
    (
        "SELECT a.device, count(*) FROM (SELECT device, signal FROM readings GROUP BY 1, 2) a \
         JOIN (SELECT signal, seq FROM readings WHERE seq < 3) b ON a.signal = b.signal GROUP BY 1",
        false,
    ),
    ("SELECT signal FROM readings GROUP BY signal UNION SELECT unit FROM readings GROUP BY unit", false),
];

/// Guarantee: the groups, and their names, are those of a plain table; and numbers are used where they may be, and only
/// there.
#[tokio::test]
async fn numbers_give_the_groups_of_names() {
    let (world, dir) = (World::new(), TempDir::new().unwrap());
    let plain = SessionContext::new();
    plain.register_batch("readings", permitted()).unwrap();
    let store = Arc::new(Store(lake(dir.path(), 97, |_, _| true)));
    let engine =
        Engine::new(options(), store, Arc::clone(&world.consents), Arc::clone(&world.audit)).unwrap();
    for (sql, by_numbers) in STATEMENTS {
        let plan = ask(&engine, &world, &format!("EXPLAIN {sql}")).await.unwrap().join("\n");
        assert_eq!(plan.contains("Naming"), *by_numbers, "{sql}\n{plan}");
        let mut expected: Vec<String> =
            plain.sql(sql).await.unwrap().collect().await.unwrap().iter().flat_map(text_rows).collect();
        expected.sort();
        let found = ask(&engine, &world, sql).await.unwrap();
        assert_eq!(found[1..], expected, "{sql}");
        assert!(expected.len() > 1 || sql.contains("DISTINCT subject") || sql.contains("spo2"), "{sql}");
    }
}
