//! A ledger in memory, for tests and demonstrations of other crates. What it is not: durable.

use std::sync::{Mutex, MutexGuard, PoisonError};

use schemas_identity::SecretKey;

use crate::checkpoint::{open_checkpoint, sign_checkpoint};
use crate::entry::{Entry, entry_leaf};
use crate::ledger::{ENTRIES_PER_READ_MAX, Ledger, LedgerError};
use crate::merkle::{self, Hash32, Sha256Rfc6962};
use crate::note::NoteKey;
use crate::proof::TlogProof;

/// A [`Ledger`] that forgets everything when dropped.
pub struct MemoryLedger {
    origin: String,
    secret: SecretKey,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    texts: Vec<String>,
    leaves: Vec<Hash32>,
}

impl MemoryLedger {
    /// An empty log signed with [`MemoryLedger::test_key`].
    pub fn new(origin: &str) -> MemoryLedger {
        MemoryLedger::with_key(origin, MemoryLedger::test_key())
    }

    /// An empty log signed with this key.
    pub fn with_key(origin: &str, secret: SecretKey) -> MemoryLedger {
        MemoryLedger { origin: origin.to_owned(), secret, state: Mutex::default() }
    }

    /// A fixed key that everybody knows: for tests only.
    pub fn test_key() -> SecretKey {
        SecretKey::from_seed(&[0x6c; 32])
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is a plain push, so a panic elsewhere cannot leave it half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ledger for MemoryLedger {
    fn origin(&self) -> &str {
        &self.origin
    }

    fn append(&self, entries: &[Entry]) -> Result<Vec<u64>, LedgerError> {
        let texts: Vec<String> = entries.iter().map(Entry::to_text).collect();
        for text in &texts {
            Entry::parse(text)?;
        }
        let mut state = self.state();
        let first = state.texts.len() as u64;
        state.leaves.extend(texts.iter().map(|text| entry_leaf(text)));
        state.texts.extend(texts);
        Ok((first..state.texts.len() as u64).collect())
    }

    fn size(&self) -> u64 {
        self.state().texts.len() as u64
    }

    fn checkpoint(&self) -> Result<String, LedgerError> {
        let state = self.state();
        let (size, root) = (state.leaves.len() as u64, merkle::root::<Sha256Rfc6962>(&state.leaves));
        Ok(sign_checkpoint(&self.origin, size, &root, &self.secret)?)
    }

    fn entries(&self, from: u64, to: u64) -> Result<Vec<String>, LedgerError> {
        let state = self.state();
        let size = state.texts.len() as u64;
        if from > to || to > size || to - from > ENTRIES_PER_READ_MAX {
            return Err(LedgerError::Range { from, to, size });
        }
        Ok(state.texts[from as usize..to as usize].to_vec())
    }

    fn inclusion(&self, index: u64, size: u64) -> Result<Vec<Hash32>, LedgerError> {
        Ok(merkle::inclusion_path::<Sha256Rfc6962>(self.state().first(size)?, index)?)
    }

    fn consistency(&self, old: u64, new: u64) -> Result<Vec<Hash32>, LedgerError> {
        Ok(merkle::consistency_path::<Sha256Rfc6962>(self.state().first(new)?, old)?)
    }

    fn tlog_proof(&self, index: u64) -> Result<String, LedgerError> {
        // Size and checkpoint must belong together, and appends may come in between: take the size from the checkpoint.
        let checkpoint = self.checkpoint()?;
        let size = open_checkpoint(&checkpoint, &NoteKey::log(&self.origin, self.secret.public())?)?.size;
        let path = self.inclusion(index, size)?;
        Ok(TlogProof { extra: None, index, path, checkpoint }.to_text())
    }
}

impl State {
    fn first(&self, size: u64) -> Result<&[Hash32], LedgerError> {
        let known = self.leaves.len() as u64;
        self.leaves.get(..size as usize).ok_or(LedgerError::Range { from: 0, to: size, size: known })
    }
}
