//! A publisher that costs less than what it measures: sockets without a runtime, packets by hand, one write per window.
//!
//! | limit | value | beyond it |
//! |---|---|---|
//! | publishes without an answer | the window, or the server's receive maximum | wait until a quarter of it is free |
//! | bytes encoded and not yet written | `OUT_BYTES_MAX` | wait |
//! | time without any answer | [`super::STALL_MAX`] | the run ends with a problem |

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use super::{Lap, Pace, STALL_MAX, Schedule, Verdicts, topics};
use crate::corpus::Corpus;
use crate::process::nanos;
use crate::wire::{self, Heard};

/// Bytes that may wait for the socket.
const OUT_BYTES_MAX: usize = 256 << 10;
/// Room for answers: what is read at a time.
const IN_BYTES: usize = 64 << 10;
/// Longest silence between looks at the clock.
const LOOK_MAX: Duration = Duration::from_millis(100);
/// Longest wait for `CONNACK`.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// No keep-alive is needed by those who always send.
const KEEP_ALIVE_S: u16 = 600;
const EVENTS: usize = 1_024;

/// Where to publish, and how.
#[derive(Debug, Clone)]
pub struct MqttLoad {
    /// The MQTT door.
    pub address: SocketAddr,
    /// Connections.
    pub connections: usize,
    /// Publishes of a connection without an answer.
    pub window: u16,
    /// Threads that share the connections.
    pub threads: usize,
    /// When.
    pub pace: Pace,
}

/// Opens a connection and says `CONNECT`; gives the server's receive maximum.
///
/// # Errors
/// When the server is not there or does not admit.
pub fn open(address: SocketAddr, client_id: &str, keep_alive_s: u16) -> Result<(std::net::TcpStream, u16)> {
    let stream = std::net::TcpStream::connect_timeout(&address, CONNECT_MAX)
        .with_context(|| format!("cannot reach {address}"))?;
    let receive_max = greet(&stream, client_id, keep_alive_s)?;
    Ok((stream, receive_max))
}

/// `CONNECT` on an open socket, and the answer.
///
/// # Errors
/// When the server does not admit.
pub fn greet(mut stream: &std::net::TcpStream, client_id: &str, keep_alive_s: u16) -> Result<u16> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(CONNECT_MAX))?;
    let mut hello = Vec::new();
    wire::connect(&mut hello, client_id, keep_alive_s);
    stream.write_all(&hello)?;
    let (mut answer, mut part) = (Vec::new(), [0u8; 256]);
    loop {
        if let Some((heard, _)) = wire::hear(&answer)? {
            let Heard::Connected { receive_max } = heard else { bail!("no CONNACK but {heard:?}") };
            return Ok(receive_max);
        }
        let read = stream.read(&mut part)?;
        ensure!(read > 0, "closed before CONNACK");
        answer.extend_from_slice(&part[..read]);
    }
}

/// A publish that waits for its answer.
#[derive(Debug, Clone, Copy)]
struct Slot {
    frame: u32,
    since_ns: u64,
}

struct Connection<'l> {
    stream: TcpStream,
    lane: &'l [u32],
    next: usize,
    schedule: Schedule,
    /// By packet identifier, less one.
    slots: Vec<Slot>,
    free: Vec<u16>,
    out: Vec<u8>,
    written: usize,
    input: Vec<u8>,
    heard_to: usize,
}

/// What the connections of a thread share.
struct Shared<'c> {
    corpus: &'c Corpus,
    topics: &'c [Vec<u8>],
    verdicts: &'c Verdicts,
    started: Instant,
    limit: Option<Duration>,
    lap: Lap,
}

impl Shared<'_> {
    fn is_over(&self) -> bool {
        self.limit.is_some_and(|limit| self.started.elapsed() >= limit)
    }
}

