//! A folder of files of which the newest are kept: what is put on it pushes the oldest off. Names are held in memory,
//! oldest first; after a restart the order is that of the files' times. What it is not: what keeps a file durable.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use parking_lot::Mutex;

/// Extension of files that are not whole yet; those that a crash left are removed.
pub(crate) const PARTIAL: &str = "partial";

/// The folder.
pub(crate) struct Shelf {
    dir: PathBuf,
    max: usize,
    /// Oldest first.
    names: Mutex<VecDeque<String>>,
}

impl Shelf {
    /// Opens a folder, which is made if missing, for at most `max` files, and removes older ones beyond.
    pub(crate) fn open(dir: PathBuf, max: usize) -> io::Result<Shelf> {
        fs::create_dir_all(&dir)?;
        let mut found: Vec<(SystemTime, String)> = Vec::new();
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            let (path, status) = (entry.path(), entry.metadata()?);
            if !status.is_file() {
                continue;
            }
            if path.extension().is_some_and(|extension| extension == PARTIAL) {
                fs::remove_file(&path)?;
            } else if let Ok(name) = entry.file_name().into_string() {
                found.push((status.modified()?, name));
            }
        }
        found.sort_unstable();
        let names = found.into_iter().map(|(_, name)| name).collect();
        let shelf = Shelf { dir, max: max.max(1), names: Mutex::new(names) };
        shelf.trim()?;
        Ok(shelf)
    }

    /// Where a file of that name stands, or would.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Takes note of a new file, and removes the oldest if there are too many now.
    pub(crate) fn put(&self, name: String) -> io::Result<()> {
        self.names.lock().push_back(name);
        self.trim()
    }

    fn trim(&self) -> io::Result<()> {
        loop {
            let oldest = {
                let mut names = self.names.lock();
                if names.len() <= self.max {
                    return Ok(());
                }
                names.pop_front()
            };
            let Some(oldest) = oldest else { return Ok(()) };
            match fs::remove_file(self.path(&oldest)) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn names(dir: &TempDir) -> Vec<String> {
        let entries = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<String> = entries.map(|name| name.into_string().unwrap()).collect();
        names.sort_unstable();
        names
    }

    /// Guarantee: never more than the bound, the oldest go first, also those from before a restart and under a smaller
    /// bound; what a crash left half written goes, and folders stay.
    #[test]
    fn the_newest_are_kept() {
        let dir = TempDir::new().unwrap();
        fs::create_dir(dir.path().join("folder")).unwrap();
        let shelf = Shelf::open(dir.path().to_owned(), 3).unwrap();
        for (at, name) in ["e", "d", "c", "b", "a"].into_iter().enumerate() {
            fs::write(shelf.path(name), name).unwrap();
            let when = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(at as u64);
            fs::File::options().write(true).open(shelf.path(name)).unwrap().set_modified(when).unwrap();
            shelf.put(name.to_owned()).unwrap();
        }
        assert_eq!(names(&dir), ["a", "b", "c", "folder"]);
        fs::write(dir.path().join("x.partial"), "half").unwrap();
        let shelf = Shelf::open(dir.path().to_owned(), 2).unwrap();
        assert_eq!(names(&dir), ["a", "b", "folder"]);
        fs::write(shelf.path("z"), "z").unwrap();
        shelf.put("z".to_owned()).unwrap();
        assert_eq!(names(&dir), ["a", "folder", "z"]);
    }
}
