//! Random statements, each made of its seed alone: a typed grammar over `readings`, so that nearly all of them plan. Not a
//! proof of coverage: what SQL can say here and this grammar does not is named at its rules.
//!
//! Two kinds. *Total* statements cannot fail on any value; anything may be combined. *Fallible* ones hold exactly one
//! expression that fails on some values, in a place where every row that reaches it is evaluated: beside another conjunct,
//! whether it is reached depends on where a batch ends, in any engine.

use std::fmt::Write;

use arrow::compute::SortOptions;

/// Seeded numbers (SplitMix64, Steele et al. 2014).
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }
}

/// What an expression gives. `Real` values are multiples of a half and small: sums of them are exact in any order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Type {
    Real,
    Int,
    Text,
    Time,
}

const TYPES: [Type; 4] = [Type::Real, Type::Int, Type::Text, Type::Time];

/// A column that may be named.
#[derive(Debug, Clone)]
struct Column {
    name: String,
    of: Type,
}

/// Columns of the relations named so far.
#[derive(Debug, Clone, Default)]
struct Scope {
    columns: Vec<Column>,
    /// The relation whose rows (device, signal, ts) tell apart, if it is the table itself.
    base: Option<String>,
}

/// A statement and what it was made of.
#[derive(Debug)]
pub(crate) struct Statement {
    pub(crate) sql: String,
    pub(crate) is_fallible: bool,
    /// By which its columns are ordered, if it says so.
    pub(crate) order: Option<Vec<SortOptions>>,
}

/// The statement of a seed.
pub(crate) fn statement(seed: u64) -> Statement {
    let mut maker = Maker { rng: Rng::new(seed), names: 0, ctes: Vec::new() };
    if maker.rng.chance(30) {
        return Statement { sql: maker.fallible(), is_fallible: true, order: None };
    }
    let (sql, order) = maker.total();
    Statement { sql, is_fallible: false, order }
}

struct Maker {
    rng: Rng,
    names: u32,
    /// Common table expressions: name and columns.
    ctes: Vec<(String, Vec<Type>)>,
}

/// How a column may be ordered: in words, whether downwards, whether nulls come first.
const WAYS: [(&str, bool, bool); 4] = [
    ("", false, false),
    (" DESC", true, true),
    (" ASC NULLS FIRST", false, true),
    (" DESC NULLS LAST", true, false),
];
const PEOPLE: usize = super::PEOPLE as usize;
const SIGNALS: &[&str] = &["heart_rate", "spo2", "skin_temperature", "acceleration_x", "nosuch"];

impl Maker {
    fn name(&mut self, letter: char) -> String {
        self.names += 1;
        format!("{letter}{}", self.names)
    }

    /// With common tables, set operations, order and limit.
    fn total(&mut self) -> (String, Option<Vec<SortOptions>>) {
        let mut sql = String::new();
        if self.rng.chance(20) {
            let (types, name) = (self.types(3), self.name('w'));
            let body = self.select(&types, 2);
            let names: Vec<String> = (0..types.len()).map(|at| format!("c{at}")).collect();
            let _ = write!(sql, "WITH {name} ({}) AS ({body}) ", names.join(", "));
            self.ctes.push((name, types));
        }
        let types = self.types(5);
        let body = match self.rng.below(10) {
            0 | 1 => {
                let operator = self.rng.pick(&["UNION", "UNION ALL", "EXCEPT", "INTERSECT"]);
                format!("{} {operator} {}", self.select(&types, 2), self.select(&types, 1))
            }
            _ => self.select(&types, 3),
        };
        sql.push_str(&body);
        let mut order = None;
        if self.rng.chance(30) {
            // By all columns: rows that compare equal are then the same row, and any of them may be cut off.
            let ways: Vec<usize> = types.iter().map(|_| self.rng.below(WAYS.len())).collect();
            let keys: Vec<String> =
                ways.iter().enumerate().map(|(at, way)| format!("{}{}", at + 1, WAYS[*way].0)).collect();
            let _ = write!(sql, " ORDER BY {}", keys.join(", "));
            order = Some(
                ways.iter()
                    .map(|way| SortOptions { descending: WAYS[*way].1, nulls_first: WAYS[*way].2 })
                    .collect(),
            );
            if self.rng.chance(70) {
                let _ = write!(sql, " LIMIT {} OFFSET {}", self.rng.below(60), self.rng.below(20));
            }
        }
        (sql, order)
    }

