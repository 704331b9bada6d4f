//! Why a connection ends: the metric label, and what a v5 client is told.

use rumqttc::v5::mqttbytes::v5::DisconnectReasonCode as Reason;

use super::outbound::Refusal;

/// Why a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The client said `DISCONNECT`.
    Client,
    /// The socket closed or failed.
    Io,
    /// Not MQTT at all; nothing is answered.
    NotMqtt,
    /// A protocol version that is not spoken here.
    Version { level: u8 },
    /// Bytes that MQTT forbids.
    Malformed(&'static str),
    /// A packet out of place.
    Protocol(&'static str),
    /// A packet over its bound.
    TooLarge,
    /// QoS 2.
    QosUnsupported,
    /// A topic alias of 0, over the maximum, or never set on this connection.
    TopicAlias,
    /// A retained publish (v5), though none are allowed.
    Retain,
    /// More unacknowledged publishes than receive maximum.
    ReceiveMax,
    /// A subscription identifier, though none are allowed.
    SubscriptionId,
    /// A topic that is none of ours, where it cannot be told otherwise.
    Topic,
    /// A device of somebody else, where it cannot be told otherwise.
    NotAuthorized,
    /// `CONNECT` was refused, and the client has been told in `CONNACK`.
    Refused(Refusal),
    /// No `CONNECT` in time.
    ConnectTimeout,
    /// Nothing heard for 1.5 times the keep-alive.
    KeepAlive,
    /// A large packet did not arrive in time.
    PacketTimeout,
    /// The client does not read.
    Slow,
    /// The queue stayed full for longer than patience lasts.
    Pressure,
    /// What the client came with holds no longer.
    LoginEnded,
    /// The same client id connected again.
    TakenOver,
    /// The service stops.
    Shutdown,
}

impl End {
    /// The metric label.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Io => "io",
            Self::NotMqtt => "not_mqtt",
            Self::Version { .. } => "version",
            Self::Malformed(_) => "malformed",
            Self::Protocol(_) => "protocol",
            Self::TooLarge => "too_large",
            Self::QosUnsupported => "qos",
            Self::TopicAlias => "topic_alias",
            Self::Retain => "retain",
            Self::ReceiveMax => "receive_max",
            Self::SubscriptionId => "subscription_id",
            Self::Topic => "topic",
            Self::NotAuthorized => "not_authorized",
            Self::Refused(Refusal::Credentials) => "credentials",
            Self::Refused(_) => "connect",
            Self::ConnectTimeout => "connect_timeout",
            Self::KeepAlive => "keep_alive",
            Self::PacketTimeout => "packet_timeout",
            Self::Slow => "slow",
            Self::Pressure => "pressure",
            Self::LoginEnded => "login_ended",
            Self::TakenOver => "taken_over",
            Self::Shutdown => "shutdown",
        }
    }

    /// The v5 `DISCONNECT` to send, with a phrase; `None` if there is nobody to tell.
    pub(crate) fn disconnect(self) -> Option<(Reason, &'static str)> {
        Some(match self {
            Self::Client | Self::Io | Self::NotMqtt | Self::Version { .. } | Self::Refused(_) => return None,
            Self::Malformed(what) => (Reason::MalformedPacket, what),
            Self::Protocol(what) => (Reason::ProtocolError, what),
            Self::TooLarge => (Reason::PacketTooLarge, "packet over its limit"),
            Self::QosUnsupported => (Reason::QoSNotSupported, "QoS 2 is not supported"),
            Self::TopicAlias => (Reason::TopicAliasInvalid, "topic alias 0, over the maximum, or not set"),
            Self::Retain => (Reason::RetainNotSupported, "retained messages are not supported"),
            Self::ReceiveMax => (Reason::ReceiveMaximumExceeded, "more publishes than receive maximum"),
            Self::SubscriptionId => {
                (Reason::SubscriptionIdentifiersNotSupported, "subscription identifiers are not supported")
            }
            Self::Topic => (Reason::TopicNameInvalid, "publish to v1/d/{short id}/frames"),
            Self::NotAuthorized => (Reason::NotAuthorized, "a device of somebody else"),
            Self::ConnectTimeout | Self::KeepAlive => (Reason::KeepAliveTimeout, "nothing heard in time"),
            Self::PacketTimeout => (Reason::KeepAliveTimeout, "packet did not arrive in time"),
            Self::Slow => (Reason::QuotaExceeded, "read too slowly"),
            Self::Pressure => (Reason::QuotaExceeded, "too busy, nothing unacknowledged was promised"),
            Self::LoginEnded => (Reason::NotAuthorized, "what you came with holds no longer: log in again"),
            Self::TakenOver => (Reason::SessionTakenOver, "this client id connected again"),
            Self::Shutdown => (Reason::ServerShuttingDown, "shutting down"),
        })
    }
}
