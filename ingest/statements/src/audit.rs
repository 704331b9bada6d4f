//! Book against log: every logged statement is in the book unchanged, every statement in the book is signed and logged,
//! and the epoch roots follow from them. Not a fold: whether a signer had the right to say it is checked at each start.

use std::collections::HashSet;
use std::path::Path;

use schemas_evidence::{Entry, Hash32, Ledger};
use schemas_identity::Statement;
use schemas_identity::statement::id_of;

use crate::book::Book;
use crate::{ENTRIES_PER_READ, OpenError, next_root};

/// What does not fit, one text each; empty when all fits. Reads the whole log and the whole book.
///
/// # Errors
/// When book or log cannot be read at all.
pub fn audit(directory: &Path, ledger: &dyn Ledger, origin: &str) -> Result<Vec<String>, OpenError> {
    let mut findings = Vec::new();
    let mut in_book = HashSet::new();
    if directory.is_dir() {
        let (_, records) = Book::open(directory)?;
        for record in &records {
            if let Err(error) = Statement::parse(&record.compact, origin) {
                findings.push(format!("statement {}: {error}", id_of(&record.compact)));
            }
            in_book.insert(record.commitment());
        }
    }
    let logged = compare_log(ledger, &in_book, &mut findings)?;
    // The newest may be unlogged after a crash; the next start commits it.
    let unlogged = in_book.difference(&logged).count();
    if unlogged > 1 {
        findings.push(format!("{unlogged} statements of the book are not in the log"));
    }
    Ok(findings)
}

fn compare_log(
    ledger: &dyn Ledger,
    in_book: &HashSet<Hash32>,
    findings: &mut Vec<String>,
) -> Result<HashSet<Hash32>, OpenError> {
    let (mut logged, mut root, mut epochs) = (HashSet::new(), [0; 32], 0);
    let size = ledger.size();
    let mut from = 0;
    while from < size {
        let to = size.min(from + ENTRIES_PER_READ);
        for (text, index) in ledger.entries(from, to)?.iter().zip(from..) {
            match Entry::parse(text) {
                Ok(Entry::Statement { commitment }) => {
                    root = next_root(&root, &commitment);
                    if !in_book.contains(&commitment) {
                        let name = hex::encode(commitment);
                        findings
                            .push(format!("log entry {index}: its statement ({name}) is not in the book"));
                    }
                    logged.insert(commitment);
                }
                Ok(Entry::ConsentEpoch { epoch, root: logged_root }) => {
                    epochs += 1;
                    if epoch != epochs || logged_root != root {
                        findings
                            .push(format!("log entry {index}: epoch {epoch} is not that of its statements"));
                    }
                }
                _ => {}
            }
        }
        from = to;
    }
    Ok(logged)
}
