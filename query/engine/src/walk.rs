//! The last look at a plan before it runs: only operators known to be read-only, bounded and cancellable may
//! be in it. Joins without a key multiply their sides and do not yield while doing so; they run only when
//! one side is small by construction.

use std::sync::Arc;

use datafusion::common::stats::Precision;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::limit::{GlobalLimitExec, LocalLimitExec};
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::{ExecutionPlan, StatisticsArgs};

use crate::error::{Budget, EngineError, Limit};
use crate::scan::SCAN_NAME;

/// Most pairs a join without a key may look at.
pub const PAIRS_MAX: u64 = 4_000_000;
/// Most scans of readings in one plan.
pub const SCANS_MAX: usize = 16;
/// Most operators in a plan.
pub const OPERATORS_MAX: usize = 2_000;
/// Most columns of an operator's output.
pub const COLUMNS_MAX: usize = 1_024;

/// Operators that may appear.
const OPERATORS: &[&str] = &[
    SCAN_NAME,
    "AggregateExec",
    "BoundedWindowAggExec",
    "CoalesceBatchesExec",
    "CoalescePartitionsExec",
    "CooperativeExec",
    "CrossJoinExec",
    "DataSourceExec",
    "EmptyExec",
    "FilterExec",
    "GlobalLimitExec",
    "HashJoinExec",
    "InterleaveExec",
    "LocalLimitExec",
    "NestedLoopJoinExec",
    "PartialSortExec",
    "PartitionedTopKExec",
    "PlaceholderRowExec",
    "ProjectionExec",
    "RepartitionExec",
    "ScalarSubqueryExec",
    "SortExec",
    "SortExec(TopK)",
    "SortMergeJoinExec",
    "SortPreservingMergeExec",
    "UnionExec",
    "WindowAggExec",
];

/// Looks at every operator.
///
/// # Errors
/// `Unsupported` for an operator not listed, `OverBudget` for a join without key above the bound, `TooBig`
/// for plans beyond the bounds above.
pub(crate) fn check(plan: &Arc<dyn ExecutionPlan>) -> Result<(), EngineError> {
    let mut waiting = vec![Arc::clone(plan)];
    let (mut seen, mut scans) = (0_usize, 0_usize);
    while let Some(node) = waiting.pop() {
        seen += 1;
        if !OPERATORS.contains(&node.name()) {
            return Err(EngineError::Unsupported("operator of the plan"));
        }
        if node.name() == SCAN_NAME {
            scans += 1;
        }
        if seen > OPERATORS_MAX || scans > SCANS_MAX || node.schema().fields().len() > COLUMNS_MAX {
            return Err(EngineError::TooBig(Limit::Relations));
        }
        if matches!(node.name(), "CrossJoinExec" | "NestedLoopJoinExec") {
            check_pairs(&node)?;
        }
        waiting.extend(node.children().into_iter().cloned());
    }
    Ok(())
}

fn check_pairs(join: &Arc<dyn ExecutionPlan>) -> Result<(), EngineError> {
    let mut pairs = Some(1_u64);
    let mut single = false;
    for side in join.children() {
        let rows = rows_max(side);
        single |= rows.is_some_and(|rows| rows <= 1);
        pairs = pairs.zip(rows).and_then(|(pairs, rows)| pairs.checked_mul(rows));
    }
    if single || pairs.is_some_and(|pairs| pairs <= PAIRS_MAX) {
        return Ok(());
    }
    Err(EngineError::OverBudget(Budget::Join))
}

/// Most rows an operator can give, where its form alone says so.
fn rows_max(plan: &Arc<dyn ExecutionPlan>) -> Option<u64> {
    let partitions = u64::try_from(plan.properties().partitioning.partition_count()).ok()?;
    if let Some(fetch) = plan.fetch() {
        return u64::try_from(fetch).ok()?.checked_mul(partitions);
    }
    if let Some(limit) = plan.downcast_ref::<LocalLimitExec>() {
        return u64::try_from(limit.fetch()).ok()?.checked_mul(partitions);
    }
    if let Some(limit) = plan.downcast_ref::<GlobalLimitExec>()
        && let Some(fetch) = limit.fetch()
    {
        return u64::try_from(fetch).ok();
    }
    if let Some(aggregate) = plan.downcast_ref::<AggregateExec>()
        && aggregate.group_expr().expr().is_empty()
    {
        return Some(partitions);
    }
    if plan.is::<SortExec>() || passes_through(plan.name()) {
        let children = plan.children();
        return match children.as_slice() {
            [only] => rows_max(only),
            _ => None,
        };
    }
    match plan.name() {
        "EmptyExec" => Some(0),
        "PlaceholderRowExec" => Some(1),
        "DataSourceExec" => known_rows(plan),
        _ => None,
    }
}

/// Operators that never give more rows than they get.
fn passes_through(name: &str) -> bool {
    matches!(
        name,
        "ProjectionExec"
            | "FilterExec"
            | "CoalesceBatchesExec"
            | "CoalescePartitionsExec"
            | "CooperativeExec"
            | "RepartitionExec"
            | "SortPreservingMergeExec"
            | "AggregateExec"
            | "BoundedWindowAggExec"
            | "WindowAggExec"
    )
}

/// Rows of a table held in memory (the catalogue, VALUES).
fn known_rows(plan: &Arc<dyn ExecutionPlan>) -> Option<u64> {
    let statistics = plan.statistics_from_inputs(&[], &StatisticsArgs::new()).ok()?;
    match statistics.num_rows {
        Precision::Exact(rows) => u64::try_from(rows).ok(),
        _ => None,
    }
}
