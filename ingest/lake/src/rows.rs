//! Frames to rows: the columns of `schemas_signals::columns`, from verified frames, in the order given or sorted.
//! Not a decoder of its own: `schemas-frame` reads the bytes, and only frames that it read before come here.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, FixedSizeBinaryBuilder, Float64Builder, Int32Builder, Int64Builder, ListBuilder,
    RecordBatch, StringBuilder, TimestampMicrosecondBuilder, UInt8Builder, UInt16Builder, UInt32Builder,
};
use arrow::compute::{SortColumn, lexsort_to_indices, take_record_batch};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use schemas_frame::{Frame, Series};
use schemas_signals::{Registry, columns};

use crate::Admitted;

const UTC: &str = "UTC";

/// Columns that both tables end with: where a row came from.
struct Origin {
    flags: Int32Builder,
    received_at: TimestampMicrosecondBuilder,
    boot: FixedSizeBinaryBuilder,
    seq: Int64Builder,
    leaf: UInt32Builder,
}

impl Origin {
    fn new() -> Self {
        Self {
            flags: Int32Builder::new(),
            received_at: TimestampMicrosecondBuilder::new().with_timezone(UTC),
            boot: FixedSizeBinaryBuilder::new(columns::BOOT_BYTES),
            seq: Int64Builder::new(),
            leaf: UInt32Builder::new(),
        }
    }

    fn push(&mut self, source: &Source<'_>) -> Result<(), ArrowError> {
        self.flags.append_value(source.admitted.flags as i32);
        self.received_at.append_value(source.admitted.received_us);
        self.boot.append_value(source.boot)?;
        self.seq.append_value(source.seq);
        self.leaf.append_value(source.leaf);
        Ok(())
    }

    fn finish(mut self, arrays: &mut Vec<ArrayRef>) {
        arrays.push(Arc::new(self.flags.finish()));
        arrays.push(Arc::new(self.received_at.finish()));
        arrays.push(Arc::new(self.boot.finish()));
        arrays.push(Arc::new(self.seq.finish()));
        arrays.push(Arc::new(self.leaf.finish()));
    }
}

struct Source<'a> {
    admitted: &'a Admitted,
    boot: [u8; 8],
    seq: i64,
    leaf: u32,
}

struct Scalars {
    device: UInt32Builder,
    signal: UInt16Builder,
    ts: TimestampMicrosecondBuilder,
    raw: Int64Builder,
    num: UInt32Builder,
    den: UInt32Builder,
    real: Float64Builder,
    quality: UInt8Builder,
    origin: Origin,
}

impl Scalars {
    fn new() -> Self {
        Self {
            device: UInt32Builder::new(),
            signal: UInt16Builder::new(),
            ts: TimestampMicrosecondBuilder::new().with_timezone(UTC),
            raw: Int64Builder::new(),
            num: UInt32Builder::new(),
            den: UInt32Builder::new(),
            real: Float64Builder::new(),
            quality: UInt8Builder::new(),
            origin: Origin::new(),
        }
    }

