//! The statement gate: what a text must be before the planner sees it. One read-only query, of bounded size
//! and bounded depth. Not a permission check: who may see which row is decided in the scan leaf alone.
//!
//! Depth is bounded on the token list, by a loop, before the recursive parser runs: parser, planner and
//! expression evaluator recurse once per operator or bracket, and a stack overflow aborts the process.
//! The tokens are the parser's own, so the two can never disagree on where a string or comment ends.

pub mod texts;

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use datafusion::common::format::ExplainStatementOptions;
use datafusion::sql::parser::{DFParserBuilder, Statement as DfStatement};
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Join, JoinConstraint, JoinOperator, ObjectName, Query, Select, SetExpr,
    SetOperator, SetQuantifier, Statement, TableFactor, Visit, VisitMut, Visitor, VisitorMut,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

use crate::error::{EngineError, Limit};
use texts::Texts;

/// Longest accepted statement in bytes.
pub const SQL_BYTES_MAX: usize = 64 * 1024;
/// Most tokens in a statement (white space not counted).
pub const TOKENS_MAX: usize = 10_000;
/// Bound of the expression tree's depth: operators, keywords and brackets on one path.
pub const DEPTH_MAX: u32 = 400;
/// Deepest nesting of brackets; the parser itself stops at 50 levels of recursion.
pub const NESTING_MAX: usize = 40;
/// Most set operations (`UNION`, `EXCEPT`, `INTERSECT`) in a statement.
pub const SET_OPERATIONS_MAX: u32 = 32;
/// Most tables and sub-queries named in a statement.
pub const RELATIONS_MAX: u32 = 16;

/// Functions that may be asked for over a window.
const WINDOWED: &[&str] = &[
    "avg",
    "bool_and",
    "bool_or",
    "count",
    "cume_dist",
    "dense_rank",
    "first_value",
    "lag",
    "last_value",
    "lead",
    "max",
    "mean",
    "min",
    "nth_value",
    "ntile",
    "percent_rank",
    "rank",
    "row_number",
    "stddev",
    "stddev_pop",
    "stddev_samp",
    "sum",
    "var",
    "var_pop",
    "var_samp",
];

/// A statement that may be planned.
#[derive(Debug)]
pub(crate) struct Admitted {
    /// The query.
    pub statement: DfStatement,
    /// Last parts of the names of all tables in it, lower case.
    pub relations: BTreeSet<String>,
    /// Whether its plan is asked for, not its rows.
    pub is_explain: bool,
}

/// Parses `sql` and hands back the one query in it.
///
/// # Errors
/// `Limit` when a bound above is passed, `ReadOnly` for anything but a plain query, `Syntax` else.
pub(crate) fn admit(sql: &str) -> Result<Admitted, EngineError> {
    if sql.len() > SQL_BYTES_MAX {
        return Err(EngineError::TooBig(Limit::SqlBytes));
    }
    let dialect = GenericDialect {};
    let tokens =
        Tokenizer::new(&dialect, sql).tokenize().map_err(|error| EngineError::Syntax(error.to_string()))?;
    check_tokens(&tokens)?;
    let mut parser = DFParserBuilder::new(sql)
        .with_dialect(&dialect)
        .build()
        .map_err(|error| EngineError::Syntax(error.to_string()))?;
    let mut statements =
        parser.parse_statements().map_err(|error| refusal_of_unparsed(&tokens, error.to_string()))?;
    let Some(statement) = statements.pop_front() else {
        return Err(EngineError::Syntax("no statement".to_owned()));
    };
    if !statements.is_empty() {
        return Err(EngineError::ReadOnly("more than one statement"));
    }
    let (mut statement, is_explain) = query_of(statement)?;
    let _ = VisitMut::visit(&mut statement, &mut CallsOfTables);
    let relations = check_statement(&statement)?;
    Ok(Admitted { statement: DfStatement::Statement(statement), relations, is_explain })
}

/// The query itself, and whether it stood behind a plain `EXPLAIN`. `EXPLAIN ANALYZE` would run it and tell of its insides.
fn query_of(statement: DfStatement) -> Result<(Box<Statement>, bool), EngineError> {
    match statement {
        DfStatement::Statement(inner) => Ok((inner, false)),
        DfStatement::Explain(explain) if explain.options == ExplainStatementOptions::default() => {
            match *explain.statement {
                DfStatement::Statement(inner) => Ok((inner, true)),
                _ => Err(EngineError::ReadOnly("not a query")),
            }
        }
        _ => Err(EngineError::ReadOnly("not a query")),
    }
}

/// Turns `consent.explain()` into the table of that name: the one call that stands for a table.
struct CallsOfTables;

impl VisitorMut for CallsOfTables {
    type Break = std::convert::Infallible;

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Self::Break> {
        if let TableFactor::Table { name, args, .. } = factor
            && name.to_string().eq_ignore_ascii_case("consent.explain")
            && args.as_ref().is_some_and(|args| args.args.is_empty() && args.settings.is_none())
        {
            *args = None;
        }
        ControlFlow::Continue(())
    }
}

