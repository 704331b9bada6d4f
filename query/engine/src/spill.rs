//! Disk for sorts and groupings that are larger than a query's working memory: one folder with one bound for all
//! queries, emptied when the engine starts. What lies there are rows that the asker may see, as long as the query runs;
//! it is not a cache, and nobody reads it but the query that wrote it. Joins do not use it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use datafusion::execution::disk_manager::{DiskManager, DiskManagerBuilder, DiskManagerMode};

use crate::error::EngineError;

/// Where queries may write, and how much.
#[derive(Debug, Clone)]
pub struct Spill {
    /// A folder of the engine's own: what is in it is removed.
    pub folder: PathBuf,
    /// Bytes of all running queries together.
    pub bytes_max: u64,
    /// Bytes of the file system that are left to others, even if queries wrote all they may: intake has the same disk,
    /// and a question must not stop it.
    pub free_bytes_min: u64,
}

/// The disk of an engine.
#[derive(Debug)]
pub(crate) struct Disk {
    spill: Option<Spill>,
    /// For queries that may write.
    shared: Arc<DiskManager>,
    /// For queries that may not: what does not fit into memory is refused.
    none: Arc<DiskManager>,
    /// Whether the last query was told that too little is free: said once to the operator, and once when there is again.
    is_short: AtomicBool,
}

impl Disk {
    /// Empties the folder, if there is one.
    ///
    /// # Errors
    /// `Internal` if the folder cannot be emptied or made.
    pub(crate) fn open(spill: Option<&Spill>) -> Result<Disk, EngineError> {
        let none = built(DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled))?;
        let shared = match spill {
            None => Arc::clone(&none),
            Some(spill) => {
                empty(&spill.folder).map_err(|error| {
                    EngineError::Internal(format!("cannot empty {}: {error}", spill.folder.display()))
                })?;
                let builder = DiskManagerBuilder::default()
                    .with_mode(DiskManagerMode::Directories(vec![spill.folder.clone()]));
                built(builder.with_max_temp_directory_size(spill.bytes_max))?
            }
        };
        Ok(Disk { spill: spill.cloned(), shared, none, is_short: AtomicBool::new(false) })
    }

    /// What a query that starts now may use.
    pub(crate) fn of_query(&self) -> Arc<DiskManager> {
        let Some(spill) = &self.spill else { return Arc::clone(&self.none) };
        let yet = spill.bytes_max.saturating_sub(self.shared.used_disk_space());
        let free = free_bytes(&spill.folder);
        let needed = yet.saturating_add(spill.free_bytes_min);
        let is_short = free < needed;
        match self.news(is_short) {
            Some(News::Short) => {
                tracing::warn!(
                    free,
                    needed,
                    "too little disk is free: large sorts and groupings are refused"
                );
            }
            Some(News::Free) => tracing::info!(free, "disk is free again: large sorts and groupings use it"),
            None => {}
        }
        Arc::clone(if is_short { &self.none } else { &self.shared })
    }

    /// What of this the operator has not been told yet.
    fn news(&self, is_short: bool) -> Option<News> {
        let was_short = self.is_short.swap(is_short, Ordering::Relaxed);
        match (was_short, is_short) {
            (false, true) => Some(News::Short),
            (true, false) => Some(News::Free),
            _ => None,
        }
    }
}

/// A change of what queries may write.
#[derive(Debug, PartialEq, Eq)]
enum News {
    Short,
    Free,
}

fn built(builder: DiskManagerBuilder) -> Result<Arc<DiskManager>, EngineError> {
    builder.build().map(Arc::new).map_err(|error| EngineError::Internal(error.to_string()))
}

/// None, if the system does not say.
fn free_bytes(folder: &Path) -> u64 {
    rustix::fs::statvfs(folder).map_or(0, |found| found.f_bavail.saturating_mul(found.f_frsize))
}

/// A killed process leaves its files behind.
fn empty(folder: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::fs::create_dir_all(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guarantee: however many queries find too little disk, the operator is told once, and once when there is enough
    /// again.
    #[test]
    fn the_operator_is_told_once() {
        let disk = Disk::open(None).unwrap();
        let news = [false, true, true, true, false, false, true].map(|is_short| disk.news(is_short));
        let (short, free) = (Some(News::Short), Some(News::Free));
        assert_eq!(news, [None, short, None, None, free, None, Some(News::Short)]);
    }
}
