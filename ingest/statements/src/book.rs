//! The statement book: one append-only file of signed statements with their salts.
//!
//! ```text
//! record = length u32 LE | crc32c u32 LE (of the rest) | salt 32 bytes | compact JWS
//! ```
//!
//! The book holds *what* was said; the log holds *in which order*, by salted commitment. A torn last record (the
//! process died while writing it) is cut off: it was never acknowledged. Anything else that does not fit is an error.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use schemas_evidence::{Hash32, commitment};
use schemas_identity::JWS_BYTES_MAX;

const HEADER_BYTES: usize = 8;
const SALT_BYTES: usize = 32;
/// Largest book that is read into memory at start: about half a million statements.
const BOOK_BYTES_MAX: u64 = 1 << 30;

/// Why the book cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BookError {
    /// The system refused.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Reason given by the system.
        source: std::io::Error,
    },
    /// A record before the last one does not fit its checksum.
    #[error("{path}: the record at byte {offset} is damaged: restore the file from a backup")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        offset: u64,
    },
    /// More than is read at start.
    #[error("{path} has {bytes} bytes, more than {BOOK_BYTES_MAX}")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// An earlier failure left the file in an unknown state.
    #[error("the statement book failed before: restart to recover it")]
    Poisoned,
}

/// One statement as written.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) salt: Hash32,
    pub(crate) compact: String,
}

impl Record {
    pub(crate) fn commitment(&self) -> Hash32 {
        commitment(&self.salt, self.compact.as_bytes())
    }
}

/// The open book.
#[derive(Debug)]
pub(crate) struct Book {
    path: PathBuf,
    file: File,
    end: u64,
    is_poisoned: bool,
}

impl Book {
    /// Opens or creates it and reads all records.
    pub(crate) fn open(directory: &Path) -> Result<(Book, Vec<Record>), BookError> {
        let path = directory.join("book.log");
        let io = |source| BookError::Io { path: path.clone(), source };
        std::fs::create_dir_all(directory).map_err(io)?;
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(io)?;
        File::open(directory).and_then(|directory| directory.sync_all()).map_err(io)?;
        let bytes = file.metadata().map_err(io)?.len();
        if bytes > BOOK_BYTES_MAX {
            return Err(BookError::TooLarge { path, bytes });
        }
        let mut content = Vec::with_capacity(bytes as usize);
        file.read_to_end(&mut content).map_err(io)?;
        let (records, end) =
            parse(&content).map_err(|offset| BookError::Damaged { path: path.clone(), offset })?;
        if end < bytes {
            tracing::warn!(bytes = bytes - end, "cutting a torn record off the statement book");
            file.set_len(end).and_then(|()| file.sync_all()).map_err(io)?;
        }
        Ok((Book { path, file, end, is_poisoned: false }, records))
    }

    /// Appends durably.
    pub(crate) fn append(&mut self, record: &Record) -> Result<(), BookError> {
        if self.is_poisoned {
            return Err(BookError::Poisoned);
        }
        let bytes = encode(record);
        let written = self
            .file
            .seek(SeekFrom::Start(self.end))
            .and_then(|_| self.file.write_all(&bytes))
            .and_then(|()| self.file.sync_data());
        if let Err(source) = written {
            self.cut(self.end);
            return Err(BookError::Io { path: self.path.clone(), source });
        }
        self.end += bytes.len() as u64;
        Ok(())
    }

    /// Takes the last record back: the log did not take it.
    pub(crate) fn take_back(&mut self, record: &Record) {
        let length = encode(record).len() as u64;
        self.cut(self.end.saturating_sub(length));
    }

    fn cut(&mut self, end: u64) {
        match self.file.set_len(end).and_then(|()| self.file.sync_all()) {
            Ok(()) => self.end = end,
            Err(_) => self.is_poisoned = true,
        }
    }
}

fn encode(record: &Record) -> Vec<u8> {
    let mut body = Vec::with_capacity(SALT_BYTES + record.compact.len());
    body.extend_from_slice(&record.salt);
    body.extend_from_slice(record.compact.as_bytes());
    let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
    bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
    bytes.extend_from_slice(&body);
    bytes
}

/// All whole records and where they end; a damaged record that is not the last one is an error at its offset.
fn parse(content: &[u8]) -> Result<(Vec<Record>, u64), u64> {
    let mut records = Vec::new();
    let mut at = 0;
    while at < content.len() {
        let Some((record, length)) = parse_one(&content[at..]) else {
            let is_last = torn_tail(&content[at..]);
            return if is_last { Ok((records, at as u64)) } else { Err(at as u64) };
        };
        records.push(record);
        at += length;
    }
    Ok((records, at as u64))
}

fn parse_one(content: &[u8]) -> Option<(Record, usize)> {
    let length = u32::from_le_bytes(content.get(..4)?.try_into().ok()?) as usize;
    let checksum = u32::from_le_bytes(content.get(4..8)?.try_into().ok()?);
    if !(SALT_BYTES..=SALT_BYTES + JWS_BYTES_MAX).contains(&length) {
        return None;
    }
    let body = content.get(HEADER_BYTES..HEADER_BYTES + length)?;
    if crc32c::crc32c(body) != checksum {
        return None;
    }
    let salt = body[..SALT_BYTES].try_into().ok()?;
    let compact = String::from_utf8(body[SALT_BYTES..].to_vec()).ok()?;
    Some((Record { salt, compact }, HEADER_BYTES + length))
}

/// Whether a record that does not fit can be the torn last one: nothing as long as a record follows its claimed end.
fn torn_tail(content: &[u8]) -> bool {
    let claimed =
        content.get(..4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes) as usize;
    content.len() <= HEADER_BYTES + claimed.clamp(SALT_BYTES, SALT_BYTES + JWS_BYTES_MAX)
}
