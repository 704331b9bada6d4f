//! A device's side: fields to signed bytes, always the one deterministic encoding.
//!
//! The encoder holds no rules of its own. It writes, then reads its own bytes back through [`Frame::parse`], so a
//! frame that leaves here is one that the other side accepts. For tests and tools; devices are in `deploy/sdk`.

use schemas_identity::{BootId, SecretKey, ShortId};

use crate::cbor::{NULL, major};
use crate::parse::{
    Alg, DecodeError, Frame, PROTECTED_BYTES, TAG_SIGN1, UNPROTECTED_EMPTY, protected_bytes, signed_message,
};
use crate::series::{Deltas, Scale, Series, Values};

/// The fields given make no frame; the reason is the one the receiver would give.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("these fields make no frame")]
pub struct EncodeError(#[from] pub DecodeError);

/// Values to send, in the width they are sent in.
#[derive(Debug, Clone, PartialEq)]
pub enum OutValues {
    /// Tag 64.
    U8(Vec<u8>),
    /// Tag 69.
    U16(Vec<u16>),
    /// Tag 70.
    U32(Vec<u32>),
    /// Tag 72.
    I8(Vec<i8>),
    /// Tag 77.
    I16(Vec<i16>),
    /// Tag 78.
    I32(Vec<i32>),
    /// Tag 85.
    F32(Vec<f32>),
    /// Tag 86.
    F64(Vec<f64>),
}

impl OutValues {
    /// Integers in the narrowest width that holds them all; `None` if they need more than 32 bits.
    pub fn narrowest(raws: &[i64]) -> Option<OutValues> {
        cast(raws, OutValues::U8)
            .or_else(|| cast(raws, OutValues::I8))
            .or_else(|| cast(raws, OutValues::U16))
            .or_else(|| cast(raws, OutValues::I16))
            .or_else(|| cast(raws, OutValues::U32))
            .or_else(|| cast(raws, OutValues::I32))
    }

    /// How many samples.
    pub fn len(&self) -> usize {
        match self {
            OutValues::U8(v) => v.len(),
            OutValues::U16(v) => v.len(),
            OutValues::U32(v) => v.len(),
            OutValues::I8(v) => v.len(),
            OutValues::I16(v) => v.len(),
            OutValues::I32(v) => v.len(),
            OutValues::F32(v) => v.len(),
            OutValues::F64(v) => v.len(),
        }
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        match self {
            OutValues::U8(v) => typed_array(out, 64, v.iter().map(|e| [*e])),
            OutValues::U16(v) => typed_array(out, 69, v.iter().map(|e| e.to_le_bytes())),
            OutValues::U32(v) => typed_array(out, 70, v.iter().map(|e| e.to_le_bytes())),
            OutValues::I8(v) => typed_array(out, 72, v.iter().map(|e| e.to_le_bytes())),
            OutValues::I16(v) => typed_array(out, 77, v.iter().map(|e| e.to_le_bytes())),
            OutValues::I32(v) => typed_array(out, 78, v.iter().map(|e| e.to_le_bytes())),
            OutValues::F32(v) => typed_array(out, 85, v.iter().map(|e| e.to_le_bytes())),
            OutValues::F64(v) => typed_array(out, 86, v.iter().map(|e| e.to_le_bytes())),
        }
    }
}

/// Deltas to send, in the width they are sent in, microseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutDeltas {
    /// Tag 64.
    U8(Vec<u8>),
    /// Tag 69.
    U16(Vec<u16>),
    /// Tag 70.
    U32(Vec<u32>),
}

impl OutDeltas {
    /// Deltas in the narrowest width that holds them all.
    pub fn narrowest(deltas: &[u32]) -> OutDeltas {
        if let Ok(narrow) = deltas.iter().map(|d| u8::try_from(*d)).collect() {
            return OutDeltas::U8(narrow);
        }
        if let Ok(narrow) = deltas.iter().map(|d| u16::try_from(*d)).collect() {
            return OutDeltas::U16(narrow);
        }
        OutDeltas::U32(deltas.to_vec())
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            OutDeltas::U8(v) => typed_array(out, 64, v.iter().map(|e| [*e])),
            OutDeltas::U16(v) => typed_array(out, 69, v.iter().map(|e| e.to_le_bytes())),
            OutDeltas::U32(v) => typed_array(out, 70, v.iter().map(|e| e.to_le_bytes())),
        }
    }
}

