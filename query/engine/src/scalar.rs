//! Scalar sub-queries may be empty. A sub-query for one value that finds no row is NULL, whatever its column is;
//! DataFusion 55 takes its column's word, and answers `(SELECT seq FROM readings WHERE false) IS NULL` with false. Here
//! such a sub-query's column may be NULL. Correlated ones become joins, which know it.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{Expr, LogicalPlan, Subquery};
use datafusion::optimizer::AnalyzerRule;

use crate::claims::{Doubt, without};

/// Marks them.
#[derive(Debug)]
pub(crate) struct MayBeEmpty;

impl AnalyzerRule for MayBeEmpty {
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        if !has_any(&plan)? {
            return Ok(plan);
        }
        let marked = plan.transform_up_with_subqueries(|node| {
            let names = NamePreserver::new(&node);
            let node = node.map_expressions(|expr| {
                let name = names.save(&expr);
                Ok(expr.transform_up(marked)?.update_data(|expr| name.restore(expr)))
            })?;
            // What is above may be NULL then, too.
            node.map_data(LogicalPlan::recompute_schema)
        })?;
        Ok(marked.data)
    }

    fn name(&self) -> &str {
        "scalar_sub_queries_may_be_empty"
    }
}

/// Whether there is anything to mark, in the plan or in a sub-query's.
fn has_any(plan: &LogicalPlan) -> Result<bool> {
    let has = |part: &Expr| Ok(matches!(part, Expr::ScalarSubquery(query) if is_to_mark(query)));
    let mut is_found = false;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            is_found = is_found || expr.exists(has)?;
            Ok(if is_found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
        })
    })?;
    Ok(is_found)
}

fn is_to_mark(query: &Subquery) -> bool {
    let mut fields = query.subquery.schema().fields().iter();
    query.outer_ref_columns.is_empty() && fields.any(|field| !field.is_nullable())
}

fn marked(expr: Expr) -> Result<Transformed<Expr>> {
    match expr {
        Expr::ScalarSubquery(mut query) if is_to_mark(&query) => {
            query.subquery = Arc::new(without(Doubt::NotNull, Arc::unwrap_or_clone(query.subquery))?);
            Ok(Transformed::yes(Expr::ScalarSubquery(query)))
        }
        other => Ok(Transformed::no(other)),
    }
}
