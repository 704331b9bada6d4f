//! The protocol of one connection: packets in, actions out. No clock, no socket, no queue.
//!
//! The rim (`connection.rs`) performs the actions in order. It promises to report each [`Action::Take`] with
//! [`Session::decided`] in the order they were given; the session then acknowledges in order of arrival.
//!
//! ```text
//! Fresh --CONNECT--> Asking --admitted--> Open --> (an End)
//!                         \--refused----> (an End)
//! ```

use std::collections::{HashMap, HashSet, VecDeque};

use bytes::Bytes;
use rumqttc::v5::mqttbytes::v5::DisconnectReasonCode as Reason;
use schemas_identity::ShortId;

use super::inbound::{Filter, Hello, Inbound, Latest, Publish, Version};
use super::outbound::{Ack, Outbound, Refusal, SubCode, Welcome};
use super::topic::{frames_device, verdict_device, verdict_topic};
use crate::admission::Allowed;

/// Most verdict messages of QoS 1 that may wait for one client's `PUBACK`.
const UNACKED_VERDICTS_MAX: usize = 64;

/// Longest client id and user name: both are kept for as long as the connection lives. A did:key has 56 bytes.
const NAME_BYTES_MAX: usize = 256;

/// What the session needs of the options.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) packet_bytes_max: u32,
    pub(crate) receive_max: u16,
    pub(crate) subscriptions_max: usize,
    pub(crate) keep_alive_s_max: u16,
}

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
    /// A topic alias, though none are allowed.
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
            Self::TopicAlias => (Reason::TopicAliasInvalid, "topic aliases are not supported"),
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
            Self::TakenOver => (Reason::SessionTakenOver, "this client id connected again"),
            Self::Shutdown => (Reason::ServerShuttingDown, "shutting down"),
        })
    }
}

/// What the rim has to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Send(Outbound),
    /// Ask the gatekeeper, then call [`Session::admitted`].
    Authenticate {
        username: Option<String>,
        password: Option<String>,
    },
    /// The connection is open under this client id.
    Opened {
        client_id: String,
        username: Option<String>,
    },
    /// Decide these bytes, then call [`Session::decided`].
    Take {
        device: ShortId,
        payload: Bytes,
    },
    Subscribe {
        device: ShortId,
        send_latest: bool,
    },
    Unsubscribe {
        device: ShortId,
    },
    /// A will came with `CONNECT` and will never be published.
    WillIgnored,
    End(End),
}

#[derive(Debug)]
enum State {
    Fresh,
    Asking(Box<Hello>),
    Open(Open),
}

#[derive(Debug)]
struct Open {
    allowed: Allowed,
    reasons_wanted: bool,
    receive_max: usize,
    unanswered: VecDeque<Unanswered>,
    unanswered_acks: usize,
    subscriptions: HashMap<ShortId, bool>,
    unacked_verdicts: HashSet<u16>,
    next_pkid: u16,
}

/// A publish in order of arrival; `ack` is there once it is decided.
#[derive(Debug)]
struct Unanswered {
    pkid: Option<u16>,
    answer: Option<(Ack, Option<String>)>,
}

/// One connection's protocol state.
#[derive(Debug)]
pub(crate) struct Session {
    limits: Limits,
    state: State,
    version: Option<Version>,
    keep_alive_s: u16,
    packet_bytes_max: Option<u32>,
    /// Used if the client names none.
    assigned_client_id: String,
}

impl Session {
    /// A fresh connection. `assigned_client_id` must be unique; it is given to clients that bring no id.
    pub(crate) fn new(limits: Limits, assigned_client_id: String) -> Self {
        Self {
            limits,
            state: State::Fresh,
            version: None,
            keep_alive_s: limits.keep_alive_s_max,
            packet_bytes_max: None,
            assigned_client_id,
        }
    }

    pub(crate) fn version(&self) -> Option<Version> {
        self.version
    }

    /// Whether a `CONNECT` has been seen, so that other packets may follow.
    pub(crate) fn greeted(&self) -> bool {
        !matches!(self.state, State::Fresh)
    }

