//! What a sender is told about a frame: one code, flag bits, a hint. The words of the contract, nothing about how
//! they are reached or carried.

use std::fmt;
use std::str::FromStr;

use schemas_identity::{BootId, ShortId};
use serde::{Deserialize, Serialize};

/// Flag bits of a stored frame and of the `flags` column.
pub mod flags {
    /// The device's clock could not be used; t0 was derived.
    pub const CLOCK: u32 = 1;
    /// Arrived long after it was measured.
    pub const LATE: u32 = 2;
    /// At least one value lies outside its signal's plausible range.
    pub const RANGE: u32 = 4;
    /// At least one sequence number before this frame is missing.
    pub const GAP: u32 = 8;
    /// Attested by a connector instead of a device.
    pub const CONNECTOR: u32 = 16;
    /// Measured after the device key's compromise, kept because chained to an earlier logged frame.
    pub const COMPROMISED: u32 = 32;
}

/// The verdict codes of the contract, written on the wire exactly as [`Code::as_str`] gives them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Code {
    /// Stored.
    Ok,
    /// These very bytes are stored already.
    Dup,
    /// The signature does not verify under the enrolled key.
    SigBad,
    /// No enrolled device has this kid.
    KeyUnknown,
    /// The device's key is revoked.
    KeyRevoked,
    /// Not a frame: malformed, not deterministic, or a field out of bounds.
    Decode,
    /// Stored, but at least one series has a signal the registry does not know; that series was dropped.
    SignalUnknown,
    /// Stored and flagged: a value outside its plausible range.
    Range,
    /// Stored and flagged: the device's clock could not be used.
    Clock,
    /// Longer than the frame limit.
    TooBig,
    /// The sequence number lies before everything that can still be compared.
    SeqOld,
    /// Stored, visible to nobody until a binding says who wore the device.
    NotBound,
    /// Stored and flagged: `prev` does not match the frame before.
    Chain,
    /// Same device, boot and seq as a stored frame, other bytes. Quarantined.
    Equivocation,
    /// The frame's device is not the one the topic or the login names.
    TopicMismatch,
    /// Not decided: come back later. Nothing was taken.
    RetryAfter,
    /// Not decided: the service is closing. Nothing was taken.
    Closed,
}

impl Code {
    /// Every code, in the order of the contract.
    pub const ALL: [Code; 17] = [
        Code::Ok,
        Code::Dup,
        Code::SigBad,
        Code::KeyUnknown,
        Code::KeyRevoked,
        Code::Decode,
        Code::SignalUnknown,
        Code::Range,
        Code::Clock,
        Code::TooBig,
        Code::SeqOld,
        Code::NotBound,
        Code::Chain,
        Code::Equivocation,
        Code::TopicMismatch,
        Code::RetryAfter,
        Code::Closed,
    ];

    /// The code as written on the wire, in metrics and in the lake.
    pub const fn as_str(self) -> &'static str {
        match self {
            Code::Ok => "OK",
            Code::Dup => "DUP",
            Code::SigBad => "SIG_BAD",
            Code::KeyUnknown => "KEY_UNKNOWN",
            Code::KeyRevoked => "KEY_REVOKED",
            Code::Decode => "DECODE",
            Code::SignalUnknown => "SIGNAL_UNKNOWN",
            Code::Range => "RANGE",
            Code::Clock => "CLOCK",
            Code::TooBig => "TOO_BIG",
            Code::SeqOld => "SEQ_OLD",
            Code::NotBound => "NOT_BOUND",
            Code::Chain => "CHAIN",
            Code::Equivocation => "EQUIVOCATION",
            Code::TopicMismatch => "TOPIC_MISMATCH",
            Code::RetryAfter => "RETRY_AFTER",
            Code::Closed => "CLOSED",
        }
    }

    /// Whether a frame with this code is stored now because of this very delivery.
    pub const fn is_kept(self) -> bool {
        matches!(
            self,
            Code::Ok | Code::Range | Code::Clock | Code::Chain | Code::NotBound | Code::SignalUnknown
        )
    }

    /// Whether the sender may forget the frame because it is stored: kept, or stored before (`DUP`).
    pub const fn is_accepted(self) -> bool {
        self.is_kept() || matches!(self, Code::Dup)
    }

    /// Whether the sender should send the same bytes again later.
    pub const fn is_retry(self) -> bool {
        matches!(self, Code::RetryAfter | Code::Closed)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that is none of the codes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown verdict code of {len} bytes")]
pub struct UnknownCode {
    /// Length of the refused text.
    pub len: usize,
}

impl FromStr for Code {
    type Err = UnknownCode;

    fn from_str(text: &str) -> Result<Self, UnknownCode> {
        for code in Code::ALL {
            if code.as_str() == text {
                return Ok(code);
            }
        }
        Err(UnknownCode { len: text.len() })
    }
}

/// What became of one frame. `device`, `boot` and `seq` are absent when the bytes did not tell them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// The frame's kid, if it could be read.
    pub device: Option<ShortId>,
    /// The frame's boot, if it could be read.
    pub boot: Option<BootId>,
    /// The frame's sequence number, if it could be read.
    pub seq: Option<u64>,
    /// The decision.
    pub code: Code,
    /// Flag bits, see [`flags`].
    pub flags: u32,
    /// What the sender can do about it, in one lower-case phrase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// Where one device's stream stands after a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceReport {
    /// The device.
    pub device: ShortId,
    /// Boot and highest durable sequence number of the boot last heard of.
    pub acked_to: Option<(BootId, u64)>,
    /// Missing sequence numbers of that boot, inclusive ranges in rising order.
    pub gaps: Vec<(u64, u64)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every code reads back from its own text, and the text serde writes is the same text.
    #[test]
    fn codes_round_trip() {
        for code in Code::ALL {
            assert_eq!(code.as_str().parse::<Code>(), Ok(code));
            assert_eq!(serde_json::to_string(&code).unwrap(), format!("\"{code}\""));
        }
        assert_eq!("ok".parse::<Code>(), Err(UnknownCode { len: 2 }));
    }

    /// A code's number is its place among all of them: counters are found by it.
    #[test]
    fn codes_are_numbered() {
        assert!(Code::ALL.into_iter().enumerate().all(|(place, code)| code as usize == place));
    }

    /// A refused frame is never counted as accepted, a duplicate is accepted but not kept again.
    #[test]
    fn kept_and_accepted() {
        let kept: Vec<Code> = Code::ALL.into_iter().filter(|c| c.is_kept()).collect();
        assert_eq!(
            kept,
            [Code::Ok, Code::SignalUnknown, Code::Range, Code::Clock, Code::NotBound, Code::Chain]
        );
        assert!(Code::Dup.is_accepted() && !Code::Dup.is_kept());
        assert!(!Code::Equivocation.is_accepted() && !Code::SigBad.is_accepted());
    }
}
