//! A small lake: twelve people, scalar and wave rows, files and live tail. People 10 and 11 never consented,
//! person 0 only for the first half of the time. The same lake can be made without any hidden row.

use std::fs::File;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use arrow::array::{
    ArrayRef, BinaryArray, FixedSizeBinaryArray, Float64Array, Int32Array, Int64Array, ListArray,
    RecordBatch, TimestampMicrosecondArray, UInt8Array, UInt16Array, UInt32Array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::DataType;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use futures::StreamExt;
use parquet::arrow::ArrowWriter;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use schemas_signals::columns::{ORIGIN_COLUMNS, list_item, scalar_schema, wave_schema};

use super::people::World;
use crate::{
    DeviceNames, Engine, EngineError, FileKind, FramesFile, LakeFile, Options, RunOptions, Tables,
    TablesError, View,
};

/// First instant of the data: 2026-01-01.
pub(crate) const T0: i64 = 1_767_225_600_000_000;
/// Microseconds in a second.
pub(crate) const SECOND: i64 = 1_000_000;
/// Scalar rows per person and signal.
pub(crate) const ROWS: i64 = 100;
/// People who never consented.
pub(crate) const HIDDEN: [u32; 2] = [10, 11];
/// People in all.
pub(crate) const PEOPLE: u32 = 12;
/// Heart rate no visible row has.
pub(crate) const SECRET: i64 = 181;

/// One scalar reading as the fixture makes it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Reading {
    pub device: u32,
    pub signal: u16,
    pub ts: i64,
    pub raw: i64,
    pub den: u32,
    pub seq: i64,
}

/// Whether consent covers a reading.
pub(crate) fn visible(device: u32, ts: i64) -> bool {
    !HIDDEN.contains(&device) && (device != 0 || ts < T0 + ROWS / 2 * SECOND)
}

/// Scalar readings, sorted as the lake sorts them. Hidden ones have values no visible one has.
pub(crate) fn readings(signals: &[u16], from: i64, rows: i64) -> Vec<Reading> {
    let mut all = Vec::new();
    for device in 0..PEOPLE {
        for signal in signals {
            for row in from..from + rows {
                let ts = T0 + row * SECOND;
                let raw = if visible(device, ts) { 60 + (row * 7 + i64::from(device)) % 20 } else { SECRET };
                all.push(Reading { device, signal: *signal, ts, raw, den: 1, seq: row });
            }
        }
    }
    all
}

/// The lake's scalar columns.
pub(crate) fn scalar_batch(rows: &[Reading]) -> RecordBatch {
    let times = |of: fn(&Reading) -> i64| -> ArrayRef {
        Arc::new(TimestampMicrosecondArray::from_iter_values(rows.iter().map(of)).with_timezone("UTC"))
    };
    let boots =
        FixedSizeBinaryArray::try_from_iter(rows.iter().map(|row| u64::from(row.device + 1).to_be_bytes()))
            .unwrap();
    let count = rows.len();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(UInt32Array::from_iter_values(rows.iter().map(|row| row.device))),
        Arc::new(UInt16Array::from_iter_values(rows.iter().map(|row| row.signal))),
        times(|row| row.ts),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.raw * i64::from(row.den)))),
        Arc::new(UInt32Array::from_value(1, count)),
        Arc::new(UInt32Array::from_iter_values(rows.iter().map(|row| row.den))),
        Arc::new(Float64Array::new_null(count)),
        Arc::new(UInt8Array::new_null(count)),
        Arc::new(Int32Array::from_value(0, count)),
        times(|row| row.ts + 5 * SECOND),
        Arc::new(boots),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.seq))),
        Arc::new(UInt32Array::from_value(0, count)),
    ];
    RecordBatch::try_new(scalar_schema(), columns).unwrap()
}

/// One wave series.
#[derive(Debug, Clone)]
pub(crate) struct Wave {
    pub device: u32,
    pub signal: u16,
    pub first: i64,
    pub period: i64,
    pub raw: Vec<i64>,
}

/// A wave of acceleration per person and ten seconds; samples outside consent are the secret.
pub(crate) fn waves(from: i64, count: i64) -> Vec<Wave> {
    let mut all = Vec::new();
    for device in 0..PEOPLE {
        for index in from..from + count {
            let (first, period) = (T0 + index * 10 * SECOND, SECOND / 4);
            let raw = (0..40)
                .map(|sample| if visible(device, first + sample * period) { sample % 32 } else { SECRET })
                .collect();
            all.push(Wave { device, signal: 14, first, period, raw });
        }
    }
    all
}

