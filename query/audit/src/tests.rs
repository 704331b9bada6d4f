//! The audit against crashes, tampering, concurrency and curious subjects.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use schemas_evidence::entry::Entry;
use schemas_evidence::ledger::{Ledger, LedgerError};
use schemas_evidence::memory::MemoryLedger;
use schemas_evidence::merkle::Hash32;
use schemas_identity::{Did, SecretKey};
use schemas_signals::Registry;
use tempfile::TempDir;

use crate::*;

/// A ledger that counts calls and can be told to fail.
struct Watched {
    inner: MemoryLedger,
    appends: AtomicU64,
    is_down: AtomicBool,
}

impl Watched {
    fn new() -> Arc<Watched> {
        let inner = MemoryLedger::new("example.org/log");
        Arc::new(Watched { inner, appends: AtomicU64::new(0), is_down: AtomicBool::new(false) })
    }
}

impl Ledger for Watched {
    fn origin(&self) -> &str {
        self.inner.origin()
    }
    fn append(&self, entries: &[Entry]) -> Result<Vec<u64>, LedgerError> {
        self.appends.fetch_add(1, Ordering::Relaxed);
        if self.is_down.load(Ordering::Relaxed) {
            Err(LedgerError::Poisoned)
        } else {
            self.inner.append(entries)
        }
    }
    fn size(&self) -> u64 {
        self.inner.size()
    }
    fn checkpoint(&self) -> Result<String, LedgerError> {
        self.inner.checkpoint()
    }
    fn entries(&self, from: u64, to: u64) -> Result<Vec<String>, LedgerError> {
        self.inner.entries(from, to)
    }
    fn inclusion(&self, index: u64, size: u64) -> Result<Vec<Hash32>, LedgerError> {
        self.inner.inclusion(index, size)
    }
    fn consistency(&self, old: u64, new: u64) -> Result<Vec<Hash32>, LedgerError> {
        self.inner.consistency(old, new)
    }
    fn tlog_proof(&self, index: u64) -> Result<String, LedgerError> {
        self.inner.tlog_proof(index)
    }
}

fn did(seed: u8) -> Did {
    SecretKey::from_seed(&[seed; 32]).public().did()
}

fn scope(seed: u8) -> Scope {
    let signals = Registry::builtin().resolve("heart_rate");
    Scope { subject: did(seed), signals, from_us: i64::MIN, to_us: 500 }
}

fn intent(subjects: &[u8], withheld: &[u8]) -> Intent {
    Intent {
        recipient: did(99),
        voucher: None,
        token_id: "t1".into(),
        purpose: "HRESCH".into(),
        study: Some("sleep".into()),
        sql: "SELECT 1 WHERE note = 'SECRET'".into(),
        scope: subjects.iter().map(|seed| scope(*seed)).collect(),
        withheld: withheld.iter().map(|seed| did(*seed)).collect(),
        epoch: 7,
        log_size: 0,
        started_us: 1_000,
    }
}

fn completion(outcome: Outcome, rows: &[(u8, u64)]) -> Completion {
    let rows: BTreeMap<Did, u64> = rows.iter().map(|(seed, rows)| (did(*seed), *rows)).collect();
    Completion { outcome, rows, result_rows: 3, bytes: 30, ended_us: 2_000 }
}

fn refused(subjects: &[u8]) -> Refused {
    Refused {
        recipient: did(99),
        voucher: None,
        token_id: "t1".into(),
        purpose: "HRESCH".into(),
        study: None,
        sql: "DROP TABLE readings".into(),
        subjects: subjects.iter().map(|seed| did(*seed)).collect(),
        reason: "statement".into(),
        epoch: 7,
        at_us: 3_000,
    }
}

fn open(dir: &TempDir, ledger: &Arc<Watched>) -> Audit {
    Audit::open(dir.path(), Arc::clone(ledger) as Arc<dyn Ledger>).unwrap()
}

fn report(audit: &Audit, seed: u8) -> Report {
    audit.report(&did(seed), Page::default()).unwrap()
}

fn first_file(dir: &TempDir) -> PathBuf {
    dir.path().join("00000001.audit")
}

