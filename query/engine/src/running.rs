//! A query under way. A driver task on the engine's own threads pulls the plan and hands batches over a
//! bounded channel; whatever happens to it (end, error, time, consent, a reader that goes away, a panic) it
//! records one completion, and does so before the reader learns of the end.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use datafusion::common::DataFusionError;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use futures::{FutureExt, Stream, StreamExt};
use query_audit::{Audit, Receipt};
use schemas_identity::Did;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::error::{Budget, EngineError};
use crate::manifest::QueryManifest;
use crate::reader::BATCH_ROWS_MAX;
use crate::record::{self, Request};
use crate::scan::Access;

/// What passes from driver to reader. Without an `End` a stream has been cut off.
pub(crate) enum Message {
    Batch(RecordBatch),
    Failed(EngineError),
    End(Box<QueryManifest>),
}

/// The rows of a query, as a stream. Dropping it stops the query.
pub struct Running {
    id: String,
    schema: SchemaRef,
    access: Arc<Access>,
    receiver: mpsc::Receiver<Message>,
    manifest: Option<Box<QueryManifest>>,
    over: bool,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running").field("id", &self.id).field("over", &self.over).finish_non_exhaustive()
    }
}

impl Running {
    pub(crate) fn new(
        id: String,
        access: Arc<Access>,
        schema: SchemaRef,
        receiver: mpsc::Receiver<Message>,
    ) -> Self {
        Self { id, schema, access, receiver, manifest: None, over: false }
    }

    /// Id of the query: that of its record in the audit and of its manifest.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Columns of the result.
    #[must_use]
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// What the answer was made of, once the stream has ended well; the bytes sent are for the door to add.
    pub fn take_manifest(&mut self) -> Option<QueryManifest> {
        self.manifest.take().map(|manifest| *manifest)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Operators that work long look at this; the channel's end they cannot see.
        self.access.shared.gone.store(true, Ordering::Relaxed);
    }
}

impl Stream for Running {
    type Item = Result<RecordBatch, EngineError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.over {
            return Poll::Ready(None);
        }
        match self.receiver.poll_recv(context) {
            Poll::Pending => Poll::Pending,
            // Batches may have waited in the channel while consent changed.
            Poll::Ready(Some(Message::Batch(_))) if !self.access.holds() => {
                self.over = true;
                self.receiver.close();
                Poll::Ready(Some(Err(EngineError::ConsentChanged)))
            }
            Poll::Ready(Some(Message::Batch(batch))) => Poll::Ready(Some(Ok(batch))),
            Poll::Ready(Some(Message::Failed(error))) => {
                self.over = true;
                Poll::Ready(Some(Err(error)))
            }
            Poll::Ready(Some(Message::End(manifest))) => {
                self.over = true;
                self.manifest = Some(manifest);
                Poll::Ready(None)
            }
            Poll::Ready(None) => {
                self.over = true;
                Poll::Ready(Some(Err(EngineError::Internal("query ended without a word".to_owned()))))
            }
        }
    }
}

/// How a query ended.
#[derive(Debug)]
pub(crate) enum Ending {
    /// All rows were handed over.
    Complete,
    /// The reader went away.
    Abandoned,
    /// Something failed.
    Failed(EngineError),
}

/// How much was handed over.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Handed {
    pub rows: u64,
    pub bytes: u64,
}

/// Runs a plan to its end.
pub(crate) struct Driver {
    pub plan: Arc<dyn ExecutionPlan>,
    pub context: Arc<TaskContext>,
    pub access: Arc<Access>,
    pub audit: Arc<Audit>,
    pub receipt: Receipt,
    pub sender: mpsc::Sender<Message>,
    pub deadline: Instant,
    pub rows_max: u64,
    pub bytes_max: u64,
    pub request: Request,
}

impl Driver {
    pub(crate) async fn run(self) {
        let mut handed = Handed::default();
        let ending = match AssertUnwindSafe(self.hand_over(&mut handed)).catch_unwind().await {
            Ok(ending) => ending,
            Err(_) => Ending::Failed(EngineError::Internal("query panicked".to_owned())),
        };
        let mut manifest = self.manifest(handed);
        let Self { plan, access, audit, receipt, sender, .. } = self;
        drop(plan);
        let per_subject: BTreeMap<Did, u64> = access.shared.counts.snapshot();
        let completion = record::completion(&ending, per_subject, handed, (access.shared.clock)());
        let recorded = tokio::task::spawn_blocking(move || audit.complete(&receipt, completion)).await;
        let last = match (ending, recorded) {
            (Ending::Failed(error), _) => Message::Failed(error),
            (Ending::Abandoned, _) => return,
            (Ending::Complete, Ok(Ok(index))) => {
                // A polling client's completion is not written yet; what is returned then is the intent's own place.
                manifest.result_index = (index != manifest.query_index).then_some(index);
                Message::End(Box::new(manifest))
            }
            (Ending::Complete, Ok(Err(error))) => Message::Failed(EngineError::Audit(error.to_string())),
            (Ending::Complete, Err(error)) => Message::Failed(EngineError::Audit(error.to_string())),
        };
        let _ = tokio::time::timeout_at(self.deadline, sender.send(last)).await;
    }

