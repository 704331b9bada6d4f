//! The data directory: one process at a time, a format version, and the keys of this deployment.
//! Not its contents: log, statements, lake, WAL and audit records each own a folder below it.
//!
//! ```text
//! DATA/format            {"format":2}
//! DATA/lock              held while a process has the directory open
//! DATA/keys/log.pem      signs checkpoints
//! DATA/keys/operator.pem only with --dev
//! DATA/keys/pseudonyms   32 random bytes, hex: keys the pseudonyms of studies and the names of people of identity providers
//! DATA/{log,statements,wal,lake,quarantine,audit,tokens}/
//! DATA/spill/            rows of queries that run, emptied at the start
//! ```

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

use schemas_identity::SecretKey;

/// Format this build reads and writes.
/// 1: frames files held the frames' bytes. 2: they hold what rows do not say.
const FORMAT: u64 = 2;

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DataDirError {
    /// Somebody else has it.
    #[error("{path} is in use by another vitalog process: stop it, or choose another --data")]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// Written by a newer build.
    #[error(
        "{path} has format {found}, this build knows up to {FORMAT}: start the newer vitalog that wrote it, or use another --data"
    )]
    Newer {
        /// The directory.
        path: PathBuf,
        /// Its format.
        found: u64,
    },
    /// Written by an earlier build whose files are laid out in another way.
    #[error(
        "{path} has format {found}, this build writes {FORMAT} and converts nothing: use the build that wrote it, or send the frames again into another --data"
    )]
    Older {
        /// The directory.
        path: PathBuf,
        /// Its format.
        found: u64,
    },
    /// Not empty and not ours.
    #[error("{path} is not empty and has no readable `format` file: it is not a vitalog data directory")]
    Foreign {
        /// The directory.
        path: PathBuf,
    },
    /// There is none where one is needed.
    #[error("{path} is not a vitalog data directory: name one with --data or VITALOG_DATA")]
    Missing {
        /// The directory.
        path: PathBuf,
    },
    /// A key file that does not hold a key.
    #[error("{path} does not hold a usable key: restore it from a backup")]
    Key {
        /// The file.
        path: PathBuf,
    },
    /// The system refused.
    #[error("{path}: {source}")]
    Io {
        /// File or directory.
        path: PathBuf,
        /// Reason given by the system.
        source: std::io::Error,
    },
}

/// An opened, locked data directory.
#[derive(Debug)]
pub(crate) struct DataDir {
    root: PathBuf,
    _lock: File,
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> DataDirError + '_ {
    move |source| DataDirError::Io { path: path.to_owned(), source }
}

/// Writes a small file so that a crash leaves the old or the new one, never half.
pub(crate) fn write_durable(path: &Path, bytes: &[u8], secret: bool) -> std::io::Result<()> {
    let temporary = path.with_extension("tmp");
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, if secret { 0o600 } else { 0o644 });
    let mut file = options.open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    if let Some(parent) = path.parent() {
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        File::open(parent)?.sync_all()?;
    }
    Ok(())
}

impl DataDir {
    /// Opens or creates it and takes the lock.
    pub(crate) fn open(root: &Path) -> Result<Self, DataDirError> {
        fs::create_dir_all(root).map_err(io(root))?;
        let fresh = !root.join("format").exists();
        if fresh && fs::read_dir(root).map_err(io(root))?.any(|entry| !is_own_leftover(&entry)) {
            return Err(DataDirError::Foreign { path: root.to_owned() });
        }
        let lock = Self::lock(root)?;
        if fresh {
            let path = root.join("format");
            write_durable(&path, format!("{{\"format\":{FORMAT}}}\n").as_bytes(), false)
                .map_err(io(&path))?;
        }
        Self::check_format(root)?;
        for folder in ["keys", "log", "statements", "wal", "lake", "audit", "tokens"] {
            let path = root.join(folder);
            fs::create_dir_all(&path).map_err(io(&path))?;
        }
        Ok(Self { root: root.to_owned(), _lock: lock })
    }

    /// Opens an existing one, for offline commands; still takes the lock.
    pub(crate) fn open_existing(root: &Path) -> Result<Self, DataDirError> {
        if !root.join("format").exists() {
            return Err(DataDirError::Missing { path: root.to_owned() });
        }
        Self::open(root)
    }

