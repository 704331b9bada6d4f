//! Columns that are one and the same all over a row group, which its statistics tell: scales, and the numbers that
//! nobody sent as floats. They are not read but made.
//!
//! Only columns that say nothing about whose row it is: those of the mask are read for each row.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt32Array, new_null_array};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, UInt32Type};
use arrow::error::ArrowError;
use parquet::arrow::arrow_reader::ArrowReaderMetadata;
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;

use crate::reader::BATCH_ROWS_MAX;

/// Columns that may be constant: whole numbers, and one that may be all empty.
const NUMBERS: [&str; 2] = ["num", "den"];
const EMPTY: &str = "real";

/// The constant columns of one row group, as long as a batch may be.
#[derive(Default)]
pub(crate) struct Constants {
    columns: Vec<(FieldRef, ArrayRef)>,
    /// Of the rows with these columns, once there was a batch.
    schema: Option<SchemaRef>,
}

impl Constants {
    /// Takes the columns that are constant out of what is to be read of a row group of scalar rows.
    pub(crate) fn take(metadata: &ArrowReaderMetadata, group: usize, wanted: &mut Vec<&str>) -> Self {
        let mut columns = Vec::new();
        wanted.retain(|name| match constant(metadata, group, name) {
            Some((kind, array)) => {
                columns.push((Arc::new(Field::new(*name, kind, *name == EMPTY)), array));
                false
            }
            None => true,
        });
        Self { columns, schema: None }
    }

    /// Adds them to rows that were read.
    pub(crate) fn attach(&mut self, rows: RecordBatch) -> Result<RecordBatch, ArrowError> {
        if self.columns.is_empty() {
            return Ok(rows);
        }
        let schema = self.schema.get_or_insert_with(|| {
            let read = rows.schema();
            let fields = read.fields().iter().chain(self.columns.iter().map(|(field, _)| field));
            Arc::new(Schema::new(fields.cloned().collect::<Vec<_>>()))
        });
        let made = self.columns.iter().map(|(_, array)| array.slice(0, rows.num_rows().min(array.len())));
        let arrays = rows.columns().iter().cloned().chain(made).collect();
        RecordBatch::try_new(Arc::clone(schema), arrays)
    }
}

fn constant(metadata: &ArrowReaderMetadata, group: usize, name: &str) -> Option<(DataType, ArrayRef)> {
    if name != EMPTY && !NUMBERS.contains(&name) {
        return None;
    }
    let found = StatisticsConverter::try_new(name, metadata.schema(), metadata.parquet_schema()).ok()?;
    let group = metadata.metadata().row_group(group);
    if name == EMPTY {
        let nulls = found.row_group_null_counts([group]).ok()?;
        let all = u64::try_from(group.num_rows()).ok()?;
        let is_empty = nulls.is_valid(0) && nulls.value(0) == all;
        return is_empty.then(|| (DataType::Float64, new_null_array(&DataType::Float64, BATCH_ROWS_MAX)));
    }
    let (least, most) = (found.row_group_mins([group]).ok()?, found.row_group_maxes([group]).ok()?);
    let only = |array: &ArrayRef| {
        let numbers = array.as_primitive_opt::<UInt32Type>()?;
        numbers.is_valid(0).then(|| numbers.value(0))
    };
    let (least, most) = (only(&least)?, only(&most)?);
    (least == most).then(|| {
        let array: ArrayRef = Arc::new(UInt32Array::from_value(least, BATCH_ROWS_MAX));
        (DataType::UInt32, array)
    })
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use parquet::arrow::ProjectionMask;
    use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
    use tempfile::TempDir;

    use super::*;
    use crate::tables::FileKind;
    use crate::tests::fixture::{readings, scalar_batch, write};

    /// Guarantee: only columns that are the same all over the row group are not read, and what is made in their place is
    /// what the file has.
    #[test]
    fn made_columns_are_those_of_the_file() {
        let dir = TempDir::new().unwrap();
        let mut rows = readings(&[1], 0, 100);
        for (row, reading) in rows.iter_mut().enumerate() {
            reading.den = if row < 600 { 4 } else { 2 + row as u32 % 2 };
        }
        let whole = scalar_batch(&rows);
        let file = write(dir.path(), "s", FileKind::Scalar, &whole, 600);
        let source = File::open(&file.path).unwrap();
        let metadata = ArrowReaderMetadata::load(&source, ArrowReaderOptions::new()).unwrap();
        let all = ["device", "raw", "num", "den", "real"];
        for (group, read) in [(0, vec!["device", "raw"]), (1, vec!["device", "raw", "den"])] {
            let mut wanted = all.to_vec();
            let mut constants = Constants::take(&metadata, group, &mut wanted);
            assert_eq!(wanted, read);
            let mask = ProjectionMask::columns(metadata.parquet_schema(), wanted);
            let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(
                source.try_clone().unwrap(),
                metadata.clone(),
            )
            .with_row_groups(vec![group])
            .with_projection(mask)
            .with_batch_size(250);
            let mut first = group * 600;
            for rows in reader.build().unwrap() {
                let rows = constants.attach(rows.unwrap()).unwrap();
                for name in all {
                    let expected = whole.column_by_name(name).unwrap().slice(first, rows.num_rows());
                    assert_eq!(rows.column_by_name(name).unwrap(), &expected, "{name}");
                }
                first += rows.num_rows();
            }
            assert_eq!(first, (group + 1) * 600);
        }
    }
}
