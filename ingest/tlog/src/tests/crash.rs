//! A crash after every single change to the directory, with and without the power going as well.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use schemas_evidence::merkle::{Sha256Rfc6962, verify_consistency};
use schemas_evidence::{Checkpoint, open_checkpoint};

use super::*;

/// What the log is made to do. With the small journal it begins a new one several times and crosses a tile border.
const SCRIPT: [u64; 7] = [1, 2, 60, 1, 190, 5, 40];

/// What a power loss may undo of one file.
struct Unsynced {
    /// Its last durable content.
    before: Option<Vec<u8>>,
    /// Only its name is not durable yet.
    content_synced: bool,
}

#[derive(Default)]
struct Played {
    changes: u64,
    unsynced: BTreeMap<PathBuf, Unsynced>,
    journal_synced: Option<u64>,
}

/// Stops everything from change number `stop_at` on, and remembers what was not durable.
struct Crash {
    stop_at: u64,
    played: Mutex<Played>,
}

impl Crash {
    fn at(stop_at: u64) -> Arc<Crash> {
        Arc::new(Crash { stop_at, played: Mutex::default() })
    }
}

impl Faults for Crash {
    fn before(&self, change: Change<'_>) -> io::Result<()> {
        let mut played = self.played.lock().unwrap();
        played.changes += 1;
        if played.changes > self.stop_at {
            return Err(io::Error::other("crash"));
        }
        match change {
            Change::Replace(path) => {
                // A journal is synced under its other name before it takes its place.
                let content_synced = path.ends_with(".journal");
                let before = fs::read(path).ok();
                let known = played.unsynced.entry(path.to_owned());
                known.or_insert(Unsynced { before, content_synced }).content_synced = content_synced;
            }
            Change::Append(path) => played.journal_synced = Some(fs::metadata(path)?.len()),
            Change::Sync(path) => {
                if path.ends_with(".journal") {
                    played.journal_synced = None;
                }
                if let Some(file) = played.unsynced.get_mut(path) {
                    file.content_synced = true;
                }
            }
            Change::SyncDir(dir) => {
                played.unsynced.retain(|path, file| path.parent() != Some(dir) || !file.content_synced);
            }
            Change::Remove(dir) => played.unsynced.retain(|path, _| !path.starts_with(dir)),
        }
        Ok(())
    }

    fn syncs(&self) -> bool {
        false
    }
}

/// A small generator, so that each run can be repeated.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// Undoes, by the dice, what no sync had made durable.
fn power_loss(dir: &Path, played: &Played, dice: &mut Dice) {
    for (path, file) in &played.unsynced {
        let bytes = fs::read(path).ok();
        match (dice.roll(5), &file.before, bytes) {
            (0, Some(before), _) => fs::write(path, before).unwrap(),
            (0, None, Some(_)) => fs::remove_file(path).unwrap(),
            (1, _, Some(_)) if !file.content_synced => fs::write(path, b"").unwrap(),
            (2, _, Some(bytes)) if !file.content_synced => fs::write(path, vec![0; bytes.len()]).unwrap(),
            (3, _, Some(bytes)) if !file.content_synced && !path.ends_with("checkpoint") => {
                fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
            }
            _ => (),
        }
    }
    let journal = dir.join(".journal");
    if let (Some(synced), Ok(mut bytes)) = (played.journal_synced, fs::read(&journal)) {
        let tail = bytes.len() as u64 - synced;
        match dice.roll(3) {
            0 => bytes.truncate((synced + dice.roll(tail + 1)) as usize),
            1 => bytes[(synced + dice.roll(tail.max(1))) as usize..].fill(0),
            _ => (),
        }
        fs::write(&journal, bytes).unwrap();
    }
}

/// Runs the script until the crash; returns how many entries were acknowledged and the last checkpoint seen.
fn run_script(log: &FileLog) -> (u64, Option<Checkpoint>, bool) {
    let (mut acknowledged, mut seen) = (0, None);
    for count in SCRIPT {
        match log.append(&entries(acknowledged, acknowledged + count)) {
            Ok(_) => acknowledged += count,
            Err(_) => return (acknowledged, seen, false),
        }
        seen = Some(open_checkpoint(&log.checkpoint().unwrap(), &key()).unwrap());
    }
    (acknowledged, seen, true)
}

