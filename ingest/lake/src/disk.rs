//! Every change to the lake's directory, one method each. What it is not: aware of what the files mean.
//!
//! In simulations a [`Faults`] hook stands before each change, so that a crash, a full disk or a failed sync can be
//! played at any of them; production passes none.

use std::fmt::Debug;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::LakeError;

/// Decides before each change whether it happens.
pub trait Faults: Send + Sync + Debug {
    /// An error stands for the change having failed; after the one that stands for the end of the process, all fail.
    ///
    /// # Errors
    /// Whatever the simulated system says.
    fn before(&self, change: Change<'_>) -> io::Result<()>;

    /// False if the hook plays what a sync does, so that the disk need not be troubled.
    fn syncs(&self) -> bool;
}

/// One change to the directory.
#[derive(Debug, Clone, Copy)]
pub enum Change<'a> {
    /// An empty file takes this name; one that had it is gone.
    Create(&'a Path),
    /// Bytes are added to a file.
    Write(&'a Path),
    /// A file's content becomes durable.
    Sync(&'a Path),
    /// A file gets another name; one that had it is gone.
    Rename {
        /// The name before.
        from: &'a Path,
        /// The name after.
        to: &'a Path,
    },
    /// The directory's names become durable.
    SyncDir(&'a Path),
    /// A file goes away.
    Remove(&'a Path),
}

/// The lake's directory.
#[derive(Debug, Clone)]
pub(crate) struct Disk {
    dir: PathBuf,
    faults: Option<Arc<dyn Faults>>,
}

/// A new file of the directory, open for writing.
#[derive(Debug)]
pub(crate) struct NewFile {
    file: File,
    path: PathBuf,
    disk: Disk,
}

impl Disk {
    pub(crate) fn new(dir: &Path, faults: Option<Arc<dyn Faults>>) -> Disk {
        Disk { dir: dir.to_owned(), faults }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Names of all files, in order: what is done to several of them can be replayed.
    pub(crate) fn names(&self) -> Result<Vec<String>, LakeError> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(|source| failed(&self.dir, source))? {
            let entry = entry.map_err(|source| failed(&self.dir, source))?;
            // A name that is not text is none of ours.
            names.extend(entry.file_name().into_string());
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Makes the directory if it is missing, and its own name durable: what is synced inside it would be lost with it.
    pub(crate) fn make(&self) -> Result<(), LakeError> {
        if self.dir.is_dir() {
            return Ok(());
        }
        fs::create_dir_all(&self.dir).map_err(|source| failed(&self.dir, source))?;
        match self.dir.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => self.really_sync(parent),
            _ => self.really_sync(Path::new(".")),
        }
    }

    pub(crate) fn create(&self, name: &str) -> Result<NewFile, LakeError> {
        let path = self.path(name);
        self.allow(Change::Create(&path)).map_err(|source| failed(&path, source))?;
        let file = File::create(&path).map_err(|source| failed(&path, source))?;
        Ok(NewFile { file, path, disk: self.clone() })
    }

    pub(crate) fn rename(&self, from: &str, to: &str) -> Result<(), LakeError> {
        let (from, to) = (self.path(from), self.path(to));
        let allowed = self.allow(Change::Rename { from: &from, to: &to });
        allowed.and_then(|()| fs::rename(&from, &to)).map_err(|source| failed(&from, source))
    }

    pub(crate) fn remove(&self, name: &str) -> Result<(), LakeError> {
        let path = self.path(name);
        let allowed = self.allow(Change::Remove(&path));
        allowed.and_then(|()| fs::remove_file(&path)).map_err(|source| failed(&path, source))
    }

    /// Makes created, renamed and removed names durable.
    pub(crate) fn sync_dir(&self) -> Result<(), LakeError> {
        self.allow(Change::SyncDir(&self.dir)).map_err(|source| failed(&self.dir, source))?;
        self.really_sync(&self.dir)
    }

    fn really_sync(&self, path: &Path) -> Result<(), LakeError> {
        if !self.syncs() {
            return Ok(());
        }
        File::open(path).and_then(|file| file.sync_all()).map_err(|source| failed(path, source))
    }

    fn syncs(&self) -> bool {
        self.faults.as_ref().is_none_or(|faults| faults.syncs())
    }

    fn allow(&self, change: Change<'_>) -> io::Result<()> {
        match &self.faults {
            Some(faults) => faults.before(change),
            None => Ok(()),
        }
    }
}

impl NewFile {
    /// Makes the content durable.
    pub(crate) fn sync(self) -> Result<(), LakeError> {
        self.disk.allow(Change::Sync(&self.path)).map_err(|source| failed(&self.path, source))?;
        if self.disk.syncs() {
            self.file.sync_all().map_err(|source| failed(&self.path, source))?;
        }
        Ok(())
    }
}

impl Write for NewFile {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.disk.allow(Change::Write(&self.path))?;
        self.file.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn failed(path: &Path, source: io::Error) -> LakeError {
    LakeError::Io { path: path.to_owned(), source }
}
