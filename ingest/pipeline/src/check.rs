//! Checking: what can be said of a frame by itself. Parse, find its key, verify, hash, look at its values.
//!
//! Several threads check, each with a verifier of its own; groups keep the order in which they were taken, because what
//! comes next (`decide`) knows what came before. It remembers nothing and decides nothing that depends on other frames.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use bytes::Bytes;
use ingest_devices::{Assessment, Gated, assess, key_for};
use ingest_intake::admission::Received;
use ingest_intake::{Drain, Inbox, Submission};
use ingest_verify::hashes::SideBySide;
use parking_lot::Mutex;
use schemas_evidence::FrameHasher;
use schemas_frame::{Code, Frame, Verdict, VerifiedFrame, Verifier, verify_all};
use schemas_identity::{BootId, Register, ShortId};
use schemas_signals::Registry;

use crate::verdicts::{about, hint_of};
use crate::{Clock, RegisterSource, Shared};

/// How long a thread waits before it looks whether the pipeline is being stopped.
pub(crate) const PATIENCE: Duration = Duration::from_millis(50);

/// A frame whose signature verified, with what the rest of the way needs of it.
pub(crate) struct Arrival {
    /// A part of what the door read. Who keeps it longer than the answer copies it: a small frame must not keep a whole
    /// request body in memory.
    pub(crate) bytes: Bytes,
    pub(crate) gated: Gated,
    pub(crate) kid: ShortId,
    pub(crate) boot: BootId,
    pub(crate) seq: u64,
    pub(crate) prev: [u8; 16],
    /// [`Frame::digest16`], computed for a whole group side by side.
    pub(crate) digest: [u8; 16],
    pub(crate) wall_us: Option<i64>,
    pub(crate) mono_us: u64,
    pub(crate) received_us: i64,
    pub(crate) found: Assessment,
    pub(crate) readings: u64,
}

/// What checking a frame gave.
pub(crate) enum Checked {
    /// Genuine.
    Arrived(Arrival),
    /// Refused.
    Refused(Verdict),
}

/// Submissions taken together.
pub(crate) struct Group {
    pub(crate) submissions: Vec<Submission>,
    /// One per frame, in the order of the submissions.
    pub(crate) checked: Vec<Checked>,
    pub(crate) taken_at: Instant,
}

/// Where groups are taken from, and the number of the next one.
struct Source {
    inbox: Inbox,
    next: u64,
}

/// What all checking threads share.
pub(crate) struct Checking {
    source: Mutex<Source>,
    register: RegisterSource,
    clock: Clock,
    shared: Arc<Shared>,
}

impl Checking {
    pub(crate) fn new(inbox: Inbox, register: RegisterSource, clock: Clock, shared: Arc<Shared>) -> Checking {
        Checking { source: Mutex::new(Source { inbox, next: 0 }), register, clock, shared }
    }

    /// Checks groups until the doors are closed, or the pipeline is being stopped and nothing waits.
    pub(crate) fn run(&self, verifier: &dyn Verifier, decider: &SyncSender<(u64, Group)>) {
        while let Some((number, submissions)) = self.take() {
            let taken_at = Instant::now();
            let checked = check(&(self.register)(), verifier, (self.clock)(), &submissions);
            if decider.send((number, Group { submissions, checked, taken_at })).is_err() {
                return;
            }
        }
    }

    fn take(&self) -> Option<(u64, Vec<Submission>)> {
        let mut submissions = Vec::new();
        loop {
            let mut source = self.source.lock();
            match source.inbox.blocking_recv_timeout(&mut submissions, Drain::default(), PATIENCE) {
                Received::Some(_) => {
                    let number = source.next;
                    source.next += 1;
                    return Some((number, submissions));
                }
                Received::Closed => return None,
                Received::TimedOut if self.shared.is_stopping() => return None,
                Received::TimedOut => {}
            }
        }
    }
}

/// Checked groups in the order in which they were taken.
pub(crate) struct InOrder {
    from: Receiver<(u64, Group)>,
    /// Groups that came before their turn: at most one per checking thread.
    early: BTreeMap<u64, Group>,
    next: u64,
}

impl InOrder {
    pub(crate) fn new(from: Receiver<(u64, Group)>) -> InOrder {
        InOrder { from, early: BTreeMap::new(), next: 0 }
    }

    /// Appends the groups whose turn it is; waits a while for the first. False once there will be none.
    pub(crate) fn take(&mut self, into: &mut Vec<Group>, frames_max: usize) -> bool {
        let mut frames = 0;
        while frames < frames_max {
            if let Some(group) = self.early.remove(&self.next) {
                self.next += 1;
                frames += group.checked.len();
                into.push(group);
                continue;
            }
            let received = match into.is_empty() {
                true => self.from.recv_timeout(PATIENCE),
                false => self.from.try_recv().map_err(|_| RecvTimeoutError::Timeout),
            };
            match received {
                Ok((number, group)) => {
                    self.early.insert(number, group);
                }
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
        true
    }
}

pub(crate) fn check(
    register: &Register,
    verifier: &dyn Verifier,
    received_us: i64,
    submissions: &[Submission],
) -> Vec<Checked> {
    let mut checked: Vec<Option<Checked>> = Vec::new();
    let mut candidates = Vec::new();
    let mut gates: Vec<(usize, Gated, &Bytes)> = Vec::new();
    for bytes in submissions.iter().flat_map(|submission| &submission.frames) {
        match gate(register, bytes) {
            Ok((frame, gated)) => {
                gates.push((checked.len(), gated, bytes));
                candidates.push((frame, gated.key));
                checked.push(None);
            }
            Err(verdict) => checked.push(Some(Checked::Refused(verdict))),
        }
    }
    let verified = verify_all(verifier, candidates);
    let frames: Vec<&[u8]> = gates.iter().map(|(_, _, bytes)| bytes.as_ref()).collect();
    let digests = SideBySide.digests(&frames);
    for (((at, gated, bytes), result), digest) in gates.into_iter().zip(verified).zip(digests) {
        let outcome = match result {
            Ok(frame) => {
                let mut digest16 = [0; 16];
                digest16.copy_from_slice(&digest[..16]);
                Checked::Arrived(arrival(&frame, gated, bytes, digest16, received_us))
            }
            Err(frame) => Checked::Refused(about(&frame, Code::SigBad)),
        };
        if let Some(place) = checked.get_mut(at) {
            *place = Some(outcome);
        }
    }
    checked.into_iter().flatten().collect()
}

fn gate<'a>(register: &Register, bytes: &'a Bytes) -> Result<(Frame<'a>, Gated), Verdict> {
    let frame = Frame::parse(bytes).map_err(|error| {
        let hint = Some(error.hint());
        Verdict { device: None, boot: None, seq: None, code: Code::Decode, flags: 0, hint }
    })?;
    match key_for(register, frame.kid()) {
        Ok(gated) => Ok((frame, gated)),
        Err(code) => Err(Verdict { hint: hint_of(code), ..about(&frame, code) }),
    }
}

fn arrival(
    frame: &VerifiedFrame<'_>,
    gated: Gated,
    bytes: &Bytes,
    digest: [u8; 16],
    received_us: i64,
) -> Arrival {
    Arrival {
        bytes: bytes.clone(),
        gated,
        kid: frame.kid(),
        boot: frame.boot(),
        seq: frame.seq(),
        prev: frame.prev(),
        digest,
        wall_us: frame.wall_us(),
        mono_us: frame.mono_us(),
        received_us,
        found: assess(frame, Registry::builtin()),
        readings: frame.series().map(|series| series.len() as u64).sum(),
    }
}
