//! The planner's rules, without what DataFusion 55 does wrongly with them. Each was found by a random statement
//! (`LOG.md` beside the random statements) that a planner without rules answers otherwise.
//!
//! - Conditions above an aggregate that answers even nothing with a row stay above it. `count(*)` without GROUP BY, or
//!   a grouping set without columns, gives one row where none comes in. A condition that names no column (a constant, a
//!   scalar sub-query) was taken below it all the same, where it empties the input and not the answer: a row that WHERE
//!   excludes came back (seed 7,480). The physical rule for the same knows better.
//! - Where two columns of a window are found to be the same function, it is worked out twice: to do it once, a rule
//!   made a window of a function and a column, which others hold for impossible (one panicked, seed 217,267).
//! - Keys that read alike (`GROUP BY x, CAST(x AS DOUBLE)`: a cast has no name of its own) are left as they are. To
//!   leave the redundant one out, or to group twice for one DISTINCT, rules made columns of one name, and failed (seeds
//!   507,538 and 749,904); to work a thing out once above such a grouping, one lost a key (seed 445,746).
//! - Not used at all: what answers from statistics (of constants it mistook one column for another, seed 513,205; the
//!   guarded tables have none), what moves conditions of the plan that runs (by the names of columns, to the wrong one
//!   where both sides of a join have it, seed 95,925; they are where they should be by then, and a scan takes none),
//!   and what keeps only some groups for a LIMIT (it lost groups without a value, and others, seed 74,009).
//! - Below a merge of sorted parts, each part is sorted by all that the merge goes by. A key that is constant in each
//!   part was left out there, though parts differ in it, and with a LIMIT parts drop rows by what others have seen: the
//!   first row of all was lost (seed 775,275). Parts that are in no such order, for which the plan was refused, are
//!   sorted, too (seed 839,564).
//! - What moves columns may fail, or make a plan that is then refused for an order it lost (seeds 575,976 and 299,838):
//!   then they stay where they are.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DataFusionError, Result};
use datafusion::config::ConfigOptions;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::logical_expr::{Aggregate, Expr, GroupingSet, LogicalPlan};
use datafusion::optimizer::{ApplyOrder, Optimizer, OptimizerConfig, OptimizerRule};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::physical_optimizer::sanity_checker::SanityCheckPlan;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};

/// A rule that is left out, to find the one that makes an answer wrong. By every engine of the process: only a test
/// that has failed already sets it.
#[cfg(test)]
pub(crate) static LEFT_OUT: parking_lot::Mutex<String> = parking_lot::Mutex::new(String::new());

type Rule = Arc<dyn OptimizerRule + Send + Sync>;
type PhysicalRule = Arc<dyn PhysicalOptimizerRule + Send + Sync>;

/// Rules that are not for every plan: name, and which plans it leaves as they are.
const BOUNDED: &[(&str, Refuses)] = &[
    ("push_down_filter", is_above_a_row_of_none),
    ("eliminate_group_by_constant", has_keys_that_read_alike),
    ("single_distinct_aggregation_to_group_by", has_keys_that_read_alike),
    ("common_sub_expression_eliminate", has_what_cannot_be_shared),
];
/// Physical rules that are not used at all.
const UNUSED: &[&str] =
    &["aggregate_statistics", "FilterPushdown", "FilterPushdown(Post)", "LimitAggregation"];
/// The physical rule that sorts.
const SORTS: &str = "EnsureRequirements";
/// Physical rules without which a plan runs, too, if they fail.
const DISPENSABLE: &[&str] = &["ProjectionPushdown"];

type Refuses = fn(&LogicalPlan) -> bool;

/// Plans with these rules.
pub(crate) fn install(builder: SessionStateBuilder, deadline: Instant) -> SessionStateBuilder {
    builder.with_optimizer_rules(logical(deadline)).with_physical_optimizer_rules(physical())
}

/// All rules there are to leave out.
#[cfg(test)]
pub(crate) fn names() -> Vec<String> {
    let (logical, physical) = (logical(Instant::now()), physical());
    let names = logical.iter().map(|rule| rule.name()).chain(physical.iter().map(|rule| rule.name()));
    names.map(str::to_owned).collect()
}

