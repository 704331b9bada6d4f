//! A cursor over deterministic CBOR (RFC 8949 section 4.2.1): definite lengths, shortest heads, sorted unique map
//! keys. Whatever is encoded another way is an error, so that one content has one encoding.
//!
//! It knows CBOR and nothing of frames. It never allocates, and reads each byte a bounded number of times.

use crate::DEPTH_MAX;
use crate::error::DecodeError;

/// CBOR major types, the upper three bits of an initial byte.
pub mod major {
    /// Unsigned integer.
    pub const UINT: u8 = 0;
    /// Negative integer, value -1 - argument.
    pub const NEGINT: u8 = 1;
    /// Byte string.
    pub const BYTES: u8 = 2;
    /// Text string.
    pub const TEXT: u8 = 3;
    /// Array.
    pub const ARRAY: u8 = 4;
    /// Map.
    pub const MAP: u8 = 5;
    /// Tag.
    pub const TAG: u8 = 6;
    /// Floats, booleans, null, simple values.
    pub const SIMPLE: u8 = 7;
}

/// The encoding of null.
pub const NULL: u8 = 0xf6;
const BREAK: u8 = 0xff;
const INFO_MASK: u8 = 0x1f;
const INFO_INDEFINITE: u8 = 31;

/// The first bytes of an item: its major type and argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Offset of the initial byte.
    pub at: usize,
    /// The initial byte.
    pub initial: u8,
    /// Value, length or tag number.
    pub argument: u64,
}

impl Head {
    /// Major type, 0 to 7.
    pub const fn major(&self) -> u8 {
        self.initial >> 5
    }
}

