//! Tests of the result formats.

use std::io::Cursor;

use arrow::array::{
    ArrayRef, Float64Array, Int64Array, StringArray, StringViewArray, TimestampMicrosecondArray,
};
use arrow::ipc::reader::StreamReader;
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::*;

fn batch() -> RecordBatch {
    let time = TimestampMicrosecondArray::from(vec![1_767_225_600_250_000, 0, 1, 2]).with_timezone("UTC");
    let columns: Vec<(&str, ArrayRef)> = vec![
        (
            "who",
            Arc::new(StringViewArray::from(vec![
                Some("a longer name than twelve bytes"),
                Some("b,\"c\""),
                None,
                Some(""),
            ])),
        ),
        ("x", Arc::new(Float64Array::from(vec![Some(82.72), Some(f64::NAN), Some(f64::INFINITY), None]))),
        ("n", Arc::new(Int64Array::from(vec![i64::MAX, i64::MIN, 9_007_199_254_740_993, 0]))),
        ("ts", Arc::new(time)),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)))
        .unwrap()
}

fn encode(format: Format, batches: &[RecordBatch]) -> Vec<u8> {
    let schema = batch().schema();
    let mut encoder = Encoder::new(format, &schema).unwrap();
    let mut bytes = Vec::new();
    for batch in batches {
        bytes.extend(encoder.batch(batch).unwrap());
    }
    bytes.extend(encoder.finish().unwrap());
    bytes
}

/// JSON numbers that JSON does not have are null; integers beyond 2^53 are exact; nulls are said.
#[test]
fn json_lines() {
    let text = String::from_utf8(encode(Format::Ndjson, &[batch()])).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines,
        [
            r#"{"who":"a longer name than twelve bytes","x":82.72,"n":9223372036854775807,"ts":"2026-01-01T00:00:00.250Z"}"#,
            r#"{"who":"b,\"c\"","x":null,"n":-9223372036854775808,"ts":"1970-01-01T00:00:00Z"}"#,
            r#"{"who":null,"x":null,"n":9007199254740993,"ts":"1970-01-01T00:00:00.000001Z"}"#,
            r#"{"who":"","x":null,"n":0,"ts":"1970-01-01T00:00:00.000002Z"}"#,
        ]
    );
    assert!(encode(Format::Ndjson, &[]).is_empty());
}

/// CSV has its header once, also when there is no row at all.
#[test]
fn comma_separated() {
    let text = String::from_utf8(encode(Format::Csv, &[batch(), batch()])).unwrap();
    assert_eq!(text.lines().filter(|line| *line == "who,x,n,ts").count(), 1);
    assert_eq!(text.lines().count(), 9);
    assert!(text.contains("\"b,\"\"c\"\"\""), "{text}");
    assert_eq!(encode(Format::Csv, &[]), b"who,x,n,ts\n");
}

/// Arrow and Parquet come back as the same values, text views as text, with the schema also when empty.
#[test]
fn columnar() {
    for batches in [vec![batch(), batch()], vec![]] {
        let rows = batches.len() * 4;
        let stream = StreamReader::try_new(Cursor::new(encode(Format::Arrow, &batches)), None).unwrap();
        let file = Bytes::from(encode(Format::Parquet, &batches));
        let parquet = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
        for schema in [stream.schema(), Arc::clone(parquet.schema())] {
            assert_eq!(schema.field(0).data_type(), &DataType::Utf8);
            assert_eq!(schema.fields().len(), 4);
        }
        let stream: Vec<RecordBatch> = stream.collect::<Result<_, _>>().unwrap();
        let parquet: Vec<RecordBatch> = parquet.build().unwrap().collect::<Result<_, _>>().unwrap();
        for found in [stream, parquet] {
            assert_eq!(found.iter().map(RecordBatch::num_rows).sum::<usize>(), rows);
            if let Some(first) = found.first() {
                let who: &StringArray = first.column(0).as_any().downcast_ref().unwrap();
                assert_eq!(who.value(0), "a longer name than twelve bytes");
            }
        }
    }
}

/// The first known format wins; none known is told; no header means JSON lines.
#[test]
fn accept() {
    for (header, format) in [
        (None, Some(Format::Ndjson)),
        (Some("*/*"), Some(Format::Ndjson)),
        (Some("text/csv"), Some(Format::Csv)),
        (Some("TEXT/CSV; charset=utf-8"), Some(Format::Csv)),
        (Some("application/xml, application/vnd.apache.arrow.stream;q=0.5"), Some(Format::Arrow)),
        (Some("text/csv;q=0, application/vnd.apache.parquet"), Some(Format::Parquet)),
        (Some("image/png"), None),
        (Some(""), None),
    ] {
        assert_eq!(Format::accepted(header), format, "{header:?}");
    }
}
