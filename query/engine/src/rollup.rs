//! `readings_1m` and `readings_1h`: readings summed up per minute and hour, computed from the rows a warrant of
//! that resolution allows. A grant of one minute never gives a raw row: the raw table under the sum has no name
//! SQL could use, and only the summed columns leave it.

use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::common::{Result, ScalarValue};
use datafusion::datasource::{ViewTable, provider_as_source};
use datafusion::functions::datetime::date_bin;
use datafusion::functions_aggregate::expr_fn::{avg, count, max, min};
use datafusion::logical_expr::{LogicalPlanBuilder, col, lit};
use schemas_consent::Resolution;

/// Nanoseconds in a minute.
const MINUTE_NS: i64 = 60_000_000_000;

/// The guarded readings at a resolution: themselves, or their sums.
pub(crate) fn at(resolution: Resolution, readings: Arc<dyn TableProvider>) -> Result<Arc<dyn TableProvider>> {
    let stride = match resolution {
        Resolution::Raw => return Ok(readings),
        Resolution::Minute => MINUTE_NS,
        Resolution::Hour | Resolution::Aggregate => 60 * MINUTE_NS,
    };
    let stride = ScalarValue::new_interval_mdn(0, 0, stride);
    let bucket = date_bin().call(vec![lit(stride), col("ts")]).alias("bucket");
    let keys = vec![col("subject"), col("device"), col("signal"), bucket];
    let value = || col("value");
    let sums = vec![
        count(value()).alias("n"),
        min(value()).alias("min"),
        max(value()).alias("max"),
        avg(value()).alias("mean"),
    ];
    let plan = LogicalPlanBuilder::scan("readings", provider_as_source(readings), None)?
        .aggregate(keys, sums)?
        .project(["subject", "device", "signal", "bucket", "n", "min", "max", "mean"].map(col))?
        .build()?;
    Ok(Arc::new(ViewTable::new(plan, None)))
}
