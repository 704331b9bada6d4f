//! The bytes of a signed frame from its rows: what the device signed is deterministic, so the readings need not be kept
//! twice. What rows do not say (widths, order, scale) is the frame's *shape*, the same for most frames of a device model.
//!
//! A frame is only kept this way if [`shape_of`] has seen its very bytes come out again.
//!
//! ```text
//! shape  = alg u8 | series...
//! series = signal u16 | values tag u8 | deltas tag u8 (0 = regular) | has quality u8 | num u32 | den u32
//!          | regular: period_us u64, irregular: first delta u32         (little-endian)
//! ```

use schemas_frame::{
    Alg, Frame, FrameBuilder, OutDeltas, OutSeries, OutValues, Scale, Series, Values, assemble,
};
use schemas_identity::{BootId, ShortId};

use crate::rows::is_wave;

/// Bytes of a series of a shape.
const SERIES_SHAPE_BYTES_MAX: usize = 2 + 3 + 8 + 8;

/// What a rebuilt frame takes from the frames file.
pub(crate) struct Head<'a> {
    pub(crate) kid: ShortId,
    pub(crate) boot: BootId,
    pub(crate) seq: u64,
    pub(crate) prev: [u8; 16],
    pub(crate) wall_us: Option<i64>,
    pub(crate) mono_us: u64,
    pub(crate) t0_us: i64,
    pub(crate) shape: &'a [u8],
    pub(crate) signature: [u8; 64],
}

/// One series as its rows have it.
#[derive(Debug, Default)]
pub(crate) struct Readings {
    /// Of each sample; a waveform has the first only.
    pub(crate) ts_us: Vec<i64>,
    pub(crate) raw: Vec<i64>,
    pub(crate) real: Vec<f64>,
    pub(crate) quality: Vec<u8>,
}

impl Readings {
    pub(crate) fn clear(&mut self) {
        self.ts_us.clear();
        self.raw.clear();
        self.real.clear();
        self.quality.clear();
    }

    /// What the rows of this series will hold.
    fn take(&mut self, series: &Series<'_>, t0_us: i64) {
        self.clear();
        match is_wave(series) {
            Some(true) => self.ts_us.push(series.ts_us(0, t0_us)),
            _ => series.extend_ts_us(t0_us, &mut self.ts_us),
        }
        series.values.extend_raw(&mut self.raw);
        series.values.extend_real(&mut self.real);
        self.quality.extend_from_slice(series.quality.unwrap_or_default());
    }
}

/// The shape of a frame that its rows give back byte for byte; `None` for any other one (an unknown key or signal, a signal
/// that comes twice, times beyond the calendar, NaNs with a payload), which keeps its bytes.
pub(crate) fn shape_of(frame: &Frame<'_>, t0_us: i64) -> Option<Vec<u8>> {
    let mut all: Vec<Series<'_>> = Vec::with_capacity(frame.series_len());
    let mut shape = Vec::with_capacity(1 + SERIES_SHAPE_BYTES_MAX * frame.series_len());
    shape.push(frame.alg().initial());
    for series in frame.series() {
        is_wave(&series)?;
        if all.iter().any(|before| before.signal == series.signal) {
            return None;
        }
        describe(&series, &mut shape)?;
        all.push(series);
    }
    let head = Head {
        kid: frame.kid(),
        boot: frame.boot(),
        seq: frame.seq(),
        prev: frame.prev(),
        wall_us: frame.wall_us(),
        mono_us: frame.mono_us(),
        t0_us,
        shape: &shape,
        signature: *frame.signature(),
    };
    let mut given = all.iter();
    let rebuilt = rebuild(&head, &mut |_, readings| {
        if let Some(series) = given.next() {
            readings.take(series, t0_us);
        }
    })?;
    (rebuilt == frame.bytes()).then_some(shape)
}

fn describe(series: &Series<'_>, shape: &mut Vec<u8>) -> Option<()> {
    shape.extend(u16::try_from(series.signal).ok()?.to_le_bytes());
    shape.push(series.values.tag());
    shape.push(series.deltas.map_or(0, |deltas| deltas.tag()));
    shape.push(u8::from(series.quality.is_some()));
    shape.extend(series.scale.num.to_le_bytes());
    shape.extend(series.scale.den.to_le_bytes());
    match series.deltas {
        None => shape.extend(series.period_us.to_le_bytes()),
        Some(deltas) => shape.extend(deltas.get(0)?.to_le_bytes()),
    }
    Some(())
}

