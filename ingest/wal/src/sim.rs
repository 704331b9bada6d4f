//! A disk in memory that can be killed, lose its power, tear writes, fail syncs and run full, for tests.
//!
//! It keeps two states: what a running system reads (the page cache) and what is on the platter. A power loss keeps
//! the second, plus any part of what was written but not synced: whole writes, either end cut at any byte, or any
//! set of sectors; and any subset of unsynced name changes. A failed sync drops the unsynced writes while the page
//! cache goes on showing them, as Linux does. It says nothing about real devices that lie.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::disk::Disk;

const SECTOR_BYTES: usize = 512;

/// A handle on the simulated disk; clones share it.
#[derive(Debug, Clone)]
pub struct SimDisk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    unsynced_names: Vec<NameChange>,
    files: BTreeMap<u64, FileState>,
    next_file: u64,
    random: Random,
    steps: u64,
    crash_at: Option<u64>,
    fail_syncs: u32,
    full: bool,
    free_bytes: Option<u64>,
    down: bool,
}

#[derive(Debug, Clone)]
enum NameChange {
    Create(String, u64),
    Rename(String, String),
    Remove(String),
}

#[derive(Debug, Default)]
struct FileState {
    cached: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<(usize, Vec<u8>)>,
}

/// SplitMix64: small, and the same everywhere for the same seed.
#[derive(Debug, Default, Clone)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        let wide = self.next() % (bound.max(1) as u64);
        usize::try_from(wide).unwrap_or_default()
    }

    fn coin(&mut self) -> bool {
        self.next() & 1 == 1
    }
}

impl SimDisk {
    /// An empty disk; the seed decides what survives.
    #[must_use]
    pub fn new(seed: u64) -> SimDisk {
        SimDisk(Arc::new(Mutex::new(State { random: Random(seed), ..State::default() })))
    }

    /// Goes down in the middle of the `steps`-th changing operation from now (1 is the next).
    pub fn crash_after(&self, steps: u64) {
        let mut state = self.state();
        state.crash_at = Some(state.steps + steps);
    }

    /// Lets the next `count` syncs of files fail.
    pub fn fail_syncs(&self, count: u32) {
        self.state().fail_syncs = count;
    }

    /// Whether new files are refused for want of space.
    pub fn set_full(&self, full: bool) {
        self.state().full = full;
    }

    /// What the disk says is free.
    pub fn set_free_bytes(&self, bytes: u64) {
        self.state().free_bytes = Some(bytes);
    }

    /// Whether the disk went down.
    #[must_use]
    pub fn is_down(&self) -> bool {
        self.state().down
    }

