//! Reading a batch or a set back, some ranges of leaves at a time: the frames as they were signed, and their rows as they
//! lie in the files. Leaves are numbered as the files number them: those of a set run on from batch to batch. Used by look-ups, proofs and the audit; queries have a reader of their own.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use arrow::array::{Array, AsArray, PrimitiveArray, RecordBatch, RecordBatchReader};
use arrow::compute::concat_batches;
use arrow::datatypes::{
    ArrowPrimitiveType, Float64Type, Int64Type, TimestampMicrosecondType, UInt8Type, UInt16Type, UInt32Type,
};
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use parquet::arrow::arrow_reader::{
    ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowSelection, RowSelector,
};
use parquet::file::metadata::PageIndexPolicy;
use schemas_evidence::{FileKind, FileRef, Hash32};
use schemas_frame::digest16;

use crate::frames::{BLOCK_LEAVES, FramesRows};
use crate::rebuild::{Readings, rebuild};
use crate::{Admitted, LakeError};

/// Rows decoded at a time while a column of leaves is searched.
const SEARCH_ROWS: usize = 64 << 10;

/// The files of a batch, or of a set.
pub(crate) struct Stored {
    frames: PathBuf,
    scalar: Option<PathBuf>,
    wave: Option<PathBuf>,
}

type Reader = ParquetRecordBatchReaderBuilder<File>;

fn open(path: &Path) -> Result<Reader, LakeError> {
    let file = File::open(path).map_err(|source| LakeError::Io { path: path.to_owned(), source })?;
    let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Optional);
    Ok(ParquetRecordBatchReaderBuilder::try_new_with_options(file, options)?)
}

fn wrong(path: &Path, problem: &'static str) -> LakeError {
    LakeError::Stored { file: path.display().to_string(), problem }
}

fn missing(path: &Path) -> LakeError {
    wrong(path, "a column is missing or of another type")
}

/// Skips and selections for these rows, which rise.
fn selection(rows: impl Iterator<Item = usize>) -> RowSelection {
    let (mut selectors, mut at): (Vec<RowSelector>, usize) = (Vec::new(), 0);
    for row in rows {
        if row > at {
            selectors.push(RowSelector::skip(row - at));
        }
        match selectors.last_mut() {
            Some(last) if !last.skip => last.row_count += 1,
            _ => selectors.push(RowSelector::select(1)),
        }
        at = row + 1;
    }
    RowSelection::from(selectors)
}

/// Reads the selected rows in one piece: they are not gathered first and then copied.
fn read_all(reader: Reader, selection: RowSelection) -> Result<RecordBatch, LakeError> {
    let rows = selection.row_count().max(1);
    let reader = reader.with_row_selection(selection).with_batch_size(rows).build()?;
    let schema = reader.schema();
    let mut batches = reader.collect::<Result<Vec<_>, _>>()?;
    match batches.pop() {
        Some(only) if batches.is_empty() => Ok(only),
        last => Ok(concat_batches(&schema, batches.iter().chain(&last))?),
    }
}

/// Some leaves, read back.
pub(crate) struct ReadBack {
    pub(crate) frames: Vec<Admitted>,
    /// Their rows in the file's order; `None` where there is no such file.
    pub(crate) scalar: Option<RecordBatch>,
    pub(crate) wave: Option<RecordBatch>,
}

impl Stored {
    pub(crate) fn new(directory: &Path, id: &str, files: &[FileRef]) -> Result<Stored, LakeError> {
        let named = |kind| files.iter().find(|file| file.kind == kind).map(|file| directory.join(&file.name));
        let problem = "there is no frames file";
        let frames =
            named(FileKind::Frames).ok_or_else(|| LakeError::Stored { file: id.to_owned(), problem })?;
        Ok(Stored { frames, scalar: named(FileKind::Scalar), wave: named(FileKind::Wave) })
    }

    /// The frames of some leaves, in order. Each range begins where a block does, and they rise.
    pub(crate) fn frames(&self, leaves: &[Range<u32>]) -> Result<Vec<Admitted>, LakeError> {
        Ok(self.read(leaves)?.frames)
    }