impl<'l> Connection<'l> {
    fn open(load: &MqttLoad, name: usize, lane: &'l [u32]) -> Result<Connection<'l>> {
        let id = format!("load-{}-{name}", std::process::id());
        let (stream, receive_max) = open(load.address, &id, KEEP_ALIVE_S)?;
        stream.set_nonblocking(true)?;
        let window = load.window.clamp(1, receive_max.max(1));
        Ok(Connection {
            stream: TcpStream::from_std(stream),
            lane,
            next: 0,
            schedule: Schedule::new(load.pace, name, load.connections),
            slots: vec![Slot { frame: 0, since_ns: 0 }; usize::from(window)],
            free: (1..=window).rev().collect(),
            out: Vec::with_capacity(OUT_BYTES_MAX + (64 << 10)),
            written: 0,
            input: vec![0; IN_BYTES],
            heard_to: 0,
        })
    }

    fn waiting(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    fn is_done(&self, is_over: bool) -> bool {
        self.waiting() == 0 && (is_over || self.next == self.lane.len())
    }

    /// Without a rate, a window is filled up when a quarter of it is free: one write for many frames.
    fn has_room(&self) -> bool {
        self.schedule.interval_ns.is_some() || self.free.len() * 4 >= self.slots.len()
    }

    /// When the next frame is due, if it waits for nothing else.
    fn due_ns(&self) -> Option<u64> {
        if self.next == self.lane.len() || self.free.is_empty() {
            return None;
        }
        self.schedule.due_ns(self.next as u64)
    }

    /// Encodes what may be sent now.
    fn fill(&mut self, shared: &mut Shared<'_>) {
        if !self.has_room() {
            return;
        }
        let now_ns = nanos(shared.started.elapsed());
        while self.next < self.lane.len() && self.out.len() < OUT_BYTES_MAX {
            let due_ns = self.schedule.due_ns(self.next as u64);
            if due_ns.is_some_and(|due_ns| due_ns > now_ns) {
                break;
            }
            let Some(packet) = self.free.pop() else { break };
            let frame = self.lane[self.next];
            let payload = shared.corpus.frame(frame as usize);
            let topic = &shared.topics[shared.corpus.device(frame as usize)];
            wire::publish(&mut self.out, topic, packet, payload);
            self.slots[usize::from(packet) - 1] = Slot { frame, since_ns: due_ns.unwrap_or(now_ns) };
            self.next += 1;
            shared.lap.sent += 1;
            shared.lap.bytes += payload.len() as u64;
        }
    }

    fn flush(&mut self) -> Result<()> {
        while self.written < self.out.len() {
            match self.stream.write(&self.out[self.written..]) {
                Ok(0) => bail!("the server takes nothing more"),
                Ok(more) => self.written += more,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("cannot send"),
            }
        }
        self.out.clear();
        self.written = 0;
        Ok(())
    }

    fn read(&mut self, shared: &mut Shared<'_>) -> Result<()> {
        loop {
            let room = &mut self.input[self.heard_to..];
            let asked = room.len();
            let read = match self.stream.read(room) {
                Ok(0) => bail!("the server closed the connection"),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error).context("cannot receive"),
            };
            self.heard_to += read;
            self.hear(shared)?;
            // A short read of a stream means that it is empty, and a new event tells when it is no longer.
            if read < asked {
                return Ok(());
            }
        }
    }

    fn hear(&mut self, shared: &mut Shared<'_>) -> Result<()> {
        let (mut at, now) = (0, Instant::now());
        let now_ns = nanos(now.duration_since(shared.started));
        while let Some((heard, length)) = wire::hear(&self.input[at..self.heard_to])? {
            at += length;
            let Heard::Answered { packet, code } = heard else { continue };
            let slot = usize::from(packet).checked_sub(1).and_then(|slot| self.slots.get(slot));
            let slot = *slot.context("an answer to what was not sent")?;
            self.free.push(packet);
            ensure!(self.free.len() <= self.slots.len(), "a second answer to packet {packet}");
            shared.verdicts.set(slot.frame as usize, code);
            shared.lap.times.record(now_ns.saturating_sub(slot.since_ns), 1);
            shared.lap.last = Some(now);
        }
        self.input.copy_within(at..self.heard_to, 0);
        self.heard_to -= at;
        ensure!(self.heard_to < self.input.len(), "a packet of more than {IN_BYTES} bytes");
        Ok(())
    }
}

/// Publishes the lanes, one a connection, until all is answered, the time is over, or something fails.
///
/// # Errors
/// When the connections cannot be made; what happens later is the lap's problem.
pub fn run(corpus: &Corpus, load: &MqttLoad, lanes: &[Vec<u32>], verdicts: &Verdicts) -> Result<Lap> {
    let topics = topics(corpus);
    let mut connections = Vec::with_capacity(lanes.len());
    for (name, lane) in lanes.iter().enumerate() {
        connections.push(Connection::open(load, name, lane)?);
    }
    let started = Instant::now();
    let share = connections.len().div_ceil(load.threads.max(1)).max(1);
    let mut total = Lap::default();
    std::thread::scope(|scope| {
        let mut threads = Vec::new();
        while !connections.is_empty() {
            let part: Vec<Connection<'_>> = connections.drain(..share.min(connections.len())).collect();
            let limit = load.pace.limit;
            let lap = Lap::default();
            let shared = Shared { corpus, topics: &topics, verdicts, started, limit, lap };
            threads.push(scope.spawn(move || converse(part, shared)));
        }
        for thread in threads {
            match thread.join() {
                Ok(lap) => total.add(&lap),
                Err(_) => bail!("a publishing thread panicked"),
            }
        }
        Ok(())
    })?;
    Ok(total)
}

fn converse(mut connections: Vec<Connection<'_>>, mut shared: Shared<'_>) -> Lap {
    if let Err(problem) = publish_all(&mut connections, &mut shared) {
        shared.lap.problem = Some(format!("{problem:#}"));
    }
    for connection in &mut connections {
        connection.out.clear();
        wire::disconnect(&mut connection.out);
        let _ = connection.stream.write(&connection.out);
    }
    shared.lap
}

fn publish_all(connections: &mut [Connection<'_>], shared: &mut Shared<'_>) -> Result<()> {
    let mut poll = Poll::new()?;
    for (token, connection) in connections.iter_mut().enumerate() {
        let interest = Interest::READABLE | Interest::WRITABLE;
        poll.registry().register(&mut connection.stream, Token(token), interest)?;
    }
    let mut events = Events::with_capacity(EVENTS);
    for connection in connections.iter_mut() {
        connection.fill(shared);
        connection.flush()?;
    }
    let paced = connections.iter().any(|connection| connection.schedule.interval_ns.is_some());
    loop {
        let is_over = shared.is_over();
        if connections.iter().all(|connection| connection.is_done(is_over)) {
            return Ok(());
        }
        poll_until_due(&mut poll, &mut events, connections, shared)?;
        for event in &events {
            let Some(connection) = connections.get_mut(event.token().0) else { continue };
            connection.read(shared)?;
            if !is_over {
                connection.fill(shared);
            }
            connection.flush()?;
        }
        if paced && !is_over {
            for connection in connections.iter_mut() {
                connection.fill(shared);
                connection.flush()?;
            }
        }
        let quiet_since = shared.lap.last.unwrap_or(shared.started);
        let is_waiting = connections.iter().any(|connection| connection.waiting() > 0);
        ensure!(!is_waiting || quiet_since.elapsed() < STALL_MAX, "no answer for {} s", STALL_MAX.as_secs());
    }
}

fn poll_until_due(
    poll: &mut Poll,
    events: &mut Events,
    connections: &[Connection<'_>],
    shared: &Shared<'_>,
) -> Result<()> {
    let now_ns = nanos(shared.started.elapsed());
    let next_ns = connections.iter().filter_map(Connection::due_ns).min();
    let until = next_ns.map_or(LOOK_MAX, |due_ns| Duration::from_nanos(due_ns.saturating_sub(now_ns)));
    match poll.poll(events, Some(until.min(LOOK_MAX))) {
        Err(error) if error.kind() != ErrorKind::Interrupted => Err(error).context("cannot poll"),
        _ => Ok(()),
    }
}
