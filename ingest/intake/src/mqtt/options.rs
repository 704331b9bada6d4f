//! Limits of the MQTT endpoint.

use std::sync::Arc;
use std::time::Duration;

use crate::metrics::Metrics;
use crate::{Clock, system_clock};

/// Limits of the MQTT endpoint; every queue, wait and packet has one.
#[derive(Clone)]
pub struct MqttOptions {
    /// Largest packet a client may send, fixed header excluded. Default 1 MiB. Told to v5 clients.
    pub packet_bytes_max: u32,
    /// Most frames in one publish. Default 4,096.
    pub frames_max: usize,
    /// Publishes of one connection that may wait for their verdicts. Default 1,024; then the socket is not read.
    pub inflight_max: usize,
    /// QoS 1 publishes a v5 client may have unacknowledged. Default 512; more is a protocol error (0x93).
    pub receive_max: u16,
    /// Most bytes of large packets (over 64 KiB) arriving at a time, over all connections. Default 64 MiB.
    pub arriving_bytes_max: u64,
    /// Longest time for a large packet to arrive whole. Default 60 s: it holds a share of the room above.
    pub packet_timeout: Duration,
    /// Connections over all addresses. Default 10,000.
    pub connections_max: usize,
    /// Connections of one address. Default 4,096: hospitals and phone networks share addresses.
    pub connections_per_address_max: usize,
    /// Devices one connection may subscribe to. Default 1,024. It bounds the outbox too: one merged verdict each.
    pub subscriptions_max: usize,
    /// Topic aliases of one connection. Default 256: a ward's devices behind one gateway. Told to v5 clients.
    pub topic_alias_max: u16,
    /// Longest time that a session outlives its connection, in seconds. Default 3,600: a walk out of coverage. Told to
    /// v5 clients, and what a 3.1.1 client without clean session gets.
    pub session_expiry_s_max: u32,
    /// Sessions that may outlive their connections, over all clients. Default 20,000; beyond it clients are told
    /// an expiry of 0.
    pub sessions_max: usize,
    /// Devices whose latest verdict is remembered for later subscribers. Default 65,536.
    pub latest_max: usize,
    /// Time for the TLS handshake, and then again for `CONNECT`. Default 10 s.
    pub connect_timeout: Duration,
    /// Longest keep-alive, in seconds, and the one assumed for clients that ask for none. Default 3,600: a half-open
    /// connection must end some time. Told to v5 clients.
    pub keep_alive_s_max: u16,
    /// Longest time without progress in writing to a client. Default 30 s; then it is cut.
    pub write_timeout: Duration,
    /// Longest time to hold a publish back under pressure. Default 60 s; then the client is told quota exceeded (0x97).
    pub pressure_patience: Duration,
    /// How long a client may stay after what it came with has ended. Default 5 s.
    pub lease_every: Duration,
    /// Longest time to wait for outstanding verdicts at shutdown. Default 10 s.
    pub drain_timeout: Duration,
    /// Wall clock of `server_time`.
    pub clock: Clock,
    /// Where to count.
    pub metrics: Arc<Metrics>,
}

impl MqttOptions {
    /// The defaults, counting into `metrics`.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            packet_bytes_max: 1 << 20,
            frames_max: 4_096,
            inflight_max: 1_024,
            receive_max: 512,
            arriving_bytes_max: 64 << 20,
            packet_timeout: Duration::from_secs(60),
            connections_max: 10_000,
            connections_per_address_max: 4_096,
            subscriptions_max: 1_024,
            topic_alias_max: 256,
            session_expiry_s_max: 3_600,
            sessions_max: 20_000,
            latest_max: 65_536,
            connect_timeout: Duration::from_secs(10),
            keep_alive_s_max: 3_600,
            write_timeout: Duration::from_secs(30),
            pressure_patience: Duration::from_secs(60),
            lease_every: Duration::from_secs(5),
            drain_timeout: Duration::from_secs(10),
            clock: system_clock(),
            metrics,
        }
    }
}
