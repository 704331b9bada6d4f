//! A ledger and an anchor in memory, for tests and demonstrations of other crates. What it is not: durable.

use std::sync::{Mutex, MutexGuard, PoisonError};

use schemas_identity::SecretKey;

use crate::checkpoint::{Checkpoint, CheckpointError, cosign_checkpoint, open_checkpoint, sign_checkpoint};
use crate::entry::{Entry, entry_leaf};
use crate::ledger::{
    Anchor, AnchorError, ENTRIES_PER_READ_MAX, Ledger, LedgerError, Receipt, Ticket, texts_of,
};
use crate::merkle::{self, Hash32, Sha256Rfc6962};
use crate::note::{Note, NoteKey};
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
        let texts = texts_of(entries)?;
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

/// An [`Anchor`] in memory: a witness that remembers the newest head it saw and cosigns what comes after it.
///
/// It takes growth on trust, since it is shown no consistency proof; real witnesses do not.
pub struct MemoryAnchor {
    name: String,
    secret: SecretKey,
    time_s: u64,
    state: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    head: Option<(u64, Hash32)>,
    receipts: Vec<Vec<u8>>,
}

impl MemoryAnchor {
    /// A witness of this name whose clock stands still at `time_s` (seconds since 1970).
    pub fn new(name: &str, secret: SecretKey, time_s: u64) -> MemoryAnchor {
        MemoryAnchor { name: name.to_owned(), secret, time_s, state: Mutex::default() }
    }

    const KIND: &'static str = "memory";

    fn cosign(&self, checkpoint: &str) -> Result<String, AnchorError> {
        let bad =
            |error: CheckpointError| AnchorError::BadReceipt { kind: Self::KIND, reason: error.to_string() };
        let cosigned = cosign_checkpoint(checkpoint, &self.name, &self.secret, self.time_s).map_err(bad)?;
        Ok(cosigned.strip_prefix(checkpoint).unwrap_or_default().to_owned())
    }
}

impl Anchor for MemoryAnchor {
    fn kind(&self) -> &'static str {
        Self::KIND
    }

    fn submit(&self, checkpoint: &str) -> Result<Ticket, AnchorError> {
        let bad = |reason: String| AnchorError::BadReceipt { kind: Self::KIND, reason };
        let note = Note::parse(checkpoint).map_err(|error| bad(error.to_string()))?;
        let head = Checkpoint::from_text(note.text).map_err(|error| bad(error.to_string()))?;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known_size, root)) = state.head
            && (head.size < known_size || (head.size == known_size && head.root != root))
        {
            return Err(AnchorError::Fork { kind: Self::KIND, known_size });
        }
        let line = self.cosign(checkpoint)?;
        state.head = Some((head.size, head.root));
        state.receipts.push(line.into_bytes());
        Ok(Ticket((state.receipts.len() - 1).to_string()))
    }

    fn poll(&self, ticket: &Ticket) -> Result<Option<Receipt>, AnchorError> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let receipt = ticket.0.parse().ok().and_then(|at: usize| state.receipts.get(at));
        let bytes = receipt.ok_or(AnchorError::UnknownTicket { kind: Self::KIND })?.clone();
        Ok(Some(Receipt { kind: Self::KIND.to_owned(), bytes }))
    }

    fn verify(&self, receipt: &Receipt, checkpoint: &str) -> Result<(), AnchorError> {
        // Ed25519 signatures are deterministic and the clock stands still.
        if receipt.bytes == self.cosign(checkpoint)?.as_bytes() {
            return Ok(());
        }
        Err(AnchorError::BadReceipt { kind: Self::KIND, reason: "another cosignature".to_owned() })
    }
}
