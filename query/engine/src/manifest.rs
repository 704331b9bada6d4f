//! The manifest of a result: which question was answered from what, so that a reviewer can ask again and
//! compare. Written once the last byte of the answer was made; a query that broke off has none.
//! Not evidence about the data itself: the files' digests lead to the log entries that are.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::PathBuf;

use schemas_identity::Did;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Length of a manifest id, hex digits.
pub const ID_DIGITS: usize = 32;
/// Largest manifest read back, bytes.
const BYTES_MAX: u64 = 16 * 1024 * 1024;

/// A file an answer was computed from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestFile {
    /// Its name in the batch manifest.
    pub name: String,
    /// Its digest there, BLAKE3 hex.
    pub blake3: String,
}

/// The bytes that were sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestResult {
    /// Media type.
    pub media: String,
    /// How many bytes.
    pub bytes: u64,
    /// Their BLAKE3, hex.
    pub blake3: String,
}

/// What an answer was made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryManifest {
    /// Format version, 1.
    pub v: u32,
    /// Id, as in the header `Vitalog-Manifest`.
    pub id: String,
    /// Who asked.
    pub principal: Did,
    /// For which purpose.
    pub purpose: String,
    /// In which study.
    pub study: Option<String>,
    /// BLAKE3 of the SQL text, hex.
    pub sql_blake3: String,
    /// Log size of the files read; ask again with `as_of` set to it.
    pub log_size: u64,
    /// True if unsealed rows were included, which a later `as_of` query does not see.
    pub live_tail: bool,
    /// Consent epoch the permission was taken from.
    pub consent_epoch: u64,
    /// Files read.
    pub files: Vec<ManifestFile>,
    /// Rows of the result.
    pub rows: u64,
    /// Bytes of the result.
    pub result: Option<ManifestResult>,
}

/// A manifest that could not be kept or given.
#[derive(Debug, Error)]
pub enum ManifestError {
    /// No manifest of that id, or not this principal's: the two are not told apart.
    #[error("no such manifest")]
    NotFound,
    /// The file system failed.
    #[error("manifest store: {0}")]
    Io(#[from] std::io::Error),
    /// A stored manifest does not parse.
    #[error("manifest: {0}")]
    Json(#[from] serde_json::Error),
}

/// Manifests on disk, one file each.
#[derive(Debug, Clone)]
pub struct Manifests {
    dir: PathBuf,
}

impl Manifests {
    /// A store in `dir`, which is made if missing.
    ///
    /// # Errors
    /// `Io` if the folder cannot be made.
    pub fn open(dir: impl Into<PathBuf>) -> Result<Self, ManifestError> {
        let dir = dir.into();
        fs::create_dir_all(&dir)?;
        Ok(Self { dir })
    }

    /// Keeps a manifest, durably.
    ///
    /// # Errors
    /// `Io` if it could not be written; `NotFound` for an id that is none.
    pub fn keep(&self, manifest: &QueryManifest) -> Result<(), ManifestError> {
        let path = self.path(&manifest.id)?;
        let partial = path.with_extension("partial");
        let mut file = File::create(&partial)?;
        file.write_all(&serde_json::to_vec_pretty(manifest)?)?;
        file.sync_all()?;
        fs::rename(&partial, &path)?;
        File::open(&self.dir)?.sync_all()?;
        Ok(())
    }

    /// Gives a manifest to the one it belongs to.
    ///
    /// # Errors
    /// `NotFound` if there is none of that id for this principal.
    pub fn get(&self, id: &str, principal: &Did) -> Result<QueryManifest, ManifestError> {
        let file = match File::open(self.path(id)?) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(ManifestError::NotFound);
            }
            Err(error) => return Err(error.into()),
        };
        let mut bytes = Vec::new();
        file.take(BYTES_MAX).read_to_end(&mut bytes)?;
        let manifest: QueryManifest = serde_json::from_slice(&bytes)?;
        if manifest.principal != *principal {
            return Err(ManifestError::NotFound);
        }
        Ok(manifest)
    }

    fn path(&self, id: &str) -> Result<PathBuf, ManifestError> {
        let well_formed =
            id.len() == ID_DIGITS && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if well_formed { Ok(self.dir.join(format!("{id}.json"))) } else { Err(ManifestError::NotFound) }
    }
}
