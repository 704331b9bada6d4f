//! Scalar sub-queries may be empty. A sub-query for one value that finds no row is NULL, whatever its column is;
//! DataFusion 55 takes its column's word, and answers `(SELECT seq FROM readings WHERE false) IS NULL` with false. Here
//! such a sub-query's column may be NULL. Correlated ones become joins, which know it.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, DFSchemaRef, Result, plan_err};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{Expr, Extension, LogicalPlan, UserDefinedLogicalNodeCore};
use datafusion::optimizer::AnalyzerRule;

/// Marks them.
#[derive(Debug)]
pub(crate) struct MayBeEmpty;

impl AnalyzerRule for MayBeEmpty {
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
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

fn marked(expr: Expr) -> Result<Transformed<Expr>> {
    match expr {
        Expr::ScalarSubquery(mut query)
            if query.outer_ref_columns.is_empty()
                && query.subquery.schema().fields().iter().any(|field| !field.is_nullable()) =>
        {
            let plan = MayBeNull::new(Arc::unwrap_or_clone(query.subquery))?;
            query.subquery = Arc::new(LogicalPlan::Extension(Extension { node: Arc::new(plan) }));
            Ok(Transformed::yes(Expr::ScalarSubquery(query)))
        }
        other => Ok(Transformed::no(other)),
    }
}

/// Its input, whose columns may be NULL.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct MayBeNull {
    input: LogicalPlan,
    schema: DFSchemaRef,
}

impl MayBeNull {
    fn new(input: LogicalPlan) -> Result<MayBeNull> {
        let known = input.schema();
        let nullable = |(table, field): (Option<&_>, &Arc<arrow::datatypes::Field>)| {
            (table.cloned(), Arc::new(field.as_ref().clone().with_nullable(true)))
        };
        let fields = known.iter().map(nullable).collect();
        let schema = Arc::new(DFSchema::new_with_metadata(fields, known.metadata().clone())?);
        Ok(Self { input, schema })
    }
}

impl PartialOrd for MayBeNull {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.input.partial_cmp(&other.input)
    }
}

impl UserDefinedLogicalNodeCore for MayBeNull {
    fn name(&self) -> &str {
        "MayBeNull"
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

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MayBeNull")
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
}
