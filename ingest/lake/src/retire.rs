//! Files whose place a set has taken. They stay while somebody reads them and for some time after, and only go once the
//! set's own files were read back and are what its manifest says.

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Weak};

use schemas_evidence::FileRef;

use crate::disk::Disk;
use crate::open::Stock;
use crate::sets::SealedSet;
use crate::{Lake, LakeError, files};

/// Files that a set replaced.
pub(crate) struct Retired {
    /// Held by every view that may name them, and by none that was taken later.
    pub(crate) readers: Weak<Vec<Arc<SealedSet>>>,
    /// Since when, microseconds since 1970.
    pub(crate) since_us: i64,
    /// What took their place.
    pub(crate) set: Arc<SealedSet>,
    pub(crate) files: Vec<FileRef>,
}

/// Oldest first: a view that names files of a later one may name those of an earlier one, never the other way round.
pub(crate) type Queue = VecDeque<Retired>;

impl Lake {
    /// Removes replaced files that nobody reads any more and whose time is over; gives their number.
    ///
    /// # Errors
    /// If a file cannot be removed, or a set's own files are not as they were written: then what it replaced stays.
    pub fn remove_replaced(&self, now_us: i64) -> Result<u64, LakeError> {
        let keep_us = i64::try_from(self.options.compaction.keep.as_micros()).unwrap_or(i64::MAX);
        let mut compacting = self.compacting.lock();
        let mut removed = 0;
        while let Some(oldest) = compacting.retired.front() {
            let is_young = now_us.saturating_sub(oldest.since_us) < keep_us;
            if is_young || oldest.readers.strong_count() > 0 {
                break;
            }
            check_files(self.directory(), &oldest.set)?;
            removed += remove(&self.disk(), oldest.files.iter())?;
            compacting.retired.pop_front();
        }
        Ok(removed)
    }
}

impl Stock {
    /// Removes replaced files; at open nobody reads them. Those of a set that is damaged stay: they are its repair.
    pub(crate) fn remove_replaced(&self, disk: &Disk, directory: &Path) -> Result<(), LakeError> {
        let mut is_good: HashMap<usize, bool> = HashMap::new();
        for (place, file) in &self.replaced {
            if !directory.join(&file.name).exists() {
                continue;
            }
            let Some(set) = self.held.sets.iter().find(|set| set.range().contains(place)) else { continue };
            let is_good = *is_good.entry(set.range().start).or_insert_with(|| {
                let checked = check_files(directory, set);
                if let Err(error) = &checked {
                    tracing::error!(%error, "files that a set replaced are kept: run audit");
                }
                checked.is_ok()
            });
            if is_good {
                remove(disk, [file].into_iter())?;
            }
        }
        Ok(())
    }
}

/// Whether the set's files are what its manifest says.
fn check_files(directory: &Path, set: &SealedSet) -> Result<(), LakeError> {
    for file in &set.manifest.files {
        let path = directory.join(&file.name);
        let found = files::digest(&path).map_err(|source| LakeError::Io { path: path.clone(), source })?;
        if found != file.blake3 {
            let problem = "the file was changed after it was written";
            return Err(LakeError::Stored { file: file.name.clone(), problem });
        }
    }
    Ok(())
}

fn remove<'a>(disk: &Disk, files: impl Iterator<Item = &'a FileRef>) -> Result<u64, LakeError> {
    let mut removed = 0;
    for file in files {
        match disk.remove(&file.name) {
            Ok(()) => removed += 1,
            Err(LakeError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(removed)
}
