//! The manifest of an answer: what somebody asked, of which state of the log, and the digest of the bytes they were sent.
//!
//! ```text
//! { "v": 1, "origin", "id", "principal", "purpose", "study", "sql_blake3", "asked_us",      what was asked, by whom
//!   "log_size", "log_root", "batches", "sets", "live_tail", "consent_epoch",                of which state
//!   "query_index", "result_index", "rows", "rerun", "result": {media, bytes, blake3},       with which outcome
//!   "signed":  the fields above as lines of a C2SP note, signed by the log's key,
//!   "sql":     the statement, put in by whoever asked,
//!   "proof":   {checkpoint, consistency, entries: [{index, entry, path}]} }
//! ```
//!
//! The fields stand twice: readable, and in the signed text made of them. So a change of either is found and the field is
//! named. Files are named by the log's entries that commit to them: a batch entry holds the batch root and the digest of a
//! manifest which lists the files. Neither file names nor file digests are here, nor which files a question touched: a digest
//! of a small file would let its holder test guesses of hidden rows, and a list of touched files tells where hidden rows are.
//! What it is not: proof that the rows are right or complete; [`Checked::unproved`] says so each time.

mod check;
#[cfg(any(test, feature = "conformance"))]
pub mod sample;
#[cfg(test)]
mod tests;

use std::fmt::{self, Write as _};

use schemas_identity::{Did, SecretKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use thiserror::Error;

pub use check::{Check, Checked, Checking, Finding, Reader, StepFinding};

use crate::entry::ENTRY_BYTES_MAX;
use crate::merkle::{Hash32, PATH_MAX};
use crate::note::{NOTE_BYTES_MAX, NoteError, sign_note};
use crate::text;

/// Longest manifest of an answer in bytes.
pub const ANSWER_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Most batches and sets whose entries are listed; of more, only the numbers stand there.
pub const LISTED_MAX: usize = 1024;
/// Longest statement carried along, in bytes.
pub const SQL_BYTES_MAX: usize = 256 * 1024;

/// First line of the signed text. No checkpoint begins with it unless a log is called so.
const FIRST_LINE: &str = "vitalog/answer/v1";
/// Hex digits of an id.
const ID_HEX: usize = 32;

/// A manifest taken apart. Nothing in it is verified yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnswerManifest {
    /// Format version, 1.
    pub v: u32,
    /// The log it belongs to.
    pub origin: String,
    /// 32 lower-case hex digits: the header `Vitalog-Manifest` of the answer.
    pub id: String,
    /// Who asked.
    pub principal: Did,
    /// For which purpose.
    pub purpose: String,
    /// In which study.
    pub study: Option<String>,
    /// BLAKE3 of the statement's bytes as they were sent.
    pub sql_blake3: Hex32,
    /// When, microseconds since 1970 UTC, by the server's clock.
    pub asked_us: i64,
    /// The log size whose batches were read: ask again with `as_of` set to it.
    pub log_size: u64,
    /// Root of the log at that size.
    pub log_root: Hex32,
    /// Batches in that state.
    pub batches: u64,
    /// Sets of merged files that stood in the place of files of some of them.
    pub sets: u64,
    /// True if rows were open to the question that no batch held yet: a later question as of this size does not see them.
    pub live_tail: bool,
    /// The consent epoch the permission was taken from.
    pub consent_epoch: u64,
    /// The log entry of the access record, written before the first row left.
    pub query_index: u64,
    /// The log entry of its completion; null for a client that polls, whose completion comes later.
    pub result_index: Option<u64>,
    /// Rows of the answer.
    pub rows: u64,
    /// How the people of this answer, asked as of an earlier size, differ from those of the first to the same question; null
    /// if there is no earlier one.
    pub rerun: Option<Rerun>,
    /// The bytes that were sent.
    pub result: AnswerBytes,
    /// The note with all of the above.
    pub signed: String,
    /// The statement itself. The server does not keep it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sql: Option<String>,
    /// What shows the log's part to somebody who was not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<AnswerProof>,
}

/// The same statement by the same party for the same purpose and study, of the same log size, was answered before. The rows of
/// people who are in both are the same; these are the people who are not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rerun {
    /// Id of the first answer's manifest.
    pub of: String,
    /// People open to the first answer and not to this one.
    pub withdrawn: u64,
    /// People open to this answer and not to the first.
    pub joined: u64,
    /// People open to both, with other signals or another time.
    pub changed: u64,
}

/// The body of the answer, transfer encoding apart: a CSV text with its header line, all NDJSON lines, an Arrow IPC stream up
/// to and with its end mark, or a whole Parquet file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnswerBytes {
    /// Media type.
    pub media: String,
    /// How many bytes.
    pub bytes: u64,
    /// Their BLAKE3.
    pub blake3: Hex32,
}

/// Proofs under one checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnswerProof {
    /// A checkpoint of the log, as the log and its witnesses signed it.
    pub checkpoint: String,
    /// The consistency proof from the log size read to the checkpoint; empty at log size 0 or where both are one.
    pub consistency: Vec<Hex32>,
    /// The access record, its completion, and, unless there are too many, every batch and set; by index.
    pub entries: Vec<ProvedEntry>,
}

/// An entry of the log with its inclusion path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProvedEntry {
    /// Its index.
    pub index: u64,
    /// Its text.
    pub entry: String,
    /// Its inclusion path, leaf's sibling first.
    pub path: Vec<Hex32>,
}

