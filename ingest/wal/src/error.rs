//! What can go wrong in the log, and what the caller may do about it. Not for users: the pipeline maps it.

use std::io;

/// What is wrong with the bytes at one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// The file ends before the thing does.
    #[error("cut short")]
    Short,
    /// The file does not begin as a segment.
    #[error("not a segment header")]
    Magic,
    /// Reserved bytes are set.
    #[error("reserved bytes are not zero")]
    Reserved,
    /// The stored checksum is not the computed one.
    #[error("checksum {stored:08x} is stored, {computed:08x} is computed")]
    Checksum {
        /// CRC-32C in the file.
        stored: u32,
        /// CRC-32C of the bytes.
        computed: u32,
    },
    /// A record for another position or another life of the file.
    #[error("no record of this segment and position")]
    Mark,
    /// A frame length beyond the limit.
    #[error("frame length {len} is beyond the limit")]
    Length {
        /// Length in the file, bytes.
        len: u32,
    },
    /// The number in the header is not the one in the file name.
    #[error("header has segment number {found}")]
    Number {
        /// Number in the header.
        found: u64,
    },
    /// The file is not as long as its header says.
    #[error("file has {found} bytes, its header says {expected}")]
    Size {
        /// Length of the file, bytes.
        found: u64,
        /// Length in the header, bytes.
        expected: u64,
    },
    /// The segment between this one and the one before is missing.
    #[error("the segment before it is missing")]
    Gap,
    /// First position lower than that of the segment before.
    #[error("first position {found} is not after that of the segment before")]
    Position {
        /// First position in the header.
        found: u64,
    },
    /// The segment before does not hash to the chain value of this header.
    #[error("the segment before it has been changed")]
    Chain,
    /// A bad record although a record of a later append follows: damage, not a torn write.
    #[error("damaged in the middle: a later append follows at offset {later}")]
    Middle {
        /// Where that later record starts, bytes from the file's start.
        later: u64,
    },
}

/// Errors of the write-ahead log.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    /// All segments are in use; release some and try again. Nothing was written.
    #[error("log is full: {used} bytes of files, {max} allowed")]
    Full {
        /// Bytes of all files, spares included.
        used: u64,
        /// The bound from the options.
        max: u64,
    },
    /// The disk has no room for another segment. Nothing was written.
    #[error("no space for another segment")]
    NoSpace(#[source] io::Error),
    /// One frame is beyond the limit of a record. Nothing was written.
    #[error("frame of {len} bytes, {max} allowed")]
    RecordTooLarge {
        /// Frame length, bytes.
        len: usize,
        /// Most bytes this log takes in one frame.
        max: usize,
    },
    /// The records of one append are too many for a segment. Nothing was written.
    #[error("append of {bytes} bytes, {max} allowed")]
    AppendTooLarge {
        /// Encoded bytes of the append.
        bytes: u64,
        /// Most bytes this log takes in one append.
        max: u64,
    },
    /// The options contradict each other.
    #[error(
        "segment_bytes {segment_bytes} must be in {min}..={max} and bytes_max {bytes_max} at least twice that"
    )]
    Options {
        /// Segment size asked for, bytes.
        segment_bytes: u64,
        /// Bound asked for, bytes.
        bytes_max: u64,
        /// Smallest segment size, bytes.
        min: u64,
        /// Largest segment size, bytes.
        max: u64,
    },
    /// Another process has this log open.
    #[error("log is in use by another process")]
    Locked,
    /// A write or sync failed earlier; the state of the disk is unknown, only a restart helps.
    #[error("log is poisoned by an earlier failed write or sync")]
    Poisoned,
    /// The stored log is not one that a crash can leave behind. Nothing was changed.
    #[error("segment {file} at offset {offset}: {flaw}")]
    Corrupt {
        /// File name inside the log's directory.
        file: String,
        /// Bytes from the file's start.
        offset: u64,
        /// What is wrong there.
        flaw: Flaw,
    },
    /// Written by a newer program.
    #[error("segment {file} has format version {found}, this program reads up to {supported}")]
    Version {
        /// File name inside the log's directory.
        file: String,
        /// Version in the header.
        found: u16,
        /// Newest version this program reads.
        supported: u16,
    },
    /// An operation on a file or on the directory failed.
    #[error("{operation} {file}")]
    Io {
        /// What was being done.
        operation: &'static str,
        /// File name inside the log's directory; empty for the directory itself.
        file: String,
        /// The system's error.
        #[source]
        source: io::Error,
    },
}

impl WalError {
    /// Back-pressure, not failure: the same append may succeed after a release (or when the disk has room).
    #[must_use]
    pub fn is_recoverable(&self) -> bool {
        matches!(self, WalError::Full { .. } | WalError::NoSpace(_))
    }

    /// The log's own bound is reached.
    #[must_use]
    pub fn is_at_capacity(&self) -> bool {
        matches!(self, WalError::Full { .. })
    }

    pub(crate) fn io(operation: &'static str, file: &str, source: io::Error) -> WalError {
        WalError::Io { operation, file: file.to_owned(), source }
    }

    pub(crate) fn corrupt(file: &str, offset: u64, flaw: Flaw) -> WalError {
        WalError::Corrupt { file: file.to_owned(), offset, flaw }
    }
}
