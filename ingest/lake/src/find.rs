//! From (device, boot, sequence number) to the stored bytes and their place in the tree.

use std::fs::File;
use std::path::Path;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type, TimestampMicrosecondType, UInt32Type};
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReaderBuilder, RowSelection, RowSelector};
use schemas_evidence::{BatchManifest, Blake3Frames, FileKind, Hash32, frame_leaf, merkle};

use crate::{Admitted, Lake, LakeError};

/// Where a frame is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In the tail: durable, not yet in a batch.
    Tail,
    /// In a batch that the log knows.
    Batch {
        /// The batch.
        id: String,
        /// Its leaf.
        leaf: u32,
        /// Place of the batch's entry in the log.
        entry_index: u64,
    },
}

/// A stored frame.
#[derive(Debug, Clone)]
pub struct StoredFrame {
    /// Bytes as received.
    pub frame: Bytes,
    /// Where it is.
    pub place: Place,
}

impl Lake {
    /// The frame a device sent under this boot and sequence number.
    pub fn find(&self, device: u32, boot: [u8; 8], seq: u64) -> Result<Option<StoredFrame>, LakeError> {
        if let Some(frame) = self.tail.lock().places.get(&(device, boot, seq)) {
            return Ok(Some(StoredFrame { frame: frame.clone(), place: Place::Tail }));
        }
        let view = self.view();
        for batch in view.batches.iter().rev() {
            let ranges = &batch.manifest.ranges;
            let key = (device, boot);
            let within = |range: &&schemas_evidence::DeviceRange| {
                (range.device, range.boot) == key && range.first <= seq && seq <= range.last
            };
            if !ranges.iter().any(|range| within(&range)) {
                continue;
            }
            let path = frames_path(self.directory(), &batch.manifest)?;
            let Some(leaf) = leaf_of(&path, device, boot, seq)? else { continue };
            let frame = frame_at(&path, leaf)?;
            let place =
                Place::Batch { id: batch.manifest.batch.clone(), leaf, entry_index: batch.entry_index };
            return Ok(Some(StoredFrame { frame, place }));
        }
        Ok(None)
    }

    /// Siblings from a leaf to its batch's root, and the batch's size.
    pub fn inclusion(&self, batch: &str, leaf: u32) -> Result<Option<(u64, Vec<Hash32>)>, LakeError> {
        let view = self.view();
        let Some(batch) = view.batches.iter().find(|candidate| candidate.manifest.batch == batch) else {
            return Ok(None);
        };
        let path = frames_path(self.directory(), &batch.manifest)?;
        let mut leaves = Vec::new();
        for rows in read_frames(&path)? {
            leaves.extend(rows?.iter().map(|admitted| frame_leaf(&admitted.frame)));
        }
        let wrong = |_| LakeError::Stored {
            file: path.display().to_string(),
            problem: "fewer frames than its ranges say",
        };
        let siblings = merkle::inclusion_path::<Blake3Frames>(&leaves, u64::from(leaf)).map_err(wrong)?;
        Ok(Some((leaves.len() as u64, siblings)))
    }
}

/// The evidence file of a batch.
pub(crate) fn frames_path(
    directory: &Path,
    manifest: &BatchManifest,
) -> Result<std::path::PathBuf, LakeError> {
    let file = manifest.files.iter().find(|file| file.kind == FileKind::Frames);
    let problem = "the batch has no frames file";
    let file = file.ok_or_else(|| LakeError::Stored { file: manifest.batch.clone(), problem })?;
    Ok(directory.join(&file.name))
}

fn reader(path: &Path) -> Result<ParquetRecordBatchReaderBuilder<File>, LakeError> {
    let file = File::open(path).map_err(|source| LakeError::Io { path: path.to_owned(), source })?;
    Ok(ParquetRecordBatchReaderBuilder::try_new(file)?)
}

fn missing(path: &Path) -> LakeError {
    LakeError::Stored { file: path.display().to_string(), problem: "a column is missing or of another type" }
}

fn leaf_of(path: &Path, device: u32, boot: [u8; 8], seq: u64) -> Result<Option<u32>, LakeError> {
    let builder = reader(path)?;
    let mask = ProjectionMask::columns(builder.parquet_schema(), ["leaf", "device", "boot", "seq"]);
    for rows in builder.with_projection(mask).build()? {
        let rows = rows?;
        let column = |name: &str| rows.column_by_name(name).ok_or_else(|| missing(path));
        let leaves = column("leaf")?.as_primitive_opt::<UInt32Type>().ok_or_else(|| missing(path))?;
        let devices = column("device")?.as_primitive_opt::<UInt32Type>().ok_or_else(|| missing(path))?;
        let boots = column("boot")?.as_fixed_size_binary_opt().ok_or_else(|| missing(path))?;
        let seqs = column("seq")?.as_primitive_opt::<Int64Type>().ok_or_else(|| missing(path))?;
        let found = (0..rows.num_rows()).find(|&row| {
            devices.value(row) == device && seqs.value(row) == seq as i64 && boots.value(row) == boot
        });
        if let Some(row) = found {
            return Ok(Some(leaves.value(row)));
        }
    }
    Ok(None)
}

fn frame_at(path: &Path, leaf: u32) -> Result<Bytes, LakeError> {
    let builder = reader(path)?;
    let mask = ProjectionMask::columns(builder.parquet_schema(), ["frame"]);
    let selection = RowSelection::from(vec![RowSelector::skip(leaf as usize), RowSelector::select(1)]);
    let mut rows = builder.with_projection(mask).with_row_selection(selection).build()?;
    let rows = rows.next().ok_or_else(|| missing(path))??;
    let frames = rows.column(0).as_binary_opt::<i32>().ok_or_else(|| missing(path))?;
    Ok(Bytes::copy_from_slice(frames.value(0)))
}

/// All frames of a batch in leaf order, a chunk at a time.
pub(crate) fn read_frames(
    path: &Path,
) -> Result<impl Iterator<Item = Result<Vec<Admitted>, LakeError>>, LakeError> {
    let owned = path.to_owned();
    Ok(reader(path)?.build()?.map(move |rows| admitted(&rows?).ok_or_else(|| missing(&owned))))
}

fn admitted(rows: &RecordBatch) -> Option<Vec<Admitted>> {
    let devices = rows.column_by_name("device")?.as_primitive_opt::<UInt32Type>()?;
    let t0 = rows.column_by_name("t0")?.as_primitive_opt::<TimestampMicrosecondType>()?;
    let received = rows.column_by_name("received_at")?.as_primitive_opt::<TimestampMicrosecondType>()?;
    let flags = rows.column_by_name("flags")?.as_primitive_opt::<Int32Type>()?;
    let codes = rows.column_by_name("code")?.as_string_opt::<i32>()?;
    let frames = rows.column_by_name("frame")?.as_binary_opt::<i32>()?;
    (0..rows.num_rows())
        .map(|row| {
            Some(Admitted {
                position: 0,
                device: devices.value(row),
                t0_us: t0.value(row),
                received_us: received.value(row),
                flags: flags.value(row) as u32,
                code: codes.value(row).parse().ok()?,
                frame: Bytes::copy_from_slice(frames.value(row)),
            })
        })
        .collect()
}