/// A position in bytes. Offsets in errors count from the outermost buffer's first byte.
#[derive(Debug, Clone, Copy)]
pub struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// A cursor at the first byte.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Cursor { bytes, at: 0 }
    }

    /// A cursor at `at`; reads end at the end of `bytes`.
    pub const fn starting_at(bytes: &'a [u8], at: usize) -> Self {
        Cursor { bytes, at }
    }

    /// Offset of the next byte.
    pub const fn at(&self) -> usize {
        self.at
    }

    /// How many bytes are left.
    pub const fn left(&self) -> usize {
        self.bytes.len().saturating_sub(self.at)
    }

    /// The bytes from `from` up to the position.
    pub fn since(&self, from: usize) -> &'a [u8] {
        self.bytes.get(from..self.at).unwrap_or_default()
    }

    /// The next byte, not consumed.
    #[inline]
    pub fn peek(&self) -> Result<u8, DecodeError> {
        self.bytes.get(self.at).copied().ok_or(DecodeError::Truncated { at: self.at })
    }

    /// The next `len` bytes.
    #[inline]
    pub fn take(&mut self, len: u64) -> Result<&'a [u8], DecodeError> {
        let error = DecodeError::Truncated { at: self.bytes.len() };
        let Ok(len) = usize::try_from(len) else { return Err(error) };
        let Some(end) = self.at.checked_add(len) else { return Err(error) };
        let Some(slice) = self.bytes.get(self.at..end) else { return Err(error) };
        self.at = end;
        Ok(slice)
    }

    /// The end: an error if bytes are left.
    pub fn finish(&self) -> Result<(), DecodeError> {
        match self.left() {
            0 => Ok(()),
            extra => Err(DecodeError::Trailing { at: self.at, extra }),
        }
    }

    /// Reads a head of any major type but 7: shortest form, definite length.
    pub fn head(&mut self) -> Result<Head, DecodeError> {
        let head = self.head_any()?;
        if head.initial & INFO_MASK == INFO_INDEFINITE {
            return Err(DecodeError::Indefinite { at: head.at });
        }
        let shortest: u64 = match head.initial & INFO_MASK {
            24 => 24,
            25 => 1 << 8,
            26 => 1 << 16,
            27 => 1 << 32,
            _ => 0,
        };
        if head.argument < shortest {
            return Err(DecodeError::NotShortest { at: head.at });
        }
        Ok(head)
    }

    /// The argument of a head of major type `wanted` in shortest form and of at most 32 bits. `None` consumes nothing and
    /// says nothing: [`Cursor::head`] tells what is there.
    #[inline]
    pub(crate) fn quick(&mut self, wanted: u8) -> Option<u64> {
        let rest = self.bytes.get(self.at..)?;
        let (initial, rest) = rest.split_first()?;
        if initial >> 5 != wanted {
            return None;
        }
        let (argument, bytes) = match initial & INFO_MASK {
            small @ 0..=23 => (u64::from(small), 1),
            24 => (u64::from(*rest.first()?), 2),
            25 => (u64::from(u16::from_be_bytes(*rest.first_chunk()?)), 3),
            26 => (u64::from(u32::from_be_bytes(*rest.first_chunk()?)), 5),
            _ => return None,
        };
        let is_shortest = match bytes {
            2 => argument >= 24,
            3 => argument >= 1 << 8,
            5 => argument >= 1 << 16,
            _ => true,
        };
        if !is_shortest {
            return None;
        }
        self.at += bytes;
        Some(argument)
    }

    /// Reads a head of major type `major`; `what` names it in the error.
    pub fn expect(&mut self, wanted: u8, what: &'static str) -> Result<Head, DecodeError> {
        let found = self.peek()?;
        if found >> 5 != wanted {
            return Err(DecodeError::Expected { at: self.at, what, found });
        }
        self.head()
    }

    /// Reads an unsigned integer below `limit`.
    pub fn uint_below(&mut self, limit: u64, what: &'static str) -> Result<u64, DecodeError> {
        let at = self.at;
        let value = match self.quick(major::UINT) {
            Some(value) => value,
            None => self.expect(major::UINT, what)?.argument,
        };
        if value >= limit {
            return Err(DecodeError::OutOfBounds { at, what, value });
        }
        Ok(value)
    }

    /// Reads a byte string of exactly `N` bytes.
    pub fn bytes_exact<const N: usize>(&mut self, what: &'static str) -> Result<&'a [u8; N], DecodeError> {
        let at = self.at;
        let len = match self.quick(major::BYTES) {
            Some(len) => len,
            None => self.expect(major::BYTES, what)?.argument,
        };
        let error = || DecodeError::Length { at, what, len, expected: N as u64 };
        if len != N as u64 {
            return Err(error());
        }
        self.take(len)?.try_into().map_err(|_| error())
    }

    /// Reads an array head of exactly `len` elements.
    pub fn array_exact(&mut self, len: u64, what: &'static str) -> Result<Head, DecodeError> {
        let head = self.expect(major::ARRAY, what)?;
        if head.argument != len {
            return Err(DecodeError::Length { at: head.at, what, len: head.argument, expected: len });
        }
        Ok(head)
    }

    /// Consumes a null if one is next.
    #[inline]
    pub fn null(&mut self) -> Result<bool, DecodeError> {
        let found = self.peek()? == NULL;
        if found {
            self.at += 1;
        }
        Ok(found)
    }

    /// Reads over one deterministic item of any kind, nested at most [`DEPTH_MAX`] deep.
    pub fn skip(&mut self) -> Result<(), DecodeError> {
        self.skip_at(0)
    }

    /// Reads over one well-formed item, deterministic or not, nested at most [`DEPTH_MAX`] deep.
    pub fn skip_lenient(&mut self) -> Result<(), DecodeError> {
        self.skip_lenient_at(0)
    }

    fn skip_at(&mut self, depth: usize) -> Result<(), DecodeError> {
        if depth > DEPTH_MAX {
            return Err(DecodeError::TooDeep { at: self.at });
        }
        if self.peek()? >> 5 == major::SIMPLE {
            return self.skip_simple();
        }
        let head = self.head()?;
        match head.major() {
            major::UINT | major::NEGINT => Ok(()),
            major::BYTES => self.take(head.argument).map(|_| ()),
            major::TEXT => self.skip_text(head.argument),
            major::ARRAY => {
                for _ in 0..head.argument {
                    self.skip_at(depth + 1)?;
                }
                Ok(())
            }
            major::MAP => self.skip_map(head.argument, depth),
            _ => self.skip_at(depth + 1),
        }
    }

    fn skip_text(&mut self, len: u64) -> Result<(), DecodeError> {
        let at = self.at;
        match std::str::from_utf8(self.take(len)?) {
            Ok(_) => Ok(()),
            Err(_) => Err(DecodeError::NotUtf8 { at }),
        }
    }

    fn skip_map(&mut self, pairs: u64, depth: usize) -> Result<(), DecodeError> {
        let mut before: Option<&[u8]> = None;
        for _ in 0..pairs {
            let at = self.at;
            self.skip_at(depth + 1)?;
            let key = self.since(at);
            if before.is_some_and(|before| before >= key) {
                return Err(DecodeError::KeyOrder { at });
            }
            before = Some(key);
            self.skip_at(depth + 1)?;
        }
        Ok(())
    }

    /// Major type 7: a simple value, or a float in the shortest width that keeps its bits.
    fn skip_simple(&mut self) -> Result<(), DecodeError> {
        let head = self.head_any()?;
        let shorter = match head.initial & INFO_MASK {
            0..=23 => false,
            24 if head.argument >= 32 => false,
            25 => false,
            26 => fits_half(head.argument as u32),
            27 => fits_single(head.argument).is_some(),
            INFO_INDEFINITE => return Err(DecodeError::Indefinite { at: head.at }),
            _ => return Err(DecodeError::Malformed { at: head.at, found: head.initial }),
        };
        if shorter {
            return Err(DecodeError::NotShortest { at: head.at });
        }
        Ok(())
    }

    fn skip_lenient_at(&mut self, depth: usize) -> Result<(), DecodeError> {
        if depth > DEPTH_MAX {
            return Err(DecodeError::TooDeep { at: self.at });
        }
        let head = self.head_any()?;
        if head.initial & INFO_MASK == INFO_INDEFINITE {
            return self.skip_indefinite(head, depth);
        }
        let children = match head.major() {
            major::UINT | major::NEGINT => return Ok(()),
            major::SIMPLE => match head.initial & INFO_MASK {
                24 if head.argument < 32 => {
                    return Err(DecodeError::Malformed { at: head.at, found: head.initial });
                }
                _ => return Ok(()),
            },
            major::BYTES | major::TEXT => return self.take(head.argument).map(|_| ()),
            major::ARRAY => head.argument,
            major::MAP => match head.argument.checked_mul(2) {
                Some(children) => children,
                None => return Err(DecodeError::Truncated { at: self.bytes.len() }),
            },
            _ => 1,
        };
        for _ in 0..children {
            self.skip_lenient_at(depth + 1)?;
        }
        Ok(())
    }

    fn skip_indefinite(&mut self, head: Head, depth: usize) -> Result<(), DecodeError> {
        let malformed = DecodeError::Malformed { at: head.at, found: head.initial };
        let mut children: u64 = 0;
        while self.peek()? != BREAK {
            match head.major() {
                major::BYTES | major::TEXT => {
                    let chunk = self.head_any()?;
                    let definite = chunk.initial & INFO_MASK != INFO_INDEFINITE;
                    if chunk.major() != head.major() || !definite {
                        return Err(DecodeError::Malformed { at: chunk.at, found: chunk.initial });
                    }
                    self.take(chunk.argument)?;
                }
                major::ARRAY | major::MAP => self.skip_lenient_at(depth + 1)?,
                _ => return Err(malformed),
            }
            children += 1;
        }
        self.at += 1;
        let odd_map = head.major() == major::MAP && !children.is_multiple_of(2);
        let container = matches!(head.major(), major::BYTES | major::TEXT | major::ARRAY | major::MAP);
        if odd_map || !container { Err(malformed) } else { Ok(()) }
    }

    /// Reads an initial byte and its argument, whatever their form; for an indefinite length the argument is 0.
    fn head_any(&mut self) -> Result<Head, DecodeError> {
        let at = self.at;
        let initial = self.peek()?;
        self.at += 1;
        let argument = match initial & INFO_MASK {
            small @ 0..=23 => u64::from(small),
            24 => u64::from(be::<1>(self.take(1)?)[0]),
            25 => u64::from(u16::from_be_bytes(be(self.take(2)?))),
            26 => u64::from(u32::from_be_bytes(be(self.take(4)?))),
            27 => u64::from_be_bytes(be(self.take(8)?)),
            INFO_INDEFINITE => 0,
            _ => return Err(DecodeError::Malformed { at, found: initial }),
        };
        Ok(Head { at, initial, argument })
    }
}

