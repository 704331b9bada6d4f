//! What readers see: sealed batches and the tail, taken as one value so that no row is doubled or lost.

use std::sync::Arc;

use arrow::array::RecordBatch;
use schemas_evidence::BatchManifest;

use crate::LakeError;
use crate::tail::Chunk;

/// A batch that the log knows.
#[derive(Debug, Clone)]
pub struct SealedBatch {
    /// What it consists of.
    pub manifest: BatchManifest,
    /// Place of its entry in the log.
    pub entry_index: u64,
}

/// One consistent state.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// Size of the log up to the newest batch entry seen.
    pub log_size: u64,
    /// Sealed batches in log order.
    pub batches: Arc<Vec<Arc<SealedBatch>>>,
    /// Frames that are being sealed and frames after them, in arrival order.
    pub(crate) tail: Vec<Arc<Chunk>>,
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
    /// A view of sealed batches with an empty tail.
    pub(crate) fn sealed(log_size: u64, batches: Vec<Arc<SealedBatch>>) -> View {
        View { log_size, batches: Arc::new(batches), tail: Vec::new() }
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
