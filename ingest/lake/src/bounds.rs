//! Whether what a file and its manifest tell of the file's numbers is so. Readers skip pages, row groups and whole files by the
//! lowest and the highest number told, and do not read columns told to be constant: with a false bound, rows that the frames
//! account for would be hidden from every query, or another scale be applied to them.
//!
//! Not a comparison of rows with frames, which is [`crate::check`]'s.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use arrow::compute::{cast, concat, max, min};
use arrow::datatypes::{DataType, Int64Type, SchemaRef};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder,
};
use parquet::file::metadata::PageIndexPolicy;
use schemas_evidence::{FileKind, FileRef};

use crate::LakeError;
use crate::check::Pause;
use crate::files::is_told;

/// Rows decoded at a time.
const ROWS_AT_ONCE: usize = 64 << 10;

/// Lowest and highest; `None` without a number.
type Ends = Option<(i64, i64)>;

/// What is told falsely, in words. Holds one column of a row group in memory, and pauses after each.
///
/// # Errors
/// If the file cannot be read, and those of `pause`.
pub(crate) fn problem(
    directory: &Path,
    file: &FileRef,
    pause: &Pause<'_>,
) -> Result<Option<String>, LakeError> {
    let path = directory.join(&file.name);
    let source = File::open(&path).map_err(|source| LakeError::Io { path: path.clone(), source })?;
    let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Optional);
    let metadata = ArrowReaderMetadata::load(&source, options)?;
    let looked = Looked { source, metadata };
    let names: Vec<String> =
        looked.metadata.schema().fields().iter().map(|field| field.name().clone()).collect();
    for name in names.iter().filter(|name| is_told(file.kind, name)) {
        let mut whole: Ends = None;
        for group in 0..looked.metadata.metadata().num_row_groups() {
            pause()?;
            let numbers = looked.numbers(name, group)?;
            if !looked.is_so(name, group, &numbers)? {
                return Ok(Some(format!("the file tells false bounds of {name}")));
            }
            whole = wider(whole, ends(&numbers));
        }
        if !manifest_holds(file, name, whole) {
            return Ok(Some(format!("the manifest tells false bounds of {name}")));
        }
    }
    Ok(None)
}

fn wider(a: Ends, b: Ends) -> Ends {
    match (a, b) {
        (Some(a), Some(b)) => Some((a.0.min(b.0), a.1.max(b.1))),
        (a, b) => a.or(b),
    }
}

fn ends(numbers: &Int64Array) -> Ends {
    min(numbers).zip(max(numbers))
}

/// Whether numbers lie within what is told of them. Readers use either end by itself, so each counts alone.
fn is_within(found: Ends, (least, most): (Option<i64>, Option<i64>)) -> bool {
    found.is_none_or(|(low, high)| {
        least.is_none_or(|least| least <= low) && most.is_none_or(|most| high <= most)
    })
}

/// Only files of samples are left out by their manifest.
fn manifest_holds(file: &FileRef, name: &str, found: Ends) -> bool {
    match (file.kind, name) {
        (FileKind::Frames, _) => true,
        (_, "device") => is_within(found, (Some(file.device_min.into()), Some(file.device_max.into()))),
        (_, "ts" | "ts_last") => is_within(found, (Some(file.ts_min_us), Some(file.ts_max_us))),
        _ => true,
    }
}

struct Looked {
    source: File,
    metadata: ArrowReaderMetadata,
}

impl Looked {
    /// All numbers of a column in a row group. Of floats only whether there is one matters.
    fn numbers(&self, name: &str, group: usize) -> Result<Int64Array, LakeError> {
        let source = self.source.try_clone().map_err(|source| LakeError::Io { path: name.into(), source })?;
        let mask = ProjectionMask::columns(self.metadata.parquet_schema(), [name]);
        let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(source, self.metadata.clone())
            .with_row_groups(vec![group])
            .with_projection(mask)
            .with_batch_size(ROWS_AT_ONCE)
            .build()?;
        let mut parts: Vec<ArrayRef> = Vec::new();
        for rows in reader {
            parts.push(whole_numbers(rows?.column(0))?);
        }
        let parts: Vec<&dyn Array> = parts.iter().map(|part| part.as_ref()).collect();
        match parts.is_empty() {
            true => Ok(Int64Array::from(Vec::<i64>::new())),
            false => Ok(concat(&parts)?.as_primitive::<Int64Type>().clone()),
        }
    }

