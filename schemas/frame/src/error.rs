//! Why bytes are not a frame. One enum, each variant with the place and the values that broke the rule.

use crate::verdict::Code;
use crate::{DEPTH_MAX, FRAME_BYTES_MAX, SERIES_MAX};

/// Why bytes are not a frame. `at` is the offset from the frame's first byte.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Longer than [`FRAME_BYTES_MAX`]; nothing else was looked at.
    #[error("{len} bytes, the limit is {max}", max = FRAME_BYTES_MAX)]
    TooBig {
        /// Length of the refused bytes.
        len: usize,
    },
    /// The bytes end inside an item.
    #[error("truncated at byte {at}")]
    Truncated {
        /// Where more bytes were needed.
        at: usize,
    },
    /// Bytes after the frame's end.
    #[error("{extra} bytes after the end at byte {at}")]
    Trailing {
        /// Where the frame, or its payload, ended.
        at: usize,
        /// How many bytes follow.
        extra: usize,
    },
    /// Another CBOR type than the format asks for.
    #[error("expected {what} at byte {at}, found initial byte 0x{found:02x}")]
    Expected {
        /// Offset of the item.
        at: usize,
        /// What the format asks for.
        what: &'static str,
        /// The item's initial byte.
        found: u8,
    },
    /// A length, integer, float or tag not in its shortest form.
    #[error("not the shortest encoding at byte {at}")]
    NotShortest {
        /// Offset of the item.
        at: usize,
    },
    /// An indefinite length.
    #[error("indefinite length at byte {at}")]
    Indefinite {
        /// Offset of the item.
        at: usize,
    },
    /// A byte that begins no well-formed CBOR item.
    #[error("not well-formed CBOR at byte {at}: 0x{found:02x}")]
    Malformed {
        /// Offset of the byte.
        at: usize,
        /// The byte.
        found: u8,
    },
    /// Nested deeper than [`DEPTH_MAX`].
    #[error("nested deeper than {max} at byte {at}", max = DEPTH_MAX)]
    TooDeep {
        /// Offset of the item that is too deep.
        at: usize,
    },
    /// A map key that is not greater, bytewise, than the key before it: unsorted or twice.
    #[error("map key not in rising order at byte {at}")]
    KeyOrder {
        /// Offset of the key.
        at: usize,
    },
    /// A text string that is not UTF-8.
    #[error("text is not UTF-8 at byte {at}")]
    NotUtf8 {
        /// Offset of the text's first byte.
        at: usize,
    },
    /// The frame does not begin with tag 18.
    #[error("tag 18 is missing, found initial byte 0x{found:02x}")]
    NoTag {
        /// The first byte.
        found: u8,
    },
    /// An algorithm other than -8 (EdDSA) and -19 (Ed25519).
    #[error("unsupported algorithm, CBOR initial byte 0x{found:02x}")]
    Alg {
        /// Initial byte of the algorithm's value.
        found: u8,
    },
    /// A byte string, array or map of another length than the format fixes.
    #[error("{what} at byte {at} has length {len}, the format fixes {expected}")]
    Length {
        /// Offset of the item.
        at: usize,
        /// Which item.
        what: &'static str,
        /// Its length.
        len: u64,
        /// The fixed length.
        expected: u64,
    },
    /// One of the payload keys 1 to 6 is missing.
    #[error("payload key {key} is missing")]
    MissingKey {
        /// The key.
        key: u8,
    },
    /// An integer outside its bounds.
    #[error("{what} at byte {at} is out of bounds: {value}")]
    OutOfBounds {
        /// Offset of the integer.
        at: usize,
        /// Which integer.
        what: &'static str,
        /// Its value (for a negative integer n, -1 - n).
        value: u64,
    },
    /// More than [`SERIES_MAX`] series.
    #[error("{count} series, the limit is {max}", max = SERIES_MAX)]
    TooManySeries {
        /// How many.
        count: u64,
    },
    /// A typed array tag that this format does not use.
    #[error("array tag {tag} at byte {at} is not one of {allowed}")]
    ArrayTag {
        /// Offset of the tag.
        at: usize,
        /// The tag.
        tag: u64,
        /// Which would be right here.
        allowed: &'static str,
    },
    /// A typed array whose bytes are no multiple of its element's width.
    #[error("array of {bytes} bytes at byte {at} is not a multiple of {width}")]
    Ragged {
        /// Offset of the first element.
        at: usize,
        /// Bytes in the array.
        bytes: usize,
        /// Bytes per element.
        width: usize,
    },
    /// A series without a sample.
    #[error("series at byte {at} has no sample")]
    Empty {
        /// Offset of the series.
        at: usize,
    },
    /// Deltas or quality of another length than the values.
    #[error("{what} of the series at byte {at} has {len} elements for {samples} samples")]
    LengthsDiffer {
        /// Offset of the series.
        at: usize,
        /// `deltas` or `quality`.
        what: &'static str,
        /// Its length.
        len: usize,
        /// How many values the series has.
        samples: usize,
    },
    /// Period 0 without deltas, or deltas with another period.
    #[error("series at byte {at}: period 0 goes with deltas, any other period without; period {period_us}")]
    Spacing {
        /// Offset of the series.
        at: usize,
        /// Its period.
        period_us: u64,
    },
    /// Floats with a scale other than [1, 1].
    #[error("series at byte {at}: floats take scale [1, 1], found [{num}, {den}]")]
    FloatScale {
        /// Offset of the series.
        at: usize,
        /// Numerator.
        num: u32,
        /// Denominator.
        den: u32,
    },
    /// `|raw| * num` reaches 2^53, where doubles are no longer exact.
    #[error("series at byte {at}: |{raw}| times {num} reaches 2^53")]
    NotExact {
        /// Offset of the series.
        at: usize,
        /// The raw value with the greatest magnitude.
        raw: i64,
        /// The scale's numerator.
        num: u32,
    },
    /// The series ends too far from t0.
    #[error("series at byte {at} ends 2^53 us or more after t0")]
    Span {
        /// Offset of the series.
        at: usize,
    },
}

impl DecodeError {
    /// The verdict code this error is answered with: `TOO_BIG` or `DECODE`.
    pub const fn code(&self) -> Code {
        match self {
            DecodeError::TooBig { .. } => Code::TooBig,
            _ => Code::Decode,
        }
    }

    /// What a device maker should look at, in one phrase with the values in it.
    pub fn hint(&self) -> String {
        self.to_string()
    }
}