/// 32 bytes, written as 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hex32(pub Hash32);

impl fmt::Display for Hex32 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Hex32 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Hex32 {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hex32 {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Hex32, D::Error> {
        let digits = String::deserialize(from)?;
        text::hex32(&digits).map(Hex32).ok_or_else(|| de::Error::custom("not 64 lower-case hex digits"))
    }
}

/// Why bytes are not a manifest of an answer.
#[derive(Debug, Error)]
pub enum AnswerFormatError {
    /// Longer than [`ANSWER_BYTES_MAX`].
    #[error("the file has {bytes} bytes, more than {ANSWER_BYTES_MAX}")]
    TooLong {
        /// Length found.
        bytes: usize,
    },
    /// Not JSON of this shape.
    #[error("not a manifest of an answer: {0}")]
    Json(#[from] serde_json::Error),
    /// Another version.
    #[error("field `v`: version {version} is not 1")]
    Version {
        /// The version found.
        version: u32,
    },
    /// A value breaks its rule, or is longer than its limit.
    #[error("field `{field}` breaks its rule")]
    Value {
        /// The field.
        field: &'static str,
    },
}

impl AnswerManifest {
    /// Reads a manifest; unknown or doubled fields are refused, and whatever is longer than its limit.
    pub fn parse(bytes: &[u8]) -> Result<AnswerManifest, AnswerFormatError> {
        if bytes.len() > ANSWER_BYTES_MAX {
            return Err(AnswerFormatError::TooLong { bytes: bytes.len() });
        }
        let manifest: AnswerManifest = serde_json::from_slice(bytes)?;
        if manifest.v != 1 {
            return Err(AnswerFormatError::Version { version: manifest.v });
        }
        manifest.check_limits()?;
        Ok(manifest)
    }

    fn check_limits(&self) -> Result<(), AnswerFormatError> {
        let is_id = |id: &str| id.len() == ID_HEX && text::is_lower_hex(id);
        let proof = self.proof.as_ref();
        let entries = proof.map(|proof| proof.entries.as_slice()).unwrap_or_default();
        let rules = [
            ("id", is_id(&self.id)),
            ("rerun", self.rerun.as_ref().is_none_or(|rerun| is_id(&rerun.of))),
            ("signed", self.signed.len() <= NOTE_BYTES_MAX),
            ("sql", self.sql.as_ref().is_none_or(|sql| sql.len() <= SQL_BYTES_MAX)),
            ("checkpoint", proof.is_none_or(|proof| proof.checkpoint.len() <= NOTE_BYTES_MAX)),
            // A consistency proof has one hash more than a path at most.
            ("consistency", proof.is_none_or(|proof| proof.consistency.len() <= PATH_MAX + 1)),
            ("entries", entries.len() <= LISTED_MAX + 2),
            ("entry", entries.iter().all(|proved| proved.entry.len() <= ENTRY_BYTES_MAX)),
            ("path", entries.iter().all(|proved| proved.path.len() <= PATH_MAX)),
        ];
        match rules.iter().find(|(_, holds)| !holds) {
            Some((field, _)) => Err(AnswerFormatError::Value { field }),
            None => Ok(()),
        }
    }

    /// The text that is signed: one line for each field, text in JSON's spelling so that it stays on its line.
    pub fn to_text(&self) -> String {
        let mut lines = format!("{FIRST_LINE}\n");
        let mut put = |name: &str, value: &dyn fmt::Display| {
            // Writing to a String cannot fail.
            let _ = writeln!(lines, "{name}: {value}");
        };
        put("origin", &quoted(&self.origin));
        put("id", &quoted(&self.id));
        put("principal", &self.principal);
        put("purpose", &quoted(&self.purpose));
        put("study", &self.study.as_deref().map_or_else(none, quoted));
        put("sql_blake3", &self.sql_blake3);
        put("asked_us", &self.asked_us);
        put("log_size", &self.log_size);
        put("log_root", &self.log_root);
        put("batches", &self.batches);
        put("sets", &self.sets);
        put("live_tail", &self.live_tail);
        put("consent_epoch", &self.consent_epoch);
        put("query_index", &self.query_index);
        put("result_index", &self.result_index.map_or_else(none, |index| index.to_string()));
        put("rows", &self.rows);
        put("rerun.of", &self.rerun.as_ref().map_or_else(none, |rerun| quoted(&rerun.of)));
        for (name, number) in [
            ("rerun.withdrawn", self.rerun.as_ref().map(|rerun| rerun.withdrawn)),
            ("rerun.joined", self.rerun.as_ref().map(|rerun| rerun.joined)),
            ("rerun.changed", self.rerun.as_ref().map(|rerun| rerun.changed)),
        ] {
            put(name, &number.map_or_else(none, |number| number.to_string()));
        }
        put("result.media", &quoted(&self.result.media));
        put("result.bytes", &self.result.bytes);
        put("result.blake3", &self.result.blake3);
        lines
    }

    /// Signs the fields as the log called `origin`, whose key this must be.
    pub fn sign(&mut self, secret: &SecretKey) -> Result<(), NoteError> {
        self.signed = sign_note(&self.to_text(), &self.origin, secret)?;
        Ok(())
    }
}

fn none() -> String {
    "null".to_owned()
}

fn quoted(value: &str) -> String {
    // A string always has a JSON text; it has no line break and no other control character.
    serde_json::to_string(value).unwrap_or_default()
}
