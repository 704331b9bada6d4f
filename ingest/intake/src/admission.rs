//! The admission queue: one for all doors, bounded by bytes and by frames.
//!
//! What it is: a hand-over between many doors and one pipeline thread. Room is taken when a submission is offered
//! and given back when its answer is sent (or the submission is dropped), so the bound covers what is queued *and*
//! what is being decided. `offer` never waits; it says [`Pressure`] instead.
//!
//! What it is not: it looks into no frame and orders nothing beyond first in, first out.
//!
//! The bytes of a submission may be views into one larger buffer (a body, a socket read). Whoever keeps a frame
//! longer than the answer should copy it, or one small frame keeps the whole buffer alive.

use std::collections::{HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use schemas_frame::{DeviceReport, Verdict};
use schemas_identity::ShortId;
use tokio::sync::{Notify, oneshot};

/// Charged to each frame beside its bytes: what the queue itself spends on it.
const FRAME_OVERHEAD_BYTES: u64 = 128;

/// Bounds of the queue, over all doors together.
#[derive(Debug, Clone)]
pub struct AdmissionOptions {
    /// Most bytes offered and not yet answered. Default 64 MiB: about a quarter of a second at full rate.
    pub bytes_max: u64,
    /// Most frames offered and not yet answered. Default 65,536.
    pub frames_max: u64,
}

impl Default for AdmissionOptions {
    fn default() -> Self {
        Self { bytes_max: 64 << 20, frames_max: 65_536 }
    }
}

/// Through which protocol a frame came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Door {
    /// `POST /v1/frames`.
    Http,
    /// The MQTT endpoint.
    Mqtt,
    /// The bridge to a broker.
    Bridge,
    /// An operator offers quarantined frames again.
    Quarantine,
}

impl Door {
    /// Every door, in the order of their numbers.
    pub(crate) const ALL: [Door; 4] = [Door::Http, Door::Mqtt, Door::Bridge, Door::Quarantine];

    /// The metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Mqtt => "mqtt",
            Self::Bridge => "bridge",
            Self::Quarantine => "quarantine",
        }
    }
}

/// For which devices an identity may publish and subscribe.
#[derive(Debug, Clone)]
pub enum Allowed {
    /// Any device: the frame's own signature decides (HTTP, `--dev`).
    All,
    /// Only these short ids.
    Only(Arc<HashSet<ShortId>>),
}

impl Allowed {
    /// Whether `device` is among them.
    pub fn permits(&self, device: &ShortId) -> bool {
        match self {
            Self::All => true,
            Self::Only(devices) => devices.contains(device),
        }
    }
}

/// How a submission came in.
#[derive(Debug, Clone)]
pub struct Via {
    /// The protocol.
    pub door: Door,
    /// The sender's address, where the door knows it.
    pub peer: Option<SocketAddr>,
    /// What the sender's identity may publish for.
    pub allowed: Allowed,
    /// The device named by the topic; the door has already refused frames of other devices.
    pub topic_device: Option<ShortId>,
}

/// The pipeline's answer to a submission, once all of it is decided and durable.
#[derive(Debug, Clone, Default)]
pub struct Reply {
    /// One verdict per frame, in the order offered.
    pub verdicts: Vec<Verdict>,
    /// The standing of each device that the submission touched.
    pub reports: Vec<DeviceReport>,
}

/// Nothing was taken; come back later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("admission queue {}, retry after {retry_after_s} s", if *.closed { "closed" } else { "full" })]
pub struct Pressure {
    /// Seconds until a new attempt makes sense.
    pub retry_after_s: u32,
    /// True when the pipeline is gone: waiting does not help this process.
    pub closed: bool,
}

/// Frames waiting for their verdicts.
#[derive(Debug)]
pub struct Submission {
    /// The frames' bytes as received, each at most `FRAME_BYTES_MAX`.
    pub frames: Vec<Bytes>,
    /// How they came in.
    pub via: Via,
    /// When the door offered them.
    pub offered_at: Instant,
    /// Where the verdicts go.
    pub reply: Answer,
}

