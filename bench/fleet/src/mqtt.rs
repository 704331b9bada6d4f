//! The same sender over MQTT 5, QoS 1: one frame a publish, kept until its PUBACK, because vitalog's PUBACK means decided
//! and durable. A refusal's code is in the PUBACK's reason; codes of accepted frames (`DUP`, `CLOCK`, ...) come on
//! the verdict topic.
//!
//! After any failure the connection is thrown away and every frame without a PUBACK is published again, in order.
//! No TLS: it is for loopback and for a proxy beside it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rumqttc::Outgoing;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, PubAck, PubAckReason};
use rumqttc::v5::{Client, Connection, ConnectionError, Event, MqttOptions};
use schemas_frame::{Code, Frame};
use schemas_identity::{BootId, ShortId};
use serde::Deserialize;

use crate::send::{BACKOFF_FIRST, BACKOFF_MAX, SendError, Tally};

/// Publishes without a PUBACK at any time. Below the 64 exceptions a verdict message holds, so none is lost.
const WINDOW: usize = 32;
/// How long the verdict topic must be silent, after the last PUBACK, before accepted frames count as told.
const QUIET: Duration = Duration::from_millis(300);
/// How long one look at the connection takes while answers are outstanding; connecting has to fit in it.
const LOOK: Duration = Duration::from_secs(10);
/// Largest message taken from the server: a verdict with all its gaps and exceptions.
const INCOMING_BYTES_MAX: u32 = 1 << 20;
const KEEP_ALIVE: Duration = Duration::from_secs(30);
const MQTT_PORT: u16 = 1883;

/// How to connect.
#[derive(Debug, Clone)]
pub struct MqttSendOptions {
    /// Client id; each connection of a server needs its own.
    pub client_id: String,
    /// User name and password: a short id or gateway did, and a token of scope `publish`.
    pub login: Option<(String, String)>,
    /// Give up after so long without any progress.
    pub patience: Duration,
}

impl Default for MqttSendOptions {
    fn default() -> Self {
        let client_id = format!("fleet-{}", std::process::id());
        Self { client_id, login: None, patience: Duration::from_secs(120) }
    }
}

/// Sends over MQTT.
#[derive(Debug)]
pub struct MqttSender {
    host: String,
    port: u16,
    options: MqttSendOptions,
}

/// What names a frame in verdicts.
type Key = (ShortId, BootId, u64);

#[derive(Deserialize)]
struct VerdictMessage {
    exceptions: Vec<Exception>,
}

#[derive(Deserialize)]
struct Exception {
    boot: Option<BootId>,
    seq: Option<u64>,
    code: Code,
}

/// One call of [`MqttSender::send`]: what is known of each frame.
struct Run<'f> {
    frames: &'f [Vec<u8>],
    keys: Vec<Option<Key>>,
    codes: Vec<Option<Code>>,
    by_key: HashMap<Key, Vec<usize>>,
    unsent: VecDeque<usize>,
    queued: VecDeque<usize>,
    by_packet: HashMap<u16, usize>,
}