    /// Whether the client has been admitted.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.state, State::Open(_))
    }

    /// The longest silence in seconds that is no sign of death, before the factor of 1.5.
    pub(crate) fn keep_alive_s(&self) -> u16 {
        self.keep_alive_s
    }

    /// v5: most bytes of one packet to this client.
    pub(crate) fn packet_bytes_max(&self) -> Option<u32> {
        self.packet_bytes_max
    }

    /// For whom the client may publish; `None` before it is admitted.
    pub(crate) fn allowed(&self) -> Option<&Allowed> {
        match &self.state {
            State::Open(open) => Some(&open.allowed),
            _ => None,
        }
    }

    /// A packet came.
    pub(crate) fn on(&mut self, packet: Inbound) -> Vec<Action> {
        match (&mut self.state, packet) {
            (State::Fresh, Inbound::Connect(hello)) => self.greet(*hello),
            (State::Open(open), packet) => {
                let version = self.version.unwrap_or(Version::V4);
                open.on(packet, version, &self.limits)
            }
            _ => vec![Action::End(End::Protocol("CONNECT comes first and once"))],
        }
    }

    fn greet(&mut self, hello: Hello) -> Vec<Action> {
        self.version = Some(hello.version);
        self.packet_bytes_max = hello.packet_bytes_max;
        let mut actions = Vec::new();
        if hello.has_will {
            actions.push(Action::WillIgnored);
        }
        if hello.wants_auth_exchange {
            return refuse(Refusal::AuthMethod);
        }
        if hello.client_id.is_empty() && hello.version == Version::V4 && !hello.clean {
            return refuse(Refusal::ClientId);
        }
        if hello.client_id.len() > NAME_BYTES_MAX {
            return refuse(Refusal::ClientId);
        }
        if hello.username.as_ref().is_some_and(|name| name.len() > NAME_BYTES_MAX) {
            return refuse(Refusal::Credentials);
        }
        let (username, password) = (hello.username.clone(), hello.password.clone());
        self.state = State::Asking(Box::new(hello));
        actions.push(Action::Authenticate { username, password });
        actions
    }

    /// The gatekeeper's answer to [`Action::Authenticate`].
    pub(crate) fn admitted(&mut self, answer: Result<Allowed, ()>) -> Vec<Action> {
        let State::Asking(hello) = std::mem::replace(&mut self.state, State::Fresh) else {
            return vec![Action::End(End::Protocol("nobody asked"))];
        };
        let Ok(allowed) = answer else { return refuse(Refusal::Credentials) };
        let max = self.limits.keep_alive_s_max;
        let imposed = (hello.keep_alive_s == 0 || hello.keep_alive_s > max).then_some(max);
        self.keep_alive_s = imposed.unwrap_or(hello.keep_alive_s);
        let assigned = hello.client_id.is_empty().then(|| self.assigned_client_id.clone());
        let welcome = Welcome {
            receive_max: self.limits.receive_max,
            packet_bytes_max: self.limits.packet_bytes_max,
            keep_alive_s: imposed,
            assigned_client_id: assigned.clone(),
        };
        self.state = State::Open(Open {
            allowed,
            reasons_wanted: hello.reasons_wanted,
            receive_max: usize::from(hello.receive_max).min(UNACKED_VERDICTS_MAX),
            unanswered: VecDeque::new(),
            unanswered_acks: 0,
            subscriptions: HashMap::new(),
            unacked_verdicts: HashSet::new(),
            next_pkid: 0,
        });
        let client_id = assigned.unwrap_or(hello.client_id);
        vec![
            Action::Opened { client_id, username: hello.username },
            Action::Send(Outbound::ConnAck(Box::new(welcome))),
        ]
    }

    /// The oldest [`Action::Take`] not yet reported is decided and durable (or refused for good).
    pub(crate) fn decided(&mut self, ack: Ack, hint: Option<String>) -> Vec<Action> {
        let State::Open(open) = &mut self.state else { return Vec::new() };
        let hint = if open.reasons_wanted { hint } else { None };
        if let Some(first) = open.unanswered.iter_mut().find(|publish| publish.answer.is_none()) {
            first.answer = Some((ack, hint));
        }
        open.acknowledge()
    }

    /// Whether a verdict message may be sent now.
    pub(crate) fn may_send_verdict(&self) -> bool {
        match &self.state {
            State::Open(open) => open.unacked_verdicts.len() < open.receive_max,
            _ => false,
        }
    }

    /// The packet that carries a verdict; `None` if the client has unsubscribed meanwhile.
    pub(crate) fn verdict(&mut self, device: ShortId, payload: Bytes) -> Option<Outbound> {
        let State::Open(open) = &mut self.state else { return None };
        let at_least_once = *open.subscriptions.get(&device)?;
        let pkid = at_least_once.then(|| open.take_pkid());
        Some(Outbound::Publish { topic: verdict_topic(&device), pkid, payload })
    }

    /// A verdict message could not be sent after all: its packet id is free again.
    pub(crate) fn verdict_unsent(&mut self, packet: &Outbound) {
        if let (State::Open(open), Outbound::Publish { pkid: Some(pkid), .. }) = (&mut self.state, packet) {
            open.unacked_verdicts.remove(pkid);
        }
    }
}

fn refuse(refusal: Refusal) -> Vec<Action> {
    vec![Action::Send(Outbound::ConnRefused(refusal)), Action::End(End::Refused(refusal))]
}