/// One series to send; the fields are those of [`Series`].
#[derive(Debug, Clone, PartialEq)]
pub struct OutSeries {
    /// Signal id.
    pub signal: u32,
    /// From t0 to the first sample, microseconds.
    pub offset_us: u64,
    /// Sample spacing, microseconds; 0 with `deltas`.
    pub period_us: u64,
    /// Scale of integers; [`Scale::ONE`] for floats.
    pub scale: Scale,
    /// The samples.
    pub values: OutValues,
    /// Spacing of irregular samples, microseconds.
    pub deltas: Option<OutDeltas>,
    /// One quality byte per sample.
    pub quality: Option<Vec<u8>>,
}

impl OutSeries {
    /// A copy of a series read from a frame, with the very same widths.
    pub fn copy_of(series: &Series<'_>) -> OutSeries {
        OutSeries {
            signal: series.signal,
            offset_us: series.offset_us,
            period_us: series.period_us,
            scale: series.scale,
            values: copy_values(&series.values),
            deltas: series.deltas.as_ref().map(copy_deltas),
            quality: series.quality.map(<[u8]>::to_vec),
        }
    }

    /// About how many bytes it takes, for the usual widths.
    fn bytes_hint(&self) -> usize {
        let width = if matches!(self.values, OutValues::U8(_) | OutValues::I8(_)) { 1 } else { 4 };
        64 + self.values.len() * width
    }

    fn write(&self, out: &mut Vec<u8>) {
        head(out, major::ARRAY, 7);
        head(out, major::UINT, u64::from(self.signal));
        head(out, major::UINT, self.offset_us);
        head(out, major::UINT, self.period_us);
        head(out, major::ARRAY, 2);
        head(out, major::UINT, u64::from(self.scale.num));
        head(out, major::UINT, u64::from(self.scale.den));
        self.values.write(out);
        match &self.deltas {
            Some(deltas) => deltas.write(out),
            None => out.push(NULL),
        }
        match &self.quality {
            Some(quality) => typed_array(out, 64, quality.iter().map(|e| [*e])),
            None => out.push(NULL),
        }
    }
}

/// The fields of a frame before it is signed.
#[derive(Debug, Clone, PartialEq)]
pub struct FrameBuilder {
    /// The algorithm to name; both sign the same way.
    pub alg: Alg,
    /// This boot.
    pub boot: BootId,
    /// 0, 1, 2, ... within the boot.
    pub seq: u64,
    /// [`Frame::digest16`] of the frame before.
    pub prev: [u8; 16],
    /// Wall clock at t0, microseconds since 1970 UTC; `None` if never set.
    pub wall_us: Option<i64>,
    /// Monotonic microseconds since boot at t0.
    pub mono_us: u64,
    /// The series so far.
    pub series: Vec<OutSeries>,
}

impl FrameBuilder {
    /// A frame without series yet, algorithm -8.
    pub fn new(boot: BootId, seq: u64, prev: [u8; 16], wall_us: Option<i64>, mono_us: u64) -> FrameBuilder {
        FrameBuilder { alg: Alg::EdDsa, boot, seq, prev, wall_us, mono_us, series: Vec::new() }
    }

    /// A copy of a parsed frame's known fields; unknown payload keys are not carried over.
    pub fn copy_of(frame: &Frame<'_>) -> FrameBuilder {
        FrameBuilder {
            alg: frame.alg(),
            boot: frame.boot(),
            seq: frame.seq(),
            prev: frame.prev(),
            wall_us: frame.wall_us(),
            mono_us: frame.mono_us(),
            series: frame.series().map(|series| OutSeries::copy_of(&series)).collect(),
        }
    }

    /// Adds one series.
    #[must_use]
    pub fn series(mut self, series: OutSeries) -> FrameBuilder {
        self.series.push(series);
        self
    }

    /// The payload's bytes: keys 1 to 6.
    pub fn payload(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + self.series.iter().map(OutSeries::bytes_hint).sum::<usize>());
        head(&mut out, major::MAP, 6);
        out.extend_from_slice(&[1, 0x48]);
        out.extend_from_slice(&self.boot.0);
        out.push(2);
        head(&mut out, major::UINT, self.seq);
        out.extend_from_slice(&[3, 0x50]);
        out.extend_from_slice(&self.prev);
        out.push(4);
        match self.wall_us {
            None => out.push(NULL),
            Some(wall) if wall < 0 => head(&mut out, major::NEGINT, (-1 - wall).cast_unsigned()),
            Some(wall) => head(&mut out, major::UINT, wall.cast_unsigned()),
        }
        out.push(5);
        head(&mut out, major::UINT, self.mono_us);
        out.push(6);
        head(&mut out, major::ARRAY, self.series.len() as u64);
        for series in &self.series {
            series.write(&mut out);
        }
        out
    }

    /// Encodes and signs.
    ///
    /// # Errors
    /// When the fields break a rule of the format; see [`DecodeError`].
    pub fn sign(&self, key: &SecretKey) -> Result<Vec<u8>, EncodeError> {
        let kid = key.public().short_id();
        let bytes = seal(self.alg, kid, &self.payload(), |message| key.sign(message));
        Frame::parse(&bytes)?;
        Ok(bytes)
    }
}

