//! Files that survive: Parquet written to a temporary name, hashed on the way, synced, renamed, and the directory synced.
//! Needed because neither `parquet` nor `object_store` ever syncs anything.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{SchemaRef, TimestampMicrosecondType, UInt32Type};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::{ArrowColumnWriter, ArrowRowGroupWriterFactory, compute_leaves};
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::ColumnPath;
use schemas_evidence::{FileKind, FileRef};

use crate::LakeError;
use crate::column::{Column, Scratch, Told};
use crate::disk::{Disk, NewFile};

/// Rows of a row group of samples.
const SCALAR_ROW_GROUP: usize = 1 << 20;
/// Series of a row group of waves: a row holds many samples.
const WAVE_ROW_GROUP: usize = 8 << 10;
/// Encoded bytes of a row group: what its writer holds in memory before it is flushed.
const ROW_GROUP_BYTES: usize = 32 << 20;
/// Rows, or samples of waveforms, of a page: each page costs a header and an index entry per column, which for columns that
/// hardly change is all they cost.
const PAGE_ROWS: usize = 64 << 10;
const PAGE_WAVE_SAMPLES: usize = 128 << 10;
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

/// Fields of whole numbers, which are packed as differences without a dictionary: rows are sorted, so most differ little or
/// not at all, and packing costs a fraction of looking each value up.
fn packed(kind: FileKind) -> &'static [&'static str] {
    match kind {
        FileKind::Scalar => &["device", "signal", "ts", "raw", "num", "den", "quality", "leaf"],
        FileKind::Wave => &["device", "signal", "ts", "ts_last", "period_us", "num", "den", "raw", "leaf"],
        FileKind::Frames => &["leaf", "device", "seq", "t0", "received_at", "flags", "clock", "wall", "mono"],
    }
}

/// Columns that a reader prunes by.
const PRUNED_BY: [&str; 5] = ["device", "signal", "ts", "ts_last", "leaf"];
/// Columns of samples that are mostly the same all over a row group: it tells, and then they are not read.
const CONSTANT: [&str; 3] = ["num", "den", "real"];

/// Whether readers rely on what a file tells of this column.
pub(crate) fn is_told(kind: FileKind, name: &str) -> bool {
    told(kind, name) != Told::Nowhere
}

fn told(kind: FileKind, name: &str) -> Told {
    match kind {
        _ if PRUNED_BY.contains(&name) => Told::OfPages,
        FileKind::Scalar if CONSTANT.contains(&name) => Told::OfChunk,
        _ => Told::Nowhere,
    }
}

/// For the columns that are not packed.
fn properties(kind: FileKind) -> WriterProperties {
    let mut builder = WriterProperties::builder()
        .set_max_row_group_row_count(None)
        .set_data_page_row_count_limit(page_rows(kind))
        .set_compression(Compression::ZSTD(zstd_level()))
        .set_statistics_enabled(EnabledStatistics::None)
        .set_dictionary_enabled(false);
    if kind == FileKind::Frames {
        for name in ["boot", "code", "kid", "shape"] {
            builder = builder.set_column_dictionary_enabled(column(name), true);
        }
    }
    if kind == FileKind::Scalar {
        for name in CONSTANT {
            builder = builder.set_column_statistics_enabled(column(name), EnabledStatistics::Chunk);
        }
    }
    // Hashes and signatures do not compress.
    for name in ["signature", "prev", "block"] {
        builder = builder.set_column_compression(column(name), Compression::UNCOMPRESSED);
    }
    builder.build()
}

fn zstd_level() -> ZstdLevel {
    ZstdLevel::try_new(ZSTD_LEVEL).unwrap_or_default()
}

fn page_rows(kind: FileKind) -> usize {
    match kind {
        FileKind::Frames => FRAMES_PAGE_ROWS,
        FileKind::Scalar => PAGE_ROWS,
        FileKind::Wave => PAGE_WAVE_SAMPLES,
    }
}

