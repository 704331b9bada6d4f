//! Frames to rows: the columns of `schemas_signals::columns`, from verified frames, in the order given or sorted.
//! Not a decoder of its own: `schemas-frame` reads the bytes, and only frames that it read before come here.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, FixedSizeBinaryArray, Float64Array, Float64Builder, Int32Array, Int64Array,
    Int64Builder, ListBuilder, NullBufferBuilder, RecordBatch, TimestampMicrosecondArray,
    TimestampMicrosecondBuilder, UInt8Array, UInt16Array, UInt16Builder, UInt32Array, UInt32Builder,
};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use schemas_frame::{Frame, Series};
use schemas_signals::{Registry, columns};

use crate::Admitted;

const UTC: &str = "UTC";
/// Bytes of a boot id.
const BOOT_BYTES: usize = columns::BOOT_BYTES as usize;

/// Which columns are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Columns {
    /// All that readers are shown: the tail.
    Shown,
    /// Those of a file, whose rows leave `columns::ORIGIN_COLUMNS` to the frames file.
    Stored,
}

/// Columns that both tables end with: where a row came from.
struct Origin {
    columns: Columns,
    flags: Vec<i32>,
    received_at: Vec<i64>,
    boot: Vec<[u8; BOOT_BYTES]>,
    seq: Vec<i64>,
    leaf: Vec<u32>,
}

/// Appends a value as often as there are rows.
fn repeat<T: Copy>(column: &mut Vec<T>, value: T, rows: usize) {
    column.resize(column.len() + rows, value);
}

fn utc(values: Vec<i64>) -> TimestampMicrosecondArray {
    TimestampMicrosecondArray::new(values.into(), None).with_timezone(UTC)
}

impl Origin {
    fn with_capacity(columns: Columns, rows: usize) -> Self {
        let shown = if columns == Columns::Shown { rows } else { 0 };
        Self {
            columns,
            flags: Vec::with_capacity(shown),
            received_at: Vec::with_capacity(shown),
            boot: Vec::with_capacity(shown),
            seq: Vec::with_capacity(shown),
            leaf: Vec::with_capacity(rows),
        }
    }

    fn push(&mut self, source: &Source<'_>, rows: usize) {
        repeat(&mut self.leaf, source.leaf, rows);
        if self.columns == Columns::Stored {
            return;
        }
        repeat(&mut self.flags, source.admitted.flags as i32, rows);
        repeat(&mut self.received_at, source.admitted.received_us, rows);
        repeat(&mut self.boot, source.boot, rows);
        repeat(&mut self.seq, source.seq, rows);
    }

    fn finish(self, arrays: &mut Vec<ArrayRef>) -> Result<(), ArrowError> {
        if self.columns == Columns::Shown {
            let boot = self.boot.into_flattened().into();
            arrays.push(Arc::new(Int32Array::new(self.flags.into(), None)));
            arrays.push(Arc::new(utc(self.received_at)));
            arrays.push(Arc::new(FixedSizeBinaryArray::try_new(columns::BOOT_BYTES, boot, None)?));
            arrays.push(Arc::new(Int64Array::new(self.seq.into(), None)));
        }
        arrays.push(Arc::new(UInt32Array::new(self.leaf.into(), None)));
        Ok(())
    }
}

/// The frame that rows are made of.
pub(crate) struct Source<'a> {
    admitted: &'a Admitted,
    boot: [u8; BOOT_BYTES],
    seq: i64,
    leaf: u32,
}

impl<'a> Source<'a> {
    pub(crate) fn new(admitted: &'a Admitted, frame: &Frame<'_>, leaf: u32) -> Source<'a> {
        Source { admitted, boot: *frame.boot().as_bytes(), seq: frame.seq() as i64, leaf }
    }

    pub(crate) fn t0_us(&self) -> i64 {
        self.admitted.t0_us
    }
}

/// One row per sample, column by column: a series appends whole runs, never a row.
pub(crate) struct Scalars {
    device: Vec<u32>,
    signal: Vec<u16>,
    ts: Vec<i64>,
    raw: Vec<i64>,
    is_integer: NullBufferBuilder,
    num: Vec<u32>,
    den: Vec<u32>,
    real: Vec<f64>,
    is_float: NullBufferBuilder,
    quality: Vec<u8>,
    has_quality: NullBufferBuilder,
    origin: Origin,
}

