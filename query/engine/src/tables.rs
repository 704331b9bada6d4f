//! What the engine reads: a view of the lake's files and of the rows not sealed yet, given by whoever runs
//! the store. Not a catalogue for SQL: nothing here is ever registered with the planner.

use std::any::Any;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use schemas_evidence::answer::LISTED_MAX;
use schemas_evidence::{self as evidence, FileRef};
use schemas_identity::{DeviceNumber, ShortId};
use thiserror::Error;

/// Which columns a file has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// One row per sample (`schemas_signals::columns::scalar_schema`).
    Scalar,
    /// One row per series (`schemas_signals::columns::wave_schema`).
    Wave,
}

/// The file with one row per frame of a batch, or of a set of batches.
#[derive(Debug, Clone)]
pub struct FramesFile {
    /// Where it lies.
    pub path: PathBuf,
    /// Its name in the manifest.
    pub name: String,
    /// Its BLAKE3 digest, hex, from the manifest.
    pub blake3: String,
}

/// One immutable Parquet file of the lake, as the manifest of its batch or set names it.
#[derive(Debug, Clone)]
pub struct LakeFile {
    /// Where it lies.
    pub path: PathBuf,
    /// Its name in the manifest.
    pub name: String,
    /// Its BLAKE3 digest, hex, from the manifest.
    pub blake3: String,
    /// Which columns it has.
    pub kind: FileKind,
    /// Rows in it.
    pub rows: u64,
    /// Lowest device number.
    pub device_min: u32,
    /// Highest device number.
    pub device_max: u32,
    /// First instant, microseconds UTC.
    pub ts_min_us: i64,
    /// Last instant (for waves: of the last sample), microseconds UTC.
    pub ts_max_us: i64,
    /// Where rows find the columns that the file does not repeat (`schemas_signals::columns::ORIGIN_COLUMNS`); `None` if it
    /// has them itself.
    pub frames: Option<Arc<FramesFile>>,
    /// Rows with this leaf or a later one came after the view and are not read; `None` = all rows belong to it.
    pub leaf_limit: Option<u32>,
}

impl LakeFile {
    /// The tables among the files of one batch or set, as its manifest names them; none without a frames file, which
    /// is evidence and no table: rows only find their origin there.
    pub fn of_part(directory: &Path, files: &[FileRef], leaf_limit: Option<u32>) -> Vec<LakeFile> {
        let Some(frames) = files.iter().find(|file| file.kind == evidence::FileKind::Frames) else {
            return Vec::new();
        };
        let frames = Arc::new(FramesFile {
            path: directory.join(&frames.name),
            name: frames.name.clone(),
            blake3: hex::encode(frames.blake3),
        });
        let table = |file: &FileRef| {
            let kind = match file.kind {
                evidence::FileKind::Scalar => FileKind::Scalar,
                evidence::FileKind::Wave => FileKind::Wave,
                evidence::FileKind::Frames => return None,
            };
            Some(LakeFile {
                path: directory.join(&file.name),
                name: file.name.clone(),
                blake3: hex::encode(file.blake3),
                kind,
                rows: file.rows,
                device_min: file.device_min,
                device_max: file.device_max,
                ts_min_us: file.ts_min_us,
                ts_max_us: file.ts_max_us,
                frames: Some(Arc::clone(&frames)),
                leaf_limit,
            })
        };
        files.iter().filter_map(table).collect()
    }
}

/// Gives the first short id of a device number, the one SQL shows.
pub type DeviceNames = Arc<dyn Fn(DeviceNumber) -> Option<ShortId> + Send + Sync>;

/// The reverse of [`DeviceNames`].
pub type DeviceNumbers = Arc<dyn Fn(ShortId) -> Option<DeviceNumber> + Send + Sync>;

/// Which entries of the log commit to the files of a view.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sources {
    /// Batches in it.
    pub batches: u64,
    /// Sets of merged files in it.
    pub sets: u64,
    /// Log indices of all of them, rising; empty if they are more than [`schemas_evidence::answer::LISTED_MAX`].
    pub entries: Vec<u64>,
}

impl Sources {
    /// From the log indices of batches and sets.
    pub fn new(
        batches: impl ExactSizeIterator<Item = u64>,
        sets: impl ExactSizeIterator<Item = u64>,
    ) -> Sources {
        let count = |items: usize| u64::try_from(items).unwrap_or(u64::MAX);
        let (batch_count, set_count) = (batches.len(), sets.len());
        let mut entries = Vec::new();
        if batch_count + set_count <= LISTED_MAX {
            entries = batches.chain(sets).collect();
            entries.sort_unstable();
        }
        Sources { batches: count(batch_count), sets: count(set_count), entries }
    }
}

/// Everything readable at one moment: sealed files up to a log size, and the live tail after it.
#[derive(Clone)]
pub struct View {
    /// Log size the files belong to.
    pub log_size: u64,
    /// Sealed files (scalar and wave; frames files are not listed).
    pub files: Vec<LakeFile>,
    /// What in the log commits to those files.
    pub sources: Sources,
    /// Unsealed scalar rows; empty in a view of the past.
    pub tail_scalar: Vec<RecordBatch>,
    /// Unsealed wave rows; empty in a view of the past.
    pub tail_wave: Vec<RecordBatch>,
    /// Short ids.
    pub devices: DeviceNames,
    /// Device numbers.
    pub numbers: DeviceNumbers,
    /// What the store looks at to know that the files are still read; held as long as the view is.
    pub keep: Option<Arc<dyn Any + Send + Sync>>,
}

impl View {
    /// A view like this one without a row.
    pub(crate) fn nothing(like: &View) -> View {
        View {
            files: Vec::new(),
            sources: like.sources.clone(),
            tail_scalar: Vec::new(),
            tail_wave: Vec::new(),
            log_size: like.log_size,
            devices: Arc::clone(&like.devices),
            numbers: Arc::clone(&like.numbers),
            keep: None,
        }
    }
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("View").field("log_size", &self.log_size).field("files", &self.files.len()).finish()
    }
}

/// A view that could not be given.
#[derive(Debug, Error)]
pub enum TablesError {
    /// No snapshot has this log size.
    #[error("no snapshot at {0}")]
    NoSnapshot(u64),
    /// The store is not able to answer now.
    #[error("unavailable: {0}")]
    Unavailable(String),
}

/// The store, as the query side sees it.
pub trait Tables: Send + Sync {
    /// The current view, or the one of an earlier log size.
    ///
    /// # Errors
    /// `NoSnapshot` for a log size the store does not know, `Unavailable` if it cannot answer.
    fn view(&self, as_of: Option<u64>) -> Result<Arc<View>, TablesError>;
}