/// The lake's wave columns; scale 1/2.
pub(crate) fn wave_batch(rows: &[Wave]) -> RecordBatch {
    let times = |of: fn(&Wave) -> i64| -> ArrayRef {
        Arc::new(TimestampMicrosecondArray::from_iter_values(rows.iter().map(of)).with_timezone("UTC"))
    };
    let samples: Vec<i64> = rows.iter().flat_map(|row| row.raw.clone()).collect();
    let offsets = OffsetBuffer::from_lengths(rows.iter().map(|row| row.raw.len()));
    let raw = ListArray::new(list_item(DataType::Int64), offsets, Arc::new(Int64Array::from(samples)), None);
    let count = rows.len();
    let none = OffsetBuffer::from_lengths(vec![0; count]);
    let no_floats: ArrayRef = Arc::new(Float64Array::from(Vec::<f64>::new()));
    let real =
        ListArray::new(list_item(DataType::Float64), none, no_floats, Some(NullBuffer::new_null(count)));
    let boots =
        FixedSizeBinaryArray::try_from_iter(rows.iter().map(|row| u64::from(row.device + 1).to_be_bytes()))
            .unwrap();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(UInt32Array::from_iter_values(rows.iter().map(|row| row.device))),
        Arc::new(UInt16Array::from_iter_values(rows.iter().map(|row| row.signal))),
        times(|row| row.first),
        times(|row| row.first + row.period * (row.raw.len() as i64 - 1)),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.period))),
        Arc::new(UInt32Array::from_value(1, count)),
        Arc::new(UInt32Array::from_value(2, count)),
        Arc::new(raw),
        Arc::new(real),
        Arc::new(BinaryArray::from_opt_vec(vec![None; count])),
        Arc::new(Int32Array::from_value(0, count)),
        times(|row| row.first + 11 * SECOND),
        Arc::new(boots),
        Arc::new(Int64Array::from_value(1, count)),
        Arc::new(UInt32Array::from_value(0, count)),
    ];
    RecordBatch::try_new(wave_schema(), columns).unwrap()
}

/// Rows as files have them, and the frames file they point into: here each row is a frame of its own.
fn split(batch: &RecordBatch) -> (RecordBatch, RecordBatch) {
    let leaves: ArrayRef = Arc::new(UInt32Array::from_iter_values(0..batch.num_rows() as u32));
    let (mut rows, mut frames) = (Vec::new(), Vec::new());
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        match field.name().as_str() {
            "leaf" => rows.push((field.name().clone(), Arc::clone(&leaves))),
            name if ORIGIN_COLUMNS.contains(&name) => frames.push((name.to_owned(), Arc::clone(column))),
            name => rows.push((name.to_owned(), Arc::clone(column))),
        }
    }
    (RecordBatch::try_from_iter(rows).unwrap(), RecordBatch::try_from_iter(frames).unwrap())
}

/// Writes a lake file and its frames file; `group` rows in a row group.
pub(crate) fn write(dir: &Path, name: &str, kind: FileKind, batch: &RecordBatch, group: usize) -> LakeFile {
    let path = dir.join(name);
    let (rows, frames) = split(batch);
    let frames_name = format!("{name}.frames");
    write_plain(&path, &rows, group);
    write_plain(&dir.join(&frames_name), &frames, 100);
    LakeFile {
        path,
        name: name.to_owned(),
        blake3: "00".repeat(32),
        kind,
        rows: batch.num_rows() as u64,
        device_min: 0,
        device_max: PEOPLE,
        ts_min_us: T0,
        ts_max_us: T0 + 10_000 * SECOND,
        frames: Some(Arc::new(FramesFile {
            path: dir.join(&frames_name),
            name: frames_name,
            blake3: "11".repeat(32),
        })),
        leaf_limit: None,
    }
}

fn write_plain(path: &Path, batch: &RecordBatch, group: usize) {
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(group))
        .set_data_page_row_count_limit(50)
        .set_write_batch_size(50)
        .set_statistics_enabled(EnabledStatistics::Page)
        .build();
    let mut writer =
        ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), Some(properties)).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
}

