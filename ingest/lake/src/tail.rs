//! The tail: frames that are durable and not yet in a batch, in chunks. Their rows are made when a reader first asks, once
//! per chunk: a station that nobody watches at the moment spends nothing on it.

use std::sync::{Arc, OnceLock};

use arrow::error::ArrowError;
use schemas_evidence::BatchManifest;

use crate::Admitted;
use crate::rows::{Rows, rows};

/// Frames of a chunk. The last chunk is still growing; readers make its rows anew each time.
pub(crate) const CHUNK_FRAMES: usize = 512;
/// Charged to each frame of the tail beside its bytes: what the memory holds for it.
pub(crate) const FRAME_OVERHEAD_BYTES: u64 = 160;

/// Some frames of the tail, in the order of arrival.
#[derive(Debug)]
pub(crate) struct Chunk {
    frames: Vec<Admitted>,
    rows: OnceLock<Rows>,
}

impl Chunk {
    pub(crate) fn new(frames: Vec<Admitted>) -> Arc<Chunk> {
        Arc::new(Chunk { frames, rows: OnceLock::new() })
    }

    pub(crate) fn frames(&self) -> &[Admitted] {
        &self.frames
    }

    /// The chunk's rows, made at the first call.
    pub(crate) fn rows(&self) -> Result<&Rows, ArrowError> {
        if let Some(known) = self.rows.get() {
            return Ok(known);
        }
        // Two readers may both make them; they are equal, and one is kept.
        let made = rows(&self.frames, 0)?;
        Ok(self.rows.get_or_init(|| made))
    }
}

/// Frames and bytes held.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) frames: u64,
    pub(crate) bytes: u64,
}

impl Held {
    /// What it costs in memory.
    pub(crate) fn cost_bytes(self) -> u64 {
        self.bytes + self.frames * FRAME_OVERHEAD_BYTES
    }
}

/// Frames of the batch being sealed, and of the next one.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    frozen: Vec<Arc<Chunk>>,
    frozen_held: Held,
    /// The frozen frames' batch, once its files are durable.
    written: Option<Arc<BatchManifest>>,
    closed: Vec<Arc<Chunk>>,
    open: Vec<Admitted>,
    active_held: Held,
    /// Arrival of the oldest active frame.
    active_since_us: i64,
}

impl Tail {
    pub(crate) fn push(&mut self, frames: Vec<Admitted>) {
        let oldest_us = frames.iter().map(|frame| frame.received_us).min().unwrap_or(0);
        if self.active_held.frames == 0 {
            self.active_since_us = oldest_us;
        }
        self.active_held.frames += frames.len() as u64;
        self.active_held.bytes += frames.iter().map(|admitted| admitted.frame.len() as u64).sum::<u64>();
        self.open.extend(frames);
        if self.open.len() >= CHUNK_FRAMES {
            self.closed.push(Chunk::new(std::mem::take(&mut self.open)));
        }
    }

    /// Frames, bytes and oldest arrival that wait for the next seal.
    pub(crate) fn waiting(&self) -> (u64, u64, Option<i64>) {
        let since = (self.active_held.frames > 0).then_some(self.active_since_us);
        (self.active_held.frames, self.active_held.bytes, since)
    }

    /// What it costs in memory.
    pub(crate) fn cost_bytes(&self) -> u64 {
        self.active_held.cost_bytes() + self.frozen_held.cost_bytes()
    }

    /// Whether an earlier seal left its frames.
    pub(crate) fn has_frozen(&self) -> bool {
        !self.frozen.is_empty()
    }

    /// Moves the active frames to the frozen place, unless an earlier attempt left some there.
    pub(crate) fn freeze(&mut self) -> Vec<Arc<Chunk>> {
        if self.frozen.is_empty() {
            if !self.open.is_empty() {
                self.closed.push(Chunk::new(std::mem::take(&mut self.open)));
            }
            self.frozen = std::mem::take(&mut self.closed);
            self.frozen_held = std::mem::take(&mut self.active_held);
        }
        self.frozen.clone()
    }

    /// The frozen frames' batch, if an earlier attempt got as far as the log.
    pub(crate) fn written(&self) -> Option<Arc<BatchManifest>> {
        self.written.clone()
    }

    /// From here on the log may name the batch: its files are neither written again nor swept.
    pub(crate) fn set_written(&mut self, manifest: Arc<BatchManifest>) {
        self.written = Some(manifest);
    }

    /// The frozen frames are in a batch now.
    pub(crate) fn thaw(&mut self) {
        self.written = None;
        self.frozen = Vec::new();
        self.frozen_held = Held::default();
    }

    /// All chunks, oldest first; the growing one as it is now.
    pub(crate) fn chunks(&self) -> Vec<Arc<Chunk>> {
        let mut chunks: Vec<_> = self.frozen.iter().chain(&self.closed).cloned().collect();
        if !self.open.is_empty() {
            chunks.push(Chunk::new(self.open.clone()));
        }
        chunks
    }
}
