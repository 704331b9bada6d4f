//! Auditing: everything is read again and computed again, and whatever does not fit is named.

use std::collections::HashSet;
use std::fs;
use std::fs::File;
use std::path::Path;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use schemas_evidence::{BatchManifest, Blake3Frames, FileKind, FileRef, Hash32, Ledger, frame_leaf, merkle};

use crate::open::{Named, manifest_of, named_batches};
use crate::seal::manifest_name;
use crate::{Admitted, LakeError, files, find, rows};

/// Something that does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The batch, or empty where none can be named.
    pub batch: String,
    /// The file, or empty.
    pub file: String,
    /// What is wrong.
    pub problem: String,
}

/// How far an audit is: batches done, batches in all.
pub type Progress<'a> = dyn FnMut(u64, u64) + 'a;

/// Checks every batch that the log names, and that nothing else lies there. An empty list means all of it fits.
pub fn audit(
    directory: &Path,
    ledger: &dyn Ledger,
    progress: &mut Progress<'_>,
) -> Result<Vec<Finding>, LakeError> {
    let named = named_batches(ledger)?;
    let total = named.len() as u64;
    let mut findings = Vec::new();
    let mut known = HashSet::new();
    for (named, done) in named.iter().zip(1u64..) {
        known.insert(manifest_name(&named.id));
        match manifest_of(directory, named) {
            Ok(manifest) => {
                known.extend(manifest.files.iter().map(|file| file.name.clone()));
                check_batch(directory, &manifest, &mut findings);
            }
            Err(error) => findings.push(finding(&named.id, &manifest_name(&named.id), &error)),
        }
        progress(done, total);
    }
    check_strays(directory, &known, &named, &mut findings)?;
    Ok(findings)
}

fn finding(batch: &str, file: &str, problem: &dyn std::fmt::Display) -> Finding {
    Finding { batch: batch.to_owned(), file: file.to_owned(), problem: problem.to_string() }
}

fn check_strays(
    directory: &Path,
    known: &HashSet<String>,
    named: &[Named],
    findings: &mut Vec<Finding>,
) -> Result<(), LakeError> {
    let io = |source| LakeError::Io { path: directory.to_owned(), source };
    for entry in fs::read_dir(directory).map_err(io)? {
        let name = entry.map_err(io)?.file_name().to_string_lossy().into_owned();
        // Files of one unfinished attempt are normal while a server runs; a batch of another name is not.
        if known.contains(&name) || name.ends_with(".tmp") {
            continue;
        }
        let batch = name.split('.').next().unwrap_or("").to_owned();
        let problem = match named.iter().any(|named| named.id == batch) {
            true => "the batch's manifest does not name this file",
            false => "no log entry names this batch",
        };
        findings.push(finding(&batch, &name, &problem));
    }
    Ok(())
}

fn check_batch(directory: &Path, manifest: &BatchManifest, findings: &mut Vec<Finding>) {
    let before = findings.len();
    for file in &manifest.files {
        if let Some(problem) = check_file(directory, file) {
            findings.push(finding(&manifest.batch, &file.name, &problem));
        }
    }
    // A damaged file is named once; what follows from the damage is not.
    if findings.len() > before {
        return;
    }
    if let Err(problem) = check_contents(directory, manifest) {
        findings.push(finding(&manifest.batch, "", &problem));
    }
}

fn check_file(directory: &Path, file: &FileRef) -> Option<String> {
    let path = directory.join(&file.name);
    match files::digest(&path) {
        Err(error) => Some(format!("cannot be read: {error}")),
        Ok(found) if found != file.blake3 => {
            let (found, expected) = (hex::encode(found), hex::encode(file.blake3));
            Some(format!("has BLAKE3 {found}, the log's manifest says {expected}: the file was changed"))
        }
        Ok(_) => None,
    }
}

/// The root over the stored frames, and the rows that follow from them, against what is stored.
fn check_contents(directory: &Path, manifest: &BatchManifest) -> Result<(), String> {
    let frames = all_frames(directory, manifest).map_err(|error| error.to_string())?;
    let leaves: Vec<Hash32> = frames.iter().map(|admitted| frame_leaf(&admitted.frame)).collect();
    if leaves.len() as u64 != manifest.frames || merkle::root::<Blake3Frames>(&leaves) != manifest.root {
        return Err("the stored frames do not give the root in the log".into());
    }
    let rows = rows::rows(&frames, 0).map_err(|error| error.to_string())?;
    for (kind, derived) in [(FileKind::Scalar, rows.scalar), (FileKind::Wave, rows.wave)] {
        let derived = rows::sorted(&derived).map_err(|error| error.to_string())?;
        let stored = stored_rows(directory, manifest, kind, &derived).map_err(|error| error.to_string())?;
        if stored != derived {
            return Err(format!("the stored {kind:?} rows are not those of the stored frames"));
        }
    }
    Ok(())
}

fn all_frames(directory: &Path, manifest: &BatchManifest) -> Result<Vec<Admitted>, LakeError> {
    let mut frames = Vec::new();
    for chunk in find::read_frames(&find::frames_path(directory, manifest)?)? {
        frames.extend(chunk?);
    }
    Ok(frames)
}

fn stored_rows(
    directory: &Path,
    manifest: &BatchManifest,
    kind: FileKind,
    like: &RecordBatch,
) -> Result<RecordBatch, LakeError> {
    let mut batches = Vec::new();
    for file in manifest.files.iter().filter(|file| file.kind == kind) {
        let path = directory.join(&file.name);
        let file = File::open(&path).map_err(|source| LakeError::Io { path, source })?;
        for rows in ParquetRecordBatchReaderBuilder::try_new(file)?.build()? {
            batches.push(rows?.with_schema(like.schema())?);
        }
    }
    Ok(concat_batches(&like.schema(), &batches)?)
}
