//! Auditing: everything is read again and computed again, and whatever does not fit is named.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use schemas_evidence::{FileRef, Ledger};

use crate::check::Claim;
use crate::open::Stock;
use crate::sets::Unit;
use crate::{LakeError, files};

/// Something that does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The batch or the set, or empty where none can be named.
    pub batch: String,
    /// The file, or empty.
    pub file: String,
    /// What is wrong.
    pub problem: String,
}

/// How far an audit is: batches and sets done, and how many there are in all.
pub type Progress<'a> = dyn FnMut(u64, u64) + 'a;

/// Checks every batch and set that the log names, and that nothing else lies there. An empty list means all of it fits.
pub fn audit(
    directory: &Path,
    ledger: &dyn Ledger,
    progress: &mut Progress<'_>,
) -> Result<Vec<Finding>, LakeError> {
    let mut findings = Vec::new();
    let stock = Stock::read(directory, ledger, &mut |error| {
        findings.push(contradiction(&error));
        Ok(())
    })?;
    let units = stock.held.units();
    let total = units.len() as u64;
    for (unit, done) in units.iter().zip(1u64..) {
        check_unit(directory, &stock, unit, &mut findings);
        progress(done, total);
    }
    for (_, file) in &stock.replaced {
        // Gone is as it should be; still there it must be what it was.
        if directory.join(&file.name).exists()
            && let Some(problem) = check_file(directory, file)
        {
            findings.push(finding(file.name.split('.').next().unwrap_or(""), &file.name, &problem));
        }
    }
    check_strays(directory, &stock, &mut findings)?;
    Ok(findings)
}

/// What a manifest in the log has to do with it.
fn contradiction(error: &LakeError) -> Finding {
    match error {
        LakeError::Contradiction { batch, .. } => finding(batch, &format!("{batch}.manifest.json"), error),
        LakeError::SetContradiction { set, .. } => finding(set, &format!("{set}.compact.json"), error),
        _ => finding("", "", error),
    }
}

fn finding(batch: &str, file: &str, problem: &dyn std::fmt::Display) -> Finding {
    Finding { batch: batch.to_owned(), file: file.to_owned(), problem: problem.to_string() }
}

fn check_strays(directory: &Path, stock: &Stock, findings: &mut Vec<Finding>) -> Result<(), LakeError> {
    let io = |source| LakeError::Io { path: directory.to_owned(), source };
    let known = stock.known();
    let replaced: HashSet<&str> = stock.replaced.iter().map(|(_, file)| file.name.as_str()).collect();
    for entry in fs::read_dir(directory).map_err(io)? {
        let name = entry.map_err(io)?.file_name().to_string_lossy().into_owned();
        // Files of one unfinished attempt are normal while a server runs; a batch of another name is not.
        if known.contains(name.as_str()) || replaced.contains(name.as_str()) || name.ends_with(".tmp") {
            continue;
        }
        let batch = name.split('.').next().unwrap_or("");
        let problem = match stock.batch_ids.contains(batch) {
            true => "the batch's manifest does not name this file",
            false => "no log entry names this batch",
        };
        findings.push(finding(batch, &name, &problem));
    }
    Ok(())
}

fn check_unit(directory: &Path, stock: &Stock, unit: &Unit<'_>, findings: &mut Vec<Finding>) {
    let before = findings.len();
    for file in unit.files {
        if let Some(problem) = check_file(directory, file) {
            findings.push(finding(unit.id, &file.name, &problem));
        }
    }
    // A damaged file is named once; what follows from the damage is not.
    if findings.len() > before {
        return;
    }
    let batches = stock.held.batches.get(unit.range()).unwrap_or_default();
    let batches = batches.iter().map(|batch| &batch.manifest).collect();
    let claim = Claim { directory, id: unit.id, files: unit.files, batches };
    match claim.problem(&|| Ok(())) {
        Ok(None) => {}
        Ok(Some(problem)) => findings.push(finding(unit.id, "", &problem)),
        Err(error) => findings.push(finding(unit.id, "", &error)),
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
