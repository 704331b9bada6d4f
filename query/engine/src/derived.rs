//! Sub-queries as relations, without what the planner believes to know of their keys.
//!
//! A grouping's key determines its other columns, and the planner uses that: to leave keys out of ORDER BY and GROUP
//! BY, and DISTINCT out of a plan. Where a grouping is joined and grouped again, DataFusion 55 claims of the old key
//! that it determines all columns of the new grouping, and leaves out what is needed: rows come in no order, LIMIT
//! takes the wrong ones, groups are merged and DISTINCT repeats itself (`tests/dependencies.rs` has one of each; found
//! by comparing random statements). The claim is made in the schemas of plans, so it is taken from them where a
//! sub-query becomes a relation; within one SELECT it is right. Filters, columns and limits pass as before, and nothing
//! of this is left in the plan that runs.
//!
//! The price: a column that a sub-query's key determines is not grouped by of itself. It has to be named.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering as Memory};

use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::{DFSchema, DFSchemaRef, Result, plan_err};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::planner::{
    PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning,
};
use datafusion::logical_expr::{
    Expr, Extension, LogicalPlan, UserDefinedLogicalNode, UserDefinedLogicalNodeCore,
};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_planner::{ExtensionPlanner, PhysicalPlanner};
use datafusion::sql::sqlparser::ast::{TableAlias, TableFactor};

use crate::scalar::MayBeNull;

/// What plans the relations of one request, for [`crate::planner`].
pub(crate) fn relations() -> Vec<Arc<dyn RelationPlanner>> {
    vec![Arc::new(Relations::default())]
}

/// Plans tables and sub-queries in FROM, of one request.
#[derive(Debug, Default)]
struct Relations {
    /// Whether the next call is our own, for the planner's plan of the same relation.
    is_asking: AtomicBool,
}

impl RelationPlanner for Relations {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning> {
        if self.is_asking.swap(false, Memory::Relaxed) {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        }
        let (relation, alias) = match without_alias(relation) {
            Ok(parts) => parts,
            Err(other) => return Ok(RelationPlanning::Original(other)),
        };
        self.is_asking.store(true, Memory::Relaxed);
        let planned = context.plan(relation);
        self.is_asking.store(false, Memory::Relaxed);
        let plan = KeyIsForgotten::of(planned?)?;
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))))
    }
}

/// A table (a common one is a sub-query, too) or a sub-query; else the relation as it came.
fn without_alias(relation: TableFactor) -> Result<(TableFactor, Option<TableAlias>), Box<TableFactor>> {
    let mut relation = relation;
    let alias = match &mut relation {
        TableFactor::Table { alias, .. } | TableFactor::Derived { alias, .. } => alias.take(),
        _ => return Err(Box::new(relation)),
    };
    Ok((relation, alias))
}

/// Its input, of whose keys nothing is said.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct KeyIsForgotten {
    input: LogicalPlan,
    schema: DFSchemaRef,
}

impl KeyIsForgotten {
    fn of(plan: LogicalPlan) -> Result<LogicalPlan> {
        if plan.schema().functional_dependencies().is_empty() {
            return Ok(plan);
        }
        Ok(LogicalPlan::Extension(Extension { node: Arc::new(Self::new(plan)?) }))
    }

    fn new(input: LogicalPlan) -> Result<KeyIsForgotten> {
        let known = input.schema();
        let fields = known.iter().map(|(table, field)| (table.cloned(), Arc::clone(field))).collect();
        let schema = Arc::new(DFSchema::new_with_metadata(fields, known.metadata().clone())?);
        Ok(Self { input, schema })
    }
}

impl PartialOrd for KeyIsForgotten {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.input.partial_cmp(&other.input)
    }
}

impl UserDefinedLogicalNodeCore for KeyIsForgotten {
    fn name(&self) -> &str {
        "KeyIsForgotten"
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
        f.write_str("KeyIsForgotten")
    }

    fn with_exprs_and_inputs(&self, _exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        match <[_; 1]>::try_from(inputs) {
            Ok([input]) => Self::new(input),
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

/// Plans [`KeyIsForgotten`] and [`MayBeNull`] as their input.
pub(crate) struct Input;

#[async_trait]
impl ExtensionPlanner for Input {
    async fn plan_extension(
        &self,
        _planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _logical: &[&LogicalPlan],
        physical: &[Arc<dyn ExecutionPlan>],
        _session: &dyn Session,
        _context: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let is_ours = node.as_any().is::<KeyIsForgotten>() || node.as_any().is::<MayBeNull>();
        Ok(physical.first().filter(|_| is_ours).cloned())
    }
}
