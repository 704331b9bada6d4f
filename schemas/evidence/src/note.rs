//! C2SP signed notes (c2sp.org/signed-note v1.0.0) and verifier keys, for the two Ed25519 signature types in use here.
//!
//! ```text
//! text, ending in a newline
//!
//! - key.name base64(key id || signature)      ("-" stands for an em dash)
//! ```
//!
//! What it is not: a checkpoint; the text means nothing here.

use std::fmt;
use std::str::FromStr;

use schemas_identity::{PublicKey, SecretKey};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::text;

/// Longest note in bytes. Room for a checkpoint with post-quantum cosignatures that are carried but not read.
pub const NOTE_BYTES_MAX: usize = 128 * 1024;

/// Most signature lines in a note; the specification demands at least 16.
pub const SIGNATURES_MAX: usize = 64;

/// Longest key name in bytes.
pub const KEY_NAME_BYTES_MAX: usize = 255;

/// Em dash and space, the start of a signature line.
const SIGNATURE_MARK: &str = "\u{2014} ";

/// What a key signs, and so how its signature bytes are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyKind {
    /// 0x01: plain Ed25519 over the note text; a log's key.
    Log,
    /// 0x04: `cosignature/v1`, Ed25519 with a time stamp; a witness's key.
    Witness,
}

impl KeyKind {
    fn byte(self) -> u8 {
        match self {
            KeyKind::Log => 0x01,
            KeyKind::Witness => 0x04,
        }
    }
}

/// A verifier key: who signs, how, and with what key. Its text form is the C2SP vkey.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NoteKey {
    name: String,
    kind: KeyKind,
    public: PublicKey,
}

/// Why a text is not a note, or a note not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NoteError {
    /// Longer than [`NOTE_BYTES_MAX`].
    #[error("note has {bytes} bytes, more than {NOTE_BYTES_MAX}")]
    TooLong {
        /// Length found.
        bytes: usize,
    },
    /// A control character other than newline.
    #[error("note holds the control character {code:#04x}")]
    Control {
        /// The character.
        code: u32,
    },
    /// No blank line followed by signature lines, each ended by a newline.
    #[error("note has no text followed by a blank line and signatures")]
    Shape,
    /// A line after the blank line that is no signature.
    #[error("note line {number} of the signatures is malformed")]
    SignatureLine {
        /// Counted from 1.
        number: usize,
    },
    /// More than [`SIGNATURES_MAX`].
    #[error("note has more than {SIGNATURES_MAX} signatures")]
    TooManySignatures,
    /// A key name is empty, too long, or holds a space, a plus or a control character.
    #[error("{name:?} cannot be a key name")]
    KeyName {
        /// The name.
        name: String,
    },
    /// Not a verifier key in its one spelling.
    #[error("malformed verifier key: {problem}")]
    Vkey {
        /// What is wrong.
        problem: &'static str,
    },
    /// The signature of a known key does not verify.
    #[error("the signature by {name} does not verify")]
    BadSignature {
        /// The key's name.
        name: String,
    },
    /// No signature by the expected key.
    #[error("the note is not signed by {name}")]
    Unsigned {
        /// The key's name.
        name: String,
    },
}

impl NoteKey {
    /// The key of a log whose origin is `name`.
    pub fn log(name: &str, public: PublicKey) -> Result<NoteKey, NoteError> {
        NoteKey::new(name, KeyKind::Log, public)
    }

    /// The key of a witness.
    pub fn witness(name: &str, public: PublicKey) -> Result<NoteKey, NoteError> {
        NoteKey::new(name, KeyKind::Witness, public)
    }

    fn new(name: &str, kind: KeyKind, public: PublicKey) -> Result<NoteKey, NoteError> {
        check_key_name(name)?;
        Ok(NoteKey { name: name.to_owned(), kind, public })
    }

    /// The key name; for a log, its origin.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it signs.
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// The Ed25519 key.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// First four bytes of SHA-256 over name, newline, type and key.
    pub fn id(&self) -> [u8; 4] {
        let digest = Sha256::new()
            .chain_update(self.name.as_bytes())
            .chain_update([b'\n', self.kind.byte()])
            .chain_update(self.public.as_bytes())
            .finalize();
        let digest: [u8; 32] = digest.into();
        [digest[0], digest[1], digest[2], digest[3]]
    }

    /// True if a signature line claims to be made by this key.
    pub fn made(&self, signature: &NoteSignature<'_>) -> bool {
        signature.name == self.name && signature.key_id == self.id()
    }
}

/// The vkey: `name+hex key id+base64(type || key)`.
impl fmt::Display for NoteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut typed = vec![self.kind.byte()];
        typed.extend_from_slice(self.public.as_bytes());
        write!(f, "{}+{}+{}", self.name, hex::encode(self.id()), text::to_base64(&typed))
    }
}

impl FromStr for NoteKey {
    type Err = NoteError;