    /// As [`Stored::frames`], with the rows that they were made of.
    pub(crate) fn read(&self, leaves: &[Range<u32>]) -> Result<ReadBack, LakeError> {
        let rows = leaves.iter().flat_map(|range| (range.start as usize)..(range.end as usize));
        let heads = read_all(open(&self.frames)?, selection(rows))?;
        let heads = FramesRows::of(&heads).ok_or_else(|| missing(&self.frames))?;
        let devices = heads.devices();
        let scalar = self.rows(FileKind::Scalar, leaves, devices)?;
        let wave = self.rows(FileKind::Wave, leaves, devices)?;
        let frames = {
            let scalar = scalar.as_ref().map(ScalarRows::of).transpose()?;
            let wave = wave.as_ref().map(WaveRows::of).transpose()?;
            self.rebuilt(&heads, scalar.as_ref(), wave.as_ref())?
        };
        Ok(ReadBack { frames, scalar, wave })
    }

    fn rebuilt(
        &self,
        heads: &FramesRows<'_>,
        scalar: Option<&ScalarRows<'_>>,
        wave: Option<&WaveRows<'_>>,
    ) -> Result<Vec<Admitted>, LakeError> {
        let mut frames: Vec<Admitted> = Vec::with_capacity(heads.len());
        for row in 0..heads.len() {
            let leaf = heads.leaf.value(row);
            let before = frames.last().filter(|_| !heads.starts_block(row));
            let before = before.map(|admitted| digest16(&admitted.frame));
            let bytes = match heads.bytes(row) {
                Some(bytes) => Some(bytes.to_vec()),
                None => heads.head(row, before).and_then(|head| {
                    rebuild(&head, &mut |signal, readings| {
                        scalar.iter().for_each(|rows| rows.read(leaf, signal, readings));
                        wave.iter().for_each(|rows| rows.read(leaf, signal, readings));
                    })
                }),
            };
            let bytes =
                bytes.ok_or_else(|| wrong(&self.frames, "a frame cannot be rebuilt from its rows"))?;
            frames.push(self.admitted(heads, row, bytes.into())?);
        }
        Ok(frames)
    }

    fn admitted(&self, heads: &FramesRows<'_>, row: usize, frame: Bytes) -> Result<Admitted, LakeError> {
        Ok(Admitted {
            position: 0,
            device: heads.device.value(row),
            t0_us: heads.t0.value(row),
            received_us: heads.received_at.value(row),
            flags: heads.flags.value(row).cast_unsigned(),
            code: heads.code.value(row).parse().map_err(|_| wrong(&self.frames, "an unknown code"))?,
            frame,
        })
    }

    /// The rows of some leaves in the file's order; `None` where there is no such file. `devices` are the lowest and highest
    /// that have rows there, the first thing that files are sorted by.
    fn rows(
        &self,
        kind: FileKind,
        leaves: &[Range<u32>],
        devices: (u32, u32),
    ) -> Result<Option<RecordBatch>, LakeError> {
        let path = match kind {
            FileKind::Scalar => self.scalar.as_ref(),
            FileKind::Wave => self.wave.as_ref(),
            FileKind::Frames => Some(&self.frames),
        };
        let Some(path) = path else { return Ok(None) };
        let groups = groups_of(&open(path)?, leaves, devices);
        let reader = open(path)?.with_row_groups(groups.clone());
        let mask = ProjectionMask::columns(reader.parquet_schema(), ["leaf"]);
        let mut wanted = Vec::new();
        let mut first = 0;
        for rows in reader.with_projection(mask).with_batch_size(SEARCH_ROWS).build()? {
            let rows = rows?;
            let found = rows.column(0).as_primitive_opt::<UInt32Type>().ok_or_else(|| missing(path))?;
            let within = |(row, leaf): (usize, &u32)| contains(leaves, *leaf).then_some(first + row);
            wanted.extend(found.values().iter().enumerate().filter_map(within));
            first += rows.num_rows();
        }
        let selection = selection(wanted.into_iter());
        Ok(Some(read_all(open(path)?.with_row_groups(groups), selection)?))
    }

