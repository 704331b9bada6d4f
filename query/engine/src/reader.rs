//! Reading for one partition of a scan: lake batches in, masked batches of `readings` out, one at a time.
//! Synchronous; the scan calls it on blocking threads. The mask is applied here, before anything a user wrote
//! can see a row.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow::error::ArrowError;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::errors::ParquetError;
use thiserror::Error;

use crate::columns::{self, Column, Labels, Run};
use crate::constant::Constants;
use crate::counts::Tally;
use crate::files::Piece;
use crate::gather::{Found, Gathered};
use crate::mask::{Interval, Lookup, Part};
use crate::origins::{OriginFiles, Origins};
use crate::positions::Positions;
use crate::tables::FileKind;

/// Most rows of one output batch.
pub(crate) const BATCH_ROWS_MAX: usize = 8192;
/// Lake rows decoded at once from a wave file: each may stand for thousands of samples.
const WAVE_ROWS: usize = 16;
/// Most lake batches looked at in one step, so that a scan which shows nothing still yields.
const STEP_BATCHES_MAX: usize = 16;

/// A file or batch that could not be read.
#[derive(Debug, Error)]
pub(crate) enum ReadError {
    /// From Parquet.
    #[error("parquet: {0}")]
    Parquet(#[from] ParquetError),
    /// From Arrow.
    #[error("arrow: {0}")]
    Arrow(#[from] ArrowError),
    /// From the file system.
    #[error("file: {0}")]
    Io(#[from] std::io::Error),
}

/// One thing to read.
#[derive(Clone)]
pub(crate) enum Unit {
    /// Part of a file.
    Piece(Piece),
    /// Rows not sealed yet.
    Tail(FileKind, RecordBatch),
}

/// What one partition of a scan reads.
#[derive(Clone)]
pub(crate) struct Share {
    /// Its part of the mask.
    pub part: Part,
    /// Where its rows lie, in the order in which they are given.
    pub units: Vec<Unit>,
}

/// What every partition of a scan has alike.
pub(crate) struct Shape {
    /// Texts of the mask.
    pub labels: Arc<Labels>,
    /// Where released rows are counted.
    pub tally: Arc<Tally>,
    /// Output schema (projected).
    pub schema: SchemaRef,
    /// Output columns.
    pub columns: Vec<Column>,
    /// Frames files read for the columns that rows find there.
    pub origins: OriginFiles,
}

impl Shape {
    /// The same with the names' numbers in these columns.
    pub(crate) fn numbered(&self, columns: &[usize]) -> Shape {
        let mut fields: Vec<FieldRef> = self.schema.fields().iter().cloned().collect();
        let mut shown = self.columns.clone();
        for column in columns {
            let (Some(field), Some(what)) = (fields.get_mut(*column), shown.get_mut(*column)) else {
                continue;
            };
            if let Column::Name(label) = *what {
                *what = Column::Number(label);
                *field = Arc::new(Field::new(field.name(), DataType::UInt32, false));
            }
        }
        Shape {
            labels: Arc::clone(&self.labels),
            tally: Arc::clone(&self.tally),
            schema: Arc::new(Schema::new(fields)),
            columns: shown,
            origins: OriginFiles::default(),
        }
    }
}

/// A step's outcome.
pub(crate) enum Step {
    /// Visible rows.
    Batch(RecordBatch),
    /// Nothing visible yet; call again.
    Nothing,
    /// The end.
    End,
}

/// A piece of a file that is being read.
struct Open {
    kind: FileKind,
    reader: ParquetRecordBatchReader,
    /// Columns that are not read.
    constants: Constants,
    /// Columns of the frames file, if the query asks for them.
    origins: Option<Arc<Origins>>,
    /// Rows from this leaf on came after the view.
    leaf_limit: Option<u32>,
}

impl Open {
    /// The rows that belong to the view, with all columns the query asks for.
    fn own(&mut self, rows: RecordBatch) -> Result<RecordBatch, ArrowError> {
        let mut rows = self.constants.attach(rows)?;
        if let Some(limit) = self.leaf_limit {
            let leaves = columns::unsigned(&rows, "leaf")?;
            rows = filter_record_batch(&rows, &BooleanArray::from_unary(leaves, |leaf| leaf < limit))?;
        }
        match &self.origins {
            Some(origins) => origins.attach(&rows),
            None => Ok(rows),
        }
    }
}

struct Input {
    kind: FileKind,
    batch: RecordBatch,
    runs: VecDeque<Run>,
}

impl Input {
    /// Takes as many rows off it as there is room for.
    fn pass_to(&mut self, gathered: &mut Gathered) -> Result<(), ArrowError> {
        let mut taken = Vec::new();
        let mut room = gathered.room();
        while room > 0 {
            let Some(run) = self.runs.pop_front() else { break };
            if run.len <= room {
                room -= run.len;
                taken.push(run);
                continue;
            }
            let mut rest = run;
            rest.len -= room;
            match self.kind {
                FileKind::Scalar => rest.row += room,
                FileKind::Wave => rest.start += room,
            }
            self.runs.push_front(rest);
            taken.push(Run { len: room, ..run });
            room = 0;
        }
        gathered.push(&Found { kind: self.kind, batch: &self.batch, runs: &taken })
    }
}

/// Reads a share to its end.
pub(crate) struct PartitionReader {
    shape: Arc<Shape>,
    units: VecDeque<Unit>,
    open: Option<Open>,
    input: Option<Input>,
    gathered: Gathered,
    lookup: Lookup,
}

impl PartitionReader {
    /// A reader of a share.
    pub(crate) fn new(shape: Arc<Shape>, share: Share) -> Self {
        let lookup = Lookup::new(share.part);
        let gathered = Gathered::new(&shape);
        Self { shape, units: share.units.into(), open: None, input: None, gathered, lookup }
    }

    /// The next visible rows: as many as a batch has, and what is left at the end.
    pub(crate) fn step(&mut self) -> Result<Step, ReadError> {
        for _ in 0..STEP_BATCHES_MAX {
            if let Some(input) = self.input.as_mut().filter(|input| !input.runs.is_empty()) {
                input.pass_to(&mut self.gathered)?;
                if self.gathered.room() == 0 {
                    return Ok(Step::Batch(self.gathered.take()?));
                }
                continue;
            }
            let Some((kind, batch)) = self.next_lake_batch()? else {
                return Ok(match self.gathered.is_empty() {
                    true => Step::End,
                    false => Step::Batch(self.gathered.take()?),
                });
            };
            let runs = match kind {
                FileKind::Scalar => scalar_runs(&batch, &mut self.lookup)?,
                FileKind::Wave => wave_runs(&batch, &mut self.lookup)?,
            };
            self.input = Some(Input { kind, batch, runs });
        }
        Ok(Step::Nothing)
    }

    fn next_lake_batch(&mut self) -> Result<Option<(FileKind, RecordBatch)>, ReadError> {
        loop {
            if let Some(open) = &mut self.open {
                if let Some(batch) = open.reader.next() {
                    let rows = open.own(batch?)?;
                    return Ok(Some((open.kind, rows)));
                }
                self.open = None;
            }
            match self.units.pop_front() {
                None => return Ok(None),
                Some(Unit::Tail(kind, batch)) => return Ok(Some((kind, batch))),
                Some(Unit::Piece(piece)) => self.open = Some(self.open_piece(piece)?),
            }
        }
    }

    fn open_piece(&self, piece: Piece) -> Result<Open, ReadError> {
        let kind = piece.file.kind;
        let mut wanted = columns::sources(kind, &self.shape.columns, self.lookup.is_timeless());
        let frames = piece.file.frames.as_ref().filter(|_| columns::wants_origin(&self.shape.columns));
        let origins = frames.map(|frames| self.shape.origins.load(&frames.path)).transpose()?;
        let leaf_limit = piece.file.leaf_limit;
        if origins.is_some() || leaf_limit.is_some() {
            wanted.push("leaf");
        }
        let constants = match kind {
            FileKind::Scalar => Constants::take(&piece.file.metadata, piece.group, &mut wanted),
            FileKind::Wave => Constants::default(),
        };
        let parquet = piece.file.metadata.parquet_schema();
        let roots: Vec<usize> = parquet
            .root_schema()
            .get_fields()
            .iter()
            .enumerate()
            .filter(|(_, field)| wanted.contains(&field.name()))
            .map(|(index, _)| index)
            .collect();
        let projection = ProjectionMask::roots(parquet, roots);
        let source = Positions::open(&piece.file.path)?;
        let mut builder =
            ParquetRecordBatchReaderBuilder::new_with_metadata(source, piece.file.metadata.clone())
                .with_row_groups(vec![piece.group])
                .with_projection(projection)
                .with_batch_size(match kind {
                    FileKind::Scalar => BATCH_ROWS_MAX,
                    FileKind::Wave => WAVE_ROWS,
                });
        if let Some(selection) = piece.selection {
            builder = builder.with_row_selection(selection);
        }
        Ok(Open { kind, reader: builder.build()?, constants, origins, leaf_limit })
    }
}

/// The one interval that holds an instant.
fn covering(intervals: &[Interval], at: i64) -> Option<&Interval> {
    let index = intervals.partition_point(|interval| interval.to <= at);
    intervals.get(index).filter(|interval| interval.from <= at)
}

fn scalar_runs(batch: &RecordBatch, lookup: &mut Lookup) -> Result<VecDeque<Run>, ReadError> {
    let devices = columns::unsigned(batch, "device")?.values();
    let signals = columns::signals(batch)?.values();
    // Not read where the mask needs none.
    let times = match lookup.is_timeless() {
        true => None,
        false => Some(columns::timestamps(batch, "ts")?.values()),
    };
    let mut runs: VecDeque<Run> = VecDeque::new();
    let mut start = 0;
    while let (Some(device), Some(signal)) = (devices.get(start), signals.get(start)) {
        let len = stretch(&devices[start..], &signals[start..], (*device, *signal));
        let intervals = lookup.get(*device, *signal);
        let first = Run { row: start, start: 0, len: 0, who: 0, device: *device, signal: *signal };
        match (intervals, times) {
            ([], _) => {}
            ([only, ..], None) => runs.push_back(Run { len, who: only.who, ..first }),
            ([only], Some(times)) => one_interval(only, &times[start..start + len], first, &mut runs),
            (many, Some(times)) => many_intervals(many, &times[start..start + len], first, &mut runs),
        }
        start += len;
    }
    Ok(runs)
}

/// How many rows from the first on are of one device and signal. Files are sorted by both, so that a stretch is long, and
/// whole blocks of rows are compared without a branch for each.
fn stretch(devices: &[u32], signals: &[u16], (device, signal): (u32, u16)) -> usize {
    const BLOCK: usize = 16;
    let (device_blocks, _) = devices.as_chunks::<BLOCK>();
    let (signal_blocks, _) = signals.as_chunks::<BLOCK>();
    let is_whole = |(devices, signals): &(&[u32; BLOCK], &[u16; BLOCK])| {
        let others = devices.iter().fold(0, |others, found| others | (found ^ device));
        others == 0 && signals.iter().fold(0, |others, found| others | (found ^ signal)) == 0
    };
    let whole = device_blocks.iter().zip(signal_blocks).take_while(is_whole).count() * BLOCK;
    let rest = devices[whole..].iter().zip(&signals[whole..]);
    whole + rest.take_while(|pair| *pair == (&device, &signal)).count()
}

/// Runs of a stretch of one device and signal whose times lie in the interval.
fn one_interval(interval: &Interval, times: &[i64], first: Run, runs: &mut VecDeque<Run>) {
    let is_inside = |at: &i64| interval.from <= *at && *at < interval.to;
    let mut row = 0;
    while let Some(skip) = times[row..].iter().position(is_inside) {
        row += skip;
        let len = times[row..].iter().take_while(|at| is_inside(at)).count();
        runs.push_back(Run { row: first.row + row, len, who: interval.who, ..first });
        row += len;
    }
}

/// The same where the device was on several bodies, or consent has gaps.
fn many_intervals(intervals: &[Interval], times: &[i64], first: Run, runs: &mut VecDeque<Run>) {
    let mut open: Option<Run> = None;
    for (row, at) in times.iter().enumerate() {
        let who = covering(intervals, *at).map(|interval| interval.who);
        match (&mut open, who) {
            (Some(run), Some(who)) if run.who == who => run.len += 1,
            (_, who) => {
                runs.extend(open.take());
                open = who.map(|who| Run { row: first.row + row, len: 1, who, ..first });
            }
        }
    }
    runs.extend(open);
}

fn wave_runs(batch: &RecordBatch, lookup: &mut Lookup) -> Result<VecDeque<Run>, ReadError> {
    let devices = columns::unsigned(batch, "device")?;
    let signals = columns::signals(batch)?;
    let first = columns::timestamps(batch, "ts")?;
    let last = columns::timestamps(batch, "ts_last")?;
    let periods = columns::integers(batch, "period_us")?;
    let mut runs = VecDeque::new();
    for row in 0..batch.num_rows() {
        let (device, signal) = (devices.value(row), signals.value(row));
        let series = Series { first: first.value(row), last: last.value(row), period: periods.value(row) };
        for interval in lookup.get(device, signal) {
            let (start, end) = (series.index_at(interval.from), series.index_at(interval.to));
            if start < end {
                runs.push_back(Run { row, start, len: end - start, who: interval.who, device, signal });
            }
        }
    }
    Ok(runs)
}

/// A regular series: where its samples lie in time.
struct Series {
    first: i64,
    last: i64,
    period: i64,
}

impl Series {
    /// Samples in it.
    fn len(&self) -> usize {
        let span = self.last.saturating_sub(self.first);
        if span < 0 || self.period <= 0 {
            return 0;
        }
        usize::try_from(span / self.period).unwrap_or(0).saturating_add(1)
    }

    /// Index of the first sample at or after `at`; its length if there is none.
    fn index_at(&self, at: i64) -> usize {
        if at <= self.first {
            return 0;
        }
        if self.period <= 0 || at > self.last {
            return self.len();
        }
        let gap = i128::from(at) - i128::from(self.first);
        let period = i128::from(self.period);
        usize::try_from((gap + period - 1) / period).unwrap_or(usize::MAX).min(self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first sample at or after an instant is found exactly, at the edges and between samples.
    #[test]
    fn sample_index() {
        let series = Series { first: 1_000, last: 1_030, period: 10 };
        for (at, index) in [
            (i64::MIN, 0),
            (1_000, 0),
            (1_001, 1),
            (1_010, 1),
            (1_011, 2),
            (1_030, 3),
            (1_031, 4),
            (i64::MAX, 4),
        ] {
            assert_eq!(series.index_at(at), index, "{at}");
        }
    }
}
