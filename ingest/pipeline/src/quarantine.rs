//! Refused frames on their way into the quarantine, and out of it again: what is kept is written between the durable
//! write of a group and its answers, so an equivocation that was answered is on the disk. Format and budgets are
//! `ingest-quarantine`'s.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ingest_intake::{Admission, Allowed, Door, Reply, Submission, Via};
use ingest_quarantine::{Entry, Filter, Item, Outcome, Quarantine, Reason, RecordId, list};
use parking_lot::Mutex;
use schemas_frame::{Code, Verdict};

use crate::admission_metrics::AdmissionMetrics;
use crate::{Clock, Options, StartError};

/// Frames offered again at a time.
const REPLAY_FRAMES: usize = 256;
/// How long a replay waits for room in the admission queue.
const REPLAY_PATIENCE: Duration = Duration::from_secs(10);
/// Between two attempts to get room.
const REPLAY_PAUSE: Duration = Duration::from_millis(100);

/// The deciding thread's side.
#[derive(Debug)]
pub(crate) struct Keeper {
    store: Arc<Mutex<Quarantine>>,
}

impl Keeper {
    pub(crate) fn open(options: &Options) -> Result<Keeper, StartError> {
        let store = Quarantine::open(&options.quarantine, options.quarantine_budgets)?;
        Ok(Keeper { store: Arc::new(Mutex::new(store)) })
    }

    pub(crate) fn desk(&self, metrics: AdmissionMetrics, clock: Clock) -> Desk {
        Desk { store: self.store.clone(), metrics, clock }
    }

    /// Keeps the refused frames of a group; `codes` has one code per frame, in order. False if the system failed: then
    /// nothing may be told that rests on a frame being kept.
    pub(crate) fn group(
        &self,
        submissions: &[Submission],
        codes: impl Iterator<Item = Code>,
        now_us: i64,
        metrics: &AdmissionMetrics,
    ) -> bool {
        let (mut store, mut is_kept) = (None, true);
        let frames = submissions
            .iter()
            .flat_map(|submission| submission.frames.iter().map(|frame| (frame, submission.via.door)));
        for ((frame, door), code) in frames.zip(codes) {
            // What is offered again from the quarantine is there already.
            let Some(reason) = Reason::of(code).filter(|_| door != Door::Quarantine) else { continue };
            let item = Item { reason, received_us: now_us, door: door.label(), frame };
            let store = store.get_or_insert_with(|| self.store.lock());
            match store.keep(&item) {
                Ok(outcome) => {
                    metrics.refused(reason, outcome);
                    if outcome == Outcome::Full {
                        tracing::error!(
                            "no room for evidence in the quarantine: look at it, then raise its budget"
                        );
                    }
                }
                Err(error) => {
                    is_kept = false;
                    tracing::error!(%error, %code, "cannot write to the quarantine");
                }
            }
        }
        let Some(mut store) = store else { return is_kept };
        if let Err(error) = store.flush() {
            is_kept = false;
            tracing::error!(%error, "cannot write to the quarantine: refused frames of a group are not kept");
        }
        metrics.shelves(&store);
        is_kept
    }
}

/// The operator's side: what is kept, and offering it again.
#[derive(Clone)]
pub struct Desk {
    store: Arc<Mutex<Quarantine>>,
    metrics: AdmissionMetrics,
    clock: Clock,
}

/// What became of one frame that was offered again.
#[derive(Debug, Clone)]
pub struct Replayed {
    /// Which.
    pub id: RecordId,
    /// What it is told now.
    pub verdict: Verdict,
}

/// What became of a replay.
#[derive(Debug, Clone, Default)]
pub struct Replay {
    /// The frames that were decided again, in the order in which they had come.
    pub frames: Vec<Replayed>,
    /// Frames asked for, but not decided: the queue was full or closed.
    pub undecided: usize,
    /// There are more frames than were asked for.
    pub is_more: bool,
}

impl Desk {
    /// Frames that are kept and were not accepted since; true if there are more. Reads files: not for async threads.
    ///
    /// # Errors
    /// The system's.
    pub fn list(&self, filter: &Filter) -> io::Result<(Vec<Entry>, bool)> {
        let directory = self.store.lock().directory().to_owned();
        list(&directory, filter)
    }

    /// Offers frames to the queue again; those that are accepted leave the quarantine. Blocks.
    ///
    /// A frame that was accepted before a crash could mark it gives `DUP` the next time, and leaves then. Its arrival is
    /// the replay: a frame without a wall clock is placed by that.
    ///
    /// # Errors
    /// The system's.
    pub fn replay(&self, admission: &Admission, filter: &Filter) -> io::Result<Replay> {
        let (entries, is_more) = self.list(filter)?;
        let mut replay = Replay { is_more, ..Replay::default() };
        for chunk in entries.chunks(REPLAY_FRAMES) {
            let frames = chunk.iter().map(|entry| Bytes::from(entry.frame.clone())).collect();
            let Some(reply) = offer(admission, frames) else { break };
            let mut accepted = Vec::new();
            for (entry, verdict) in chunk.iter().zip(reply.verdicts) {
                if verdict.code.is_accepted() {
                    accepted.push((entry.id, verdict.code));
                }
                replay.frames.push(Replayed { id: entry.id, verdict });
            }
            self.metrics.replayed(accepted.len());
            self.store.lock().mark(&accepted, (self.clock)())?;
        }
        replay.undecided = entries.len() - replay.frames.len();
        Ok(replay)
    }
}

/// `None` if the queue stays full, or the pipeline ends.
fn offer(admission: &Admission, frames: Vec<Bytes>) -> Option<Reply> {
    let started = Instant::now();
    loop {
        let via = Via { door: Door::Quarantine, peer: None, allowed: Allowed::All, topic_device: None };
        match admission.offer(frames.clone(), via) {
            Ok(reply) => return reply.blocking_recv().ok(),
            Err(pressure) if pressure.closed || started.elapsed() > REPLAY_PATIENCE => return None,
            Err(_) => std::thread::sleep(REPLAY_PAUSE),
        }
    }
}
