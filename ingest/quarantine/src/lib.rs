//! The quarantine: refused frames that somebody may want back, or must be able to look at.
//!
//! An EQUIVOCATION (another frame under a stored number) is evidence of a cloned key or of a device that lost its state: it
//! is kept until its budget is full, and then the alarm says so. Frames of unknown and revoked keys and with bad
//! signatures are kept because a key or the register may be mended later, and then they can be offered again; they come
//! from anybody, so each reason has a budget of its own in which its oldest segment makes room. Of bytes that are no frame
//! a small sample is kept.
//!
//! It is not a place to read data from, it decides nothing, and it knows no register and no queue: offering frames again
//! is the pipeline's.
//!
//! ```text
//! DIR/equivocation-0000000001.q    segments per reason, appended to, recycled or deleted whole
//! DIR/key-unknown-0000000007.q
//!
//! segment = record | record | ...
//! record  = crc32c u32 | length u32 | version u8 = 1 | kind u8 | code u8 | zero u8 | received_us i64 | door 8 bytes
//!           | length bytes                                              (little-endian; the crc covers all after it)
//! kind 1  = a frame as received; kind 2 = a mark: segment u64, offset u64 of a frame that was accepted since
//! ```
//!
//! # Limits
//!
//! [`Budgets`] in bytes per reason, an eighth of it per segment; [`REFILL_BYTES_PER_SECOND`] of each reason that
//! anybody can cause; [`RECENT_MAX`] frames by which repetitions are known. Marks may exceed a budget: they are small and
//! there is one per frame at most. A torn tail is cut at the next start; a damaged record ends its segment for readers.
//!
//! Files: `format` (bytes), `store` (keeping), `list` (reading).
#![forbid(unsafe_code)]

mod format;
mod list;
mod store;

pub use format::{DOOR_BYTES, Kind, RECORD_BYTES, Record, Records};
pub use list::{Entry, Filter, list};
pub use store::{Budgets, Item, Outcome, Quarantine, RECENT_MAX, REFILL_BYTES_PER_SECOND};

use std::fmt;
use std::str::FromStr;

use schemas_frame::Code;

/// Why a frame is here. Each reason has its own segments and its own budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Another frame has its device, boot and number.
    Equivocation,
    /// Its key is revoked, and nothing ties it to a frame from before.
    KeyRevoked,
    /// Its signature does not verify.
    SigBad,
    /// Nobody enrolled its key.
    KeyUnknown,
    /// It is no frame.
    Decode,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Reason; 5] =
        [Reason::Equivocation, Reason::KeyRevoked, Reason::SigBad, Reason::KeyUnknown, Reason::Decode];

    /// The reason behind a verdict, if its frame belongs here.
    #[must_use]
    pub fn of(code: Code) -> Option<Reason> {
        Reason::ALL.into_iter().find(|reason| reason.code() == code)
    }

    /// The verdict's code.
    #[must_use]
    pub fn code(self) -> Code {
        match self {
            Reason::Equivocation => Code::Equivocation,
            Reason::KeyRevoked => Code::KeyRevoked,
            Reason::SigBad => Code::SigBad,
            Reason::KeyUnknown => Code::KeyUnknown,
            Reason::Decode => Code::Decode,
        }
    }

    /// Beginning of its segments' names.
    pub(crate) fn prefix(self) -> &'static str {
        match self {
            Reason::Equivocation => "equivocation",
            Reason::KeyRevoked => "key-revoked",
            Reason::SigBad => "sig-bad",
            Reason::KeyUnknown => "key-unknown",
            Reason::Decode => "decode",
        }
    }

    /// Whether it proves something about an enrolled device, so that it must never make room.
    #[must_use]
    pub fn is_evidence(self) -> bool {
        self == Reason::Equivocation
    }

    pub(crate) fn index(self) -> usize {
        Reason::ALL.iter().position(|reason| *reason == self).unwrap_or(0)
    }

    pub(crate) fn file_name(self, segment: u64) -> String {
        format!("{}-{segment:010}.q", self.prefix())
    }
}

/// Where a frame is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RecordId {
    /// Its reason.
    pub reason: Reason,
    /// Number of its segment.
    pub segment: u64,
    /// Where its record begins.
    pub offset: u64,
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.reason.prefix(), self.segment, self.offset)
    }
}

/// A text that is no record's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAnId;

impl FromStr for RecordId {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<RecordId, NotAnId> {
        let mut parts = text.rsplitn(3, '-');
        let mut number = || parts.next().and_then(|part| part.parse().ok()).ok_or(NotAnId);
        let (offset, segment) = (number()?, number()?);
        let prefix = parts.next().ok_or(NotAnId)?;
        let reason = Reason::ALL.into_iter().find(|reason| reason.prefix() == prefix).ok_or(NotAnId)?;
        Ok(RecordId { reason, segment, offset })
    }
}

#[cfg(test)]
mod tests;