    /// Some columns of the frames file for these leaves.
    fn columns(&self, names: &[&str], leaves: Range<u32>) -> Result<RecordBatch, LakeError> {
        let reader = open(&self.frames)?;
        let mask = ProjectionMask::columns(reader.parquet_schema(), names.iter().copied());
        let selection = selection((leaves.start as usize)..(leaves.end as usize));
        read_all(reader.with_projection(mask), selection)
    }

    /// Device, boot and sequence number of a batch's leaves.
    pub(crate) fn keys(&self, leaves: Range<u32>) -> Result<RecordBatch, LakeError> {
        self.columns(&["device", "boot", "seq"], leaves)
    }

    /// Device of each of these leaves.
    pub(crate) fn devices(&self, leaves: Range<u32>) -> Result<Vec<u32>, LakeError> {
        let rows = self.columns(&["device"], leaves)?;
        let devices = rows.column(0).as_primitive_opt::<UInt32Type>().ok_or_else(|| missing(&self.frames))?;
        Ok(devices.values().to_vec())
    }

    /// The roots of all blocks of a batch.
    pub(crate) fn block_roots(&self, leaves: Range<u32>) -> Result<Vec<Hash32>, LakeError> {
        let rows = self.columns(&["block"], leaves)?;
        let blocks = rows.column(0).as_fixed_size_binary_opt().ok_or_else(|| missing(&self.frames))?;
        let roots =
            blocks.iter().step_by(BLOCK_LEAVES).map(|root| root.and_then(|root| root.try_into().ok()));
        roots.collect::<Option<_>>().ok_or_else(|| wrong(&self.frames, "a block has no root"))
    }
}

/// Whether one of these ranges, which rise, has the leaf.
fn contains(leaves: &[Range<u32>], leaf: u32) -> bool {
    let at = leaves.partition_point(|range| range.end <= leaf);
    leaves.get(at).is_some_and(|range| range.contains(&leaf))
}

/// Row groups that may hold rows of these leaves and devices.
fn groups_of(reader: &Reader, leaves: &[Range<u32>], devices: (u32, u32)) -> Vec<usize> {
    let metadata = reader.metadata();
    let bounds = |column: &str| {
        let converter =
            StatisticsConverter::try_new(column, reader.schema(), reader.parquet_schema()).ok()?;
        let least = converter.row_group_mins(metadata.row_groups()).ok()?;
        let most = converter.row_group_maxes(metadata.row_groups()).ok()?;
        let values = |array: &dyn Array| Some(array.as_primitive_opt::<UInt32Type>()?.values().to_vec());
        Some((values(least.as_ref())?, values(most.as_ref())?))
    };
    let from = leaves.first().map_or(0, |range| range.start);
    let to = leaves.last().map_or(0, |range| range.end.saturating_sub(1));
    let wanted = [(bounds("leaf"), (from, to)), (bounds("device"), devices)];
    let may_hold = |group: &usize| {
        wanted.iter().all(|(found, (low, high))| match found {
            Some((least, most)) => match (least.get(*group), most.get(*group)) {
                (Some(least), Some(most)) => least <= high && most >= low,
                _ => true,
            },
            None => true,
        })
    };
    (0..metadata.num_row_groups()).filter(may_hold).collect()
}

/// Where the rows of each (leaf, signal) are, in the order of time: runs of rows, because series rarely overlap.
struct Index {
    runs: Vec<Run>,
}

/// Neighbouring rows of one series.
struct Run {
    key: (u32, u16),
    rows: Range<usize>,
}

impl Index {
    fn of(rows: &RecordBatch) -> Option<Index> {
        let leaves = rows.column_by_name("leaf")?.as_primitive_opt::<UInt32Type>()?.values();
        let signals = rows.column_by_name("signal")?.as_primitive_opt::<UInt16Type>()?.values();
        let mut runs: Vec<Run> = Vec::new();
        for (row, key) in leaves.iter().copied().zip(signals.iter().copied()).enumerate() {
            match runs.last_mut() {
                Some(run) if run.key == key => run.rows.end = row + 1,
                _ => runs.push(Run { key, rows: row..row + 1 }),
            }
        }
        runs.sort_unstable_by_key(|run| (run.key, run.rows.start));
        Some(Index { runs })
    }

