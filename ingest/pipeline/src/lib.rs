//! The only place that knows the order of the steps of a write. Read it aloud:
//!
//! **receive, admit, verify** (`check`), **judge, write, acknowledge** (`decide`), then **batch, commit to the log**
//! (`sealer`), and when nothing else presses **put small files together** (`compactor`).
//!
//! Some threads check, in groups: everything that waits is verified together. One thread decides: it judges the checked
//! groups in the order they were taken, writes them to the write-ahead log with one sync, and answers; while it waits for
//! the disk, the next groups are being checked. Another thread seals batches. When the lake's tail is full the deciding
//! thread stops taking, the checked groups and then the admission queue fill, and the doors tell senders to wait: pressure
//! travels backwards, nothing is dropped.
//!
//! What it is not: no protocol (doors), no cryptography (verify), no file format (wal, lake), no policy about readers.

mod admission_metrics;
mod check;
mod compactor;
mod decide;
mod duties;
mod metrics;
mod priority;
mod quarantine;
mod recover;
mod sealer;
mod verdicts;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;
use std::time::Duration;

use ingest_intake::Inbox;
use ingest_lake::Lake;
use ingest_wal::{Wal, WalError};
use schemas_frame::Verifier;
use schemas_identity::Register;

use check::{Checking, InOrder};
pub use decide::Decider;
use duties::Duties;
pub use duties::Standings;
pub use metrics::Metrics;
pub use quarantine::{Desk, Replay, Replayed};
pub use recover::Recovered;

/// Refused frames, as the operator's side shows them.
pub use ingest_quarantine::{Budgets, Entry, Filter, Reason};

/// When a batch is sealed.
#[derive(Debug, Clone)]
pub struct Options {
    /// Write-ahead log.
    pub wal: ingest_wal::Options,
    /// Where refused frames are kept that somebody may want back.
    pub quarantine: PathBuf,
    /// How many of them.
    pub quarantine_budgets: Budgets,
    /// Memory of the sequence windows of all devices.
    pub windows_bytes_max: usize,
    /// Frames of a batch.
    pub seal_frames: u64,
    /// Bytes of frames of a batch.
    pub seal_bytes: u64,
    /// Time after the oldest frame of a batch arrived.
    pub seal_after: Duration,
}

/// The register as it stands now.
pub type RegisterSource = Arc<dyn Fn() -> Arc<Register> + Send + Sync>;
/// Microseconds since 1970.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// What the pipeline is made of.
pub struct Parts {
    /// Where frames come from.
    pub inbox: Inbox,
    /// Who may sign.
    pub register: RegisterSource,
    /// The hot path: one verifier for each thread that checks, at least one.
    pub verifiers: Vec<Box<dyn Verifier>>,
    /// Where rows go.
    pub lake: Arc<Lake>,
    /// What is counted.
    pub metrics: Metrics,
    /// Time.
    pub clock: Clock,
}

/// Why a pipeline does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The write-ahead log cannot be opened or replayed.
    #[error(transparent)]
    Wal(#[from] WalError),
    /// Recovered frames cannot be put into the lake.
    #[error(transparent)]
    Lake(#[from] ingest_lake::LakeError),
    /// Records that no batch covers are gone from the write-ahead log.
    #[error(
        "batches hold positions up to {covered}, the write-ahead log {first}..{next}: acknowledged frames are missing; \
         put its files back, or take them all away to go on without those frames"
    )]
    Missing {
        /// First position in the write-ahead log.
        first: u64,
        /// Position after its last.
        next: u64,
        /// Positions below this are in batches.
        covered: u64,
    },
    /// The system gives no thread or no directory.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Flags shared by the threads.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    stop: AtomicBool,
    failed: AtomicBool,
}

/// A running pipeline.
pub struct Pipeline {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    /// Where devices stand, live.
    pub standings: Standings,
    /// What was refused and kept.
    pub quarantine: Desk,
    /// What the write-ahead log gave back at start.
    pub recovered: Recovered,
}

impl Pipeline {
    /// Replays the write-ahead log, then starts the threads.
    pub fn start(options: Options, parts: Parts) -> Result<Pipeline, StartError> {
        let Parts { inbox, register, verifiers, lake, metrics, clock } = parts;
        let (wal, replay) = Wal::open(recover::wal_options(&options, &lake))?;
        let shared = Arc::new(Shared::default());
        let (duties, standings) = Duties::new(clock.clone(), metrics.admission.clone());
        let mut decider = Decider::new(
            &options,
            register.clone(),
            lake.clone(),
            wal,
            duties,
            metrics.clone(),
            shared.clone(),
        )?;
        let quarantine = decider.quarantine.desk(metrics.admission.clone(), clock.clone());
        let recovered = decider.recover(replay)?;
        let checking = Arc::new(Checking::new(inbox, register, clock.clone(), shared.clone()));
        // Each checking thread may have one group on its way and one that waits.
        let (to_decider, checked) = sync_channel(verifiers.len());
        let mut threads = Vec::with_capacity(verifiers.len() + 3);
        for verifier in verifiers {
            let (checking, to_decider) = (checking.clone(), to_decider.clone());
            threads.push(spawn("check", move || checking.run(verifier.as_ref(), &to_decider))?);
        }
        threads.push(spawn("decide", move || decider.run(InOrder::new(checked)))?);
        let flags = shared.clone();
        if lake.compaction().is_on {
            let (lake, metrics, clock) = (lake.clone(), metrics.clone(), clock.clone());
            let flags = shared.clone();
            threads.push(spawn("compact", move || {
                priority::be_nice(priority::COMPACT);
                compactor::run(&lake, &metrics, &clock, &flags);
            })?);
        }
        threads.push(spawn("seal", move || {
            priority::be_nice(priority::SEAL);
            sealer::run(&options, &lake, &metrics, &clock, &flags);
        })?);
        Ok(Pipeline { shared, threads, standings, quarantine, recovered })
    }

    /// False once the write-ahead log or the ledger failed: only a restart helps.
    pub fn is_healthy(&self) -> bool {
        !self.shared.failed.load(Ordering::Acquire)
    }

    /// Decides what still waits, seals, and ends all threads. Doors must be closed first.
    pub fn stop(self) {
        self.shared.stop.store(true, Ordering::Release);
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a pipeline thread panicked");
            }
        }
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.into()).spawn(work)
}

impl Shared {
    pub(crate) fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    pub(crate) fn fail(&self) {
        self.failed.store(true, Ordering::Release);
    }
}

#[cfg(test)]
mod tests;
