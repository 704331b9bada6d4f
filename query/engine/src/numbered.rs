//! Grouping by numbers instead of names. Names are long and repeat, and would be hashed and compared for each row.
//! Where a plan only groups by a column of names, its scan gives the name's number instead, and the few groups that
//! come out get their names back.
//!
//! Equal names have one number (`columns::Labels`), so the groups are the same. Not for columns that anything else
//! looks at, and not below an operator with several inputs: those may rely on rows of both sides being shared out by
//! the same hash.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, StringViewArray};
use arrow::compute::take;
use arrow::datatypes::{SchemaRef, UInt32Type};
use arrow::error::ArrowError;
use datafusion::common::{Result, plan_err};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column as ColumnExpr;
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, ExecutionPlan, Partitioning, ReplaceChildrenOptions,
};

use crate::mapped::Mapped;
use crate::scan::ConsentScan;

type Plan = Arc<dyn ExecutionPlan>;

/// The same plan, its topmost grouping done by numbers where it can be.
pub(crate) fn numbered(plan: Plan) -> Result<Plan> {
    if let Some(grouping) = Grouping::of(&plan) {
        return grouping.by_numbers();
    }
    let [only] = plan.children()[..] else { return Ok(plan) };
    let below = numbered(Arc::clone(only))?;
    match Arc::ptr_eq(&below, only) {
        true => Ok(plan),
        false => with_input(plan, below),
    }
}

