//! Sub-queries as relations, without what the planner believes to know of their keys.
//!
//! A grouping's key determines its other columns, and the planner uses that: to leave keys out of ORDER BY and GROUP
//! BY, and DISTINCT out of a plan. Where a grouping is joined and grouped again, DataFusion 55 claims of the old key
//! that it determines all columns of the new grouping, and leaves out what is needed: rows come in no order, LIMIT
//! takes the wrong ones, groups are merged and DISTINCT repeats itself (`tests/dependencies.rs` has one of each; found
//! by comparing random statements). The claim is made in the schemas of plans, so it is taken from them where a
//! sub-query becomes a relation; within one SELECT it is right.
//!
//! The price: a column that a sub-query's key determines is not grouped by of itself. It has to be named.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use datafusion::common::Result;
use datafusion::logical_expr::planner::{
    PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning,
};
use datafusion::sql::sqlparser::ast::{TableAlias, TableFactor};

use crate::claims::{Doubt, without};

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
        if self.is_asking.swap(false, Ordering::Relaxed) {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        }
        let (relation, alias) = match without_alias(relation) {
            Ok(parts) => parts,
            Err(other) => return Ok(RelationPlanning::Original(other)),
        };
        self.is_asking.store(true, Ordering::Relaxed);
        let planned = context.plan(relation);
        self.is_asking.store(false, Ordering::Relaxed);
        let plan = without(Doubt::Keys, planned?)?;
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
