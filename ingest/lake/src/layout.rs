//! The order of a batch: frames by device, boot and sequence number (their leaves), samples by device, signal, time and
//! leaf (their files). Rows come out in slices, so that a batch costs memory for one slice, not for all its samples.
//!
//! Series are sorted, not samples: those of one signal rarely overlap in time, and where they do they are merged.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;

use arrow::array::RecordBatch;
use schemas_frame::{DecodeError, Frame, Series};

use crate::rows::{Columns, Scalars, Source, Waves, is_wave};
use crate::{Admitted, LakeError};

/// Samples of a slice, give or take one series.
const SLICE_SAMPLES: usize = 16 << 10;
/// Samples of waveforms in a slice, give or take one series.
const SLICE_WAVE_SAMPLES: usize = 128 << 10;

/// A frame at its leaf.
#[derive(Clone, Copy)]
pub(crate) struct Leaf<'a> {
    pub(crate) admitted: &'a Admitted,
    pub(crate) frame: Frame<'a>,
}

/// One series of a frame, and when it was measured.
struct Ref {
    device: u32,
    signal: u32,
    first_us: i64,
    last_us: i64,
    /// Place of its frame in the layout, which is the order of the leaves.
    leaf: u32,
    /// Place in the frame's bytes.
    at: u32,
    samples: u32,
}

/// The frames of a batch, or of some leaves of a batch or a set, in order.
pub(crate) struct Layout<'a> {
    pub(crate) leaves: Vec<Leaf<'a>>,
    /// Number of each leaf in the files; rising.
    numbers: Vec<u32>,
    scalars: Vec<Ref>,
    waves: Vec<Ref>,
}

/// What takes slices of rows.
pub(crate) type Take<'a> = dyn FnMut(RecordBatch) -> Result<(), LakeError> + 'a;

impl<'a> Layout<'a> {
    /// Frames in any order; the first one in order becomes leaf 0.
    ///
    /// # Errors
    /// If bytes are no frame, which those of a verified one are.
    pub(crate) fn new(frames: impl Iterator<Item = &'a Admitted>) -> Result<Layout<'a>, LakeError> {
        let mut leaves = parse(frames, Frame::parse_known)?;
        leaves.sort_by_cached_key(|leaf| {
            (leaf.admitted.device, leaf.frame.boot(), leaf.frame.seq(), leaf.admitted.position)
        });
        let numbers = (0..).take(leaves.len()).collect();
        Ok(Layout::indexed(leaves, numbers))
    }

    /// Frames of leaves whose numbers are known and rise. They come from files, which anybody may have changed.
    ///
    /// # Errors
    /// As [`Layout::new`].
    pub(crate) fn numbered(
        frames: impl Iterator<Item = &'a Admitted>,
        numbers: Vec<u32>,
    ) -> Result<Layout<'a>, LakeError> {
        Ok(Layout::indexed(parse(frames, Frame::parse)?, numbers))
    }

    /// Whether frames rise by device, boot and sequence number within each part, leaves of one batch.
    pub(crate) fn is_in_order(&self, parts: &[Range<u32>]) -> bool {
        let key = |leaf: &Leaf<'_>| (leaf.admitted.device, leaf.frame.boot(), leaf.frame.seq());
        let mut rest = self.leaves.as_slice();
        parts.iter().all(|part| {
            let (leaves, after) = rest.split_at(part.len().min(rest.len()));
            rest = after;
            leaves.is_sorted_by_key(key)
        })
    }

