//! The protocol of one connection: packets in, actions out. No clock, no socket, no queue.
//!
//! The rim (`connection.rs`) performs the actions in order. It promises to report each [`Action::Take`] with
//! [`Session::decided`] in the order they were given; the session then acknowledges in order of arrival.
//!
//! ```text
//! Fresh --CONNECT--> Asking --admitted--> Open --> (an End)
//!                         \--refused----> (an End)
//! ```

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use schemas_identity::ShortId;

use super::end::End;
use super::inbound::{Filter, Hello, Inbound, Latest, Publish, Version};
use super::outbound::{Ack, Outbound, Refusal, SubCode, Welcome};
use super::topic::{frames_device, verdict_device, verdict_topic};
use super::verdict::Standing;
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
    pub(crate) topic_alias_max: u16,
}

/// The gatekeeper's and the session table's answer to a `CONNECT`.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(crate) allowed: Allowed,
    /// Subscriptions of the session that is taken up again, with their QoS 1; `None` if there is none.
    pub(crate) resumed: Option<HashMap<ShortId, bool>>,
    /// What is granted of the session expiry that was asked for.
    pub(crate) session_expiry_s: u32,
}

/// What the rim has to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Send(Outbound),
    /// Ask the gatekeeper, open or resume the session, then call [`Session::admitted`].
    Authenticate(Box<Asked>),
    /// Decide these bytes, then call [`Session::decided`].
    Take {
        device: ShortId,
        payload: Bytes,
    },
    Subscribe {
        device: ShortId,
        at_least_once: bool,
        send_latest: bool,
    },
    Unsubscribe {
        device: ShortId,
    },
    /// A will came with `CONNECT` and will never be published.
    WillIgnored,
    End(End),
}

