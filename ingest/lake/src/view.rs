//! What readers see: sealed batches and the tail, taken as one value so that no row is doubled or lost.

use std::sync::Arc;

use arrow::array::RecordBatch;
use schemas_evidence::{BatchManifest, FileRef};

use crate::LakeError;
use crate::sets::Held;
use crate::tail::Chunk;

/// A batch that the log knows.
#[derive(Debug, Clone)]
pub struct SealedBatch {
    /// What it consists of. Its own files are there until it is in a set.
    pub manifest: BatchManifest,
    /// Place of its entry in the log.
    pub entry_index: u64,
}

/// One consistent state. Files that it names stay as long as it is held.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// Size of the log up to the newest batch entry seen.
    pub log_size: u64,
    /// Sealed batches in log order.
    pub batches: Arc<Vec<Arc<SealedBatch>>>,
    /// All batches and sets; more than `batches` in a view of the past.
    pub(crate) held: Held,
    /// Frames that are being sealed and frames after them, in arrival order.
    pub(crate) tail: Vec<Arc<Chunk>>,
}

/// Files to read together: of a batch or of a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part<'a> {
    /// One of each kind that has rows.
    pub files: &'a [FileRef],
    /// Rows and frames with this leaf or a later one are of batches that came later than the view; `None` = all belong to
    /// it.
    pub leaf_limit: Option<u32>,
}

/// Rows of the tail, with every column that readers are shown.
#[derive(Debug, Clone, Default)]
pub struct TailRows {
    /// One row per sample.
    pub scalar: Vec<RecordBatch>,
    /// One row per waveform series.
    pub wave: Vec<RecordBatch>,
}

impl View {
    /// Everything that is sealed and not later than a log size.
    pub(crate) fn at(log_size: u64, held: Held) -> View {
        let earlier = held.batches.partition_point(|batch| batch.entry_index < log_size);
        let batches = match held.batches.get(..earlier) {
            Some(some) if some.len() < held.batches.len() => Arc::new(some.to_vec()),
            _ => held.batches.clone(),
        };
        View { log_size, batches, held, tail: Vec::new() }
    }

    /// The sealed files in log order. A set of which some batches came later than this view is read up to a leaf, whether it
    /// was made before or after: its batches are in log order, so that the limit is exact.
    pub fn parts(&self) -> Vec<Part<'_>> {
        let seen = self.batches.len();
        let mut parts = Vec::new();
        for unit in self.held.units() {
            let range = unit.range();
            if range.start >= seen {
                break;
            }
            let leaf_limit = match range.end > seen {
                true => self.held.home(seen).map(|home| home.leaves.start),
                false => None,
            };
            parts.push(Part { files: unit.files, leaf_limit });
        }
        parts
    }

    /// Places in the log of the entries that commit to these files: of each batch, and of each set that stands in the place
    /// of some batches' own files. Both rise; a set's may be later than the view.
    pub fn entry_indices(&self) -> (impl ExactSizeIterator<Item = u64>, impl ExactSizeIterator<Item = u64>) {
        let sets = self.held.sets.partition_point(|set| set.range().start < self.batches.len());
        let mut sets: Vec<u64> = self.held.sets.iter().take(sets).map(|set| set.entry_index).collect();
        // Sets stand in the order of their batches, and a later one may hold earlier batches.
        sets.sort_unstable();
        (self.batches.iter().map(|batch| batch.entry_index), sets.into_iter())
    }

    /// The tail's rows, chunk by chunk in the order of arrival; made now if nobody asked before.
    ///
    /// # Errors
    /// If bytes are no frame, which those of a verified one are.
    pub fn tail_rows(&self) -> Result<TailRows, LakeError> {
        let mut all = TailRows::default();
        for chunk in &self.tail {
            let rows = chunk.rows()?;
            for (made, into) in [(&rows.scalar, &mut all.scalar), (&rows.wave, &mut all.wave)] {
                if made.num_rows() > 0 {
                    into.push(made.clone());
                }
            }
        }
        Ok(all)
    }
}