/// The way back to the door. Dropping it unsent tells the door that nothing was promised.
#[derive(Debug)]
pub struct Answer {
    to_door: oneshot::Sender<Reply>,
    room: Room,
}

impl Answer {
    /// Gives the queue its room back and hands the verdicts to the door. False if the sender has gone meanwhile.
    pub fn send(self, reply: Reply) -> bool {
        drop(self.room);
        self.to_door.send(reply).is_ok()
    }

    /// As [`Answer::send`]; the room goes back together with that of others, when `rooms` is dropped.
    pub fn send_with(mut self, reply: Reply, rooms: &mut Rooms) -> bool {
        rooms.add(&mut self.room);
        self.to_door.send(reply).is_ok()
    }
}

/// Room of many answers, given back in one go when dropped.
#[derive(Debug, Default)]
pub struct Rooms {
    all: Option<Room>,
}

impl Rooms {
    fn add(&mut self, room: &mut Room) {
        let taken = std::mem::take(&mut room.taken);
        let all =
            self.all.get_or_insert_with(|| Room { queue: Arc::clone(&room.queue), taken: Depth::default() });
        all.taken.frames += taken.frames;
        all.taken.bytes += taken.bytes;
    }
}

/// What is in the queue or being decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Depth {
    /// Frames offered and not yet answered.
    pub frames: u64,
    /// Their bytes, with the overhead charged per frame.
    pub bytes: u64,
}

/// How much one call of [`Inbox`] takes at most.
#[derive(Debug, Clone, Copy)]
pub struct Drain {
    /// Most submissions per call.
    pub submissions_max: usize,
    /// No further submission is taken once this many bytes are; the first is always taken.
    pub bytes_max: u64,
}

impl Default for Drain {
    fn default() -> Self {
        Self { submissions_max: 4_096, bytes_max: 8 << 20 }
    }
}

/// What a wait on the [`Inbox`] ended with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// This many submissions were appended.
    Some(usize),
    /// The time was over and nothing had come.
    TimedOut,
    /// Every [`Admission`] is gone and nothing is left.
    Closed,
}

/// The doors' side of the queue; cheap to clone.
#[derive(Debug)]
pub struct Admission {
    queue: Arc<Queue>,
}

/// The pipeline's side of the queue. Dropping it fails all later offers and all queued submissions.
#[derive(Debug)]
pub struct Inbox {
    queue: Arc<Queue>,
}

#[derive(Debug)]
struct Queue {
    options: AdmissionOptions,
    state: Mutex<State>,
    ready_thread: Condvar,
    ready_task: Notify,
}

#[derive(Debug)]
struct State {
    waiting: VecDeque<Submission>,
    depth: Depth,
    doors: usize,
    inbox_open: bool,
}

/// Room taken in the queue; given back on drop.
#[derive(Debug)]
struct Room {
    queue: Arc<Queue>,
    taken: Depth,
}

impl Drop for Room {
    fn drop(&mut self) {
        if self.taken == Depth::default() {
            return;
        }
        let mut state = self.queue.state.lock();
        state.depth.frames = state.depth.frames.saturating_sub(self.taken.frames);
        state.depth.bytes = state.depth.bytes.saturating_sub(self.taken.bytes);
    }
}

impl Admission {
    /// Makes a queue and its two sides.
    pub fn new(options: AdmissionOptions) -> (Admission, Inbox) {
        let state = State { waiting: VecDeque::new(), depth: Depth::default(), doors: 1, inbox_open: true };
        let queue = Arc::new(Queue {
            options,
            state: Mutex::new(state),
            ready_thread: Condvar::new(),
            ready_task: Notify::new(),
        });
        (Admission { queue: Arc::clone(&queue) }, Inbox { queue })
    }

