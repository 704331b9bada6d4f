//! Columns that we encode are read back by the Parquet crate's own reader as they were, with bounds that hold.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, FixedSizeBinaryArray, Int32Array, Int64Array, ListBuilder, PrimitiveBuilder,
    RecordBatch, TimestampMicrosecondArray, UInt8Array, UInt16Array, UInt32Array,
};
use arrow::compute::{concat, concat_batches};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use bytes::Bytes;
use parquet::arrow::ArrowSchemaConverter;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::basic::BoundaryOrder;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData};
use parquet::file::page_index::column_index::ColumnIndexMetaData;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use proptest::prelude::*;

use schemas_evidence::FileKind;

use crate::column::{Column, Scratch, Told};
use crate::disk::Disk;
use crate::files::TableWriter;

/// A file of one column, given in parts.
fn written(parts: &[ArrayRef], page_levels: usize) -> Bytes {
    let field = Field::new("it", parts[0].data_type().clone(), true);
    let schema = Schema::new(vec![field]);
    let descr = ArrowSchemaConverter::new().convert(&schema).unwrap();
    let mut properties = WriterProperties::builder().build();
    parquet::arrow::add_encoded_arrow_schema_to_metadata(&schema, &mut properties);
    let mut file =
        SerializedFileWriter::new(Vec::new(), descr.root_schema_ptr(), Arc::new(properties)).unwrap();
    let mut scratch = Scratch::new(Default::default()).unwrap();
    let mut column = Column::new(descr.column(0), Told::OfPages, page_levels);
    for part in parts {
        column.write(part, &mut scratch).unwrap();
    }
    let (bytes, close) = column.close(&mut scratch).unwrap();
    let mut group = file.next_row_group().unwrap();
    group.append_column(&bytes, close).unwrap();
    group.close().unwrap();
    Bytes::from(file.into_inner().unwrap())
}

fn read(file: &Bytes) -> (ArrayRef, Arc<ParquetMetaData>) {
    let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Required);
    let reader = ParquetRecordBatchReaderBuilder::try_new_with_options(file.clone(), options).unwrap();
    let metadata = reader.metadata().clone();
    let batches: Vec<_> = reader.with_batch_size(1_000).build().unwrap().map(Result::unwrap).collect();
    let columns: Vec<&dyn Array> = batches.iter().map(|batch| batch.column(0).as_ref()).collect();
    (concat(&columns).unwrap(), metadata)
}

fn checked(parts: &[ArrayRef], page_levels: usize) {
    let whole = concat(&parts.iter().map(AsRef::as_ref).collect::<Vec<_>>()).unwrap();
    let (back, metadata) = read(&written(parts, page_levels));
    assert_eq!(&back, &whole);
    assert_eq!(metadata.file_metadata().num_rows(), whole.len() as i64);
    bounds_hold(&whole, &metadata);
}

/// Numbers in the order of the column's type.
fn ordered(array: &ArrayRef) -> Vec<i64> {
    let wide = match array.data_type() {
        DataType::List(_) => array.as_list::<i32>().values().clone(),
        _ => array.clone(),
    };
    let wide = arrow::compute::cast(&wide, &DataType::Int64).unwrap();
    wide.as_primitive::<Int64Type>().iter().flatten().collect()
}

/// Readers that trust the order look only at the ends.
fn rising_if_told(index: &ColumnIndexMetaData) {
    let is_told = index.get_boundary_order() == Some(BoundaryOrder::ASCENDING);
    let rises = |index: &dyn Fn(usize) -> Option<i64>, pages: usize| (0..pages).filter_map(index).is_sorted();
    let pages = index.num_pages() as usize;
    let is_rising = match index {
        ColumnIndexMetaData::INT64(index) => {
            rises(&|page| index.min_value(page).copied(), pages)
                && rises(&|page| index.max_value(page).copied(), pages)
        }
        // Narrow types may be unsigned, whose order their stored numbers do not have.
        _ => return,
    };
    assert!(is_rising || !is_told);
}