    /// Changing operations so far.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.state().steps
    }

    /// The process died and the system did not: all writes that reached the system stay.
    pub fn restart_after_kill(&self) {
        let mut state = self.state();
        state.revive();
    }

    /// The power went: synced bytes and names stay, of the others any part.
    pub fn restart_after_power_loss(&self) {
        let mut state = self.state();
        state.lose_power();
        state.revive();
    }

    /// Flips the bits of `mask` at one byte, on the platter and in the cache. Returns whether the byte exists.
    pub fn damage(&self, name: &str, offset: usize, mask: u8) -> bool {
        let mut state = self.state();
        let Ok(file) = state.file(name) else {
            return false;
        };
        for bytes in [&mut file.cached, &mut file.durable] {
            match bytes.get_mut(offset) {
                Some(byte) => *byte ^= mask,
                None => return false,
            }
        }
        true
    }

    /// Takes a file away, durably.
    pub fn lose_file(&self, name: &str) {
        let mut state = self.state();
        state.names.remove(name);
        state.durable_names.remove(name);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn down() -> io::Error {
    io::Error::other("simulated crash")
}

fn missing() -> io::Error {
    io::ErrorKind::NotFound.into()
}

/// Overwrites as far as the file goes.
fn overlay(target: &mut [u8], offset: usize, bytes: &[u8]) {
    if let Some(place) = target.get_mut(offset..) {
        let len = place.len().min(bytes.len());
        place[..len].copy_from_slice(&bytes[..len]);
    }
}

/// The next step's fate.
#[derive(PartialEq, Eq)]
enum Step {
    Done,
    Crash,
}

impl State {
    fn step(&mut self) -> io::Result<Step> {
        if self.down {
            return Err(down());
        }
        self.steps += 1;
        if self.crash_at == Some(self.steps) {
            self.down = true;
            return Ok(Step::Crash);
        }
        Ok(Step::Done)
    }

    fn revive(&mut self) {
        self.down = false;
        self.crash_at = None;
        self.fail_syncs = 0;
        self.full = false;
    }

    fn file(&mut self, name: &str) -> io::Result<&mut FileState> {
        let id = self.names.get(name).ok_or_else(missing)?;
        self.files.get_mut(id).ok_or_else(missing)
    }

    fn create(&mut self, name: &str, len: usize) {
        let id = self.next_file;
        self.next_file += 1;
        let zeros = vec![0; len];
        let file = FileState { cached: zeros.clone(), durable: zeros, unsynced: Vec::new() };
        self.files.insert(id, file);
        self.names.insert(name.to_owned(), id);
        self.unsynced_names.push(NameChange::Create(name.to_owned(), id));
    }

    fn lose_power(&mut self) {
        let changes = std::mem::take(&mut self.unsynced_names);
        let kept = match self.random.below(4) {
            0 => 0,
            1 => changes.len(),
            _ => self.random.below(changes.len() + 1),
        };
        let any_subset = self.random.coin();
        for (index, change) in changes.into_iter().enumerate() {
            let survives = if any_subset { self.random.coin() } else { index < kept };
            if survives {
                apply(&mut self.durable_names, &change);
            }
        }
        self.names = self.durable_names.clone();
        for file in self.files.values_mut() {
            file.tear(&mut self.random);
            file.cached = file.durable.clone();
        }
    }
}

fn apply(names: &mut BTreeMap<String, u64>, change: &NameChange) {
    match change {
        NameChange::Create(name, id) => {
            names.insert(name.clone(), *id);
        }
        NameChange::Rename(from, to) => {
            if let Some(id) = names.remove(from) {
                names.insert(to.clone(), id);
            }
        }
        NameChange::Remove(name) => {
            names.remove(name);
        }
    }
}

impl FileState {
    /// Brings any part of the unsynced writes to the platter and forgets the rest.
    fn tear(&mut self, random: &mut Random) {
        for (offset, bytes) in std::mem::take(&mut self.unsynced) {
            let cut = random.below(bytes.len() + 1);
            match random.below(5) {
                0 => {}
                1 => overlay(&mut self.durable, offset, &bytes),
                2 => overlay(&mut self.durable, offset, &bytes[..cut]),
                3 => overlay(&mut self.durable, offset + cut, &bytes[cut..]),
                _ => self.tear_sectors(offset, &bytes, random),
            }
        }
    }

    fn tear_sectors(&mut self, offset: usize, bytes: &[u8], random: &mut Random) {
        let mut at = 0;
        while at < bytes.len() {
            let sector_end = (offset + at) / SECTOR_BYTES * SECTOR_BYTES + SECTOR_BYTES;
            let end = (sector_end - offset).min(bytes.len());
            if random.coin() {
                overlay(&mut self.durable, offset + at, &bytes[at..end]);
            }
            at = end;
        }
    }
}

impl Disk for SimDisk {
    fn free_bytes(&self) -> io::Result<u64> {
        Ok(self.state().free_bytes.unwrap_or(u64::MAX))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let state = self.state();
        if state.down {
            return Err(down());
        }
        Ok(state.names.keys().cloned().collect())
    }

    fn len(&self, name: &str) -> io::Result<u64> {
        Ok(self.state().file(name)?.cached.len() as u64)
    }

    fn read_at(&self, name: &str, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut state = self.state();
        if state.down {
            return Err(down());
        }
        let file = state.file(name)?;
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let bytes = file.cached.get(start..start.saturating_add(len));
        bytes.map(<[u8]>::to_vec).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    fn create_zeroed(&self, name: &str, len: u64) -> io::Result<()> {
        let mut state = self.state();
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        let step = state.step()?;
        if state.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if step == Step::Crash || state.full {
            let partial = state.random.below(len);
            state.create(name, partial);
            return Err(if step == Step::Crash { down() } else { io::ErrorKind::StorageFull.into() });
        }
        state.create(name, len);
        Ok(())
    }

    fn write_at(&self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        let step = state.step()?;
        let reached = if step == Step::Crash { state.random.below(bytes.len() + 1) } else { bytes.len() };
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let file = state.file(name)?;
        if start.saturating_add(bytes.len()) > file.cached.len() {
            // The log never grows a file.
            return Err(io::ErrorKind::InvalidInput.into());
        }
        overlay(&mut file.cached, start, &bytes[..reached]);
        file.unsynced.push((start, bytes[..reached].to_vec()));
        if step == Step::Crash { Err(down()) } else { Ok(()) }
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        if state.step()? == Step::Crash {
            return Err(down());
        }
        let fails = state.fail_syncs > 0;
        state.fail_syncs = state.fail_syncs.saturating_sub(1);
        let mut random = state.random.clone();
        random.next();
        state.random = random.clone();
        let file = state.file(name)?;
        if fails {
            file.tear(&mut random);
            return Err(io::Error::other("simulated failed sync"));
        }
        for (offset, bytes) in std::mem::take(&mut file.unsynced) {
            overlay(&mut file.durable, offset, &bytes);
        }
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.change_name(NameChange::Rename(from.to_owned(), to.to_owned()), from)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.change_name(NameChange::Remove(name.to_owned()), name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut state = self.state();
        if state.step()? == Step::Crash {
            return Err(down());
        }
        for change in std::mem::take(&mut state.unsynced_names) {
            apply(&mut state.durable_names, &change);
        }
        Ok(())
    }
}

impl SimDisk {
    fn change_name(&self, change: NameChange, name: &str) -> io::Result<()> {
        let mut state = self.state();
        let step = state.step()?;
        if !state.names.contains_key(name) {
            return Err(missing());
        }
        // A crash in the middle: the change happened or did not.
        if step == Step::Done || state.random.coin() {
            apply(&mut state.names, &change);
            state.unsynced_names.push(change);
        }
        if step == Step::Crash { Err(down()) } else { Ok(()) }
    }
}
