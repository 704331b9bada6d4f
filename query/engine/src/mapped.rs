//! An operator that hands on each batch of its input, looked at or with other columns. What it does is a function; this
//! is the rest that an operator needs.
//!
//! Filters do not pass it: what is above must not be evaluated below.

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, plan_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::filter_pushdown::{
    ChildPushdownResult, FilterPushdownPhase, FilterPushdownPropagation,
};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties,
    ReplaceChildrenOptions,
};
use futures::StreamExt;

/// What is done with each batch, or with the error in its place.
type Step = dyn Fn(Result<RecordBatch>) -> Result<RecordBatch> + Send + Sync;

/// The operator.
pub(crate) struct Mapped {
    name: &'static str,
    input: Arc<dyn ExecutionPlan>,
    /// That of the batches given; `None` if they are the input's own.
    schema: Option<SchemaRef>,
    properties: Arc<PlanProperties>,
    step: Arc<Step>,
}

impl Mapped {
    /// Gives the batches that `step` lets pass. It must not change them: their order and the way they are shared out are
    /// relied on above.
    pub(crate) fn passing(
        name: &'static str,
        input: Arc<dyn ExecutionPlan>,
        step: impl Fn(Result<RecordBatch>) -> Result<RecordBatch> + Send + Sync + 'static,
    ) -> Arc<dyn ExecutionPlan> {
        Arc::new(Self::new(name, input, None, Arc::new(step)))
    }

    /// Gives batches of another schema, of which nothing is known but their types.
    pub(crate) fn changing(
        name: &'static str,
        input: Arc<dyn ExecutionPlan>,
        schema: SchemaRef,
        step: impl Fn(Result<RecordBatch>) -> Result<RecordBatch> + Send + Sync + 'static,
    ) -> Arc<dyn ExecutionPlan> {
        Arc::new(Self::new(name, input, Some(schema), Arc::new(step)))
    }

    fn new(
        name: &'static str,
        input: Arc<dyn ExecutionPlan>,
        schema: Option<SchemaRef>,
        step: Arc<Step>,
    ) -> Self {
        let below = input.properties();
        let properties = match &schema {
            None => Arc::clone(below),
            Some(schema) => Arc::new(PlanProperties::new(
                EquivalenceProperties::new(Arc::clone(schema)),
                Partitioning::UnknownPartitioning(below.partitioning.partition_count()),
                below.emission_type,
                below.boundedness,
            )),
        };
        Self { name, input, schema, properties, step }
    }
}

impl fmt::Debug for Mapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl DisplayAs for Mapped {
    fn fmt_as(&self, _kind: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl ExecutionPlan for Mapped {
    fn name(&self) -> &str {
        self.name
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match <[_; 1]>::try_from(children) {
            Ok([input]) => {
                Ok(Arc::new(Self::new(self.name, input, self.schema.clone(), Arc::clone(&self.step))))
            }
            Err(_) => plan_err!("one input"),
        }
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn handle_child_pushdown_result(
        &self,
        _phase: FilterPushdownPhase,
        result: ChildPushdownResult,
        _config: &ConfigOptions,
    ) -> Result<FilterPushdownPropagation<Arc<dyn ExecutionPlan>>> {
        Ok(FilterPushdownPropagation::all_unsupported(result))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let rows = self.input.execute(partition, context)?;
        let step = Arc::clone(&self.step);
        let batches = rows.map(move |batch| step(batch));
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), batches)))
    }
}
