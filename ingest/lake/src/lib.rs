//! The lake: verified frames become sorted Parquet files, a manifest, a Merkle root and one log entry.
//!
//! **The log is the table**: a batch exists if and only if the log has its entry. Files, directory and manifest are
//! synced before the entry is appended; what lies around without an entry is swept away at open. Until it is sealed a
//! frame's rows are in the *tail*, visible to readers at once, and recoverable from the write-ahead log.
//!
//! ```text
//! DATA/lake/<batch>.scalar.parquet   one row per sample          sorted by device, signal, ts, leaf
//! DATA/lake/<batch>.wave.parquet     one row per waveform series sorted by device, signal, ts, leaf
//! DATA/lake/<batch>.frames.parquet   one row per frame in leaf order: signature, times, verdict; what rows do not say
//! DATA/lake/<batch>.manifest.json    digests, ranges, WAL positions; its BLAKE3 is in the log entry
//! DATA/lake/<set>.*.parquet          the same three for several batches, in the place of theirs
//! DATA/lake/<digest>.compact.json    batches in, files out; named by its BLAKE3, which is in the log entry
//! ```
//!
//! Small files are *compacted* (`compact`): batches adjacent in the log become a set, sets become larger sets. Batches stay
//! what they are: roots, ranges, proofs and manifests never change, only the files that hold their rows and frames do.
//!
//! A frame's bytes are not kept beside its readings: they are deterministic, so signature and rows give them back
//! (`rebuild`). Frames for which that does not hold keep their bytes.
//!
//! What it is not: it verifies no signature, decides nothing about people, and knows no SQL.

mod audit;
mod bounds;
mod check;
mod column;
mod compact;
mod disk;
mod error;
mod files;
mod find;
mod frames;
mod layout;
mod merge;
mod open;
mod packed;
mod rebuild;
mod retire;
mod rows;
mod seal;
mod sets;
mod stored;
mod tail;
mod view;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use schemas_evidence::{Blake3Frames, DeviceRange, FrameHasher, Ledger};
use schemas_frame::{Code, Frame};

use compact::Compacting;
use disk::Disk;
use find::Recent;
use sets::Held;
use tail::{Chunk, Tail};

pub use audit::{Finding, Progress, audit};
pub use compact::{Compacted, Compaction, FAN_IN, KEEP, Pace, SET_BYTES_MAX, SET_FRAMES_MAX};
pub use disk::{Change, Faults};
pub use error::LakeError;
pub use find::{Place, StoredFrame};
pub use rows::{Rows, rows};
pub use seal::Sealed;
pub use sets::SealedSet;
pub use view::{Part, SealedBatch, TailRows, View};

/// Memory that the tail may hold, sealed-in-progress frames included, before senders must wait: the batch that is written
/// and the one that grows, of the default size, and some more.
pub const TAIL_BYTES_MAX: u64 = 80 << 20;

/// Where the lake is and how much it may hold back.
#[derive(Debug, Clone)]
pub struct Options {
    /// Directory of the files.
    pub dir: PathBuf,
    /// See [`TAIL_BYTES_MAX`].
    pub tail_bytes_max: u64,
    /// Hashes frames and trees; the default does so one by one.
    pub hasher: Arc<dyn FrameHasher>,
    /// Stands before each change of the directory; for simulations, `None` in production.
    pub faults: Option<Arc<dyn Faults>>,
    /// What [`Lake::compact`] does.
    pub compaction: Compaction,
}

impl Options {
    /// Defaults in a directory.
    pub fn new(dir: impl Into<PathBuf>) -> Options {
        Options {
            dir: dir.into(),
            tail_bytes_max: TAIL_BYTES_MAX,
            hasher: Arc::new(Blake3Frames),
            faults: None,
            compaction: Compaction::default(),
        }
    }
}

/// A frame that was verified, judged and made durable.
#[derive(Debug, Clone)]
pub struct Admitted {
    /// Its position in the write-ahead log.
    pub position: u64,
    /// Device number.
    pub device: u32,
    /// Moment of its t0 after clock placement, microseconds since 1970.
    pub t0_us: i64,
    /// Arrival, microseconds since 1970.
    pub received_us: i64,
    /// Flag bits of DESIGN section 5.
    pub flags: u32,
    /// Verdict it was kept with.
    pub code: Code,
    /// The bytes as received.
    pub frame: Bytes,
}

