//! Doors for writes: HTTP and MQTT on the outside, one bounded admission queue on the inside.
//!
//! What it is: everything between a socket and the pipeline. A door cuts bytes into frames, refuses what needs no
//! key to refuse (`DECODE`, `TOO_BIG`, `TOPIC_MISMATCH`), offers the rest to the queue and carries the verdicts back.
//!
//! What it is not: it verifies no signature, knows no register, writes no disk and never decides that a frame is
//! durable. A door says "stored" only after the pipeline has answered, and never waits with a full queue behind
//! the sender's back: pressure is passed on (HTTP 503 with `Retry-After`, MQTT without `PUBACK`).
//!
//! ```text
//! admission.rs   the queue: bounded by bytes and frames over all doors; offers never wait
//! cut.rs         one body or payload -> frames to offer and verdicts already known
//! http/          POST /v1/frames and its limits
//! mqtt/          MQTT 3.1.1 and 5 endpoint (not a broker)
//! bridge/        a client of somebody's broker
//! tls.rs         rustls from PEM files, a TLS listener, refusal of plaintext off loopback
//! metrics.rs     Prometheus counters, all with bounded labels
//! recent.rs      a bounded map that forgets; room.rs: a bound on bytes held
//! ```

pub mod admission;
pub mod bridge;
mod cut;
pub mod http;
pub mod metrics;
pub mod mqtt;
mod recent;
mod room;
pub mod tls;

#[cfg(test)]
mod testing;

pub use admission::{
    Admission, AdmissionOptions, Allowed, Answer, Depth, Door, Drain, Inbox, Pressure, Reply, Submission, Via,
};
pub use metrics::Metrics;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Wall clock of a door: microseconds since 1970 UTC. An argument, so that tests choose the time.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// The system's clock; a clock before 1970 reads as 0.
pub fn system_clock() -> Clock {
    Arc::new(|| match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(elapsed) => i64::try_from(elapsed.as_micros()).unwrap_or(i64::MAX),
        Err(_) => 0,
    })
}
