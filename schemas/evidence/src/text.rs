//! Strict little parsers: each value has exactly one spelling. What it is not: a general text library.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::merkle::Hash32;

/// A number whose only spelling is the plain decimal: no sign but a needed minus, no leading zero.
pub(crate) trait Field: Sized {
    /// Reads `text`, or nothing if it is another spelling.
    fn strict(text: &str) -> Option<Self>;
}

impl Field for u64 {
    fn strict(text: &str) -> Option<u64> {
        let value: u64 = text.parse().ok()?;
        (value.to_string() == text).then_some(value)
    }
}

impl Field for i64 {
    fn strict(text: &str) -> Option<i64> {
        let value: i64 = text.parse().ok()?;
        (value.to_string() == text).then_some(value)
    }
}

/// True if every byte is a lower-case hex digit.
pub(crate) fn is_lower_hex(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// 64 lower-case hex digits.
pub(crate) fn hex32(text: &str) -> Option<Hash32> {
    if !is_lower_hex(text) {
        return None;
    }
    let mut hash = [0; 32];
    hex::decode_to_slice(text, &mut hash).ok()?;
    Some(hash)
}

/// Standard base64 with padding; other spellings of the same bytes are refused.
pub(crate) fn base64_bytes(text: &str) -> Option<Vec<u8>> {
    // The engine refuses missing padding and non-zero trailing bits.
    STANDARD.decode(text).ok()
}

/// Standard base64 of exactly 32 bytes.
pub(crate) fn base64_32(text: &str) -> Option<Hash32> {
    base64_bytes(text)?.try_into().ok()
}

/// Standard base64 with padding.
pub(crate) fn to_base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}