    fn types(&mut self, most: usize) -> Vec<Type> {
        (0..=self.rng.below(most)).map(|_| TYPES[self.rng.below(4)]).collect()
    }

    /// One SELECT whose columns have these types, named c0, c1 and so on.
    fn select(&mut self, types: &[Type], depth: usize) -> String {
        let (from, scope) = self.from(depth);
        let condition = match self.rng.chance(45) {
            true => format!(" WHERE {}", self.truth(&scope, depth)),
            false => String::new(),
        };
        match self.rng.below(10) {
            0..=3 => self.grouped(types, &from, &condition, &scope),
            4 if scope.base.is_some() => self.windowed(types, &from, &condition, &scope),
            _ => {
                let distinct = if self.rng.chance(20) { "DISTINCT " } else { "" };
                let columns = self.named(types, |maker, of| maker.value(of, &scope, 2));
                format!("SELECT {distinct}{columns} FROM {from}{condition}")
            }
        }
    }

    fn named(&mut self, types: &[Type], mut value: impl FnMut(&mut Self, Type) -> String) -> String {
        let columns: Vec<String> =
            types.iter().enumerate().map(|(at, of)| format!("{} AS c{at}", value(self, *of))).collect();
        columns.join(", ")
    }

    fn grouped(&mut self, types: &[Type], from: &str, condition: &str, scope: &Scope) -> String {
        let keys: Vec<(Type, String)> = (0..self.rng.below(3))
            .map(|_| {
                let of = TYPES[self.rng.below(4)];
                (of, self.value(of, scope, 1))
            })
            .collect();
        let columns = self.named(types, |maker, of| {
            match keys.iter().find(|(key, _)| *key == of).filter(|_| maker.rng.chance(50)) {
                Some((_, key)) => key.clone(),
                None => maker.aggregate(of, scope),
            }
        });
        let mut sql = format!("SELECT {columns} FROM {from}{condition}");
        if !keys.is_empty() {
            let keys: Vec<String> = keys.into_iter().map(|(_, key)| key).collect();
            let _ = write!(sql, " GROUP BY {}", keys.join(", "));
        }
        if self.rng.chance(25) {
            let of = TYPES[self.rng.below(4)];
            let (left, right) = (self.aggregate(of, scope), self.literal(of));
            let _ = write!(sql, " HAVING {left} {} {right}", self.comparison());
        }
        sql
    }

    /// An aggregate whose result does not depend on the order of rows.
    fn aggregate(&mut self, of: Type, scope: &Scope) -> String {
        let filter = match self.rng.chance(15) {
            true => format!(" FILTER (WHERE {})", self.simple_truth(scope)),
            false => String::new(),
        };
        let body = match of {
            Type::Real => {
                let value = self.value(Type::Real, scope, 1);
                let function = self.rng.pick(&["sum", "min", "max", "avg", "median", "sum"]);
                format!("{function}({value})")
            }
            Type::Int => match self.rng.below(5) {
                0 => "count(*)".to_owned(),
                1 => {
                    let of = TYPES[self.rng.below(4)];
                    format!("count(DISTINCT {})", self.value(of, scope, 1))
                }
                2 => {
                    let of = TYPES[self.rng.below(4)];
                    format!("count({})", self.value(of, scope, 1))
                }
                _ => {
                    let function = self.rng.pick(&["sum", "min", "max", "bit_or", "bit_and"]);
                    format!("{function}({})", self.value(Type::Int, scope, 1))
                }
            },
            Type::Text | Type::Time => {
                let value = self.value(of, scope, 1);
                let function = self.rng.pick(&["min", "max"]);
                format!("{function}({value})")
            }
        };
        format!("{body}{filter}")
    }

