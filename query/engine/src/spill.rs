//! Disk for sorts and groupings that are larger than a query's working memory: one folder with one bound for all queries, emptied
//! when the engine starts. What lies there are rows that the asker may see, as long as the query runs; it is not a cache, and
//! nobody reads it but the query that wrote it. Joins do not use it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use datafusion::execution::disk_manager::{DiskManager, DiskManagerBuilder, DiskManagerMode};

use crate::error::EngineError;

/// Where queries may write, and how much.
#[derive(Debug, Clone)]
pub struct Spill {
    /// A folder of the engine's own: what is in it is removed.
    pub folder: PathBuf,
    /// Bytes of all running queries together.
    pub bytes_max: u64,
}

/// The disk of an engine; without one, whatever does not fit into memory is refused.
///
/// # Errors
/// `Internal` if the folder cannot be emptied or made.
pub(crate) fn open(spill: Option<&Spill>) -> Result<Arc<DiskManager>, EngineError> {
    let builder = DiskManagerBuilder::default();
    let builder = match spill {
        None => builder.with_mode(DiskManagerMode::Disabled),
        Some(spill) => {
            empty(&spill.folder).map_err(|error| {
                EngineError::Internal(format!("cannot empty {}: {error}", spill.folder.display()))
            })?;
            builder
                .with_mode(DiskManagerMode::Directories(vec![spill.folder.clone()]))
                .with_max_temp_directory_size(spill.bytes_max)
        }
    };
    builder.build().map(Arc::new).map_err(|error| EngineError::Internal(error.to_string()))
}

/// A killed process leaves its files behind.
fn empty(folder: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::fs::create_dir_all(folder)
}
