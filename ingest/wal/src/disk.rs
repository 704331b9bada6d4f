//! The few file operations the log needs, behind a trait so that tests can make each of them fail. Not a file system.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// One flat directory of files. Names are plain ASCII without separators.
///
/// Nothing is durable before `sync` (content) or `sync_dir` (names) returned without error.
pub trait Disk: Send + Sync {
    /// Names of all files.
    ///
    /// # Errors
    /// The system's error.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Length of a file in bytes.
    ///
    /// # Errors
    /// The system's error.
    fn len(&self, name: &str) -> io::Result<u64>;
    /// Exactly `len` bytes from `offset`.
    ///
    /// # Errors
    /// `UnexpectedEof` if the file is shorter; else the system's error.
    fn read_at(&self, name: &str, offset: u64, len: usize) -> io::Result<Vec<u8>>;
    /// A new file of `len` zero bytes, written out so that later writes allocate nothing, and synced.
    ///
    /// # Errors
    /// The system's error; a partial file may be left.
    fn create_zeroed(&self, name: &str, len: u64) -> io::Result<()>;
    /// Overwrites bytes inside a file.
    ///
    /// # Errors
    /// The system's error; some bytes may have been written.
    fn write_at(&self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Makes the file's content durable.
    ///
    /// # Errors
    /// The system's error; the content is then unknown.
    fn sync(&self, name: &str) -> io::Result<()>;
    /// Renames a file.
    ///
    /// # Errors
    /// The system's error.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    ///
    /// # Errors
    /// The system's error.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes created, renamed and removed names durable.
    ///
    /// # Errors
    /// The system's error; which names survive is then unknown.
    fn sync_dir(&self) -> io::Result<()>;
    /// Bytes that files may still take on this disk.
    ///
    /// # Errors
    /// The system's error.
    fn free_bytes(&self) -> io::Result<u64>;
}

/// Name of the lock file beside the segments.
const LOCK_NAME: &str = "lock";
/// Bytes written at once while a new file is filled with zeros.
const ZERO_CHUNK_BYTES: usize = 1 << 20;

/// A real directory. Holds an exclusive lock on it until dropped.
#[derive(Debug)]
pub struct Files {
    dir: PathBuf,
    dir_handle: File,
    _lock: File,
    // The one file that is written again and again; opening it for each append would double the cost.
    hot: Mutex<Option<(String, Arc<File>)>>,
}

impl Files {
    /// Opens (or makes) the directory and takes its lock.
    ///
    /// # Errors
    /// `WouldBlock` if another holder has the lock; else the system's error.
    pub fn open(dir: &Path) -> io::Result<Files> {
        if !dir.exists() {
            fs::create_dir_all(dir)?;
            if let Some(parent) = dir.parent().filter(|p| !p.as_os_str().is_empty()) {
                File::open(parent)?.sync_all()?;
            }
        }
        let lock = OpenOptions::new().create(true).write(true).truncate(false).open(dir.join(LOCK_NAME))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(source)) => return Err(source),
        }
        let dir_handle = File::open(dir)?;
        Ok(Files { dir: dir.to_owned(), dir_handle, _lock: lock, hot: Mutex::new(None) })
    }

    fn handle(&self, name: &str) -> io::Result<Arc<File>> {
        let mut hot = self.hot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((hot_name, file)) = hot.as_ref()
            && hot_name == name
        {
            return Ok(Arc::clone(file));
        }
        let file = Arc::new(OpenOptions::new().read(true).write(true).open(self.dir.join(name))?);
        *hot = Some((name.to_owned(), Arc::clone(&file)));
        Ok(file)
    }

    fn forget(&self, name: &str) {
        let mut hot = self.hot.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(hot.as_ref(), Some((hot_name, _)) if hot_name == name) {
            *hot = None;
        }
    }
}

impl Disk for Files {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            // A name that is not text is none of ours.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn len(&self, name: &str) -> io::Result<u64> {
        Ok(fs::metadata(self.dir.join(name))?.len())
    }

    fn read_at(&self, name: &str, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        File::open(self.dir.join(name))?.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }

    fn create_zeroed(&self, name: &str, len: u64) -> io::Result<()> {
        let file = OpenOptions::new().write(true).create_new(true).open(self.dir.join(name))?;
        let zeros = vec![0_u8; ZERO_CHUNK_BYTES];
        let mut offset = 0_u64;
        while offset < len {
            let left = usize::try_from(len - offset).unwrap_or(ZERO_CHUNK_BYTES);
            let chunk = zeros.get(..left).unwrap_or(&zeros);
            file.write_all_at(chunk, offset)?;
            offset += chunk.len() as u64;
        }
        file.sync_all()
    }

    fn write_at(&self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.handle(name)?.write_all_at(bytes, offset)
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        self.handle(name)?.sync_data()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.forget(from);
        self.forget(to);
        fs::rename(self.dir.join(from), self.dir.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.forget(name);
        fs::remove_file(self.dir.join(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.dir_handle.sync_all()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let found = rustix::fs::fstatvfs(&self.dir_handle)?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }
}