/// A subject sees who, why, what, how much and where in the log; withheld and refused ones see that too; nobody sees
/// anybody else, and all of it survives a restart.
#[test]
fn a_subject_sees_its_own_accesses_only() {
    let (dir, ledger) = (TempDir::new().unwrap(), Watched::new());
    let before = {
        let audit = open(&dir, &ledger);
        let receipt = audit.intent(intent(&[1, 2], &[3])).unwrap();
        audit.complete(&receipt, completion(Outcome::Released, &[(1, 42)])).unwrap();
        audit.refused(refused(&[1])).unwrap();
        [1, 2, 3, 4].map(|seed| report(&audit, seed))
    };
    let audit = open(&dir, &ledger);
    assert_eq!(*audit.opened(), Opened { records: 3, newest_us: 3_000, ..Opened::default() });
    let [one, two, three, four] = [1, 2, 3, 4].map(|seed| report(&audit, seed));
    assert_eq!(before, [one.clone(), two.clone(), three.clone(), four.clone()]);
    let access = &one.accesses[0];
    assert_eq!((access.number, access.rows, access.outcome), (1, Some(42), Seen::Released));
    assert_eq!((access.log_index, access.result_index), (Some(0), Some(1)));
    assert_eq!(
        (access.signals.clone(), access.from_us, access.to_us),
        (vec!["heart_rate".into()], None, Some(500))
    );
    assert_eq!((access.recipient.clone(), access.study.as_deref()), (did(99).to_string(), Some("sleep")));
    assert_eq!((one.accesses[1].number, one.accesses[1].outcome), (2, Seen::Refused));
    assert_eq!((two.accesses[0].rows, two.accesses.len()), (Some(0), 1));
    assert_eq!((three.accesses[0].outcome, three.accesses[0].rows), (Seen::Refused, Some(0)));
    assert!(four.accesses.is_empty());
    let shown = serde_json::to_string(&one).unwrap();
    assert!(!shown.contains(&did(2).to_string()) && !shown.contains("SECRET") && !shown.contains("SELECT"));
    let kept = fs::read(first_file(&dir)).unwrap();
    let holds = |text: &str| kept.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(holds("SELECT ? WHERE note = ?") && holds("DROP TABLE readings") && !holds("SECRET"));
}

/// A query without a completion reads: assume that all was read.
#[test]
fn no_completion_means_all() {
    let (dir, ledger) = (TempDir::new().unwrap(), Watched::new());
    open(&dir, &ledger).intent(intent(&[1], &[])).unwrap();
    let access = report(&open(&dir, &ledger), 1).accesses.remove(0);
    assert_eq!((access.outcome, access.rows), (Seen::AssumeAllWasRead, None));
}

/// A completion counts only once, and only people whom the intent named.
#[test]
fn completions_are_bound_to_their_intent() {
    let (dir, ledger) = (TempDir::new().unwrap(), Watched::new());
    let audit = open(&dir, &ledger);
    let receipt = audit.intent(intent(&[1], &[2])).unwrap();
    let outside = audit.complete(&receipt, completion(Outcome::Released, &[(2, 1)]));
    assert!(matches!(outside, Err(AuditError::OutsideScope { subjects: 1 })));
    audit.complete(&receipt, completion(Outcome::Cancelled, &[(1, 5)])).unwrap();
    let again = audit.complete(&receipt, completion(Outcome::Released, &[]));
    assert!(matches!(again, Err(AuditError::AlreadyComplete)));
    assert_eq!(report(&audit, 1).accesses[0].outcome, Seen::Cancelled);
}