impl MqttSender {
    /// A sender to `HOST:PORT` or `mqtt://HOST:PORT`; the port is 1883 if left out.
    pub fn new(address: &str, options: MqttSendOptions) -> MqttSender {
        let address = address.strip_prefix("mqtt://").unwrap_or(address).trim_end_matches('/');
        let (host, port) = match address.rsplit_once(':') {
            Some((host, port)) => (host, port.parse().unwrap_or(MQTT_PORT)),
            None => (address, MQTT_PORT),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        MqttSender { host, port, options }
    }

    /// Sends frames in order until each has a verdict; `progress` is told how many more have one.
    ///
    /// # Errors
    /// When the server does not admit this client, or nothing moved for as long as the options' patience.
    pub fn send(&self, frames: &[Vec<u8>], progress: &mut dyn FnMut(u64)) -> Result<Tally, SendError> {
        let mut run = Run::new(frames);
        let (mut retries, mut since, mut backoff) = (0, Instant::now(), BACKOFF_FIRST);
        while run.settled() < frames.len() {
            let before = run.settled();
            let Err(problem) = self.converse(&mut run, progress) else { continue };
            if let Problem::NotAdmitted(problem) = problem {
                return Err(SendError::NotAdmitted { problem });
            }
            if run.settled() > before {
                (since, backoff) = (Instant::now(), BACKOFF_FIRST);
            }
            if since.elapsed() > self.options.patience {
                let problem = problem.to_string();
                return Err(SendError::GaveUp { seconds: since.elapsed().as_secs(), problem });
            }
            retries += 1;
            run.rewind();
            sleep(backoff);
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
        Ok(run.tally(retries))
    }

    /// One connection, until every frame is settled and its codes are told, or something fails.
    fn converse(&self, run: &mut Run<'_>, progress: &mut dyn FnMut(u64)) -> Result<(), Problem> {
        let (client, mut connection) = self.connect();
        let devices: HashSet<ShortId> = run.keys.iter().flatten().map(|key| key.0).collect();
        let mut topics: Vec<String> = devices.iter().map(|device| format!("v1/d/{device}/verdict")).collect();
        let mut since = Instant::now();
        loop {
            // One subscription at a time: the request channel is bounded and nobody reads it while we fill it.
            match topics.pop() {
                Some(topic) => client.try_subscribe(topic, QoS::AtMostOnce).map_err(Problem::client)?,
                None => run.publish(&client)?,
            }
            let done = run.settled() == run.frames.len();
            match connection.recv_timeout(if done { QUIET } else { LOOK }) {
                Ok(Ok(event)) => {
                    let before = run.settled();
                    run.take(&event)?;
                    let more = run.settled() - before;
                    if more > 0 {
                        since = Instant::now();
                        progress(more as u64);
                    }
                }
                // Every frame is settled: a connection lost now costs at most the distinction of OK and DUP.
                _ if done => {
                    let _ = client.try_disconnect();
                    let _ = connection.recv_timeout(QUIET);
                    return Ok(());
                }
                Ok(Err(ConnectionError::ConnectionRefused(code))) => {
                    return Err(Problem::NotAdmitted(format!("{code:?}")));
                }
                Ok(Err(error)) => return Err(Problem::Connection(error.to_string())),
                Err(_) if since.elapsed() > self.options.patience => {
                    return Err(Problem::Connection("no PUBACK".to_owned()));
                }
                Err(_) => {}
            }
        }
    }

    fn connect(&self) -> (Client, Connection) {
        let mut options = MqttOptions::new(&self.options.client_id, &self.host, self.port);
        options.set_keep_alive(KEEP_ALIVE).set_max_packet_size(Some(INCOMING_BYTES_MAX));
        if let Some((user, password)) = &self.options.login {
            options.set_credentials(user, password);
        }
        Client::new(options, 2 * WINDOW)
    }
}

/// Why one connection ended.
#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error("not admitted: {0}")]
    NotAdmitted(String),
    #[error("{0}")]
    Connection(String),
}

impl Problem {
    fn client(error: rumqttc::v5::ClientError) -> Problem {
        Problem::Connection(error.to_string())
    }
}

impl<'f> Run<'f> {
    fn new(frames: &'f [Vec<u8>]) -> Run<'f> {
        let mut by_key: HashMap<Key, Vec<usize>> = HashMap::new();
        let mut keys = Vec::with_capacity(frames.len());
        for (index, bytes) in frames.iter().enumerate() {
            let key = Frame::parse(bytes).ok().map(|frame| (frame.kid(), frame.boot(), frame.seq()));
            if let Some(key) = key {
                by_key.entry(key).or_default().push(index);
            }
            keys.push(key);
        }
        Run {
            frames,
            keys,
            codes: vec![None; frames.len()],
            by_key,
            unsent: (0..frames.len()).collect(),
            queued: VecDeque::new(),
            by_packet: HashMap::new(),
        }
    }

    fn settled(&self) -> usize {
        self.frames.len() - self.unsent.len() - self.queued.len() - self.by_packet.len()
    }

    /// What was published without an answer must be published again, before what was never published.
    fn rewind(&mut self) {
        self.queued.clear();
        self.by_packet.clear();
        self.unsent = (0..self.frames.len()).filter(|index| self.codes[*index].is_none()).collect();
    }

    fn publish(&mut self, client: &Client) -> Result<(), Problem> {
        while self.queued.len() + self.by_packet.len() < WINDOW {
            let Some(index) = self.unsent.pop_front() else { break };
            // Bytes that are no frame name no device; they go where the neighbours go.
            let device = self.keys[index].or_else(|| self.keys.iter().flatten().next().copied());
            let device = device.map_or(ShortId([0; 8]), |key| key.0);
            let topic = format!("v1/d/{device}/frames");
            let payload = self.frames[index].clone();
            client.try_publish(topic, QoS::AtLeastOnce, false, payload).map_err(Problem::client)?;
            self.queued.push_back(index);
        }
        Ok(())
    }

    fn take(&mut self, event: &Event) -> Result<(), Problem> {
        match event {
            Event::Outgoing(Outgoing::Publish(packet)) => {
                if let Some(index) = self.queued.pop_front() {
                    self.by_packet.insert(*packet, index);
                }
            }
            Event::Incoming(Packet::PubAck(ack)) => {
                if let Some(index) = self.by_packet.remove(&ack.pkid) {
                    self.codes[index] = Some(code_of(ack)?);
                }
            }
            Event::Incoming(Packet::Publish(publish)) => self.told(&publish.topic, &publish.payload),
            Event::Incoming(Packet::Disconnect(farewell)) => {
                return Err(Problem::Connection(format!("the server closed: {:?}", farewell.reason_code)));
            }
            _ => {}
        }
        Ok(())
    }

    /// A verdict message: it refines frames that a PUBACK has accepted. Others are of earlier runs or were refused.
    fn told(&mut self, topic: &[u8], payload: &[u8]) {
        let topic = String::from_utf8_lossy(topic);
        let Some(Ok(device)) = topic.split('/').nth(2).map(str::parse::<ShortId>) else { return };
        let Ok(message) = serde_json::from_slice::<VerdictMessage>(payload) else { return };
        for exception in message.exceptions.into_iter().filter(|exception| exception.code.is_accepted()) {
            let (Some(boot), Some(seq)) = (exception.boot, exception.seq) else { continue };
            let indices = self.by_key.get(&(device, boot, seq)).map_or(&[][..], Vec::as_slice);
            let codes = &self.codes;
            if let Some(index) = indices.iter().rev().find(|index| codes[**index] == Some(Code::Ok)) {
                self.codes[*index] = Some(exception.code);
            }
        }
    }

    fn tally(&self, retries: u64) -> Tally {
        let mut tally = Tally { retries, ..Tally::default() };
        for (code, frame) in self.codes.iter().zip(self.frames) {
            let Some(code) = code else { continue };
            *tally.by_code.entry(*code).or_default() += 1;
            tally.frames += 1;
            tally.bytes += frame.len() as u64;
        }
        tally
    }
}

/// The code a PUBACK stands for. A refusal's exact code opens its reason string; without one, its class tells.
fn code_of(ack: &PubAck) -> Result<Code, Problem> {
    let reason = ack.properties.as_ref().and_then(|properties| properties.reason_string.as_deref());
    let named = reason.and_then(|reason| reason.split(':').next()).and_then(|code| code.parse().ok());
    match (ack.reason, named) {
        (PubAckReason::Success | PubAckReason::NoMatchingSubscribers, _) => Ok(Code::Ok),
        (_, Some(code)) => Ok(code),
        (PubAckReason::PayloadFormatInvalid, None) => Ok(Code::Decode),
        (PubAckReason::TopicNameInvalid, None) => Ok(Code::TopicMismatch),
        (PubAckReason::NotAuthorized, None) => Ok(Code::SigBad),
        (reason, None) => Err(Problem::Connection(format!("PUBACK {reason:?} names no code"))),
    }
}

#[cfg(test)]
mod tests;