/// The bytes as a fixed array; callers pass exactly `N` bytes, others give zeros.
fn be<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().unwrap_or([0; N])
}

/// Whether an f32's bits can be written as an f16 without losing one (NaN payloads included).
fn fits_half(bits: u32) -> bool {
    let exponent = (bits >> 23 & 0xff) as i32 - 127;
    let fraction = bits & 0x7f_ffff;
    match exponent {
        -127 => fraction == 0,
        -24..=-15 => {
            // A half's subnormal: the implicit one and the fraction, shifted to units of 2^-24, lose no bit.
            let dropped = 23 - (exponent + 24);
            (fraction | 0x80_0000).trailing_zeros() as i32 >= dropped
        }
        -14..=15 | 128 => fraction & 0x1fff == 0,
        _ => false,
    }
}

/// The f32 bits that carry the same value as these f64 bits, if there are such (NaN payloads included).
fn fits_single(bits: u64) -> Option<u32> {
    let value = f64::from_bits(bits);
    if value.is_nan() {
        let sign = (bits >> 63 << 31) as u32;
        let payload = bits & ((1 << 52) - 1);
        let kept = (payload >> 29) as u32;
        return (payload & ((1 << 29) - 1) == 0).then_some(sign | 0x7f80_0000 | kept);
    }
    let single = value as f32;
    (f64::from(single).to_bits() == bits).then_some(single.to_bits())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skip(hex_text: &str) -> Result<usize, DecodeError> {
        let bytes = hex::decode(hex_text).unwrap();
        let mut cursor = Cursor::new(&bytes);
        cursor.skip()?;
        Ok(cursor.at())
    }

    fn skip_lenient(hex_text: &str) -> Result<usize, DecodeError> {
        let bytes = hex::decode(hex_text).unwrap();
        let mut cursor = Cursor::new(&bytes);
        cursor.skip_lenient()?;
        Ok(cursor.at())
    }

    /// Items in their one deterministic form are read to their end.
    #[test]
    fn deterministic_items_pass() {
        let items = "00 17 1818 190100 1a00010000 1b0000000100000000 20 3863 40 43010203 60 63616263 80 820102 a0 \
            a2010241ff03 c100 d84001 f4 f5 f6 f7 f820 f90000 f97c00 f97e00 fa47c35000 fb3ff199999999999a fa33000000 \
            a201022000 fb7e37e43c8800759c fa7f7fffff";
        for item in items.split_whitespace() {
            assert_eq!(skip(item), Ok(item.len() / 2), "{item}");
            assert_eq!(skip_lenient(item), Ok(item.len() / 2), "{item}");
        }
    }

    /// The same contents in any other form are refused by the strict reader and accepted by the lenient one.
    #[test]
    fn other_forms_are_refused() {
        let items = "1800 1817 190017 1900ff 1a0000ffff 1b00000000ffffffff 5800 5f4101ff 9f01ff bf0102ff \
            a201020102 a202000100 d80a00 fa3f800000 fa7fc00000 fb3ff0000000000000 fb7ff8000000000000 fa33800000 \
            fa00000000 fb36a0000000000000 61ff";
        for item in items.split_whitespace() {
            assert!(skip(item).is_err(), "{item}");
            assert_eq!(skip_lenient(item), Ok(item.len() / 2), "{item}");
        }
    }

    /// Bytes that are no CBOR at all are refused by both readers.
    #[test]
    fn malformed_items_are_refused() {
        let items = "1c 1d 1e 3c 5c ff fc f800 f81f 18 19ff 42ff 8201 a101 c0 5f01ff 1f 3f df bf01ff 9f01 \
            9bffffffffffffffff bbffffffffffffffff 5bffffffffffffffff 5f5f4101ffff";
        for item in items.split_whitespace() {
            assert!(skip(item).is_err(), "{item}");
            assert!(skip_lenient(item).is_err(), "{item}");
        }
    }

    /// Nesting is refused past the limit and read up to it, in both readers.
    #[test]
    fn nesting_is_bounded() {
        let nested = |depth: usize| format!("{}00", "81".repeat(depth));
        assert!(skip(&nested(DEPTH_MAX)).is_ok() && skip_lenient(&nested(DEPTH_MAX)).is_ok());
        assert_eq!(skip(&nested(DEPTH_MAX + 1)), Err(DecodeError::TooDeep { at: DEPTH_MAX + 1 }));
        assert!(skip_lenient(&nested(60_000)).is_err());
        assert!(skip_lenient(&"9f".repeat(60_000)).is_err());
    }
}
