//! One MQTT socket: reads packets, performs the session's actions, keeps the deadlines.
//!
//! One task, one loop, one event at a time. What bounds it: the read buffer (one packet), the write buffer
//! ([`OUT_FULL`], then nothing is read), the publishes in flight, the outbox. Reading stops, and with it the client's
//! clock, while a publish waits for room.

mod ending;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use schemas_frame::Code;
use schemas_identity::{Did, ShortId};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::deliveries::{Deliveries, Gone, Settled};
use super::end::End;
use super::endpoint::{Admittance, Credentials, Shared};
use super::guard::{Framing, frame};
use super::hub::ConnectionId;
use super::inbound::{Version, decode};
use super::lease::Tenancy;
use super::outbound::{Outbound, encode};
use super::session::{Action, Admitted, Asked, Limits, Session};
use super::sessions::{ClientKey, Kept};
use super::verdict::{Standing, ack_of};
use crate::admission::{Allowed, Door, Reply, Via};
use crate::cut::{Cut, cut};
use crate::room::Share;

/// Bytes asked of the socket at a time: follows what comes. An idle connection holds the least.
const READ_BYTES_MIN: usize = 512;
const READ_BYTES_MAX: usize = 64 * 1024;
/// A packet above this must have a share of the room for arriving packets.
const PACKET_BYTES_SMALL: usize = 64 * 1024 + 1024;
/// A write buffer above this is given back when it is empty.
const OUT_BYTES_KEPT: usize = 1024;
/// No verdict message is added above this many unwritten bytes.
const OUT_BUSY: usize = 64 * 1024;
/// Nothing is read above this many unwritten bytes.
const OUT_FULL: usize = 256 * 1024;
/// First and longest pause between two offers under pressure.
const RETRY_MIN: Duration = Duration::from_millis(2);
const RETRY_MAX: Duration = Duration::from_millis(200);
/// Since when a publish, or a large packet, waits for room.
#[derive(Debug, Clone, Copy)]
struct Blocked {
    since: Instant,
    retry_at: Instant,
    pause: Duration,
}

enum Event {
    Stop,
    TakenOver,
    Wrote(io::Result<usize>),
    Flushed(io::Result<()>),
    Answer(Result<Reply, Gone>),
    Read(io::Result<usize>),
    Outbox,
    Time,
}

/// A connection and all it holds.
pub(crate) struct Connection<S> {
    shared: Arc<Shared>,
    id: ConnectionId,
    peer: SocketAddr,
    /// Who the client's certificate says it is.
    certificate: Option<Did>,
    reader: ReadHalf<S>,
    writer: WriteHalf<S>,
    session: Session,
    input: BytesMut,
    read_bytes: usize,
    out: BytesMut,
    unflushed: bool,
    /// The share of a large packet that is arriving, and since when.
    arriving: Option<(Share, Instant)>,
    starved: bool,
    deliveries: Deliveries,
    blocked: Option<Blocked>,
    /// The session; an empty one of nobody's until the client is admitted.
    kept: Arc<Kept>,
    stop: CancellationToken,
    stopping_since: Option<Instant>,
    taken_over: CancellationToken,
    client: Option<ClientKey>,
    /// Whether what the client came with still holds.
    tenancy: Tenancy,
    opened_at: Instant,
    heard_at: Instant,
    wrote_at: Instant,
}

impl<S: AsyncRead + AsyncWrite + Send> Connection<S> {
    pub(crate) fn new(
        shared: Arc<Shared>,
        stream: S,
        (id, peer, certificate): (ConnectionId, SocketAddr, Option<Did>),
        stop: CancellationToken,
    ) -> Self {
        let (reader, writer) = tokio::io::split(stream);
        let options = &shared.options;
        let limits = Limits {
            packet_bytes_max: options.packet_bytes_max,
            receive_max: options.receive_max.max(1),
            subscriptions_max: options.subscriptions_max,
            keep_alive_s_max: options.keep_alive_s_max,
            topic_alias_max: options.topic_alias_max,
        };
        let now = Instant::now();
        Self {
            session: Session::new(limits, format!("{}-{id}", shared.assigned_prefix)),
            shared,
            id,
            peer,
            certificate,
            reader,
            writer,
            input: BytesMut::new(),
            read_bytes: READ_BYTES_MIN,
            out: BytesMut::new(),
            unflushed: false,
            arriving: None,
            starved: false,
            deliveries: Deliveries::default(),
            blocked: None,
            kept: Kept::nobodys(),
            stop,
            stopping_since: None,
            taken_over: CancellationToken::new(),
            client: None,
            tenancy: Tenancy::default(),
            opened_at: now,
            heard_at: now,
            wrote_at: now,
        }
    }

