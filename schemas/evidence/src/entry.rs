//! Log entries: strict text below 1 KiB, and the salted commitment that stands for a record in them.
//!
//! ```text
//! vitalog/batch/v1
//! id: 00112233445566778899aabbccddeeff
//! frames: 4096
//! ...
//! ```
//!
//! Each line ends in a newline, fields come in one order, hashes are 64 lower-case hex digits, numbers are plain decimals:
//! one content has one text, so a verifier compares bytes. What it is not: a place for personal data, or for an unsalted
//! hash of any.

use std::fmt::Write as _;

use thiserror::Error;

use crate::merkle::{Hash32, Sha256Rfc6962, TreeHash};
use crate::text::{self, Field};

/// Longest entry text in bytes; an entry is shorter than 1 KiB.
pub const ENTRY_BYTES_MAX: usize = 1023;

/// Hex digits of a batch id.
pub const BATCH_ID_HEX: usize = 32;

/// One leaf of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A sealed batch of frames: from this entry on it exists.
    Batch {
        /// 32 lower-case hex digits.
        id: String,
        /// Number of frames, at least 1.
        frames: u64,
        /// Root of the batch tree over them.
        root: Hash32,
        /// BLAKE3 of the manifest's bytes.
        manifest: Hash32,
        /// Root of the tree over the manifest's device ranges.
        ranges: Hash32,
        /// Earliest t0 in the batch, microseconds since 1970 UTC.
        from_us: i64,
        /// Latest t0 in the batch, microseconds since 1970 UTC.
        to_us: i64,
    },
    /// Files of adjacent batches replaced by others with the same frames and rows.
    Compact {
        /// BLAKE3 of the set manifest: batches in, files out ([`crate::SetManifest`]).
        manifest: Hash32,
    },
    /// A signed statement (grant, binding, enrolment, ...), kept in the book beside the log.
    Statement {
        /// Salted commitment to the compact JWS.
        commitment: Hash32,
    },
    /// The state of all statements at this point of the log.
    ConsentEpoch {
        /// Number of statements in force since the beginning.
        epoch: u64,
        /// Root over them.
        root: Hash32,
    },
    /// Somebody is about to read: written before the first row leaves.
    Query {
        /// Salted commitment to the intent.
        commitment: Hash32,
        /// The consent epoch the answer rests on.
        epoch: u64,
    },
    /// A read has ended, with exact counts in the record.
    Result {
        /// Salted commitment to the completion.
        commitment: Hash32,
    },
    /// A person's data was erased.
    Erasure {
        /// Salted commitment to the erasure record.
        commitment: Hash32,
    },
}

/// Why a text is not an entry.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EntryError {
    /// Longer than [`ENTRY_BYTES_MAX`].
    #[error("entry has {bytes} bytes, more than {ENTRY_BYTES_MAX}")]
    TooLong {
        /// Length of the text.
        bytes: usize,
    },
    /// Not UTF-8.
    #[error("entry is not utf-8")]
    NotText,
    /// The first line names no kind of this version.
    #[error("unknown entry kind {first_line:?}")]
    Kind {
        /// The first line, cut to 64 characters.
        first_line: String,
    },
    /// A field is missing, out of order or malformed.
    #[error("field {name:?} is missing or malformed")]
    Field {
        /// The field expected at that place.
        name: &'static str,
    },
    /// Text after the last field.
    #[error("text after the last field")]
    Trailing,
}