/// Wraps any payload, right or wrong, into a COSE_Sign1 with the signature that `sign` makes of the signed bytes.
///
/// Checks nothing: it exists for vectors, hostile corpora and re-assembly of known signatures.
pub fn seal(alg: Alg, kid: ShortId, payload: &[u8], sign: impl FnOnce(&[u8]) -> [u8; 64]) -> Vec<u8> {
    let protected: [u8; PROTECTED_BYTES] = protected_bytes(alg, kid);
    let mut message = Vec::with_capacity(payload.len() + 64);
    signed_message(&protected, payload, &mut message);
    let signature = sign(&message);
    assemble(alg, kid, payload, &signature)
}

/// As [`seal`], with a signature that is there already.
pub fn assemble(alg: Alg, kid: ShortId, payload: &[u8], signature: &[u8; 64]) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len() + 96);
    out.extend_from_slice(&[TAG_SIGN1, 0x84, 0x40 | PROTECTED_BYTES as u8]);
    out.extend_from_slice(&protected_bytes(alg, kid));
    out.push(UNPROTECTED_EMPTY);
    head(&mut out, major::BYTES, payload.len() as u64);
    out.extend_from_slice(payload);
    out.extend_from_slice(&[0x58, 64]);
    out.extend_from_slice(signature);
    out
}

/// Writes a head in its shortest form.
pub(crate) fn head(out: &mut Vec<u8>, major: u8, argument: u64) {
    let major = major << 5;
    let be = argument.to_be_bytes();
    match argument {
        0..=23 => out.push(major | be[7]),
        24..=0xff => out.extend_from_slice(&[major | 24, be[7]]),
        0x100..=0xffff => out.extend_from_slice(&[major | 25, be[6], be[7]]),
        0x1_0000..=0xffff_ffff => {
            out.push(major | 26);
            out.extend_from_slice(&be[4..]);
        }
        _ => {
            out.push(major | 27);
            out.extend_from_slice(&be);
        }
    }
}

fn typed_array<const WIDTH: usize>(
    out: &mut Vec<u8>,
    tag: u64,
    elements: impl ExactSizeIterator<Item = [u8; WIDTH]>,
) {
    head(out, major::TAG, tag);
    head(out, major::BYTES, (elements.len() * WIDTH) as u64);
    let start = out.len();
    out.resize(start + elements.len() * WIDTH, 0);
    let (places, _) = out.get_mut(start..).unwrap_or_default().as_chunks_mut::<WIDTH>();
    for (place, element) in places.iter_mut().zip(elements) {
        *place = element;
    }
}

fn cast<T: TryFrom<i64>>(raws: &[i64], wrap: fn(Vec<T>) -> OutValues) -> Option<OutValues> {
    let mut narrow = Vec::with_capacity(raws.len());
    for raw in raws {
        narrow.push(T::try_from(*raw).ok()?);
    }
    Some(wrap(narrow))
}

fn copy_values(values: &Values<'_>) -> OutValues {
    match values {
        Values::U8(v) => OutValues::U8(v.to_vec()),
        Values::U16(v) => OutValues::U16(v.iter().map(|b| u16::from_le_bytes(*b)).collect()),
        Values::U32(v) => OutValues::U32(v.iter().map(|b| u32::from_le_bytes(*b)).collect()),
        Values::I8(v) => OutValues::I8(v.iter().map(|b| b.cast_signed()).collect()),
        Values::I16(v) => OutValues::I16(v.iter().map(|b| i16::from_le_bytes(*b)).collect()),
        Values::I32(v) => OutValues::I32(v.iter().map(|b| i32::from_le_bytes(*b)).collect()),
        Values::F32(v) => OutValues::F32(v.iter().map(|b| f32::from_le_bytes(*b)).collect()),
        Values::F64(v) => OutValues::F64(v.iter().map(|b| f64::from_le_bytes(*b)).collect()),
    }
}

fn copy_deltas(deltas: &Deltas<'_>) -> OutDeltas {
    match deltas {
        Deltas::U8(v) => OutDeltas::U8(v.to_vec()),
        Deltas::U16(v) => OutDeltas::U16(v.iter().map(|b| u16::from_le_bytes(*b)).collect()),
        Deltas::U32(v) => OutDeltas::U32(v.iter().map(|b| u32::from_le_bytes(*b)).collect()),
    }
}
