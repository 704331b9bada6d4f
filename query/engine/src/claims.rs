//! A plan's input, of which less is claimed than the planner believes to know. Filters, columns and limits pass as
//! before, and nothing of this is left in the plan that runs. Who has reason to doubt a claim: [`crate::derived`] and
//! [`crate::scalar`].

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::{DFSchema, DFSchemaRef, Result, plan_err};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{
    Expr, Extension, LogicalPlan, UserDefinedLogicalNode, UserDefinedLogicalNodeCore,
};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_planner::{ExtensionPlanner, PhysicalPlanner};

/// What is no longer claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Hash)]
pub(crate) enum Doubt {
    /// That some columns determine others.
    Keys,
    /// That, and that any column is never NULL.
    NotNull,
}

/// The plan without the claim; as it is, if it makes none.
pub(crate) fn without(doubt: Doubt, plan: LogicalPlan) -> Result<LogicalPlan> {
    let is_keyless = plan.schema().functional_dependencies().is_empty();
    let is_nullable = plan.schema().fields().iter().all(|field| field.is_nullable());
    if is_keyless && (doubt == Doubt::Keys || is_nullable) {
        return Ok(plan);
    }
    Ok(LogicalPlan::Extension(Extension { node: Arc::new(Doubted::new(doubt, plan)?) }))
}

/// The node.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Doubted {
    doubt: Doubt,
    input: LogicalPlan,
    schema: DFSchemaRef,
}

impl Doubted {
    fn new(doubt: Doubt, input: LogicalPlan) -> Result<Doubted> {
        let known = input.schema();
        let field = |field: &Arc<arrow::datatypes::Field>| match doubt {
            Doubt::Keys => Arc::clone(field),
            Doubt::NotNull => Arc::new(field.as_ref().clone().with_nullable(true)),
        };
        let fields = known.iter().map(|(table, of)| (table.cloned(), field(of))).collect();
        // Made of fields alone, a schema says nothing of keys.
        let schema = Arc::new(DFSchema::new_with_metadata(fields, known.metadata().clone())?);
        Ok(Self { doubt, input, schema })
    }
}

impl PartialOrd for Doubted {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self.doubt, &self.input).partial_cmp(&(other.doubt, &other.input))
    }
}

impl UserDefinedLogicalNodeCore for Doubted {
    fn name(&self) -> &str {
        "Doubted"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        HashSet::new()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Doubted")
    }

    fn with_exprs_and_inputs(&self, _exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        match <[_; 1]>::try_from(inputs) {
            Ok([input]) => Self::new(self.doubt, input),
            Err(_) => plan_err!("one input"),
        }
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        Some(vec![output_columns.to_vec()])
    }

    fn supports_limit_pushdown(&self) -> bool {
        true
    }
}

/// Plans the node as its input.
pub(crate) struct AsInput;

#[async_trait]
impl ExtensionPlanner for AsInput {
    async fn plan_extension(
        &self,
        _planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _logical: &[&LogicalPlan],
        physical: &[Arc<dyn ExecutionPlan>],
        _session: &dyn Session,
        _context: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        Ok(physical.first().filter(|_| node.as_any().is::<Doubted>()).cloned())
    }
}
