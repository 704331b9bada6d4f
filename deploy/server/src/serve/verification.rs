//! Counters of signature verification for `/metrics`, read when asked for; and the start of the verifiers.

use ingest_verify::hashes::SideBySide;
use ingest_verify::{Selection, Stats};
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntGauge, IntGaugeVec, Opts};
use schemas_frame::Verifier;

use crate::config::IntakeConfig;

/// Starts one verifier for each thread that checks; they share the bytes for keys' tables.
pub(crate) fn start(
    config: &IntakeConfig,
    metrics: &prometheus::Registry,
) -> anyhow::Result<Vec<Box<dyn Verifier>>> {
    let choice = std::env::var(ingest_verify::VARIABLE).ok();
    let count = threads(config.verify_threads)?;
    let table_bytes_max = usize::try_from(config.verify_table_bytes_max)? / count;
    let options = ingest_verify::Options { table_bytes_max, ..ingest_verify::Options::default() };
    let (mut verifiers, mut selections) = (Vec::with_capacity(count), Vec::with_capacity(count));
    for _ in 0..count {
        let (verifier, selection) = ingest_verify::select(choice.as_deref(), options);
        verifiers.push(verifier);
        selections.push(selection);
    }
    if let Some(first) = selections.first() {
        if !first.failed.is_empty() {
            tracing::error!(failed = ?first.failed, "backends failed their self-test: this machine computes wrongly");
        }
        let hashing = if SideBySide::uses_lanes() { "eight at a time" } else { "one by one" };
        tracing::info!(
            backend = first.backend,
            why = first.why,
            hashing,
            threads = count,
            "signature verification"
        );
    }
    metrics.register(Box::new(VerifyMetrics::new(selections)?))?;
    Ok(verifiers)
}

/// 0 stands for half of the cores: the others receive, write and seal.
fn threads(configured: u64) -> anyhow::Result<usize> {
    match usize::try_from(configured)? {
        0 => Ok((std::thread::available_parallelism().map_or(1, usize::from) / 2).max(1)),
        count => Ok(count),
    }
}

/// Reads one of the counters.
type Read = fn(&Stats) -> u64;

/// What of the counters is shown, under which label.
const SHOWN: [(&str, Read); 10] = [
    ("checked", |stats| stats.checked),
    ("without_table", |stats| stats.without_table),
    ("sampled", |stats| stats.sampled),
    ("rechecked", |stats| stats.rechecked),
    ("skipped", |stats| stats.skipped),
    ("disagreements", |stats| stats.disagreements),
    ("tables_small", |stats| stats.tables.small),
    ("tables_large", |stats| stats.tables.large),
    ("tables_hot", |stats| stats.tables.hot),
    ("tables_evicted", |stats| stats.tables.evicted),
];

/// `vitalog_verify{what}`, `vitalog_verify_table_bytes` and `vitalog_verify_fallen_back`.
pub(crate) struct VerifyMetrics {
    selections: Vec<Selection>,
    counts: IntGaugeVec,
    table_bytes: IntGauge,
    fallen_back: IntGauge,
}

impl VerifyMetrics {
    pub(crate) fn new(selections: Vec<Selection>) -> prometheus::Result<VerifyMetrics> {
        let about = "Signature verification since start; disagreements must be 0";
        Ok(VerifyMetrics {
            selections,
            counts: IntGaugeVec::new(Opts::new("vitalog_verify", about), &["what"])?,
            table_bytes: IntGauge::new("vitalog_verify_table_bytes", "Bytes of keys' tables")?,
            fallen_back: IntGauge::new(
                "vitalog_verify_fallen_back",
                "1 if a backend failed its self-test or was caught wrong, or the readable reference alone verifies",
            )?,
        })
    }
}

impl Collector for VerifyMetrics {
    fn desc(&self) -> Vec<&Desc> {
        [self.counts.desc(), self.table_bytes.desc(), self.fallen_back.desc()].concat()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let watched = self.selections.iter().filter_map(|selection| selection.watched.as_ref());
        let stats: Vec<Stats> = watched.map(ingest_verify::Watched::stats).collect();
        let total = |read: &dyn Fn(&Stats) -> u64| {
            i64::try_from(stats.iter().map(read).sum::<u64>()).unwrap_or(i64::MAX)
        };
        for (what, read) in SHOWN {
            self.counts.with_label_values(&[what]).set(total(&read));
        }
        self.table_bytes.set(total(&|stats| stats.tables.bytes));
        let is_degraded = |selection: &Selection| selection.watched.is_none() || !selection.failed.is_empty();
        let has_failed = stats.iter().any(|stats| stats.has_fallen_back);
        self.fallen_back.set(i64::from(has_failed || self.selections.iter().any(is_degraded)));
        [self.counts.collect(), self.table_bytes.collect(), self.fallen_back.collect()].concat()
    }
}
