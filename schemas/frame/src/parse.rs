//! From bytes to [`Frame`]: every rule of the format that needs no key, no clock and no memory of earlier frames.
//!
//! Parsing borrows and never allocates. A [`Frame`] that exists is well-formed in both layers, so its accessors and
//! its series are infallible. It is not yet believed: that takes `verify`.

use schemas_identity::{BootId, ShortId};

use crate::cbor::{Cursor, major};
use crate::quick;
use crate::series::{Deltas, Scale, Series, Values};
use crate::{
    EXTERNAL_AAD, FRAME_BYTES_MAX, RAW_TIMES_NUM_MAX, SCALE_MAX, SERIES_MAX, SERIES_SPAN_US_MAX, UINT63_MAX,
};

pub use crate::error::DecodeError;

pub(crate) const TAG_SIGN1: u8 = 0xd2;
pub(crate) const UNPROTECTED_EMPTY: u8 = 0xa0;
pub(crate) const PROTECTED_BYTES: usize = 13;
const ARRAY_OF_4: u8 = 0x84;
const MAP_OF_2: u8 = 0xa2;
const KID_HEAD: u8 = 0x48;
const HEADER_ALG: u8 = 0x01;
const HEADER_KID: u8 = 0x04;
const KNOWN_KEYS: u8 = 6;
const VALUE_TAGS: &str = "64 69 70 72 77 78 85 86";
const UNSIGNED_TAGS: &str = "64 69 70";

/// The COSE algorithm named in the protected header. Both mean Ed25519 here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Alg {
    /// -8, EdDSA (RFC 9053).
    #[default]
    EdDsa,
    /// -19, Ed25519 (RFC 9864).
    Ed25519,
}

impl Alg {
    /// The one byte that encodes the algorithm's number.
    pub const fn initial(self) -> u8 {
        match self {
            Alg::EdDsa => 0x27,
            Alg::Ed25519 => 0x32,
        }
    }
}

/// A well-formed frame, borrowed from its bytes. Not verified.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    bytes: &'a [u8],
    protected: &'a [u8; PROTECTED_BYTES],
    alg: Alg,
    kid: ShortId,
    payload: &'a [u8],
    fields: Fields<'a>,
    signature: &'a [u8; 64],
}

/// The payload's known keys.
#[derive(Debug, Clone, Copy)]
struct Fields<'a> {
    boot: BootId,
    seq: u64,
    prev: [u8; 16],
    wall_us: Option<i64>,
    mono_us: u64,
    series: SeriesList<'a>,
}

/// The elements of the series array, already walked once.
#[derive(Debug, Clone, Copy)]
struct SeriesList<'a> {
    elements: Cursor<'a>,
    count: u64,
}

/// Whether the same bytes were parsed before.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Known {
    Yes,
    No,
}

