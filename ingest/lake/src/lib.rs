//! The lake: verified frames become sorted Parquet files, a manifest, a Merkle root and one log entry.
//!
//! **The log is the table**: a batch exists if and only if the log has its entry. Files, directory and manifest are
//! synced before the entry is appended; what lies around without an entry is swept away at open. Until it is sealed a
//! frame's rows are in the *tail*, visible to readers at once, and recoverable from the write-ahead log.
//!
//! ```text
//! DATA/lake/<batch>.scalar.parquet   one row per sample          sorted by device, signal, ts
//! DATA/lake/<batch>.wave.parquet     one row per waveform series sorted by device, signal, ts
//! DATA/lake/<batch>.frames.parquet   the signed bytes, in leaf order
//! DATA/lake/<batch>.manifest.json    digests, ranges, WAL positions; its BLAKE3 is in the log entry
//! ```
//!
//! What it is not: it verifies no signature, decides nothing about people, and knows no SQL.

mod audit;
mod error;
mod files;
mod find;
mod open;
mod rows;
mod seal;
mod view;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use bytes::Bytes;
use parking_lot::Mutex;
use schemas_evidence::{Blake3Frames, DeviceRange, FrameHasher, Ledger};
use schemas_frame::{Code, Frame};

pub use audit::{Finding, Progress, audit};
pub use error::LakeError;
pub use find::{Place, StoredFrame};
pub use rows::{Rows, rows};
pub use seal::Sealed;
pub use view::{SealedBatch, View};

/// Bytes of frames that the tail may hold, sealed-in-progress ones included, before senders must wait.
pub const TAIL_BYTES_MAX: u64 = 256 << 20;
/// Tail chunks below this many rows are joined with the next one.
const TAIL_CHUNK_ROWS: usize = 8_192;

/// Where the lake is and how much it may hold back.
#[derive(Debug, Clone)]
pub struct Options {
    /// Directory of the files.
    pub dir: PathBuf,
    /// See [`TAIL_BYTES_MAX`].
    pub tail_bytes_max: u64,
    /// Hashes frames and trees; the default does so one by one.
    pub hasher: Arc<dyn FrameHasher>,
}

impl Options {
    /// Defaults in a directory.
    pub fn new(dir: impl Into<PathBuf>) -> Options {
        Options { dir: dir.into(), tail_bytes_max: TAIL_BYTES_MAX, hasher: Arc::new(Blake3Frames) }
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

#[derive(Default)]
struct Tail {
    /// Frames of the batch being sealed, if one is.
    frozen: Arc<Vec<Admitted>>,
    /// Frames of the next batch.
    active: Vec<Admitted>,
    active_bytes: u64,
    frozen_bytes: u64,
    /// Arrival of the oldest active frame.
    active_since_us: i64,
    places: HashMap<FrameKey, Bytes>,
}

/// The lake of one deployment; one writer, any number of readers of its [`View`].
pub struct Lake {
    options: Options,
    ledger: Arc<dyn Ledger>,
    view: ArcSwap<View>,
    tail: Mutex<Tail>,
    sealing: Mutex<()>,
    covered: AtomicU64,
}

fn key_of(admitted: &Admitted) -> Result<FrameKey, LakeError> {
    let frame =
        Frame::parse(&admitted.frame).map_err(|error| LakeError::Frame { problem: error.to_string() })?;
    Ok((admitted.device, *frame.boot().as_bytes(), frame.seq()))
}

impl Lake {
    /// Directory of the files.
    pub fn directory(&self) -> &Path {
        &self.options.dir
    }

    /// WAL positions below this are in sealed batches.
    pub fn covered(&self) -> u64 {
        self.covered.load(Ordering::Acquire)
    }

    /// What a reader sees now.
    pub fn view(&self) -> Arc<View> {
        self.view.load_full()
    }

    /// What a reader saw when the log had this size: sealed batches only.
    pub fn view_at(&self, log_size: u64) -> Arc<View> {
        let now = self.view();
        let batches: Vec<_> =
            now.batches.iter().filter(|batch| batch.entry_index < log_size).cloned().collect();
        Arc::new(View::sealed(log_size, batches))
    }

    /// Whether the tail can take more; if not, senders wait until a seal succeeds.
    pub fn has_room(&self) -> bool {
        let tail = self.tail.lock();
        tail.active_bytes + tail.frozen_bytes < self.options.tail_bytes_max
    }

    /// Frames, bytes and oldest arrival (microseconds since 1970) that wait for the next seal.
    pub fn waiting(&self) -> (u64, u64, Option<i64>) {
        let tail = self.tail.lock();
        let since = (!tail.active.is_empty()).then_some(tail.active_since_us);
        (tail.active.len() as u64, tail.active_bytes, since)
    }

    /// Whether an earlier seal failed and its frames wait for another attempt.
    pub fn is_retry_due(&self) -> bool {
        !self.tail.lock().frozen.is_empty() && self.sealing.try_lock().is_some()
    }

    /// Makes frames visible to readers. They must already be durable in the write-ahead log.
    pub fn push(&self, frames: Vec<Admitted>) -> Result<(), LakeError> {
        if frames.is_empty() {
            return Ok(());
        }
        let mut keys = Vec::with_capacity(frames.len());
        for admitted in &frames {
            keys.push(key_of(admitted)?);
        }
        let rows = rows::rows(&frames, 0)?;
        let mut tail = self.tail.lock();
        if tail.active.is_empty() {
            tail.active_since_us = frames.iter().map(|frame| frame.received_us).min().unwrap_or(0);
        }
        for (key, admitted) in keys.into_iter().zip(&frames) {
            tail.active_bytes += admitted.frame.len() as u64;
            tail.places.insert(key, admitted.frame.clone());
        }
        tail.active.extend(frames);
        let view = self.view.load();
        let grown = view.with_rows(rows, TAIL_CHUNK_ROWS)?;
        drop(view);
        self.view.store(Arc::new(grown));
        Ok(())
    }

    /// Per-device runs of all sealed batches in log order, for rebuilding the sequence windows at start.
    pub fn ranges(&self) -> Vec<DeviceRange> {
        self.view().batches.iter().flat_map(|batch| batch.manifest.ranges.iter().cloned()).collect()
    }
}

#[cfg(test)]
mod tests;
