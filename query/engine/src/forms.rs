//! Forms of queries that DataFusion 55 plans, and should not: those that grow while they are planned, and those that it
//! answers otherwise than SQL does. They are refused before the optimizer sees them; a refusal is better than a wrong
//! number. Not here: what is wrong with single rules (`rules`), and what the syntax alone tells (`gate`).
//!
//! - **Growth.** The optimizer puts a column's expression wherever the column stands, one sub-query after the other,
//!   and writes `coalesce`, `BETWEEN` and small CASE and IN lists out with their operands repeated. `c + c` in fourteen
//!   nested sub-queries, 600 bytes, would come to 2^14 copies, on a thread that nothing can stop.
//! - **IN with NULLs** in a place where unknown is not the same as false (below NOT, in a CASE, as a value): it is
//!   answered with false.
//! - **EXISTS and IN over a correlated sub-query** that gives a row of nothing (`SELECT count(*)` without GROUP BY), or
//!   that skips or counts rows: the row, or the count, is lost.
//! - **`extract(epoch FROM interval)`**, which loses the fraction of a second.
//! - **Frames of windows** that are negative or longer than any table: the operator panics.
//! - **`approx_percentile_cont` with many centroids**: memory by the number that is asked for, which is no accounted
//!   memory; the process would end.

use std::collections::HashMap;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, Result as PlanResult};
use datafusion::logical_expr::expr::InSubquery;
use datafusion::logical_expr::{
    BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator, Subquery, WindowFrameBound,
};

use crate::error::{EngineError, Limit};
use crate::rules::gives_a_row_of_none;

/// Operators and columns that a statement may gain while it is planned; by trial, so that the slowest forms known
/// (`coalesce` in nine nested sub-queries, `c + c + c + c` in seven) take about a second to plan.
pub(crate) const GROWTH_MAX: u64 = 4_000;
/// Most centroids of `approx_percentile_cont`, ten times the default.
pub(crate) const CENTROIDS_MAX: u64 = 1_000;
/// Longest frame of a window, rows or groups before or after.
pub(crate) const FRAME_ROWS_MAX: u64 = 1_000_000_000;
/// Longest IN list that the planner writes out, its left side repeated.
const WRITTEN_OUT_MAX: usize = 3;
/// Functions that the planner writes out as CASE, arguments repeated.
const WRITTEN_OUT: &[&str] = &["coalesce", "ifnull", "nvl", "nvl2"];