    fn indexed(leaves: Vec<Leaf<'a>>, numbers: Vec<u32>) -> Layout<'a> {
        // Room that is not used is never touched, and costs nothing.
        let series = leaves.iter().map(|leaf| leaf.frame.series_len()).sum();
        let (scalars, waves) = (Vec::with_capacity(series), Vec::with_capacity(series));
        let mut layout = Layout { leaves, numbers, scalars, waves };
        layout.index();
        layout
    }

    fn index(&mut self) {
        for (leaf, number) in self.leaves.iter().zip(0..) {
            let t0_us = leaf.admitted.t0_us;
            for (at, series) in leaf.frame.series_places() {
                let Some(is_wave) = is_wave(&series) else { continue };
                let found = Ref {
                    device: leaf.admitted.device,
                    signal: series.signal,
                    first_us: series.ts_us(0, t0_us),
                    last_us: series.ts_last_us(t0_us),
                    leaf: number,
                    at,
                    samples: series.len() as u32,
                };
                if is_wave { self.waves.push(found) } else { self.scalars.push(found) }
            }
        }
        sort(&mut self.scalars);
        sort(&mut self.waves);
    }

    fn source(&self, found: &Ref) -> Option<(Source<'a>, Series<'a>)> {
        let leaf = self.leaves.get(found.leaf as usize)?;
        let source = Source::new(leaf.admitted, &leaf.frame, *self.numbers.get(found.leaf as usize)?);
        Some((source, leaf.frame.series_at(found.at)?))
    }

    /// Rows of samples, in order, as files have them.
    pub(crate) fn scalar_slices(&self, take: &mut Take<'_>) -> Result<(), LakeError> {
        let mut slice = Scalars::with_capacity(Columns::Stored, SLICE_SAMPLES.min(self.samples()));
        let mut from = 0;
        while from < self.scalars.len() {
            let cluster = self.cluster(from);
            from = cluster.end;
            match self.scalars.get(cluster).unwrap_or_default() {
                [alone] => {
                    let (source, series) = self.source(alone).ok_or_else(|| lost(alone))?;
                    slice.push(&source, &series);
                }
                many => self.merge(many, &mut slice, take)?,
            }
            flush_full(&mut slice, take)?;
        }
        if slice.len() > 0 { take(slice.finish()?) } else { Ok(()) }
    }

    fn samples(&self) -> usize {
        self.scalars.iter().map(|one| one.samples as usize).sum()
    }

    /// The longest run from `from` on of series of one device and signal that overlap in time, directly or by others.
    fn cluster(&self, from: usize) -> Range<usize> {
        let Some(first) = self.scalars.get(from) else { return from..from };
        let mut last_us = first.last_us;
        let mut to = from + 1;
        while let Some(next) = self.scalars.get(to) {
            if (next.device, next.signal) != (first.device, first.signal) || next.first_us > last_us {
                break;
            }
            last_us = last_us.max(next.last_us);
            to += 1;
        }
        from..to
    }

    /// Samples of overlapping series by (time, leaf), those of one series in their own order.
    fn merge(&self, many: &[Ref], slice: &mut Scalars, take: &mut Take<'_>) -> Result<(), LakeError> {
        let mut open = Vec::with_capacity(many.len());
        for found in many {
            let Some((source, series)) = self.source(found) else { return Err(lost(found)) };
            let times = series.samples(source.t0_us()).map(|(ts_us, _, _)| ts_us).enumerate().peekable();
            open.push((source, series, times));
        }
        let mut next = BinaryHeap::with_capacity(open.len());
        for (index, ((_, _, times), found)) in open.iter_mut().zip(many).enumerate() {
            if let Some((_, ts_us)) = times.peek() {
                next.push(Reverse((*ts_us, found.leaf, index)));
            }
        }
        while let Some(Reverse((_, leaf, index))) = next.pop() {
            let Some((source, series, times)) = open.get_mut(index) else { continue };
            if let Some((at, ts_us)) = times.next() {
                slice.push_sample(source, series, at, ts_us);
            }
            if let Some((_, ts_us)) = times.peek() {
                next.push(Reverse((*ts_us, leaf, index)));
            }
            flush_full(slice, take)?;
        }
        Ok(())
    }

    /// Rows of waveforms, in order, as files have them.
    pub(crate) fn wave_slices(&self, take: &mut Take<'_>) -> Result<(), LakeError> {
        let (mut slice, mut samples) = (Waves::new(Columns::Stored), 0);
        for found in &self.waves {
            let (source, series) = self.source(found).ok_or_else(|| lost(found))?;
            slice.push(&source, &series);
            samples += found.samples as usize;
            if samples >= SLICE_WAVE_SAMPLES {
                take(std::mem::replace(&mut slice, Waves::new(Columns::Stored)).finish()?)?;
                samples = 0;
            }
        }
        if samples > 0 { take(slice.finish()?) } else { Ok(()) }
    }
}

/// By device, signal, time and leaf. Leaves of one batch come by device, so that only small sorts are left.
fn sort(refs: &mut [Ref]) {
    if !refs.is_sorted_by_key(|one| one.device) {
        refs.sort_by_key(|one| one.device);
    }
    for device in refs.chunk_by_mut(|one, next| one.device == next.device) {
        device.sort_unstable_by_key(|one| (one.signal, one.first_us, one.leaf, one.at));
    }
}

fn parse<'a>(
    frames: impl Iterator<Item = &'a Admitted>,
    read: impl Fn(&'a [u8]) -> Result<Frame<'a>, DecodeError>,
) -> Result<Vec<Leaf<'a>>, LakeError> {
    let mut leaves = Vec::new();
    for admitted in frames {
        let frame = read(&admitted.frame).map_err(|error| LakeError::Frame { problem: error.to_string() })?;
        leaves.push(Leaf { admitted, frame });
    }
    Ok(leaves)
}

fn flush_full(slice: &mut Scalars, take: &mut Take<'_>) -> Result<(), LakeError> {
    if slice.len() < SLICE_SAMPLES {
        return Ok(());
    }
    let full = std::mem::replace(slice, Scalars::with_capacity(Columns::Stored, SLICE_SAMPLES));
    take(full.finish()?)
}

/// Cannot happen: the place was read from these very bytes.
fn lost(found: &Ref) -> LakeError {
    LakeError::Frame { problem: format!("no series of signal {} where one was read before", found.signal) }
}