/// Opens after a crash: nothing acknowledged is gone, nothing is there twice, and the log goes on.
fn check_recovered(dir: &Path, acknowledged: u64, seen: Option<Checkpoint>, context: &str) {
    let log = open_fast(dir).unwrap_or_else(|error| panic!("{context}: {error}"));
    let size = log.size();
    assert!(size >= acknowledged, "{context}: {size} of {acknowledged}");
    assert_eq!(log.entries(0, size).unwrap(), texts(0, size), "{context}");
    if let Some(seen) = seen {
        let head = open_checkpoint(&log.checkpoint().unwrap(), &key()).unwrap();
        let path = log.consistency(seen.size, head.size).unwrap();
        verify_consistency::<Sha256Rfc6962>(seen.size, head.size, &path, &seen.root, &head.root).unwrap();
    }
    let audit = audit_log(dir, &key()).unwrap();
    assert!(audit.is_clean(), "{context}: {:?}", audit.findings);
    log.append(&entries(size, size + 2)).unwrap();
    drop(log);
    assert_eq!(open_fast(dir).unwrap().size(), size + 2);
}

fn crash_everywhere(lose_power: Option<u64>) {
    for stop_at in 0.. {
        let dir = TempDir::new().unwrap();
        let crash = Crash::at(stop_at);
        let opened = FileLog::open_with(dir.path(), ORIGIN, secret(), small(), Some(crash.clone()));
        let (acknowledged, seen, finished) = match &opened {
            Ok(log) => run_script(log),
            Err(_) => (0, None, false),
        };
        drop(opened);
        if let Some(seed) = lose_power {
            power_loss(dir.path(), &crash.played.lock().unwrap(), &mut Dice(seed ^ stop_at << 16));
        }
        check_recovered(
            dir.path(),
            acknowledged,
            seen,
            &format!("stopped at {stop_at}, seed {lose_power:?}"),
        );
        if finished {
            assert!(stop_at > 50, "the script is long enough to mean something");
            return;
        }
    }
}

/// kill -9 between any two changes loses nothing that was acknowledged.
#[test]
fn a_crash_after_any_change_loses_nothing_acknowledged() {
    crash_everywhere(None);
}

/// Power loss between any two changes, with everything not synced at the mercy of dice, loses nothing acknowledged.
#[test]
fn a_power_loss_after_any_change_loses_nothing_acknowledged() {
    for seed in 1..=2 {
        crash_everywhere(Some(seed));
    }
}

/// A crash while a crash is being recovered from is no different.
#[test]
fn a_crash_during_recovery_loses_nothing() {
    for stop_at in 0.. {
        let dir = TempDir::new().unwrap();
        {
            // 50 entries still in the journal, one torn block behind them.
            let log = open_fast(dir.path()).unwrap();
            log.append(&entries(0, 300)).unwrap();
            log.append(&entries(300, 350)).unwrap();
        }
        let journal = dir.path().join(".journal");
        let mut bytes = fs::read(&journal).unwrap();
        bytes.extend([9, 0, 0, 0, 1, 2, 3, 4, 5]);
        fs::write(&journal, bytes).unwrap();
        let crash = Crash::at(stop_at);
        let opened = FileLog::open_with(dir.path(), ORIGIN, secret(), small(), Some(crash.clone()));
        let finished = opened.is_ok();
        drop(opened);
        power_loss(dir.path(), &crash.played.lock().unwrap(), &mut Dice(stop_at));
        check_recovered(dir.path(), 350, None, &format!("recovery stopped at {stop_at}"));
        if finished {
            return;
        }
    }
}

/// After a failed write nothing more is taken, what was published can still be read, and opening again heals.
#[test]
fn a_failed_write_closes_the_log_for_writing_only() {
    let dir = TempDir::new().unwrap();
    let log = FileLog::open_with(dir.path(), ORIGIN, secret(), small(), Some(Crash::at(12))).unwrap();
    let mut taken = 0;
    let failure = loop {
        match log.append(&[entry(taken)]) {
            Ok(_) => taken += 1,
            Err(failure) => break failure,
        }
    };
    assert!(matches!(failure, LedgerError::Io { .. }) && failure.is_poisoned());
    assert!(matches!(log.append(&[entry(9)]), Err(LedgerError::Poisoned)));
    assert_eq!(log.entries(0, taken).unwrap(), texts(0, taken));
    drop(log);
    check_recovered(dir.path(), taken, None, "after a failed write");
}
