//! What the engine tells the audit: an intent before the first row, a completion after the last, and refused
//! statements. The audit decides how that is kept and shown.

use std::collections::BTreeMap;
use std::sync::Arc;

use query_audit::{Audit, Completion, Intent, Outcome, Receipt, Refused, Voucher};
use query_consents::Warrant;
use schemas_identity::Did;

use crate::error::EngineError;
use crate::running::{Ending, Handed};
use crate::scan::Access;

/// Bytes of a query id before they are hex.
const ID_BYTES: usize = 16;

/// One request, as far as records and manifest repeat it.
pub(crate) struct Request {
    /// Id of the query and of its manifest: random, so that it tells nothing.
    pub id: String,
    /// The permission.
    pub warrant: Arc<Warrant>,
    /// The statement.
    pub sql: String,
    /// When it was asked, microseconds UTC.
    pub now_us: i64,
    /// Whether it asks of an earlier state.
    pub is_of_past: bool,
}

impl Request {
    /// A request with a fresh id.
    pub(crate) fn new(
        warrant: Warrant,
        sql: &str,
        now_us: i64,
        is_of_past: bool,
    ) -> Result<Self, EngineError> {
        let mut id = [0_u8; ID_BYTES];
        getrandom::fill(&mut id).map_err(|error| EngineError::Internal(error.to_string()))?;
        Ok(Self { id: hex::encode(id), warrant: Arc::new(warrant), sql: sql.to_owned(), now_us, is_of_past })
    }

    /// Records that somebody is about to read; durable and in the log when this returns. For a client that polls, a record
    /// that covers it may be there already.
    pub(crate) async fn intend(
        &self,
        audit: &Arc<Audit>,
        access: &Access,
        polls: bool,
    ) -> Result<Receipt, EngineError> {
        let warrant = &self.warrant;
        let intent = Intent {
            recipient: *warrant.principal(),
            voucher: voucher(warrant),
            token_id: warrant.token_id().to_owned(),
            purpose: warrant.purpose().to_owned(),
            study: warrant.study().map(str::to_owned),
            sql: self.sql.clone(),
            scope: access.scope(),
            withheld: warrant.withheld().to_vec(),
            epoch: warrant.epoch(),
            log_size: access.shared.view.log_size,
            started_us: self.now_us,
        };
        let audit = Arc::clone(audit);
        let warrants: Vec<Arc<Warrant>> =
            access.reaches.iter().map(|reach| Arc::clone(&reach.warrant)).collect();
        let until_us = warrants.iter().map(|warrant| warrant.until_us()).fold(warrant.until_us(), i64::min);
        let unchanged = move || warrants.iter().all(|warrant| warrant.is_current());
        let record = move || match polls {
            true => audit.poll(intent, until_us, Arc::new(unchanged)),
            false => audit.intent(intent),
        };
        match tokio::task::spawn_blocking(record).await {
            Ok(Ok(receipt)) => Ok(receipt),
            Ok(Err(error)) => Err(EngineError::Audit(error.to_string())),
            Err(error) => Err(EngineError::Audit(error.to_string())),
        }
    }

    /// Records a statement that was refused for what it tried to do. Typing errors and overload are no attempts.
    pub(crate) async fn refuse(&self, audit: &Arc<Audit>, refusal: &EngineError) {
        if !matches!(refusal, EngineError::ReadOnly(_) | EngineError::Unsupported(_) | EngineError::TooBig(_))
        {
            return;
        }
        let warrant = &self.warrant;
        let refused = Refused {
            recipient: *warrant.principal(),
            voucher: voucher(warrant),
            token_id: warrant.token_id().to_owned(),
            purpose: warrant.purpose().to_owned(),
            study: warrant.study().map(str::to_owned),
            sql: self.sql.chars().take(crate::gate::SQL_BYTES_MAX).collect(),
            subjects: Vec::new(),
            reason: refusal.code().to_owned(),
            epoch: warrant.epoch(),
            at_us: self.now_us,
        };
        let audit = Arc::clone(audit);
        let recorded = tokio::task::spawn_blocking(move || audit.refused(refused)).await;
        match recorded {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::error!(query = self.id, %error, "refusal not recorded"),
            Err(error) => tracing::error!(query = self.id, %error, "refusal not recorded"),
        }
    }
}

/// Who vouches for the one who asks, as the permission has it.
fn voucher(warrant: &Warrant) -> Option<Voucher> {
    warrant.vouched().map(|vouched| Voucher::of(vouched, warrant.register()))
}

/// The audit's completion for an ending.
pub(crate) fn completion(
    ending: &Ending,
    rows: BTreeMap<Did, u64>,
    handed: Handed,
    now_us: i64,
) -> Completion {
    let outcome = match ending {
        Ending::Complete => Outcome::Released,
        Ending::Abandoned => Outcome::Cancelled,
        Ending::Failed(EngineError::ConsentChanged) => Outcome::Revoked,
        Ending::Failed(_) => Outcome::Error,
    };
    Completion { outcome, rows, result_rows: handed.rows, bytes: handed.bytes, ended_us: now_us }
}
