//! What can go wrong with a query, and the little of it that a client is told. Detail (the engine's own
//! message, which may carry a value) stays inside the error for the log; it is never shown outside.

use thiserror::Error;

/// Which bound of the statement gate was passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Length of the text.
    SqlBytes,
    /// Number of tokens.
    Tokens,
    /// Nesting or length of operator chains.
    Depth,
    /// Tables, sub-queries or columns named.
    Relations,
    /// Texts and patterns.
    Texts,
}

/// Which bound of a running query was passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Budget {
    /// Working memory.
    Memory,
    /// Rows of the result.
    Rows,
    /// Bytes of the result.
    Bytes,
    /// Size of an unrestricted join.
    Join,
}

/// A query that gave no result, or only part of one.
#[derive(Debug, Error)]
pub enum EngineError {
    /// Not a read-only query.
    #[error("not a read-only query: {0}")]
    ReadOnly(&'static str),
    /// A construct this service leaves out on purpose.
    #[error("not available: {0}")]
    Unsupported(&'static str),
    /// A bound of the statement gate.
    #[error("statement too big: {0:?}")]
    TooBig(Limit),
    /// The text does not parse; the parser's message.
    #[error("syntax: {0}")]
    Syntax(String),
    /// The text parses but names or types do not fit; the planner's message.
    #[error("plan: {0}")]
    Plan(String),
    /// An expression failed on a value; the evaluator's message.
    #[error("evaluation: {0}")]
    Evaluation(String),
    /// A bound of the running query.
    #[error("over budget: {0:?}")]
    OverBudget(Budget),
    /// The time limit of the whole stream passed.
    #[error("timed out")]
    Timeout,
    /// Too many queries at once, of this principal or of all.
    #[error("too many queries at once")]
    Busy,
    /// Consent changed while the query ran; what was sent so far must not be used as a whole.
    #[error("consent changed")]
    ConsentChanged,
    /// The log size asked for is not a snapshot of this log.
    #[error("no snapshot at {0}")]
    NoSnapshot(u64),
    /// The audit log could not take the intent, so nothing was read.
    #[error("audit: {0}")]
    Audit(String),
    /// Anything else; the message is for the log.
    #[error("internal: {0}")]
    Internal(String),
}

impl EngineError {
    /// Fixed code a client may branch on.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::ReadOnly(_) => "READ_ONLY",
            Self::Unsupported(_) => "UNSUPPORTED",
            Self::TooBig(_) => "STATEMENT_TOO_BIG",
            Self::Syntax(_) => "SYNTAX",
            Self::Plan(_) => "NOT_PLANNED",
            Self::Evaluation(_) => "EVALUATION",
            Self::OverBudget(_) => "OVER_BUDGET",
            Self::Timeout => "TIMEOUT",
            Self::Busy => "BUSY",
            Self::ConsentChanged => "CONSENT_CHANGED",
            Self::NoSnapshot(_) => "NO_SNAPSHOT",
            Self::Audit(_) => "AUDIT_UNAVAILABLE",
            Self::Internal(_) => "INTERNAL",
        }
    }

    /// Fixed text a client may show. Carries no value, no name, no path: the same for absent and forbidden.
    #[must_use]
    pub fn public(&self) -> &'static str {
        match self {
            Self::ReadOnly(_) => "read only: one SELECT, WITH or VALUES query is accepted, nothing else",
            Self::Unsupported(_) => "the query uses a construct or function that is not available here",
            Self::TooBig(_) => "the statement, or a text in it, is too long or too deeply nested",
            Self::Syntax(_) => "the statement does not parse",
            Self::Plan(_) => "a table, column or function is unknown, or types do not fit",
            Self::Evaluation(_) => {
                "an expression failed on a value, for example a cast or a division by zero"
            }
            Self::OverBudget(_) => "the query needs more memory, rows or bytes than one query may use",
            Self::Timeout => "the query took longer than allowed",
            Self::Busy => "too many queries are running; ask again shortly",
            Self::ConsentChanged => {
                "consent changed while the query ran; discard what was received and ask again"
            }
            Self::NoSnapshot(_) => "there is no snapshot for this as_of",
            Self::Audit(_) => "the access could not be recorded, so nothing was read",
            Self::Internal(_) => "internal error",
        }
    }

    /// True if the same query may succeed when asked again a little later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Busy | Self::ConsentChanged | Self::Audit(_) | Self::Timeout)
    }
}
