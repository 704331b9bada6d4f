//! What an engine answers, in a form that compares fast and reads well where it differs.

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Float64Type, Schema};
use arrow::row::{RowConverter, SortField};

use crate::tests::fixture::text_rows;

/// Types and rows. Equal if the types are the same and the rows are in some order.
#[derive(Debug)]
pub(crate) struct Answer {
    types: String,
    /// Arrow's row format, sorted; each row after its length.
    rows: Vec<u8>,
    /// As they came.
    batches: Vec<RecordBatch>,
}

impl PartialEq for Answer {
    fn eq(&self, other: &Self) -> bool {
        self.types == other.types && self.rows == other.rows
    }
}

impl Answer {
    /// Batches of one schema. Doubles count to nine digits: sums of thirds depend on their order.
    pub(crate) fn new(schema: &Schema, batches: &[RecordBatch]) -> Answer {
        let types: Vec<String> = schema.fields().iter().map(|field| field.data_type().to_string()).collect();
        let rounded: Vec<RecordBatch> = batches.iter().map(rounded).collect();
        Answer { types: types.join("|"), rows: sorted(schema, &rounded), batches: batches.to_vec() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// How many rows.
    pub(crate) fn count(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }

    /// Whether a column is of doubles.
    pub(crate) fn has_doubles(&self) -> bool {
        self.types.contains("Float64")
    }

    /// Whether the rows came in an order of all their columns.
    pub(crate) fn is_in_order(&self, order: &[SortOptions]) -> bool {
        let Some(first) = self.batches.first() else { return true };
        let fields = first
            .schema()
            .fields()
            .iter()
            .zip(order)
            .map(|(field, options)| SortField::new_with_options(field.data_type().clone(), *options))
            .collect();
        let converter = RowConverter::new(fields).unwrap();
        let mut rows = converter.empty_rows(0, 0);
        for batch in &self.batches {
            converter.append(&mut rows, batch.columns()).unwrap();
        }
        rows.iter().is_sorted()
    }

    /// The rows without repeats, as text, after the types.
    pub(crate) fn distinct(&self) -> Vec<String> {
        let mut rows = self.text();
        rows.dedup();
        rows
    }

    /// The rows as text, after the types.
    pub(crate) fn text(&self) -> Vec<String> {
        let mut rows: Vec<String> =
            self.batches.iter().map(rounded).flat_map(|batch| text_rows(&batch)).collect();
        rows.sort();
        rows.insert(0, self.types.clone());
        rows
    }
}

fn sorted(schema: &Schema, batches: &[RecordBatch]) -> Vec<u8> {
    let fields = schema.fields().iter().map(|field| SortField::new(field.data_type().clone()));
    let converter = RowConverter::new(fields.collect()).unwrap();
    let mut rows = converter.empty_rows(0, 0);
    for batch in batches {
        converter.append(&mut rows, batch.columns()).unwrap();
    }
    let mut in_order: Vec<&[u8]> = (0..rows.num_rows()).map(|at| rows.row(at).data()).collect();
    in_order.sort_unstable();
    let mut bytes = Vec::new();
    for row in in_order {
        bytes.extend_from_slice(&(row.len() as u64).to_be_bytes());
        bytes.extend_from_slice(row);
    }
    bytes
}

fn rounded(batch: &RecordBatch) -> RecordBatch {
    let columns = batch.columns().iter().map(|column| -> Arc<dyn Array> {
        match column.data_type() {
            DataType::Float64 => {
                Arc::new(column.as_primitive::<Float64Type>().unary::<_, Float64Type>(nine_digits))
            }
            _ => Arc::clone(column),
        }
    });
    RecordBatch::try_new(batch.schema(), columns.collect()).unwrap()
}

/// To nine digits, cut at a place where no short fraction lies: of two sums that differ in their last bits, one of them
/// just below a half would otherwise go down and the other up (seed 561,235).
fn nine_digits(value: f64) -> f64 {
    if !value.is_finite() {
        return value;
    }
    // What is left of sums that cancel (seed 577,565). The data are halves: their means are further from zero.
    if value.abs() < 1e-6 {
        return 0.0;
    }
    let unit = 10_f64.powi(8 - value.abs().log10().floor() as i32);
    ((value.abs() * unit + 0.382).floor() / unit).copysign(value)
}

/// Guarantee: a row more, a row twice, another type, a null for a text and a tenth digit are told as they should be.
#[test]
fn answers_differ_by_rows_and_types() {
    use arrow::array::{Float64Array, Int64Array, StringViewArray};
    let answer = |columns: Vec<(&str, Arc<dyn Array>)>| {
        let batch =
            RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, of)| (name, of, true)));
        let batch = batch.unwrap();
        Answer::new(&batch.schema(), &[batch])
    };
    let real = |values: &[f64]| answer(vec![("c0", Arc::new(Float64Array::from(values.to_vec())))]);
    assert_eq!(real(&[1.5, 100.0 / 3.0]), real(&[33.333_333_333_000_01, 1.5]));
    assert_eq!(real(&[-1.5e-9]), real(&[0.0]));
    assert_eq!(real(&[-0.0, 999.999_999_999_999_9]), real(&[1_000.0, 0.0]));
    assert_eq!(real(&[28_039.181_25, 0.5]), real(&[28_039.181_249_999_996, 0.500_000_000_000_000_1]));
    assert_ne!(real(&[1.5]), real(&[1.500_000_1]));
    assert_ne!(real(&[1.5]), real(&[1.5, 1.5]));
    assert_ne!(real(&[1.5]), real(&[-1.5]));
    assert_ne!(real(&[1.0]), answer(vec![("c0", Arc::new(Int64Array::from(vec![1])))]));
    let text = |values: Vec<Option<&str>>| answer(vec![("c0", Arc::new(StringViewArray::from(values)))]);
    assert_ne!(text(vec![None]), text(vec![Some("")]));
    assert_ne!(text(vec![None]), text(vec![Some("NULL")]));
    assert_eq!(text(vec![None, Some("a")]), text(vec![Some("a"), None]));
    assert!(real(&[]).is_empty() && !text(vec![None]).is_empty());
    assert_eq!(text(vec![Some("a")]).text(), ["Utf8View", "a"]);
    assert_eq!(real(&[1.5, 2.0, 1.500_000_000_000_1]).distinct(), real(&[2.0, 1.5]).distinct());
    assert_ne!(real(&[1.5, 2.0, 1.500_001]).distinct(), real(&[2.0, 1.5]).distinct());
    let (up, down) = (SortOptions::new(false, false), SortOptions::new(true, false));
    assert!(real(&[1.0, 2.0, 2.0]).is_in_order(&[up]) && !real(&[1.0, 2.0]).is_in_order(&[down]));
    assert!(!real(&[1.0, 1.000_000_000_000_1, 1.0]).is_in_order(&[up]), "by all digits");
}
