//! The way nearly all series take: what an encoder of the format writes, read without an error value in sight.
//!
//! Not a second decoder: it gives up at the first byte that it does not expect, and `parse` then reads the same bytes
//! again and says what is wrong, or that nothing is. A test holds both to the same answers.

use crate::cbor::{Cursor, major};
use crate::series::{Deltas, Scale, Series, Values};
use crate::{SCALE_MAX, SERIES_SPAN_US_MAX};

/// The series at the cursor, each field within its own bounds, not yet held against each other.
/// `None` leaves the cursor where it was and says nothing about the bytes.
#[inline]
pub(crate) fn series<'a>(cursor: &mut Cursor<'a>) -> Option<Series<'a>> {
    let mut rest = *cursor;
    rest.quick(major::ARRAY).filter(|len| *len == 7)?;
    let signal = u32::try_from(rest.quick(major::UINT)?).ok()?;
    let offset_us = rest.quick(major::UINT).filter(|us| *us < SERIES_SPAN_US_MAX)?;
    let period_us = rest.quick(major::UINT).filter(|us| *us < SERIES_SPAN_US_MAX)?;
    rest.quick(major::ARRAY).filter(|len| *len == 2)?;
    let scale = Scale { num: scale_part(&mut rest)?, den: scale_part(&mut rest)? };
    let values = values(typed_array(&mut rest)?)?;
    let deltas = if rest.null().ok()? { None } else { Some(deltas(typed_array(&mut rest)?)?) };
    let quality = if rest.null().ok()? { None } else { Some(quality(typed_array(&mut rest)?)?) };
    *cursor = rest;
    Some(Series { signal, offset_us, period_us, scale, values, deltas, quality })
}

#[inline]
fn scale_part(rest: &mut Cursor<'_>) -> Option<u32> {
    let part = rest.quick(major::UINT).filter(|part| (1..SCALE_MAX).contains(part))?;
    u32::try_from(part).ok()
}

#[inline]
fn typed_array<'a>(rest: &mut Cursor<'a>) -> Option<(u64, &'a [u8])> {
    let tag = rest.quick(major::TAG)?;
    let len = rest.quick(major::BYTES)?;
    Some((tag, rest.take(len).ok()?))
}

#[inline]
fn values((tag, bytes): (u64, &[u8])) -> Option<Values<'_>> {
    Some(match tag {
        64 => Values::U8(bytes),
        69 => Values::U16(elements(bytes)?),
        70 => Values::U32(elements(bytes)?),
        72 => Values::I8(bytes),
        77 => Values::I16(elements(bytes)?),
        78 => Values::I32(elements(bytes)?),
        85 => Values::F32(elements(bytes)?),
        86 => Values::F64(elements(bytes)?),
        _ => return None,
    })
}

#[inline]
fn deltas((tag, bytes): (u64, &[u8])) -> Option<Deltas<'_>> {
    Some(match tag {
        64 => Deltas::U8(bytes),
        69 => Deltas::U16(elements(bytes)?),
        70 => Deltas::U32(elements(bytes)?),
        _ => return None,
    })
}

#[inline]
fn quality((tag, bytes): (u64, &[u8])) -> Option<&[u8]> {
    (tag == 64).then_some(bytes)
}

#[inline]
fn elements<const WIDTH: usize>(bytes: &[u8]) -> Option<&[[u8; WIDTH]]> {
    let (elements, rest) = bytes.as_chunks::<WIDTH>();
    rest.is_empty().then_some(elements)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Frame;
    use crate::hostile::{Dice, sample};
    use crate::parse::unchecked_series;
    use crate::tests::key;

    /// Guarantee: whatever the bytes, a series read the quick way is the one that the careful way reads, to the same end;
    /// and the quick way reads every series of a usual frame.
    #[test]
    fn quick_is_careful() {
        let (mut dice, mut agreed) = (Dice::new(8949), 0);
        for seq in 0..2_000 {
            let bytes = sample(&key(), seq);
            let frame = Frame::parse(&bytes).unwrap();
            let known = Frame::parse_known(&bytes).unwrap();
            assert!(known.series_places().eq(frame.series_places()) && known.seq() == frame.seq());
            for (at, _) in frame.series_places() {
                let mut damaged = bytes.clone();
                for _ in 0..dice.below(4) {
                    let place = at as usize + dice.below(24) as usize;
                    damaged[place] = [dice.below(256) as u8, damaged[place] ^ 1, 0x18, 0x19, 0x1a, 0xf6]
                        [dice.below(6) as usize];
                }
                for bytes in [&bytes, &damaged] {
                    let start = Cursor::starting_at(bytes, at as usize);
                    let (mut quick, mut careful) = (start, start);
                    let found = series(&mut quick);
                    let told = unchecked_series(&mut careful);
                    assert!(found.is_none() || found == told.ok(), "{}", hex::encode(bytes));
                    assert_eq!(quick.at(), if found.is_some() { careful.at() } else { at as usize });
                    assert!(found.is_some() || bytes.as_slice() != frame.bytes());
                    agreed += usize::from(found.is_some());
                }
            }
        }
        assert!(agreed > 4_000, "{agreed}");
    }

    /// Guarantee: heads that are not the shortest, or of another type, or cut off, are left to the careful way.
    #[test]
    fn odd_heads_are_left() {
        for odd in [
            "1817",
            "1900ff",
            "1a0000ffff",
            "1b0000000100000000",
            "1f",
            "1c",
            "20",
            "18",
            "19ff",
            "1affffff",
            "",
        ] {
            let bytes = hex::decode(odd).unwrap();
            let mut cursor = Cursor::new(&bytes);
            assert_eq!((cursor.quick(major::UINT), cursor.at()), (None, 0), "{odd}");
        }
        for (usual, value) in [("00", 0), ("17", 23), ("1818", 24), ("190100", 256), ("1a00010000", 65_536)] {
            let bytes = hex::decode(usual).unwrap();
            let mut cursor = Cursor::new(&bytes);
            assert_eq!((cursor.quick(major::UINT), cursor.left()), (Some(value), 0), "{usual}");
        }
    }
}
