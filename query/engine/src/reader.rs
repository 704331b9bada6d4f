//! Reading for one partition of a scan: lake batches in, masked batches of `readings` out, one at a time.
//! Synchronous; the scan calls it on blocking threads. The mask is applied here, before anything a user wrote
//! can see a row.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::compute::{BatchCoalescer, filter_record_batch};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow::error::ArrowError;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::errors::ParquetError;
use thiserror::Error;

use crate::columns::{self, Builder, Column, Labels, Run};
use crate::constant::Constants;
use crate::counts::Tally;
use crate::files::Piece;
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

/// Visible rows on their way out, put together to full batches. Where a batch ends must not tell where rows were left
/// out: a client sees it, and whether an expression fails can depend on which rows it is evaluated with.
enum Outgoing {
    Rows {
        /// What is not yet a full batch.
        parts: Box<BatchCoalescer>,
        /// A full batch that came while there were no parts: it goes out as it is.
        whole: Option<RecordBatch>,
    },
    /// No column is asked for; batches carry their number of rows only.
    Counts { schema: SchemaRef, rows: usize, is_whole: bool },
}

impl Outgoing {
    fn new(schema: &SchemaRef) -> Self {
        if schema.fields().is_empty() {
            return Self::Counts { schema: Arc::clone(schema), rows: 0, is_whole: false };
        }
        let parts = Box::new(BatchCoalescer::new(Arc::clone(schema), BATCH_ROWS_MAX));
        Self::Rows { parts, whole: None }
    }

    fn push(&mut self, batch: RecordBatch) -> Result<(), ArrowError> {
        match self {
            Self::Rows { parts, whole } if parts.is_empty() && batch.num_rows() == BATCH_ROWS_MAX => {
                // `next` is asked before anything more is pushed, so nothing is overtaken or replaced.
                *whole = Some(batch);
                Ok(())
            }
            Self::Rows { parts, .. } => parts.push_batch(batch),
            Self::Counts { rows, .. } => {
                *rows += batch.num_rows();
                Ok(())
            }
        }
    }

    fn next(&mut self) -> Result<Option<RecordBatch>, ArrowError> {
        match self {
            Self::Rows { parts, whole } => Ok(whole.take().or_else(|| parts.next_completed_batch())),
            Self::Counts { rows, is_whole, .. } if *rows < BATCH_ROWS_MAX && !(*is_whole && *rows > 0) => {
                Ok(None)
            }
            Self::Counts { schema, rows, .. } => {
                let count = BATCH_ROWS_MAX.min(*rows);
                *rows -= count;
                let options = RecordBatchOptions::new().with_row_count(Some(count));
                RecordBatch::try_new_with_options(Arc::clone(schema), Vec::new(), &options).map(Some)
            }
        }
    }

    fn finish(&mut self) -> Result<(), ArrowError> {
        match self {
            Self::Rows { parts, .. } => parts.finish_buffered_batch(),
            Self::Counts { is_whole, .. } => {
                *is_whole = true;
                Ok(())
            }
        }
    }
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

/// Reads a share to its end.
pub(crate) struct PartitionReader {
    shape: Arc<Shape>,
    units: VecDeque<Unit>,
    open: Option<Open>,
    input: Option<Input>,
    outgoing: Outgoing,
    /// Whose the rows are that wait in `outgoing`, and how many, in their order.
    waiting: VecDeque<(u32, usize)>,
    lookup: Lookup,
}

impl PartitionReader {
    /// A reader of a share.
    pub(crate) fn new(shape: Arc<Shape>, share: Share) -> Self {
        let lookup = Lookup::new(share.part);
        let outgoing = Outgoing::new(&shape.schema);
        let (units, waiting) = (share.units.into(), VecDeque::new());
        Self { shape, units, open: None, input: None, outgoing, waiting, lookup }
    }

    /// The next visible rows. Counts them per person as they are handed out, not those that wait for a full batch.
    pub(crate) fn step(&mut self) -> Result<Step, ReadError> {
        for _ in 0..STEP_BATCHES_MAX {
            if let Some(batch) = self.next_out()? {
                return Ok(Step::Batch(batch));
            }
            if let Some(input) = self.input.as_mut().filter(|input| !input.runs.is_empty()) {
                self.outgoing.push(emit(&self.shape, input, &mut self.waiting)?)?;
                continue;
            }
            let Some((kind, batch)) = self.next_lake_batch()? else {
                self.outgoing.finish()?;
                return Ok(self.next_out()?.map_or(Step::End, Step::Batch));
            };
            let runs = match kind {
                FileKind::Scalar => scalar_runs(&batch, &mut self.lookup)?,
                FileKind::Wave => wave_runs(&batch, &mut self.lookup)?,
            };
            self.input = Some(Input { kind, batch, runs });
        }
        Ok(self.next_out()?.map_or(Step::Nothing, Step::Batch))
    }

    fn next_out(&mut self) -> Result<Option<RecordBatch>, ReadError> {
        let Some(batch) = self.outgoing.next()? else { return Ok(None) };
        let mut left = batch.num_rows();
        while left > 0 {
            let Some((who, rows)) = self.waiting.front_mut() else { break };
            let counted = left.min(*rows);
            self.shape.tally.add(*who, counted);
            left -= counted;
            *rows -= counted;
            if *rows == 0 {
                self.waiting.pop_front();
            }
        }
        Ok(Some(batch))
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

/// Takes up to a batch's worth of runs off the input and builds their rows, which wait from then on.
fn emit(
    shape: &Shape,
    input: &mut Input,
    waiting: &mut VecDeque<(u32, usize)>,
) -> Result<RecordBatch, ReadError> {
    let mut taken = Vec::new();
    let mut room = BATCH_ROWS_MAX;
    while room > 0 {
        let Some(run) = input.runs.pop_front() else { break };
        if run.len <= room {
            room -= run.len;
            taken.push(run);
            continue;
        }
        let mut rest = run;
        rest.len -= room;
        match input.kind {
            FileKind::Scalar => rest.row += room,
            FileKind::Wave => rest.start += room,
        }
        input.runs.push_front(rest);
        taken.push(Run { len: room, ..run });
        room = 0;
    }
    let builder = Builder { kind: input.kind, batch: &input.batch, runs: &taken, labels: &shape.labels };
    let batch = builder.build(&shape.schema, &shape.columns)?;
    for run in &taken {
        match waiting.back_mut() {
            Some((who, rows)) if *who == run.who => *rows += run.len,
            _ => waiting.push_back((run.who, run.len)),
        }
    }
    Ok(batch)
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
