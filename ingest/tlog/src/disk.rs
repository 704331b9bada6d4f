//! Every change to the log's directory, one method each. What it is not: aware of what the files mean.
//!
//! In tests a [`Faults`] hook stands before each change, so that a crash can be played after any of them.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use schemas_evidence::LedgerError;

/// Longest file this crate reads at once: a bundle fits, and so does a journal that was not reset for long.
pub(crate) const FILE_BYTES_MAX: u64 = 1 << 31;

/// Decides before each change whether it still happens (tests only; production passes none).
pub(crate) trait Faults: Send + Sync {
    /// `Err` stands for the process having died before this change.
    fn before(&self, change: Change<'_>) -> io::Result<()>;

    /// False if the hook plays what a sync does, so that the disk need not be troubled.
    fn syncs(&self) -> bool;
}

/// One change to the directory.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Change<'a> {
    /// A file is written under a temporary name and takes its place.
    Replace(&'a Path),
    /// Bytes are appended to an open file.
    Append(&'a Path),
    /// A file's content becomes durable.
    Sync(&'a Path),
    /// A directory's names become durable.
    SyncDir(&'a Path),
    /// A directory goes away with what is in it.
    Remove(&'a Path),
}

/// The log's directory.
#[derive(Clone)]
pub(crate) struct Disk {
    dir: PathBuf,
    faults: Option<Arc<dyn Faults>>,
}

impl Disk {
    pub(crate) fn new(dir: &Path, faults: Option<Arc<dyn Faults>>) -> Disk {
        Disk { dir: dir.to_owned(), faults }
    }

    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.dir.join(relative)
    }

    pub(crate) fn create(&self) -> Result<(), LedgerError> {
        if self.dir.is_dir() {
            return Ok(());
        }
        fs::create_dir_all(&self.dir).map_err(|error| io_error("create", &self.dir, error))?;
        // The directory's own name must survive a power loss too.
        match self.dir.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => self.sync_dir(parent),
            _ => self.sync_dir(Path::new(".")),
        }
    }

    /// A file's bytes; nothing if it is not there.
    pub(crate) fn read(&self, relative: &str) -> Result<Option<Vec<u8>>, LedgerError> {
        let path = self.path(relative);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_error("open", &path, error)),
        };
        let mut bytes = Vec::new();
        file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(|error| io_error("read", &path, error))?;
        Ok(Some(bytes))
    }

    /// Writes a file as a whole: readers see the old one or the new one. Not durable yet.
    pub(crate) fn replace(&self, relative: &str, bytes: &[u8]) -> Result<(), LedgerError> {
        let path = self.path(relative);
        self.allow(Change::Replace(&path))?;
        let temporary = self.path(".new");
        let written = || -> io::Result<()> {
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::write(&temporary, bytes)?;
            fs::rename(&temporary, &path)
        };
        written().map_err(|error| io_error("write", &path, error))
    }

    /// Writes a file as a whole and makes content and name durable before the new one can be seen.
    pub(crate) fn replace_durably(&self, relative: &str, bytes: &[u8]) -> Result<(), LedgerError> {
        let path = self.path(relative);
        let temporary = self.path(&format!("{relative}.new"));
        self.allow(Change::Replace(&temporary))?;
        fs::write(&temporary, bytes).map_err(|error| io_error("write", &temporary, error))?;
        self.sync_path(&temporary)?;
        self.allow(Change::Replace(&path))?;
        fs::rename(&temporary, &path).map_err(|error| io_error("rename", &path, error))?;
        self.sync_dir(&self.dir)
    }

    pub(crate) fn append_handle(&self, relative: &str) -> Result<File, LedgerError> {
        let path = self.path(relative);
        OpenOptions::new().append(true).open(&path).map_err(|error| io_error("open", &path, error))
    }

    /// Appends to an open file and makes that durable: two changes.
    pub(crate) fn append_durably(
        &self,
        relative: &str,
        file: &mut File,
        bytes: &[u8],
    ) -> Result<(), LedgerError> {
        let path = self.path(relative);
        self.allow(Change::Append(&path))?;
        file.write_all(bytes).map_err(|error| io_error("append to", &path, error))?;
        self.allow(Change::Sync(&path))?;
        if self.syncs() { file.sync_data().map_err(|error| io_error("sync", &path, error)) } else { Ok(()) }
    }

    /// Makes these files and all directories that lead to them durable.
    pub(crate) fn sync(&self, relatives: &BTreeSet<String>) -> Result<(), LedgerError> {
        let mut directories = BTreeSet::from([self.dir.clone()]);
        for relative in relatives {
            let path = self.path(relative);
            self.sync_path(&path)?;
            let ancestors = path.ancestors().skip(1).take_while(|ancestor| ancestor.starts_with(&self.dir));
            directories.extend(ancestors.map(Path::to_owned));
        }
        directories.iter().try_for_each(|directory| self.sync_dir(directory))
    }

    pub(crate) fn remove_dir(&self, relative: &str) -> Result<(), LedgerError> {
        let path = self.path(relative);
        self.allow(Change::Remove(&path))?;
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(io_error("remove", &path, error)),
            _ => Ok(()),
        }
    }

    pub(crate) fn exists(&self, relative: &str) -> bool {
        self.path(relative).exists()
    }

    fn sync_path(&self, path: &Path) -> Result<(), LedgerError> {
        self.allow(Change::Sync(path))?;
        self.really_sync(path)
    }

    fn sync_dir(&self, path: &Path) -> Result<(), LedgerError> {
        self.allow(Change::SyncDir(path))?;
        self.really_sync(path)
    }

    fn syncs(&self) -> bool {
        self.faults.as_ref().is_none_or(|faults| faults.syncs())
    }

    fn really_sync(&self, path: &Path) -> Result<(), LedgerError> {
        let opened = File::open(path).and_then(|file| if self.syncs() { file.sync_all() } else { Ok(()) });
        opened.map_err(|error| io_error("sync", path, error))
    }

    fn allow(&self, change: Change<'_>) -> Result<(), LedgerError> {
        let Some(faults) = &self.faults else { return Ok(()) };
        let (Change::Replace(path)
        | Change::Append(path)
        | Change::Sync(path)
        | Change::SyncDir(path)
        | Change::Remove(path)) = change;
        faults.before(change).map_err(|error| io_error("change", path, error))
    }
}

pub(crate) fn io_error(action: &'static str, path: &Path, source: io::Error) -> LedgerError {
    LedgerError::Io { action, path: path.display().to_string(), source: Arc::new(source) }
}

pub(crate) fn corrupt(place: impl Into<String>, problem: impl Into<String>) -> LedgerError {
    LedgerError::Corrupt { place: place.into(), problem: problem.into() }
}