fn logical(deadline: Instant) -> Vec<Rule> {
    let mut rules = Optimizer::new().rules;
    #[cfg(test)]
    rules.retain(|rule| rule.name() != *LEFT_OUT.lock());
    for rule in &mut rules {
        let bound = BOUNDED.iter().find(|(name, _)| *name == rule.name());
        let refuses = bound.map(|(_, refuses)| *refuses);
        *rule = Arc::new(Bounded { rule: Arc::clone(rule), refuses, deadline });
    }
    rules
}

fn physical() -> Vec<PhysicalRule> {
    let mut rules = PhysicalOptimizer::new().rules;
    rules.retain(|rule| !UNUSED.contains(&rule.name()));
    for rule in &mut rules {
        if DISPENSABLE.contains(&rule.name()) {
            *rule = Arc::new(IfItCan(Arc::clone(rule)));
        }
    }
    let sorted = rules.iter().position(|rule| rule.name() == SORTS).map_or(rules.len(), |at| at + 1);
    rules.insert(sorted, Arc::new(SortByAll));
    #[cfg(test)]
    rules.retain(|rule| rule.name() != *LEFT_OUT.lock());
    rules
}

/// A rule for all plans but some, as long as there is time: nothing else stops the logical planner. The physical rules
/// come once each, on what that left, and are not bounded.
#[derive(Debug)]
struct Bounded {
    rule: Rule,
    refuses: Option<Refuses>,
    deadline: Instant,
}

impl OptimizerRule for Bounded {
    fn name(&self) -> &str {
        self.rule.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.rule.apply_order()
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        if Instant::now() > self.deadline {
            return Err(DataFusionError::ResourcesExhausted("no time left to plan".to_owned()));
        }
        match self.refuses {
            Some(refuses) if refuses(&plan) => Ok(Transformed::no(plan)),
            _ => self.rule.rewrite(plan, config),
        }
    }
}

/// A rule that leaves a plan as it was if it fails, or makes one that would not be run.
#[derive(Debug)]
struct IfItCan(PhysicalRule);

impl PhysicalOptimizerRule for IfItCan {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match self.0.optimize(Arc::clone(&plan), config) {
            Ok(changed) if is_sane(&changed, config) || !is_sane(&plan, config) => return Ok(changed),
            Ok(_) => tracing::debug!(rule = self.name(), "a plan that would be refused: it stays as it was"),
            Err(error) => tracing::debug!(rule = self.name(), %error, "a plan stays as it was"),
        }
        Ok(plan)
    }

    fn name(&self) -> &str {
        self.0.name()
    }

    fn schema_check(&self) -> bool {
        self.0.schema_check()
    }
}

/// Sorts below a merge by all that the merge goes by.
#[derive(Debug)]
pub(crate) struct SortByAll;