impl<'a> Frame<'a> {
    /// Checks `bytes` as exactly one frame.
    ///
    /// # Errors
    /// The first rule that the bytes break. [`DecodeError::TooBig`] above [`FRAME_BYTES_MAX`] bytes.
    pub fn parse(bytes: &'a [u8]) -> Result<Frame<'a>, DecodeError> {
        Frame::read(bytes, Known::No)
    }

    /// Reads bytes that [`Frame::parse`] accepted before, without walking the series again: for batches of frames, of
    /// which each was parsed when it came.
    ///
    /// # Errors
    /// As [`Frame::parse`], though not for what is wrong inside the series: there [`Frame::series`] ends early.
    pub fn parse_known(bytes: &'a [u8]) -> Result<Frame<'a>, DecodeError> {
        Frame::read(bytes, Known::Yes)
    }

    fn read(bytes: &'a [u8], known: Known) -> Result<Frame<'a>, DecodeError> {
        if bytes.len() > FRAME_BYTES_MAX {
            return Err(DecodeError::TooBig { len: bytes.len() });
        }
        let mut cursor = Cursor::new(bytes);
        let found = cursor.peek()?;
        if found != TAG_SIGN1 {
            return Err(DecodeError::NoTag { found });
        }
        cursor.take(1)?;
        expect_byte(&mut cursor, ARRAY_OF_4, "an array of 4 (COSE_Sign1)")?;
        let (protected, alg, kid) = protected_header(&mut cursor)?;
        expect_byte(&mut cursor, UNPROTECTED_EMPTY, "an empty map (unprotected header)")?;
        let payload_len = cursor.expect(major::BYTES, "a byte string (payload)")?.argument;
        let payload_at = cursor.at();
        let payload = cursor.take(payload_len)?;
        let signature = cursor.bytes_exact::<64>("signature")?;
        cursor.finish()?;
        // The payload is read in place, so that errors carry offsets into the frame.
        let payload_end = payload_at + payload.len();
        let fields = payload_map(
            Cursor::starting_at(bytes.get(..payload_end).unwrap_or_default(), payload_at),
            known,
        )?;
        Ok(Frame { bytes, protected, alg, kid, payload, fields, signature })
    }

    /// The frame as received.
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The algorithm the protected header names.
    pub const fn alg(&self) -> Alg {
        self.alg
    }

    /// The short id of the key that claims to have signed.
    pub const fn kid(&self) -> ShortId {
        self.kid
    }

    /// The device's boot.
    pub const fn boot(&self) -> BootId {
        self.fields.boot
    }

    /// Sequence number within the boot, below 2^63.
    pub const fn seq(&self) -> u64 {
        self.fields.seq
    }

    /// First 16 bytes of BLAKE3 of the previous frame of this boot.
    pub const fn prev(&self) -> [u8; 16] {
        self.fields.prev
    }

    /// The device's wall clock at t0, microseconds since 1970 UTC, if it was ever set.
    pub const fn wall_us(&self) -> Option<i64> {
        self.fields.wall_us
    }

    /// Monotonic microseconds since boot at t0, below 2^63.
    pub const fn mono_us(&self) -> u64 {
        self.fields.mono_us
    }

    /// How many series, at most [`SERIES_MAX`].
    pub const fn series_len(&self) -> usize {
        self.fields.series.count as usize
    }

    /// The series in the frame's order. Signals may repeat and may be unknown.
    pub fn series(&self) -> impl Iterator<Item = Series<'a>> + use<'a> {
        let mut cursor = self.fields.series.elements;
        (0..self.fields.series.count).map_while(move |_| known_series(&mut cursor))
    }

    /// As [`Frame::series`], each with its place in the frame's bytes, for [`Frame::series_at`].
    pub fn series_places(&self) -> impl Iterator<Item = (u32, Series<'a>)> + use<'a> {
        let mut cursor = self.fields.series.elements;
        (0..self.fields.series.count).map_while(move |_| {
            let at = cursor.at() as u32;
            known_series(&mut cursor).map(|series| (at, series))
        })
    }

    /// The series at a place that [`Frame::series_places`] gave, without walking those before it.
    pub fn series_at(&self, at: u32) -> Option<Series<'a>> {
        let mut cursor = Cursor::starting_at(self.bytes, at as usize);
        // The place may be anything, so that what is there counts only if it is a whole series.
        one_series(&mut cursor).ok()
    }

    /// The payload's bytes: the CBOR map with unknown keys as sent.
    pub const fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// The signature: R and s, not checked yet.
    pub const fn signature(&self) -> &'a [u8; 64] {
        self.signature
    }

    /// Writes the signed bytes, COSE's Sig_structure (RFC 9052 section 4.4), over whatever `out` held.
    pub fn signed_message(&self, out: &mut Vec<u8>) {
        signed_message(self.protected, self.payload, out);
    }

    /// First 16 bytes of BLAKE3 of the frame: what the next frame's `prev` must be.
    pub fn digest16(&self) -> [u8; 16] {
        digest16(self.bytes)
    }
}

/// First 16 bytes of BLAKE3 of a frame's bytes.
pub fn digest16(frame: &[u8]) -> [u8; 16] {
    let mut digest = [0; 16];
    digest.copy_from_slice(&blake3::hash(frame).as_bytes()[..16]);
    digest
}

/// Length of the CBOR item at the start of `bytes`, to cut a CBOR sequence (RFC 8742) into frames.
///
/// Any well-formed item counts, whether or not it is a frame and of whatever length: the caller gives each to
/// [`Frame::parse`], so one bad frame does not take the rest of the sequence with it.
///
/// # Errors
/// When no well-formed item begins here or the bytes end inside it: the sequence ends here.
pub fn next_frame_len(bytes: &[u8]) -> Result<usize, DecodeError> {
    let mut cursor = Cursor::new(bytes);
    cursor.skip_lenient()?;
    Ok(cursor.at())
}

pub(crate) fn protected_bytes(alg: Alg, kid: ShortId) -> [u8; PROTECTED_BYTES] {
    let k = kid.0;
    let alg = alg.initial();
    [MAP_OF_2, HEADER_ALG, alg, HEADER_KID, KID_HEAD, k[0], k[1], k[2], k[3], k[4], k[5], k[6], k[7]]
}

pub(crate) fn signed_message(protected: &[u8; PROTECTED_BYTES], payload: &[u8], out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(b"\x84\x6aSignature1\x4d");
    out.extend_from_slice(protected);
    out.push(0x40 | EXTERNAL_AAD.len() as u8);
    out.extend_from_slice(EXTERNAL_AAD);
    crate::encode::head(out, major::BYTES, payload.len() as u64);
    out.extend_from_slice(payload);
}

fn expect_byte(cursor: &mut Cursor<'_>, byte: u8, what: &'static str) -> Result<(), DecodeError> {
    let at = cursor.at();
    let found = cursor.peek()?;
    if found != byte {
        return Err(DecodeError::Expected { at, what, found });
    }
    cursor.take(1).map(|_| ())
}

/// The protected header has one encoding per algorithm and kid: 13 bytes.
fn protected_header<'a>(
    cursor: &mut Cursor<'a>,
) -> Result<(&'a [u8; PROTECTED_BYTES], Alg, ShortId), DecodeError> {
    let protected = cursor.bytes_exact::<PROTECTED_BYTES>("protected header {1: alg, 4: kid of 8 bytes}")?;
    let at = cursor.at() - PROTECTED_BYTES;
    let [map, alg_key, alg_value, kid_key, kid_head, kid @ ..] = *protected;
    let fixed = [
        (map, MAP_OF_2, "a map of 2 (protected header)"),
        (alg_key, HEADER_ALG, "header key 1 (alg)"),
        (kid_key, HEADER_KID, "header key 4 (kid) after a one-byte alg"),
        (kid_head, KID_HEAD, "a byte string of 8 (kid)"),
    ];
    for (offset, (found, wanted, what)) in [0, 1, 3, 4].into_iter().zip(fixed) {
        if found != wanted {
            return Err(DecodeError::Expected { at: at + offset, what, found });
        }
    }
    for alg in [Alg::EdDsa, Alg::Ed25519] {
        if alg.initial() == alg_value {
            return Ok((protected, alg, ShortId(kid)));
        }
    }
    Err(DecodeError::Alg { found: alg_value })
}

/// Walks the payload map: known keys in order, unknown ones skipped but held to the same encoding rules.
fn payload_map<'a>(mut cursor: Cursor<'a>, known: Known) -> Result<Fields<'a>, DecodeError> {
    let pairs = cursor.expect(major::MAP, "a map (payload)")?.argument;
    let mut fields = Fields {
        boot: BootId([0; 8]),
        seq: 0,
        prev: [0; 16],
        wall_us: None,
        mono_us: 0,
        series: SeriesList { elements: cursor, count: 0 },
    };
    let mut key_before: Option<&[u8]> = None;
    let mut wanted = 1;
    for _ in 0..pairs {
        let at = cursor.at();
        // A known key is one byte; any other is some item.
        if cursor.peek()? == wanted {
            cursor.take(1).map(|_| ())?
        } else {
            cursor.skip()?
        };
        let key = cursor.since(at);
        if key_before.is_some_and(|before| before >= key) {
            return Err(DecodeError::KeyOrder { at });
        }
        key_before = Some(key);
        match key {
            [key_number] if (1..=KNOWN_KEYS).contains(key_number) => {
                if *key_number != wanted {
                    return Err(DecodeError::MissingKey { key: wanted });
                }
                if *key_number == KNOWN_KEYS && known == Known::Yes {
                    // Whatever follows the last known key was walked when the bytes first came.
                    fields.series = series_unwalked(&mut cursor)?;
                    return Ok(fields);
                }
                known_field(*key_number, &mut cursor, &mut fields)?;
                wanted += 1;
            }
            _ => cursor.skip()?,
        }
    }
    if wanted <= KNOWN_KEYS {
        return Err(DecodeError::MissingKey { key: wanted });
    }
    cursor.finish()?;
    Ok(fields)
}