/// The frame of a head and its series' rows, which `read` puts in by signal, in the order of the shape. `None` if they do
/// not make a frame; whether they make the right one, its leaf tells.
pub(crate) fn rebuild(head: &Head<'_>, read: &mut dyn FnMut(u16, &mut Readings)) -> Option<Vec<u8>> {
    let (alg, mut rest) = head.shape.split_first()?;
    let mut builder = FrameBuilder::new(head.boot, head.seq, head.prev, head.wall_us, head.mono_us);
    builder.alg = [Alg::EdDsa, Alg::Ed25519].into_iter().find(|known| known.initial() == *alg)?;
    let mut readings = Readings::default();
    while !rest.is_empty() {
        let signal = u16::from_le_bytes(take(&mut rest)?);
        readings.clear();
        read(signal, &mut readings);
        builder.series.push(series(u32::from(signal), &mut rest, head.t0_us, &readings)?);
    }
    Some(assemble(builder.alg, head.kid, &builder.payload(), &head.signature))
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (first, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(*first)
}

fn series(signal: u32, rest: &mut &[u8], t0_us: i64, readings: &Readings) -> Option<OutSeries> {
    let [values_tag, deltas_tag, has_quality] = take(rest)?;
    let scale = Scale { num: u32::from_le_bytes(take(rest)?), den: u32::from_le_bytes(take(rest)?) };
    let first_us = readings.ts_us.first()?.checked_sub(t0_us)?;
    let (offset_us, period_us, deltas) = match deltas_tag {
        0 => (u64::try_from(first_us).ok()?, u64::from_le_bytes(take(rest)?), None),
        tag => {
            let first_delta = u32::from_le_bytes(take(rest)?);
            let offset_us = first_us.checked_sub(i64::from(first_delta))?;
            (u64::try_from(offset_us).ok()?, 0, Some(deltas(tag, first_delta, &readings.ts_us)?))
        }
    };
    Some(OutSeries {
        signal,
        offset_us,
        period_us,
        scale,
        values: values(values_tag, readings)?,
        deltas,
        quality: (has_quality != 0).then(|| readings.quality.clone()),
    })
}

/// The numbers in a narrower type, if each of them fits.
fn narrow<T: Copy + Into<i64>>(raws: &[i64], cut: impl Fn(i64) -> T) -> Option<Vec<T>> {
    let narrowed: Vec<T> = raws.iter().map(|raw| cut(*raw)).collect();
    // Without a branch per number, so that the compiler looks at many at a time.
    let is_same =
        narrowed.iter().zip(raws).fold(true, |same, (narrow, raw)| same & ((*narrow).into() == *raw));
    is_same.then_some(narrowed)
}

fn values(tag: u8, readings: &Readings) -> Option<OutValues> {
    let raw = &readings.raw;
    Some(match tag {
        tag if tag == Values::U8(&[]).tag() => OutValues::U8(narrow(raw, |raw| raw as u8)?),
        tag if tag == Values::U16(&[]).tag() => OutValues::U16(narrow(raw, |raw| raw as u16)?),
        tag if tag == Values::U32(&[]).tag() => OutValues::U32(narrow(raw, |raw| raw as u32)?),
        tag if tag == Values::I8(&[]).tag() => OutValues::I8(narrow(raw, |raw| raw as i8)?),
        tag if tag == Values::I16(&[]).tag() => OutValues::I16(narrow(raw, |raw| raw as i16)?),
        tag if tag == Values::I32(&[]).tag() => OutValues::I32(narrow(raw, |raw| raw as i32)?),
        tag if tag == Values::F32(&[]).tag() => {
            // Widened from f32 before, so nothing is lost.
            #[expect(clippy::cast_possible_truncation, reason = "the value was an f32")]
            OutValues::F32(readings.real.iter().map(|real| *real as f32).collect())
        }
        tag if tag == Values::F64(&[]).tag() => OutValues::F64(readings.real.clone()),
        _ => return None,
    })
}

fn deltas(tag: u8, first: u32, ts_us: &[i64]) -> Option<OutDeltas> {
    let mut steps = Vec::with_capacity(ts_us.len());
    steps.push(i64::from(first));
    for pair in ts_us.windows(2) {
        steps.push(pair[1].checked_sub(pair[0])?);
    }
    Some(match tag {
        64 => OutDeltas::U8(narrow(&steps, |step| step as u8)?),
        69 => OutDeltas::U16(narrow(&steps, |step| step as u16)?),
        70 => OutDeltas::U32(narrow(&steps, |step| step as u32)?),
        _ => return None,
    })
}