/// Marks a run of rows as having a value or not, and fills the gap of those that have none.
fn mark<T: Copy + Default>(column: &mut Vec<T>, nulls: &mut NullBufferBuilder, has_value: bool, rows: usize) {
    if has_value {
        nulls.append_n_non_nulls(rows);
    } else {
        nulls.append_n_nulls(rows);
        repeat(column, T::default(), rows);
    }
}

impl Scalars {
    pub(crate) fn with_capacity(columns: Columns, rows: usize) -> Self {
        Self {
            device: Vec::with_capacity(rows),
            signal: Vec::with_capacity(rows),
            ts: Vec::with_capacity(rows),
            raw: Vec::with_capacity(rows),
            is_integer: NullBufferBuilder::new(rows),
            num: Vec::with_capacity(rows),
            den: Vec::with_capacity(rows),
            real: Vec::with_capacity(rows),
            is_float: NullBufferBuilder::new(rows),
            quality: Vec::with_capacity(rows),
            has_quality: NullBufferBuilder::new(rows),
            origin: Origin::with_capacity(columns, rows),
        }
    }

    /// Rows so far.
    pub(crate) fn len(&self) -> usize {
        self.ts.len()
    }

    /// All samples of a series.
    pub(crate) fn push(&mut self, source: &Source<'_>, series: &Series<'_>) {
        let rows = series.len();
        repeat(&mut self.device, source.admitted.device, rows);
        repeat(&mut self.signal, series.signal as u16, rows);
        series.extend_ts_us(source.admitted.t0_us, &mut self.ts);
        let is_integer = series.values.extend_raw(&mut self.raw);
        mark(&mut self.raw, &mut self.is_integer, is_integer, rows);
        repeat(&mut self.num, series.scale.num, rows);
        repeat(&mut self.den, series.scale.den, rows);
        let is_float = series.values.extend_real(&mut self.real);
        mark(&mut self.real, &mut self.is_float, is_float, rows);
        self.quality.extend_from_slice(series.quality.unwrap_or_default());
        mark(&mut self.quality, &mut self.has_quality, series.quality.is_some(), rows);
        self.origin.push(source, rows);
    }

    /// One sample of a series, for series that overlap in time.
    pub(crate) fn push_sample(&mut self, source: &Source<'_>, series: &Series<'_>, at: usize, ts_us: i64) {
        self.device.push(source.admitted.device);
        self.signal.push(series.signal as u16);
        self.ts.push(ts_us);
        let raw = series.values.raw_i64(at);
        self.raw.push(raw.unwrap_or_default());
        self.is_integer.append(raw.is_some());
        self.num.push(series.scale.num);
        self.den.push(series.scale.den);
        let real = series.values.real(at);
        self.real.push(real.unwrap_or_default());
        self.is_float.append(real.is_some());
        let quality = series.quality.and_then(|quality| quality.get(at).copied());
        self.quality.push(quality.unwrap_or_default());
        self.has_quality.append(quality.is_some());
        self.origin.push(source, 1);
    }

    pub(crate) fn finish(mut self) -> Result<RecordBatch, ArrowError> {
        let schema = match self.origin.columns {
            Columns::Shown => columns::scalar_schema(),
            Columns::Stored => columns::stored_scalar_schema(),
        };
        let mut arrays: Vec<ArrayRef> = vec![
            Arc::new(UInt32Array::new(self.device.into(), None)),
            Arc::new(UInt16Array::new(self.signal.into(), None)),
            Arc::new(utc(self.ts)),
            Arc::new(Int64Array::try_new(self.raw.into(), self.is_integer.finish())?),
            Arc::new(UInt32Array::new(self.num.into(), None)),
            Arc::new(UInt32Array::new(self.den.into(), None)),
            Arc::new(Float64Array::try_new(self.real.into(), self.is_float.finish())?),
            Arc::new(UInt8Array::try_new(self.quality.into(), self.has_quality.finish())?),
        ];
        self.origin.finish(&mut arrays)?;
        RecordBatch::try_new(schema, arrays)
    }
}

/// One row per series of a waveform.
pub(crate) struct Waves {
    device: UInt32Builder,
    signal: UInt16Builder,
    ts: TimestampMicrosecondBuilder,
    ts_last: TimestampMicrosecondBuilder,
    period_us: Int64Builder,
    num: UInt32Builder,
    den: UInt32Builder,
    raw: ListBuilder<Int64Builder>,
    real: ListBuilder<Float64Builder>,
    quality: BinaryBuilder,
    scratch: (Vec<i64>, Vec<f64>),
    origin: Origin,
}

