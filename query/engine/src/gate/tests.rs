//! Tests of the statement gate: what is let through, what is refused and as what.

use super::*;

fn verdict(sql: &str) -> &'static str {
    match admit(sql) {
        Ok(_) => "OK",
        Err(refusal) => refusal.code(),
    }
}

fn check(code: &str, statements: &[&str]) {
    for sql in statements {
        assert_eq!(verdict(sql), code, "{:.200}", sql);
    }
}

/// Plain queries of every ordinary form pass.
#[test]
fn queries_pass() {
    check(
        "OK",
        &[
            "SELECT 1",
            "select count(*) from readings;",
            "WITH a AS (SELECT 1 AS x) SELECT x FROM a",
            "VALUES (1, 2), (3, 4)",
            "SELECT signal, avg(value) FROM readings WHERE ts >= '2026-01-01' GROUP BY signal ORDER BY 1 LIMIT 5",
            "SELECT a.value FROM readings a JOIN readings b ON a.ts = b.ts",
            "SELECT * FROM (SELECT 1) t UNION ALL SELECT 2",
            "(SELECT 1)",
            "SELECT ';' AS x -- ; DROP TABLE readings",
            "SELECT CASE WHEN value > 1 THEN 'a' ELSE 'b' END FROM readings",
        ],
    );
}

/// Whatever is not one query is refused as read only, however it is dressed up.
#[test]
fn other_statements_are_refused() {
    check(
        "READ_ONLY",
        &[
            "COPY (SELECT 1) TO '/tmp/x' STORED AS CSV",
            "CREATE EXTERNAL TABLE x STORED AS CSV LOCATION '/etc/passwd'",
            "CREATE TABLE x AS SELECT 1",
            "CREATE VIEW x AS SELECT 1",
            "CREATE FUNCTION f() RETURNS INT RETURN 1",
            "DROP TABLE readings",
            "SET datafusion.runtime.memory_limit = '100G'",
            "RESET datafusion.runtime.memory_limit",
            "INSERT INTO readings VALUES (1)",
            "UPDATE readings SET value = 1",
            "DELETE FROM readings",
            "TRUNCATE readings",
            "MERGE INTO readings USING x ON true WHEN MATCHED THEN DELETE",
            "EXPLAIN VERBOSE SELECT 1",
            "EXPLAIN EXPLAIN SELECT 1",
            "EXPLAIN ANALYZE SELECT 1",
            "EXPLAIN COPY (SELECT 1) TO '/tmp/x' STORED AS CSV",
            "SHOW TABLES",
            "SHOW ALL",
            "SHOW FUNCTIONS",
            "DESCRIBE readings",
            "PREPARE p AS SELECT 1",
            "EXECUTE p",
            "DEALLOCATE p",
            "BEGIN",
            "COMMIT",
            "ANALYZE readings",
            "GRANT SELECT ON readings TO x",
            "CALL f()",
            "USE vitalog",
            "VACUUM",
            "WITH x AS (INSERT INTO readings VALUES (1)) SELECT 1",
            "WITH x AS (SELECT 1) DELETE FROM readings",
            "SELECT 1; DROP TABLE readings",
            "SELECT 1; SELECT 2",
            "SELECT 1 INTO x",
            "SELECT 1 FROM readings FOR UPDATE",
        ],
    );
}

/// Constructs that are left out on purpose are named as such.
#[test]
fn left_out() {
    check(
        "UNSUPPORTED",
        &[
            "WITH RECURSIVE a AS (SELECT 1 UNION ALL SELECT 1 FROM a) SELECT * FROM a",
            "SELECT 'a' || 'b'",
            "SELECT * FROM generate_series(1, 10)",
            "SELECT * FROM unnest([1, 2])",
            "SELECT [1, 2]",
            "SELECT MAP {1: 2}",
            "SELECT OVERLAY(unit PLACING unit FROM 1) FROM readings",
            "SELECT signal, count(*) FROM readings GROUP BY CUBE (signal, unit)",
            "SELECT * FROM readings TABLESAMPLE (10 PERCENT)",
        ],
    );
}

/// Text that begins like a query and does not parse is a syntax error; nothing at all, too.
#[test]
fn syntax() {
    check(
        "SYNTAX",
        &["SELECT 1 +", "SELECT 'unterminated", "SELECT (1", "SELECT 1))", "", ";", "-- nothing"],
    );
}