    async fn hand_over(&self, handed: &mut Handed) -> Ending {
        let mut rows = match execute_stream(Arc::clone(&self.plan), Arc::clone(&self.context)) {
            Ok(rows) => rows,
            Err(error) => return Ending::Failed(self.classify(error)),
        };
        loop {
            let next = tokio::select! {
                biased;
                () = self.sender.closed() => return self.gone(),
                () = tokio::time::sleep_until(self.deadline) => return Ending::Failed(EngineError::Timeout),
                next = rows.next() => next,
            };
            let batch = match next {
                // Rows that are all in may still wait in an aggregate: the promise holds for them too.
                None if !self.access.holds() => return Ending::Failed(EngineError::ConsentChanged),
                None => return Ending::Complete,
                Some(Err(_)) if self.is_unheard() => return self.gone(),
                Some(Err(error)) => return Ending::Failed(self.classify(error)),
                Some(Ok(batch)) => batch,
            };
            if let Err(ending) = self.hand_batch(&batch, handed).await {
                return ending;
            }
        }
    }

    /// Whether the reader has gone: it says so before its end of the channel closes.
    fn is_unheard(&self) -> bool {
        self.sender.is_closed() || self.access.shared.gone.load(Ordering::Relaxed)
    }

    async fn hand_batch(&self, batch: &RecordBatch, handed: &mut Handed) -> Result<(), Ending> {
        let mut start = 0;
        while start < batch.num_rows() {
            let part = batch.slice(start, BATCH_ROWS_MAX.min(batch.num_rows() - start));
            start += part.num_rows();
            let rows = handed.rows.saturating_add(u64::try_from(part.num_rows()).unwrap_or(u64::MAX));
            let size: usize = part
                .columns()
                .iter()
                .map(|column| column.to_data().get_slice_memory_size().unwrap_or(0))
                .sum();
            let bytes = handed.bytes.saturating_add(u64::try_from(size).unwrap_or(u64::MAX));
            if rows > self.rows_max {
                return Err(Ending::Failed(EngineError::OverBudget(Budget::Rows)));
            }
            if bytes > self.bytes_max {
                return Err(Ending::Failed(EngineError::OverBudget(Budget::Bytes)));
            }
            let room = tokio::select! {
                biased;
                () = tokio::time::sleep_until(self.deadline) => return Err(Ending::Failed(EngineError::Timeout)),
                room = self.sender.reserve() => room,
            };
            let Ok(room) = room else { return Err(self.gone()) };
            // Looked at last: after any wait for the reader, before the rows are out of our hands.
            if !self.access.holds() {
                return Err(Ending::Failed(EngineError::ConsentChanged));
            }
            (handed.rows, handed.bytes) = (rows, bytes);
            room.send(Message::Batch(part));
        }
        Ok(())
    }

    /// The reader has gone; if consent went first, that is why.
    fn gone(&self) -> Ending {
        if self.access.holds() { Ending::Abandoned } else { Ending::Failed(EngineError::ConsentChanged) }
    }

    /// Sorts what a running plan says into the public classes. A change of consent wins over whatever error
    /// it brought about.
    fn classify(&self, error: DataFusionError) -> EngineError {
        if self.access.shared.cut.load(Ordering::SeqCst) || !self.access.holds() {
            return EngineError::ConsentChanged;
        }
        if Instant::now() >= self.deadline {
            return EngineError::Timeout;
        }
        let detail = error.strip_backtrace();
        match error.find_root() {
            DataFusionError::ResourcesExhausted(_) => EngineError::OverBudget(Budget::Memory),
            // Nothing but `spill` writes or reads files below Arrow: its bound is reached, or the disk is full.
            DataFusionError::ArrowError(error, _) if matches!(**error, ArrowError::IoError(..)) => {
                tracing::warn!(query = self.request.id, detail, "no disk for what is larger than memory");
                EngineError::OverBudget(Budget::Memory)
            }
            DataFusionError::External(_) | DataFusionError::IoError(_) | DataFusionError::Internal(_) => {
                EngineError::Internal(detail)
            }
            _ => EngineError::Evaluation(detail),
        }
    }

    fn manifest(&self, handed: Handed) -> QueryManifest {
        let warrant = &self.request.warrant;
        let view = &self.access.shared.view;
        QueryManifest {
            id: self.request.id.clone(),
            principal: *warrant.principal(),
            purpose: warrant.purpose().to_owned(),
            study: warrant.study().map(str::to_owned),
            sql_blake3: *blake3::hash(self.request.sql.as_bytes()).as_bytes(),
            asked_us: self.request.now_us,
            is_of_past: self.request.is_of_past,
            log_size: view.log_size,
            sources: view.sources.clone(),
            live_tail: !view.tail_scalar.is_empty() || !view.tail_wave.is_empty(),
            consent_epoch: warrant.epoch(),
            record: self.receipt.number(),
            query_index: self.receipt.log_index(),
            result_index: None,
            rows: handed.rows,
        }
    }
}