impl Waves {
    pub(crate) fn new(columns: Columns) -> Self {
        Self {
            device: UInt32Builder::new(),
            signal: UInt16Builder::new(),
            ts: TimestampMicrosecondBuilder::new().with_timezone(UTC),
            ts_last: TimestampMicrosecondBuilder::new().with_timezone(UTC),
            period_us: Int64Builder::new(),
            num: UInt32Builder::new(),
            den: UInt32Builder::new(),
            raw: ListBuilder::new(Int64Builder::new()).with_field(columns::list_item(DataType::Int64)),
            real: ListBuilder::new(Float64Builder::new()).with_field(columns::list_item(DataType::Float64)),
            quality: BinaryBuilder::new(),
            scratch: (Vec::new(), Vec::new()),
            origin: Origin::with_capacity(columns, 0),
        }
    }

    pub(crate) fn push(&mut self, source: &Source<'_>, series: &Series<'_>) {
        let t0_us = source.admitted.t0_us;
        self.device.append_value(source.admitted.device);
        self.signal.append_value(series.signal as u16);
        self.ts.append_value(series.ts_us(0, t0_us));
        self.ts_last.append_value(series.ts_last_us(t0_us));
        self.period_us.append_value(series.period_us as i64);
        self.num.append_value(series.scale.num);
        self.den.append_value(series.scale.den);
        let (raw, real) = &mut self.scratch;
        raw.clear();
        real.clear();
        let is_integer = series.values.extend_raw(raw);
        let is_float = series.values.extend_real(real);
        self.raw.values().append_slice(raw);
        self.real.values().append_slice(real);
        self.raw.append(is_integer);
        self.real.append(is_float);
        self.quality.append_option(series.quality);
        self.origin.push(source, 1);
    }

    pub(crate) fn finish(mut self) -> Result<RecordBatch, ArrowError> {
        let schema = match self.origin.columns {
            Columns::Shown => columns::wave_schema(),
            Columns::Stored => columns::stored_wave_schema(),
        };
        let mut arrays: Vec<ArrayRef> = vec![
            Arc::new(self.device.finish()),
            Arc::new(self.signal.finish()),
            Arc::new(self.ts.finish()),
            Arc::new(self.ts_last.finish()),
            Arc::new(self.period_us.finish()),
            Arc::new(self.num.finish()),
            Arc::new(self.den.finish()),
            Arc::new(self.raw.finish()),
            Arc::new(self.real.finish()),
            Arc::new(self.quality.finish()),
        ];
        self.origin.finish(&mut arrays)?;
        RecordBatch::try_new(schema, arrays)
    }
}

/// Rows of some frames.
#[derive(Debug, Clone)]
pub struct Rows {
    /// One row per sample.
    pub scalar: RecordBatch,
    /// One row per series of a waveform.
    pub wave: RecordBatch,
}

/// Whether a series is one wave row; `None` for a signal that the registry does not know: the verdict dropped it, its bytes
/// stay in the frame.
pub(crate) fn is_wave(series: &Series<'_>) -> Option<bool> {
    let signal = Registry::builtin().by_id(series.signal)?;
    Some(columns::is_wave(signal, series.period_us, series.len()))
}