    fn from_str(vkey: &str) -> Result<NoteKey, NoteError> {
        let malformed = |problem| NoteError::Vkey { problem };
        let mut parts = vkey.splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(malformed("not three parts separated by plus"));
        };
        let typed = text::base64_bytes(key).ok_or(malformed("the key is not base64"))?;
        let (kind, raw) = match typed.split_first() {
            Some((0x01, raw)) => (KeyKind::Log, raw),
            Some((0x04, raw)) => (KeyKind::Witness, raw),
            Some(_) => return Err(malformed("signature type is neither 0x01 nor 0x04")),
            None => return Err(malformed("the key is empty")),
        };
        let public = PublicKey::admit(raw).map_err(|_| malformed("not an Ed25519 key by the key rule"))?;
        let parsed = NoteKey::new(name, kind, public)?;
        if hex::encode(parsed.id()) != id {
            return Err(malformed("the key id does not belong to name and key"));
        }
        Ok(parsed)
    }
}

/// Refuses what cannot stand as a key name in a signature line.
pub fn check_key_name(name: &str) -> Result<(), NoteError> {
    let forbidden = |c: char| c.is_whitespace() || c == '+' || c < ' ';
    if name.is_empty() || name.len() > KEY_NAME_BYTES_MAX || name.contains(forbidden) {
        return Err(NoteError::KeyName { name: name.chars().take(64).collect() });
    }
    Ok(())
}

/// A note taken apart. No signature is checked yet.
#[derive(Debug, Clone)]
pub struct Note<'a> {
    /// The signed text with its final newline.
    pub text: &'a str,
    /// The signature lines, in order.
    pub signatures: Vec<NoteSignature<'a>>,
}

/// One signature line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoteSignature<'a> {
    /// Name of the key that is claimed to have signed.
    pub name: &'a str,
    /// Its key id.
    pub key_id: [u8; 4],
    /// What follows the key id.
    pub bytes: Vec<u8>,
}

impl<'a> Note<'a> {
    /// Takes a note apart.
    pub fn parse(note: &'a str) -> Result<Note<'a>, NoteError> {
        if note.len() > NOTE_BYTES_MAX {
            return Err(NoteError::TooLong { bytes: note.len() });
        }
        if let Some(control) = note.chars().find(|c| *c < ' ' && *c != '\n') {
            return Err(NoteError::Control { code: control.into() });
        }
        let (text_end, signatures_start) = match note.rfind("\n\n") {
            Some(at) => (at + 1, at + 2),
            None => return Err(NoteError::Shape),
        };
        let lines = note[signatures_start..].strip_suffix('\n').ok_or(NoteError::Shape)?;
        let mut signatures = Vec::new();
        for (before, line) in lines.split('\n').enumerate() {
            if before == SIGNATURES_MAX {
                return Err(NoteError::TooManySignatures);
            }
            signatures.push(parse_signature(line).ok_or(NoteError::SignatureLine { number: before + 1 })?);
        }
        Ok(Note { text: &note[..text_end], signatures })
    }

    /// The signature bytes by this key, if the note has one. Several by the same key are one too many.
    pub fn signature_by(&self, key: &NoteKey) -> Result<Option<&NoteSignature<'a>>, NoteError> {
        let mut made = self.signatures.iter().filter(|signature| key.made(signature));
        let first = made.next();
        if made.next().is_some() {
            return Err(NoteError::BadSignature { name: key.name.clone() });
        }
        Ok(first)
    }
}

fn parse_signature(line: &str) -> Option<NoteSignature<'_>> {
    let (name, encoded) = line.strip_prefix(SIGNATURE_MARK)?.split_once(' ')?;
    check_key_name(name).ok()?;
    let bytes = text::base64_bytes(encoded)?;
    let (key_id, signature) = bytes.split_first_chunk::<4>()?;
    if signature.is_empty() {
        return None;
    }
    Some(NoteSignature { name, key_id: *key_id, bytes: signature.to_vec() })
}

/// The line that carries `signature` by `key`.
pub(crate) fn signature_line(key: &NoteKey, signature: &[u8]) -> String {
    let mut bytes = key.id().to_vec();
    bytes.extend_from_slice(signature);
    format!("{SIGNATURE_MARK}{} {}\n", key.name(), text::to_base64(&bytes))
}

/// Signs `text` (ending in a newline) as the log called `name`.
pub fn sign_note(text: &str, name: &str, secret: &SecretKey) -> Result<String, NoteError> {
    if !text.ends_with('\n') {
        return Err(NoteError::Shape);
    }
    let key = NoteKey::log(name, secret.public())?;
    let note = format!("{text}\n{}", signature_line(&key, &secret.sign(text.as_bytes())));
    Note::parse(&note)?;
    Ok(note)
}

/// Opens a note signed by a log's key: returns the text if that signature is there and verifies.
pub fn open_note<'a>(note: &'a str, key: &NoteKey) -> Result<Note<'a>, NoteError> {
    let parsed = Note::parse(note)?;
    let signature =
        parsed.signature_by(key)?.ok_or_else(|| NoteError::Unsigned { name: key.name.clone() })?;
    verify_plain(key, parsed.text, signature)?;
    Ok(parsed)
}

/// Checks a plain Ed25519 signature (type 0x01) over the note text.
pub(crate) fn verify_plain(
    key: &NoteKey,
    text: &str,
    signature: &NoteSignature<'_>,
) -> Result<(), NoteError> {
    let good = match <&[u8; 64]>::try_from(signature.bytes.as_slice()) {
        Ok(bytes) => key.kind == KeyKind::Log && key.public.verify(text.as_bytes(), bytes),
        Err(_) => false,
    };
    if good { Ok(()) } else { Err(NoteError::BadSignature { name: key.name.clone() }) }
}

#[cfg(test)]
mod tests;