    fn push(&mut self, source: &Source<'_>, series: &Series<'_>) -> Result<(), ArrowError> {
        for (index, (ts_us, _, quality)) in series.samples(source.admitted.t0_us).enumerate() {
            self.device.append_value(source.admitted.device);
            self.signal.append_value(series.signal as u16);
            self.ts.append_value(ts_us);
            self.raw.append_option(series.values.raw_i64(index));
            self.num.append_value(series.scale.num);
            self.den.append_value(series.scale.den);
            self.real.append_option(series.values.real(index));
            self.quality.append_option(quality);
            self.origin.push(source)?;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<RecordBatch, ArrowError> {
        let mut arrays: Vec<ArrayRef> = vec![
            Arc::new(self.device.finish()),
            Arc::new(self.signal.finish()),
            Arc::new(self.ts.finish()),
            Arc::new(self.raw.finish()),
            Arc::new(self.num.finish()),
            Arc::new(self.den.finish()),
            Arc::new(self.real.finish()),
            Arc::new(self.quality.finish()),
        ];
        self.origin.finish(&mut arrays);
        RecordBatch::try_new(columns::scalar_schema(), arrays)
    }
}

struct Waves {
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
    origin: Origin,
}

impl Waves {
    fn new() -> Self {
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
            origin: Origin::new(),
        }
    }

    fn push(&mut self, source: &Source<'_>, series: &Series<'_>) -> Result<(), ArrowError> {
        let t0_us = source.admitted.t0_us;
        self.device.append_value(source.admitted.device);
        self.signal.append_value(series.signal as u16);
        self.ts.append_value(series.ts_us(0, t0_us));
        self.ts_last.append_value(series.ts_last_us(t0_us));
        self.period_us.append_value(series.period_us as i64);
        self.num.append_value(series.scale.num);
        self.den.append_value(series.scale.den);
        let integers = series.values.is_integer();
        for index in 0..series.len() {
            if let Some(raw) = series.values.raw_i64(index) {
                self.raw.values().append_value(raw);
            } else if let Some(real) = series.values.real(index) {
                self.real.values().append_value(real);
            }
        }
        self.raw.append(integers);
        self.real.append(!integers);
        self.quality.append_option(series.quality);
        self.origin.push(source)
    }

    fn finish(mut self) -> Result<RecordBatch, ArrowError> {
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
        self.origin.finish(&mut arrays);
        RecordBatch::try_new(columns::wave_schema(), arrays)
    }
}

/// Rows of some frames: `scalar` and `wave`.
#[derive(Debug, Clone)]
pub(crate) struct Rows {
    pub(crate) scalar: RecordBatch,
    pub(crate) wave: RecordBatch,
}

/// Rows of frames in the order given; the first one is leaf `first_leaf`.
pub(crate) fn rows(frames: &[Admitted], first_leaf: u32) -> Result<Rows, ArrowError> {
    let mut scalars = Scalars::new();
    let mut waves = Waves::new();
    for (admitted, leaf) in frames.iter().zip(first_leaf..) {
        let frame =
            Frame::parse(&admitted.frame).map_err(|error| ArrowError::ParseError(error.to_string()))?;
        let source = Source { admitted, boot: *frame.boot().as_bytes(), seq: frame.seq() as i64, leaf };
        for series in frame.series() {
            // A signal that the registry does not know was dropped by the verdict; its bytes stay in the frame.
            let Some(signal) = Registry::builtin().by_id(series.signal) else { continue };
            if columns::is_wave(signal, series.period_us, series.len()) {
                waves.push(&source, &series)?;
            } else {
                scalars.push(&source, &series)?;
            }
        }
    }
    Ok(Rows { scalar: scalars.finish()?, wave: waves.finish()? })
}

/// Sorted by (device, signal, ts, leaf): the order of both tables on disk.
pub(crate) fn sorted(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let mut keys = Vec::with_capacity(4);
    for name in ["device", "signal", "ts", "leaf"] {
        let values = batch.column_by_name(name).ok_or_else(|| ArrowError::SchemaError(name.to_owned()))?;
        keys.push(SortColumn { values: values.clone(), options: None });
    }
    take_record_batch(batch, &lexsort_to_indices(&keys, None)?)
}

/// The evidence table: the frames' own bytes, one row per leaf.
pub(crate) fn evidence(frames: &[Admitted]) -> Result<RecordBatch, ArrowError> {
    let mut leaf = UInt32Builder::new();
    let mut device = UInt32Builder::new();
    let mut boot = FixedSizeBinaryBuilder::new(columns::BOOT_BYTES);
    let mut seq = Int64Builder::new();
    let mut t0 = TimestampMicrosecondBuilder::new().with_timezone(UTC);
    let mut received_at = TimestampMicrosecondBuilder::new().with_timezone(UTC);
    let mut flags = Int32Builder::new();
    let mut code = StringBuilder::new();
    let mut bytes = BinaryBuilder::new();
    for (admitted, index) in frames.iter().zip(0u32..) {
        let frame =
            Frame::parse(&admitted.frame).map_err(|error| ArrowError::ParseError(error.to_string()))?;
        leaf.append_value(index);
        device.append_value(admitted.device);
        boot.append_value(frame.boot().as_bytes())?;
        seq.append_value(frame.seq() as i64);
        t0.append_value(admitted.t0_us);
        received_at.append_value(admitted.received_us);
        flags.append_value(admitted.flags as i32);
        code.append_value(admitted.code.as_str());
        bytes.append_value(&admitted.frame);
    }
    let arrays: Vec<ArrayRef> = vec![
        Arc::new(leaf.finish()),
        Arc::new(device.finish()),
        Arc::new(boot.finish()),
        Arc::new(seq.finish()),
        Arc::new(t0.finish()),
        Arc::new(received_at.finish()),
        Arc::new(flags.finish()),
        Arc::new(code.finish()),
        Arc::new(bytes.finish()),
    ];
    RecordBatch::try_new(columns::frames_schema(), arrays)
}