fn known_field<'a>(key: u8, cursor: &mut Cursor<'a>, fields: &mut Fields<'a>) -> Result<(), DecodeError> {
    match key {
        1 => fields.boot = BootId(*cursor.bytes_exact("boot id")?),
        2 => fields.seq = cursor.uint_below(UINT63_MAX, "seq")?,
        3 => fields.prev = *cursor.bytes_exact("prev")?,
        4 => fields.wall_us = wall_clock(cursor)?,
        5 => fields.mono_us = cursor.uint_below(UINT63_MAX, "monotonic clock")?,
        _ => fields.series = series_list(cursor)?,
    }
    Ok(())
}

fn wall_clock(cursor: &mut Cursor<'_>) -> Result<Option<i64>, DecodeError> {
    if cursor.null()? {
        return Ok(None);
    }
    let what = "an integer or null (wall clock)";
    let negative = cursor.peek()? >> 5 == major::NEGINT;
    let head = cursor.expect(if negative { major::NEGINT } else { major::UINT }, what)?;
    match i64::try_from(head.argument) {
        Ok(value) => Ok(Some(if negative { -1 - value } else { value })),
        Err(_) => Err(DecodeError::OutOfBounds { at: head.at, what: "wall clock", value: head.argument }),
    }
}

fn series_list<'a>(cursor: &mut Cursor<'a>) -> Result<SeriesList<'a>, DecodeError> {
    let list = series_unwalked(cursor)?;
    for _ in 0..list.count {
        one_series(cursor)?;
    }
    Ok(list)
}

