//! Several sorted files become one, read and written in slices: memory is bounded by the number of inputs, not by their size.
//!
//! Leaves of an input come after those of the inputs before it, so (device, signal, ts, input) is the order of (device,
//! signal, ts, leaf), and within one input rows keep their order.

use std::fs::File;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch, UInt32Array};
use arrow::compute::interleave_record_batch;
use arrow::datatypes::{SchemaRef, TimestampMicrosecondType, UInt16Type, UInt32Type};
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};

use crate::LakeError;

/// Most rows of a slice.
const SLICE_ROWS: usize = 16 << 10;
/// Shortest runs, on the average, that are worth a slice of their own.
const RUN_ROWS_MIN: usize = 64;
/// Most rows decoded at a time from one input.
const INPUT_ROWS_MAX: usize = 8 << 10;
/// Memory meant for the rows decoded at a time from one input.
const INPUT_BYTES: u64 = 1 << 20;
/// How much larger rows are in memory than encoded in a file, about: half a byte of a packed whole number becomes eight.
const DECODED_PER_ENCODED: u64 = 16;

/// A file to merge.
pub(crate) struct Input {
    pub(crate) path: PathBuf,
    /// Added to its leaves.
    pub(crate) offset: u32,
}

/// What takes slices of rows.
pub(crate) type Take<'a> = dyn FnMut(RecordBatch) -> Result<(), LakeError> + 'a;

/// The rows of one input, slice by slice.
struct Slices<'a> {
    input: &'a Input,
    schema: SchemaRef,
    reader: ParquetRecordBatchReader,
}

impl<'a> Slices<'a> {
    fn open(input: &'a Input, schema: &SchemaRef) -> Result<Slices<'a>, LakeError> {
        let file =
            File::open(&input.path).map_err(|source| LakeError::Io { path: input.path.clone(), source })?;
        let builder = ParquetRecordBatchReaderBuilder::try_new(file)?;
        let metadata = builder.metadata();
        let rows = u64::try_from(metadata.file_metadata().num_rows()).unwrap_or(0).max(1);
        let encoded: i64 = metadata.row_groups().iter().map(|group| group.total_byte_size()).sum();
        let row_bytes = u64::try_from(encoded).unwrap_or(0) * DECODED_PER_ENCODED / rows;
        let at_once = usize::try_from(INPUT_BYTES / row_bytes.max(1)).unwrap_or(INPUT_ROWS_MAX);
        let reader = builder.with_batch_size(at_once.clamp(1, INPUT_ROWS_MAX)).build()?;
        Ok(Slices { input, schema: schema.clone(), reader })
    }

    /// The next rows, their leaves numbered anew.
    fn next(&mut self) -> Result<Option<RecordBatch>, LakeError> {
        let Some(rows) = self.reader.next() else { return Ok(None) };
        let rows = rows?;
        let place = self.schema.index_of("leaf")?;
        let leaves = rows.column(place).as_primitive_opt::<UInt32Type>().ok_or_else(|| self.wrong())?;
        // What overflows was no leaf of this input; the check of the set finds it.
        let moved: UInt32Array = leaves.unary(|leaf| leaf.wrapping_add(self.input.offset));
        let mut columns = rows.columns().to_vec();
        columns[place] = Arc::new(moved);
        Ok(Some(RecordBatch::try_new(self.schema.clone(), columns)?))
    }

    fn wrong(&self) -> LakeError {
        let problem = "a column is missing or of another type";
        LakeError::Stored { file: self.input.path.display().to_string(), problem }
    }
}

/// Rows of the inputs, one input after the other.
pub(crate) fn append(inputs: &[Input], schema: &SchemaRef, take: &mut Take<'_>) -> Result<(), LakeError> {
    for input in inputs {
        let mut slices = Slices::open(input, schema)?;
        while let Some(rows) = slices.next()? {
            take(rows)?;
        }
    }
    Ok(())
}

/// Rows of the inputs by device, signal, time and leaf, given that each has them so.
pub(crate) fn merge(inputs: &[Input], schema: &SchemaRef, take: &mut Take<'_>) -> Result<(), LakeError> {
    let mut cursors = Vec::with_capacity(inputs.len());
    for input in inputs {
        let mut cursor = Cursor {
            slices: Slices::open(input, schema)?,
            rows: RecordBatch::new_empty(schema.clone()),
            keys: Keys::default(),
            row: 0,
        };
        cursor.advance()?;
        cursors.push(cursor);
    }
    let mut chosen = Chosen::default();
    while let Some((least, bound)) = least_of(&cursors) {
        let Some(cursor) = cursors.get_mut(least) else { break };
        while let Some(key) = cursor.key() {
            if bound.is_some_and(|bound| (key, least) > bound) || chosen.rows >= SLICE_ROWS {
                break;
            }
            chosen.push(least, cursor.row);
            cursor.row += 1;
        }
        let is_used_up = cursor.key().is_none();
        if is_used_up || chosen.rows >= SLICE_ROWS {
            flush(&cursors, &mut chosen, take)?;
        }
        if let Some(cursor) = cursors.get_mut(least).filter(|_| is_used_up) {
            cursor.advance()?;
        }
    }
    Ok(())
}

/// Device, signal, time.
type Key = (u32, u16, i64);
/// The key of an input's next row, and the input.
type Turn = (Key, usize);

#[derive(Default)]
struct Keys {
    devices: arrow::buffer::ScalarBuffer<u32>,
    signals: arrow::buffer::ScalarBuffer<u16>,
    times: arrow::buffer::ScalarBuffer<i64>,
}

impl Keys {
    fn of(rows: &RecordBatch) -> Option<Keys> {
        Some(Keys {
            devices: rows.column_by_name("device")?.as_primitive_opt::<UInt32Type>()?.values().clone(),
            signals: rows.column_by_name("signal")?.as_primitive_opt::<UInt16Type>()?.values().clone(),
            times: rows
                .column_by_name("ts")?
                .as_primitive_opt::<TimestampMicrosecondType>()?
                .values()
                .clone(),
        })
    }
}

/// Where the merge is in one input.
struct Cursor<'a> {
    slices: Slices<'a>,
    rows: RecordBatch,
    keys: Keys,
    row: usize,
}