/// Rows of frames in the order given, with every column that readers are shown; the first frame is leaf `first_leaf`.
///
/// # Errors
/// If bytes are no frame, which those of a verified one are.
pub fn rows(frames: &[Admitted], first_leaf: u32) -> Result<Rows, ArrowError> {
    let mut parsed = Vec::with_capacity(frames.len());
    for admitted in frames {
        parsed
            .push(Frame::parse(&admitted.frame).map_err(|error| ArrowError::ParseError(error.to_string()))?);
    }
    let is_scalar = |series: &Series<'_>| is_wave(series) == Some(false);
    let samples = parsed.iter().flat_map(Frame::series).filter(is_scalar).map(|series| series.len()).sum();
    let mut scalars = Scalars::with_capacity(Columns::Shown, samples);
    let mut waves = Waves::new(Columns::Shown);
    for ((admitted, frame), leaf) in frames.iter().zip(&parsed).zip(first_leaf..) {
        let source = Source::new(admitted, frame, leaf);
        for series in frame.series() {
            match is_wave(&series) {
                Some(true) => waves.push(&source, &series),
                Some(false) => scalars.push(&source, &series),
                None => {}
            }
        }
    }
    Ok(Rows { scalar: scalars.finish()?, wave: waves.finish()? })
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use arrow::datatypes::{
        Float64Type, Int32Type, Int64Type, TimestampMicrosecondType, UInt8Type, UInt16Type, UInt32Type,
    };
    use schemas_frame::{Code, FrameBuilder, OutDeltas, OutSeries, OutValues, Scale};
    use schemas_identity::{BootId, SecretKey};

    use super::*;

    fn series(
        signal: u32,
        values: OutValues,
        deltas: Option<OutDeltas>,
        quality: Option<Vec<u8>>,
    ) -> OutSeries {
        let period_us = if deltas.is_some() { 0 } else { 1_500_000 };
        OutSeries { signal, offset_us: 250, period_us, scale: Scale::ONE, values, deltas, quality }
    }

    fn admitted() -> Vec<Admitted> {
        let all = [
            series(1, OutValues::U8(vec![60, 61, 62]), None, Some(vec![0, 1, 2])),
            series(2, OutValues::I16(vec![-5, 6]), Some(OutDeltas::U16(vec![800, 900])), None),
            series(3, OutValues::F32(vec![36.5]), None, None),
            series(65_000, OutValues::U8(vec![9]), None, None),
            series(4, OutValues::F64(vec![0.25, -1.5]), None, Some(vec![7, 8])),
        ];
        let frame = |seq: u64| {
            let builder = FrameBuilder::new(BootId([seq as u8; 8]), seq, [0; 16], Some(1_000_000), 5);
            let builder = all.iter().cloned().fold(builder, FrameBuilder::series);
            let frame = builder.sign(&SecretKey::from_seed(&[3; 32])).unwrap().into();
            let received_us = 2_000_000 + seq as i64;
            Admitted {
                position: seq,
                device: 40,
                t0_us: 1_000_000,
                received_us,
                flags: 4,
                code: Code::Ok,
                frame,
            }
        };
        (1..4).map(frame).collect()
    }

    // Guarantee: waveforms reserve no room in the columns of samples, whose rows are many times as large.
    #[test]
    fn waves_take_no_room_of_samples() {
        let wave = series(14, OutValues::U8(vec![7; 4_000]), None, None);
        let builder = FrameBuilder::new(BootId([1; 8]), 1, [0; 16], Some(1_000_000), 5).series(wave);
        let frame = builder.sign(&SecretKey::from_seed(&[3; 32])).unwrap().into();
        let admitted = Admitted { frame, ..admitted().remove(0) };
        let rows = rows(&[admitted], 0).unwrap();
        assert_eq!((rows.scalar.num_rows(), rows.wave.num_rows()), (0, 1));
        assert_eq!(rows.scalar.column_by_name("ts").unwrap().get_buffer_memory_size(), 0);
    }

    // Guarantee: columns hold, row by row, what the samples of the frames are; unknown signals have no rows.
    #[test]
    fn columns_are_the_samples() {
        let frames = admitted();
        let scalar = rows(&frames, 5).unwrap().scalar;
        let column = |name: &str| scalar.column_by_name(name).unwrap().clone();
        let (raw, real, quality) = (column("raw"), column("real"), column("quality"));
        let mut row = 0;
        for (admitted, leaf) in frames.iter().zip(5..) {
            let frame = Frame::parse(&admitted.frame).unwrap();
            for series in frame.series().filter(|series| series.signal != 65_000) {
                for (at, (ts_us, _, mark)) in series.samples(admitted.t0_us).enumerate() {
                    assert_eq!(column("device").as_primitive::<UInt32Type>().value(row), admitted.device);
                    assert_eq!(
                        u32::from(column("signal").as_primitive::<UInt16Type>().value(row)),
                        series.signal
                    );
                    assert_eq!(column("ts").as_primitive::<TimestampMicrosecondType>().value(row), ts_us);
                    let (raw, real) = (raw.as_primitive::<Int64Type>(), real.as_primitive::<Float64Type>());
                    assert_eq!(raw.iter().nth(row).unwrap(), series.values.raw_i64(at));
                    assert_eq!(real.iter().nth(row).unwrap(), series.values.real(at));
                    assert_eq!(quality.as_primitive::<UInt8Type>().iter().nth(row).unwrap(), mark);
                    assert_eq!(column("flags").as_primitive::<Int32Type>().value(row), 4);
                    assert_eq!(column("seq").as_primitive::<Int64Type>().value(row), frame.seq() as i64);
                    assert_eq!(column("boot").as_fixed_size_binary().value(row), frame.boot().as_bytes());
                    assert_eq!(column("leaf").as_primitive::<UInt32Type>().value(row), leaf);
                    row += 1;
                }
            }
        }
        assert_eq!((row, scalar.num_rows()), (24, 24));
    }
}
