//! The manifest of a result: what was asked of which state of the log, with which bytes as the answer. It is signed and
//! kept before the last byte leaves; a query that broke off has none. The proofs are made when it is fetched.
//!
//! ```text
//! DIR/ID.json        a manifest as signed, without statement and proofs
//! DIR/first/KEY      the first answer to a question of one log size: manifest id, number of its record in the audit
//! ```
//!
//! The form and the checks are `schemas_evidence::answer`; what may stand in it, and what not, is written there. Not
//! kept: the text of the statement, which may hold what the audit takes care to leave out. The newest are kept, as many
//! as the operator says; what was fetched stays good for ever.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use query_audit::{Audit, AuditError};
use schemas_evidence::answer::{
    ANSWER_BYTES_MAX, AnswerBytes, AnswerFormatError, AnswerManifest, AnswerProof, Hex32, ProvedEntry, Rerun,
};
use schemas_evidence::merkle::{self, Hash32, ProofError, Sha256Rfc6962};
use schemas_evidence::{Checkpoint, CheckpointError, Ledger, LedgerError, NoteError, entry_leaf};
use schemas_identity::{Did, SecretKey};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::shelf::{PARTIAL, Shelf};
use crate::tables::Sources;

/// Manifests kept, and first answers, if the operator says nothing.
pub const MANIFESTS_MAX_DEFAULT: usize = 100_000;
/// Length of a manifest id, hex digits.
pub const ID_DIGITS: usize = 32;
/// Context of the names under which first answers are found.
const FIRST_CONTEXT: &str = "vitalog 2026 first answer v1";
/// Longest note of a first answer, bytes.
const FIRST_BYTES_MAX: u64 = 256;