impl Open {
    fn on(&mut self, packet: Inbound, version: Version, limits: &Limits) -> Vec<Action> {
        match packet {
            Inbound::Publish(publish) => self.publish(publish, version, limits),
            Inbound::PubAck { pkid } => {
                self.unacked_verdicts.remove(&pkid);
                Vec::new()
            }
            Inbound::Subscribe { has_id: true, .. } => vec![Action::End(End::SubscriptionId)],
            Inbound::Subscribe { pkid, filters, .. } => self.subscribe(pkid, &filters, limits),
            Inbound::Unsubscribe { pkid, filters } => self.unsubscribe(pkid, &filters),
            Inbound::PingReq => vec![Action::Send(Outbound::PingResp)],
            Inbound::Disconnect => vec![Action::End(End::Client)],
            Inbound::Connect(_) => vec![Action::End(End::Protocol("CONNECT comes first and once"))],
        }
    }

    fn publish(&mut self, publish: Publish, version: Version, limits: &Limits) -> Vec<Action> {
        if publish.has_alias {
            return vec![Action::End(End::TopicAlias)];
        }
        if publish.retain && version == Version::V5 {
            return vec![Action::End(End::Retain)];
        }
        if publish.pkid.is_some() {
            if version == Version::V5 && self.unanswered_acks >= usize::from(limits.receive_max) {
                return vec![Action::End(End::ReceiveMax)];
            }
            self.unanswered_acks += 1;
        }
        let (ack, end) = match frames_device(&publish.topic) {
            Some(device) if self.allowed.permits(&device) => {
                self.unanswered.push_back(Unanswered { pkid: publish.pkid, answer: None });
                return vec![Action::Take { device, payload: publish.payload }];
            }
            Some(_) => (Ack::NotAuthorized, End::NotAuthorized),
            None => (Ack::Topic, End::Topic),
        };
        if publish.pkid.is_none() || version == Version::V4 {
            return vec![Action::End(end)];
        }
        self.unanswered.push_back(Unanswered { pkid: publish.pkid, answer: Some((ack, None)) });
        self.acknowledge()
    }

    /// Acknowledges what is decided, up to the first publish that is not.
    fn acknowledge(&mut self) -> Vec<Action> {
        let mut actions = Vec::new();
        while let Some(front) = self.unanswered.pop_front() {
            let Some((ack, hint)) = front.answer else {
                self.unanswered.push_front(front);
                break;
            };
            if let Some(pkid) = front.pkid {
                self.unanswered_acks = self.unanswered_acks.saturating_sub(1);
                actions.push(Action::Send(Outbound::PubAck { pkid, ack, hint }));
            }
        }
        actions
    }

    fn subscribe(&mut self, pkid: u16, filters: &[Filter], limits: &Limits) -> Vec<Action> {
        let mut codes = Vec::with_capacity(filters.len());
        let mut after = Vec::new();
        for filter in filters {
            let device = match self.may_subscribe(filter, limits) {
                Ok(device) => device,
                Err(code) => {
                    codes.push(code);
                    continue;
                }
            };
            let is_new = self.subscriptions.insert(device, filter.at_least_once).is_none();
            let send_latest = match filter.latest {
                Latest::Always => true,
                Latest::IfNew => is_new,
                Latest::Never => false,
            };
            codes.push(if filter.at_least_once { SubCode::AtLeastOnce } else { SubCode::AtMostOnce });
            after.push(Action::Subscribe { device, send_latest });
        }
        let mut actions = vec![Action::Send(Outbound::SubAck { pkid, codes })];
        actions.extend(after);
        actions
    }

    fn may_subscribe(&self, filter: &Filter, limits: &Limits) -> Result<ShortId, SubCode> {
        if filter.path.starts_with("$share/") {
            return Err(SubCode::Shared);
        }
        if filter.path.contains(['+', '#']) {
            return Err(SubCode::Wildcard);
        }
        let device = verdict_device(&filter.path).ok_or(SubCode::NotAuthorized)?;
        if !self.allowed.permits(&device) {
            return Err(SubCode::NotAuthorized);
        }
        if !self.subscriptions.contains_key(&device) && self.subscriptions.len() >= limits.subscriptions_max {
            return Err(SubCode::Quota);
        }
        Ok(device)
    }

    fn unsubscribe(&mut self, pkid: u16, filters: &[String]) -> Vec<Action> {
        let mut existed = Vec::with_capacity(filters.len());
        let mut actions = Vec::new();
        for filter in filters {
            let device = verdict_device(filter).filter(|device| self.subscriptions.remove(device).is_some());
            existed.push(device.is_some());
            actions.extend(device.map(|device| Action::Unsubscribe { device }));
        }
        actions.push(Action::Send(Outbound::UnsubAck { pkid, existed }));
        actions
    }

    /// A packet id that is not in use; there are far more ids than unacknowledged verdicts.
    fn take_pkid(&mut self) -> u16 {
        loop {
            self.next_pkid = self.next_pkid.checked_add(1).unwrap_or(1);
            if self.unacked_verdicts.insert(self.next_pkid) {
                return self.next_pkid;
            }
        }
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