    /// Serves the client until it or we end it. Whatever was taken is still decided, counted and published after
    /// the client has gone.
    pub(crate) async fn run(mut self) {
        let end = loop {
            if let Err(end) = self.turn().await {
                break end;
            }
        };
        let metrics = Arc::clone(&self.shared.options.metrics);
        match self.session.is_open() {
            true => metrics.disconnected(end.label()),
            false => metrics.refused(Door::Mqtt, end.label()),
        }
        tracing::debug!(peer = %self.peer, reason = end.label(), "MQTT connection ended");
        self.leave();
        self.farewell(end).await;
        self.finish().await;
    }

    async fn turn(&mut self) -> Result<(), End> {
        let now = Instant::now();
        self.tenancy.look(now, self.shared.options.lease_every)?;
        self.process()?;
        self.send_verdicts();
        self.note_blocking(now);
        if !self.may_take() {
            self.heard_at = now;
        }
        if self.stopping_since.is_some()
            && self.deliveries.is_stuck()
            && self.out.is_empty()
            && !self.unflushed
        {
            return Err(End::Shutdown);
        }
        match self.event().await {
            Event::Stop => self.stopping_since = Some(Instant::now()),
            Event::TakenOver => return Err(End::TakenOver),
            Event::Wrote(written) => self.wrote(written)?,
            Event::Flushed(flushed) => {
                flushed.map_err(|_| End::Io)?;
                self.unflushed = false;
            }
            Event::Answer(answer) => self.answered(answer)?,
            Event::Read(read) => self.read(read)?,
            Event::Outbox => {}
            Event::Time => self.on_time(Instant::now())?,
        }
        Ok(())
    }

    async fn event(&mut self) -> Event {
        let may_read = self.may_take();
        let may_publish = self.may_publish();
        let deadline = self.deadline();
        let stopping = self.stopping_since.is_some();
        if may_read {
            self.input.reserve(self.read_bytes);
        }
        let Self { reader, writer, input, out, unflushed, deliveries, kept, stop, taken_over, .. } = self;
        tokio::select! {
            biased;
            () = taken_over.cancelled() => Event::TakenOver,
            () = stop.cancelled(), if !stopping => Event::Stop,
            answer = deliveries.answer() => Event::Answer(answer),
            moved = move_out(writer, out), if !out.is_empty() || *unflushed => moved,
            read = reader.read_buf(input), if may_read => Event::Read(read),
            () = kept.outbox.ready.notified(), if may_publish => Event::Outbox,
            () = sleep_until(deadline) => Event::Time,
        }
    }

    /// Whether another packet may be taken from the buffer or the socket.
    fn may_take(&self) -> bool {
        self.stopping_since.is_none()
            && !self.starved
            && !self.deliveries.is_blocked()
            && self.deliveries.len() < self.shared.options.inflight_max.max(1)
            && self.out.len() < OUT_FULL
    }

    fn may_publish(&self) -> bool {
        self.out.len() < OUT_BUSY && self.session.may_send_verdict()
    }

    /// Takes whole packets off the buffer for as long as that is allowed.
    fn process(&mut self) -> Result<(), End> {
        let processed = self.process_packets();
        // What came before a farewell, or before a packet that is none, is still decided.
        let offered = self.deliveries.flush(&self.shared.admission).map_err(|Gone| End::Shutdown);
        if offered == Ok(false) {
            self.shared.options.metrics.pressure(Door::Mqtt);
        }
        processed.and(offered.map(|_| ()))
    }

    fn process_packets(&mut self) -> Result<(), End> {
        while self.may_take() {
            let bytes_max = self.shared.options.packet_bytes_max as usize;
            match frame(&self.input, self.session.greeted(), bytes_max)? {
                Framing::Incomplete { total } => {
                    self.expect(total.unwrap_or_default());
                    break;
                }
                Framing::Whole { kind, header, total } => {
                    let packet = self.input.split_to(total);
                    self.arriving = None;
                    let packet = decode(kind, header, packet, self.session.version())?;
                    let actions = self.session.on(packet);
                    self.perform(actions)?;
                }
            }
        }
        if self.input.is_empty() && self.input.capacity() > self.read_bytes * 4 {
            self.input = BytesMut::new();
        }
        Ok(())
    }

    /// A packet of `total` bytes is on its way; a large one needs a share of the room.
    fn expect(&mut self, total: usize) {
        if total <= PACKET_BYTES_SMALL || self.arriving.is_some() {
            return;
        }
        let mut share = self.shared.room.share();
        if share.grow(total as u64) {
            self.arriving = Some((share, Instant::now()));
        } else {
            self.starved = true;
        }
    }

