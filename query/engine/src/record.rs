//! What the engine tells the audit: an intent before the first row, a completion after the last, and refused
//! statements. The audit decides how that is kept and shown.

use std::collections::BTreeMap;
use std::sync::Arc;

use query_audit::{Completion, Intent, Receipt};
use query_consents::Warrant;
use schemas_identity::Did;

use crate::engine::{Engine, Planned};
use crate::error::EngineError;
use crate::running::{Ending, Handed};

/// What the manifest repeats of a request.
pub(crate) struct Facts {
    pub principal: Did,
    pub purpose: String,
    pub study: Option<String>,
    pub sql_blake3: String,
    pub consent_epoch: u64,
}

/// Takes the facts of a request.
pub(crate) fn facts(warrant: &Warrant, sql: &str) -> Facts {
    Facts {
        principal: *warrant.principal(),
        purpose: warrant.purpose().to_owned(),
        study: warrant.study().map(str::to_owned),
        sql_blake3: blake3::hash(sql.as_bytes()).to_hex().to_string(),
        consent_epoch: warrant.epoch(),
    }
}

impl Engine {
    pub(crate) async fn record_intent(
        &self,
        warrant: &Arc<Warrant>,
        sql: &str,
        planned: &Planned,
    ) -> Result<Receipt, EngineError> {
        let audit = Arc::clone(self.audit());
        let intent = Intent {
            sql: sql.to_owned(),
            log_size: planned.access.shared.view.log_size,
            epoch: warrant.epoch(),
        };
        tokio::task::spawn_blocking(move || audit.intent(intent))
            .await
            .map_err(|error| EngineError::Audit(error.to_string()))?
            .map_err(|error| EngineError::Audit(error.to_string()))
    }

    pub(crate) async fn record_refusal(&self, warrant: &Arc<Warrant>, sql: &str, refusal: &EngineError) {
        let _ = (warrant, sql, refusal);
    }
}

/// The audit's completion for an ending.
pub(crate) fn completion(ending: &Ending, subjects: BTreeMap<Did, u64>, handed: Handed) -> Completion {
    let outcome = match ending {
        Ending::Complete => "complete",
        Ending::Abandoned => "abandoned",
        Ending::Failed(error) => error.code(),
    };
    Completion { outcome: outcome.to_owned(), subjects, result_rows: handed.rows, bytes: handed.bytes }
}