impl Entry {
    /// The kind as it stands in the first line: `batch`, `compact`, `statement`, ...
    pub fn kind(&self) -> &'static str {
        match self {
            Entry::Batch { .. } => "batch",
            Entry::Compact { .. } => "compact",
            Entry::Statement { .. } => "statement",
            Entry::ConsentEpoch { .. } => "consent-epoch",
            Entry::Query { .. } => "query",
            Entry::Result { .. } => "result",
            Entry::Erasure { .. } => "erasure",
        }
    }

    /// The one text of this entry. [`Entry::parse`] refuses it if a batch id or a count breaks the rules.
    pub fn to_text(&self) -> String {
        let mut lines = format!("vitalog/{}/v1\n", self.kind());
        let mut put = |name: &str, value: &dyn std::fmt::Display| {
            // Writing to a String cannot fail.
            let _ = writeln!(lines, "{name}: {value}");
        };
        match self {
            Entry::Batch { id, frames, root, manifest, ranges, from_us, to_us } => {
                put("id", id);
                put("frames", frames);
                put("root", &hex::encode(root));
                put("manifest", &hex::encode(manifest));
                put("ranges", &hex::encode(ranges));
                put("from", from_us);
                put("to", to_us);
            }
            Entry::Compact { manifest } => put("manifest", &hex::encode(manifest)),
            Entry::ConsentEpoch { epoch, root } => {
                put("epoch", epoch);
                put("root", &hex::encode(root));
            }
            Entry::Query { commitment, epoch } => {
                put("commitment", &hex::encode(commitment));
                put("epoch", epoch);
            }
            Entry::Statement { commitment }
            | Entry::Result { commitment }
            | Entry::Erasure { commitment } => {
                put("commitment", &hex::encode(commitment));
            }
        }
        lines
    }

    /// Reads an entry. Any other spelling of the same content is refused.
    pub fn parse(entry: &str) -> Result<Entry, EntryError> {
        if entry.len() > ENTRY_BYTES_MAX {
            return Err(EntryError::TooLong { bytes: entry.len() });
        }
        let mut lines = Lines { rest: entry };
        let first_line = lines.next_line().unwrap_or(entry);
        let parsed = match first_line {
            "vitalog/batch/v1" => parse_batch(&mut lines)?,
            "vitalog/compact/v1" => Entry::Compact { manifest: lines.hash("manifest")? },
            "vitalog/statement/v1" => Entry::Statement { commitment: lines.hash("commitment")? },
            "vitalog/consent-epoch/v1" => {
                Entry::ConsentEpoch { epoch: lines.number("epoch")?, root: lines.hash("root")? }
            }
            "vitalog/query/v1" => {
                Entry::Query { commitment: lines.hash("commitment")?, epoch: lines.number("epoch")? }
            }
            "vitalog/result/v1" => Entry::Result { commitment: lines.hash("commitment")? },
            "vitalog/erasure/v1" => Entry::Erasure { commitment: lines.hash("commitment")? },
            other => return Err(EntryError::Kind { first_line: other.chars().take(64).collect() }),
        };
        if lines.rest.is_empty() { Ok(parsed) } else { Err(EntryError::Trailing) }
    }

    /// [`Entry::parse`] for bytes as they lie in an entry bundle.
    pub fn parse_bytes(entry: &[u8]) -> Result<Entry, EntryError> {
        Entry::parse(std::str::from_utf8(entry).map_err(|_| EntryError::NotText)?)
    }
}

fn parse_batch(lines: &mut Lines<'_>) -> Result<Entry, EntryError> {
    let id = lines.value("id")?;
    if id.len() != BATCH_ID_HEX || !text::is_lower_hex(id) {
        return Err(EntryError::Field { name: "id" });
    }
    let frames: u64 = lines.number("frames")?;
    if frames == 0 {
        return Err(EntryError::Field { name: "frames" });
    }
    Ok(Entry::Batch {
        id: id.to_owned(),
        frames,
        root: lines.hash("root")?,
        manifest: lines.hash("manifest")?,
        ranges: lines.hash("ranges")?,
        from_us: lines.number("from")?,
        to_us: lines.number("to")?,
    })
}

struct Lines<'a> {
    rest: &'a str,
}

impl<'a> Lines<'a> {
    fn next_line(&mut self) -> Option<&'a str> {
        let (line, rest) = self.rest.split_once('\n')?;
        self.rest = rest;
        Some(line)
    }

    fn value(&mut self, name: &'static str) -> Result<&'a str, EntryError> {
        let line = self.next_line().ok_or(EntryError::Field { name })?;
        let value = line.strip_prefix(name).and_then(|after| after.strip_prefix(": "));
        value.ok_or(EntryError::Field { name })
    }

    fn number<T: Field>(&mut self, name: &'static str) -> Result<T, EntryError> {
        T::strict(self.value(name)?).ok_or(EntryError::Field { name })
    }

    fn hash(&mut self, name: &'static str) -> Result<Hash32, EntryError> {
        text::hex32(self.value(name)?).ok_or(EntryError::Field { name })
    }
}

