//! What is counted about gaps, the sequence windows' memory and the quarantine.

use ingest_devices::{GapCounts, Windows};
use ingest_quarantine::{Outcome, Quarantine, Reason};
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

/// Cheap to clone. Labels are reasons only: nothing that grows with devices or people.
#[derive(Debug, Clone)]
pub(crate) struct AdmissionMetrics {
    gaps: IntCounterVec,
    windows_bytes: IntGauge,
    windows_passes: IntCounter,
    kept: IntCounterVec,
    not_kept: IntCounterVec,
    replayed: IntCounter,
    shelf_bytes: IntGaugeVec,
    recycled: IntCounterVec,
}

impl AdmissionMetrics {
    pub(crate) fn register(registry: &Registry) -> Result<AdmissionMetrics, prometheus::Error> {
        let counters =
            |name: &str, help: &str, labels: &[&str]| IntCounterVec::new(Opts::new(name, help), labels);
        let metrics = AdmissionMetrics {
            gaps: counters(
                "vitalog_gaps_total",
                "Gaps in sequence numbers: opened, filled, closed.",
                &["event"],
            )?,
            windows_bytes: IntGauge::new("vitalog_windows_bytes", "Memory of the sequence windows.")?,
            windows_passes: IntCounter::new(
                "vitalog_windows_evictions_total",
                "How often the windows' memory budget was used up.",
            )?,
            kept: counters("vitalog_quarantine_kept_total", "Refused frames that were kept.", &["code"])?,
            not_kept: counters(
                "vitalog_quarantine_not_kept_total",
                "Refused frames that were not kept: repeated, too fast, or (alarm) full.",
                &["code", "why"],
            )?,
            replayed: IntCounter::new(
                "vitalog_quarantine_replayed_total",
                "Frames accepted at a replay, which left the quarantine.",
            )?,
            shelf_bytes: IntGaugeVec::new(
                Opts::new("vitalog_quarantine_bytes", "Bytes of kept frames by reason."),
                &["code"],
            )?,
            recycled: counters(
                "vitalog_quarantine_recycled_total",
                "Segments that made room for newer frames of their reason.",
                &["code"],
            )?,
        };
        for counters in [&metrics.gaps, &metrics.kept, &metrics.not_kept, &metrics.recycled] {
            registry.register(Box::new(counters.clone()))?;
        }
        for counter in [&metrics.windows_passes, &metrics.replayed] {
            registry.register(Box::new(counter.clone()))?;
        }
        registry.register(Box::new(metrics.windows_bytes.clone()))?;
        registry.register(Box::new(metrics.shelf_bytes.clone()))?;
        // Alarms are there from the start, so that the first one is seen as a change.
        let full = [Reason::Equivocation.code().as_str(), "full"];
        metrics.not_kept.with_label_values(&full).inc_by(0);
        for event in ["opened", "filled", "closed"] {
            metrics.gaps.with_label_values(&[event]).inc_by(0);
        }
        for reason in Reason::ALL {
            metrics.kept.with_label_values(&[reason.code().as_str()]).inc_by(0);
        }
        Ok(metrics)
    }

    /// Brings the counters up to what the windows have counted; `last` is what was counted before.
    pub(crate) fn windows(&self, windows: &Windows, last: &mut (GapCounts, u64)) {
        let (counts, (bytes, passes)) = (windows.gap_counts(), windows.memory());
        let events = [
            ("opened", counts.opened, last.0.opened),
            ("filled", counts.filled, last.0.filled),
            ("closed", counts.closed, last.0.closed),
        ];
        for (event, now, before) in events {
            if now > before {
                self.gaps.with_label_values(&[event]).inc_by(now - before);
            }
        }
        self.windows_passes.inc_by(passes.saturating_sub(last.1));
        self.windows_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        *last = (counts, passes);
    }

    pub(crate) fn refused(&self, reason: Reason, outcome: Outcome) {
        let code = reason.code().as_str();
        let why = match outcome {
            Outcome::Kept => return self.kept.with_label_values(&[code]).inc(),
            Outcome::Repeated => "repeated",
            Outcome::TooFast => "too-fast",
            Outcome::Full => "full",
        };
        self.not_kept.with_label_values(&[code, why]).inc();
    }

    pub(crate) fn replayed(&self, count: usize) {
        self.replayed.inc_by(count as u64);
    }

    pub(crate) fn shelves(&self, store: &Quarantine) {
        for reason in Reason::ALL {
            let (bytes, recycled) = store.usage(reason);
            let code = reason.code().as_str();
            self.shelf_bytes.with_label_values(&[code]).set(i64::try_from(bytes).unwrap_or(i64::MAX));
            let counter = self.recycled.with_label_values(&[code]);
            counter.inc_by(recycled.saturating_sub(counter.get()));
        }
    }
}
