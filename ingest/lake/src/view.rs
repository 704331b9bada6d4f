//! What readers see: sealed batches and the tail, swapped as one value so that no row is doubled or lost.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::error::ArrowError;
use schemas_evidence::BatchManifest;

use crate::rows::Rows;

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
    pub batches: Vec<Arc<SealedBatch>>,
    /// Samples of frames that are being sealed and of frames after them, in arrival order.
    pub tail_scalar: Vec<RecordBatch>,
    /// Waveform series of the same.
    pub tail_wave: Vec<RecordBatch>,
    /// How many of the tail chunks belong to the batch being sealed.
    frozen: (usize, usize),
}

impl View {
    /// A view of sealed batches with an empty tail.
    pub(crate) fn sealed(log_size: u64, batches: Vec<Arc<SealedBatch>>) -> View {
        View { log_size, batches, ..View::default() }
    }

    /// This view with more rows in the tail.
    pub(crate) fn with_rows(&self, rows: Rows, chunk_rows: usize) -> Result<View, ArrowError> {
        let mut next = self.clone();
        append(&mut next.tail_scalar, rows.scalar, self.frozen.0, chunk_rows)?;
        append(&mut next.tail_wave, rows.wave, self.frozen.1, chunk_rows)?;
        Ok(next)
    }

    /// This view with its whole tail marked as being sealed.
    pub(crate) fn frozen(&self) -> View {
        View { frozen: (self.tail_scalar.len(), self.tail_wave.len()), ..self.clone() }
    }

    /// This view after the seal: the batch instead of the frozen chunks.
    pub(crate) fn thawed(&self, batch: Arc<SealedBatch>) -> View {
        let mut next = self.clone();
        next.tail_scalar.drain(..self.frozen.0);
        next.tail_wave.drain(..self.frozen.1);
        next.frozen = (0, 0);
        next.log_size = batch.entry_index + 1;
        next.batches.push(batch);
        next
    }
}

/// Appends a chunk, joining it with the last one while that is small and not being sealed.
fn append(
    chunks: &mut Vec<RecordBatch>,
    rows: RecordBatch,
    frozen: usize,
    chunk_rows: usize,
) -> Result<(), ArrowError> {
    if rows.num_rows() == 0 {
        return Ok(());
    }
    let joinable = chunks.len() > frozen && chunks.last().is_some_and(|last| last.num_rows() < chunk_rows);
    match chunks.last_mut() {
        Some(last) if joinable => *last = concat_batches(&rows.schema(), [&*last, &rows])?,
        _ => chunks.push(rows),
    }
    Ok(())
}