/// Many at once share syncs and log calls, each gets its own record, and running numbers have no gap.
#[test]
fn concurrent_queries_share_a_sync() {
    let (dir, ledger) = (TempDir::new().unwrap(), Watched::new());
    let audit = open(&dir, &ledger);
    let blocker = audit.index.read();
    let indices: Vec<u64> = std::thread::scope(|threads| {
        let spawned: Vec<_> =
            (0..16).map(|_| threads.spawn(|| audit.intent(intent(&[1], &[])).unwrap().log_index())).collect();
        // The first leader cannot index its record as long as this is held, so the rest gather behind it.
        std::thread::sleep(std::time::Duration::from_millis(300));
        drop(blocker);
        spawned.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let mut sorted = indices.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, (0..16).collect::<Vec<u64>>());
    assert!(ledger.appends.load(Ordering::Relaxed) <= 4, "{:?} calls", ledger.appends);
    let report = report(&audit, 1);
    let numbers: Vec<u64> = report.accesses.iter().map(|access| access.number).collect();
    assert_eq!(numbers, (1..=16).collect::<Vec<u64>>());
}

/// A torn tail is cut at every possible length, what was acknowledged stays, and the next record fits on.
#[test]
fn torn_tails_are_cut() {
    let (dir, ledger) = (TempDir::new().unwrap(), Watched::new());
    open(&dir, &ledger).refused(refused(&[1])).unwrap();
    let good = fs::read(first_file(&dir)).unwrap();
    open(&dir, &ledger).refused(refused(&[2])).unwrap();
    let whole = fs::read(first_file(&dir)).unwrap();
    let cuts = [1, 4, 11, 12, 40, whole.len() - good.len() - 1];
    for torn in cuts {
        fs::write(first_file(&dir), &whole[..good.len() + torn]).unwrap();
        // What was torn never reached the log in a real crash: the log as it was then.
        let then = Watched::new();
        then.append(&[Entry::parse(&ledger.entries(0, 1).unwrap()[0]).unwrap()]).unwrap();
        let audit = open(&dir, &then);
        assert_eq!(audit.opened().torn_bytes, torn as u64);
        assert_eq!((audit.opened().lost.len(), audit.opened().relogged), (0, 0));
        audit.refused(refused(&[1])).unwrap();
        assert_eq!((report(&audit, 1).newest, audit.check().unwrap()), (2, vec![]));
    }
}

/// A changed byte before the end is damage: opening refuses. At the very end the log tells that something was lost.
#[test]
fn damage_is_not_a_torn_tail() {
    let (dir, ledger) = (TempDir::new().unwrap(), Watched::new());
    let audit = open(&dir, &ledger);
    audit.refused(refused(&[1])).unwrap();
    let first_end = fs::metadata(first_file(&dir)).unwrap().len() as usize;
    audit.refused(refused(&[1])).unwrap();
    drop(audit);
    let whole = fs::read(first_file(&dir)).unwrap();
    let mut damaged = whole.clone();
    damaged[first_end - 1] ^= 1;
    fs::write(first_file(&dir), &damaged).unwrap();
    let refused_open = Audit::open(dir.path(), Arc::clone(&ledger) as Arc<dyn Ledger>);
    assert!(matches!(refused_open, Err(AuditError::Corrupt { offset: 16, .. })));
    let mut damaged = whole.clone();
    *damaged.last_mut().unwrap() ^= 1;
    fs::write(first_file(&dir), &damaged).unwrap();
    assert_eq!(open(&dir, &ledger).opened().lost, [1]);
}

/// A record whose commitment is not in the log is logged at the next start; one that is there is not logged twice.
#[test]
fn records_and_log_are_reconciled() {
    let (dir, ledger) = (TempDir::new().unwrap(), Watched::new());
    open(&dir, &ledger).refused(refused(&[1])).unwrap();
    assert_eq!((open(&dir, &ledger).opened().relogged, ledger.size()), (0, 1));
    let empty = Watched::new();
    let audit = open(&dir, &empty);
    assert_eq!((audit.opened().relogged, empty.size()), (1, 1));
    assert_eq!((report(&audit, 1).accesses[0].log_index, audit.check().unwrap()), (Some(0), vec![]));
}

/// If the log fails, the query is refused; nothing piles up, and once the log is back the record says nothing was read.
#[test]
fn a_failing_log_refuses_queries() {
    let (dir, ledger) = (TempDir::new().unwrap(), Watched::new());
    let audit = open(&dir, &ledger);
    ledger.is_down.store(true, Ordering::Relaxed);
    for _ in 0..3 {
        assert!(matches!(audit.intent(intent(&[1], &[])), Err(AuditError::Ledger(_))));
    }
    assert_eq!(report(&audit, 1).newest, 1);
    assert_eq!(report(&audit, 1).accesses[0].log_index, None);
    ledger.is_down.store(false, Ordering::Relaxed);
    audit.refused(refused(&[2])).unwrap();
    let access = report(&audit, 1).accesses.remove(0);
    assert_eq!((access.outcome, access.rows, access.log_index), (Seen::Error, Some(0), Some(0)));
    assert_eq!(audit.check().unwrap(), vec![]);
}

/// A rewritten record is found by `check`, although its checksum is right.
#[test]
fn a_rewritten_record_is_found() {
    let (dir, ledger) = (TempDir::new().unwrap(), Watched::new());
    open(&dir, &ledger).refused(refused(&[1])).unwrap();
    let mut bytes = fs::read(first_file(&dir)).unwrap();
    let at = bytes.windows(6).position(|six| six == b"HRESCH").unwrap();
    bytes[at..at + 6].copy_from_slice(b"PATRQT");
    let crc = crc32c::crc32c(&bytes[28..]).to_le_bytes();
    bytes[24..28].copy_from_slice(&crc);
    // The link went with it, so that the record looks whole.
    fs::write(first_file(&dir), &bytes).unwrap();
    let audit = open(&dir, &ledger);
    assert_eq!((audit.opened().relogged, audit.opened().lost.clone()), (1, vec![0]));
}

/// Files roll over, pages have a limit and lead on, and a second process is kept out.
#[test]
fn files_pages_and_lock() {
    let (dir, ledger) = (TempDir::new().unwrap(), Watched::new());
    let options = || Options { file_bytes_max: 900, ..Options::new(dir.path()) };
    let audit = Audit::open(options(), Arc::clone(&ledger) as Arc<dyn Ledger>).unwrap();
    let locked = Audit::open(options(), Arc::clone(&ledger) as Arc<dyn Ledger>);
    assert!(matches!(locked, Err(AuditError::Locked { .. })));
    for _ in 0..7 {
        audit.refused(refused(&[1])).unwrap();
    }
    drop(audit);
    assert!(dir.path().join("00000003.audit").exists());
    let audit = Audit::open(options(), Arc::clone(&ledger) as Arc<dyn Ledger>).unwrap();
    let (mut page, mut numbers) = (Page { after: 0, limit: 3 }, Vec::new());
    loop {
        let part = audit.report(&did(1), page).unwrap();
        assert!(part.accesses.len() <= 3);
        numbers.extend(part.accesses.iter().map(|access| access.number));
        let Some(next) = part.next else { break };
        page.after = next;
    }
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 7]);
    drop(audit);
    fs::remove_file(dir.path().join("00000002.audit")).unwrap();
    let gone = Audit::open(options(), Arc::clone(&ledger) as Arc<dyn Ledger>);
    assert!(matches!(gone, Err(AuditError::Corrupt { .. })));
}

