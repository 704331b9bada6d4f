//! Result formats. Each turns batches into bytes piece by piece, so that no result is held as a whole. Text views
//! become plain text, which every client reads. NaN and infinite numbers are null in JSON; integers stay exact.

use std::io::{self, Write};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::cast;
use arrow::csv::WriterBuilder as CsvBuilder;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;
use arrow::json::WriterBuilder as JsonBuilder;
use arrow::json::writer::LineDelimited;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use thiserror::Error;

/// Rows of a row group in a Parquet answer: what is held in memory before bytes go out.
const PARQUET_GROUP_ROWS: usize = 128 * 1024;

/// A result format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line; the default.
    Ndjson,
    /// Comma separated, with a header line.
    Csv,
    /// Arrow IPC stream.
    Arrow,
    /// A Parquet file.
    Parquet,
}

impl Format {
    /// All formats, the preferred first.
    pub const ALL: [Self; 4] = [Self::Ndjson, Self::Csv, Self::Arrow, Self::Parquet];

    /// Its media type.
    #[must_use]
    pub fn media(self) -> &'static str {
        match self {
            Self::Ndjson => "application/x-ndjson",
            Self::Csv => "text/csv",
            Self::Arrow => "application/vnd.apache.arrow.stream",
            Self::Parquet => "application/vnd.apache.parquet",
        }
    }

    /// The first known format an `Accept` header names; the default if there is no header or anything will do.
    #[must_use]
    pub fn accepted(header: Option<&str>) -> Option<Self> {
        let Some(header) = header else { return Some(Self::Ndjson) };
        for part in header.split(',') {
            let mut pieces = part.split(';').map(str::trim);
            let media = pieces.next().unwrap_or_default().to_ascii_lowercase();
            if pieces.any(|piece| matches!(piece, "q=0" | "q=0.0" | "q=0.00" | "q=0.000")) {
                continue;
            }
            if matches!(media.as_str(), "*/*" | "application/*" | "application/json") {
                return Some(Self::Ndjson);
            }
            if media == "text/*" {
                return Some(Self::Csv);
            }
            if let Some(format) = Self::ALL.into_iter().find(|format| format.media() == media) {
                return Some(format);
            }
        }
        None
    }
}

/// A batch that could not be written.
#[derive(Debug, Error)]
pub enum EncodeError {
    /// From Arrow.
    #[error("arrow: {0}")]
    Arrow(#[from] ArrowError),
    /// From Parquet.
    #[error("parquet: {0}")]
    Parquet(#[from] ParquetError),
}

/// Turns batches of one schema into bytes of one format.
pub struct Encoder {
    schema: SchemaRef,
    state: State,
}

enum State {
    Ndjson,
    Csv { has_header: bool },
    Arrow(Box<StreamWriter<Vec<u8>>>),
    Parquet { writer: Box<ArrowWriter<Pipe>>, pipe: Pipe },
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder").field("schema", &self.schema).finish_non_exhaustive()
    }
}

impl Encoder {
    /// An encoder for results of `schema`.
    ///
    /// # Errors
    /// If the format cannot hold such columns.
    pub fn new(format: Format, schema: &Schema) -> Result<Self, EncodeError> {
        let schema = plain(schema);
        let state = match format {
            Format::Ndjson => State::Ndjson,
            Format::Csv => State::Csv { has_header: false },
            Format::Arrow => State::Arrow(Box::new(StreamWriter::try_new(Vec::new(), &schema)?)),
            Format::Parquet => {
                let pipe = Pipe::default();
                let properties = WriterProperties::builder()
                    .set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?))
                    .set_max_row_group_row_count(Some(PARQUET_GROUP_ROWS))
                    .build();
                let writer = ArrowWriter::try_new(pipe.clone(), Arc::clone(&schema), Some(properties))?;
                State::Parquet { writer: Box::new(writer), pipe }
            }
        };
        Ok(Self { schema, state })
    }

    /// The bytes a batch adds; may be none yet.
    ///
    /// # Errors
    /// If a value cannot be written in this format.
    pub fn batch(&mut self, batch: &RecordBatch) -> Result<Vec<u8>, EncodeError> {
        let batch = to_plain(batch, &self.schema)?;
        match &mut self.state {
            State::Ndjson => ndjson(&batch),
            State::Csv { has_header } => csv(&batch, !std::mem::replace(has_header, true)),
            State::Arrow(writer) => {
                writer.write(&batch)?;
                Ok(std::mem::take(writer.get_mut()))
            }
            State::Parquet { writer, pipe } => {
                writer.write(&batch)?;
                Ok(pipe.drain())
            }
        }
    }

    /// The last bytes: header of an empty table, end marker, footer.
    ///
    /// # Errors
    /// If the format's end cannot be written.
    pub fn finish(self) -> Result<Vec<u8>, EncodeError> {
        match self.state {
            State::Ndjson | State::Csv { has_header: true } => Ok(Vec::new()),
            State::Csv { has_header: false } => csv(&RecordBatch::new_empty(self.schema), true),
            State::Arrow(mut writer) => {
                writer.finish()?;
                Ok(std::mem::take(writer.get_mut()))
            }
            State::Parquet { writer, pipe } => {
                writer.close()?;
                Ok(pipe.drain())
            }
        }
    }
}

fn ndjson(batch: &RecordBatch) -> Result<Vec<u8>, EncodeError> {
    let mut writer = JsonBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(Vec::new());
    writer.write(batch)?;
    writer.finish()?;
    Ok(writer.into_inner())
}

fn csv(batch: &RecordBatch, with_header: bool) -> Result<Vec<u8>, EncodeError> {
    let mut bytes = Vec::new();
    let mut writer = CsvBuilder::new().with_header(with_header).build(&mut bytes);
    writer.write(batch)?;
    drop(writer);
    Ok(bytes)
}

/// The schema with text views as text and without any metadata.
fn plain(schema: &Schema) -> SchemaRef {
    let fields: Vec<Field> = schema
        .fields()
        .iter()
        .map(|field| Field::new(field.name(), plain_type(field.data_type()), field.is_nullable()))
        .collect();
    Arc::new(Schema::new(fields))
}

fn plain_type(kind: &DataType) -> DataType {
    match kind {
        DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        DataType::BinaryView | DataType::LargeBinary => DataType::Binary,
        other => other.clone(),
    }
}

fn to_plain(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let mut columns = Vec::with_capacity(batch.num_columns());
    for (column, field) in batch.columns().iter().zip(schema.fields()) {
        columns.push(if column.data_type() == field.data_type() {
            Arc::clone(column)
        } else {
            cast(column, field.data_type())?
        });
    }
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
}

/// Bytes on their way from a writer that wants to own its sink.
#[derive(Debug, Clone, Default)]
struct Pipe {
    bytes: Arc<std::sync::Mutex<Vec<u8>>>,
}

impl Pipe {
    fn drain(&self) -> Vec<u8> {
        std::mem::take(&mut *self.bytes.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

impl Write for Pipe {
    fn write(&mut self, part: &[u8]) -> io::Result<usize> {
        self.bytes.lock().unwrap_or_else(std::sync::PoisonError::into_inner).extend_from_slice(part);
        Ok(part.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
