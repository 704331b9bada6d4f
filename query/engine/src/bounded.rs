//! What makes operators that multiply stop in time. A join of many rows with many, or a window, may give batch after
//! batch, or compute for minutes without giving one, and never come back to the scan, where consent, time and reader
//! are looked at. So each such operator's output passes a look-out, and a join's own condition holds one.
//!
//! Not a memory bound (the pool is) and not a cure for an operator that works long between two calls: those are left
//! out by the gate (`gate::WINDOWED`) and the plan walk.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, FieldRef, Schema};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Result, plan_err};
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::joins::HashJoinExec;
use datafusion::physical_plan::joins::utils::JoinFilter;

use crate::mapped::Mapped;
use crate::scan::Access;

/// Operators whose output is longer than their input, or that compute long before they give it.
const MULTIPLYING: &[&str] = &[
    "CrossJoinExec",
    "HashJoinExec",
    "NestedLoopJoinExec",
    "SortMergeJoinExec",
    "WindowAggExec",
    "BoundedWindowAggExec",
];

/// The plan with look-outs.
pub(crate) fn bounded(plan: Arc<dyn ExecutionPlan>, access: &Arc<Access>) -> Result<Arc<dyn ExecutionPlan>> {
    let watched = plan.transform_up(|node| {
        if !MULTIPLYING.contains(&node.name()) {
            return Ok(Transformed::no(node));
        }
        let input = with_watched_condition(node, access)?;
        let access = Arc::clone(access);
        Ok(Transformed::yes(Mapped::passing("Lookout", input, move |batch| {
            access.go_on()?;
            batch
        })))
    })?;
    Ok(watched.data)
}

/// A join's condition on pairs is evaluated in a loop that gives nothing as long as no pair fits.
fn with_watched_condition(
    node: Arc<dyn ExecutionPlan>,
    access: &Arc<Access>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let Some(join) = node.downcast_ref::<HashJoinExec>() else { return Ok(node) };
    let Some(filter) = join.filter() else { return Ok(node) };
    let condition: Arc<dyn PhysicalExpr> =
        Arc::new(Watched { inner: Arc::clone(filter.expression()), access: Arc::clone(access) });
    let filter = JoinFilter::new(condition, filter.column_indices().to_vec(), Arc::clone(filter.schema()));
    join.builder().with_filter(Some(filter)).build_exec()
}

/// An expression that is evaluated as long as the query may go on.
struct Watched {
    inner: Arc<dyn PhysicalExpr>,
    access: Arc<Access>,
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.inner, f)
    }
}

impl fmt::Display for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.inner, f)
    }
}

impl PartialEq for Watched {
    fn eq(&self, other: &Self) -> bool {
        self.inner.eq(&other.inner)
    }
}

impl Eq for Watched {}

impl Hash for Watched {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.hash(state);
    }
}

impl PhysicalExpr for Watched {
    fn data_type(&self, input: &Schema) -> Result<DataType> {
        self.inner.data_type(input)
    }

    fn nullable(&self, input: &Schema) -> Result<bool> {
        self.inner.nullable(input)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        self.access.go_on()?;
        self.inner.evaluate(batch)
    }

    fn return_field(&self, input: &Schema) -> Result<FieldRef> {
        self.inner.return_field(input)
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.inner]
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn PhysicalExpr>>,
    ) -> Result<Arc<dyn PhysicalExpr>> {
        match <[_; 1]>::try_from(children) {
            Ok([inner]) => Ok(Arc::new(Self { inner, access: Arc::clone(&self.access) })),
            Err(_) => plan_err!("one expression"),
        }
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt_sql(f)
    }
}