    /// Offers frames without waiting. The receiver yields once all are decided and durable; it fails if the pipeline
    /// dropped the submission, and then nothing was promised.
    ///
    /// # Errors
    /// [`Pressure`] if there is no room or no pipeline; nothing was taken. A submission larger than the whole queue
    /// is admitted when the queue is empty, else it would be refused for ever.
    pub fn offer(&self, frames: Vec<Bytes>, via: Via) -> Result<oneshot::Receiver<Reply>, Pressure> {
        let taken = cost(&frames);
        let (to_door, receiver) = oneshot::channel();
        let mut state = self.queue.state.lock();
        if !state.inbox_open {
            return Err(Pressure { retry_after_s: CLOSED_RETRY_S, closed: true });
        }
        if !fits(&self.queue.options, state.depth, taken) {
            return Err(Pressure { retry_after_s: PRESSURE_RETRY_S, closed: false });
        }
        state.depth.frames += taken.frames;
        state.depth.bytes += taken.bytes;
        let room = Room { queue: Arc::clone(&self.queue), taken };
        let offered_at = Instant::now();
        state.waiting.push_back(Submission { frames, via, offered_at, reply: Answer { to_door, room } });
        drop(state);
        self.queue.ready_thread.notify_one();
        self.queue.ready_task.notify_one();
        Ok(receiver)
    }

    /// As [`Admission::offer`] for several, from the first on, until one finds no room: the receivers of those taken.
    ///
    /// # Errors
    /// [`Pressure`] only if there is no pipeline; nothing was taken.
    pub fn offer_many(
        &self,
        offers: Vec<(Vec<Bytes>, Via)>,
    ) -> Result<Vec<oneshot::Receiver<Reply>>, Pressure> {
        let mut receivers = Vec::with_capacity(offers.len());
        let offered_at = Instant::now();
        let mut state = self.queue.state.lock();
        if !state.inbox_open {
            return Err(Pressure { retry_after_s: CLOSED_RETRY_S, closed: true });
        }
        for (frames, via) in offers {
            let taken = cost(&frames);
            if !fits(&self.queue.options, state.depth, taken) {
                break;
            }
            state.depth.frames += taken.frames;
            state.depth.bytes += taken.bytes;
            let (to_door, receiver) = oneshot::channel();
            let room = Room { queue: Arc::clone(&self.queue), taken };
            state.waiting.push_back(Submission { frames, via, offered_at, reply: Answer { to_door, room } });
            receivers.push(receiver);
        }
        drop(state);
        if !receivers.is_empty() {
            self.queue.ready_thread.notify_one();
            self.queue.ready_task.notify_one();
        }
        Ok(receivers)
    }

    /// What is queued or being decided at this moment.
    pub fn depth(&self) -> Depth {
        self.queue.state.lock().depth
    }

    /// Reads the depth without counting as a door, so that metrics do not keep the queue open.
    pub(crate) fn watcher(&self) -> Box<dyn Fn() -> Depth + Send + Sync> {
        let queue = Arc::clone(&self.queue);
        Box::new(move || queue.state.lock().depth)
    }
}

/// Seconds named under pressure: the queue holds well under a second of work.
const PRESSURE_RETRY_S: u32 = 1;
/// Seconds named when the pipeline is gone: time for a restart.
const CLOSED_RETRY_S: u32 = 5;

impl Clone for Admission {
    fn clone(&self) -> Self {
        self.queue.state.lock().doors += 1;
        Self { queue: Arc::clone(&self.queue) }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut state = self.queue.state.lock();
        state.doors = state.doors.saturating_sub(1);
        let last = state.doors == 0;
        drop(state);
        if last {
            self.queue.ready_thread.notify_all();
            self.queue.ready_task.notify_one();
        }
    }
}

impl Inbox {
    /// Waits for the first submission, then takes what else is there up to `drain`, without waiting again.
    /// Returns the number appended to `into`; 0 means closed.
    pub async fn recv_many(&mut self, into: &mut Vec<Submission>, drain: Drain) -> usize {
        loop {
            let queue = Arc::clone(&self.queue);
            let woken = queue.ready_task.notified();
            match self.try_recv_many(into, drain) {
                Received::Some(count) => return count,
                Received::Closed => return 0,
                Received::TimedOut => woken.await,
            }
        }
    }