    fn perform(&mut self, actions: Vec<Action>) -> Result<(), End> {
        for action in actions {
            match action {
                Action::Send(packet) => self.send(&packet),
                Action::End(end) => return Err(end),
                Action::WillIgnored => self.shared.options.metrics.wills_ignored.inc(),
                Action::Authenticate(asked) => {
                    let answer = self.authenticate(&asked);
                    let actions = self.session.admitted(answer);
                    self.perform(actions)?;
                }
                Action::Take { device, payload } => self.take(device, &payload),
                Action::Subscribe { device, at_least_once, send_latest } => {
                    self.kept.subscribe(&self.shared.hub, device, at_least_once, send_latest);
                }
                Action::Unsubscribe { device } => self.kept.unsubscribe(&self.shared.hub, &device),
            }
        }
        Ok(())
    }

    fn authenticate(&mut self, asked: &Asked) -> Result<Admitted, ()> {
        let credentials = Credentials {
            username: asked.username.as_deref(),
            password: asked.password.as_deref().map(str::as_bytes),
            certificate: self.certificate.as_ref(),
        };
        let Admittance { allowed, identity, lease } = self.shared.gatekeeper.admit(&credentials)?;
        self.tenancy = Tenancy::new(lease, self.shared.options.lease_every);
        let version = self.session.version().map_or("", Version::label);
        self.shared.options.metrics.admitted(version);
        let client: ClientKey = (identity, asked.client_id.clone());
        let (shared, end) = (&self.shared, self.taken_over.clone());
        let opened =
            shared.sessions.open(client.clone(), asked, (self.id, end), (&shared.hub, Instant::now()));
        if opened.resumed.is_some() {
            shared.options.metrics.sessions_resumed.inc();
        }
        self.client = Some(client);
        self.kept = opened.kept;
        Ok(Admitted { allowed, resumed: opened.resumed, session_expiry_s: opened.expiry_s })
    }

    fn take(&mut self, device: ShortId, payload: &bytes::Bytes) {
        let options = &self.shared.options;
        options.metrics.body(Door::Mqtt, payload.len());
        let cut = cut(payload, Some(device), options.frames_max)
            .unwrap_or_else(|error| Cut::refused(Code::TooBig, error.to_string()));
        let allowed = self.session.allowed().cloned().unwrap_or(Allowed::Only(Arc::default()));
        let via = Via { door: Door::Mqtt, peer: Some(self.peer), allowed, topic_device: Some(device) };
        self.deliveries.take_later(via, device, cut);
    }

    fn answered(&mut self, answer: Result<Reply, Gone>) -> Result<(), End> {
        let mut next = Some(answer);
        while let Some(answer) = next {
            let reply = answer.map_err(|Gone| End::Shutdown)?;
            match self.deliveries.settle(reply).map_err(|Gone| End::Shutdown)? {
                Some(settled) => {
                    let (ack, hint) = ack_of(&settled.verdicts);
                    tell(&self.shared, &settled);
                    let actions = self.session.decided(ack, hint);
                    self.perform(actions)?;
                }
                None => self.shared.options.metrics.pressure(Door::Mqtt),
            }
            next = self.deliveries.answer_now();
        }
        Ok(())
    }

    fn send_verdicts(&mut self) {
        while self.may_publish() {
            let Some((device, standing)) = self.kept.outbox.pop() else { break };
            let bare = Standing { exceptions: VecDeque::new(), gaps: Vec::new(), ..standing };
            let exceptions = standing.exceptions.len();
            let Some(packet) = self.session.verdict(device, standing) else { continue };
            if self.push(&packet) {
                self.shared.options.metrics.verdicts_sent.inc();
                continue;
            }
            // Over the client's own maximum: the position alone is better than nothing.
            self.session.verdict_unsent(&packet);
            self.shared.options.metrics.exceptions_dropped.inc_by(exceptions as u64);
            if let Some(packet) = self.session.verdict(device, bare)
                && !self.push(&packet)
            {
                self.session.verdict_unsent(&packet);
            }
        }
    }

    fn send(&mut self, packet: &Outbound) {
        if self.push(packet) {
            return;
        }
        if let Outbound::PubAck { pkid, ack, hint: Some(_) } = packet {
            self.push(&Outbound::PubAck { pkid: *pkid, ack: *ack, hint: None });
        }
    }

    fn push(&mut self, packet: &Outbound) -> bool {
        if self.out.is_empty() && !self.unflushed {
            self.wrote_at = Instant::now();
        }
        let version = self.session.version().unwrap_or(Version::V4);
        encode(packet, version, self.session.packet_bytes_max(), &mut self.out)
    }