/// A member of each family of ever deeper statements is refused before the parser recurses into it.
#[test]
fn deep_statements_are_refused() {
    let many = |text: &str, count: usize| vec![text; count].join("");
    let deep = [
        format!("SELECT 1{}", many("+1", 2_000)),
        format!("SELECT {}1", many("- ", 2_000)),
        format!("SELECT {}true", many("NOT ", 2_000)),
        format!("SELECT 1 WHERE true{}", many(" OR true", 5_000)),
        format!("SELECT 1 WHERE true{}", many(" AND true", 5_000)),
        format!("SELECT 1{}", many("::int", 2_000)),
        format!("SELECT 1{}", many(" UNION ALL SELECT 1, 2", 2_000)),
        format!("SELECT 1, 2{}", many(" UNION ALL SELECT 1, 2", 40)),
        format!("SELECT {}1{}", many("(", 2_000), many(")", 2_000)),
        format!("SELECT {}1{}", many("abs(", 60), many(")", 60)),
        format!("{}SELECT 1{}", many("SELECT * FROM (", 60), many(") t", 60)),
        format!("SELECT {}1{}", many("CASE WHEN true THEN ", 2_000), many(" END", 2_000)),
        format!("SELECT x{} FROM (SELECT 1 x)", many(" IS NULL", 1_000)),
        format!("SELECT x{}", many("[1]", 2_000)),
        format!("SELECT 1{}", many(" IN (1)", 2_000)),
        format!("SELECT ((((1{0}){0}){0}){0})", many("+1", 110)),
        format!("SELECT {}", many("a.", 2_000)),
        format!("SELECT 1 FROM readings{}", many(" JOIN readings USING (ts)", 300)),
    ];
    for sql in deep {
        let code = verdict(&sql);
        let shown: String = sql.chars().take(60).collect();
        assert_eq!(code, "STATEMENT_TOO_BIG", "{shown}");
    }
}

/// Sheer length and sheer number are bounded: bytes, tokens, tables.
#[test]
fn long_statements_are_refused() {
    check(
        "STATEMENT_TOO_BIG",
        &[
            &format!("SELECT '{}'", "x".repeat(SQL_BYTES_MAX)),
            &format!("SELECT 1 IN (1{})", ",1".repeat(TOKENS_MAX)),
            &format!("SELECT 1 FROM readings{}", ", readings".repeat(20)),
        ],
    );
    check("OK", &[&format!("SELECT 1 IN (1{})", ",1".repeat(4_000))]);
}

/// Brackets and operators inside strings, quoted names and comments do not count, as the parser sees them.
#[test]
fn quoted_text_is_not_counted() {
    check(
        "OK",
        &[
            &format!("SELECT 1 IN ({})", vec![format!("'{}'", "(+".repeat(100)); 40].join(",")),
            &format!("SELECT 1 AS \"{}\"", "(".repeat(250)),
            &format!("SELECT 1 /* {} */", "(+ ".repeat(5_000)),
            "SELECT $$;(((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((($$",
        ],
    );
}

/// Texts are bounded one by one, together, and by how often they may be copied; a list of values is not, up to the length
/// of the statement.
#[test]
fn texts_are_bounded() {
    let text = |bytes: usize| format!("'{}'", "a".repeat(bytes));
    let list = vec![text(60); 900].join(",");
    check(
        "OK",
        &[
            &format!("SELECT count(*) FROM readings WHERE signal = {}", text(texts::LITERAL_BYTES_MAX)),
            &format!("SELECT count(*) FROM readings WHERE subject IN ({list})"),
        ],
    );
    let many = vec![text(200); 50].join(",");
    let copied = vec![format!("upper({})", text(250)); 30].join(",");
    check(
        "STATEMENT_TOO_BIG",
        &[
            &format!("SELECT {}", text(texts::LITERAL_BYTES_MAX + 1)),
            &format!("SELECT $${}$$", "a".repeat(300)),
            &format!("SELECT \"{}\" FROM readings", "a".repeat(300)),
            &format!("SELECT {}", "9".repeat(300)),
            &format!("SELECT {many}"),
            &format!("SELECT {copied}, {}", vec!["abs(1)"; 400].join(",")),
        ],
    );
}

/// A pattern is a plain text and small once compiled.
#[test]
fn patterns_are_bounded() {
    check(
        "OK",
        &[
            "SELECT count(*) FROM readings WHERE regexp_like(signal, '^(heart|resp).*_rate$')",
            "SELECT count(*) FROM readings WHERE subject ~ '\\w+-[0-9]{3,8}'",
            "SELECT regexp_count(subject, '[a-z]') FROM readings",
        ],
    );
    check(
        "STATEMENT_TOO_BIG",
        &[
            "SELECT count(*) FROM readings WHERE regexp_like(subject, '((a{1,99}){1,99}){1,99}')",
            "SELECT count(*) FROM readings WHERE subject !~* '(\\w{0,200}){0,200}'",
        ],
    );
    check("SYNTAX", &["SELECT count(*) FROM readings WHERE subject ~ '('"]);
    check(
        "UNSUPPORTED",
        &[
            "SELECT count(*) FROM readings WHERE regexp_like(subject, reverse(subject))",
            "SELECT count(*) FROM readings WHERE subject ~ device",
            "SELECT count(*) FROM readings WHERE subject SIMILAR TO 'a'",
        ],
    );
}

/// Functions that begin anew for each row of a window are not asked for over one.
#[test]
fn windows_take_constant_time_per_row() {
    check("OK", &["SELECT sum(value) OVER (ORDER BY ts), lag(value) OVER (ORDER BY ts) FROM readings"]);
    check(
        "UNSUPPORTED",
        &[
            "SELECT median(value) OVER (ORDER BY ts) FROM readings",
            "SELECT Approx_Distinct(value) OVER (PARTITION BY device ORDER BY ts) FROM readings",
            "SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY value) OVER (ORDER BY ts) FROM readings",
        ],
    );
}
