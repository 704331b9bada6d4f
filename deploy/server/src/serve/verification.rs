//! Counters of signature verification for `/metrics`, read when asked for. It verifies nothing.

use ingest_verify::{Selection, Stats};
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntGauge, IntGaugeVec, Opts};

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
    selection: Selection,
    counts: IntGaugeVec,
    table_bytes: IntGauge,
    fallen_back: IntGauge,
}

impl VerifyMetrics {
    pub(crate) fn new(selection: Selection) -> prometheus::Result<VerifyMetrics> {
        let about = "Signature verification since start; disagreements must be 0";
        Ok(VerifyMetrics {
            selection,
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
        let stats = self.selection.watched.as_ref().map(ingest_verify::Watched::stats).unwrap_or_default();
        let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        for (what, read) in SHOWN {
            self.counts.with_label_values(&[what]).set(gauge(read(&stats)));
        }
        self.table_bytes.set(gauge(stats.tables.bytes));
        let has_failed = !self.selection.failed.is_empty() || stats.has_fallen_back;
        self.fallen_back.set(i64::from(self.selection.watched.is_none() || has_failed));
        [self.counts.collect(), self.table_bytes.collect(), self.fallen_back.collect()].concat()
    }
}