    /// Windows over the table itself, whose rows have a total order.
    fn windowed(&mut self, types: &[Type], from: &str, condition: &str, scope: &Scope) -> String {
        let base = scope.base.clone().unwrap_or_default();
        let part = self.rng.pick(&["device", "signal", "subject", "unit"]);
        let frame = self.rng.pick(&[
            "",
            "",
            " ROWS BETWEEN 3 PRECEDING AND CURRENT ROW",
            " ROWS UNBOUNDED PRECEDING",
        ]);
        let over = format!(
            "OVER (PARTITION BY {base}.{part} ORDER BY {base}.ts, {base}.signal, {base}.device{frame})"
        );
        let columns = self.named(types, |maker, of| match (of, maker.rng.below(3)) {
            (_, 0) => maker.value(of, scope, 1),
            (Type::Int, 1) => format!("{}() {over}", maker.rng.pick(&["row_number", "rank", "dense_rank"])),
            (Type::Real, 1) => {
                let function = maker.rng.pick(&["sum", "min", "max", "avg"]);
                format!("{function}({}) {over}", maker.value(of, scope, 1))
            }
            _ => {
                let function = maker.rng.pick(&["lag", "lead", "first_value", "last_value"]);
                format!("{function}({}) {over}", maker.value(of, scope, 1))
            }
        });
        format!("SELECT {columns} FROM {from}{condition}")
    }

    fn table(&mut self) -> (String, Scope) {
        let name = self.name('t');
        let columns = [
            ("subject", Type::Text),
            ("device", Type::Text),
            ("signal", Type::Text),
            ("ts", Type::Time),
            ("value", Type::Real),
            ("unit", Type::Text),
            ("flags", Type::Int),
            ("received_at", Type::Time),
            ("boot", Type::Text),
            ("seq", Type::Int),
        ];
        let columns = columns.map(|(column, of)| Column { name: format!("{name}.{column}"), of });
        let table = self.rng.pick(&[
            "readings",
            "readings",
            "public.readings",
            "vitalog.public.readings",
            "\"readings\"",
        ]);
        (format!("{table} AS {name}"), Scope { columns: columns.to_vec(), base: Some(name) })
    }

    fn derived(&mut self, depth: usize) -> (String, Scope) {
        let (types, name) = (self.types(4), self.name('d'));
        let body = self.select(&types, depth);
        (format!("({body}) AS {name}"), columns_of(&name, &types))
    }

    fn from(&mut self, depth: usize) -> (String, Scope) {
        if depth == 0 {
            return self.table();
        }
        match self.rng.below(12) {
            0 | 1 => self.derived(depth - 1),
            2 if !self.ctes.is_empty() => {
                let (cte, types) = self.ctes[0].clone();
                let name = self.name('d');
                (format!("{cte} AS {name}"), columns_of(&name, &types))
            }
            3 | 4 => self.joined_by_row(),
            5 | 6 => self.joined_to_sums(),
            _ => self.table(),
        }
    }