/// A store with one view.
pub(crate) struct Store(pub View);

impl Tables for Store {
    fn view(&self, as_of: Option<u64>) -> Result<Arc<View>, TablesError> {
        match as_of {
            None => Ok(Arc::new(self.0.clone())),
            Some(size) if size == self.0.log_size => {
                Ok(Arc::new(View { tail_scalar: Vec::new(), tail_wave: Vec::new(), ..self.0.clone() }))
            }
            Some(size) => Err(TablesError::NoSnapshot(size)),
        }
    }
}

/// A lake in a folder. `keep` says which rows exist at all.
pub(crate) fn lake(dir: &Path, group: usize, keep: fn(u32, i64) -> bool) -> View {
    let kept = |rows: Vec<Reading>| -> Vec<Reading> {
        rows.into_iter().filter(|row| keep(row.device, row.ts)).collect()
    };
    let kept_waves = |rows: Vec<Wave>| -> Vec<Wave> {
        rows.into_iter()
            .filter_map(|mut wave| {
                let period = wave.period;
                let first = wave.first;
                let mut index = 0;
                wave.raw.retain(|_| {
                    index += 1;
                    keep(wave.device, first + (index - 1) * period)
                });
                (!wave.raw.is_empty()).then_some(wave)
            })
            .collect()
    };
    let scalar = scalar_batch(&kept(readings(&[1, 2], 0, ROWS)));
    let wave = wave_batch(&kept_waves(waves(0, 10)));
    let names: DeviceNames = Arc::new(|number| Some(super::people::device(number.0)));
    View {
        log_size: 7,
        sources: crate::Sources { batches: 2, sets: 0, entries: vec![3, 6] },
        files: vec![
            write(dir, "a.scalar.parquet", FileKind::Scalar, &scalar, group),
            write(dir, "a.wave.parquet", FileKind::Wave, &wave, group),
        ],
        tail_scalar: vec![scalar_batch(&kept(readings(&[5], 0, 20)))],
        tail_wave: vec![wave_batch(&kept_waves(waves(10, 2)))],
        devices: names,
        numbers: Arc::new(|id| {
            (0..PEOPLE)
                .find(|number| super::people::device(*number) == id)
                .map(schemas_identity::DeviceNumber)
        }),
        keep: None,
    }
}

/// Rows of a result as text, sorted, with a line of column names and types first.
pub(crate) async fn ask(engine: &Engine, world: &World, sql: &str) -> Result<Vec<String>, EngineError> {
    let mut running = engine.run(world.warrant(), &with_ids(sql), RunOptions::default()).await?;
    let mut lines = Vec::new();
    while let Some(batch) = running.next().await {
        let batch = batch?;
        assert!(batch.num_rows() <= 8192, "batch of {} rows", batch.num_rows());
        lines.extend(text_rows(&batch));
    }
    lines.sort();
    let header = running
        .schema()
        .fields()
        .iter()
        .map(|field| format!("{}:{}", field.name(), field.data_type()))
        .collect::<Vec<_>>()
        .join("|");
    lines.insert(0, header);
    Ok(lines)
}

/// The rows of a batch as text.
pub(crate) fn text_rows(batch: &RecordBatch) -> Vec<String> {
    let options = FormatOptions::default().with_null("NULL");
    let columns: Vec<ArrayFormatter<'_>> =
        batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options).unwrap()).collect();
    (0..batch.num_rows())
        .map(|row| columns.iter().map(|column| column.value(row).to_string()).collect::<Vec<_>>().join("|"))
        .collect()
}

/// Bounds fit for tests.
pub(crate) fn options() -> Options {
    Options {
        queries_max: 32,
        queries_per_principal_max: 32,
        partitions: 3,
        threads: 2,
        clock: super::people::clock(0),
        ..Options::default()
    }
}

/// Puts the short id of device N in the place of `{N}`.
pub(crate) fn with_ids(sql: &str) -> String {
    static IDS: LazyLock<Vec<(String, String)>> = LazyLock::new(|| {
        (0..PEOPLE)
            .map(|number| (format!("{{{number}}}"), super::people::device(number).to_string()))
            .collect()
    });
    IDS.iter().fold(sql.to_owned(), |sql, (place, id)| sql.replace(place, id))
}
