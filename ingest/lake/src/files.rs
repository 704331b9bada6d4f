//! Files that survive: Parquet written to a temporary name, hashed on the way, synced, renamed, and the directory synced.
//! Needed because neither `parquet` nor `object_store` ever syncs anything.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{TimestampMicrosecondType, UInt32Type};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use schemas_evidence::{FileKind, FileRef};

use crate::LakeError;

/// Rows of a row group of samples.
const SCALAR_ROW_GROUP: usize = 256 << 10;
/// Series of a row group of waves: a row holds many samples.
const WAVE_ROW_GROUP: usize = 8 << 10;
/// Frames of a row group: reading one frame reads one row group at most.
const FRAMES_ROW_GROUP: usize = 1 << 10;
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

fn properties(kind: FileKind) -> WriterProperties {
    let rows = match kind {
        FileKind::Scalar => SCALAR_ROW_GROUP,
        FileKind::Wave => WAVE_ROW_GROUP,
        FileKind::Frames => FRAMES_ROW_GROUP,
    };
    let zstd = ZstdLevel::try_new(ZSTD_LEVEL).unwrap_or_default();
    let mut builder = WriterProperties::builder()
        .set_max_row_group_row_count(Some(rows))
        .set_compression(Compression::ZSTD(zstd))
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_dictionary_enabled(true);
    let delta: &[&str] = match kind {
        FileKind::Scalar => &["ts", "raw", "received_at", "seq", "leaf"],
        FileKind::Wave => &["ts", "ts_last", "received_at", "seq", "leaf", "raw.list.item"],
        FileKind::Frames => &["leaf", "seq", "t0", "received_at"],
    };
    for name in delta {
        let path = ColumnPath::new(name.split('.').map(str::to_owned).collect());
        builder = builder
            .set_column_dictionary_enabled(path.clone(), false)
            .set_column_encoding(path, Encoding::DELTA_BINARY_PACKED);
    }
    for name in ["frame", "quality"] {
        builder = builder.set_column_dictionary_enabled(ColumnPath::from(name), false);
    }
    builder.build()
}

fn suffix(kind: FileKind) -> &'static str {
    match kind {
        FileKind::Scalar => "scalar",
        FileKind::Wave => "wave",
        FileKind::Frames => "frames",
    }
}

/// Writes one file of a batch durably (its directory entry is synced by [`sync_directory`], once per batch).
pub(crate) fn write_table(
    directory: &Path,
    batch_id: &str,
    kind: FileKind,
    rows: &RecordBatch,
) -> Result<FileRef, LakeError> {
    let name = format!("{batch_id}.{}.parquet", suffix(kind));
    let path = directory.join(&name);
    let temporary = directory.join(format!("{name}.tmp"));
    let io = |source| LakeError::Io { path: temporary.clone(), source };
    let file = File::create(&temporary).map_err(io)?;
    let sink = Hashing { inner: BufWriter::new(file), hasher: blake3::Hasher::new(), bytes: 0 };
    let mut writer = ArrowWriter::try_new(sink, rows.schema(), Some(properties(kind)))?;
    writer.write(rows)?;
    let mut sink = writer.into_inner()?;
    sink.flush().map_err(io)?;
    let file = sink.inner.into_inner().map_err(|error| io(error.into_error()))?;
    file.sync_all().map_err(io)?;
    fs::rename(&temporary, &path).map_err(io)?;
    let (device_min, device_max) = device_range(rows);
    let (ts_min_us, ts_max_us) = time_range(rows, kind);
    let (blake3, bytes) = (*sink.hasher.finalize().as_bytes(), sink.bytes);
    let count = rows.num_rows() as u64;
    Ok(FileRef { name, kind, blake3, bytes, rows: count, device_min, device_max, ts_min_us, ts_max_us })
}

fn device_range(rows: &RecordBatch) -> (u32, u32) {
    let Some(column) = rows.column_by_name("device") else { return (0, 0) };
    let devices = column.as_primitive::<UInt32Type>().values();
    (devices.iter().copied().min().unwrap_or(0), devices.iter().copied().max().unwrap_or(0))
}

fn time_range(rows: &RecordBatch, kind: FileKind) -> (i64, i64) {
    let (first, last) = match kind {
        FileKind::Scalar => ("ts", "ts"),
        FileKind::Wave => ("ts", "ts_last"),
        FileKind::Frames => ("t0", "t0"),
    };
    let column = |name: &str| {
        rows.column_by_name(name).map(|column| column.as_primitive::<TimestampMicrosecondType>().clone())
    };
    let least = column(first).and_then(|column| column.values().iter().copied().min());
    let most = column(last).and_then(|column| column.values().iter().copied().max());
    (least.unwrap_or(0), most.unwrap_or(0))
}

/// Writes a small file durably under its final name.
pub(crate) fn write_bytes(path: &Path, bytes: &[u8]) -> Result<(), LakeError> {
    let temporary = PathBuf::from(format!("{}.tmp", path.display()));
    let io = |source| LakeError::Io { path: temporary.clone(), source };
    let mut file = File::create(&temporary).map_err(io)?;
    file.write_all(bytes).map_err(io)?;
    file.sync_all().map_err(io)?;
    fs::rename(&temporary, path).map_err(io)
}

/// Makes the renames of a batch durable.
pub(crate) fn sync_directory(directory: &Path) -> Result<(), LakeError> {
    let io = |source| LakeError::Io { path: directory.to_owned(), source };
    File::open(directory).map_err(io)?.sync_all().map_err(io)
}

/// BLAKE3 of a file, read in pieces.
pub(crate) fn digest(path: &Path) -> io::Result<[u8; 32]> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(path)?)?;
    Ok(*hasher.finalize().as_bytes())
}