fn series_unwalked<'a>(cursor: &mut Cursor<'a>) -> Result<SeriesList<'a>, DecodeError> {
    let count = cursor.expect(major::ARRAY, "an array (series)")?.argument;
    if count > SERIES_MAX as u64 {
        return Err(DecodeError::TooManySeries { count });
    }
    Ok(SeriesList { elements: *cursor, count })
}

fn one_series<'a>(cursor: &mut Cursor<'a>) -> Result<Series<'a>, DecodeError> {
    let at = cursor.at();
    let series = match quick::series(cursor) {
        Some(series) => series,
        None => unchecked_series(cursor)?,
    };
    check_series(&series, at)?;
    Ok(series)
}

/// A series that was checked before, read again.
#[inline]
fn known_series<'a>(cursor: &mut Cursor<'a>) -> Option<Series<'a>> {
    quick::series(cursor).or_else(|| unchecked_series(cursor).ok())
}

/// The reference: every field for itself.
#[cold]
pub(crate) fn unchecked_series<'a>(cursor: &mut Cursor<'a>) -> Result<Series<'a>, DecodeError> {
    cursor.array_exact(7, "series")?;
    let signal = cursor.uint_below(1 << 32, "signal")? as u32;
    let offset_us = cursor.uint_below(SERIES_SPAN_US_MAX, "offset_us")?;
    let period_us = cursor.uint_below(SERIES_SPAN_US_MAX, "period_us")?;
    cursor.array_exact(2, "scale")?;
    let scale = Scale { num: scale_part(cursor, "num")?, den: scale_part(cursor, "den")? };
    let values = values(cursor)?;
    let deltas = if cursor.null()? { None } else { Some(deltas(cursor)?) };
    let quality = if cursor.null()? { None } else { Some(quality(cursor)?) };
    Ok(Series { signal, offset_us, period_us, scale, values, deltas, quality })
}