    fn lock(root: &Path) -> Result<File, DataDirError> {
        let path = root.join("lock");
        let file =
            OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(io(&path))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(DataDirError::Locked { path: root.to_owned() }),
            Err(TryLockError::Error(source)) => Err(DataDirError::Io { path, source }),
        }
    }

    fn check_format(root: &Path) -> Result<(), DataDirError> {
        let path = root.join("format");
        let text = fs::read_to_string(&path).map_err(io(&path))?;
        let value: serde_json::Value =
            serde_json::from_str(&text).map_err(|_| DataDirError::Foreign { path: root.to_owned() })?;
        let found =
            value["format"].as_u64().ok_or_else(|| DataDirError::Foreign { path: root.to_owned() })?;
        if found > FORMAT {
            return Err(DataDirError::Newer { path: root.to_owned(), found });
        }
        if found < FORMAT {
            return Err(DataDirError::Older { path: root.to_owned(), found });
        }
        Ok(())
    }

    /// A folder below the root.
    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// The key of that name, made at the first call.
    pub(crate) fn key(&self, name: &str) -> Result<SecretKey, DataDirError> {
        let path = self.root.join("keys").join(format!("{name}.pem"));
        if !path.exists() {
            let key = SecretKey::generate().map_err(|_| DataDirError::Key { path: path.clone() })?;
            write_durable(&path, key.to_pem().as_bytes(), true).map_err(io(&path))?;
        }
        let text = fs::read_to_string(&path).map_err(io(&path))?;
        SecretKey::from_pem(&text).map_err(|_| DataDirError::Key { path })
    }

    /// Secret behind the pseudonyms of studies, made at the first call.
    pub(crate) fn pseudonym_secret(&self) -> Result<[u8; 32], DataDirError> {
        let path = self.root.join("keys").join("pseudonyms");
        let key = || DataDirError::Key { path: path.clone() };
        if !path.exists() {
            let mut secret = [0u8; 32];
            getrandom::fill(&mut secret).map_err(|_| key())?;
            write_durable(&path, hex::encode(secret).as_bytes(), true).map_err(io(&path))?;
        }
        let text = fs::read_to_string(&path).map_err(io(&path))?;
        let bytes = hex::decode(text.trim()).map_err(|_| key())?;
        bytes.try_into().map_err(|_| key())
    }
}

/// A crash before the format file was written leaves only these.
fn is_own_leftover(entry: &std::io::Result<fs::DirEntry>) -> bool {
    entry.as_ref().is_ok_and(|entry| ["lock", "format.tmp"].iter().any(|name| entry.file_name() == *name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("vitalog-datadir-{name}-{}", std::process::id()));
        fs::remove_dir_all(&path).ok();
        path
    }

    /// Guarantee: two processes never share a directory.
    #[test]
    fn second_open_is_refused() {
        let path = scratch("lock");
        let first = DataDir::open(&path).unwrap();
        assert!(matches!(DataDir::open(&path), Err(DataDirError::Locked { .. })));
        drop(first);
        DataDir::open(&path).unwrap();
        fs::remove_dir_all(&path).unwrap();
    }

    /// Guarantee: a newer format is refused with the way out, a foreign folder is left alone.
    #[test]
    fn newer_and_foreign_are_refused() {
        let path = scratch("newer");
        drop(DataDir::open(&path).unwrap());
        fs::write(path.join("format"), "{\"format\":99}").unwrap();
        let text = DataDir::open(&path).unwrap_err().to_string();
        assert!(text.contains("99") && text.contains("newer vitalog"), "{text}");
        fs::write(path.join("format"), "{\"format\":1}").unwrap();
        assert!(matches!(DataDir::open(&path), Err(DataDirError::Older { found: 1, .. })));
        fs::remove_dir_all(&path).unwrap();
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("thesis.doc"), "x").unwrap();
        assert!(matches!(DataDir::open(&path), Err(DataDirError::Foreign { .. })));
        fs::remove_dir_all(&path).unwrap();
    }

    /// Guarantee: keys are made once and are readable by their owner only.
    #[test]
    fn keys_are_stable_and_private() {
        let path = scratch("keys");
        let data = DataDir::open(&path).unwrap();
        let first = data.key("log").unwrap().public();
        assert_eq!(first, data.key("log").unwrap().public());
        assert_eq!(data.pseudonym_secret().unwrap(), data.pseudonym_secret().unwrap());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = fs::metadata(path.join("keys/log.pem")).unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0);
        }
        fs::remove_dir_all(&path).unwrap();
    }
}
