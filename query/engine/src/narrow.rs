//! The leak-proof part of a user's filter: `column <cmp> literal`, `IN` and `BETWEEN` on `ts`, `signal` and
//! `device`, joined by AND and OR. Such a comparison cannot fail on any value, so it may be used to read
//! less; it is always AND-ed with the mask, and evaluated again above the scan unless it says exactly which rows to read.
//! Anything else yields `None`.

use datafusion::common::ScalarValue;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};
use schemas_identity::ShortId;
use schemas_signals::{Registry, SignalSet};

use crate::mask::Narrow;
use crate::scan::Reach;

/// Deepest AND/OR nesting looked at.
const DEPTH_MAX: u32 = 64;

/// What is needed to turn names in a filter into the lake's numbers.
pub(crate) struct Names<'a> {
    /// Knows devices by name; whether anybody may see one is the mask's matter.
    pub reach: &'a Reach,
}

impl Names<'_> {
    /// The restriction an expression stands for, a superset of the rows it lets pass; `None` = unknown.
    pub(crate) fn narrow(&self, expr: &Expr) -> Option<Narrow> {
        self.at(expr, DEPTH_MAX)
    }

    /// Whether the restriction lets the very rows pass that the expression does, so that nobody need evaluate it: one
    /// comparison of `ts` or `signal`. Not of `device`, whose name can be written in more than one way, and no OR, whose
    /// restriction is wider.
    pub(crate) fn is_exact(&self, expr: &Expr) -> bool {
        let column = match expr {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => match (left.as_ref(), right.as_ref()) {
                _ if matches!(op, Operator::And | Operator::Or) => return false,
                (Expr::Column(column), _) | (_, Expr::Column(column)) => column,
                _ => return false,
            },
            Expr::Between(between) => match between.expr.as_ref() {
                Expr::Column(column) => column,
                _ => return false,
            },
            Expr::InList(list) => match list.expr.as_ref() {
                Expr::Column(column) if column.name == "signal" => column,
                _ => return false,
            },
            _ => return false,
        };
        matches!(column.name.as_str(), "ts" | "signal") && self.narrow(expr).is_some()
    }

    fn at(&self, expr: &Expr, depth: u32) -> Option<Narrow> {
        let depth = depth.checked_sub(1)?;
        match expr {
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => {
                match (self.at(left, depth), self.at(right, depth)) {
                    (Some(a), Some(b)) => Some(a.and(b)),
                    (a, b) => a.or(b),
                }
            }
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => {
                Some(self.at(left, depth)?.or(self.at(right, depth)?))
            }
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => match (left.as_ref(), right.as_ref()) {
                (Expr::Column(column), Expr::Literal(value, _)) => self.compare(&column.name, *op, value),
                (Expr::ScalarFunction(call), Expr::Literal(value, _)) => bucket(call, *op, value),
                (Expr::Literal(value, _), Expr::Column(column)) => {
                    self.compare(&column.name, op.swap()?, value)
                }
                _ => None,
            },
            Expr::Between(between) if !between.negated => {
                let Expr::Column(column) = between.expr.as_ref() else { return None };
                let (Expr::Literal(low, _), Expr::Literal(high, _)) =
                    (between.low.as_ref(), between.high.as_ref())
                else {
                    return None;
                };
                let low = self.compare(&column.name, Operator::GtEq, low)?;
                Some(low.and(self.compare(&column.name, Operator::LtEq, high)?))
            }
            Expr::InList(list) if !list.negated => {
                let Expr::Column(column) = list.expr.as_ref() else { return None };
                let mut either: Option<Narrow> = None;
                for item in &list.list {
                    let Expr::Literal(value, _) = item else { return None };
                    let one = self.compare(&column.name, Operator::Eq, value)?;
                    either = Some(match either {
                        Some(so_far) => so_far.or(one),
                        None => one,
                    });
                }
                either
            }
            _ => None,
        }
    }

    fn compare(&self, column: &str, op: Operator, value: &ScalarValue) -> Option<Narrow> {
        match column {
            "ts" => time(op, value),
            "signal" if op == Operator::Eq => {
                let signal = Registry::builtin().by_name(text(value)?);
                let signals = signal.map(|signal| SignalSet::of(signal.id)).unwrap_or_default();
                Some(Narrow { signals: Some(signals), ..Narrow::default() })
            }
            "device" if op == Operator::Eq => {
                let devices = text(value)?
                    .parse()
                    .ok()
                    .and_then(|name: ShortId| self.reach.number(name))
                    .into_iter()
                    .collect();
                Some(Narrow { devices: Some(devices), ..Narrow::default() })
            }
            _ => None,
        }
    }
}

fn text(value: &ScalarValue) -> Option<&str> {
    match value {
        ScalarValue::Utf8(Some(text))
        | ScalarValue::Utf8View(Some(text))
        | ScalarValue::LargeUtf8(Some(text)) => Some(text),
        _ => None,
    }
}

fn time(op: Operator, value: &ScalarValue) -> Option<Narrow> {
    let ScalarValue::TimestampMicrosecond(Some(at), _) = value else { return None };
    let after = at.checked_add(1);
    let (from, to) = match op {
        Operator::Eq => (Some(*at), after),
        Operator::Gt => (Some(after?), None),
        Operator::GtEq => (Some(*at), None),
        Operator::Lt => (None, Some(*at)),
        Operator::LtEq => (None, Some(after?)),
        _ => return None,
    };
    Some(Narrow { from, to, ..Narrow::default() })
}

/// `date_bin(stride, ts) <cmp> literal`: an instant lies at most one stride after its bucket.
fn bucket(call: &ScalarFunction, op: Operator, value: &ScalarValue) -> Option<Narrow> {
    let [Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(stride)), _), Expr::Column(column)] =
        call.args.as_slice()
    else {
        return None;
    };
    if call.name() != "date_bin"
        || column.name != "ts"
        || stride.months != 0
        || stride.days < 0
        || stride.nanoseconds < 0
    {
        return None;
    }
    let stride_us =
        i64::from(stride.days).checked_mul(86_400_000_000)?.checked_add(stride.nanoseconds / 1_000 + 1)?;
    let within = time(op, value)?;
    Some(Narrow { to: within.to.map(|to| to.saturating_add(stride_us)), ..within })
}
