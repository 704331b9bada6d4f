//! Prometheus counters of the doors. Every label has a closed set of values: door, verdict code, status, reason.

use std::collections::HashMap;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};
use schemas_frame::{Code, Verdict};

use crate::admission::{Admission, Depth, Door};

/// The counters of both doors and the depth of the queue.
#[derive(Debug)]
pub struct Metrics {
    frames: IntCounterVec,
    bytes: IntCounterVec,
    /// The same counters by door and by code, looked up once: both are counted for every frame.
    by_door: [ByDoor; Door::ALL.len()],
    pressure: IntCounterVec,
    limited: IntCounterVec,
    http_requests: IntCounterVec,
    connections: IntCounterVec,
    refused: IntCounterVec,
    disconnects: IntCounterVec,
    pub(crate) connections_open: IntGauge,
    pub(crate) wills_ignored: IntCounter,
    pub(crate) sessions_resumed: IntCounter,
    pub(crate) verdicts_sent: IntCounter,
    pub(crate) verdicts_merged: IntCounter,
    pub(crate) exceptions_dropped: IntCounter,
    pub(crate) bridge_connected: IntGauge,
    pub(crate) bridge_connections: IntCounter,
    pub(crate) bridge_redelivered: IntCounter,
    pub(crate) bridge_acks_dropped: IntCounter,
}

/// What a door counts for every body.
#[derive(Debug)]
struct ByDoor {
    bytes: IntCounter,
    frames: [IntCounter; Code::ALL.len()],
}

impl ByDoor {
    /// Every code is there from the start, so that a first refusal is seen as a change.
    fn new(door: Door, bytes: &IntCounterVec, frames: &IntCounterVec) -> ByDoor {
        ByDoor {
            bytes: bytes.with_label_values(&[door.label()]),
            frames: Code::ALL.map(|code| frames.with_label_values(&[door.label(), code.as_str()])),
        }
    }
}

impl Metrics {
    /// Makes the counters and registers them, with two gauges that read the queue when scraped.
    ///
    /// # Errors
    /// If the registry holds metrics of these names already.
    pub fn register(registry: &Registry, admission: &Admission) -> Result<Self, prometheus::Error> {
        let metrics = Self::new()?;
        let counters: [Box<dyn Collector>; 18] = [
            Box::new(metrics.frames.clone()),
            Box::new(metrics.bytes.clone()),
            Box::new(metrics.pressure.clone()),
            Box::new(metrics.limited.clone()),
            Box::new(metrics.http_requests.clone()),
            Box::new(metrics.connections.clone()),
            Box::new(metrics.refused.clone()),
            Box::new(metrics.disconnects.clone()),
            Box::new(metrics.connections_open.clone()),
            Box::new(metrics.wills_ignored.clone()),
            Box::new(metrics.sessions_resumed.clone()),
            Box::new(metrics.verdicts_sent.clone()),
            Box::new(metrics.verdicts_merged.clone()),
            Box::new(metrics.exceptions_dropped.clone()),
            Box::new(metrics.bridge_connected.clone()),
            Box::new(metrics.bridge_connections.clone()),
            Box::new(metrics.bridge_redelivered.clone()),
            Box::new(metrics.bridge_acks_dropped.clone()),
        ];
        for counter in counters {
            registry.register(counter)?;
        }
        registry.register(Box::new(QueueDepth::new(admission.watcher())?))?;
        Ok(metrics)
    }

    /// Makes the counters without registering them anywhere: for tests and for tools that show no metrics.
    ///
    /// # Errors
    /// Only if a name here were not a metric name.
    pub fn new() -> Result<Self, prometheus::Error> {
        let frames = labelled("frames_total", "Frames answered", &["door", "code"])?;
        let bytes = labelled("bytes_total", "Bytes of bodies and payloads received", &["door"])?;
        Ok(Self {
            by_door: Door::ALL.map(|door| ByDoor::new(door, &bytes, &frames)),
            frames,
            bytes,
            pressure: labelled("pressure_total", "Offers refused by the full queue", &["door"])?,
            limited: labelled("rate_limited_total", "HTTP bodies refused by a rate limit", &["by"])?,
            http_requests: labelled("http_requests_total", "Answers of POST /v1/frames", &["status"])?,
            connections: labelled("connections_total", "MQTT connections admitted", &["version"])?,
            refused: labelled(
                "connections_refused_total",
                "Connections refused before use",
                &["door", "reason"],
            )?,
            disconnects: labelled("disconnects_total", "Admitted MQTT connections ended", &["reason"])?,
            connections_open: IntGauge::with_opts(name("connections_open", "MQTT sockets open now"))?,
            wills_ignored: IntCounter::with_opts(name(
                "wills_ignored_total",
                "MQTT wills taken and not kept",
            ))?,
            sessions_resumed: IntCounter::with_opts(name(
                "sessions_resumed_total",
                "MQTT sessions found again by their client",
            ))?,
            verdicts_sent: IntCounter::with_opts(name("verdicts_sent_total", "Verdict messages sent"))?,
            verdicts_merged: IntCounter::with_opts(name(
                "verdicts_merged_total",
                "Verdicts merged into a waiting one because the subscriber was slow",
            ))?,
            exceptions_dropped: IntCounter::with_opts(name(
                "exceptions_dropped_total",
                "Exceptions that no longer fitted into a waiting verdict message",
            ))?,
            bridge_connected: IntGauge::with_opts(name("bridge_connected", "1 while a broker is connected"))?,
            bridge_connections: IntCounter::with_opts(name(
                "bridge_connections_total",
                "Connections to the broker, the first included",
            ))?,
            bridge_redelivered: IntCounter::with_opts(name(
                "bridge_redelivered_total",
                "Messages that the broker sent again",
            ))?,
            bridge_acks_dropped: IntCounter::with_opts(name(
                "bridge_acks_dropped_total",
                "Acknowledgements not sent because their connection was gone",
            ))?,
        })
    }