impl PhysicalOptimizerRule for SortByAll {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(plan.transform_up(sorted_by_all)?.data)
    }

    fn name(&self) -> &str {
        "sort_by_all"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

fn sorted_by_all(plan: Arc<dyn ExecutionPlan>) -> Result<Transformed<Arc<dyn ExecutionPlan>>> {
    let Some(merge) = plan.downcast_ref::<SortPreservingMergeExec>() else {
        return Ok(Transformed::no(plan));
    };
    let by = merge.expr();
    let (input, fetch) = match merge.input().downcast_ref::<SortExec>() {
        Some(sort) if sort.expr() == by => return Ok(Transformed::no(plan)),
        Some(sort) => (sort.input(), sort.fetch()),
        None if merge.input().equivalence_properties().ordering_satisfy(by.iter().cloned())? => {
            return Ok(Transformed::no(plan));
        }
        None => (merge.input(), merge.fetch()),
    };
    let sort =
        SortExec::new(by.clone(), Arc::clone(input)).with_fetch(fetch).with_preserve_partitioning(true);
    let merged = SortPreservingMergeExec::new(by.clone(), Arc::new(sort)).with_fetch(merge.fetch());
    Ok(Transformed::yes(Arc::new(merged)))
}

/// Whether each operator gets its rows in the order and distribution that it relies on.
fn is_sane(plan: &Arc<dyn ExecutionPlan>, config: &ConfigOptions) -> bool {
    SanityCheckPlan::new().optimize(Arc::clone(plan), config).is_ok()
}

/// Whether it is a condition, or several, above an aggregate that answers an empty input with a row.
fn is_above_a_row_of_none(plan: &LogicalPlan) -> bool {
    let mut below = plan;
    while let LogicalPlan::Filter(filter) = below {
        below = &filter.input;
    }
    matches!(below, LogicalPlan::Aggregate(aggregate) if gives_a_row_of_none(aggregate))
}

/// All of the input is one group, or one of its grouping sets is.
pub(crate) fn gives_a_row_of_none(aggregate: &Aggregate) -> bool {
    aggregate.group_expr.is_empty()
        || aggregate.group_expr.iter().any(|key| match key {
            Expr::GroupingSet(GroupingSet::Rollup(_) | GroupingSet::Cube(_)) => true,
            Expr::GroupingSet(GroupingSet::GroupingSets(sets)) => sets.iter().any(Vec::is_empty),
            _ => false,
        })
}

/// Whether two keys or values of a grouping have one name.
fn has_keys_that_read_alike(plan: &LogicalPlan) -> bool {
    let LogicalPlan::Aggregate(aggregate) = plan else { return false };
    let mut names = HashSet::new();
    let mut all = aggregate.group_expr.iter().chain(&aggregate.aggr_expr);
    !all.all(|expr| names.insert(expr.schema_name().to_string()))
}

/// Whether a window in it has two columns that are the same but for their names, or a grouping two keys of one name.
fn has_what_cannot_be_shared(plan: &LogicalPlan) -> bool {
    plan.exists(|node| Ok(is_a_function_twice(node) || has_keys_that_read_alike(node))).unwrap_or(true)
}

fn is_a_function_twice(plan: &LogicalPlan) -> bool {
    let LogicalPlan::Window(window) = plan else { return false };
    let mut functions = HashSet::new();
    !window.window_expr.iter().all(|column| functions.insert(column.clone().unalias()))
}

#[cfg(test)]
mod tests {
    use datafusion::logical_expr::LogicalPlanBuilder;
    use datafusion::optimizer::OptimizerContext;

    use super::*;

    /// Guarantee: the rules that are bounded or left out are there by these names, each once, and all others stay in their
    /// places; a newer DataFusion that renames one fails here.
    #[test]
    fn the_rules_are_those_of_datafusion_but_for_what_is_said() {
        let known: Vec<String> = Optimizer::new().rules.iter().map(|rule| rule.name().to_owned()).collect();
        let ours = logical(Instant::now());
        assert_eq!(known, ours.iter().map(|rule| rule.name()).collect::<Vec<_>>());
        let bounded = ours.iter().filter(|rule| format!("{rule:?}").contains("refuses: Some")).count();
        assert_eq!(bounded, BOUNDED.len());
        let known = PhysicalOptimizer::new().rules;
        let mut known: Vec<&str> = known.iter().map(|rule| rule.name()).collect();
        assert!(UNUSED.iter().chain(DISPENSABLE).all(|name| known.contains(name)));
        known.retain(|name| !UNUSED.contains(name));
        let ours = physical();
        let mut names: Vec<&str> = ours.iter().map(|rule| rule.name()).collect();
        let added = names.iter().position(|name| *name == SortByAll.name()).unwrap();
        names.remove(added);
        assert_eq!((known[added - 1], &known), (SORTS, &names));
        let dispensable = ours.iter().filter(|rule| format!("{rule:?}").starts_with("IfItCan")).count();
        assert_eq!(dispensable, known.iter().filter(|name| DISPENSABLE.contains(name)).count());
    }

    /// Guarantee: no rule begins anything when the time to plan is over.
    #[test]
    fn planning_ends_in_time() {
        let plan = || LogicalPlanBuilder::empty(false).build().unwrap();
        let context = OptimizerContext::new();
        let soon = Instant::now() + std::time::Duration::from_secs(3_600);
        for rule in logical(Instant::now() - std::time::Duration::from_millis(1)) {
            let late = rule.rewrite(plan(), &context);
            assert!(matches!(late, Err(DataFusionError::ResourcesExhausted(_))), "{}", rule.name());
        }
        let timely = logical(soon).into_iter().filter(|rule| rule.apply_order().is_some());
        assert!(timely.map(|rule| rule.rewrite(plan(), &context)).all(|done| done.is_ok()));
    }
}