    /// As [`Inbox::recv_many`], for a plain thread.
    pub fn blocking_recv_many(&mut self, into: &mut Vec<Submission>, drain: Drain) -> usize {
        let mut state = self.queue.state.lock();
        loop {
            match take(&mut state, into, drain) {
                Received::Some(count) => return count,
                Received::Closed => return 0,
                Received::TimedOut => self.queue.ready_thread.wait(&mut state),
            }
        }
    }

    /// As [`Inbox::blocking_recv_many`], giving up after `patience`: for a thread that has a clock to follow too.
    pub fn blocking_recv_timeout(
        &mut self,
        into: &mut Vec<Submission>,
        drain: Drain,
        patience: Duration,
    ) -> Received {
        let deadline = Instant::now() + patience;
        let mut state = self.queue.state.lock();
        loop {
            let received = take(&mut state, into, drain);
            if received != Received::TimedOut {
                return received;
            }
            if self.queue.ready_thread.wait_until(&mut state, deadline).timed_out() {
                return take(&mut state, into, drain);
            }
        }
    }

    /// Takes what is there without waiting; [`Received::TimedOut`] if there is nothing.
    pub fn try_recv_many(&mut self, into: &mut Vec<Submission>, drain: Drain) -> Received {
        take(&mut self.queue.state.lock(), into, drain)
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        let orphans = {
            let mut state = self.queue.state.lock();
            state.inbox_open = false;
            std::mem::take(&mut state.waiting)
        };
        // Outside the lock: each orphan gives its room back through the same lock.
        drop(orphans);
    }
}

fn take(state: &mut State, into: &mut Vec<Submission>, drain: Drain) -> Received {
    let mut count = 0;
    let mut bytes = 0;
    while count < drain.submissions_max.max(1) && (count == 0 || bytes < drain.bytes_max) {
        let Some(submission) = state.waiting.pop_front() else { break };
        bytes += submission.reply.room.taken.bytes;
        into.push(submission);
        count += 1;
    }
    match count {
        0 if state.doors == 0 => Received::Closed,
        0 => Received::TimedOut,
        _ => Received::Some(count),
    }
}

fn cost(frames: &[Bytes]) -> Depth {
    // An empty submission still takes a place, so that the number of places stays bounded.
    let count = (frames.len() as u64).max(1);
    let bytes: u64 = frames.iter().map(|frame| frame.len() as u64).sum();
    Depth { frames: count, bytes: bytes + count * FRAME_OVERHEAD_BYTES }
}

fn fits(options: &AdmissionOptions, depth: Depth, more: Depth) -> bool {
    if depth.frames == 0 {
        return true;
    }
    depth.frames + more.frames <= options.frames_max && depth.bytes + more.bytes <= options.bytes_max
}

#[cfg(test)]
mod tests {
    use super::*;

    fn via() -> Via {
        Via { door: Door::Http, peer: None, allowed: Allowed::All, topic_device: None }
    }

    fn frame(len: usize) -> Vec<Bytes> {
        vec![Bytes::from(vec![0u8; len])]
    }

    fn small() -> AdmissionOptions {
        AdmissionOptions { bytes_max: 1_000, frames_max: 3 }
    }

    /// Both bounds refuse at once and give room back only when the answer is sent.
    #[test]
    fn offers_are_refused_when_full_and_room_returns_with_the_answer() {
        let (admission, mut inbox) = Admission::new(small());
        let first = admission.offer(frame(10), via()).unwrap();
        let _second = admission.offer(frame(10), via()).unwrap();
        let _third = admission.offer(frame(10), via()).unwrap();
        let full = admission.offer(frame(10), via()).unwrap_err();
        assert_eq!(full, Pressure { retry_after_s: PRESSURE_RETRY_S, closed: false });

        let mut got = Vec::new();
        assert_eq!(inbox.try_recv_many(&mut got, Drain::default()), Received::Some(3));
        assert!(admission.offer(frame(10), via()).is_err(), "taken but not answered still holds its room");
        let answered = got.remove(0);
        assert!(answered.reply.send(Reply::default()));
        assert!(admission.offer(frame(10), via()).is_ok());
        assert!(first.blocking_recv().is_ok());
    }