/// Key of a frame: device, boot, sequence number.
type FrameKey = (u32, [u8; 8], u64);

/// What changes: sealed batches, sets and the tail, under one lock, so that every view is consistent.
struct State {
    log_size: u64,
    held: Held,
    tail: Tail,
}

/// The lake of one deployment; one writer, any number of readers of its [`View`].
pub struct Lake {
    options: Options,
    ledger: Arc<dyn Ledger>,
    state: Mutex<State>,
    sealing: Mutex<()>,
    compacting: Mutex<Compacting>,
    covered: AtomicU64,
    recent: Mutex<Recent>,
}

fn key_of(admitted: &Admitted) -> Result<FrameKey, LakeError> {
    let frame = Frame::parse_known(&admitted.frame)
        .map_err(|error| LakeError::Frame { problem: error.to_string() })?;
    Ok((admitted.device, *frame.boot().as_bytes(), frame.seq()))
}

impl Lake {
    /// Directory of the files.
    pub fn directory(&self) -> &Path {
        &self.options.dir
    }

    /// The directory as something that is changed.
    pub(crate) fn disk(&self) -> Disk {
        Disk::new(&self.options.dir, self.options.faults.clone())
    }

    /// WAL positions below this are in sealed batches.
    pub fn covered(&self) -> u64 {
        self.covered.load(Ordering::Acquire)
    }

    /// What a reader sees now.
    pub fn view(&self) -> Arc<View> {
        let state = self.state.lock();
        let (batches, held) = (Arc::clone(&state.held.batches), state.held.clone());
        Arc::new(View { log_size: state.log_size, batches, held, tail: state.tail.chunks() })
    }

    /// Size of the log up to the newest batch entry.
    pub fn log_size(&self) -> u64 {
        self.state.lock().log_size
    }

    /// What a reader saw when the log had this size: sealed batches only.
    pub fn view_at(&self, log_size: u64) -> Arc<View> {
        Arc::new(View::at(log_size, self.standing().1))
    }

    /// Tail, batches and sets as they are now.
    fn standing(&self) -> (Vec<Arc<Chunk>>, Held) {
        let state = self.state.lock();
        (state.tail.chunks(), state.held.clone())
    }

    /// Whether the tail can take more; if not, senders wait until a seal succeeds.
    pub fn has_room(&self) -> bool {
        self.state.lock().tail.cost_bytes() < self.options.tail_bytes_max
    }

    /// How full the tail is, 0 to 1 and a little beyond.
    pub fn pressure(&self) -> f64 {
        self.state.lock().tail.cost_bytes() as f64 / self.options.tail_bytes_max.max(1) as f64
    }

    /// How many sets, and batches that are in none, readers look through.
    pub fn parts(&self) -> usize {
        let state = self.state.lock();
        let in_sets: usize = state.held.sets.iter().map(|set| set.range().len() - 1).sum();
        state.held.batches.len() - in_sets
    }

    /// Frames, bytes and oldest arrival (microseconds since 1970) that wait for the next seal.
    pub fn waiting(&self) -> (u64, u64, Option<i64>) {
        self.state.lock().tail.waiting()
    }

    /// Whether an earlier seal failed and its frames wait for another attempt.
    pub fn is_retry_due(&self) -> bool {
        self.state.lock().tail.has_frozen() && self.sealing.try_lock().is_some()
    }

    /// Makes frames visible to readers. They must already be durable in the write-ahead log.
    pub fn push(&self, frames: Vec<Admitted>) {
        if !frames.is_empty() {
            self.state.lock().tail.push(frames);
        }
    }

    /// Per-device runs of all sealed batches in log order, for rebuilding the sequence windows at start.
    pub fn ranges(&self) -> Vec<DeviceRange> {
        self.standing().1.batches.iter().flat_map(|batch| batch.manifest.ranges.iter().cloned()).collect()
    }
}

#[cfg(test)]
mod tests;
