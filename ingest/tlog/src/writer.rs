//! The one writer: a round of group commit, and the moment when the journal may begin anew.
//!
//! ```text
//! sign head -> journal append + fdatasync = committed -> tiles -> checkpoint -> published
//! journal full: sync tiles, bundles, checkpoint, directories -> new journal -> remove outgrown partial tiles
//! ```
//!
//! What it is not: concurrent. `log` lets one thread in at a time.

use std::collections::BTreeSet;
use std::sync::Arc;

use schemas_evidence::tiles::{CHECKPOINT_PATH, TILE_WIDTH};
use schemas_evidence::{LedgerError, sign_checkpoint};
use schemas_identity::SecretKey;

use crate::disk::Disk;
use crate::edge::Edge;
use crate::journal::{Commit, Journal};
use crate::reader::View;

/// A round takes waiting calls while it holds fewer entries than this, so that memory stays bounded.
pub(crate) const ROUND_ENTRIES_MAX: usize = 16 * TILE_WIDTH as usize;

/// Writes the log.
pub(crate) struct Writer {
    pub(crate) disk: Disk,
    pub(crate) origin: String,
    pub(crate) secret: SecretKey,
    pub(crate) edge: Edge,
    pub(crate) journal: Journal,
    /// Full files written since the journal began, not yet durable.
    pub(crate) unsynced: BTreeSet<String>,
    pub(crate) journal_bytes_max: u64,
}

impl Writer {
    /// Appends entries: durable and published in the directory when it returns.
    ///
    /// After an error the writer must not be used again: memory and disk may differ.
    pub(crate) fn commit(&mut self, entries: Vec<Arc<str>>) -> Result<View, LedgerError> {
        let first = self.edge.size();
        let mut edge = self.edge.clone();
        let mut full = Vec::new();
        for entry in &entries {
            edge.push(entry.clone(), &mut full)?;
        }
        let checkpoint = sign_checkpoint(&self.origin, edge.size(), &edge.root(), &self.secret)?;
        let entries = entries.iter().map(|entry| entry.to_string()).collect();
        self.journal.append(&Commit { first, checkpoint: checkpoint.clone(), entries })?;

        self.edge = edge;
        for (path, bytes) in full {
            self.disk.replace(&path, &bytes)?;
            self.unsynced.insert(path);
        }
        for (path, bytes) in self.edge.partial(Some(first))? {
            self.disk.replace(&path, &bytes)?;
        }
        self.disk.replace(CHECKPOINT_PATH, checkpoint.as_bytes())?;
        if self.journal.bytes() > self.journal_bytes_max {
            self.begin_journal(&checkpoint)?;
        }
        Ok(View { edge: self.edge.clone(), checkpoint })
    }

    /// Makes everything up to `checkpoint` durable without the journal, and begins a new one.
    pub(crate) fn begin_journal(&mut self, checkpoint: &str) -> Result<(), LedgerError> {
        let full = std::mem::take(&mut self.unsynced);
        let mut durable = full.clone();
        durable.extend(self.edge.partial(None)?.into_iter().map(|(path, _)| path));
        durable.insert(CHECKPOINT_PATH.to_owned());
        self.disk.sync(&durable)?;
        self.journal = Journal::start(&self.disk, checkpoint)?;
        for path in full {
            // Nobody needs the partial forms of a tile that is full and durable.
            let partial = format!("{path}.p");
            if self.disk.exists(&partial) {
                self.disk.remove_dir(&partial)?;
            }
        }
        Ok(())
    }
}
