//! The steps of a verification by name, and the ways in which each can fail. What it is not: the steps themselves.

use std::fmt;

use schemas_frame::DecodeError;
use schemas_identity::statement::StatementError;
use schemas_identity::{Did, ShortId};
use thiserror::Error;

use super::{ENROLMENT_STATEMENTS_MAX, FormatError};
use crate::checkpoint::CheckpointError;
use crate::entry::EntryError;
use crate::merkle::ProofError;
use crate::policy::PolicyError;
use crate::proof::TlogProofError;

/// A step of the verification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Step {
    /// The file is an evidence file in its one encoding.
    Format,
    /// The frame is well-formed and signed by the enrolled key.
    Frame,
    /// A maker the policy trusts enrolled that key for this deployment.
    Enrolment,
    /// The entry is that of a batch.
    Entry,
    /// The frame is in that batch.
    Path,
    /// The entry is in the log.
    Proof,
    /// The log's head is signed by a log the policy trusts and cosigned as it demands.
    Policy,
    /// What others said about that head.
    Anchors,
}

impl Step {
    /// All steps in their order.
    pub const ALL: [Step; 8] = [
        Step::Format,
        Step::Frame,
        Step::Enrolment,
        Step::Entry,
        Step::Path,
        Step::Proof,
        Step::Policy,
        Step::Anchors,
    ];

    /// The name used in output.
    pub fn name(self) -> &'static str {
        match self {
            Step::Format => "format",
            Step::Frame => "frame",
            Step::Enrolment => "enrolment",
            Step::Entry => "entry",
            Step::Path => "path",
            Step::Proof => "proof",
            Step::Policy => "policy",
            Step::Anchors => "anchors",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Why an evidence file is refused. [`EvidenceError::step`] names the step.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EvidenceError {
    /// Not an evidence file.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The frame does not decode.
    #[error("the frame is malformed: {0}")]
    FrameMalformed(DecodeError),
    /// The frame's signature does not verify under the enrolled key.
    #[error("the frame is not signed by device {device}")]
    FrameSignature {
        /// Short id of the enrolled key.
        device: ShortId,
    },
    /// The frame names another key than the one enrolled.
    #[error("the frame names key {frame}, the enrolment ends in key {enrolled}")]
    FrameKey {
        /// Short id in the frame.
        frame: ShortId,
        /// Short id of the enrolled key.
        enrolled: ShortId,
    },
    /// A statement of the enrolment does not hold.
    #[error("statement {number} of the enrolment does not hold: {source}")]
    Statement {
        /// Counted from 1.
        number: usize,
        /// Why.
        source: StatementError,
    },
    /// The statements are not one `enrol` followed by `rotate`s of the same device.
    #[error("statement {number} of the enrolment is not {expected}")]
    EnrolmentChain {
        /// Counted from 1.
        number: usize,
        /// What should stand there.
        expected: &'static str,
    },
    /// More than [`ENROLMENT_STATEMENTS_MAX`].
    #[error("the enrolment has more than {ENROLMENT_STATEMENTS_MAX} statements")]
    EnrolmentTooLong,
    /// The maker who signed the enrolment is not one the policy trusts.
    #[error("maker {maker} is not in the policy")]
    Maker {
        /// The maker.
        maker: Did,
    },
    /// The entry does not read.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// The entry is not that of a batch.
    #[error("the entry is of kind {kind}, not batch")]
    EntryKind {
        /// Its kind.
        kind: &'static str,
    },
    /// The path speaks of another number of frames than the entry.
    #[error("the path counts {path} frames, the entry {entry}")]
    PathSize {
        /// In the path.
        path: u64,
        /// In the entry.
        entry: u64,
    },
    /// The path does not lead from the frame to the batch root.
    #[error("the frame is not leaf {index} of the batch: {source}")]
    Path {
        /// Leaf index claimed.
        index: u64,
        /// Why.
        source: ProofError,
    },
    /// The proof does not read, or does not lead from the entry to the checkpoint.
    #[error(transparent)]
    Proof(TlogProofError),
    /// The checkpoint inside the proof does not read.
    #[error("the checkpoint in the proof is malformed: {0}")]
    ProofCheckpoint(CheckpointError),
    /// The proof carries extra data, which nothing vouches for.
    #[error("the proof carries extra data that nobody signed")]
    ProofExtra,
    /// The policy does not accept the checkpoint.
    #[error(transparent)]
    Policy(PolicyError),
    /// A signature line by somebody the policy does not know (only with `Strictness::Everything`).
    #[error("the checkpoint carries a signature by {signer:?}, whom the policy does not know")]
    UnknownSigner {
        /// The name in the line.
        signer: String,
    },
    /// An anchor this verifier cannot check (only with `Strictness::Everything`).
    #[error("an anchor of kind {kind:?} cannot be checked here")]
    UnknownAnchor {
        /// Its kind.
        kind: String,
    },
}

impl EvidenceError {
    /// The step that failed.
    pub fn step(&self) -> Step {
        match self {
            EvidenceError::Format(_) => Step::Format,
            EvidenceError::FrameMalformed(_)
            | EvidenceError::FrameSignature { .. }
            | EvidenceError::FrameKey { .. } => Step::Frame,
            EvidenceError::Statement { .. }
            | EvidenceError::EnrolmentChain { .. }
            | EvidenceError::EnrolmentTooLong
            | EvidenceError::Maker { .. } => Step::Enrolment,
            EvidenceError::Entry(_) | EvidenceError::EntryKind { .. } => Step::Entry,
            EvidenceError::PathSize { .. } | EvidenceError::Path { .. } => Step::Path,
            EvidenceError::Proof(_) | EvidenceError::ProofCheckpoint(_) | EvidenceError::ProofExtra => {
                Step::Proof
            }
            EvidenceError::Policy(_) | EvidenceError::UnknownSigner { .. } => Step::Policy,
            EvidenceError::UnknownAnchor { .. } => Step::Anchors,
        }
    }
}