    fn rows(&self, leaf: u32, signal: u16) -> impl Iterator<Item = Range<usize>> {
        let from = self.runs.partition_point(|run| run.key < (leaf, signal));
        let runs = self.runs.get(from..).unwrap_or_default();
        runs.iter().take_while(move |run| run.key == (leaf, signal)).map(|run| run.rows.clone())
    }
}

/// Appends the values of these rows that are there.
fn extend<T: ArrowPrimitiveType>(array: &PrimitiveArray<T>, rows: Range<usize>, into: &mut Vec<T::Native>) {
    let values = array.values().get(rows.clone()).unwrap_or_default();
    match array.nulls().filter(|nulls| nulls.null_count() > 0) {
        None => into.extend_from_slice(values),
        Some(nulls) if nulls.null_count() == nulls.len() => {}
        Some(nulls) => {
            into.extend(rows.zip(values).filter(|(row, _)| nulls.is_valid(*row)).map(|(_, value)| *value))
        }
    }
}

struct ScalarRows<'a> {
    index: Index,
    ts: &'a arrow::array::TimestampMicrosecondArray,
    raw: &'a arrow::array::Int64Array,
    real: &'a arrow::array::Float64Array,
    quality: &'a arrow::array::UInt8Array,
}

fn no_column() -> LakeError {
    LakeError::Stored { file: "rows of a batch".into(), problem: "a column is missing or of another type" }
}

impl<'a> ScalarRows<'a> {
    fn of(rows: &'a RecordBatch) -> Result<ScalarRows<'a>, LakeError> {
        let found = || {
            Some(ScalarRows {
                index: Index::of(rows)?,
                ts: rows.column_by_name("ts")?.as_primitive_opt::<TimestampMicrosecondType>()?,
                raw: rows.column_by_name("raw")?.as_primitive_opt::<Int64Type>()?,
                real: rows.column_by_name("real")?.as_primitive_opt::<Float64Type>()?,
                quality: rows.column_by_name("quality")?.as_primitive_opt::<UInt8Type>()?,
            })
        };
        found().ok_or_else(no_column)
    }

    fn read(&self, leaf: u32, signal: u16, into: &mut Readings) {
        for rows in self.index.rows(leaf, signal) {
            extend(self.ts, rows.clone(), &mut into.ts_us);
            extend(self.raw, rows.clone(), &mut into.raw);
            extend(self.real, rows.clone(), &mut into.real);
            extend(self.quality, rows, &mut into.quality);
        }
    }
}

struct WaveRows<'a> {
    index: Index,
    ts: &'a arrow::array::TimestampMicrosecondArray,
    raw: &'a arrow::array::ListArray,
    real: &'a arrow::array::ListArray,
    quality: &'a arrow::array::BinaryArray,
}

impl<'a> WaveRows<'a> {
    fn of(rows: &'a RecordBatch) -> Result<WaveRows<'a>, LakeError> {
        let found = || {
            Some(WaveRows {
                index: Index::of(rows)?,
                ts: rows.column_by_name("ts")?.as_primitive_opt::<TimestampMicrosecondType>()?,
                raw: rows.column_by_name("raw")?.as_list_opt()?,
                real: rows.column_by_name("real")?.as_list_opt()?,
                quality: rows.column_by_name("quality")?.as_binary_opt()?,
            })
        };
        found().ok_or_else(no_column)
    }

    fn read(&self, leaf: u32, signal: u16, into: &mut Readings) {
        for row in self.index.rows(leaf, signal).flatten() {
            into.ts_us.push(self.ts.value(row));
            if self.raw.is_valid(row) {
                into.raw.extend_from_slice(self.raw.value(row).as_primitive::<Int64Type>().values());
            }
            if self.real.is_valid(row) {
                into.real.extend_from_slice(self.real.value(row).as_primitive::<Float64Type>().values());
            }
            if self.quality.is_valid(row) {
                into.quality.extend_from_slice(self.quality.value(row));
            }
        }
    }
}
