//! Broker bridge: frames from a broker that is there already, verdicts back to it.
//!
//! What it is: one MQTT 5 client (rumqttc) in a shared subscription, `$share/{group}/v1/d/+/frames`. A frame is
//! acknowledged to the broker only after it is decided and durable here; until then the broker keeps it, in a session
//! that outlives the connection. Receive maximum is the back-pressure. Verdicts go to `v1/d/{id}/verdict` at QoS 1.
//!
//! What it is not: better than its broker. Brokers acknowledge the *device* before anything is on a disk (measured:
//! 5,000 of 5,000 lost on kill -9), so a device that must not lose keeps its frames until the verdict topic names them.
//! Who may publish for whom is the broker's access list; a frame's own signature is checked here all the same.
//!
//! ```text
//! link.rs     the connection: polls rumqttc, reconnects, numbers its connections (epochs)
//! worker.rs   publishes in, acknowledgements and verdicts out
//! ```
//!
//! What rumqttc 0.25.1 leaves to its user, read in its source and answered here:
//! - Acknowledgements are queued. One of an older connection would acknowledge whatever has its packet id by then, so
//!   each carries its epoch and goes through a gate that a lost connection closes before the queue is emptied.
//! - Its event loop must not be cancelled in the middle of a poll (a packet under way would be lost): it has a task of
//!   its own.
//! - It takes packets of 10 KiB by default, and a larger one would come back for ever: the maximum is set, and told to
//!   the broker, which must not send more.
//! - It forgets its unacknowledged publishes when the broker has lost the session; the count of verdicts in flight is
//!   then reset, and the device's next frame brings its standing again.

mod link;
#[cfg(test)]
mod tests;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use tokio_util::sync::CancellationToken;

use crate::admission::Admission;
use crate::metrics::Metrics;
use crate::{Clock, system_clock};

/// Where the broker is, who we are to it, and every limit.
#[derive(Clone)]
pub struct BridgeOptions {
    /// Name or address of the broker; an IPv6 address in brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// TLS towards the broker; `None` is plaintext.
    pub tls: Option<Arc<ClientConfig>>,
    /// Name of the shared subscription: all bridges of a deployment share it, each frame goes to one of them.
    pub group: String,
    /// Client id: names the session at the broker, so it must be stable and no other bridge's.
    pub client_id: String,
    /// User name and password.
    pub credentials: Option<(String, String)>,
    /// Publishes that the broker may leave unacknowledged. Default 512.
    pub receive_max: u16,
    /// Largest packet the broker may send. Default 1 MiB and room for the topic; it must discard larger ones.
    pub packet_bytes_max: u32,
    /// Most frames in one publish. Default 4,096.
    pub frames_max: usize,
    /// How long the broker keeps the session without us, in seconds. Default a day: longer than any repair.
    pub session_expiry_s: u32,
    /// First and longest pause between two connections, each doubled and shortened by a random half. Defaults 200 ms
    /// and 30 s.
    pub reconnect_min: Duration,
    /// See `reconnect_min`.
    pub reconnect_max: Duration,
    /// Verdict messages that may wait for the broker's acknowledgement. Default 64; later ones merge per device.
    pub verdicts_max: u16,
    /// Devices whose verdict may wait, and whose standing is remembered. Default 65,536; beyond it verdicts are
    /// dropped and counted.
    pub devices_max: usize,
    /// Longest time to wait for outstanding verdicts at shutdown. Default 10 s; the rest stays with the broker.
    pub drain_timeout: Duration,
    /// Wall clock of `server_time`.
    pub clock: Clock,
    /// Where to count.
    pub metrics: Arc<Metrics>,
}

impl BridgeOptions {
    /// The defaults for a broker, counting into `metrics`.
    pub fn new(host: impl Into<String>, port: u16, metrics: Arc<Metrics>) -> Self {
        Self {
            host: host.into(),
            port,
            tls: None,
            group: "vitalog".to_owned(),
            client_id: "vitalog-bridge".to_owned(),
            credentials: None,
            receive_max: 512,
            packet_bytes_max: (1 << 20) + 1_024,
            frames_max: 4_096,
            session_expiry_s: 86_400,
            reconnect_min: Duration::from_millis(200),
            reconnect_max: Duration::from_secs(30),
            verdicts_max: 64,
            devices_max: 65_536,
            drain_timeout: Duration::from_secs(10),
            clock: system_clock(),
            metrics,
        }
    }
}

/// Carries frames and verdicts until `stop`, or until the pipeline is gone. Then what was taken is acknowledged as far
/// as it is decided in time; the rest stays with the broker, which sends it again to whoever comes next.
pub async fn run(admission: Admission, options: BridgeOptions, stop: CancellationToken) {
    let link = link::Link::open(&options);
    worker::Worker::new(admission, options, link).run(stop).await;
}