fn bounds_hold(whole: &ArrayRef, metadata: &ParquetMetaData) {
    let chunk = metadata.row_group(0).column(0);
    let unsigned = |stored: i32| match whole.data_type() {
        DataType::Int32 => i64::from(stored),
        _ => i64::from(stored.cast_unsigned()),
    };
    let all = ordered(whole);
    let statistics = chunk.statistics();
    assert_eq!(statistics.is_some(), !all.is_empty());
    if let Some(statistics) = statistics {
        let known = |bytes: &[u8]| match bytes.len() {
            4 => unsigned(i32::from_le_bytes(bytes.try_into().unwrap())),
            _ => i64::from_le_bytes(bytes.try_into().unwrap()),
        };
        assert_eq!(statistics.min_bytes_opt().map(known), all.iter().copied().min());
        assert_eq!(statistics.max_bytes_opt().map(known), all.iter().copied().max());
    }
    rising_if_told(&metadata.column_index().unwrap()[0][0]);
    let pages = metadata.offset_index().unwrap()[0][0].page_locations();
    let firsts: Vec<usize> = pages.iter().map(|page| page.first_row_index as usize).collect();
    let ends = firsts.iter().copied().skip(1).chain([whole.len()]);
    for (page, (first, end)) in firsts.iter().copied().zip(ends).enumerate() {
        let numbers = ordered(&whole.slice(first, end - first));
        let numbers = if matches!(whole.data_type(), DataType::List(_)) { None } else { Some(numbers) };
        let told = match &metadata.column_index().unwrap()[0][0] {
            ColumnIndexMetaData::INT32(index) => {
                index.min_value(page).zip(index.max_value(page)).map(|(a, b)| (unsigned(*a), unsigned(*b)))
            }
            ColumnIndexMetaData::INT64(index) => {
                index.min_value(page).zip(index.max_value(page)).map(|(a, b)| (*a, *b))
            }
            other => panic!("{other:?}"),
        };
        if let Some(numbers) = numbers {
            assert_eq!(told, numbers.iter().copied().min().zip(numbers.iter().copied().max()), "page {page}");
        }
    }
}

/// Numbers as telemetry has them and as nobody has: runs, ramps, small steps, and anything.
fn numbers() -> impl Strategy<Value = Vec<i64>> {
    let some = prop_oneof![Just(0), -5i64..5, any::<i64>(), Just(i64::MIN), Just(i64::MAX)];
    let run = (some, prop_oneof![Just(0), Just(1), -9i64..9, any::<i64>()], 1usize..200).prop_map(
        |(first, step, count)| (0..count as i64).map(|i| first.wrapping_add(step.wrapping_mul(i))).collect(),
    );
    prop::collection::vec(run, 0..6).prop_map(|runs: Vec<Vec<i64>>| runs.concat())
}

/// The same numbers as every type of column that is packed, some of them left out.
fn columns(numbers: &[i64], gap: usize) -> Vec<ArrayRef> {
    let some = |at: usize, number: i64| (at % gap.max(1) != gap / 2).then_some(number);
    let each = || numbers.iter().enumerate().map(|(at, number)| some(at, *number));
    vec![
        Arc::new(each().collect::<Int64Array>()),
        Arc::new(each().collect::<TimestampMicrosecondArray>().with_timezone("UTC")),
        Arc::new(each().map(|number| number.map(|number| number as i32)).collect::<Int32Array>()),
        Arc::new(each().map(|number| number.map(|number| number as u32)).collect::<UInt32Array>()),
        Arc::new(each().map(|number| number.map(|number| number as u16)).collect::<UInt16Array>()),
        Arc::new(each().map(|number| number.map(|number| number as u8)).collect::<UInt8Array>()),
    ]
}