/// A person whose records are all there reads that nothing is lost; when files went, every report says how many records
/// of anybody the log still names.
#[test]
fn lost_records_are_told_to_everybody() {
    let (dir, ledger) = (TempDir::new().unwrap(), Watched::new());
    let audit = open(&dir, &ledger);
    audit.refused(refused(&[1])).unwrap();
    assert_eq!((report(&audit, 1).lost, report(&audit, 4).lost), (0, 0));
    drop(audit);
    fs::remove_file(first_file(&dir)).unwrap();
    let audit = open(&dir, &ledger);
    assert_eq!((report(&audit, 1).lost, report(&audit, 4).lost), (1, 1));
}

/// A purpose that is none reaches nobody's report as text.
#[test]
fn made_up_purposes_are_not_shown() {
    let (dir, ledger) = (TempDir::new().unwrap(), Watched::new());
    let audit = open(&dir, &ledger);
    audit.refused(Refused { purpose: "call me".into(), ..refused(&[1]) }).unwrap();
    assert_eq!(report(&audit, 1).accesses[0].purpose, "unrecognised");
}

/// A file that is not ours is refused, whatever it is.
#[test]
fn foreign_files_are_refused() {
    let (dir, ledger) = (TempDir::new().unwrap(), Watched::new());
    let mut file = fs::File::create(first_file(&dir)).unwrap();
    file.write_all(b"vitalog-audit-2\nrest").unwrap();
    let opened = Audit::open(dir.path(), Arc::clone(&ledger) as Arc<dyn Ledger>);
    assert!(matches!(opened, Err(AuditError::Corrupt { offset: 0, .. })));
}
