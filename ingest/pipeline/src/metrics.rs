//! What the pipeline counts. Labels are verdict codes only: nothing that grows with devices or people.

use std::time::Duration;

use ingest_lake::Compacted;
use prometheus::core::Collector;
use prometheus::local::LocalHistogram;
use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};
use schemas_frame::Code;

use crate::admission_metrics::AdmissionMetrics;

/// Counters of the pipeline; cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    verdicts: IntCounterVec,
    readings: IntCounter,
    groups: IntCounter,
    decide_seconds: Histogram,
    durable_seconds: Histogram,
    sealed_age_seconds: Histogram,
    seal_seconds: Histogram,
    batches: IntCounter,
    seal_failures: IntCounter,
    wal_bytes: IntGauge,
    compactions: IntCounter,
    compaction_failures: IntCounter,
    compacted_files: IntCounter,
    compacted_bytes_in: IntCounter,
    compacted_bytes_out: IntCounter,
    compact_seconds: Histogram,
    tail_frames: IntGauge,
    tail_bytes: IntGauge,
    pub(crate) admission: AdmissionMetrics,
}

/// Answers of a group, counted apart so that thousands of frames cost each shared counter one addition.
pub(crate) struct Answers {
    codes: [u64; Code::ALL.len()],
    durable_seconds: LocalHistogram,
}

impl Answers {
    pub(crate) fn verdict(&mut self, code: Code) {
        if let Some(count) = self.codes.get_mut(code as usize) {
            *count += 1;
        }
    }

    /// An answer was given so long after its frames were offered.
    pub(crate) fn durable(&self, took: Duration) {
        self.durable_seconds.observe(took.as_secs_f64());
    }
}

fn buckets() -> Vec<f64> {
    vec![0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0]
}

fn enlist<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> prometheus::Result<C> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

impl Metrics {
    /// Registers everything.
    pub fn register(registry: &Registry) -> Result<Metrics, prometheus::Error> {
        let counter = |name: &str, help: &str| enlist(registry, IntCounter::new(name, help)?);
        let gauge = |name: &str, help: &str| enlist(registry, IntGauge::new(name, help)?);
        let histogram = |name: &str, help: &str| {
            enlist(registry, Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets()))?)
        };
        let verdicts = Opts::new("vitalog_pipeline_verdicts_total", "Frames by verdict code.");
        let metrics = Metrics {
            verdicts: enlist(registry, IntCounterVec::new(verdicts, &["code"])?)?,
            readings: counter("vitalog_pipeline_readings_total", "Samples in frames that were kept.")?,
            groups: counter("vitalog_pipeline_groups_total", "Groups of frames made durable with one sync.")?,
            decide_seconds: histogram(
                "vitalog_pipeline_decide_seconds",
                "From taking a group to answering it.",
            )?,
            durable_seconds: histogram(
                "vitalog_pipeline_durable_seconds",
                "From a door's offer to the answer: verified, durable, and visible to queries.",
            )?,
            sealed_age_seconds: histogram(
                "vitalog_pipeline_sealed_age_seconds",
                "Age of a batch's oldest frame when the batch is in the log.",
            )?,
            seal_seconds: histogram("vitalog_pipeline_seal_seconds", "Writing and committing one batch.")?,
            batches: counter("vitalog_pipeline_batches_total", "Batches committed to the log.")?,
            seal_failures: counter(
                "vitalog_pipeline_seal_failures_total",
                "Seals that failed and were repeated.",
            )?,
            compactions: counter(
                "vitalog_pipeline_compactions_total",
                "Sets of batches committed to the log.",
            )?,
            compaction_failures: counter(
                "vitalog_pipeline_compaction_failures_total",
                "Compactions that failed and were repeated.",
            )?,
            compacted_files: counter(
                "vitalog_pipeline_compacted_files_total",
                "Files whose place a set has taken.",
            )?,
            compacted_bytes_in: counter(
                "vitalog_pipeline_compacted_in_bytes_total",
                "Bytes of files whose place a set has taken.",
            )?,
            compacted_bytes_out: counter(
                "vitalog_pipeline_compacted_out_bytes_total",
                "Bytes of files of sets.",
            )?,
            compact_seconds: histogram(
                "vitalog_pipeline_compact_seconds",
                "Writing, checking and committing one set, its rests included.",
            )?,
            wal_bytes: gauge("vitalog_pipeline_wal_bytes", "Bytes of write-ahead log segments in use.")?,
            tail_frames: gauge("vitalog_pipeline_tail_frames", "Frames that wait for the next batch.")?,
            tail_bytes: gauge(
                "vitalog_pipeline_tail_bytes",
                "Bytes of frames that wait for the next batch.",
            )?,
            admission: AdmissionMetrics::register(registry)?,
        };
        // Every code is there from the start, so that a first refusal is seen as a change.
        for code in Code::ALL {
            metrics.verdicts.with_label_values(&[code.as_str()]).inc_by(0);
        }
        Ok(metrics)
    }

    /// Begins to count the answers of a group.
    pub(crate) fn answers(&self) -> Answers {
        Answers { codes: [0; Code::ALL.len()], durable_seconds: self.durable_seconds.local() }
    }

    /// Adds what was counted.
    pub(crate) fn answered(&self, answers: &Answers) {
        for (code, count) in Code::ALL.into_iter().zip(answers.codes).filter(|(_, count)| *count > 0) {
            self.verdicts.with_label_values(&[code.as_str()]).inc_by(count);
        }
        answers.durable_seconds.flush();
    }

    pub(crate) fn group(&self, readings: u64, took: Duration, wal_bytes: u64) {
        self.groups.inc();
        self.readings.inc_by(readings);
        self.decide_seconds.observe(took.as_secs_f64());
        self.wal_bytes.set(i64::try_from(wal_bytes).unwrap_or(i64::MAX));
    }

    pub(crate) fn tail(&self, frames: u64, bytes: u64) {
        self.tail_frames.set(i64::try_from(frames).unwrap_or(i64::MAX));
        self.tail_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// A batch is in the log; its oldest frame arrived so long ago.
    pub(crate) fn sealed_age(&self, age: Duration) {
        self.sealed_age_seconds.observe(age.as_secs_f64());
    }

    pub(crate) fn sealed(&self, took: Duration) {
        self.batches.inc();
        self.seal_seconds.observe(took.as_secs_f64());
    }

    pub(crate) fn compacted(&self, compacted: &Compacted, took: Duration) {
        self.compactions.inc();
        self.compacted_files.inc_by(compacted.files_in);
        self.compacted_bytes_in.inc_by(compacted.bytes_in);
        self.compacted_bytes_out.inc_by(compacted.bytes_out);
        self.compact_seconds.observe(took.as_secs_f64());
    }

    pub(crate) fn compaction_failed(&self) {
        self.compaction_failures.inc();
    }

    #[cfg(test)]
    pub(crate) fn compactions(&self) -> u64 {
        self.compactions.get()
    }

    #[cfg(test)]
    pub(crate) fn compaction_failures(&self) -> u64 {
        self.compaction_failures.get()
    }

    pub(crate) fn seal_failed(&self) {
        self.seal_failures.inc();
    }
}
