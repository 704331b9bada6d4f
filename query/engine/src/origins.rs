//! Where rows came from: files keep arrival, flags, boot and sequence number once per frame, in the batch's frames
//! file, and rows name the frame by its leaf. Read only when a query asks for one of those columns. Decides nothing
//! about visibility.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use arrow::compute::{TakeOptions, concat_batches, take};
use arrow::datatypes::{Field, Schema};
use arrow::error::ArrowError;
use parking_lot::Mutex;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use schemas_signals::columns::ORIGIN_COLUMNS;

use crate::positions::Positions;
use crate::reader::ReadError;

/// Most frames whose columns one scan keeps for its partitions to share, 28 bytes each, and one file at least. A partition
/// holds those of the file it reads, so that no file is read again and again while many are open.
const KNOWN_FRAMES_MAX: usize = 1 << 21;
/// Frames decoded at a time.
const FRAMES_AT_ONCE: usize = 64 << 10;

/// Origin columns of one frames file, one row per leaf.
pub(crate) struct Origins(RecordBatch);

/// Frames files that a scan read, oldest first.
#[derive(Default)]
pub(crate) struct OriginFiles {
    known: Mutex<VecDeque<(PathBuf, Arc<Origins>)>>,
}

impl OriginFiles {
    /// The origin columns of a frames file.
    pub(crate) fn load(&self, path: &Path) -> Result<Arc<Origins>, ReadError> {
        let mut known = self.known.lock();
        if let Some((_, origins)) = known.iter().find(|(known, _)| known == path) {
            return Ok(Arc::clone(origins));
        }
        let reader = ParquetRecordBatchReaderBuilder::try_new(Positions::open(path)?)?;
        let mask = ProjectionMask::columns(reader.parquet_schema(), ORIGIN_COLUMNS);
        let mut batches = Vec::new();
        for rows in reader.with_projection(mask).with_batch_size(FRAMES_AT_ONCE).build()? {
            batches.push(rows?);
        }
        let schema = batches.first().map_or_else(|| Arc::new(Schema::empty()), RecordBatch::schema);
        let origins = Arc::new(Origins(concat_batches(&schema, &batches)?));
        known.push_back((path.to_path_buf(), Arc::clone(&origins)));
        let mut frames: usize = known.iter().map(|(_, origins)| origins.0.num_rows()).sum();
        while frames > KNOWN_FRAMES_MAX && known.len() > 1 {
            frames -= known.pop_front().map_or(0, |(_, oldest)| oldest.0.num_rows());
        }
        Ok(origins)
    }
}

impl Origins {
    /// Adds the origin columns to rows that name their leaves.
    pub(crate) fn attach(&self, rows: &RecordBatch) -> Result<RecordBatch, ArrowError> {
        let missing = || ArrowError::SchemaError("rows do not name their leaves".to_owned());
        let leaves = rows.column_by_name("leaf").ok_or_else(missing)?;
        let mut fields: Vec<Arc<Field>> = rows.schema().fields().iter().cloned().collect();
        let mut arrays = rows.columns().to_vec();
        for (field, column) in self.0.schema().fields().iter().zip(self.0.columns()) {
            fields.push(Arc::clone(field));
            arrays.push(take(
                column.as_ref() as &dyn Array,
                leaves,
                Some(TakeOptions { check_bounds: true }),
            )?);
        }
        RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)
    }
}
