//! C2SP checkpoints (c2sp.org/tlog-checkpoint v1.0.0) and `cosignature/v1` (c2sp.org/tlog-cosignature v1.0.1).
//!
//! ```text
//! origin
//! tree size
//! base64 of the root
//! [extension lines]
//! ```
//!
//! What it is not: the decision whom to trust; that is `policy`.

use schemas_identity::SecretKey;
use thiserror::Error;

use crate::merkle::Hash32;
use crate::note::{self, KeyKind, Note, NoteError, NoteKey, NoteSignature};
use crate::text::{self, Field};

/// Largest time stamp of a cosignature, seconds since 1970.
const COSIGNATURE_TIME_MAX: u64 = i64::MAX as u64;

/// A tree head: what a log says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The log's name.
    pub origin: String,
    /// Number of entries.
    pub size: u64,
    /// Root of the tree over them.
    pub root: Hash32,
    /// Opaque lines; none in logs of this project.
    pub extensions: Vec<String>,
}

/// Why a note is not a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CheckpointError {
    /// Not a note, or not signed as it must be.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// The text is not that of a checkpoint.
    #[error("checkpoint line {line} is malformed")]
    Text {
        /// Counted from 1.
        line: usize,
    },
    /// Signed by a key of another name than its origin.
    #[error("checkpoint of {origin:?} is signed by {signer:?}")]
    Origin {
        /// First line of the text.
        origin: String,
        /// Name of the key.
        signer: String,
    },
}

impl Checkpoint {
    /// Reads the text of a checkpoint, its signatures apart.
    pub fn from_text(text: &str) -> Result<Checkpoint, CheckpointError> {
        let body = text.strip_suffix('\n').ok_or(CheckpointError::Text { line: 1 })?;
        let mut lines = body.split('\n');
        let origin = lines.next().filter(|line| !line.is_empty()).ok_or(CheckpointError::Text { line: 1 })?;
        let size = lines.next().and_then(u64::strict).ok_or(CheckpointError::Text { line: 2 })?;
        let root = lines.next().and_then(text::base64_32).ok_or(CheckpointError::Text { line: 3 })?;
        let extensions: Vec<String> = lines.map(str::to_owned).collect();
        if let Some(at) = extensions.iter().position(String::is_empty) {
            return Err(CheckpointError::Text { line: at + 4 });
        }
        Ok(Checkpoint { origin: origin.to_owned(), size, root, extensions })
    }

    /// The text that is signed.
    pub fn to_text(&self) -> String {
        let mut text = format!("{}\n{}\n{}\n", self.origin, self.size, text::to_base64(&self.root));
        for line in &self.extensions {
            text.push_str(line);
            text.push('\n');
        }
        text
    }
}

/// The signed checkpoint of a log.
pub fn sign_checkpoint(
    origin: &str,
    size: u64,
    root: &Hash32,
    secret: &SecretKey,
) -> Result<String, CheckpointError> {
    let head = Checkpoint { origin: origin.to_owned(), size, root: *root, extensions: Vec::new() };
    Ok(note::sign_note(&head.to_text(), origin, secret)?)
}

/// Opens a checkpoint signed by this log; other signatures are not looked at.
pub fn open_checkpoint(note: &str, key: &NoteKey) -> Result<Checkpoint, CheckpointError> {
    let opened = note::open_note(note, key)?;
    let head = Checkpoint::from_text(opened.text)?;
    if head.origin != key.name() {
        return Err(CheckpointError::Origin { origin: head.origin, signer: key.name().to_owned() });
    }
    Ok(head)
}

/// Adds a witness's `cosignature/v1` made at `time_s` (seconds since 1970). The caller has checked consistency.
pub fn cosign_checkpoint(
    note: &str,
    witness: &str,
    secret: &SecretKey,
    time_s: u64,
) -> Result<String, CheckpointError> {
    let parsed = Note::parse(note)?;
    Checkpoint::from_text(parsed.text)?;
    let key = NoteKey::witness(witness, secret.public())?;
    let mut signature = time_s.to_be_bytes().to_vec();
    signature.extend_from_slice(&secret.sign(cosigned_message(parsed.text, time_s).as_bytes()));
    let cosigned = format!("{note}{}", note::signature_line(&key, &signature));
    Note::parse(&cosigned)?;
    Ok(cosigned)
}

/// Checks a cosignature over the note text; returns its time in seconds since 1970.
pub(crate) fn verify_cosignature(
    key: &NoteKey,
    text: &str,
    signature: &NoteSignature<'_>,
) -> Result<u64, NoteError> {
    let bad = || NoteError::BadSignature { name: key.name().to_owned() };
    let (time, bytes) = signature.bytes.split_first_chunk::<8>().ok_or_else(bad)?;
    let bytes: &[u8; 64] = bytes.try_into().map_err(|_| bad())?;
    let time_s = u64::from_be_bytes(*time);
    let known = key.kind() == KeyKind::Witness && time_s <= COSIGNATURE_TIME_MAX;
    if known && key.public().verify(cosigned_message(text, time_s).as_bytes(), bytes) {
        Ok(time_s)
    } else {
        Err(bad())
    }
}

fn cosigned_message(text: &str, time_s: u64) -> String {
    format!("cosignature/v1\ntime {time_s}\n{text}")
}

#[cfg(test)]
mod tests;
