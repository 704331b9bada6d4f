//! C2SP tlog-proof (c2sp.org/tlog-proof@v1): one text that shows, offline, that an entry is in a log.
//!
//! ```text
//! c2sp.org/tlog-proof@v1
//! [extra base64]
//! index N
//! base64 hash, one per line, leaf's sibling first
//!
//! the checkpoint, verbatim
//! ```
//!
//! What it is not: trusted by itself. It needs the entry's leaf hash and the verifier's policy.

use std::fmt::Write as _;

use thiserror::Error;

use crate::merkle::{self, Hash32, PATH_MAX, ProofError, Sha256Rfc6962};
use crate::note::NOTE_BYTES_MAX;
use crate::policy::{Accepted, Policy, PolicyError};
use crate::text::{self, Field};

/// First line of each proof.
const MAGIC: &str = "c2sp.org/tlog-proof@v1";

/// Longest extra data in bytes once decoded.
pub const EXTRA_BYTES_MAX: usize = 16 * 1024;

/// Longest proof in bytes.
pub const TLOG_PROOF_BYTES_MAX: usize = NOTE_BYTES_MAX + 2 * EXTRA_BYTES_MAX;

/// An offline proof of logging, taken apart. Nothing in it is verified yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlogProof {
    /// Opaque data that nobody signed.
    pub extra: Option<Vec<u8>>,
    /// Index of the entry in the log.
    pub index: u64,
    /// Inclusion path, leaf's sibling first.
    pub path: Vec<Hash32>,
    /// The checkpoint as the log and its witnesses signed it.
    pub checkpoint: String,
}

/// Why a text is not a proof, or the proof does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TlogProofError {
    /// Longer than allowed.
    #[error("proof has {bytes} bytes, more than {TLOG_PROOF_BYTES_MAX}")]
    TooLong {
        /// Length found.
        bytes: usize,
    },
    /// A line does not have its form.
    #[error("proof line {line} is malformed")]
    Line {
        /// Counted from 1.
        line: usize,
    },
    /// More hashes than any tree needs.
    #[error("proof has more than {PATH_MAX} hashes")]
    TooManyHashes,
    /// The path does not lead from the entry to the checkpoint's root.
    #[error("the path does not lead from the entry to the checkpoint")]
    Path(#[from] ProofError),
    /// The checkpoint is not one the policy accepts.
    #[error(transparent)]
    Policy(#[from] PolicyError),
}

impl TlogProof {
    /// The proof as text.
    pub fn to_text(&self) -> String {
        let mut proof = format!("{MAGIC}\n");
        // Writing to a String cannot fail.
        if let Some(extra) = &self.extra {
            let _ = writeln!(proof, "extra {}", text::to_base64(extra));
        }
        let _ = writeln!(proof, "index {}", self.index);
        for hash in &self.path {
            let _ = writeln!(proof, "{}", text::to_base64(hash));
        }
        proof.push('\n');
        proof.push_str(&self.checkpoint);
        proof
    }

    /// Takes a proof apart; other spellings of the same content are refused.
    pub fn parse(proof: &str) -> Result<TlogProof, TlogProofError> {
        if proof.len() > TLOG_PROOF_BYTES_MAX {
            return Err(TlogProofError::TooLong { bytes: proof.len() });
        }
        let (head, checkpoint) = proof.split_once("\n\n").ok_or(TlogProofError::Line { line: 1 })?;
        let mut lines = head.split('\n').enumerate().map(|(before, line)| (before + 1, line)).peekable();
        if lines.next().map(|(_, line)| line) != Some(MAGIC) {
            return Err(TlogProofError::Line { line: 1 });
        }
        let mut extra = None;
        if let Some((line, encoded)) =
            lines.peek().and_then(|(at, line)| Some((*at, line.strip_prefix("extra ")?)))
        {
            let bytes = text::base64_bytes(encoded).filter(|bytes| bytes.len() <= EXTRA_BYTES_MAX);
            extra = Some(bytes.ok_or(TlogProofError::Line { line })?);
            lines.next();
        }
        let (line, index) = lines.next().ok_or(TlogProofError::Line { line: 2 })?;
        let index =
            index.strip_prefix("index ").and_then(u64::strict).ok_or(TlogProofError::Line { line })?;
        let mut path = Vec::new();
        for (line, hash) in lines {
            if path.len() == PATH_MAX {
                return Err(TlogProofError::TooManyHashes);
            }
            path.push(text::base64_32(hash).ok_or(TlogProofError::Line { line })?);
        }
        Ok(TlogProof { extra, index, path, checkpoint: checkpoint.to_owned() })
    }

    /// Checks that the policy accepts the checkpoint and that the entry with this leaf hash is in it.
    pub fn verify(&self, entry_leaf: &Hash32, policy: &Policy) -> Result<Accepted, TlogProofError> {
        let accepted = policy.open(&self.checkpoint)?;
        let head = &accepted.checkpoint;
        merkle::verify_inclusion::<Sha256Rfc6962>(entry_leaf, self.index, head.size, &self.path, &head.root)?;
        Ok(accepted)
    }
}

#[cfg(test)]
mod tests;
