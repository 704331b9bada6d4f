//! Visible rows on their way out, gathered column by column until there are as many as a batch has. Only rows the mask let
//! pass come here, as runs. Where a batch ends and how much memory it holds follow from its rows alone, never from what lay
//! between them: a client sees the one, and where a sort begins to spill shows the other. Whose rows they are is counted as
//! they leave.

use std::mem::take as taken;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, Int32Array, Int64Array, NullBufferBuilder, RecordBatch,
    RecordBatchOptions, StringViewBuilder, TimestampMicrosecondArray, UInt32Array,
};
use arrow::compute::take;
use arrow::datatypes::{Float64Type, Int32Type, Int64Type};
use arrow::error::ArrowError;
use schemas_identity::BootId;

use crate::columns::{Column, Label, Labels, Run, integers, list, named, slice, timestamps, unsigned, wrong};
use crate::reader::{BATCH_ROWS_MAX, Shape};
use crate::tables::FileKind;

/// Visible rows of one lake batch.
pub(crate) struct Found<'a> {
    pub kind: FileKind,
    pub batch: &'a RecordBatch,
    pub runs: &'a [Run],
}

/// What is not yet a full batch of `readings`.
pub(crate) struct Gathered {
    shape: Arc<Shape>,
    columns: Vec<Waiting>,
    rows: usize,
    /// Whose they are and how many, in their order.
    owners: Vec<(u32, usize)>,
}

impl Gathered {
    /// No rows yet.
    pub(crate) fn new(shape: &Arc<Shape>) -> Self {
        let columns = shape.columns.iter().map(|column| Waiting::of(*column)).collect();
        Self { shape: Arc::clone(shape), columns, rows: 0, owners: Vec::new() }
    }

    /// Rows until the batch is full.
    pub(crate) fn room(&self) -> usize {
        BATCH_ROWS_MAX.saturating_sub(self.rows)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Adds rows, no more than there is room for.
    pub(crate) fn push(&mut self, found: &Found<'_>) -> Result<(), ArrowError> {
        for column in &mut self.columns {
            column.push(found, &self.shape.labels)?;
        }
        for run in found.runs {
            self.rows += run.len;
            extend(&mut self.owners, run.who, run.len);
        }
        Ok(())
    }

    /// The batch, whose rows count as released from now on.
    pub(crate) fn take(&mut self) -> Result<RecordBatch, ArrowError> {
        for (who, rows) in self.owners.drain(..) {
            self.shape.tally.add(who, rows);
        }
        let labels = &self.shape.labels;
        let arrays = self.columns.iter_mut().map(|column| column.take(labels)).collect::<Result<_, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(taken(&mut self.rows)));
        RecordBatch::try_new_with_options(Arc::clone(&self.shape.schema), arrays, &options)
    }
}

/// Values of one column. Names are numbers until the batch is taken.
enum Waiting {
    /// Each with its number of rows; successive ones differ.
    Names(Label, Vec<(u32, usize)>),
    Numbers(Label, Vec<u32>),
    Ts(Vec<i64>),
    Values(Vec<f64>, NullBufferBuilder),
    Flags(Vec<i32>),
    ReceivedAt(Vec<i64>),
    /// Each with its number of rows; successive ones differ.
    Boots(Vec<(BootId, usize)>),
    Seqs(Vec<i64>),
}

impl Waiting {
    fn of(column: Column) -> Self {
        match column {
            Column::Name(label) => Self::Names(label, Vec::new()),
            Column::Number(label) => Self::Numbers(label, Vec::new()),
            Column::Ts => Self::Ts(Vec::new()),
            Column::Value => Self::Values(Vec::new(), NullBufferBuilder::new(BATCH_ROWS_MAX)),
            Column::Flags => Self::Flags(Vec::new()),
            Column::ReceivedAt => Self::ReceivedAt(Vec::new()),
            Column::Boot => Self::Boots(Vec::new()),
            Column::Seq => Self::Seqs(Vec::new()),
        }
    }

    fn push(&mut self, found: &Found<'_>, labels: &Labels) -> Result<(), ArrowError> {
        match self {
            Self::Names(label, out) => found.names(labels, *label, out),
            Self::Numbers(label, out) => found.numbers(labels, *label, whole(out)),
            Self::Ts(out) => found.times(whole(out)),
            Self::Values(out, nulls) => match found.kind {
                FileKind::Scalar => found.scalar_values(whole(out), nulls),
                FileKind::Wave => found.wave_values(whole(out), nulls),
            },
            Self::Flags(out) => {
                let flags: &Int32Array = named(found.batch, "flags")?
                    .as_primitive_opt::<Int32Type>()
                    .ok_or_else(|| wrong("flags"))?;
                found.each(flags.values(), whole(out))
            }
            Self::ReceivedAt(out) => found.each(timestamps(found.batch, "received_at")?.values(), whole(out)),
            Self::Boots(out) => found.boots(out),
            Self::Seqs(out) => found.each(integers(found.batch, "seq")?.values(), whole(out)),
        }
    }

