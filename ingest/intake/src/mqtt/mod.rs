//! MQTT 3.1.1 and 5 endpoint: devices publish frames, `PUBACK` means decided and durable.
//!
//! What it is: the end of the line, on rumqttc's public codec. QoS 0 and 1, `v1/d/{id}/frames` in,
//! `v1/d/{id}/verdict` out.
//!
//! What it is not: a broker. No queue of other people's messages, no wildcard, no retained message of a client, no will, no
//! message from one device to another. Those who need that keep a broker beside it.
//!
//! ```text
//! options.rs     every limit, with unit, default and reason
//! topic.rs       the two topics
//! guard.rs       fixed header and bounds, checked before the codec sees a byte
//! inbound.rs     packets of both versions as one enum; outbound.rs: the way back
//! session.rs     the protocol: packets in, actions out; no clock, no socket. end.rs: why it ends
//! sessions.rs    who is connected under which name, and what outlives a connection
//! lease.rs       how long a client may stay: as long as what it came with holds
//! verdict.rs     the verdict message and how waiting ones merge
//! hub.rs         who listens to which device; the latest verdict of each
//! deliveries.rs  publishes not answered yet, in order of arrival
//! connection.rs  one socket; endpoint.rs: accepting, limits, shutdown
//! ```
//!
//! Decisions that the protocol leaves open:
//! - The reason of a v5 `PUBACK` is that of the first refused frame of the payload: `DECODE` 0x99, signature and key
//!   codes 0x87, others 0x83; 0 if all frames are accepted. 3.1.1 has no reasons, so refusals are acknowledged there
//!   too, and the verdict topic tells.
//! - A publish outside the identity's own devices, or to another topic, is answered 0x87 or 0x90 in v5; in 3.1.1 (and
//!   for QoS 0) the connection is closed, because an acknowledgement would say "stored".
//! - Every verdict other than `OK` is listed in `exceptions`, `DUP` too: it tells a device that a resend was needless.
//! - On `SUBSCRIBE` the latest verdict of the device since start is sent at once, as an ordinary message (retain bit
//!   0, since retained messages are declared unavailable); v5 retain handling 1 and 2 are obeyed.
//! - A subscriber that is slower than the verdicts gets them merged: the newest `acked_to` and `gaps`, and the
//!   exceptions of all, the oldest dropped beyond `verdict::EXCEPTIONS_MAX` and counted.
//! - A session may outlive its connection for `session_expiry_s_max` at most (told in v5; 3.1.1 without clean session
//!   gets that long). Kept are its subscriptions and, per device, one merged verdict; a QoS 1 verdict that was not
//!   acknowledged is said again as part of the next message, under a new packet id.
//! - What a client came with is looked at every `lease_every`; when it has ended, so does the connection (v5: 0x87). A session may
//!   outlive it, and whoever comes back to it logs in again.
//! - Under pressure the connection is not read and nothing is acknowledged; keep-alive does not run meanwhile.

mod connection;
pub(crate) mod deliveries;
mod end;
mod endpoint;
#[cfg(any(test, feature = "fuzz"))]
#[doc(hidden)]
pub mod fuzz;
mod guard;
mod hub;
mod inbound;
mod lease;
mod options;
mod outbound;
mod session;
mod sessions;
pub(crate) mod topic;
pub(crate) mod verdict;

pub use endpoint::{Admittance, Credentials, Endpoint, Gatekeeper};
pub use lease::Lease;
pub use options::MqttOptions;

#[cfg(test)]
mod tests;
