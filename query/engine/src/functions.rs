//! The functions SQL may call: a closed list, by name. Whatever is not here does not exist for the planner.
//! Left out on purpose: everything that names files, versions or metadata; everything whose result can be
//! longer than its input (texts and arrays built in nested queries grow without any memory account);
//! everything that gives another answer each time (results must be reproducible).

use std::sync::Arc;

use datafusion::execution::SessionStateDefaults;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::logical_expr::planner::ExprPlanner;
use datafusion::logical_expr::{AggregateUDF, ScalarUDF, WindowUDF};

/// Scalar functions: choice and nulls, time, numbers, and texts never longer than what goes in.
const SCALAR: &str = "\
    coalesce greatest least nullif nvl nvl2 current_date date_bin date_part date_trunc from_unixtime \
    make_date now to_date to_timestamp to_timestamp_micros to_timestamp_millis to_timestamp_nanos \
    to_timestamp_seconds to_unixtime abs acos acosh asin asinh atan atan2 atanh cbrt ceil cos cosh cot \
    degrees exp factorial floor gcd isnan iszero lcm ln log log10 log2 nanvl pi power radians round signum \
    sin sinh sqrt tan tanh trunc ascii bit_length btrim character_length contains ends_with left lower ltrim \
    octet_length regexp_count regexp_like reverse right rtrim split_part starts_with strpos substr substring \
    upper";

/// Aggregate functions.
const AGGREGATE: &str = "\
    any_value approx_distinct approx_median approx_percentile_cont avg bit_and bit_or bit_xor bool_and \
    bool_or corr count covar_pop covar_samp covar first_value grouping last_value max median min nth_value \
    percentile_cont regr_avgx regr_avgy regr_count regr_intercept regr_r2 regr_slope regr_sxx regr_sxy \
    regr_syy stddev stddev_pop sum var var_pop var_samp";

/// Window functions.
const WINDOW: &str = "\
    cume_dist dense_rank first_value lag last_value lead nth_value ntile percent_rank rank row_number";

/// How the syntax `EXTRACT`, `SUBSTRING`, `count(*)` and the like becomes a function call. The planners of arrays,
/// maps and field access are not among them: they make calls without asking for the function's name.
fn planners() -> Vec<Arc<dyn ExprPlanner>> {
    vec![
        Arc::new(datafusion::functions::core::planner::CoreFunctionPlanner::default()),
        Arc::new(datafusion::functions::datetime::planner::DatetimeFunctionPlanner),
        Arc::new(datafusion::functions::unicode::planner::UnicodeFunctionPlanner),
        Arc::new(datafusion::functions_aggregate::planner::AggregateFunctionPlanner),
        Arc::new(datafusion::functions_window::planner::WindowFunctionPlanner),
    ]
}

/// The listed functions out of the engine's defaults; made once, shared by every session.
#[derive(Clone)]
pub(crate) struct Functions {
    scalar: Vec<Arc<ScalarUDF>>,
    aggregate: Vec<Arc<AggregateUDF>>,
    window: Vec<Arc<WindowUDF>>,
}

impl Functions {
    /// Picks the listed functions. A listed name the engine does not have is simply not there.
    pub(crate) fn allowed() -> Self {
        Self {
            scalar: SessionStateDefaults::default_scalar_functions()
                .into_iter()
                .filter(|function| listed(SCALAR, function.name()))
                .collect(),
            aggregate: SessionStateDefaults::default_aggregate_functions()
                .into_iter()
                .filter(|function| listed(AGGREGATE, function.name()))
                .collect(),
            window: SessionStateDefaults::default_window_functions()
                .into_iter()
                .filter(|function| listed(WINDOW, function.name()))
                .collect(),
        }
    }

    /// Hands them, and nothing else, to a session under construction.
    pub(crate) fn install(&self, builder: SessionStateBuilder) -> SessionStateBuilder {
        builder
            .with_scalar_functions(self.scalar.clone())
            .with_aggregate_functions(self.aggregate.clone())
            .with_window_functions(self.window.clone())
            .with_expr_planners(planners())
    }
}

fn listed(names: &str, name: &str) -> bool {
    names.split_ascii_whitespace().any(|listed| listed == name)
}
