//! What can go wrong in the lake, and whether trying again helps.

use std::path::PathBuf;

use schemas_evidence::{LedgerError, ManifestError};

/// Errors of the lake.
#[derive(Debug, thiserror::Error)]
pub enum LakeError {
    /// The system refused a file operation.
    #[error("{path}: {source}")]
    Io {
        /// File or directory.
        path: PathBuf,
        /// Reason given by the system.
        source: std::io::Error,
    },
    /// Columns could not be built.
    #[error(transparent)]
    Arrow(#[from] arrow::error::ArrowError),
    /// A Parquet file could not be written or read.
    #[error(transparent)]
    Parquet(#[from] parquet::errors::ParquetError),
    /// The log did not take or give an entry.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A manifest breaks its rules.
    #[error("manifest of batch {batch}: {source}")]
    Manifest {
        /// The batch.
        batch: String,
        /// What is wrong.
        source: ManifestError,
    },
    /// The log names a batch whose manifest is gone or is another one.
    #[error(
        "log entry {index} names batch {batch}, but {problem}: restore the file from a backup, then run audit"
    )]
    Contradiction {
        /// Place in the log.
        index: u64,
        /// The batch.
        batch: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// The log names a set whose manifest or files are gone or do not fit.
    #[error(
        "log entry {index} names set {set}, but {problem}: restore the file from a backup, then run audit"
    )]
    SetContradiction {
        /// Place in the log.
        index: u64,
        /// The set, or the digest of its manifest where that is missing.
        set: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// A set that was just written does not give the frames of its batches. It is not used.
    #[error("set {set} was not made well: {problem}")]
    Mismade {
        /// The set.
        set: String,
        /// What is wrong.
        problem: String,
    },
    /// The work was given up because whoever asked for it wants to stop.
    #[error("stopped before the end")]
    Stopped,
    /// A frame that was parsed before does not parse now.
    #[error("a stored frame does not parse: {problem}")]
    Frame {
        /// The decoder's words.
        problem: String,
    },
    /// A stored file misses a column or a row that its manifest promises.
    #[error("{file}: {problem}")]
    Stored {
        /// File name.
        file: String,
        /// What is wrong.
        problem: &'static str,
    },
}

impl LakeError {
    /// Whether the same call may succeed later (a full disk that is freed), nothing having been lost.
    pub fn is_recoverable(&self) -> bool {
        match self {
            LakeError::Io { .. } | LakeError::Parquet(_) => true,
            LakeError::Ledger(error) => !error.is_poisoned(),
            _ => false,
        }
    }
}