    fn take(&mut self, labels: &Labels) -> Result<ArrayRef, ArrowError> {
        match self {
            Self::Names(label, names) => {
                let table = labels.names(*label);
                texts(&taken(names), |number| table.value(*number as usize))
            }
            Self::Numbers(_, rows) => Ok(Arc::new(UInt32Array::from(full(rows)))),
            Self::Ts(rows) | Self::ReceivedAt(rows) => {
                Ok(Arc::new(TimestampMicrosecondArray::from(full(rows)).with_timezone("UTC")))
            }
            Self::Values(rows, nulls) => Ok(Arc::new(Float64Array::new(full(rows).into(), nulls.finish()))),
            Self::Flags(rows) => Ok(Arc::new(Int32Array::from(full(rows)))),
            Self::Seqs(rows) => Ok(Arc::new(Int64Array::from(full(rows)))),
            Self::Boots(boots) => texts(&taken(boots), |boot| labels.boot(*boot)),
        }
    }
}

/// Makes room for a whole batch, once: what it holds must not depend on how many came when.
fn whole<T>(rows: &mut Vec<T>) -> &mut Vec<T> {
    if rows.capacity() == 0 {
        rows.reserve_exact(BATCH_ROWS_MAX);
    }
    rows
}

/// Takes the rows, without the room that a last batch did not need.
fn full<T>(rows: &mut Vec<T>) -> Vec<T> {
    let mut rows = taken(rows);
    rows.shrink_to_fit();
    rows
}

/// The text of each for its rows. A batch holds the texts of its own rows only: a sort counts the buffers of each
/// batch, and with the names of a hundred thousand people in every one its memory would be full of the same names.
fn texts<T, S: AsRef<str>>(runs: &[(T, usize)], text: impl Fn(&T) -> S) -> Result<ArrayRef, ArrowError> {
    let mut texts = StringViewBuilder::with_capacity(runs.len());
    let mut rows: Vec<u32> = Vec::with_capacity(runs.iter().map(|(_, count)| count).sum());
    for (number, (what, count)) in (0..).zip(runs) {
        texts.append_value(text(what));
        rows.resize(rows.len() + count, number);
    }
    take(&texts.finish(), &UInt32Array::from(rows), None)
}

/// Adds rows to the last run if they are of the same, and else as a run of their own.
fn extend<T: PartialEq>(runs: &mut Vec<(T, usize)>, what: T, rows: usize) {
    match runs.last_mut() {
        Some((last, count)) if *last == what => *count += rows,
        _ => runs.push((what, rows)),
    }
}