/// The leaf hash of an entry's text in the log.
pub fn entry_leaf(entry: &str) -> Hash32 {
    Sha256Rfc6962::leaf(entry.as_bytes())
}

/// The commitment that stands for `record` in the log: BLAKE3 keyed with a random salt.
///
/// The salt is drawn for this record alone, kept beside it and destroyed with it; what then stays in the log says nothing.
pub fn commitment(salt: &Hash32, record: &[u8]) -> Hash32 {
    *blake3::keyed_hash(salt, record).as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_kinds() -> Vec<Entry> {
        let (a, b, c) = ([0xab; 32], [0x01; 32], [0xff; 32]);
        let id = "00112233445566778899aabbccddeeff".to_owned();
        vec![
            Entry::Batch { id, frames: 4096, root: a, manifest: b, ranges: c, from_us: -5, to_us: i64::MAX },
            Entry::Compact { manifest: a },
            Entry::Statement { commitment: b },
            Entry::ConsentEpoch { epoch: 0, root: c },
            Entry::Query { commitment: a, epoch: u64::MAX },
            Entry::Result { commitment: b },
            Entry::Erasure { commitment: c },
        ]
    }

    #[test]
    fn every_kind_reads_back_as_written_and_stays_below_one_kib() {
        for entry in all_kinds() {
            let written = entry.to_text();
            assert!(written.len() <= ENTRY_BYTES_MAX);
            assert_eq!(Entry::parse(&written), Ok(entry));
        }
    }

    #[test]
    fn one_content_has_one_text_so_each_changed_byte_is_refused_or_means_something_else() {
        for entry in all_kinds() {
            let written = entry.to_text().into_bytes();
            for at in 0..written.len() {
                for bit in 0..8 {
                    let mut changed = written.clone();
                    changed[at] ^= 1 << bit;
                    assert_ne!(Entry::parse_bytes(&changed), Ok(entry.clone()), "byte {at} bit {bit}");
                }
            }
        }
    }

    #[test]
    fn sloppy_spellings_are_refused_with_the_field_named() {
        let hash = "ab".repeat(32);
        let check =
            |entry: &str, expected: EntryError| assert_eq!(Entry::parse(entry), Err(expected), "{entry:?}");
        check("", EntryError::Kind { first_line: String::new() });
        check("vitalog/other/v1\n", EntryError::Kind { first_line: "vitalog/other/v1".into() });
        check("vitalog/query/v1", EntryError::Field { name: "commitment" });
        check(&format!("vitalog/result/v1\ncommitment: {hash}"), EntryError::Field { name: "commitment" });
        check(
            &format!("vitalog/result/v1\ncommitment: {hash}\r\n"),
            EntryError::Field { name: "commitment" },
        );
        check(&format!("vitalog/result/v1\ncommitment:  {hash}\n"), EntryError::Field { name: "commitment" });
        check(&format!("vitalog/result/v1\ncommitment: {hash}\n\n"), EntryError::Trailing);
        check(
            &format!("vitalog/result/v1\ncommitment: {}\n", hash.to_uppercase()),
            EntryError::Field { name: "commitment" },
        );
        check(
            &format!("vitalog/query/v1\ncommitment: {hash}\nepoch: 007\n"),
            EntryError::Field { name: "epoch" },
        );
        check(
            &format!("vitalog/query/v1\ncommitment: {hash}\nepoch: +7\n"),
            EntryError::Field { name: "epoch" },
        );
        check(
            &format!("vitalog/query/v1\nepoch: 7\ncommitment: {hash}\n"),
            EntryError::Field { name: "commitment" },
        );
        check(&"x".repeat(1024), EntryError::TooLong { bytes: 1024 });
    }

    #[test]
    fn a_commitment_hides_its_record_behind_the_salt() {
        let record = b"heart rate 61";
        assert_ne!(commitment(&[1; 32], record), commitment(&[2; 32], record));
        assert_ne!(commitment(&[1; 32], record), *blake3::hash(record).as_bytes());
    }
}
