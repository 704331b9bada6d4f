//! Auditing: everything is read again and computed again, and whatever does not fit is named.

use std::collections::HashSet;
use std::fs;
use std::ops::Range;
use std::path::Path;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use schemas_evidence::{BatchManifest, Blake3Frames, FileKind, FileRef, Hash32, Ledger, frame_leaf, merkle};
use schemas_signals::columns;

use crate::find::block_roots;
use crate::layout::Layout;
use crate::open::{Named, manifest_of, named_batches};
use crate::seal::manifest_name;
use crate::stored::Stored;
use crate::{Admitted, LakeError, files};

/// Leaves whose frames and rows are held in memory at a time; a multiple of a block.
const LEAVES_AT_ONCE: u32 = 8_192;

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

/// The root over the frames as their rows give them, and the rows that follow from those frames, against what is stored.
fn check_contents(directory: &Path, manifest: &BatchManifest) -> Result<(), String> {
    let stored = Stored::new(directory, manifest).map_err(|error| error.to_string())?;
    let total = u32::try_from(manifest.frames).map_err(|_| "more frames than a batch can have".to_owned())?;
    let mut leaves: Vec<Hash32> = Vec::new();
    let mut rows = Seen::default();
    for from in (0..total).step_by(LEAVES_AT_ONCE as usize) {
        let range = from..(from + LEAVES_AT_ONCE).min(total);
        let frames = stored.frames(range.clone()).map_err(|error| error.to_string())?;
        leaves.extend(frames.iter().map(|admitted| frame_leaf(&admitted.frame)));
        check_rows(&stored, &frames, range, &mut rows)?;
    }
    if leaves.len() as u64 != manifest.frames || merkle::root::<Blake3Frames>(&leaves) != manifest.root {
        return Err("the stored frames do not give the root in the log".into());
    }
    let named = |kind| manifest.files.iter().find(|file| file.kind == kind).map_or(0, |file| file.rows);
    if (rows.scalar, rows.wave) != (named(FileKind::Scalar), named(FileKind::Wave)) {
        return Err("there are rows that belong to no frame".into());
    }
    let blocks = stored.block_roots().map_err(|error| error.to_string())?;
    match blocks == block_roots(&Blake3Frames, &leaves) {
        true => Ok(()),
        false => Err("the stored roots of blocks are not those of the frames".into()),
    }
}

/// Rows that were found to follow from frames.
#[derive(Default)]
struct Seen {
    scalar: u64,
    wave: u64,
}

fn check_rows(
    stored: &Stored,
    frames: &[Admitted],
    leaves: Range<u32>,
    seen: &mut Seen,
) -> Result<(), String> {
    let text = |error: LakeError| error.to_string();
    let layout = Layout::new(frames.iter(), leaves.start).map_err(text)?;
    for kind in [FileKind::Scalar, FileKind::Wave] {
        let mut slices = Vec::new();
        let mut take = |rows| {
            slices.push(rows);
            Ok(())
        };
        let schema = match kind {
            FileKind::Scalar => {
                layout.scalar_slices(&mut take).map_err(text)?;
                columns::stored_scalar_schema()
            }
            _ => {
                layout.wave_slices(&mut take).map_err(text)?;
                columns::stored_wave_schema()
            }
        };
        let derived = concat_batches(&schema, &slices).map_err(|error| error.to_string())?;
        let found = match stored.rows(kind, leaves.clone()).map_err(text)? {
            Some(found) => found.with_schema(schema).map_err(|error| error.to_string())?,
            None => RecordBatch::new_empty(schema),
        };
        if found != derived {
            return Err(format!("the stored {kind:?} rows are not those of the stored frames"));
        }
        match kind {
            FileKind::Scalar => seen.scalar += found.num_rows() as u64,
            _ => seen.wave += found.num_rows() as u64,
        }
    }
    Ok(())
}
