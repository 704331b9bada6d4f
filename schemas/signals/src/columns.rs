//! The Arrow shapes of stored and shown rows, the one place where writers and readers of files agree on columns.
//!
//! `value` of a scalar row = `real`, else `(raw * num) / den` in f64. NaN and infinite floats are stored as they came.
//! A series becomes one `wave` row if it is regular and either long or of class waveform ([`is_wave`]); else one
//! `scalar` row per sample.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

use crate::{Signal, WAVE_SAMPLES_MIN};

/// Time zone of every timestamp column.
pub const UTC: &str = "UTC";
/// Bytes of a boot id column.
pub const BOOT_BYTES: i32 = 8;

/// Whether a series is stored as one wave row.
pub fn is_wave(signal: &Signal, period_us: u64, samples: usize) -> bool {
    period_us > 0 && (samples >= WAVE_SAMPLES_MIN || signal.is_waveform())
}

/// The type of every timestamp: microseconds, UTC.
pub fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into()))
}

/// One row per sample. Sorted by (device, signal, ts).
pub fn scalar_schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        Arc::new(Schema::new(vec![
            Field::new("device", DataType::UInt32, false),
            Field::new("signal", DataType::UInt16, false),
            Field::new("ts", timestamp(), false),
            Field::new("raw", DataType::Int64, true),
            Field::new("num", DataType::UInt32, false),
            Field::new("den", DataType::UInt32, false),
            Field::new("real", DataType::Float64, true),
            Field::new("quality", DataType::UInt8, true),
            Field::new("flags", DataType::Int32, false),
            Field::new("received_at", timestamp(), false),
            Field::new("boot", DataType::FixedSizeBinary(BOOT_BYTES), false),
            Field::new("seq", DataType::Int64, false),
            Field::new("leaf", DataType::UInt32, false),
        ]))
    });
    SCHEMA.clone()
}

/// One row per series. Sorted by (device, signal, ts). `ts` is the first sample, `ts_last` the last.
pub fn wave_schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        Arc::new(Schema::new(vec![
            Field::new("device", DataType::UInt32, false),
            Field::new("signal", DataType::UInt16, false),
            Field::new("ts", timestamp(), false),
            Field::new("ts_last", timestamp(), false),
            Field::new("period_us", DataType::Int64, false),
            Field::new("num", DataType::UInt32, false),
            Field::new("den", DataType::UInt32, false),
            Field::new("raw", list_of(DataType::Int64), true),
            Field::new("real", list_of(DataType::Float64), true),
            Field::new("quality", DataType::Binary, true),
            Field::new("flags", DataType::Int32, false),
            Field::new("received_at", timestamp(), false),
            Field::new("boot", DataType::FixedSizeBinary(BOOT_BYTES), false),
            Field::new("seq", DataType::Int64, false),
            Field::new("leaf", DataType::UInt32, false),
        ]))
    });
    SCHEMA.clone()
}

/// Columns of shown rows that files do not repeat per row: they are in the frames file, under the row's `leaf`.
pub const ORIGIN_COLUMNS: [&str; 4] = ["flags", "received_at", "boot", "seq"];

fn without_origin(schema: &Schema) -> SchemaRef {
    let is_own = |field: &&Arc<Field>| !ORIGIN_COLUMNS.contains(&field.name().as_str());
    Arc::new(Schema::new(schema.fields().iter().filter(is_own).cloned().collect::<Vec<_>>()))
}

/// [`scalar_schema`] as files have it: without [`ORIGIN_COLUMNS`].
pub fn stored_scalar_schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| without_origin(&scalar_schema()));
    SCHEMA.clone()
}

/// [`wave_schema`] as files have it: without [`ORIGIN_COLUMNS`].
pub fn stored_wave_schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| without_origin(&wave_schema()));
    SCHEMA.clone()
}

/// One row per frame, in the order of the batch's leaves: by device, boot, sequence number.
///
/// A frame whose bytes follow from the batch's rows has `signature`, `kid`, `shape`, `clock` and `mono`, and no `frame`;
/// any other one has its bytes in `frame` and none of those. `wall` is null unless the device's clock was neither unset
/// (`clock` 1) nor taken as `t0` (`clock` 0). `prev` is null where it is the digest of the frame one leaf before.
/// `block` is the root over the leaves of a block, at the first leaf of each.
pub fn frames_schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        Arc::new(Schema::new(vec![
            Field::new("leaf", DataType::UInt32, false),
            Field::new("device", DataType::UInt32, false),
            Field::new("boot", DataType::FixedSizeBinary(BOOT_BYTES), false),
            Field::new("seq", DataType::Int64, false),
            Field::new("t0", timestamp(), false),
            Field::new("received_at", timestamp(), false),
            Field::new("flags", DataType::Int32, false),
            Field::new("code", DataType::Utf8, false),
            Field::new("frame", DataType::Binary, true),
            Field::new("signature", DataType::FixedSizeBinary(64), true),
            Field::new("kid", DataType::FixedSizeBinary(8), true),
            Field::new("shape", DataType::Binary, true),
            Field::new("prev", DataType::FixedSizeBinary(16), true),
            Field::new("clock", DataType::UInt8, true),
            Field::new("wall", DataType::Int64, true),
            Field::new("mono", DataType::Int64, true),
            Field::new("block", DataType::FixedSizeBinary(32), true),
        ]))
    });
    SCHEMA.clone()
}

/// The table `readings` as SQL sees it.
pub fn readings_schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        Arc::new(Schema::new(vec![
            Field::new("subject", DataType::Utf8View, false),
            Field::new("device", DataType::Utf8View, false),
            Field::new("signal", DataType::Utf8View, false),
            Field::new("ts", timestamp(), false),
            Field::new("value", DataType::Float64, false),
            Field::new("unit", DataType::Utf8View, false),
            Field::new("flags", DataType::Int32, false),
            Field::new("received_at", timestamp(), false),
            Field::new("boot", DataType::Utf8View, false),
            Field::new("seq", DataType::Int64, false),
        ]))
    });
    SCHEMA.clone()
}

/// The element field of a wave's list columns: never null, named `item`.
pub fn list_item(element: DataType) -> Arc<Field> {
    Arc::new(Field::new("item", element, false))
}

fn list_of(element: DataType) -> DataType {
    DataType::List(list_item(element))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Registry;

    /// The columns SQL sees are those of the contract, in its order.
    #[test]
    fn readings_columns() {
        let names: Vec<String> =
            readings_schema().fields().iter().map(|field| field.name().clone()).collect();
        assert_eq!(names.join(" "), "subject device signal ts value unit flags received_at boot seq");
    }

    /// Irregular series are never waves; regular ones are when long or of class waveform.
    #[test]
    fn wave_rule() {
        let registry = Registry::builtin();
        let (heart, ecg) = (registry.by_name("heart_rate").unwrap(), registry.by_name("ecg").unwrap());
        let cases = [
            (heart, 1_000_000, 31, false),
            (heart, 1_000_000, 32, true),
            (heart, 0, 500, false),
            (ecg, 4_000, 1, true),
            (ecg, 0, 500, false),
        ];
        for (signal, period_us, samples, wave) in cases {
            assert_eq!(is_wave(signal, period_us, samples), wave, "{} {period_us} {samples}", signal.name);
        }
    }
}