fn with_input(plan: Plan, input: Plan) -> Result<Plan> {
    plan.replace_children(vec![input], ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
}

/// An aggregation, from its last step down to its first.
struct Grouping {
    /// The last step, and the exchange of rows before it; empty if there is one step only.
    later: Vec<Plan>,
    /// The step that sees rows.
    first: Plan,
    /// Which of its groups' columns are names, and which of its input's columns those are.
    names: Vec<Numbered>,
}

/// A column of names that is only grouped by.
struct Numbered {
    /// Among the groups' columns.
    group: usize,
    /// Among the input's columns.
    input: usize,
    names: StringViewArray,
}

impl Grouping {
    /// The one that a plan begins with, if it groups by names that nothing else looks at.
    fn of(plan: &Plan) -> Option<Grouping> {
        let mut later: Vec<Plan> = Vec::new();
        let mut first = Arc::clone(plan);
        loop {
            match first.downcast_ref::<AggregateExec>().map(AggregateExec::mode) {
                Some(AggregateMode::Final | AggregateMode::FinalPartitioned) if later.is_empty() => {}
                Some(AggregateMode::Partial) if !later.is_empty() => break,
                Some(AggregateMode::Single | AggregateMode::SinglePartitioned) if later.is_empty() => break,
                None if !later.is_empty() && is_exchange(&first) => {}
                _ => return None,
            }
            let below = Arc::clone(first.children().first()?);
            later.push(std::mem::replace(&mut first, below));
        }
        let steps = later.iter().chain([&first]).filter_map(|step| step.downcast_ref::<AggregateExec>());
        if steps.into_iter().any(|step| step.limit_options().is_some()) {
            return None;
        }
        let names = names(first.downcast_ref::<AggregateExec>()?);
        (!names.is_empty()).then_some(Grouping { later, first, names })
    }

    fn by_numbers(self) -> Result<Plan> {
        let schema = self.later.first().unwrap_or(&self.first).schema();
        let numbers: Vec<usize> = self.names.iter().map(|names| names.input).collect();
        let Some(first) = self.first.downcast_ref::<AggregateExec>() else {
            return plan_err!("no aggregation");
        };
        let rows = renumbered(first.input(), &numbers)?;
        let seen = rows.schema();
        let mut plan = again(first, rows, Arc::clone(&seen))?;
        for step in self.later.into_iter().rev() {
            plan = match step.downcast_ref::<AggregateExec>() {
                Some(step) => again(step, plan, Arc::clone(&seen))?,
                None => with_input(step, plan)?,
            };
        }
        let names: Vec<_> = self.names.into_iter().map(|names| (names.group, names.names)).collect();
        let of_rows = Arc::clone(&schema);
        Ok(Mapped::changing("Naming", plan, schema, move |groups| Ok(named(&groups?, &of_rows, &names)?)))
    }
}

fn is_exchange(plan: &Plan) -> bool {
    plan.is::<RepartitionExec>() || plan.is::<CoalescePartitionsExec>()
}

/// The same aggregation over another input.
fn again(step: &AggregateExec, input: Plan, rows: SchemaRef) -> Result<Plan> {
    let (groups, values) = (step.group_expr().clone(), step.aggr_expr().to_vec());
    Ok(Arc::new(AggregateExec::try_new(
        *step.mode(),
        groups,
        values,
        step.filter_expr().to_vec(),
        input,
        rows,
    )?))
}

/// The columns that an aggregation only groups by and that its scan has numbers for.
fn names(first: &AggregateExec) -> Vec<Numbered> {
    let groups = first.group_expr();
    if groups.has_grouping_set() {
        return Vec::new();
    }
    let values = first.aggr_expr().iter().flat_map(|value| {
        value
            .expressions()
            .into_iter()
            .chain(value.order_bys().iter().map(|order| Arc::clone(&order.expr)))
            .collect::<Vec<_>>()
    });
    let mut others: Vec<Arc<dyn PhysicalExpr>> = values.collect();
    others.extend(first.filter_expr().iter().flatten().cloned());
    let mut found = Vec::new();
    for (group, (expr, _)) in groups.expr().iter().enumerate() {
        let Some(input) = expr.downcast_ref::<ColumnExpr>().map(ColumnExpr::index) else { continue };
        let elsewhere = groups.expr().iter().enumerate().filter(|(other, _)| *other != group);
        let elsewhere = elsewhere.map(|(_, (expr, _))| expr);
        if elsewhere.chain(&others).any(|expr| looks_at(expr, input)) {
            continue;
        }
        if let Some(names) = names_of(first.input(), input) {
            found.push(Numbered { group, input, names });
        }
    }
    found
}

fn looks_at(expr: &Arc<dyn PhysicalExpr>, column: usize) -> bool {
    collect_columns(expr).iter().any(|found| found.index() == column)
}

/// The names of a column, if it comes from a scan and nothing on the way looks at it.
fn names_of(plan: &Plan, column: usize) -> Option<StringViewArray> {
    if let Some(scan) = plan.downcast_ref::<ConsentScan>() {
        return scan.names(column).cloned();
    }
    let below = column_below(plan, column)?;
    names_of(plan.children().first()?, below)
}

/// Where an operator has a column of its output from, if it only hands it on.
fn column_below(plan: &Plan, column: usize) -> Option<usize> {
    if let Some(filter) = plan.downcast_ref::<FilterExec>() {
        let below = match filter.projection() {
            Some(projection) => *projection.get(column)?,
            None => column,
        };
        return (!looks_at(filter.predicate(), below)).then_some(below);
    }
    if let Some(projection) = plan.downcast_ref::<ProjectionExec>() {
        let expr = &projection.expr().get(column)?.expr;
        let below = expr.downcast_ref::<ColumnExpr>()?.index();
        let mut others = projection.expr().iter().enumerate().filter(|(other, _)| *other != column);
        return (!others.any(|(_, other)| looks_at(&other.expr, below))).then_some(below);
    }
    let repartition = plan.downcast_ref::<RepartitionExec>()?;
    matches!(repartition.partitioning(), Partitioning::RoundRobinBatch(_)).then_some(column)
}

/// An aggregation's input with numbers in these columns.
fn renumbered(plan: &Plan, columns: &[usize]) -> Result<Plan> {
    if let Some(scan) = plan.downcast_ref::<ConsentScan>() {
        return Ok(Arc::new(scan.numbered(columns)));
    }
    let below: Option<Vec<usize>> = columns.iter().map(|column| column_below(plan, *column)).collect();
    let children = plan.children();
    let (Some(below), [only]) = (below, &children[..]) else {
        return plan_err!("a column came from nowhere");
    };
    let input = renumbered(only, &below)?;
    match plan.downcast_ref::<ProjectionExec>() {
        // Its own kind of replacing would keep the old types.
        Some(projection) => Ok(Arc::new(ProjectionExec::try_new(projection.expr().to_vec(), input)?)),
        None => with_input(Arc::clone(plan), input),
    }
}

/// The columns of groups with their names.
fn named(
    batch: &RecordBatch,
    schema: &SchemaRef,
    names: &[(usize, StringViewArray)],
) -> Result<RecordBatch, ArrowError> {
    let mut columns: Vec<ArrayRef> = batch.columns().to_vec();
    for (column, names) in names {
        let numbers = columns.get(*column).and_then(|numbers| numbers.as_primitive_opt::<UInt32Type>());
        let numbers = numbers.ok_or_else(|| ArrowError::SchemaError("no numbers to name".to_owned()))?;
        columns[*column] = take(names, numbers, None)?;
    }
    RecordBatch::try_new(Arc::clone(schema), columns)
}