/// What no single field of a series can tell: lengths, spacing, exactness, time span.
fn check_series(series: &Series<'_>, at: usize) -> Result<(), DecodeError> {
    let samples = series.len();
    if samples == 0 {
        return Err(DecodeError::Empty { at });
    }
    if (series.period_us == 0) != series.deltas.is_some() {
        return Err(DecodeError::Spacing { at, period_us: series.period_us });
    }
    let deltas_len = series.deltas.map_or(samples, |deltas| deltas.len());
    let quality_len = series.quality.map_or(samples, <[u8]>::len);
    for (what, len) in [("deltas", deltas_len), ("quality", quality_len)] {
        if len != samples {
            return Err(DecodeError::LengthsDiffer { at, what, len, samples });
        }
    }
    let Scale { num, den } = series.scale;
    if !series.values.is_integer() && series.scale != Scale::ONE {
        return Err(DecodeError::FloatScale { at, num, den });
    }
    let raw = series.values.raw_extreme();
    if raw.unsigned_abs().saturating_mul(u64::from(num)) >= RAW_TIMES_NUM_MAX {
        return Err(DecodeError::NotExact { at, raw, num });
    }
    let span_us = match &series.deltas {
        Some(deltas) => deltas.sum(samples),
        None => series.period_us.saturating_mul(samples as u64 - 1),
    };
    if series.offset_us.saturating_add(span_us) >= SERIES_SPAN_US_MAX {
        return Err(DecodeError::Span { at });
    }
    Ok(())
}

fn scale_part(cursor: &mut Cursor<'_>, what: &'static str) -> Result<u32, DecodeError> {
    let at = cursor.at();
    match cursor.uint_below(SCALE_MAX, what)? {
        0 => Err(DecodeError::OutOfBounds { at, what, value: 0 }),
        value => Ok(value as u32),
    }
}

fn values<'a>(cursor: &mut Cursor<'a>) -> Result<Values<'a>, DecodeError> {
    let (tag, at, bytes) = typed_array(cursor)?;
    Ok(match tag {
        64 => Values::U8(bytes),
        69 => Values::U16(elements(bytes, cursor)?),
        70 => Values::U32(elements(bytes, cursor)?),
        72 => Values::I8(bytes),
        77 => Values::I16(elements(bytes, cursor)?),
        78 => Values::I32(elements(bytes, cursor)?),
        85 => Values::F32(elements(bytes, cursor)?),
        86 => Values::F64(elements(bytes, cursor)?),
        _ => return Err(DecodeError::ArrayTag { at, tag, allowed: VALUE_TAGS }),
    })
}

fn deltas<'a>(cursor: &mut Cursor<'a>) -> Result<Deltas<'a>, DecodeError> {
    let (tag, at, bytes) = typed_array(cursor)?;
    Ok(match tag {
        64 => Deltas::U8(bytes),
        69 => Deltas::U16(elements(bytes, cursor)?),
        70 => Deltas::U32(elements(bytes, cursor)?),
        _ => return Err(DecodeError::ArrayTag { at, tag, allowed: UNSIGNED_TAGS }),
    })
}

fn quality<'a>(cursor: &mut Cursor<'a>) -> Result<&'a [u8], DecodeError> {
    match typed_array(cursor)? {
        (64, _, bytes) => Ok(bytes),
        (tag, at, _) => Err(DecodeError::ArrayTag { at, tag, allowed: "64" }),
    }
}

/// A tag and the byte string under it: `(tag, offset of the tag, bytes)`.
fn typed_array<'a>(cursor: &mut Cursor<'a>) -> Result<(u64, usize, &'a [u8]), DecodeError> {
    let tag = cursor.expect(major::TAG, "a typed array")?;
    let len = cursor.expect(major::BYTES, "a byte string (typed array)")?.argument;
    Ok((tag.argument, tag.at, cursor.take(len)?))
}

/// The bytes just read, as elements of `WIDTH` bytes.
fn elements<'a, const WIDTH: usize>(
    bytes: &'a [u8],
    after: &Cursor<'_>,
) -> Result<&'a [[u8; WIDTH]], DecodeError> {
    match bytes.as_chunks::<WIDTH>() {
        (elements, []) => Ok(elements),
        _ => Err(DecodeError::Ragged { at: after.at() - bytes.len(), bytes: bytes.len(), width: WIDTH }),
    }
}