/// A text that does not parse and does not even begin like a query is a refused command, not a typing error.
fn refusal_of_unparsed(tokens: &[Token], detail: String) -> EngineError {
    let first = tokens.iter().find(|token| !matches!(token, Token::Whitespace(_)));
    let reads = matches!(first, Some(Token::Word(word))
        if matches!(word.keyword, Keyword::SELECT | Keyword::WITH | Keyword::VALUES | Keyword::FROM | Keyword::TABLE | Keyword::EXPLAIN))
        || matches!(first, Some(Token::LParen));
    if reads { EngineError::Syntax(detail) } else { EngineError::ReadOnly("not a query") }
}

/// Depth of one bracket level, as far as it has been read.
#[derive(Default, Clone, Copy)]
struct Level {
    /// Operators and keywords since the last comma.
    operators: u32,
    /// Deepest closed bracket since the last comma.
    inner: u32,
    /// Deepest expression before the last comma.
    before: u32,
}

impl Level {
    fn depth(self) -> u32 {
        self.before.max(self.operators.saturating_add(self.inner))
    }
}

fn check_tokens(tokens: &[Token]) -> Result<(), EngineError> {
    let mut levels = vec![Level::default()];
    let mut count = 0_usize;
    let mut set_operations = 0_u32;
    let mut texts = Texts::default();
    for token in tokens {
        if matches!(token, Token::Whitespace(_) | Token::EOF) {
            continue;
        }
        count += 1;
        if count > TOKENS_MAX {
            return Err(EngineError::TooBig(Limit::Tokens));
        }
        refuse_token(token)?;
        texts.count(token)?;
        if let Token::Word(word) = token
            && matches!(word.keyword, Keyword::UNION | Keyword::EXCEPT | Keyword::INTERSECT | Keyword::MINUS)
        {
            set_operations += 1;
        }
        step(&mut levels, token);
        let open: u32 = levels.iter().map(|level| level.operators).fold(0, u32::saturating_add);
        let closed = levels.last().map_or(0, |level| level.depth());
        if levels.len() > NESTING_MAX || open.max(closed) > DEPTH_MAX || set_operations > SET_OPERATIONS_MAX {
            return Err(EngineError::TooBig(Limit::Depth));
        }
    }
    Ok(())
}

/// Moves the depth count over one token. Unbalanced brackets are left to the parser to refuse.
fn step(levels: &mut Vec<Level>, token: &Token) {
    match token {
        Token::LParen | Token::LBracket | Token::LBrace => {
            if let Some(level) = levels.last_mut() {
                level.operators = level.operators.saturating_add(1);
            }
            levels.push(Level::default());
        }
        Token::RParen | Token::RBracket | Token::RBrace => {
            if levels.len() > 1 {
                let inner = levels.pop().map_or(0, Level::depth).saturating_add(1);
                if let Some(level) = levels.last_mut() {
                    level.inner = level.inner.max(inner);
                }
            }
        }
        Token::Comma => {
            if let Some(level) = levels.last_mut() {
                *level = Level { before: level.depth(), ..Level::default() };
            }
        }
        Token::Word(word) if word.keyword == Keyword::NoKeyword => {}
        Token::Number(..) | Token::SingleQuotedString(_) | Token::SemiColon => {}
        _ => {
            if let Some(level) = levels.last_mut() {
                level.operators = level.operators.saturating_add(1);
            }
        }
    }
}

/// Operators that multiply the size of a value have no place here: repeated in nested queries they grow
/// a text or a plan without bound, outside every memory account.
fn refuse_token(token: &Token) -> Result<(), EngineError> {
    match token {
        Token::StringConcat => Err(EngineError::Unsupported("||")),
        Token::VerticalBarRightAngleBracket => Err(EngineError::Unsupported("|>")),
        Token::Word(word) if word.keyword == Keyword::CUBE => Err(EngineError::Unsupported("CUBE")),
        _ => Ok(()),
    }
}

fn check_statement(inner: &Statement) -> Result<BTreeSet<String>, EngineError> {
    if !matches!(inner, Statement::Query(_)) {
        return Err(EngineError::ReadOnly("not a query"));
    }
    let mut walk = Walk::default();
    match inner.visit(&mut walk) {
        ControlFlow::Continue(()) => Ok(walk.names),
        ControlFlow::Break(refusal) => Err(refusal),
    }
}

/// Looks at every node of the parsed query for what a query may not contain.
#[derive(Default)]
struct Walk {
    statements: u32,
    relations: u32,
    selects: u32,
    names: BTreeSet<String>,
}

impl Visitor for Walk {
    type Break = EngineError;

