//! The readings of a frame, borrowed from its bytes: nothing is copied and nothing is converted until asked for.
//!
//! A [`Series`] comes only out of a parsed frame, so its lengths, scale and times are known to fit. It does not know
//! whether its signal exists or its values are plausible.

/// `value = (raw * num) / den`, both in `1..2^31`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Scale {
    /// Numerator.
    pub num: u32,
    /// Denominator.
    pub den: u32,
}

impl Scale {
    /// The scale that changes nothing; floats always have it.
    pub const ONE: Scale = Scale { num: 1, den: 1 };

    /// `(raw * num) / den` in f64. Exact before the division for every raw a frame may hold with this scale.
    pub fn apply(self, raw: i64) -> f64 {
        (raw as f64 * f64::from(self.num)) / f64::from(self.den)
    }
}

/// A typed array of RFC 8746, little-endian elements as they lie in the frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Values<'a> {
    /// Tag 64.
    U8(&'a [u8]),
    /// Tag 69.
    U16(&'a [[u8; 2]]),
    /// Tag 70.
    U32(&'a [[u8; 4]]),
    /// Tag 72.
    I8(&'a [u8]),
    /// Tag 77.
    I16(&'a [[u8; 2]]),
    /// Tag 78.
    I32(&'a [[u8; 4]]),
    /// Tag 85.
    F32(&'a [[u8; 4]]),
    /// Tag 86.
    F64(&'a [[u8; 8]]),
}

impl<'a> Values<'a> {
    /// How many samples.
    pub const fn len(&self) -> usize {
        match self {
            Values::U8(slice) | Values::I8(slice) => slice.len(),
            Values::U16(slice) | Values::I16(slice) => slice.len(),
            Values::U32(slice) | Values::I32(slice) | Values::F32(slice) => slice.len(),
            Values::F64(slice) => slice.len(),
        }
    }

    /// Whether there is no sample; never so in a parsed frame.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the elements are integers, so that [`Values::raw_i64`] answers.
    pub const fn is_integer(&self) -> bool {
        !matches!(self, Values::F32(_) | Values::F64(_))
    }

    /// The integer at `index`, unscaled; `None` for floats and past the end.
    pub fn raw_i64(&self, index: usize) -> Option<i64> {
        match self {
            Values::U8(slice) => slice.get(index).map(|b| i64::from(*b)),
            Values::U16(slice) => slice.get(index).map(|b| i64::from(u16::from_le_bytes(*b))),
            Values::U32(slice) => slice.get(index).map(|b| i64::from(u32::from_le_bytes(*b))),
            Values::I8(slice) => slice.get(index).map(|b| i64::from(b.cast_signed())),
            Values::I16(slice) => slice.get(index).map(|b| i64::from(i16::from_le_bytes(*b))),
            Values::I32(slice) => slice.get(index).map(|b| i64::from(i32::from_le_bytes(*b))),
            Values::F32(_) | Values::F64(_) => None,
        }
    }

    /// The float at `index`; `None` for integers and past the end. An f32 widens without change of value.
    pub fn real(&self, index: usize) -> Option<f64> {
        match self {
            Values::F32(slice) => slice.get(index).map(|b| f64::from(f32::from_le_bytes(*b))),
            Values::F64(slice) => slice.get(index).map(|b| f64::from_le_bytes(*b)),
            _ => None,
        }
    }

    /// Appends every integer, unscaled, and gives `true`; floats append nothing. One pass over the slice: for columns.
    pub fn extend_raw(&self, out: &mut Vec<i64>) -> bool {
        match self {
            Values::U8(slice) => out.extend(slice.iter().map(|b| i64::from(*b))),
            Values::U16(slice) => out.extend(slice.iter().map(|b| i64::from(u16::from_le_bytes(*b)))),
            Values::U32(slice) => out.extend(slice.iter().map(|b| i64::from(u32::from_le_bytes(*b)))),
            Values::I8(slice) => out.extend(slice.iter().map(|b| i64::from(b.cast_signed()))),
            Values::I16(slice) => out.extend(slice.iter().map(|b| i64::from(i16::from_le_bytes(*b)))),
            Values::I32(slice) => out.extend(slice.iter().map(|b| i64::from(i32::from_le_bytes(*b)))),
            Values::F32(_) | Values::F64(_) => return false,
        }
        true
    }

    /// Appends every float and gives `true`; integers append nothing. One pass over the slice: for columns.
    pub fn extend_real(&self, out: &mut Vec<f64>) -> bool {
        match self {
            Values::F32(slice) => out.extend(slice.iter().map(|b| f64::from(f32::from_le_bytes(*b)))),
            Values::F64(slice) => out.extend(slice.iter().map(|b| f64::from_le_bytes(*b))),
            _ => return false,
        }
        true
    }

    /// The typed array tag.
    pub const fn tag(&self) -> u8 {
        match self {
            Values::U8(_) => 64,
            Values::U16(_) => 69,
            Values::U32(_) => 70,
            Values::I8(_) => 72,
            Values::I16(_) => 77,
            Values::I32(_) => 78,
            Values::F32(_) => 85,
            Values::F64(_) => 86,
        }
    }

    /// The elements as they lie in the frame.
    pub const fn as_bytes(&self) -> &'a [u8] {
        match self {
            Values::U8(slice) | Values::I8(slice) => slice,
            Values::U16(slice) | Values::I16(slice) => slice.as_flattened(),
            Values::U32(slice) | Values::I32(slice) | Values::F32(slice) => slice.as_flattened(),
            Values::F64(slice) => slice.as_flattened(),
        }
    }

    /// The lowest and the highest integer; `None` for floats and for nothing.
    pub fn raw_range(&self) -> Option<(i64, i64)> {
        fn range<T: Copy>(values: &[T], read: impl Fn(T) -> i64) -> Option<(i64, i64)> {
            let (first, rest) = values.split_first()?;
            let first = read(*first);
            // A plain fold, so that the compiler compares many at a time.
            Some(rest.iter().fold((first, first), |(low, high), value| {
                let value = read(*value);
                (low.min(value), high.max(value))
            }))
        }
        match self {
            Values::U8(slice) => range(slice, i64::from),
            Values::U16(slice) => range(slice, |b| i64::from(u16::from_le_bytes(b))),
            Values::U32(slice) => range(slice, |b| i64::from(u32::from_le_bytes(b))),
            Values::I8(slice) => range(slice, |b: u8| i64::from(b.cast_signed())),
            Values::I16(slice) => range(slice, |b| i64::from(i16::from_le_bytes(b))),
            Values::I32(slice) => range(slice, |b| i64::from(i32::from_le_bytes(b))),
            Values::F32(_) | Values::F64(_) => None,
        }
    }

    /// The raw integer of greatest magnitude; 0 for floats. Looks at each 32-bit element, bounds the narrow ones
    /// by their type.
    pub(crate) fn raw_extreme(&self) -> i64 {
        match self {
            Values::U8(_) | Values::I8(_) => i64::from(u8::MAX),
            Values::U16(_) | Values::I16(_) => i64::from(u16::MAX),
            Values::U32(slice) => {
                i64::from(slice.iter().map(|b| u32::from_le_bytes(*b)).max().unwrap_or_default())
            }
            Values::I32(slice) => {
                let magnitudes = slice.iter().map(|b| i32::from_le_bytes(*b).unsigned_abs());
                i64::from(magnitudes.max().unwrap_or_default())
            }
            Values::F32(_) | Values::F64(_) => 0,
        }
    }
}

/// Microseconds between irregular samples: an unsigned typed array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deltas<'a> {
    /// Tag 64.
    U8(&'a [u8]),
    /// Tag 69.
    U16(&'a [[u8; 2]]),
    /// Tag 70.
    U32(&'a [[u8; 4]]),
}

impl<'a> Deltas<'a> {
    /// How many.
    pub const fn len(&self) -> usize {
        match self {
            Deltas::U8(slice) => slice.len(),
            Deltas::U16(slice) => slice.len(),
            Deltas::U32(slice) => slice.len(),
        }
    }

    /// Whether there is none; never so in a parsed frame.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The delta at `index` in microseconds; `None` past the end.
    pub fn get(&self, index: usize) -> Option<u32> {
        match self {
            Deltas::U8(slice) => slice.get(index).map(|b| u32::from(*b)),
            Deltas::U16(slice) => slice.get(index).map(|b| u32::from(u16::from_le_bytes(*b))),
            Deltas::U32(slice) => slice.get(index).map(|b| u32::from_le_bytes(*b)),
        }
    }

    /// Sum of the first `count` deltas. At most 65,536 of 32 bits each, so it cannot wrap.
    pub fn sum(&self, count: usize) -> u64 {
        match self {
            Deltas::U8(slice) => slice.iter().take(count).map(|b| u64::from(*b)).sum(),
            Deltas::U16(slice) => slice.iter().take(count).map(|b| u64::from(u16::from_le_bytes(*b))).sum(),
            Deltas::U32(slice) => slice.iter().take(count).map(|b| u64::from(u32::from_le_bytes(*b))).sum(),
        }
    }

    /// The typed array tag.
    pub const fn tag(&self) -> u8 {
        match self {
            Deltas::U8(_) => 64,
            Deltas::U16(_) => 69,
            Deltas::U32(_) => 70,
        }
    }

    /// The elements as they lie in the frame.
    pub const fn as_bytes(&self) -> &'a [u8] {
        match self {
            Deltas::U8(slice) => slice,
            Deltas::U16(slice) => slice.as_flattened(),
            Deltas::U32(slice) => slice.as_flattened(),
        }
    }
}

/// One signal's samples in one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Series<'a> {
    /// Signal id of the registry; may be one that nobody knows.
    pub signal: u32,
    /// From the frame's t0 to the first sample (regular) or to where the deltas start (irregular), microseconds.
    pub offset_us: u64,
    /// Spacing of regular samples in microseconds; 0 when irregular.
    pub period_us: u64,
    /// Turns raw integers into values.
    pub scale: Scale,
    /// The samples, at least one.
    pub values: Values<'a>,
    /// Spacing of irregular samples, one per sample; `None` when regular.
    pub deltas: Option<Deltas<'a>>,
    /// One quality byte per sample, if the device sends them.
    pub quality: Option<&'a [u8]>,
}

impl<'a> Series<'a> {
    /// How many samples, at least one.
    pub const fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there is no sample; never so in a parsed frame.
    pub const fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The value of sample `index`: the float, or `(raw * num) / den` in f64. NaN past the end.
    pub fn value(&self, index: usize) -> f64 {
        match self.values.raw_i64(index) {
            Some(raw) => self.scale.apply(raw),
            None => self.values.real(index).unwrap_or(f64::NAN),
        }
    }

    /// When sample `index` was taken, given the frame's t0, in microseconds since 1970 UTC. Saturates at the ends
    /// of i64. For irregular series this sums `index + 1` deltas: walk [`Series::samples`] to see them all.
    pub fn ts_us(&self, index: usize, t0_us: i64) -> i64 {
        let after = match &self.deltas {
            Some(deltas) => deltas.sum(index.saturating_add(1)),
            None => self.period_us.saturating_mul(index as u64),
        };
        t0_us.saturating_add_unsigned(self.offset_us.saturating_add(after))
    }

    /// When the last sample was taken; see [`Series::ts_us`].
    pub fn ts_last_us(&self, t0_us: i64) -> i64 {
        self.ts_us(self.len().saturating_sub(1), t0_us)
    }

    /// Appends when each sample was taken, given the frame's t0: what [`Series::samples`] gives, for columns.
    pub fn extend_ts_us(&self, t0_us: i64, out: &mut Vec<i64>) {
        let (count, last) = (self.len() as u64, self.ts_last_us(t0_us));
        let is_near = self.deltas.is_none() && last < i64::MAX && self.offset_us <= i64::MAX as u64;
        let (Some(first), Ok(period_us)) =
            (t0_us.checked_add_unsigned(self.offset_us).filter(|_| is_near), i64::try_from(self.period_us))
        else {
            out.extend(self.samples(t0_us).map(|(ts_us, _, _)| ts_us));
            return;
        };
        // No sum saturates: the last one is the largest, and it did not.
        out.extend((0..count).map(|index| first.wrapping_add(period_us.wrapping_mul(index.cast_signed()))));
    }

    /// Every sample in order as `(ts_us, value, quality)`, given the frame's t0.
    pub fn samples(&self, t0_us: i64) -> Samples<'a> {
        Samples { series: *self, t0_us, index: 0, after_us: self.offset_us }
    }
}

/// Iterator of [`Series::samples`].
#[derive(Debug, Clone)]
pub struct Samples<'a> {
    series: Series<'a>,
    t0_us: i64,
    index: usize,
    after_us: u64,
}

impl Iterator for Samples<'_> {
    type Item = (i64, f64, Option<u8>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.index >= self.series.len() {
            return None;
        }
        let step_us = match &self.series.deltas {
            Some(deltas) => u64::from(deltas.get(self.index)?),
            None if self.index == 0 => 0,
            None => self.series.period_us,
        };
        self.after_us = self.after_us.saturating_add(step_us);
        let quality = self.series.quality.and_then(|quality| quality.get(self.index).copied());
        let sample =
            (self.t0_us.saturating_add_unsigned(self.after_us), self.series.value(self.index), quality);
        self.index += 1;
        Some(sample)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.series.len().saturating_sub(self.index);
        (left, Some(left))
    }
}

impl ExactSizeIterator for Samples<'_> {}
