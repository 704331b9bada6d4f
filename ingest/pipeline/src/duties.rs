//! What the deciding thread does between groups: it owns the sequence windows, so it answers who asks where devices
//! stand, and closes gaps that are too old. Each turn costs a bounded time; nobody else ever waits for the windows.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use ingest_devices::{DeviceView, GapCounts, Windows};
use schemas_identity::DeviceNumber;

use crate::Clock;
use crate::admission_metrics::AdmissionMetrics;

/// Devices of one question.
const QUESTION_DEVICES: usize = 256;
/// Questions that may wait.
const QUESTIONS_MAX: usize = 64;
/// Questions answered between two groups: below a millisecond.
const ANSWERED_PER_TURN: usize = 4;
/// Devices looked at for old gaps between two groups. With twenty turns a second, the least there are, a million devices
/// take half an hour.
const TENDED_PER_TURN: usize = 32;
/// Between two looks at the counters.
const COUNT_EVERY: Duration = Duration::from_millis(500);
/// How long an asker waits in all.
const ASKER_PATIENCE: Duration = Duration::from_secs(10);
/// Between two attempts to ask.
const ASKER_PAUSE: Duration = Duration::from_millis(2);

type Views = Vec<Option<DeviceView>>;

#[derive(Debug)]
struct Question {
    devices: Vec<DeviceNumber>,
    answer: SyncSender<Views>,
}

/// Asks where devices stand; cheap to clone.
#[derive(Debug, Clone)]
pub struct Standings {
    questions: SyncSender<Question>,
}

impl Standings {
    /// One view per device, `None` for those that never sent. Blocks for some milliseconds; `None` if the pipeline has
    /// ended or does not come to answer.
    #[must_use]
    pub fn of(&self, devices: &[DeviceNumber]) -> Option<Views> {
        let until = Instant::now() + ASKER_PATIENCE;
        let mut views = Vec::with_capacity(devices.len());
        for some in devices.chunks(QUESTION_DEVICES * QUESTIONS_MAX / 2) {
            let mut answers = Vec::new();
            for devices in some.chunks(QUESTION_DEVICES) {
                let (answer, receiver) = sync_channel(1);
                self.ask(Question { devices: devices.to_vec(), answer }, until)?;
                answers.push(receiver);
            }
            for receiver in answers {
                views.extend(receiver.recv_timeout(until.saturating_duration_since(Instant::now())).ok()?);
            }
        }
        Some(views)
    }

    fn ask(&self, mut question: Question, until: Instant) -> Option<()> {
        loop {
            question = match self.questions.try_send(question) {
                Ok(()) => return Some(()),
                Err(TrySendError::Full(question)) if Instant::now() < until => question,
                Err(_) => return None,
            };
            std::thread::sleep(ASKER_PAUSE);
        }
    }
}

/// The deciding thread's side.
pub(crate) struct Duties {
    questions: Receiver<Question>,
    clock: Clock,
    metrics: AdmissionMetrics,
    counted: (GapCounts, u64),
    counted_at: Option<Instant>,
}

impl Duties {
    pub(crate) fn new(clock: Clock, metrics: AdmissionMetrics) -> (Duties, Standings) {
        let (asked, questions) = sync_channel(QUESTIONS_MAX);
        let counted = (GapCounts::default(), 0);
        (Duties { questions, clock, metrics, counted, counted_at: None }, Standings { questions: asked })
    }

    pub(crate) fn now_us(&self) -> i64 {
        (self.clock)()
    }

    /// One turn.
    pub(crate) fn look_after(&mut self, windows: &mut Windows) {
        for question in self.questions.try_iter().take(ANSWERED_PER_TURN) {
            let views = question.devices.iter().map(|device| windows.view(*device)).collect();
            // Whoever asked may have gone.
            let _ = question.answer.try_send(views);
        }
        windows.tend(TENDED_PER_TURN, self.now_us());
        if self.counted_at.is_none_or(|at| at.elapsed() >= COUNT_EVERY) {
            self.metrics.windows(windows, &mut self.counted);
            self.counted_at = Some(Instant::now());
        }
    }
}