/// Looks at every expression of a plan that nothing was done to yet.
///
/// # Errors
/// `TooBig` for growth, `Unsupported` for the other forms above.
pub(crate) fn check(plan: &LogicalPlan) -> Result<(), EngineError> {
    let mut growth = 0;
    copies(plan, &mut growth);
    if growth > GROWTH_MAX {
        return Err(EngineError::TooBig(Limit::Depth));
    }
    let mut refused = None;
    let looked = plan.apply_with_subqueries(|node| {
        refused = refused_form(node)?;
        Ok(if refused.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    match (looked, refused) {
        (_, Some(form)) => Err(EngineError::Unsupported(form)),
        (Err(error), None) => Err(EngineError::Internal(error.to_string())),
        (Ok(_), None) => Ok(()),
    }
}

/// How many operators and columns each output column comes to if each column below is written out; adds what that is more
/// than what is written to `growth`. A correlated sub-query's outer columns count one: the planner makes joins of them, and
/// writes nothing out.
fn copies(plan: &LogicalPlan, growth: &mut u64) -> Vec<u64> {
    let inputs: Vec<Vec<u64>> = plan.inputs().into_iter().map(|input| copies(input, growth)).collect();
    let columns = plan.inputs().into_iter().flat_map(|input| input.schema().columns());
    let below: HashMap<Column, u64> = columns.zip(inputs.iter().flatten().copied()).collect();
    let mut sizes = Vec::new();
    for expr in plan.expressions() {
        let (size, written) = (size(&expr, &below, true), size(&expr, &below, false));
        *growth = growth.saturating_add(size.saturating_sub(written));
        sizes.push(size);
        // Nothing in it fails, so neither does the walk.
        let _ = expr.apply(|part| {
            if let Some(query) = sub_query(part) {
                copies(&query.subquery, growth);
            }
            Ok(TreeNodeRecursion::Continue)
        });
    }
    let fields = plan.schema().fields().len();
    match plan {
        LogicalPlan::Projection(_) | LogicalPlan::Aggregate(_) if sizes.len() == fields => sizes,
        LogicalPlan::Union(_) => (0..fields)
            .map(|at| inputs.iter().filter_map(|sizes| sizes.get(at)).max().copied().unwrap_or(1))
            .collect(),
        // Names change, columns do not.
        _ if inputs.len() == 1 && inputs[0].len() == fields => inputs.into_iter().flatten().collect(),
        _ => {
            let most = sizes.iter().max().copied().unwrap_or(1);
            let known = |column: &Column| below.get(column).copied().unwrap_or(most);
            plan.schema().columns().iter().map(known).collect()
        }
    }
}

/// Operators and columns of an expression: as the planner would write it out, or as it is written.
fn size(expr: &Expr, below: &HashMap<Column, u64>, is_written_out: bool) -> u64 {
    if let Expr::Column(column) = expr {
        return if is_written_out { below.get(column).copied().unwrap_or(1) } else { 1 };
    }
    let times = if is_written_out { times_written(expr) } else { 1 };
    let mut sum = 1_u64;
    // As above.
    let _ = expr.apply_children(|child| {
        sum = sum.saturating_add(size(child, below, is_written_out).saturating_mul(times));
        Ok(TreeNodeRecursion::Continue)
    });
    sum
}

/// How often an operand is repeated when the planner writes the expression out, as far as its rules were read; what is
/// forgotten here the deadline stops ([`crate::rules`]).
fn times_written(expr: &Expr) -> u64 {
    match expr {
        Expr::Between(_) => 2,
        Expr::Case(case) => {
            let are_literals =
                case.when_then_expr.iter().all(|(_, then)| matches!(**then, Expr::Literal(..)));
            if case.when_then_expr.len() < 3 || are_literals { 3 } else { 1 }
        }
        Expr::InList(list) if list.list.len() <= WRITTEN_OUT_MAX => list.list.len().max(1) as u64,
        Expr::ScalarFunction(call) if WRITTEN_OUT.contains(&call.name()) => 2,
        _ => 1,
    }
}

fn sub_query(expr: &Expr) -> Option<&Subquery> {
    match expr {
        Expr::ScalarSubquery(query) => Some(query),
        Expr::Exists(exists) => Some(&exists.subquery),
        Expr::InSubquery(of) => Some(&of.subquery),
        _ => None,
    }
}

/// What of an operator is refused, in words for the operator's log.
fn refused_form(node: &LogicalPlan) -> PlanResult<Option<&'static str>> {
    let mut schema = DFSchema::empty();
    for input in node.inputs() {
        schema.merge(input.schema());
    }
    let place = if matches!(node, LogicalPlan::Filter(_)) { Place::Condition } else { Place::Value };
    for expr in node.expressions() {
        let mut refused = None;
        expr.apply(|part| {
            refused = refused_expression(part, &schema)?;
            Ok(if refused.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
        })?;
        if refused.is_none() {
            refused = unknown_is_lost(&expr, place, &schema)?;
        }
        if refused.is_some() {
            return Ok(refused);
        }
    }
    Ok(None)
}

fn refused_expression(expr: &Expr, schema: &DFSchema) -> PlanResult<Option<&'static str>> {
    Ok(match expr {
        Expr::Exists(exists) => loses_rows(&exists.subquery, false),
        Expr::InSubquery(of) => loses_rows(&of.subquery, true),
        Expr::AggregateFunction(call) if call.func.name() == "approx_percentile_cont" => {
            let centroids = call.params.args.get(2);
            let is_few = centroids.is_none_or(|count| is_at_most(count, CENTROIDS_MAX));
            (!is_few).then_some("approx_percentile_cont with so many centroids")
        }
        Expr::WindowFunction(window) => {
            let frame = &window.params.window_frame;
            let is_odd = [&frame.start_bound, &frame.end_bound].into_iter().any(is_odd);
            is_odd.then_some("window frame that is negative, or longer than any table")
        }
        Expr::ScalarFunction(call) if call.name() == "date_part" => match call.args.as_slice() {
            [Expr::Literal(part, _), of] if part.to_string().eq_ignore_ascii_case("epoch") => {
                let is_span = matches!(of.get_type(schema)?, DataType::Interval(_) | DataType::Duration(_));
                is_span.then_some("extract(epoch FROM interval): subtract the epochs of two times")
            }
            _ => None,
        },
        _ => None,
    })
}

/// A bound on which DataFusion 55 panics.
fn is_odd(bound: &WindowFrameBound) -> bool {
    match bound {
        WindowFrameBound::CurrentRow => false,
        WindowFrameBound::Preceding(by) | WindowFrameBound::Following(by) => {
            let text = by.to_string();
            text.contains('-') || text.parse::<u64>().is_ok_and(|rows| rows > FRAME_ROWS_MAX)
        }
    }
}

/// Whether it is a literal, and at most this.
fn is_at_most(expr: &Expr, most: u64) -> bool {
    matches!(expr, Expr::Literal(value, _) if value.to_string().parse::<u64>().is_ok_and(|value| value <= most))
}

/// Whether a correlated sub-query's own rows are counted: the planner makes a join of it, which has none where nothing
/// fits. That there is a LIMIT, and not OFFSET, is nothing to EXISTS.
fn loses_rows(query: &Subquery, is_in: bool) -> Option<&'static str> {
    if query.outer_ref_columns.is_empty() {
        return None;
    }
    let counts = |node: &LogicalPlan| {
        Ok(match node {
            LogicalPlan::Aggregate(aggregate) => gives_a_row_of_none(aggregate),
            LogicalPlan::Limit(limit) => is_in || limit.skip.is_some(),
            _ => false,
        })
    };
    let is_counted = query.subquery.exists(counts).unwrap_or(true);
    is_counted.then_some("EXISTS or IN over an aggregate or LIMIT that names outer columns")
}

/// Where an expression stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// All of a condition, or one of its conjuncts: unknown is as good as false.
    Condition,
    /// Below OR: the same, if nothing is negated.
    Alternative,
    /// Anywhere else: unknown is unknown.
    Value,
}

