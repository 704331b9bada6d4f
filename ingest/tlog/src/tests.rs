//! The log on disk: conformance, reopening, crashes, power loss, contradictions.

mod crash;
mod refusal;

use std::path::Path;
use std::sync::Arc;

use schemas_evidence::{Entry, Ledger, LedgerError, NoteKey, Policy, TlogProof, conformance, entry_leaf};
use schemas_identity::SecretKey;
use tempfile::TempDir;

use crate::disk::{Change, Faults};
use crate::{FileLog, Options, audit_log};

const ORIGIN: &str = "log.example/vitalog";

fn secret() -> SecretKey {
    SecretKey::from_seed(&[0x51; 32])
}

fn key() -> NoteKey {
    NoteKey::log(ORIGIN, secret().public()).unwrap()
}

/// A journal that begins anew after about 60 entries.
fn small() -> Options {
    Options { journal_bytes_max: 8 * 1024, ..Options::default() }
}

fn open(dir: &Path) -> Result<FileLog, LedgerError> {
    FileLog::open(dir, ORIGIN, secret(), small())
}

fn entry(n: u64) -> Entry {
    let mut commitment = [0x5a; 32];
    commitment[..8].copy_from_slice(&n.to_be_bytes());
    Entry::Statement { commitment }
}

fn entries(from: u64, to: u64) -> Vec<Entry> {
    (from..to).map(entry).collect()
}

fn texts(from: u64, to: u64) -> Vec<String> {
    (from..to).map(|n| entry(n).to_text()).collect()
}

/// The log on disk is a ledger in every respect the suite knows, whether or not its journal begins anew meanwhile.
#[test]
fn it_conforms() {
    for options in [Options::default(), small()] {
        let kept = std::cell::RefCell::new(Vec::new());
        let fresh = || {
            let dir = TempDir::new().unwrap();
            let log = FileLog::open(dir.path(), ORIGIN, secret(), options.clone()).unwrap();
            kept.borrow_mut().push(dir);
            log
        };
        conformance::ledger(fresh, &key());
    }
}

/// Closing and opening changes nothing, at sizes around every border of tiles and of the journal.
#[test]
fn it_opens_as_it_was_closed() {
    let dir = TempDir::new().unwrap();
    let mut size = 0;
    for count in [0, 1, 1, 253, 1, 1, 300, 7, 205, 1] {
        let log = open(dir.path()).unwrap();
        assert_eq!(log.size(), size);
        let appended = log.append(&entries(size, size + count)).unwrap();
        assert_eq!(appended, (size..size + count).collect::<Vec<_>>());
        size += count;
        let before = log.checkpoint().unwrap();
        drop(log);
        let log = open(dir.path()).unwrap();
        assert_eq!((log.size(), log.checkpoint().unwrap()), (size, before));
        assert_eq!(log.entries(0, size).unwrap(), texts(0, size));
        assert!(audit_log(dir.path(), &key()).unwrap().is_clean());
    }
    let log = open(dir.path()).unwrap();
    let policy = Policy::of_log(key(), &[]);
    for index in 0..size {
        let proof = TlogProof::parse(&log.tlog_proof(index).unwrap()).unwrap();
        proof.verify(&entry_leaf(&entry(index).to_text()), &policy).unwrap();
    }
}

/// The files are those of the specification and nothing else, but for the two that are the writer's own.
#[test]
fn the_directory_is_a_tlog_tiles_directory() {
    let dir = TempDir::new().unwrap();
    open(dir.path()).unwrap().append(&entries(0, 600)).unwrap();
    let mut names = Vec::new();
    list(dir.path(), dir.path(), &mut names);
    names.sort();
    let expected = [
        ".journal",
        ".lock",
        "checkpoint",
        "tile/0/000",
        "tile/0/001",
        "tile/0/002.p/88",
        "tile/1/000.p/2",
        "tile/entries/000",
        "tile/entries/001",
        "tile/entries/002.p/88",
    ];
    assert_eq!(names, expected);
}

pub(super) fn list(root: &Path, dir: &Path, names: &mut Vec<String>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            list(root, &path, names);
        } else {
            names.push(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
        }
    }
}

/// Two writers would make two histories: the second is refused while the first lives.
#[test]
fn a_second_writer_is_refused() {
    let dir = TempDir::new().unwrap();
    let first = open(dir.path()).unwrap();
    assert!(matches!(open(dir.path()), Err(LedgerError::Locked { .. })));
    drop(first);
    open(dir.path()).unwrap();
}

/// A disk whose syncs cost nothing, for tests that open a log very often.
struct NoSyncs;

impl Faults for NoSyncs {
    fn before(&self, _: Change<'_>) -> std::io::Result<()> {
        Ok(())
    }

    fn syncs(&self) -> bool {
        false
    }
}

fn open_fast(dir: &Path) -> Result<FileLog, LedgerError> {
    FileLog::open_with(dir, ORIGIN, secret(), small(), Some(Arc::new(NoSyncs)))
}

struct SlowSyncs {
    syncs: std::sync::atomic::AtomicU64,
}

impl Faults for SlowSyncs {
    fn before(&self, change: Change<'_>) -> std::io::Result<()> {
        if matches!(change, Change::Sync(path) if path.ends_with(".journal")) {
            self.syncs.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            std::thread::sleep(std::time::Duration::from_millis(3));
        }
        Ok(())
    }

    fn syncs(&self) -> bool {
        false
    }
}

/// Callers that arrive while a sync is under way share the next one.
#[test]
fn concurrent_appends_share_a_sync() {
    const CALLERS: u64 = 16;
    const ROUNDS: u64 = 10;
    let dir = TempDir::new().unwrap();
    let faults = Arc::new(SlowSyncs { syncs: 0.into() });
    let log =
        FileLog::open_with(dir.path(), ORIGIN, secret(), Options::default(), Some(faults.clone())).unwrap();
    std::thread::scope(|scope| {
        for caller in 0..CALLERS {
            let log = &log;
            scope.spawn(move || {
                (0..ROUNDS).for_each(|round| {
                    log.append(&[entry(caller << 8 | round)]).unwrap();
                })
            });
        }
    });
    assert_eq!(log.size(), CALLERS * ROUNDS);
    let syncs = faults.syncs.load(std::sync::atomic::Ordering::Relaxed);
    assert!(syncs <= CALLERS * ROUNDS / 2, "{syncs} syncs");
}