    /// Bytes are bounded apart from frames.
    #[test]
    fn bytes_are_bounded_too() {
        let (admission, _inbox) = Admission::new(small());
        let _held = admission.offer(frame(600), via()).unwrap();
        assert!(admission.offer(frame(600), via()).is_err());
        assert!(admission.offer(frame(10), via()).is_ok());
    }

    /// A submission larger than the queue passes alone instead of being refused for ever.
    #[test]
    fn an_oversized_submission_passes_alone() {
        let (admission, mut inbox) = Admission::new(small());
        let _held = admission.offer(frame(5_000), via()).unwrap();
        assert!(admission.offer(frame(1), via()).is_err());
        let mut got = Vec::new();
        inbox.try_recv_many(&mut got, Drain::default());
        got.clear();
        assert_eq!(admission.depth(), Depth::default(), "a dropped submission gives its room back");
        assert!(admission.offer(frame(1), via()).is_ok());
    }

    /// Without a pipeline nothing is taken, and what was queued is told so.
    #[test]
    fn dropping_the_inbox_fails_offers_and_waiting_senders() {
        let (admission, inbox) = Admission::new(small());
        let waiting = admission.offer(frame(1), via()).unwrap();
        drop(inbox);
        assert!(waiting.blocking_recv().is_err());
        assert!(admission.offer(frame(1), via()).unwrap_err().closed);
        assert_eq!(admission.depth(), Depth::default());
    }

    /// A plain thread wakes for an offer, drains within its bounds and sees the end.
    #[test]
    fn a_plain_thread_drains_in_bounded_gulps() {
        let (admission, mut inbox) = Admission::new(AdmissionOptions::default());
        let thread = std::thread::spawn(move || {
            let mut gulps = Vec::new();
            let drain = Drain { submissions_max: 2, bytes_max: u64::MAX };
            loop {
                let mut got = Vec::new();
                match inbox.blocking_recv_many(&mut got, drain) {
                    0 => return gulps,
                    count => gulps.push(count),
                }
            }
        });
        for _ in 0..5 {
            let _answer = admission.offer(frame(1), via()).unwrap();
        }
        drop(admission);
        let gulps = thread.join().unwrap();
        assert_eq!(gulps.iter().sum::<usize>(), 5);
        assert!(gulps.iter().all(|count| *count <= 2));
    }

    /// The byte bound of a gulp ends it after the submission that crosses it.
    #[test]
    fn a_gulp_ends_at_its_bytes() {
        let (admission, mut inbox) = Admission::new(AdmissionOptions::default());
        let _answers: Vec<_> = (0..4).map(|_| admission.offer(frame(100), via()).unwrap()).collect();
        let mut got = Vec::new();
        let drain = Drain { submissions_max: 10, bytes_max: 300 };
        assert_eq!(inbox.try_recv_many(&mut got, drain), Received::Some(2));
    }

    /// A wait with a deadline ends without submissions, and ends at once when all doors are gone.
    #[test]
    fn a_timed_wait_ends() {
        let (admission, mut inbox) = Admission::new(small());
        let mut got = Vec::new();
        let short = Duration::from_millis(5);
        assert_eq!(inbox.blocking_recv_timeout(&mut got, Drain::default(), short), Received::TimedOut);
        drop(admission);
        let long = Duration::from_secs(60);
        assert_eq!(inbox.blocking_recv_timeout(&mut got, Drain::default(), long), Received::Closed);
    }

    /// The async side wakes for an offer made after it began to wait.
    #[tokio::test]
    async fn the_async_side_wakes() {
        let (admission, mut inbox) = Admission::new(small());
        let task = tokio::spawn(async move {
            let mut got = Vec::new();
            let first = inbox.recv_many(&mut got, Drain::default()).await;
            got.clear();
            (first, inbox.recv_many(&mut got, Drain::default()).await)
        });
        tokio::task::yield_now().await;
        let _answer = admission.offer(frame(1), via()).unwrap();
        drop(admission);
        assert_eq!(task.await.unwrap(), (1, 0));
    }
}