proptest! {
    // Guarantee: whatever the numbers, gaps and divisions, the crate's reader gives back what was written, and bounds of
    // chunks and pages are exactly those of the numbers in them.
    #[test]
    fn flat_columns_come_back(
        numbers in numbers(), gap in 1usize..400, page_levels in prop_oneof![1usize..40, 100usize..2_000], part in 1usize..500,
    ) {
        for column in columns(&numbers, gap) {
            let parts: Vec<ArrayRef> =
                (0..column.len()).step_by(part).map(|at| column.slice(at, part.min(column.len() - at))).collect();
            if !parts.is_empty() {
                checked(&parts, page_levels);
            }
        }
    }

    // Guarantee: the same of lists, of which some are empty and some are not there.
    #[test]
    fn lists_come_back(lists in prop::collection::vec(prop::option::of(numbers()), 1..12), page_levels in 1usize..600) {
        let mut builder = ListBuilder::new(PrimitiveBuilder::<Int64Type>::new());
        for list in lists {
            builder.append_option(list.map(|list| list.into_iter().map(Some).collect::<Vec<_>>()));
        }
        checked(&[Arc::new(builder.finish())], page_levels);
    }
}

// Guarantee: what hardly changes costs next to nothing: a page of one number, or of one step, a few dozen bytes.
#[test]
fn constants_are_small() {
    for column in columns(&vec![7; 60_000], usize::MAX)
        .into_iter()
        .chain(columns(&(0..60_000).collect::<Vec<_>>(), usize::MAX))
    {
        let overhead = written(&[column.slice(0, 1)], 60_000).len();
        let len = written(&[column], 60_000).len();
        assert!(len < overhead + 120, "{len} of {overhead}");
    }
}

// Guarantee: rows beyond a row group go to the next one, and all groups together are what was written.
#[test]
fn row_groups_follow_each_other() {
    let directory = tempfile::tempdir().unwrap();
    let disk = Disk::new(directory.path(), None);
    let schema = Arc::new(Schema::new(vec![
        Field::new("leaf", DataType::UInt32, false),
        Field::new("device", DataType::UInt32, false),
        Field::new("t0", schemas_signals::columns::timestamp(), false),
        Field::new("boot", DataType::FixedSizeBinary(8), false),
    ]));
    let mut table = TableWriter::create(&disk, "b", FileKind::Frames, schema.clone()).unwrap();
    let slices: Vec<RecordBatch> = (0..6u32)
        .map(|part| {
            let numbers: Vec<u32> = (part * 15_000..(part + 1) * 15_000).collect();
            let times =
                TimestampMicrosecondArray::from_iter_values(numbers.iter().map(|n| i64::from(*n) * 7));
            let boots =
                FixedSizeBinaryArray::try_from_iter(numbers.iter().map(|n| u64::from(*n).to_le_bytes()));
            let numbers = Arc::new(UInt32Array::from(numbers));
            let times = Arc::new(times.with_timezone("UTC"));
            RecordBatch::try_new(
                schema.clone(),
                vec![numbers.clone(), numbers, times, Arc::new(boots.unwrap())],
            )
            .unwrap()
        })
        .collect();
    slices.iter().for_each(|rows| table.write(rows).unwrap());
    let file = table.finish().unwrap().unwrap();
    let bytes = Bytes::from(std::fs::read(directory.path().join(&file.name)).unwrap());
    assert_eq!(blake3::hash(&bytes).as_bytes(), &file.blake3);
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap();
    assert_eq!(reader.metadata().num_row_groups(), 2);
    let back: Vec<RecordBatch> =
        reader.with_batch_size(90_000).build().unwrap().map(Result::unwrap).collect();
    assert_eq!(concat_batches(&schema, &back).unwrap(), concat_batches(&schema, &slices).unwrap());
    assert_eq!((file.rows, file.device_min, file.device_max), (90_000, 0, 89_999));
}
