//! `FileLog`: the log directory as a `Ledger`, with group commit.
//!
//! Callers queue; whoever finds no leader leads one round for all that wait. What it is not: async. A call blocks for one
//! fdatasync, or for two if a round was under way.

use std::collections::{HashMap, VecDeque};
use std::fs::{File, TryLockError};
use std::path::Path;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex, RwLock};
use schemas_evidence::ledger::{ENTRIES_PER_READ_MAX, texts_of};
use schemas_evidence::merkle::{self, Hash32, Sha256Rfc6962};
use schemas_evidence::{Entry, Ledger, LedgerError, TlogProof};
use schemas_identity::SecretKey;
use tracing::error;

use crate::disk::{Disk, Faults, corrupt, io_error};
use crate::reader::{Reader, View};
use crate::recover;
use crate::writer::{ROUND_ENTRIES_MAX, Writer};

/// Name of the lock file.
const LOCK: &str = ".lock";

/// How a log is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The journal begins anew once it is longer than this many bytes. Longer: rarer pauses (each syncs about one file
    /// per 16 KiB of journal) and a longer replay. Default 1 MiB.
    pub journal_bytes_max: u64,
    /// At opening the newest so many entries are read and compared with the tiles; the tiles above are compared in any case.
    /// Default 1,000,000 (about a second); `audit_log` reads all.
    pub verify_entries_max: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options { journal_bytes_max: 1 << 20, verify_entries_max: 1_000_000 }
    }
}

/// A transparency log in a directory, with one writer.
pub struct FileLog {
    origin: String,
    queue: Mutex<Queue>,
    turn: Condvar,
    /// Nothing once a write has failed.
    writer: Mutex<Option<Writer>>,
    view: RwLock<Arc<View>>,
    reader: Reader,
    /// Held for as long as the log is open; the system lets go of it however the process ends.
    _lock: File,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    /// Answers not yet fetched: the first index, or why not.
    done: HashMap<u64, Result<u64, LedgerError>>,
    next_ticket: u64,
    leading: bool,
}

struct Waiting {
    ticket: u64,
    entries: Vec<Arc<str>>,
}

impl FileLog {
    /// Opens the log in `dir`, or creates it there, as the log called `origin` that signs with `secret`.
    ///
    /// Refused if another process has it open, if it belongs to another origin or key, or if its files contradict each other.
    pub fn open(
        dir: &Path,
        origin: &str,
        secret: SecretKey,
        options: Options,
    ) -> Result<FileLog, LedgerError> {
        FileLog::open_with(dir, origin, secret, options, None)
    }

    pub(crate) fn open_with(
        dir: &Path,
        origin: &str,
        secret: SecretKey,
        options: Options,
        faults: Option<Arc<dyn Faults>>,
    ) -> Result<FileLog, LedgerError> {
        let disk = Disk::new(dir, faults);
        disk.create()?;
        let lock = lock(&disk)?;
        let (writer, view) = recover::open(&disk, origin, secret, &options)?;
        Ok(FileLog {
            origin: origin.to_owned(),
            queue: Mutex::default(),
            turn: Condvar::new(),
            writer: Mutex::new(Some(writer)),
            view: RwLock::new(Arc::new(view)),
            reader: Reader::new(&disk),
            _lock: lock,
        })
    }

    fn view(&self) -> Arc<View> {
        self.view.read().clone()
    }

    /// Commits one round of waiting calls and leaves their answers.
    fn lead(&self, round: Vec<Waiting>) {
        let entries = round.iter().flat_map(|waiting| waiting.entries.iter().cloned()).collect();
        let committed = self.commit(entries);
        let mut queue = self.queue.lock();
        let mut first = committed;
        for waiting in round {
            queue.done.insert(waiting.ticket, first.clone());
            first = first.map(|index| index + waiting.entries.len() as u64);
        }
    }

    /// Appends, publishes, and returns the first index. A failed write closes the log for writing.
    fn commit(&self, entries: Vec<Arc<str>>) -> Result<u64, LedgerError> {
        let mut slot = self.writer.lock();
        let Some(writer) = slot.as_mut() else { return Err(LedgerError::Poisoned) };
        let first = writer.edge.size();
        match writer.commit(entries) {
            Ok(view) => {
                *self.view.write() = Arc::new(view);
                Ok(first)
            }
            Err(failure) => {
                error!(%failure, "the log is closed for writing");
                *slot = None;
                Err(failure)
            }
        }
    }
}