    fn wrote(&mut self, written: io::Result<usize>) -> Result<(), End> {
        match written {
            Ok(0) | Err(_) => Err(End::Io),
            Ok(count) => {
                self.out.advance(count.min(self.out.len()));
                if self.out.is_empty() && self.out.capacity() > OUT_BYTES_KEPT {
                    self.out = BytesMut::new();
                }
                self.unflushed = true;
                self.wrote_at = Instant::now();
                Ok(())
            }
        }
    }

    fn read(&mut self, read: io::Result<usize>) -> Result<(), End> {
        match read {
            Ok(0) | Err(_) => Err(End::Io),
            Ok(count) => {
                self.heard_at = Instant::now();
                // What came last, doubled if it filled the buffer: an idle connection waits with a small one.
                let next = if count >= self.read_bytes { count * 2 } else { count.next_power_of_two() };
                self.read_bytes = next.clamp(READ_BYTES_MIN, READ_BYTES_MAX);
                Ok(())
            }
        }
    }

    fn note_blocking(&mut self, now: Instant) {
        let is_blocked = self.starved || self.deliveries.is_blocked();
        match (is_blocked, self.blocked) {
            (true, None) => {
                self.blocked = Some(Blocked { since: now, retry_at: now + RETRY_MIN, pause: RETRY_MIN });
            }
            (false, Some(_)) => self.blocked = None,
            _ => {}
        }
    }

    /// The next moment at which something is due.
    fn deadline(&self) -> Instant {
        let options = &self.shared.options;
        let mut deadline = match self.session.is_open() {
            true => self.heard_at + self.silence_max(),
            false => self.opened_at + options.connect_timeout,
        };
        if !self.out.is_empty() || self.unflushed {
            deadline = deadline.min(self.wrote_at + options.write_timeout);
        }
        if let Some((_, since)) = self.arriving {
            deadline = deadline.min(since + options.packet_timeout);
        }
        if let Some(blocked) = self.blocked {
            deadline = deadline.min(blocked.retry_at);
        }
        if let Some(since) = self.stopping_since {
            deadline = deadline.min(since + options.drain_timeout);
        }
        if let Some(look) = self.tenancy.next_look() {
            deadline = deadline.min(look);
        }
        deadline
    }

    /// 1.5 times the keep-alive.
    fn silence_max(&self) -> Duration {
        Duration::from_millis(u64::from(self.session.keep_alive_s()) * 1_500)
    }

    fn on_time(&mut self, now: Instant) -> Result<(), End> {
        let options = &self.shared.options;
        if self.stopping_since.is_some_and(|since| now >= since + options.drain_timeout) {
            return Err(End::Shutdown);
        }
        if (!self.out.is_empty() || self.unflushed) && now >= self.wrote_at + options.write_timeout {
            return Err(End::Slow);
        }
        if !self.session.is_open() && now >= self.opened_at + options.connect_timeout {
            return Err(End::ConnectTimeout);
        }
        if self.session.is_open() && now >= self.heard_at + self.silence_max() {
            return Err(End::KeepAlive);
        }
        if self.arriving.as_ref().is_some_and(|(_, since)| now >= *since + options.packet_timeout) {
            return Err(End::PacketTimeout);
        }
        match self.blocked {
            Some(blocked) if now >= blocked.retry_at => self.offer_again(blocked, now),
            _ => Ok(()),
        }
    }

    fn offer_again(&mut self, blocked: Blocked, now: Instant) -> Result<(), End> {
        if now >= blocked.since + self.shared.options.pressure_patience {
            return Err(End::Pressure);
        }
        let pause = (blocked.pause * 2).min(RETRY_MAX);
        self.blocked = Some(Blocked { pause, retry_at: now + pause, ..blocked });
        self.starved = false;
        self.deliveries.retry(&self.shared.admission).map_err(|Gone| End::Shutdown)
    }
}

/// Counts a settled publish and tells the device's subscribers.
fn tell(shared: &Shared, settled: &Settled) {
    shared.options.metrics.verdicts(Door::Mqtt, &settled.verdicts);
    let report = settled.reply.reports.iter().find(|report| report.device == settled.device);
    let standing = Standing::of(report, &settled.verdicts, (shared.options.clock)());
    shared.hub.publish(settled.device, standing);
}

/// Writes a part of `out`, or flushes when there is nothing more to write. Safe to give up.
async fn move_out<W: AsyncWrite + Unpin>(writer: &mut W, out: &BytesMut) -> Event {
    match out.is_empty() {
        false => Event::Wrote(writer.write(out).await),
        true => Event::Flushed(writer.flush().await),
    }
}