fn group_rows(kind: FileKind) -> usize {
    match kind {
        FileKind::Scalar => SCALAR_ROW_GROUP,
        FileKind::Wave => WAVE_ROW_GROUP,
        FileKind::Frames => FRAMES_ROW_GROUP,
    }
}

fn column(name: &str) -> ColumnPath {
    ColumnPath::new(vec![name.to_owned()])
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
    schema: SchemaRef,
    file: SerializedFileWriter<Hashing<BufWriter<NewFile>>>,
    others: ArrowRowGroupWriterFactory,
    group: Vec<Part>,
    group_rows: usize,
    scratch: Scratch,
    found: Found,
}

/// One column of the row group that is being written.
enum Part {
    Packed(Box<Column>),
    Other(Box<ArrowColumnWriter>),
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

impl Part {
    /// Encoded bytes so far.
    fn bytes(&self) -> usize {
        match self {
            Part::Packed(column) => column.bytes(),
            Part::Other(writer) => writer.get_estimated_total_bytes(),
        }
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
        let writer = ArrowWriter::try_new(sink, schema.clone(), Some(properties(kind)))?;
        let (file, others) = writer.into_serialized_writer()?;
        let (disk, scratch) = (disk.clone(), Scratch::new(zstd_level())?);
        let (group, group_rows, found) = (Vec::new(), 0, Found::default());
        Ok(TableWriter { kind, disk, name, schema, file, others, group, group_rows, scratch, found })
    }

    /// Adds rows.
    pub(crate) fn write(&mut self, rows: &RecordBatch) -> Result<(), LakeError> {
        self.found.add(rows, self.kind);
        if self.group.is_empty() {
            self.begin_group()?;
        }
        for ((part, field), array) in self.group.iter_mut().zip(self.schema.fields()).zip(rows.columns()) {
            match part {
                Part::Packed(column) => column.write(array, &mut self.scratch)?,
                Part::Other(writer) => {
                    for leaf in compute_leaves(field, array)? {
                        writer.write(&leaf)?;
                    }
                }
            }
        }
        self.group_rows += rows.num_rows();
        let bytes: usize = self.group.iter().map(Part::bytes).sum();
        if self.group_rows >= group_rows(self.kind) || bytes >= ROW_GROUP_BYTES {
            self.end_group()?;
        }
        Ok(())
    }

    /// Every field is one column: a number, bytes, or a list of numbers.
    fn begin_group(&mut self) -> Result<(), LakeError> {
        let group = self.file.flushed_row_groups().len();
        let descriptions = self.file.schema_descr().columns();
        let writers = self.others.create_column_writers(group)?;
        for ((field, descr), writer) in self.schema.fields().iter().zip(descriptions).zip(writers) {
            let name = field.name().as_str();
            let column = Column::new(descr.clone(), told(self.kind, name), page_rows(self.kind));
            self.group.push(match packed(self.kind).contains(&name) {
                true => Part::Packed(Box::new(column)),
                false => Part::Other(Box::new(writer)),
            });
        }
        Ok(())
    }

    fn end_group(&mut self) -> Result<(), LakeError> {
        let mut group = self.file.next_row_group()?;
        for part in self.group.drain(..) {
            match part {
                Part::Packed(column) => {
                    let (bytes, close) = column.close(&mut self.scratch)?;
                    group.append_column(&bytes, close)?;
                }
                Part::Other(writer) => writer.close()?.append_to_row_group(&mut group)?,
            }
        }
        group.close()?;
        self.group_rows = 0;
        Ok(())
    }

    /// Makes the file durable under its name (its directory entry is synced by [`Disk::sync_dir`], once per batch).
    /// A file without rows is not made.
    pub(crate) fn finish(mut self) -> Result<Option<FileRef>, LakeError> {
        if !self.group.is_empty() {
            self.end_group()?;
        }
        let TableWriter { kind, disk, name, file, found, .. } = self;
        let io = |source| LakeError::Io { path: disk.path(&temporary(&name)), source };
        let mut sink = file.into_inner()?;
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
