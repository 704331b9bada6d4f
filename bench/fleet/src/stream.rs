//! Columns of samples cut into frames: one device stream for all sensors of a person.

use schemas_frame::{Frame, FrameBuilder, OutDeltas, OutSeries, OutValues, Scale};
use schemas_identity::{BootId, SecretKey};

use crate::FleetError;
use crate::decimal::{self, Decimal};

/// Most samples of one series of one frame; keeps every frame far below 64 KiB.
const SERIES_SAMPLES_MAX: usize = 8_192;

/// When the samples of a column were taken, microseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Times {
    /// A fixed rate.
    Regular {
        /// First sample.
        start_us: i64,
        /// Spacing.
        period_us: u64,
    },
    /// One moment per sample, not decreasing.
    Irregular(Vec<i64>),
}

/// One signal of a recording.
#[derive(Debug, Clone)]
pub struct Column {
    /// Signal id.
    pub signal: u32,
    /// Moments.
    pub times: Times,
    /// Values as written.
    pub values: Vec<Decimal>,
    /// What one unit as written is worth (1/64 for the accelerometer); 1 if left out.
    pub scale: Option<Scale>,
}

impl Column {
    fn time_us(&self, index: usize) -> i64 {
        match &self.times {
            Times::Regular { start_us, period_us } => start_us + (index as u64 * period_us) as i64,
            Times::Irregular(times) => times[index],
        }
    }

    /// Moment of the last sample.
    pub fn last_us(&self) -> Option<i64> {
        (!self.values.is_empty()).then(|| self.time_us(self.values.len() - 1))
    }

    /// Indices of samples in `[from, to)`.
    fn window(&self, from_us: i64, to_us: i64) -> std::ops::Range<usize> {
        let first = |limit: i64| match &self.times {
            Times::Irregular(times) => times.partition_point(|time| *time < limit),
            Times::Regular { start_us, period_us } => {
                let after = u64::try_from(limit.saturating_sub(*start_us)).unwrap_or(0);
                (after.div_ceil(*period_us) as usize).min(self.values.len())
            }
        };
        first(from_us)..first(to_us)
    }

    /// Moment of the first sample at or after `limit_us`.
    fn next_us(&self, limit_us: i64) -> Option<i64> {
        let index = self.window(limit_us, i64::MAX).start;
        (index < self.values.len()).then(|| self.time_us(index))
    }

    fn encode(&self, values: &[Decimal]) -> (OutValues, Scale) {
        decimal::encode(values, self.scale.unwrap_or(Scale::ONE))
    }

    fn series(&self, range: std::ops::Range<usize>, t0_us: i64) -> OutSeries {
        let (values, scale) = self.encode(&self.values[range.clone()]);
        let first_us = self.time_us(range.start);
        let offset_us = u64::try_from(first_us - t0_us).unwrap_or(0);
        let (period_us, deltas) = match &self.times {
            Times::Regular { period_us, .. } => (*period_us, None),
            Times::Irregular(times) => {
                let steps: Vec<u32> = std::iter::once(0)
                    .chain(
                        times[range]
                            .windows(2)
                            .map(|pair| u32::try_from(pair[1] - pair[0]).unwrap_or(u32::MAX)),
                    )
                    .collect();
                (0, Some(OutDeltas::narrowest(&steps)))
            }
        };
        OutSeries { signal: self.signal, offset_us, period_us, scale, values, deltas, quality: None }
    }
}

/// One person's recording.
#[derive(Debug, Clone)]
pub struct Recording {
    /// Name of the person or of the folder.
    pub name: String,
    pub(crate) columns: Vec<Column>,
}

impl Recording {
    /// Signals, as columns.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// How many values it has, intervals between beats included.
    pub fn values(&self) -> u64 {
        self.columns.iter().map(|column| column.values.len() as u64).sum()
    }

    /// When its first sensor starts, microseconds since 1970.
    pub fn start_us(&self) -> i64 {
        let start = |column: &Column| match &column.times {
            Times::Regular { start_us, .. } => *start_us,
            Times::Irregular(times) => times.first().copied().unwrap_or(i64::MAX),
        };
        self.columns.iter().map(start).min().unwrap_or(0)
    }

    /// All sensors as one device's stream of signed frames; the same keys and boot id give the same bytes.
    pub fn frames(&self, device: &SecretKey, boot: BootId, seconds: u32) -> Result<Vec<Vec<u8>>, FleetError> {
        frames(&self.columns, self.start_us(), seconds, boot, device)
    }
}

/// Signed frames of all columns, `seconds` long each; empty windows give no frame. The sequence starts at 0 and every
/// frame names the one before it.
fn frames(
    columns: &[Column],
    start_us: i64,
    seconds: u32,
    boot: BootId,
    key: &SecretKey,
) -> Result<Vec<Vec<u8>>, FleetError> {
    let step_us = i64::from(seconds.clamp(1, 60)) * 1_000_000;
    let end_us = columns.iter().filter_map(Column::last_us).max().unwrap_or(start_us);
    let mut frames: Vec<Vec<u8>> = Vec::new();
    let mut from_us = start_us;
    while from_us <= end_us && from_us < i64::MAX - step_us {
        let windows = columns.iter().map(|column| (column, column.window(from_us, from_us + step_us)));
        let windows: Vec<_> = windows.filter(|(_, range)| !range.is_empty()).collect();
        if !windows.is_empty() {
            let prev = match frames.last() {
                Some(last) => Frame::parse(last).map_err(schemas_frame::EncodeError)?.digest16(),
                None => [0; 16],
            };
            let mono_us = u64::try_from(from_us - start_us).unwrap_or(0);
            let mut builder = FrameBuilder::new(boot, frames.len() as u64, prev, Some(from_us), mono_us);
            for (column, range) in windows {
                for at in range.clone().step_by(SERIES_SAMPLES_MAX) {
                    let part = at..range.end.min(at + SERIES_SAMPLES_MAX);
                    builder = builder.series(column.series(part, from_us));
                }
            }
            frames.push(builder.sign(key)?);
        }
        from_us += step_us;
        // Days without a sample are stepped over, windows staying where they were.
        let next_us = columns.iter().filter_map(|column| column.next_us(from_us)).min().unwrap_or(i64::MAX);
        from_us = from_us.saturating_add((next_us.saturating_sub(from_us) / step_us).saturating_mul(step_us));
    }
    Ok(frames)
}
