//! What can go wrong. Whatever does, the engine must not release a row.

use std::io;
use std::path::PathBuf;

use schemas_evidence::ledger::LedgerError;
use thiserror::Error;

/// Why a record could not be made or read.
#[derive(Debug, Error)]
pub enum AuditError {
    /// The disk refused.
    #[error("{action} {}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A record file is damaged before its end. Nothing is cut off then: restore it from a copy.
    #[error("{} is damaged at byte {offset}: {problem}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where the damaged group begins.
        offset: u64,
        /// What does not fit.
        problem: &'static str,
    },
    /// A record refers to people whom no earlier record of its file names: files were changed.
    #[error("record {record}, in {file:08}.audit, refers to people who are not named there")]
    Dangling {
        /// Number of the record.
        record: u64,
        /// Number of its file.
        file: u32,
    },
    /// Another process has the directory.
    #[error("{} is in use by another process", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// The record is durable, its commitment is not known to be in the log.
    #[error("the log did not take the commitment")]
    Ledger(#[from] LedgerError),
    /// An earlier write failed half way. Reopen to go on.
    #[error("the audit is closed after a failed write")]
    Poisoned,
    /// One record may not concern more people than this.
    #[error("{subjects} subjects in one record; at most {max}")]
    TooManySubjects {
        /// How many it would be.
        subjects: usize,
        /// The limit.
        max: usize,
    },
    /// The completion counts rows of people outside the intent. They were not told: a bug in the engine.
    #[error("rows of {subjects} subjects outside the intent's scope")]
    OutsideScope {
        /// How many people.
        subjects: usize,
    },
    /// The query has its completion already.
    #[error("the query was completed before")]
    AlreadyComplete,
    /// No random salt could be drawn.
    #[error("no randomness")]
    Random,
    /// The index counts records in 32 bits.
    #[error("the audit is full")]
    Full,
}

impl AuditError {
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> AuditError {
        let path = path.into();
        move |source| AuditError::Io { action, path, source }
    }

    /// True if only opening the audit again can help.
    pub fn is_poisoned(&self) -> bool {
        matches!(self, AuditError::Poisoned | AuditError::Io { .. })
    }
}