impl Found<'_> {
    /// The numbers of the rows' names.
    fn names(&self, labels: &Labels, label: Label, out: &mut Vec<(u32, usize)>) -> Result<(), ArrowError> {
        for run in self.runs {
            extend(out, labels.number(label, run).ok_or_else(|| wrong("label"))?, run.len);
        }
        Ok(())
    }

    /// The number of its name for each row.
    fn numbers(&self, labels: &Labels, label: Label, out: &mut Vec<u32>) -> Result<(), ArrowError> {
        for run in self.runs {
            let number = labels.number(label, run).ok_or_else(|| wrong("label"))?;
            out.resize(out.len() + run.len, number);
        }
        Ok(())
    }

    /// The values of a column that each lake row has one of.
    fn each<T: Copy>(&self, values: &[T], out: &mut Vec<T>) -> Result<(), ArrowError> {
        for run in self.runs {
            match self.kind {
                FileKind::Scalar => out.extend_from_slice(slice(values, run.row, run.len)?),
                FileKind::Wave => out.resize(out.len() + run.len, slice(values, run.row, 1)?[0]),
            }
        }
        Ok(())
    }

    fn times(&self, out: &mut Vec<i64>) -> Result<(), ArrowError> {
        let ts = timestamps(self.batch, "ts")?.values();
        if self.kind == FileKind::Scalar {
            return self.each(ts, out);
        }
        let periods = integers(self.batch, "period_us")?.values();
        for run in self.runs {
            let (first, period) = (slice(ts, run.row, 1)?[0], slice(periods, run.row, 1)?[0]);
            out.extend((run.start..run.start + run.len).map(|sample| sample_time(first, period, sample)));
        }
        Ok(())
    }

    fn scalar_values(&self, out: &mut Vec<f64>, nulls: &mut NullBufferBuilder) -> Result<(), ArrowError> {
        let raw = integers(self.batch, "raw")?;
        let (num, den) = (unsigned(self.batch, "num")?.values(), unsigned(self.batch, "den")?.values());
        if raw.null_count() == 0 {
            return self.plain_values((raw.values(), num, den), out, nulls);
        }
        let real =
            named(self.batch, "real")?.as_primitive_opt::<Float64Type>().ok_or_else(|| wrong("real"))?;
        for row in self.runs.iter().flat_map(|run| run.row..run.row + run.len) {
            let is_known = raw.is_valid(row) || real.is_valid(row);
            out.push(match (raw.is_valid(row), is_known) {
                (true, _) => scaled(raw.value(row), num[row], den[row]),
                (false, true) => real.value(row),
                (false, false) => 0.0,
            });
            nulls.append(is_known);
        }
        Ok(())
    }

    /// Values of rows that are all whole numbers, as nearly all are.
    fn plain_values(
        &self,
        (raw, num, den): (&[i64], &[u32], &[u32]),
        out: &mut Vec<f64>,
        nulls: &mut NullBufferBuilder,
    ) -> Result<(), ArrowError> {
        for run in self.runs {
            let part = |values| slice(values, run.row, run.len);
            let scales = part(num)?.iter().zip(part(den)?);
            let rows = slice(raw, run.row, run.len)?.iter().zip(scales);
            out.extend(rows.map(|(raw, (num, den))| scaled(*raw, *num, *den)));
            nulls.append_n_non_nulls(run.len);
        }
        Ok(())
    }

    fn wave_values(&self, out: &mut Vec<f64>, nulls: &mut NullBufferBuilder) -> Result<(), ArrowError> {
        let raw = list(self.batch, "raw")?;
        let real = list(self.batch, "real")?;
        let (num, den) = (unsigned(self.batch, "num")?, unsigned(self.batch, "den")?);
        for run in self.runs {
            let row = run.row;
            if raw.is_valid(row) {
                let values = raw.value(row);
                let values = values.as_primitive_opt::<Int64Type>().ok_or_else(|| wrong("raw"))?;
                let (num, den) = (num.value(row), den.value(row));
                let samples = slice(values.values(), run.start, run.len)?;
                out.extend(samples.iter().map(|value| scaled(*value, num, den)));
            } else {
                let values = real.value(row);
                let values = values.as_primitive_opt::<Float64Type>().ok_or_else(|| wrong("real"))?;
                out.extend_from_slice(slice(values.values(), run.start, run.len)?);
            }
            nulls.append_n_non_nulls(run.len);
        }
        Ok(())
    }

    fn boots(&self, out: &mut Vec<(BootId, usize)>) -> Result<(), ArrowError> {
        let boots = named(self.batch, "boot")?.as_fixed_size_binary_opt().ok_or_else(|| wrong("boot"))?;
        let mut add = |row: usize, rows: usize| {
            let boot = BootId(<[u8; 8]>::try_from(boots.value(row)).map_err(|_| wrong("boot"))?);
            extend(out, boot, rows);
            Ok::<(), ArrowError>(())
        };
        for run in self.runs {
            match self.kind {
                FileKind::Scalar => (run.row..run.row + run.len).try_for_each(|row| add(row, 1))?,
                FileKind::Wave => add(run.row, run.len)?,
            }
        }
        Ok(())
    }
}

/// value = (raw * num) / den: with |raw| * num < 2^53 the product is exact, so one rounding in all.
#[expect(clippy::cast_precision_loss, reason = "|raw| * num < 2^53 is the frame format's own bound")]
fn scaled(raw: i64, num: u32, den: u32) -> f64 {
    (raw as f64) * f64::from(num) / f64::from(den)
}

/// Instant of sample `index` of a regular series.
fn sample_time(first: i64, period: i64, index: usize) -> i64 {
    let index = i64::try_from(index).unwrap_or(i64::MAX);
    first.saturating_add(period.saturating_mul(index))
}

#[cfg(test)]
mod tests {
    use arrow::array::StringViewArray;

    use super::*;

    /// Guarantee: a batch of few people does not hold the names of all of them.
    #[test]
    fn texts_are_those_of_the_rows() {
        let table =
            StringViewArray::from_iter_values((0..100_000).map(|at| format!("did:key:of-somebody-{at:09}")));
        let names =
            texts(&[(7_u32, 3), (99_999, 1), (7, 2)], |number| table.value(*number as usize)).unwrap();
        let names = names.as_string_view();
        let shown: Vec<&str> = names.iter().flatten().map(|name| &name[name.len() - 5..]).collect();
        assert_eq!(shown, ["00007", "00007", "00007", "99999", "00007", "00007"]);
        assert!(names.get_array_memory_size() < 32 * 1024, "{}", names.get_array_memory_size());
    }
}
