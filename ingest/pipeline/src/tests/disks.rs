//! The simulated disks: the write-ahead log's in memory, the lake's a real directory beside a model of what would survive
//! a power loss, and a ledger whose appends may fail before or after they became durable.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ingest_lake::{Change, Faults};
use ingest_wal::Disk;
use ingest_wal::sim::SimDisk;
use parking_lot::Mutex;
use schemas_evidence::{Entry, Hash32, Ledger, LedgerError, MemoryLedger};

use super::dice::Dice;
use super::plug::{Plug, Step, dead};

/// The write-ahead log's disk: `SimDisk`, which dies with everything else.
pub(super) struct WalDisk {
    pub(super) sim: SimDisk,
    pub(super) plug: Plug,
}

impl WalDisk {
    fn step(&self) -> io::Result<()> {
        match self.plug.step() {
            Step::Done => self.sim.set_full(self.plug.is_full()),
            // The operation itself decides how much of it happened.
            Step::Dies => self.sim.crash_after(1),
            Step::Dead => return Err(dead()),
        }
        Ok(())
    }

    fn alive(&self) -> io::Result<()> {
        if self.plug.is_down() { Err(dead()) } else { Ok(()) }
    }
}

impl Disk for WalDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        self.alive().and_then(|()| self.sim.list())
    }

    fn len(&self, name: &str) -> io::Result<u64> {
        self.alive().and_then(|()| self.sim.len(name))
    }

    fn read_at(&self, name: &str, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        self.alive().and_then(|()| self.sim.read_at(name, offset, len))
    }

    fn create_zeroed(&self, name: &str, len: u64) -> io::Result<()> {
        self.step().and_then(|()| self.sim.create_zeroed(name, len))
    }

    fn write_at(&self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.step().and_then(|()| self.sim.write_at(name, offset, bytes))
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        self.step().and_then(|()| self.sim.sync(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.step().and_then(|()| self.sim.rename(from, to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.step().and_then(|()| self.sim.remove(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.step().and_then(|()| self.sim.sync_dir())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.alive().and_then(|()| self.sim.free_bytes())
    }
}

#[derive(Debug, Clone)]
enum NameChange {
    Create(PathBuf, u64),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

#[derive(Debug, Default)]
struct Content {
    durable: Vec<u8>,
    /// What a running system last read, once the name is gone.
    last: Vec<u8>,
    is_synced: bool,
}

#[derive(Debug, Default)]
struct Model {
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    unsynced: Vec<NameChange>,
    contents: BTreeMap<u64, Content>,
    next: u64,
}

/// The lake's directory: files are real, syncs are not, and a model knows what they would have saved.
#[derive(Debug, Clone)]
pub(super) struct LakeDisk {
    dir: PathBuf,
    plug: Plug,
    model: Arc<Mutex<Model>>,
}

fn apply(names: &mut BTreeMap<PathBuf, u64>, change: &NameChange) {
    match change {
        NameChange::Create(path, id) => {
            names.insert(path.clone(), *id);
        }
        NameChange::Rename(from, to) => {
            if let Some(id) = names.remove(from) {
                names.insert(to.clone(), id);
            }
        }
        NameChange::Remove(path) => {
            names.remove(path);
        }
    }
}

impl Model {
    /// The name goes away or to another file: what it held may still come back.
    fn put_aside(&mut self, path: &Path) {
        let content = self.names.get(path).and_then(|id| self.contents.get_mut(id));
        if let Some(content) = content {
            content.last = fs::read(path).unwrap_or_default();
        }
    }

    fn change(&mut self, change: NameChange) {
        apply(&mut self.names, &change);
        self.unsynced.push(change);
    }

    fn content(&mut self, path: &Path) -> Option<&mut Content> {
        self.contents.get_mut(self.names.get(path)?)
    }

    fn make(&mut self, change: Change<'_>) {
        match change {
            Change::Create(path) => {
                self.put_aside(path);
                self.next += 1;
                self.contents.insert(self.next, Content::default());
                self.change(NameChange::Create(path.to_owned(), self.next));
            }
            Change::Write(path) => {
                if let Some(content) = self.content(path) {
                    content.is_synced = false;
                }
            }
            Change::Sync(path) => {
                if let Some(content) = self.content(path) {
                    (content.durable, content.is_synced) = (fs::read(path).unwrap_or_default(), true);
                }
            }
            Change::Rename { from, to } => {
                self.put_aside(to);
                self.change(NameChange::Rename(from.to_owned(), to.to_owned()));
            }
            Change::Remove(path) => {
                self.put_aside(path);
                self.change(NameChange::Remove(path.to_owned()));
            }
            Change::SyncDir(_) => {
                for change in std::mem::take(&mut self.unsynced) {
                    apply(&mut self.durable_names, &change);
                }
            }
        }
    }

    /// Unsynced names: none, all, a first part or any of them. Unsynced content: whatever chance leaves.
    fn lose_power(&mut self, dice: &mut Dice) {
        let live: Vec<PathBuf> = self.names.keys().cloned().collect();
        live.iter().for_each(|path| self.put_aside(path));
        let changes = std::mem::take(&mut self.unsynced);
        let kept = match dice.below(4) {
            0 => 0,
            1 => changes.len(),
            _ => dice.below(changes.len() + 1),
        };
        let any_subset = dice.one_in(2);
        for (index, change) in changes.iter().enumerate() {
            if if any_subset { dice.one_in(2) } else { index < kept } {
                apply(&mut self.durable_names, change);
            }
        }
        for content in self.contents.values_mut().filter(|content| !content.is_synced) {
            let mut torn = content.last.clone();
            match dice.below(4) {
                0 => torn.clone_from(&content.durable),
                1 => torn.truncate(dice.below(torn.len() + 1)),
                2 => torn.fill(0),
                _ => {}
            }
            content.durable = torn;
            content.is_synced = true;
        }
        self.names.clone_from(&self.durable_names);
        self.contents.retain(|id, _| self.durable_names.values().any(|known| known == id));
    }
}

impl LakeDisk {
    pub(super) fn new(dir: &Path, plug: Plug) -> LakeDisk {
        LakeDisk { dir: dir.to_owned(), plug, model: Arc::default() }
    }

    pub(super) fn lose_power(&self, dice: &mut Dice) {
        let mut model = self.model.lock();
        let before: Vec<PathBuf> = model.names.keys().cloned().collect();
        model.lose_power(dice);
        for path in before {
            fs::remove_file(self.dir.join(path)).unwrap();
        }
        for (path, id) in &model.names {
            fs::write(path, &model.contents[id].durable).unwrap();
        }
    }
}

impl Faults for LakeDisk {
    fn before(&self, change: Change<'_>) -> io::Result<()> {
        if !self.plug.is_down() {
            self.plug.let_others_run();
        }
        if self.plug.step() != Step::Done {
            return Err(dead());
        }
        let is_full = self.plug.is_full();
        if is_full && matches!(change, Change::Create(_) | Change::Write(_)) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if matches!(change, Change::Sync(_) | Change::SyncDir(_)) && self.plug.lake_sync_fails() {
            return Err(io::Error::other("simulated failed sync"));
        }
        self.model.lock().make(change);
        Ok(())
    }

    fn syncs(&self) -> bool {
        false
    }
}

/// How the next append to the ledger fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LedgerFault {
    Before,
    /// It is durable, and nobody learns that before a restart.
    After,
}

/// What of the ledger survives.
#[derive(Clone)]
pub(super) struct LedgerDisk {
    pub(super) durable: Arc<MemoryLedger>,
    /// Durable and not published: seen after a restart.
    unpublished: Arc<Mutex<Vec<Entry>>>,
    pub(super) fault: Arc<Mutex<Option<LedgerFault>>>,
}

/// The ledger of one life of the process.
pub(super) struct SimLedger {
    disk: LedgerDisk,
    plug: Plug,
    is_poisoned: Arc<Mutex<bool>>,
}

impl LedgerDisk {
    pub(super) fn new() -> LedgerDisk {
        let durable = Arc::new(MemoryLedger::new("example.org/log"));
        LedgerDisk { durable, unpublished: Arc::default(), fault: Arc::default() }
    }

    /// The ledger after a restart.
    pub(super) fn open(&self, plug: Plug) -> SimLedger {
        let entries = std::mem::take(&mut *self.unpublished.lock());
        self.durable.append(&entries).unwrap();
        *self.fault.lock() = None;
        SimLedger { disk: self.clone(), plug, is_poisoned: Arc::default() }
    }
}

impl SimLedger {
    pub(super) fn poison(&self) -> Arc<Mutex<bool>> {
        self.is_poisoned.clone()
    }

    fn fail(&self) -> LedgerError {
        *self.is_poisoned.lock() = true;
        LedgerError::Io { action: "append to", path: "journal".into(), source: Arc::new(dead()) }
    }
}

impl Ledger for SimLedger {
    fn origin(&self) -> &str {
        self.disk.durable.origin()
    }

    fn append(&self, entries: &[Entry]) -> Result<Vec<u64>, LedgerError> {
        if *self.is_poisoned.lock() {
            return Err(LedgerError::Poisoned);
        }
        // One step to write, one to publish: the process may die before, between and after.
        self.plug.let_others_run();
        if self.plug.step() != Step::Done || *self.disk.fault.lock() == Some(LedgerFault::Before) {
            return Err(self.fail());
        }
        self.plug.let_others_run();
        if self.plug.is_down() {
            return Err(self.fail());
        }
        if self.plug.step() != Step::Done || *self.disk.fault.lock() == Some(LedgerFault::After) {
            self.disk.unpublished.lock().extend_from_slice(entries);
            return Err(self.fail());
        }
        let indices = self.disk.durable.append(entries)?;
        self.plug.let_others_run();
        Ok(indices)
    }

    fn size(&self) -> u64 {
        self.disk.durable.size()
    }

    fn checkpoint(&self) -> Result<String, LedgerError> {
        self.disk.durable.checkpoint()
    }

    fn entries(&self, from: u64, to: u64) -> Result<Vec<String>, LedgerError> {
        self.disk.durable.entries(from, to)
    }

    fn inclusion(&self, index: u64, size: u64) -> Result<Vec<Hash32>, LedgerError> {
        self.disk.durable.inclusion(index, size)
    }

    fn consistency(&self, old: u64, new: u64) -> Result<Vec<Hash32>, LedgerError> {
        self.disk.durable.consistency(old, new)
    }

    fn tlog_proof(&self, index: u64) -> Result<String, LedgerError> {
        self.disk.durable.tlog_proof(index)
    }
}
