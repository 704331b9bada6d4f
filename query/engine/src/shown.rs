//! `EXPLAIN`: a plan as rows of text. The plan was made over empty tables, so that its shape and its estimates are
//! those of the statement, never of the data; the leaf prints its name and nothing else. Nothing is run, hence no
//! `ANALYZE`.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::Result;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::physical_plan::{ExecutionPlan, displayable};

/// Longest plan shown, lines; the rest is cut off.
const LINES_MAX: usize = 1_000;

/// A plan that gives the lines of another one.
pub(crate) fn as_rows(plan: &Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let text = displayable(plan.as_ref()).indent(false).to_string();
    let lines: ArrayRef = Arc::new(StringArray::from_iter_values(text.lines().take(LINES_MAX)));
    let schema = Arc::new(Schema::new(vec![Field::new("plan", DataType::Utf8, false)]));
    let rows = RecordBatch::try_new(Arc::clone(&schema), vec![lines])?;
    let source: Arc<dyn ExecutionPlan> = MemorySourceConfig::try_new_exec(&[vec![rows]], schema, None)?;
    Ok(source)
}