/// What a `CONNECT` asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    /// Brought by the client, or assigned.
    pub(crate) client_id: String,
    pub(crate) username: Option<String>,
    pub(crate) password: Option<String>,
    pub(crate) clean: bool,
    pub(crate) session_expiry_s: u32,
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
    unacked_verdicts: HashMap<u16, (ShortId, Standing)>,
    next_pkid: u16,
    /// What each alias stands for; `None` for a topic that is none of ours.
    aliases: HashMap<u16, Option<ShortId>>,
    session_expiry_s: u32,
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
        let client_id = match hello.client_id.is_empty() {
            true => self.assigned_client_id.clone(),
            false => hello.client_id.clone(),
        };
        actions.push(Action::Authenticate(Box::new(Asked {
            client_id,
            username: hello.username.clone(),
            password: hello.password.clone(),
            clean: hello.clean,
            session_expiry_s: hello.session_expiry_s,
        })));
        self.state = State::Asking(Box::new(hello));
        actions
    }

    /// The answer to [`Action::Authenticate`].
    pub(crate) fn admitted(&mut self, answer: Result<Admitted, ()>) -> Vec<Action> {
        let State::Asking(hello) = std::mem::replace(&mut self.state, State::Fresh) else {
            return vec![Action::End(End::Protocol("nobody asked"))];
        };
        let Ok(admitted) = answer else { return refuse(Refusal::Credentials) };
        let max = self.limits.keep_alive_s_max;
        let imposed = (hello.keep_alive_s == 0 || hello.keep_alive_s > max).then_some(max);
        self.keep_alive_s = imposed.unwrap_or(hello.keep_alive_s);
        let welcome = Welcome {
            session_present: admitted.resumed.is_some(),
            session_expiry_s: admitted.session_expiry_s,
            topic_alias_max: self.limits.topic_alias_max,
            receive_max: self.limits.receive_max,
            packet_bytes_max: self.limits.packet_bytes_max,
            keep_alive_s: imposed,
            assigned_client_id: hello.client_id.is_empty().then(|| self.assigned_client_id.clone()),
        };
        let mut actions = vec![Action::Send(Outbound::ConnAck(Box::new(welcome)))];
        // What the identity may see may have changed since the session was left.
        let (subscriptions, lost): (HashMap<ShortId, bool>, HashMap<ShortId, bool>) = admitted
            .resumed
            .unwrap_or_default()
            .into_iter()
            .partition(|(device, _)| admitted.allowed.permits(device));
        actions.extend(lost.into_keys().map(|device| Action::Unsubscribe { device }));
        self.state = State::Open(Open {
            allowed: admitted.allowed,
            reasons_wanted: hello.reasons_wanted,
            receive_max: usize::from(hello.receive_max).min(UNACKED_VERDICTS_MAX),
            unanswered: VecDeque::new(),
            unanswered_acks: 0,
            subscriptions,
            unacked_verdicts: HashMap::new(),
            next_pkid: 0,
            aliases: HashMap::new(),
            session_expiry_s: admitted.session_expiry_s,
        });
        actions
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
    pub(crate) fn verdict(&mut self, device: ShortId, standing: Standing) -> Option<Outbound> {
        let State::Open(open) = &mut self.state else { return None };
        let at_least_once = *open.subscriptions.get(&device)?;
        let payload = standing.message();
        let pkid = at_least_once.then(|| open.take_pkid());
        if let Some(pkid) = pkid {
            open.unacked_verdicts.insert(pkid, (device, standing));
        }
        Some(Outbound::Publish { topic: verdict_topic(&device), pkid, payload })
    }

    /// A verdict message could not be sent after all: its packet id is free again.
    pub(crate) fn verdict_unsent(&mut self, packet: &Outbound) {
        if let (State::Open(open), Outbound::Publish { pkid: Some(pkid), .. }) = (&mut self.state, packet) {
            open.unacked_verdicts.remove(pkid);
        }
    }

    /// The verdicts that were sent and never acknowledged: a session that is kept says them again.
    pub(crate) fn take_unacked(&mut self) -> Vec<(ShortId, Standing)> {
        match &mut self.state {
            State::Open(open) => open.unacked_verdicts.drain().map(|(_, verdict)| verdict).collect(),
            _ => Vec::new(),
        }
    }

    /// Seconds that the session outlives the connection.
    pub(crate) fn session_expiry_s(&self) -> u32 {
        match &self.state {
            State::Open(open) => open.session_expiry_s,
            _ => 0,
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
            Inbound::Disconnect { session_expiry_s } => self.disconnect(session_expiry_s),
            Inbound::Connect(_) => vec![Action::End(End::Protocol("CONNECT comes first and once"))],
        }
    }

    fn publish(&mut self, publish: Publish, version: Version, limits: &Limits) -> Vec<Action> {
        if publish.retain && version == Version::V5 {
            return vec![Action::End(End::Retain)];
        }
        if publish.pkid.is_some() {
            if version == Version::V5 && self.unanswered_acks >= usize::from(limits.receive_max) {
                return vec![Action::End(End::ReceiveMax)];
            }
            self.unanswered_acks += 1;
        }
        let device = match self.resolve(&publish, limits) {
            Ok(device) => device,
            Err(end) => return vec![Action::End(end)],
        };
        let (ack, end) = match device {
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

    /// The device of a publish, by its topic or by what its alias was set to; `None` for a topic that is none of ours.
    fn resolve(&mut self, publish: &Publish, limits: &Limits) -> Result<Option<ShortId>, End> {
        let Some(alias) = publish.alias else { return Ok(frames_device(&publish.topic)) };
        if alias == 0 || alias > limits.topic_alias_max {
            return Err(End::TopicAlias);
        }
        if publish.topic.is_empty() {
            return self.aliases.get(&alias).copied().ok_or(End::TopicAlias);
        }
        let device = frames_device(&publish.topic);
        self.aliases.insert(alias, device);
        Ok(device)
    }

    fn disconnect(&mut self, session_expiry_s: Option<u32>) -> Vec<Action> {
        if let Some(wanted) = session_expiry_s {
            if wanted > 0 && self.session_expiry_s == 0 {
                return vec![Action::End(End::Protocol("a session expiry where CONNECT had none"))];
            }
            // Never longer than what CONNACK granted.
            self.session_expiry_s = self.session_expiry_s.min(wanted);
        }
        vec![Action::End(End::Client)]
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
            after.push(Action::Subscribe { device, at_least_once: filter.at_least_once, send_latest });
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
            if !self.unacked_verdicts.contains_key(&self.next_pkid) {
                return self.next_pkid;
            }
        }
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