/// Gives up leadership even if the round panicked, so that nobody waits for ever.
struct Leading<'a>(&'a FileLog);

impl Drop for Leading<'_> {
    fn drop(&mut self) {
        self.0.queue.lock().leading = false;
        self.0.turn.notify_all();
    }
}

impl Queue {
    fn enter(&mut self, entries: Vec<Arc<str>>) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.waiting.push_back(Waiting { ticket, entries });
        ticket
    }

    /// The next round: whole calls, in order, at least one, until there are enough entries.
    fn round(&mut self) -> Vec<Waiting> {
        let mut round: Vec<Waiting> = Vec::new();
        let mut entries = 0;
        while entries < ROUND_ENTRIES_MAX {
            let Some(waiting) = self.waiting.pop_front() else { break };
            entries += waiting.entries.len();
            round.push(waiting);
        }
        round
    }
}

impl Ledger for FileLog {
    fn origin(&self) -> &str {
        &self.origin
    }

    fn append(&self, entries: &[Entry]) -> Result<Vec<u64>, LedgerError> {
        let texts: Vec<Arc<str>> = texts_of(entries)?.into_iter().map(Arc::from).collect();
        if texts.is_empty() {
            return Ok(Vec::new());
        }
        let count = texts.len() as u64;
        let mut queue = self.queue.lock();
        let ticket = queue.enter(texts);
        loop {
            if let Some(done) = queue.done.remove(&ticket) {
                return done.map(|first| (first..first + count).collect());
            }
            if queue.leading {
                self.turn.wait(&mut queue);
                continue;
            }
            queue.leading = true;
            let round = queue.round();
            drop(queue);
            let leading = Leading(self);
            self.lead(round);
            drop(leading);
            queue = self.queue.lock();
        }
    }

    fn size(&self) -> u64 {
        self.view().edge.size()
    }

    fn checkpoint(&self) -> Result<String, LedgerError> {
        Ok(self.view().checkpoint.clone())
    }

    fn entries(&self, from: u64, to: u64) -> Result<Vec<String>, LedgerError> {
        let view = self.view();
        let size = view.edge.size();
        if from > to || to > size || to - from > ENTRIES_PER_READ_MAX {
            return Err(LedgerError::Range { from, to, size });
        }
        self.reader.entries(&view.edge, from, to)
    }

    fn inclusion(&self, index: u64, size: u64) -> Result<Vec<Hash32>, LedgerError> {
        let view = self.view();
        within(&view, size)?;
        self.reader.roots(&view.edge, merkle::inclusion_ranges(index, size)?)
    }

    fn consistency(&self, old: u64, new: u64) -> Result<Vec<Hash32>, LedgerError> {
        let view = self.view();
        within(&view, new)?;
        self.reader.roots(&view.edge, merkle::consistency_ranges(old, new)?)
    }

    fn tlog_proof(&self, index: u64) -> Result<String, LedgerError> {
        let view = self.view();
        let (size, root) = (view.edge.size(), view.edge.root());
        let path = self.reader.roots(&view.edge, merkle::inclusion_ranges(index, size)?)?;
        let leaf = self.reader.leaf(&view.edge, index)?;
        // A tile damaged while the log is open must not become a proof that fails elsewhere.
        merkle::verify_inclusion::<Sha256Rfc6962>(&leaf, index, size, &path, &root)
            .map_err(|_| corrupt(format!("entry {index}"), "the tiles do not lead to the signed root"))?;
        Ok(TlogProof { extra: None, index, path, checkpoint: view.checkpoint.clone() }.to_text())
    }
}

fn within(view: &View, size: u64) -> Result<(), LedgerError> {
    let known = view.edge.size();
    if size <= known { Ok(()) } else { Err(LedgerError::Range { from: 0, to: size, size: known }) }
}

/// Takes the directory's lock, or says who cannot have it.
fn lock(disk: &Disk) -> Result<File, LedgerError> {
    let path = disk.path(LOCK);
    let opened = File::options().create(true).truncate(false).write(true).open(&path);
    let file = opened.map_err(|error| io_error("open", &path, error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(LedgerError::Locked { path: path.display().to_string() }),
        Err(TryLockError::Error(error)) => Err(io_error("lock", &path, error)),
    }
}