    fn pre_visit_statement(&mut self, _statement: &Statement) -> ControlFlow<EngineError> {
        self.statements += 1;
        if self.statements > 1 {
            return ControlFlow::Break(EngineError::ReadOnly("statement within a query"));
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<EngineError> {
        if let Some(with) = &query.with
            && with.recursive
        {
            return ControlFlow::Break(EngineError::Unsupported("WITH RECURSIVE"));
        }
        if !query.locks.is_empty() {
            return ControlFlow::Break(EngineError::ReadOnly("locking clause"));
        }
        if query.format_clause.is_some() || query.settings.is_some() || query.for_clause.is_some() {
            return ControlFlow::Break(EngineError::Unsupported("clause after the query"));
        }
        match query.body.as_ref() {
            SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_) => {
                ControlFlow::Break(EngineError::ReadOnly("statement that writes"))
            }
            body if counts_repeats(body) => {
                ControlFlow::Break(EngineError::Unsupported("EXCEPT ALL, INTERSECT ALL"))
            }
            _ => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<EngineError> {
        self.selects += 1;
        if self.selects > RELATIONS_MAX + SET_OPERATIONS_MAX {
            return ControlFlow::Break(EngineError::TooBig(Limit::Relations));
        }
        if select.into.is_some() {
            return ControlFlow::Break(EngineError::ReadOnly("SELECT INTO"));
        }
        if select.from.iter().any(|table| merges_columns(&table.joins)) {
            return ControlFlow::Break(MERGES_COLUMNS);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<EngineError> {
        if let Some(part) = relation.0.last().and_then(|part| part.as_ident()) {
            self.names.insert(part.value.to_lowercase());
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<EngineError> {
        self.relations += 1;
        if self.relations > RELATIONS_MAX {
            return ControlFlow::Break(EngineError::TooBig(Limit::Relations));
        }
        match factor {
            TableFactor::NestedJoin { table_with_joins, .. } if merges_columns(&table_with_joins.joins) => {
                ControlFlow::Break(MERGES_COLUMNS)
            }
            TableFactor::Table { args: None, sample: None, .. }
            | TableFactor::Derived { sample: None, .. }
            | TableFactor::NestedJoin { .. } => ControlFlow::Continue(()),
            _ => ControlFlow::Break(EngineError::Unsupported("table function")),
        }
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<EngineError> {
        if let Err(refusal) = texts::check_pattern(expr) {
            return ControlFlow::Break(refusal);
        }
        match expr {
            Expr::IsDistinctFrom(_, right) | Expr::IsNotDistinctFrom(_, right) if is_and_or(right) => {
                ControlFlow::Break(EngineError::Unsupported("IS DISTINCT FROM without brackets around it"))
            }
            Expr::Function(call) if call.over.is_some() && !may_be_windowed(&call.name) => {
                ControlFlow::Break(EngineError::Unsupported("that function over a window"))
            }
            Expr::Array(_)
            | Expr::Struct { .. }
            | Expr::Dictionary(_)
            | Expr::Map(_)
            | Expr::Tuple(_)
            | Expr::Overlay { .. } => ControlFlow::Break(EngineError::Unsupported("value that grows")),
            _ => ControlFlow::Continue(()),
        }
    }
}

/// The refusal of a column that should be both sides' and is the left one's.
const MERGES_COLUMNS: EngineError = EngineError::Unsupported("RIGHT or FULL JOIN with USING or NATURAL");

/// DataFusion 55 gives the left side's column where SQL gives whichever side has one.
fn merges_columns(joins: &[Join]) -> bool {
    joins.iter().any(|join| {
        matches!(
            join.join_operator,
            JoinOperator::Right(JoinConstraint::Using(_) | JoinConstraint::Natural)
                | JoinOperator::RightOuter(JoinConstraint::Using(_) | JoinConstraint::Natural)
                | JoinOperator::FullOuter(JoinConstraint::Using(_) | JoinConstraint::Natural)
        )
    })
}

/// DataFusion 55 does not count how often a row is on either side.
fn counts_repeats(body: &SetExpr) -> bool {
    match body {
        SetExpr::SetOperation { op, set_quantifier, left, right } => {
            let is_all = matches!(set_quantifier, SetQuantifier::All | SetQuantifier::AllByName);
            is_all && !matches!(op, SetOperator::Union) || counts_repeats(left) || counts_repeats(right)
        }
        _ => false,
    }
}

/// The parser takes all that follows `IS DISTINCT FROM` for its right side; AND and OR there stand in no brackets.
fn is_and_or(expr: &Expr) -> bool {
    matches!(expr, Expr::BinaryOp { op: BinaryOperator::And | BinaryOperator::Or | BinaryOperator::Xor, .. })
}

/// Whether a function's value over a window is brought up to date in constant time per row. The others begin anew for every
/// row, in one go that nothing interrupts.
fn may_be_windowed(name: &ObjectName) -> bool {
    let last = name.0.last().and_then(|part| part.as_ident());
    last.is_some_and(|name| WINDOWED.contains(&name.value.to_lowercase().as_str()))
}

#[cfg(test)]
mod tests;
