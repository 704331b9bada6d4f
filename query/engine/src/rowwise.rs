//! AND and OR that look at each row for itself. Where the left side decides, the right one is not evaluated: that is
//! how people guard a division, and how the planner writes their CASE out. DataFusion 55 skips the right side only if
//! enough rows of a batch are decided, and evaluates it on all of them else; so whether a query fails depended on which
//! rows share a batch, hidden rows decide that, and a query that fails or not tells of them. Here a right side that can
//! fail is put into a CASE, which evaluates it on the rows that need it and on no other.
//!
//! It is done last: the planner's rules know AND and OR, and not this.

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{BinaryExpr, Case, Cast, Expr, ExprSchemable, LogicalPlan, Operator, lit};

/// The plan with such conditions.
pub(crate) fn row_by_row(plan: LogicalPlan) -> Result<LogicalPlan> {
    let changed = plan.transform_up_with_subqueries(|node| {
        let mut schema = DFSchema::empty();
        for input in node.inputs() {
            schema.merge(input.schema());
        }
        let names = NamePreserver::new(&node);
        node.map_expressions(|expr| {
            let name = names.save(&expr);
            let changed = expr.transform_up(|part| Ok(guarded(part, &schema)))?;
            Ok(if changed.transformed { changed.update_data(|expr| name.restore(expr)) } else { changed })
        })
    })?;
    Ok(changed.data)
}

/// `a AND b`, `a OR b` with a right side that is evaluated only where the left one does not decide.
fn guarded(expr: Expr, schema: &DFSchema) -> Transformed<Expr> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::And | Operator::Or), right })
            if can_fail(&right, schema) =>
        {
            Transformed::yes(case(*left, op, *right))
        }
        other => Transformed::no(other),
    }
}

/// With the right side twice, `CASE a WHEN true THEN b WHEN false THEN false ELSE NULL AND b END`, or with the left
/// one, `CASE WHEN a IS NOT FALSE THEN b ELSE false END AND a`; the shorter of the two, so that a long condition stays
/// one. The same of OR.
fn case(left: Expr, op: Operator, right: Expr) -> Expr {
    let is_and = op == Operator::And;
    let join = |one: Expr, other: Expr| if is_and { one.and(other) } else { one.or(other) };
    let when = |when: Expr, then: Expr| (Box::new(when), Box::new(then));
    if operators(&left) < operators(&right) {
        let decides = if is_and { left.clone().is_not_false() } else { left.clone().is_not_true() };
        let otherwise = Some(Box::new(lit(!is_and)));
        let case = Case { expr: None, when_then_expr: vec![when(decides, right)], else_expr: otherwise };
        return join(Expr::Case(case), left);
    }
    let unknown = Expr::Literal(ScalarValue::Boolean(None), None);
    let needed = when(lit(is_and), right.clone());
    let decided = when(lit(!is_and), lit(!is_and));
    let otherwise = Some(Box::new(join(unknown, right)));
    let expr = Some(Box::new(left));
    Expr::Case(Case { expr, when_then_expr: vec![needed, decided], else_expr: otherwise })
}

fn operators(expr: &Expr) -> usize {
    let mut count = 0;
    // Nothing in it fails, so neither does the walk.
    let _ = expr.apply(|_| {
        count += 1;
        Ok(TreeNodeRecursion::Continue)
    });
    count
}

/// Whether there may be a value on which it fails. What is not known not to, does.
fn can_fail(expr: &Expr, schema: &DFSchema) -> bool {
    let fails = |part: &Expr| {
        Ok(!match part {
            Expr::Column(_)
            | Expr::Literal(..)
            | Expr::Alias(_)
            | Expr::Not(_)
            | Expr::IsNull(_)
            | Expr::IsNotNull(_)
            | Expr::IsTrue(_)
            | Expr::IsFalse(_)
            | Expr::IsUnknown(_)
            | Expr::IsNotTrue(_)
            | Expr::IsNotFalse(_)
            | Expr::IsNotUnknown(_)
            | Expr::Between(_)
            | Expr::InList(_)
            | Expr::Like(_)
            | Expr::TryCast(_)
            | Expr::Case(_) => true,
            Expr::BinaryExpr(BinaryExpr { op, .. }) => {
                matches!(op, Operator::And | Operator::Or) || is_comparison(*op)
            }
            Expr::Cast(cast) => is_widening(cast, schema),
            _ => false,
        })
    };
    expr.exists(fails).unwrap_or(true)
}

fn is_comparison(op: Operator) -> bool {
    matches!(
        op,
        Operator::Eq
            | Operator::NotEq
            | Operator::Lt
            | Operator::LtEq
            | Operator::Gt
            | Operator::GtEq
            | Operator::IsDistinctFrom
            | Operator::IsNotDistinctFrom
    )
}

/// A number as a double: what the planner adds where it compares the two.
fn is_widening(cast: &Cast, schema: &DFSchema) -> bool {
    let from = cast.expr.get_type(schema);
    matches!(cast.field.data_type(), DataType::Float64) && from.is_ok_and(|from| from.is_numeric())
}