    pub(crate) fn body(&self, door: Door, bytes: usize) {
        if let Some(counted) = self.by_door.get(door as usize) {
            counted.bytes.inc_by(bytes as u64);
        }
    }

    pub(crate) fn verdicts(&self, door: Door, verdicts: &[Verdict]) {
        let Some(counted) = self.by_door.get(door as usize) else { return };
        for run in verdicts.chunk_by(|a, b| a.code == b.code) {
            if let Some(counter) = run.first().and_then(|first| counted.frames.get(first.code as usize)) {
                counter.inc_by(run.len() as u64);
            }
        }
    }

    pub(crate) fn pressure(&self, door: Door) {
        self.pressure.with_label_values(&[door.label()]).inc();
    }

    pub(crate) fn limited(&self, by: &'static str) {
        self.limited.with_label_values(&[by]).inc();
    }

    pub(crate) fn http_answer(&self, status: ::http::StatusCode) {
        self.http_requests.with_label_values(&[status.as_str()]).inc();
    }

    pub(crate) fn admitted(&self, version: &'static str) {
        self.connections.with_label_values(&[version]).inc();
    }

    pub(crate) fn refused(&self, door: Door, reason: &'static str) {
        self.refused.with_label_values(&[door.label(), reason]).inc();
    }

    pub(crate) fn disconnected(&self, reason: &'static str) {
        self.disconnects.with_label_values(&[reason]).inc();
    }

    /// What was counted under a full metric name and label values, 0 if nothing: for tests and self-checks.
    pub fn count(&self, metric: &str, labels: &[&str]) -> u64 {
        let families: [(&str, &IntCounterVec); 8] = [
            ("frames", &self.frames),
            ("bytes", &self.bytes),
            ("pressure", &self.pressure),
            ("rate_limited", &self.limited),
            ("http_requests", &self.http_requests),
            ("connections", &self.connections),
            ("connections_refused", &self.refused),
            ("disconnects", &self.disconnects),
        ];
        for (family, counter) in families {
            if metric == format!("vitalog_intake_{family}_total") {
                return counter.get_metric_with_label_values(labels).map_or(0, |found| found.get());
            }
        }
        0
    }
}

fn name(metric: &str, help: &str) -> Opts {
    Opts { const_labels: HashMap::new(), ..Opts::new(format!("vitalog_intake_{metric}"), help) }
}

fn labelled(metric: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
    IntCounterVec::new(name(metric, help), labels)
}

/// Reads the queue's depth when scraped, so that the queue itself pays nothing.
struct QueueDepth {
    depth: Box<dyn Fn() -> Depth + Send + Sync>,
    frames: IntGauge,
    bytes: IntGauge,
}

impl QueueDepth {
    fn new(depth: Box<dyn Fn() -> Depth + Send + Sync>) -> Result<Self, prometheus::Error> {
        Ok(Self {
            depth,
            frames: IntGauge::with_opts(name("queue_frames", "Frames offered and not yet answered"))?,
            bytes: IntGauge::with_opts(name("queue_bytes", "Bytes offered and not yet answered"))?,
        })
    }
}

impl Collector for QueueDepth {
    fn desc(&self) -> Vec<&Desc> {
        let mut desc = self.frames.desc();
        desc.extend(self.bytes.desc());
        desc
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let depth = (self.depth)();
        self.frames.set(i64::try_from(depth.frames).unwrap_or(i64::MAX));
        self.bytes.set(i64::try_from(depth.bytes).unwrap_or(i64::MAX));
        let mut families = self.frames.collect();
        families.extend(self.bytes.collect());
        families
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::{AdmissionOptions, Allowed, Via};

    /// All names carry the prefix and the queue's depth is read when scraped.
    #[test]
    fn names_and_queue_depth() {
        let registry = Registry::new();
        let (admission, _inbox) = Admission::new(AdmissionOptions::default());
        let metrics = Metrics::register(&registry, &admission).unwrap();
        metrics.refused(Door::Mqtt, "global");
        let via = Via { door: Door::Http, peer: None, allowed: Allowed::All, topic_device: None };
        let _answer = admission.offer(vec![bytes::Bytes::from_static(b"x")], via).unwrap();
        let families = registry.gather();
        assert!(families.iter().all(|family| family.name().starts_with("vitalog_intake_")));
        let frames = families.iter().find(|family| family.name() == "vitalog_intake_queue_frames").unwrap();
        assert_eq!(frames.get_metric()[0].get_gauge().get_value(), 1.0);
        assert_eq!(metrics.count("vitalog_intake_connections_refused_total", &["mqtt", "global"]), 1);
        for door in Door::ALL {
            let before =
                Verdict { device: None, boot: None, seq: None, code: Code::Dup, flags: 0, hint: None };
            metrics.verdicts(door, &[before.clone(), before]);
            assert_eq!(metrics.count("vitalog_intake_frames_total", &[door.label(), "DUP"]), 2, "{door:?}");
        }
        assert!(
            Metrics::register(&registry, &admission).is_err(),
            "a second registration is an error, not a panic"
        );
    }
}
