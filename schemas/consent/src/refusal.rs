//! Why a consent statement does not take effect. Each has a stable code for the sender.

use schemas_identity::{Did, StatementId};
use thiserror::Error;

/// Why a statement was not taken.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// Signed by somebody who is not the subject it speaks of.
    #[error("only the subject {subject} may sign this")]
    NotTheSubject {
        /// Whose data it is.
        subject: Did,
    },
    /// The signer lacks the role the kind needs.
    #[error("the signer is not {needed}")]
    NotAuthorised {
        /// What the signer would have to be.
        needed: &'static str,
    },
    /// `prev` is not the subject's newest consent statement. Read the head, decide again, sign again.
    #[error("prev is not the subject's newest statement")]
    StalePrev {
        /// The newest, or nothing if there is none yet.
        head: Option<StatementId>,
    },
    /// This very statement is in force already, or was.
    #[error("statement {id} was taken before")]
    Replayed {
        /// Its id.
        id: StatementId,
    },
    /// `revoke` names nothing this subject ever granted or denied.
    #[error("the subject has no grant or deny {id}")]
    UnknownGrant {
        /// What it names.
        id: StatementId,
    },
    /// The subject was erased; nothing can be granted any more.
    #[error("the subject was erased")]
    Erased,
    /// All access to the subject is frozen.
    #[error("access to the subject is frozen")]
    Frozen,
    /// No such signal or class.
    #[error("unknown signal or class {name:?}")]
    UnknownSignal {
        /// As written, cut to 64 characters.
        name: String,
    },
    /// No such purpose.
    #[error("unknown purpose {name:?}")]
    UnknownPurpose {
        /// As written, cut to 64 characters.
        name: String,
    },
    /// A list or a person's statements in force exceed a limit.
    #[error("more than {max} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The limit.
        max: usize,
    },
    /// A field's value is outside what is allowed.
    #[error("{field} {problem}")]
    Invalid {
        /// The field.
        field: &'static str,
        /// What is wrong.
        problem: &'static str,
    },
}

impl Refusal {
    /// A stable short name, part of the contract with senders.
    pub fn code(&self) -> &'static str {
        match self {
            Refusal::NotTheSubject { .. } => "not-the-subject",
            Refusal::NotAuthorised { .. } => "not-authorised",
            Refusal::StalePrev { .. } => "stale-prev",
            Refusal::Replayed { .. } => "replayed",
            Refusal::UnknownGrant { .. } => "unknown-grant",
            Refusal::Erased => "erased",
            Refusal::Frozen => "frozen",
            Refusal::UnknownSignal { .. } => "unknown-signal",
            Refusal::UnknownPurpose { .. } => "unknown-purpose",
            Refusal::TooMany { .. } => "too-many",
            Refusal::Invalid { .. } => "invalid",
        }
    }

    /// True if the statement may be right once the sender has read the present state (HTTP 409).
    pub fn is_conflict(&self) -> bool {
        matches!(
            self,
            Refusal::StalePrev { .. }
                | Refusal::Replayed { .. }
                | Refusal::UnknownGrant { .. }
                | Refusal::Erased
        )
    }

    /// True if the signer may not say this at all (HTTP 403).
    pub fn is_forbidden(&self) -> bool {
        matches!(self, Refusal::NotTheSubject { .. } | Refusal::NotAuthorised { .. } | Refusal::Frozen)
    }
}