impl Cursor<'_> {
    /// Key of the next row; `None` once all decoded rows are used up.
    fn key(&self) -> Option<Key> {
        let at = self.row;
        Some((*self.keys.devices.get(at)?, *self.keys.signals.get(at)?, *self.keys.times.get(at)?))
    }

    /// Decodes the next rows; at the end there are none.
    fn advance(&mut self) -> Result<(), LakeError> {
        self.row = 0;
        self.rows = match self.slices.next()? {
            Some(rows) => rows,
            None => RecordBatch::new_empty(self.slices.schema.clone()),
        };
        self.keys = Keys::of(&self.rows).ok_or_else(|| self.slices.wrong())?;
        Ok(())
    }
}

/// The input whose turn it is, and the key and input whose turn ends it; there are few inputs.
fn least_of(cursors: &[Cursor<'_>]) -> Option<(usize, Option<Turn>)> {
    let (mut least, mut second): (Option<Turn>, Option<Turn>) = (None, None);
    for (cursor, index) in cursors.iter().zip(0..) {
        let Some(key) = cursor.key() else { continue };
        let found = Some((key, index));
        if least.is_none() || found < least {
            second = least;
            least = found;
        } else if second.is_none() || found < second {
            second = found;
        }
    }
    least.map(|(_, index)| (index, second))
}

/// Rows that are next, in order: runs of neighbouring rows of an input.
#[derive(Default)]
struct Chosen {
    runs: Vec<(usize, Range<usize>)>,
    rows: usize,
}

impl Chosen {
    fn push(&mut self, input: usize, row: usize) {
        self.rows += 1;
        match self.runs.last_mut() {
            Some((last, rows)) if *last == input && rows.end == row => rows.end += 1,
            _ => self.runs.push((input, row..row + 1)),
        }
    }
}

fn flush(cursors: &[Cursor<'_>], chosen: &mut Chosen, take: &mut Take<'_>) -> Result<(), LakeError> {
    let Chosen { runs, rows } = std::mem::take(chosen);
    if rows >= RUN_ROWS_MIN * runs.len() {
        // Series of several batches rarely overlap: whole runs are handed on without a copy.
        for (input, rows) in runs {
            let Some(cursor) = cursors.get(input) else { continue };
            take(cursor.rows.slice(rows.start, rows.len()))?;
        }
        return Ok(());
    }
    let inputs: Vec<&RecordBatch> = cursors.iter().map(|cursor| &cursor.rows).collect();
    let each: Vec<(usize, usize)> =
        runs.into_iter().flat_map(|(input, rows)| rows.map(move |row| (input, row))).collect();
    take(interleave_record_batch(&inputs, &each)?)
}
