//! Every record against its commitment in the log: finds records that were changed after they were written.

use schemas_evidence::entry::{Entry, commitment};

use crate::audit::Audit;
use crate::error::AuditError;
use crate::file;

/// A record that does not match the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// The log entry commits to something else.
    Changed {
        /// Number of the record.
        record: u64,
        /// Where its commitment should be.
        log_index: u64,
    },
    /// The record has no place in the log.
    NotLogged {
        /// Number of the record.
        record: u64,
    },
}

impl Audit {
    /// Reads all records again and compares each with the log. Reads every file: for `vitalog audit`, not for serving.
    pub fn check(&self) -> Result<Vec<Finding>, AuditError> {
        let entries = self.index.read().entries.clone();
        let mut findings = Vec::new();
        for (record, entry) in (0..).zip(entries) {
            let Some(log_index) = entry.log_index else {
                findings.push(Finding::NotLogged { record });
                continue;
            };
            let (salt, body) = file::read(self.dir(), entry.place)?;
            let expected = commitment(&salt, &body);
            let logged = self.ledger().entries(log_index, log_index + 1)?;
            let is_same = logged.first().is_some_and(|text| match Entry::parse(text) {
                Ok(Entry::Query { commitment, .. } | Entry::Result { commitment }) => commitment == expected,
                _ => false,
            });
            if !is_same {
                findings.push(Finding::Changed { record, log_index });
            }
        }
        Ok(findings)
    }
}