    /// Whether the row group, and each page, tells no narrower bounds than its numbers have, and no more places without one.
    fn is_so(&self, name: &str, group: usize, numbers: &Int64Array) -> Result<bool, LakeError> {
        let (schema, parquet) = (self.metadata.schema(), self.metadata.parquet_schema());
        let told = StatisticsConverter::try_new(name, schema, parquet)?;
        let footer = self.metadata.metadata();
        let chunk = [footer.row_group(group)];
        let empty = told.row_group_null_counts(chunk)?;
        if empty.is_valid(0) && empty.value(0) != numbers.null_count() as u64 {
            return Ok(false);
        }
        if is_float(schema, name) {
            return Ok(true);
        }
        let bounds = Bounds::new(&told.row_group_mins(chunk)?, &told.row_group_maxes(chunk)?)?;
        Ok(bounds.hold(0, numbers) && self.pages_are_so(&told, group, numbers)?)
    }

    fn pages_are_so(
        &self,
        told: &StatisticsConverter<'_>,
        group: usize,
        numbers: &Int64Array,
    ) -> Result<bool, LakeError> {
        let footer = self.metadata.metadata();
        let (Some(index), Some(offsets)) = (footer.column_index(), footer.offset_index()) else {
            return Ok(true);
        };
        let groups = [group];
        let Some(counts) = told.data_page_row_counts(offsets, footer.row_groups(), &groups)? else {
            return Ok(true);
        };
        let low = told.data_page_mins(index, offsets, &groups)?;
        let bounds = Bounds::new(&low, &told.data_page_maxes(index, offsets, &groups)?)?;
        let mut first = 0;
        for page in 0..counts.len() {
            let rows = (counts.value(page) as usize).min(numbers.len() - first);
            if !bounds.hold(page, &numbers.slice(first, rows)) {
                return Ok(false);
            }
            first += rows;
        }
        // Pages that cover fewer rows than there are would leave the rest out.
        Ok(first == numbers.len())
    }
}

/// What is told of several stretches of a column.
struct Bounds {
    least: Int64Array,
    most: Int64Array,
}

impl Bounds {
    fn new(least: &ArrayRef, most: &ArrayRef) -> Result<Bounds, LakeError> {
        let whole = |told: &ArrayRef| -> Result<Int64Array, LakeError> {
            Ok(cast(told, &DataType::Int64)?.as_primitive::<Int64Type>().clone())
        };
        Ok(Bounds { least: whole(least)?, most: whole(most)? })
    }

    /// Whether the numbers of one stretch lie within.
    fn hold(&self, stretch: usize, numbers: &Int64Array) -> bool {
        let told =
            |ends: &Int64Array| (stretch < ends.len() && ends.is_valid(stretch)).then(|| ends.value(stretch));
        is_within(ends(numbers), (told(&self.least), told(&self.most)))
    }
}

fn is_float(schema: &SchemaRef, name: &str) -> bool {
    schema.field_with_name(name).is_ok_and(|field| field.data_type() == &DataType::Float64)
}

/// A column as whole numbers; of floats only where there is one.
fn whole_numbers(column: &ArrayRef) -> Result<ArrayRef, LakeError> {
    if column.data_type() == &DataType::Float64 {
        let (zeros, nulls) = (vec![0; column.len()], column.nulls().cloned());
        return Ok(Arc::new(Int64Array::new(zeros.into(), nulls)));
    }
    Ok(cast(column, &DataType::Int64)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guarantee: a reader may use one end where the other is not told, so one false end is enough.
    #[test]
    fn each_end_counts_alone() {
        let within = |least, most| is_within(Some((3, 7)), (least, most));
        assert!(
            within(None, None) && within(Some(3), None) && within(None, Some(7)) && within(Some(3), Some(7))
        );
        assert!(!within(Some(4), None) && !within(None, Some(6)));
        assert!(!within(Some(4), Some(7)) && !within(Some(3), Some(6)));
        assert!(is_within(None, (Some(9), Some(1))));
    }
}