    fn kind_of_join(&mut self) -> &'static str {
        self.rng.pick(&["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"])
    }

    /// The table with itself, row by row: every key but the equal one would multiply it.
    fn joined_by_row(&mut self) -> (String, Scope) {
        let ((left, mut scope), (right, more)) = (self.table(), self.table());
        let kind = self.kind_of_join();
        let keys = self.rng.pick(&["device ts", "device ts signal", "subject ts", "boot ts signal seq"]);
        let (a, b) = (scope.base.take().unwrap_or_default(), more.base.unwrap_or_default());
        let mut on: Vec<String> = keys.split(' ').map(|key| format!("{a}.{key} = {b}.{key}")).collect();
        if kind == "JOIN" && self.rng.chance(30) {
            on.push(format!("{a}.value {} {b}.value", self.comparison()));
        }
        scope.columns.extend(more.columns);
        (format!("{left} {kind} {right} ON {}", on.join(" AND ")), scope)
    }

    /// The table with sums of itself, by their key.
    fn joined_to_sums(&mut self) -> (String, Scope) {
        let (left, mut scope) = self.table();
        let (from, inner) = self.table();
        let name = self.name('d');
        let key = self.rng.pick(&["device", "subject", "signal", "boot"]);
        let condition = match self.rng.chance(50) {
            true => format!(" WHERE {}", self.simple_truth(&inner)),
            false => String::new(),
        };
        let (real, int) = (self.aggregate(Type::Real, &inner), self.aggregate(Type::Int, &inner));
        let kind = self.kind_of_join();
        let (a, b) = (scope.base.take().unwrap_or_default(), inner.base.unwrap_or_default());
        let sums = format!(
            "SELECT {b}.{key} AS k, {real} AS c0, {int} AS c1 FROM {from}{condition} GROUP BY {b}.{key}"
        );
        let more = [("c0", Type::Real), ("c1", Type::Int), ("k", Type::Text)];
        scope.columns.extend(more.map(|(column, of)| Column { name: format!("{name}.{column}"), of }));
        (format!("{left} {kind} ({sums}) AS {name} ON {a}.{key} = {name}.k"), scope)
    }

    fn comparison(&mut self) -> &'static str {
        self.rng.pick(&["=", "<>", "<", "<=", ">", ">="])
    }

    fn literal(&mut self, of: Type) -> String {
        match of {
            Type::Real => self.rng.pick(&["70", "61.5", "181", "0", "15.5", "-1", "1e3"]).to_owned(),
            Type::Int => format!("{}", self.rng.below(110)),
            Type::Text => match self.rng.below(4) {
                0 => format!("'{{{}}}'", self.rng.below(PEOPLE)),
                1 => format!("'{}'", self.rng.pick(SIGNALS)),
                2 => "NULL".to_owned(),
                _ => format!("'{}'", self.rng.pick(&["%", "/min", "5", "", "z6Mk", "0000000000000001"])),
            },
            Type::Time => {
                let ms = self.rng.below(520) * 250;
                format!(
                    "TIMESTAMP '2026-01-01T00:{:02}:{:02}.{:03}Z'",
                    ms / 60_000,
                    ms / 1_000 % 60,
                    ms % 1_000
                )
            }
        }
    }

    /// An expression that cannot fail.
    fn value(&mut self, of: Type, scope: &Scope, depth: usize) -> String {
        let fitting: Vec<&Column> = scope.columns.iter().filter(|column| column.of == of).collect();
        if fitting.is_empty() {
            return self.literal_typed(of);
        }
        let column = fitting[self.rng.below(fitting.len())].name.clone();
        if depth == 0 || self.rng.chance(45) {
            return column;
        }
        let depth = depth - 1;
        match self.rng.below(8) {
            0 => {
                let truth = self.simple_truth(scope);
                format!(
                    "CASE WHEN {truth} THEN {} ELSE {} END",
                    self.value(of, scope, depth),
                    self.value(of, scope, depth)
                )
            }
            1 => {
                let truth = self.simple_truth(scope);
                format!("CASE WHEN {truth} THEN {} END", self.value(of, scope, depth))
            }
            2 => format!("coalesce({}, {})", self.value(of, scope, depth), self.value(of, scope, depth)),
            3 => format!("nullif({}, {})", self.value(of, scope, depth), self.literal_typed(of)),
            4 => format!(
                "{}({}, {})",
                self.rng.pick(&["greatest", "least"]),
                self.value(of, scope, depth),
                column
            ),
            _ => self.function(of, scope, depth),
        }
    }

    fn literal_typed(&mut self, of: Type) -> String {
        match of {
            Type::Real => format!("CAST({} AS DOUBLE)", self.literal(of)),
            Type::Int => format!("CAST({} AS BIGINT)", self.literal(of)),
            Type::Text => format!("'{}'", self.rng.pick(SIGNALS)),
            Type::Time => self.literal(of),
        }
    }

    fn function(&mut self, of: Type, scope: &Scope, depth: usize) -> String {
        match (of, self.rng.below(4)) {
            (Type::Real, 0) => {
                format!("{}({})", self.rng.pick(&["abs", "floor", "ceil"]), self.value(of, scope, depth))
            }
            (Type::Real, 1) => format!(
                "({} {} {})",
                self.value(of, scope, depth),
                self.rng.pick(&["+", "-"]),
                self.value(of, scope, depth)
            ),
            (Type::Real, 2) => format!("CAST({} AS DOUBLE)", self.value(Type::Int, scope, depth)),
            (Type::Real, _) => {
                format!("({} * {})", self.value(of, scope, depth), self.rng.pick(&["2", "0.5", "-1"]))
            }
            (Type::Int, 0) => format!("character_length({})", self.value(Type::Text, scope, depth)),
            (Type::Int, 1) => format!(
                "CAST(date_part('{}', {}) AS BIGINT)",
                self.rng.pick(&["second", "minute", "hour"]),
                self.value(Type::Time, scope, depth)
            ),
            (Type::Int, 2) => format!("({} % {})", self.value(of, scope, depth), 1 + self.rng.below(9)),
            (Type::Int, _) => format!(
                "({} {} {})",
                self.value(of, scope, depth),
                self.rng.pick(&["+", "-"]),
                self.rng.below(50)
            ),
            (Type::Text, 0) => format!(
                "substr({}, {}, {})",
                self.value(of, scope, depth),
                1 + self.rng.below(4),
                1 + self.rng.below(6)
            ),
            (Type::Text, 1) => format!(
                "{}({})",
                self.rng.pick(&["upper", "lower", "reverse", "btrim"]),
                self.value(of, scope, depth)
            ),
            (Type::Text, 2) => format!(
                "split_part({}, '{}', {})",
                self.value(of, scope, depth),
                self.rng.pick(&["_", "a", ":"]),
                1 + self.rng.below(2)
            ),
            (Type::Text, _) => format!("left({}, {})", self.value(of, scope, depth), 1 + self.rng.below(7)),
            (Type::Time, 0) => format!(
                "date_trunc('{}', {})",
                self.rng.pick(&["minute", "hour", "second"]),
                self.value(of, scope, depth)
            ),
            (Type::Time, 1) => format!(
                "date_bin(INTERVAL '{} seconds', {})",
                5 + self.rng.below(40),
                self.value(of, scope, depth)
            ),
            (Type::Time, _) => {
                format!("({} + INTERVAL '{} seconds')", self.value(of, scope, depth), self.rng.below(90))
            }
        }
    }

    /// A condition without sub-queries.
    fn simple_truth(&mut self, scope: &Scope) -> String {
        let of = TYPES[self.rng.below(4)];
        let value = self.value(of, scope, 1);
        match self.rng.below(8) {
            0 => format!("{value} IS {}NULL", self.rng.pick(&["", "NOT "])),
            1 => format!(
                "{value} {}IN ({}, {})",
                self.rng.pick(&["", "NOT "]),
                self.literal(of),
                self.literal(of)
            ),
            2 => format!("{value} BETWEEN {} AND {}", self.literal(of), self.literal(of)),
            3 => {
                let text = self.value(Type::Text, scope, 1);
                let pattern = self.rng.pick(&["heart%", "%2", "_p%", "%e%e%", "z%", "%"]);
                format!("{text} {} '{pattern}'", self.rng.pick(&["LIKE", "NOT LIKE", "ILIKE"]))
            }
            4 => {
                let text = self.value(Type::Text, scope, 1);
                let pattern = self.rng.pick(&["^heart", "[0-9]{3}", "(a|e)t", "rate$", "^$"]);
                format!("regexp_like({text}, '{pattern}')")
            }
            5 => {
                format!("{value} IS {}DISTINCT FROM {}", self.rng.pick(&["", "NOT "]), self.literal_typed(of))
            }
            _ => format!("{value} {} {}", self.comparison(), self.literal(of)),
        }
    }

    /// A condition, with sub-queries where the depth allows.
    fn truth(&mut self, scope: &Scope, depth: usize) -> String {
        if depth == 0 {
            return self.simple_truth(scope);
        }
        let depth = depth - 1;
        match self.rng.below(9) {
            0 | 1 => format!("({} AND {})", self.truth(scope, depth), self.truth(scope, depth)),
            2 => format!("({} OR {})", self.truth(scope, depth), self.truth(scope, depth)),
            3 => format!("NOT ({})", self.truth(scope, depth)),
            4 if depth > 0 => self.with_subquery(scope, depth),
            _ => self.simple_truth(scope),
        }
    }

    fn with_subquery(&mut self, scope: &Scope, depth: usize) -> String {
        let of = TYPES[self.rng.below(4)];
        let value = self.value(of, scope, 0);
        match (self.rng.below(3), scope.base.clone()) {
            (0, Some(base)) => {
                let (from, inner) = self.table();
                let name = inner.base.clone().unwrap_or_default();
                let key = self.rng.pick(&["device", "boot", "subject"]);
                let condition = self.simple_truth(&inner);
                let negated = self.rng.pick(&["", "NOT "]);
                format!(
                    "{negated}EXISTS (SELECT 1 FROM {from} WHERE {name}.{key} = {base}.{key} AND {condition})"
                )
            }
            (1, _) => {
                let (from, inner) = self.table();
                let condition = self.truth(&inner, depth - 1);
                format!(
                    "{value} {} (SELECT {} FROM {from} WHERE {condition})",
                    self.comparison(),
                    self.aggregate(of, &inner)
                )
            }
            _ => {
                let (from, inner) = self.table();
                let (given, condition) = (self.value(of, &inner, 1), self.truth(&inner, depth - 1));
                format!("{value} IN (SELECT {given} FROM {from} WHERE {condition})")
            }
        }
    }

    /// Fails on some values of the table `t`: visible ones, hidden ones, or both.
    fn failing(&mut self) -> String {
        let at = self.rng.pick(&["181", "181", "61", "70", "500"]);
        match self.rng.below(8) {
            0 | 1 => format!("100 / (CAST(t.value AS BIGINT) - {at})"),
            2 => format!("CAST(t.value AS BIGINT) % (t.seq - {})", self.rng.below(130)),
            3 => format!("CAST(CASE WHEN t.value = {at} THEN 'x' ELSE '1' END AS INT)"),
            4 => "CAST(t.value * 12000000 AS INT)".to_owned(),
            5 => "CAST(substr(t.device, 1, 2) AS INT)".to_owned(),
            6 => format!(
                "date_part('day', CAST(CASE WHEN t.value = {at} THEN 'never' ELSE '2026-01-01' END AS TIMESTAMP))"
            ),
            _ => format!(
                "CASE WHEN t.value > {} THEN 1 / (CAST(t.value AS BIGINT) - {at}) ELSE 0 END",
                60 + self.rng.below(20)
            ),
        }
    }

    /// One failing expression; every row of the table, or of what consent leaves of it, reaches it.
    fn fallible(&mut self) -> String {
        let fails = self.failing();
        let of = 60 + self.rng.below(60);
        let compare = self.comparison();
        match self.rng.below(11) {
            0 => format!("SELECT {fails} AS c0, t.seq AS c1 FROM readings AS t"),
            1 => format!("SELECT count(*), sum(t.value) FROM readings AS t WHERE {fails} {compare} {of}"),
            2 => format!("SELECT {fails} AS c0, count(*) FROM readings AS t GROUP BY {fails}"),
            3 => format!("SELECT t.signal, sum({fails}), min(t.value) FROM readings AS t GROUP BY t.signal"),
            4 => format!(
                "SELECT t.device FROM readings AS t GROUP BY t.device HAVING sum({fails}) {compare} {of}"
            ),
            5 => {
                format!("SELECT t.value, t.ts FROM readings AS t ORDER BY {fails}, t.device, t.signal, t.ts")
            }
            6 => format!(
                "SELECT sum({fails}) OVER (PARTITION BY t.device ORDER BY t.ts, t.signal) AS c0 FROM readings AS t"
            ),
            7 => format!(
                "SELECT d.c0, count(*) FROM (SELECT {fails} AS c0 FROM readings AS t) AS d GROUP BY d.c0"
            ),
            8 => {
                format!("WITH w AS (SELECT {fails} AS c0 FROM readings AS t) SELECT max(c0), count(*) FROM w")
            }
            9 => format!("SELECT DISTINCT {fails} AS c0 FROM readings AS t"),
            _ => format!(
                "SELECT count(*) FROM readings AS t WHERE CASE WHEN {fails} {compare} {of} THEN true ELSE false END"
            ),
        }
    }
}

fn columns_of(name: &str, types: &[Type]) -> Scope {
    let column = |(at, of): (usize, &Type)| Column { name: format!("{name}.c{at}"), of: *of };
    Scope { columns: types.iter().enumerate().map(column).collect(), base: None }
}
