//! Files that survive: Parquet written to a temporary name, hashed on the way, synced, renamed, and the directory synced.
//! Needed because neither `parquet` nor `object_store` ever syncs anything.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{SchemaRef, TimestampMicrosecondType, UInt32Type};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use schemas_evidence::{FileKind, FileRef};

use crate::LakeError;
use crate::disk::{Disk, NewFile};

/// Rows of a row group of samples.
const SCALAR_ROW_GROUP: usize = 1 << 20;
/// Series of a row group of waves: a row holds many samples.
const WAVE_ROW_GROUP: usize = 8 << 10;
/// Encoded bytes of a row group: what its writer holds in memory before it is flushed.
const ROW_GROUP_BYTES: usize = 32 << 20;
/// Frames of a row group.
const FRAMES_ROW_GROUP: usize = 64 << 10;
/// Frames of a page: reading one block of them decodes one page of each column.
const FRAMES_PAGE_ROWS: usize = 4 << 10;
const ZSTD_LEVEL: i32 = 3;

struct Hashing<W> {
    inner: W,
    hasher: blake3::Hasher,
    bytes: u64,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(buffer)?;
        self.hasher.update(&buffer[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Whole numbers are packed as differences without a dictionary: rows are sorted, so most differ little or not at all,
/// and packing costs a fraction of looking each value up. Statistics only where a reader prunes by them.
fn properties(kind: FileKind) -> WriterProperties {
    let rows = match kind {
        FileKind::Scalar => SCALAR_ROW_GROUP,
        FileKind::Wave => WAVE_ROW_GROUP,
        FileKind::Frames => FRAMES_ROW_GROUP,
    };
    let zstd = ZstdLevel::try_new(ZSTD_LEVEL).unwrap_or_default();
    let mut builder = WriterProperties::builder()
        .set_max_row_group_row_count(Some(rows))
        .set_max_row_group_bytes(Some(ROW_GROUP_BYTES))
        .set_compression(Compression::ZSTD(zstd))
        .set_statistics_enabled(EnabledStatistics::None)
        .set_dictionary_enabled(false);
    if kind == FileKind::Frames {
        builder = builder.set_data_page_row_count_limit(FRAMES_PAGE_ROWS);
    }
    let (packed, listed): (&[&str], &[&str]) = match kind {
        FileKind::Scalar => (&["device", "signal", "ts", "raw", "num", "den", "quality", "leaf"], &[]),
        FileKind::Wave => {
            (&["device", "signal", "ts", "ts_last", "period_us", "num", "den", "raw.list.item", "leaf"], &[])
        }
        FileKind::Frames => (
            &["leaf", "device", "seq", "t0", "received_at", "flags", "clock", "wall", "mono"],
            &["boot", "code", "kid", "shape"],
        ),
    };
    for name in packed {
        builder = builder.set_column_encoding(column(name), Encoding::DELTA_BINARY_PACKED);
    }
    for name in listed {
        builder = builder.set_column_dictionary_enabled(column(name), true);
    }
    for name in ["device", "signal", "ts", "ts_last", "leaf"] {
        builder = builder.set_column_statistics_enabled(column(name), EnabledStatistics::Page);
    }
    // Hashes and signatures do not compress.
    for name in ["signature", "prev", "block"] {
        builder = builder.set_column_compression(column(name), Compression::UNCOMPRESSED);
    }
    builder.build()
}

fn column(name: &str) -> ColumnPath {
    ColumnPath::new(name.split('.').map(str::to_owned).collect())
}

fn suffix(kind: FileKind) -> &'static str {
    match kind {
        FileKind::Scalar => "scalar",
        FileKind::Wave => "wave",
        FileKind::Frames => "frames",
    }
}

/// One Parquet file of a batch while it is written, slice by slice.
pub(crate) struct TableWriter {
    kind: FileKind,
    disk: Disk,
    name: String,
    writer: ArrowWriter<Hashing<BufWriter<NewFile>>>,
    found: Found,
}

/// Ranges of what was written.
#[derive(Debug, Default, Clone, Copy)]
struct Found {
    rows: u64,
    devices: Option<(u32, u32)>,
    times_us: Option<(i64, i64)>,
}

fn widened<T: Ord + Copy>(known: Option<(T, T)>, low: Option<T>, high: Option<T>) -> Option<(T, T)> {
    match (known, low, high) {
        (Some((least, most)), Some(low), Some(high)) => Some((least.min(low), most.max(high))),
        (None, Some(low), Some(high)) => Some((low, high)),
        (known, ..) => known,
    }
}

impl Found {
    fn add(&mut self, rows: &RecordBatch, kind: FileKind) {
        let (first, last) = match kind {
            FileKind::Scalar => ("ts", "ts"),
            FileKind::Wave => ("ts", "ts_last"),
            FileKind::Frames => ("t0", "t0"),
        };
        let times = |name: &str| Some(rows.column_by_name(name)?.as_primitive::<TimestampMicrosecondType>());
        let low = times(first).and_then(|times| times.values().iter().copied().min());
        let high = times(last).and_then(|times| times.values().iter().copied().max());
        self.times_us = widened(self.times_us, low, high);
        // Frames of a set are sorted by device within each batch only.
        let devices = rows.column_by_name("device").map(|found| found.as_primitive::<UInt32Type>().values());
        let low = devices.and_then(|devices| devices.iter().copied().min());
        let high = devices.and_then(|devices| devices.iter().copied().max());
        self.devices = widened(self.devices, low, high);
        self.rows += rows.num_rows() as u64;
    }
}

impl TableWriter {
    /// Begins the file under a temporary name.
    pub(crate) fn create(
        disk: &Disk,
        batch_id: &str,
        kind: FileKind,
        schema: SchemaRef,
    ) -> Result<TableWriter, LakeError> {
        let name = format!("{batch_id}.{}.parquet", suffix(kind));
        let file = disk.create(&temporary(&name))?;
        let sink = Hashing { inner: BufWriter::new(file), hasher: blake3::Hasher::new(), bytes: 0 };
        let writer = ArrowWriter::try_new(sink, schema, Some(properties(kind)))?;
        Ok(TableWriter { kind, disk: disk.clone(), name, writer, found: Found::default() })
    }

    /// Adds rows.
    pub(crate) fn write(&mut self, rows: &RecordBatch) -> Result<(), LakeError> {
        self.found.add(rows, self.kind);
        Ok(self.writer.write(rows)?)
    }

    /// Makes the file durable under its name (its directory entry is synced by [`Disk::sync_dir`], once per batch).
    /// A file without rows is not made.
    pub(crate) fn finish(self) -> Result<Option<FileRef>, LakeError> {
        let TableWriter { kind, disk, name, writer, found } = self;
        let io = |source| LakeError::Io { path: disk.path(&temporary(&name)), source };
        let mut sink = writer.into_inner()?;
        if found.rows == 0 {
            drop(sink);
            disk.remove(&temporary(&name))?;
            return Ok(None);
        }
        sink.flush().map_err(io)?;
        let file = sink.inner.into_inner().map_err(|error| io(error.into_error()))?;
        file.sync()?;
        disk.rename(&temporary(&name), &name)?;
        let (device_min, device_max) = found.devices.unwrap_or_default();
        let (ts_min_us, ts_max_us) = found.times_us.unwrap_or_default();
        let (blake3, bytes, rows) = (*sink.hasher.finalize().as_bytes(), sink.bytes, found.rows);
        Ok(Some(FileRef { name, kind, blake3, bytes, rows, device_min, device_max, ts_min_us, ts_max_us }))
    }
}

/// Writes a small file under its final name, its content durable; the name is by [`Disk::sync_dir`].
pub(crate) fn write_bytes(disk: &Disk, name: &str, bytes: &[u8]) -> Result<(), LakeError> {
    let mut file = disk.create(&temporary(name))?;
    file.write_all(bytes).map_err(|source| LakeError::Io { path: disk.path(&temporary(name)), source })?;
    file.sync()?;
    disk.rename(&temporary(name), name)
}

/// The name of a file that is not finished.
fn temporary(name: &str) -> String {
    format!("{name}.tmp")
}

/// BLAKE3 of a file, read in pieces.
pub(crate) fn digest(path: &Path) -> io::Result<[u8; 32]> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(path)?)?;
    Ok(*hasher.finalize().as_bytes())
}
