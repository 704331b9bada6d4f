//! The signed telemetry frame: what a wearable sends, byte for byte.
//!
//! A frame is one COSE_Sign1 (RFC 9052) whose payload is a deterministic CBOR map (RFC 8949 section 4.2) of series
//! in typed arrays (RFC 8746). `frame.cddl` beside this crate states the format; this crate reads and writes it.
//!
//! ```text
//! d2                      tag 18, always present
//!    84                   array of 4
//!       4d a2 01 27 04 48 kid(8)      protected: {1: -8 or -19, 4: kid}
//!       a0                            unprotected: empty
//!       58 xx payload                 bstr, map {1: boot, 2: seq, 3: prev, 4: wall, 5: mono, 6: series, ...}
//!       58 40 signature(64)           Ed25519 over Sig_structure with external_aad "vitalog-frame-v1"
//! ```
//!
//! Reading order: [`cbor`] (strict cursor), [`parse`] (bytes to [`Frame`]), [`series`] (readings without copies),
//! [`verify`] ([`Frame`] to [`VerifiedFrame`]), [`encode`] (a device's side), [`verdict`] (what senders are told),
//! [`hostile`] (a seedable corpus of bad frames for other crates' tests).
//!
//! It does no I/O, knows no clock, and never learns who wore a device. Which key a `kid` names, whether a sequence
//! number is new and whether a value is plausible are decided elsewhere.
//!
//! Limits, each refused with its own [`DecodeError`]: [`FRAME_BYTES_MAX`], [`SERIES_MAX`], [`DEPTH_MAX`],
//! [`SERIES_SPAN_US_MAX`], [`SCALE_MAX`], [`RAW_TIMES_NUM_MAX`].
#![forbid(unsafe_code)]

pub mod cbor;
pub mod encode;
mod error;
pub mod hostile;
pub mod parse;
mod quick;
pub mod series;
pub mod verdict;
pub mod verify;

pub use encode::{EncodeError, FrameBuilder, OutDeltas, OutSeries, OutValues, assemble, seal};
pub use parse::{Alg, DecodeError, Frame, digest16, next_frame_len};
pub use series::{Deltas, Scale, Series, Values};
pub use verdict::{Code, DeviceReport, Verdict, flags};
pub use verify::{Job, Reference, VerifiedFrame, Verifier, verify_all};

/// Largest frame in bytes, tag to signature. A longer one is `TOO_BIG`.
pub const FRAME_BYTES_MAX: usize = 65_536;
/// Most series in one frame.
pub const SERIES_MAX: usize = 256;
/// Deepest nesting inside the value of an unknown payload key, and inside an item of a CBOR sequence.
pub const DEPTH_MAX: usize = 16;
/// A series' last sample lies less than this after t0, in microseconds (285 years), so that time sums cannot wrap.
pub const SERIES_SPAN_US_MAX: u64 = 1 << 53;
/// `num` and `den` of a scale are below this.
pub const SCALE_MAX: u64 = 1 << 31;
/// `|raw| * num` stays below this, so that the product is exact in an f64.
pub const RAW_TIMES_NUM_MAX: u64 = 1 << 53;
/// COSE `external_aad` of every frame: binds a signature to this format without a byte on the wire.
pub const EXTERNAL_AAD: &[u8; 16] = b"vitalog-frame-v1";
/// Sequence numbers, monotonic times and wall times stay below this (they are signed 64-bit in the tables).
pub const UINT63_MAX: u64 = 1 << 63;

#[cfg(test)]
mod tests;