/// What the engine knows of an answer once its last row was handed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryManifest {
    /// Id, as in the header `Vitalog-Manifest`.
    pub id: String,
    /// Who asked.
    pub principal: Did,
    /// For which purpose.
    pub purpose: String,
    /// In which study.
    pub study: Option<String>,
    /// BLAKE3 of the statement.
    pub sql_blake3: Hash32,
    /// When, microseconds since 1970 UTC.
    pub asked_us: i64,
    /// Whether an earlier state was asked of: only then is a first answer looked for.
    pub is_of_past: bool,
    /// Log size of the files read; ask again with `as_of` set to it.
    pub log_size: u64,
    /// What in the log commits to those files.
    pub sources: Sources,
    /// True if unsealed rows were included, which a later `as_of` query does not see.
    pub live_tail: bool,
    /// Consent epoch the permission was taken from.
    pub consent_epoch: u64,
    /// Number of the access record in the audit.
    pub record: u64,
    /// Its entry in the log.
    pub query_index: u64,
    /// The entry of its completion; `None` while a polling client may ask again.
    pub result_index: Option<u64>,
    /// Rows of the result.
    pub rows: u64,
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
    /// It cannot be written as JSON.
    #[error("manifest: {0}")]
    Json(#[from] serde_json::Error),
    /// A stored manifest does not read.
    #[error("stored manifest: {0}")]
    Format(#[from] AnswerFormatError),
    /// The log does not give what proves it.
    #[error("log: {0}")]
    Ledger(#[from] LedgerError),
    /// The log's proof does not fit its entry.
    #[error("log: {0}")]
    Proof(#[from] ProofError),
    /// The log's own checkpoint does not read.
    #[error("log: {0}")]
    Checkpoint(#[from] CheckpointError),
    /// It cannot be signed.
    #[error("signature: {0}")]
    Note(#[from] NoteError),
    /// The record of an earlier answer cannot be read.
    #[error("audit: {0}")]
    Audit(#[from] AuditError),
}

/// The first answer to a question.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct First {
    id: String,
    record: u64,
}

/// Signs manifests, keeps them on disk, and adds proofs.
pub struct Manifests {
    kept: Shelf,
    first: Shelf,
    ledger: Arc<dyn Ledger>,
    audit: Arc<Audit>,
    key: SecretKey,
}

impl std::fmt::Debug for Manifests {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Manifests").field("dir", &self.kept.dir()).finish_non_exhaustive()
    }
}

impl Manifests {
    /// A store in `dir`, which is made if missing, of the newest `manifests_max` manifests and as many first answers.
    /// `key` is the key that signs the log's checkpoints.
    ///
    /// # Errors
    /// `Io` if the folder cannot be made or read.
    pub fn open(
        dir: impl Into<PathBuf>,
        manifests_max: usize,
        ledger: Arc<dyn Ledger>,
        audit: Arc<Audit>,
        key: SecretKey,
    ) -> Result<Self, ManifestError> {
        let dir = dir.into();
        let kept = Shelf::open(dir.clone(), manifests_max)?;
        let first = Shelf::open(dir.join("first"), manifests_max)?;
        Ok(Self { kept, first, ledger, audit, key })
    }

    /// Signs and keeps the manifest of an answer with these bytes, durably.
    ///
    /// # Errors
    /// If log or audit cannot be read, or it could not be written; `NotFound` for an id that is none.
    pub fn keep(&self, answer: QueryManifest, result: AnswerBytes) -> Result<(), ManifestError> {
        let name = name_of(&answer.id)?;
        let rerun = self.rerun(&answer)?;
        let mut manifest = AnswerManifest {
            v: 1,
            origin: self.ledger.origin().to_owned(),
            id: answer.id,
            principal: answer.principal,
            purpose: answer.purpose,
            study: answer.study,
            sql_blake3: Hex32(answer.sql_blake3),
            asked_us: answer.asked_us,
            log_size: answer.log_size,
            log_root: Hex32(self.root_at(answer.log_size)?),
            batches: answer.sources.batches,
            sets: answer.sources.sets,
            live_tail: answer.live_tail,
            consent_epoch: answer.consent_epoch,
            query_index: answer.query_index,
            result_index: answer.result_index,
            rows: answer.rows,
            rerun,
            result,
            signed: String::new(),
            sql: None,
            proof: None,
        };
        manifest.sign(&self.key)?;
        let kept = Kept { entries: answer.sources.entries, manifest };
        write_whole(&self.kept.path(&name), &serde_json::to_vec_pretty(&kept)?)?;
        Ok(self.kept.put(name)?)
    }

    /// Gives a manifest, with its proofs, to the one it belongs to.
    ///
    /// # Errors
    /// `NotFound` if there is none of that id for this principal.
    pub fn get(&self, id: &str, principal: &Did) -> Result<AnswerManifest, ManifestError> {
        let bytes = read_whole(&self.kept.path(&name_of(id)?), ANSWER_BYTES_MAX as u64)?
            .ok_or(ManifestError::NotFound)?;
        let Kept { mut entries, mut manifest } = serde_json::from_slice(&bytes)?;
        if manifest.principal != *principal {
            return Err(ManifestError::NotFound);
        }
        entries.push(manifest.query_index);
        entries.extend(manifest.result_index);
        entries.sort_unstable();
        manifest.proof = Some(self.prove(manifest.log_size, &entries)?);
        Ok(manifest)
    }

    /// What changed since the first answer to the same question; this is noted as the first if there is none.
    fn rerun(&self, answer: &QueryManifest) -> Result<Option<Rerun>, ManifestError> {
        let name = question(answer)?;
        let path = self.first.path(&name);
        if let Some(bytes) = read_whole(&path, FIRST_BYTES_MAX)? {
            if !answer.is_of_past {
                return Ok(None);
            }
            // A note that a crash cut off says nothing, and no earlier answer is as good as none.
            let Ok(first) = serde_json::from_slice::<First>(&bytes) else { return Ok(None) };
            let moved = self.audit.moved(first.record, answer.record)?;
            return Ok(moved.map(|moved| Rerun {
                of: first.id,
                withdrawn: moved.withdrawn,
                joined: moved.joined,
                changed: moved.changed,
            }));
        }
        let note = serde_json::to_vec(&First { id: answer.id.clone(), record: answer.record })?;
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            // Not synced: without it a later answer says nothing of an earlier one, and that is all.
            Ok(mut file) => {
                file.write_all(&note)?;
                self.first.put(name)?;
            }
            // Somebody else's answer to the same question came first by a moment.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error.into()),
        }
        Ok(None)
    }

    /// The log's root when it had this size.
    fn root_at(&self, size: u64) -> Result<Hash32, ManifestError> {
        let Some(last) = size.checked_sub(1) else { return Ok(merkle::root::<Sha256Rfc6962>(&[])) };
        let leaf = entry_leaf(&self.entry(last)?);
        let path = self.ledger.inclusion(last, size)?;
        Ok(merkle::root_from_path::<Sha256Rfc6962>(&leaf, last, size, &path)?)
    }

    fn entry(&self, index: u64) -> Result<String, ManifestError> {
        let mut entries = self.ledger.entries(index, index + 1)?;
        Ok(entries.pop().ok_or(LedgerError::Range {
            from: index,
            to: index + 1,
            size: self.ledger.size(),
        })?)
    }

    fn prove(&self, log_size: u64, indices: &[u64]) -> Result<AnswerProof, ManifestError> {
        let checkpoint = self.ledger.checkpoint()?;
        let head = schemas_evidence::note::Note::parse(&checkpoint)?;
        let size = Checkpoint::from_text(head.text)?.size;
        let hashes = |path: Vec<Hash32>| path.into_iter().map(Hex32).collect::<Vec<Hex32>>();
        let mut entries = Vec::with_capacity(indices.len());
        for index in indices {
            let path = hashes(self.ledger.inclusion(*index, size)?);
            entries.push(ProvedEntry { index: *index, entry: self.entry(*index)?, path });
        }
        let consistency = match log_size {
            // Nothing leads from an empty log, and nothing needs to.
            0 => Vec::new(),
            _ => hashes(self.ledger.consistency(log_size, size)?),
        };
        Ok(AnswerProof { checkpoint, consistency, entries })
    }
}

/// The file of a manifest, if that is an id.
fn name_of(id: &str) -> Result<String, ManifestError> {
    let well_formed =
        id.len() == ID_DIGITS && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if well_formed { Ok(format!("{id}.json")) } else { Err(ManifestError::NotFound) }
}

/// A manifest and the log indices to prove with it.
#[derive(Serialize, Deserialize)]
struct Kept {
    entries: Vec<u64>,
    manifest: AnswerManifest,
}

/// One name for the same statement by the same party, for the same purpose and study, of the same log size.
fn question(answer: &QueryManifest) -> Result<String, ManifestError> {
    let who = (&answer.principal, &answer.purpose, &answer.study);
    let whole = serde_json::to_vec(&(who, answer.sql_blake3, answer.log_size))?;
    Ok(hex::encode(blake3::derive_key(FIRST_CONTEXT, &whole)))
}

/// A file's bytes; nothing if there is none.
fn read_whole(path: &Path, bytes_max: u64) -> Result<Option<Vec<u8>>, ManifestError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut bytes = Vec::new();
    file.take(bytes_max).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), ManifestError> {
    let partial = path.with_extension(PARTIAL);
    let mut file = File::create(&partial)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&partial, path)?;
    if let Some(dir) = path.parent() {
        File::open(dir)?.sync_all()?;
    }
    Ok(())
}