/// Whether IN over a sub-query, somewhere in it, may be unknown where that is not the same as false.
fn unknown_is_lost(expr: &Expr, place: Place, schema: &DFSchema) -> PlanResult<Option<&'static str>> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => both(left, right, place, schema),
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => {
            let place = if place == Place::Value { Place::Value } else { Place::Alternative };
            both(left, right, place, schema)
        }
        Expr::InSubquery(of) => {
            let is_right = match place {
                Place::Condition => true,
                Place::Alternative => !of.negated,
                Place::Value => false,
            };
            let is_known = is_right || !may_be_unknown(of, schema)?;
            Ok((!is_known).then_some("IN over a sub-query with NULLs, where unknown is not false"))
        }
        other => {
            let mut refused = None;
            other.apply_children(|child| {
                refused = unknown_is_lost(child, Place::Value, schema)?;
                Ok(if refused.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
            })?;
            Ok(refused)
        }
    }
}

fn both(left: &Expr, right: &Expr, place: Place, schema: &DFSchema) -> PlanResult<Option<&'static str>> {
    Ok(match unknown_is_lost(left, place, schema)? {
        None => unknown_is_lost(right, place, schema)?,
        refused => refused,
    })
}

fn may_be_unknown(of: &InSubquery, schema: &DFSchema) -> PlanResult<bool> {
    let is_null_listed = of.subquery.subquery.schema().fields().iter().any(|field| field.is_nullable());
    Ok(is_null_listed || of.expr.nullable(schema)?)
}
