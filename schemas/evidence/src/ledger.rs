//! The two traits between the product and whatever makes it tamper-evident.
//!
//! `Ledger` is local and immediate: an ordered log whose append is durable when it returns. `Anchor` is remote and eventual:
//! somebody else who is shown a checkpoint. What they are not: one interface. A chain cannot answer in a
//! millisecond and a file cannot vouch for its owner.

use std::io;
use std::sync::Arc;

use thiserror::Error;

use crate::checkpoint::CheckpointError;
use crate::entry::{Entry, EntryError};
use crate::merkle::{Hash32, ProofError};
use crate::note::NoteError;

/// Most entries one call of [`Ledger::entries`] returns; a longer range is refused.
pub const ENTRIES_PER_READ_MAX: u64 = 65_536;

/// Most entries one call of [`Ledger::append`] takes.
pub const APPEND_ENTRIES_MAX: usize = 16_384;

/// A local append-only log of [`Entry`]s in an RFC 6962 tree, with one writer.
pub trait Ledger: Send + Sync {
    /// The log's name: the first line of its checkpoints and the `aud` of every statement.
    fn origin(&self) -> &str;

    /// Appends, and returns the indices the entries got: contiguous, in the order given.
    ///
    /// At most [`APPEND_ENTRIES_MAX`]. When it returns the entries are durable and a published checkpoint covers them. Concurrent callers share one
    /// synchronisation with the disk. On an error nothing of the call may be assumed: it may be in the log after a restart.
    fn append(&self, entries: &[Entry]) -> Result<Vec<u64>, LedgerError>;

    /// Number of entries the newest published checkpoint covers.
    fn size(&self) -> u64;

    /// The newest checkpoint, a C2SP signed note.
    fn checkpoint(&self) -> Result<String, LedgerError>;

    /// The texts of entries `from..to`, at most [`ENTRIES_PER_READ_MAX`].
    fn entries(&self, from: u64, to: u64) -> Result<Vec<String>, LedgerError>;

    /// The inclusion proof of entry `index` in the tree of `size` entries.
    fn inclusion(&self, index: u64, size: u64) -> Result<Vec<Hash32>, LedgerError>;

    /// The consistency proof from `old` (at least 1) to `new` entries.
    fn consistency(&self, old: u64, new: u64) -> Result<Vec<Hash32>, LedgerError>;

    /// A C2SP tlog-proof of entry `index` under the newest checkpoint.
    fn tlog_proof(&self, index: u64) -> Result<String, LedgerError>;
}

/// Why a ledger could not do what was asked.
#[derive(Debug, Clone, Error)]
pub enum LedgerError {
    /// The entry's own text does not read back: a rule of its kind is broken.
    #[error("entry refused")]
    Entry(#[from] EntryError),
    /// More than [`APPEND_ENTRIES_MAX`] entries in one call.
    #[error("{entries} entries in one call, more than {APPEND_ENTRIES_MAX}")]
    TooMany {
        /// Entries in the call.
        entries: usize,
    },
    /// A range or size outside the published log.
    #[error("range {from}..{to} is outside a log of {size} entries, or too long")]
    Range {
        /// First index.
        from: u64,
        /// One past the last index.
        to: u64,
        /// Entries in the log.
        size: u64,
    },
    /// No such proof.
    #[error("no such proof")]
    Proof(#[from] ProofError),
    /// The log cannot sign its checkpoint: its name cannot be a key name.
    #[error("the log cannot sign its checkpoint")]
    Checkpoint(#[from] CheckpointError),
    /// The disk refused.
    #[error("{action} {path}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// The file or directory.
        path: String,
        /// What the system said.
        #[source]
        source: Arc<io::Error>,
    },
    /// The stored log contradicts itself. It is not opened; restore it from a copy that does not.
    #[error("the log contradicts itself at {place}: {problem}")]
    Corrupt {
        /// File, tile or entry.
        place: String,
        /// What does not fit.
        problem: String,
    },
    /// Another process has the log open for writing.
    #[error("{path} is locked by another writer")]
    Locked {
        /// The lock file.
        path: String,
    },
    /// An earlier write failed half way; the log takes nothing more until it is reopened.
    #[error("the log is closed for writing after a failed write")]
    Poisoned,
}

/// The texts of entries as an implementation stores them; refuses what [`Ledger::append`] must refuse.
pub fn texts_of(entries: &[Entry]) -> Result<Vec<String>, LedgerError> {
    if entries.len() > APPEND_ENTRIES_MAX {
        return Err(LedgerError::TooMany { entries: entries.len() });
    }
    let texts: Vec<String> = entries.iter().map(Entry::to_text).collect();
    for text in &texts {
        Entry::parse(text)?;
    }
    Ok(texts)
}

impl From<NoteError> for LedgerError {
    fn from(error: NoteError) -> LedgerError {
        LedgerError::Checkpoint(error.into())
    }
}

impl LedgerError {
    /// True if reopening the log (not retrying on this handle) may help.
    pub fn is_poisoned(&self) -> bool {
        matches!(self, LedgerError::Poisoned | LedgerError::Io { .. })
    }
}

/// Somebody outside who is shown checkpoints: a witness, a time stamp authority, a chain.
pub trait Anchor: Send + Sync {
    /// Short name of the kind: `witness`, `rfc3161`, `evm`, ...
    fn kind(&self) -> &'static str;

    /// Hands a checkpoint over. The ticket names the submission in later calls and survives a restart.
    fn submit(&self, checkpoint: &str) -> Result<Ticket, AnchorError>;

    /// The receipt, or nothing yet.
    fn poll(&self, ticket: &Ticket) -> Result<Option<Receipt>, AnchorError>;

    /// Checks that a receipt speaks of this checkpoint. It must not ask the anchor's own word for it.
    fn verify(&self, receipt: &Receipt, checkpoint: &str) -> Result<(), AnchorError>;
}

/// Names one submission to one anchor. Opaque to everybody else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket(pub String);

/// What an anchor gave back. Opaque but to the anchor's own `verify`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The anchor's kind.
    pub kind: String,
    /// Its evidence.
    pub bytes: Vec<u8>,
}

/// Why an anchor could not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AnchorError {
    /// Out of reach; try again later.
    #[error("anchor {kind} cannot be reached: {reason}")]
    Unreachable {
        /// The anchor's kind.
        kind: &'static str,
        /// What failed.
        reason: String,
    },
    /// It knows a history that this checkpoint does not extend. Stop and raise the alarm.
    #[error("anchor {kind} holds a different history of {known_size} entries")]
    Fork {
        /// The anchor's kind.
        kind: &'static str,
        /// The size it has.
        known_size: u64,
    },
    /// It knows no such ticket.
    #[error("anchor {kind} does not know this ticket")]
    UnknownTicket {
        /// The anchor's kind.
        kind: &'static str,
    },
    /// The receipt does not prove what it should.
    #[error("the receipt of anchor {kind} does not cover this checkpoint: {reason}")]
    BadReceipt {
        /// The anchor's kind.
        kind: &'static str,
        /// What does not fit.
        reason: String,
    },
}

impl AnchorError {
    /// True if trying again later may help.
    pub fn is_retryable(&self) -> bool {
        matches!(self, AnchorError::Unreachable { .. })
    }
}
