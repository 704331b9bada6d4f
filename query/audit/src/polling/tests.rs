//! Polling clients: fewer records, and nothing less told.

use std::sync::atomic::AtomicBool;

use schemas_evidence::ledger::Ledger;
use schemas_evidence::memory::MemoryLedger;
use schemas_identity::SecretKey;
use schemas_signals::{Registry, SignalSet};
use tempfile::TempDir;

use super::*;
use crate::{Page, Report, Seen};

const START_US: i64 = 1_000;
const OPEN_US: i64 = i64::MAX;

fn did(seed: u8) -> Did {
    SecretKey::from_seed(&[seed; 32]).public().did()
}

fn signals(name: &str) -> SignalSet {
    Registry::builtin().resolve(name)
}

fn scope(seed: u8) -> Scope {
    Scope { subject: did(seed), signals: signals("vitals"), from_us: 0, to_us: 500 }
}

fn intent(at_us: i64) -> Intent {
    Intent {
        recipient: did(99),
        voucher: None,
        token_id: "t1".into(),
        purpose: "TREAT".into(),
        study: None,
        sql: "SELECT 1".into(),
        scope: [scope(1), scope(2)].into(),
        withheld: vec![did(3)],
        epoch: 7,
        log_size: 0,
        started_us: at_us,
    }
}

fn completion(outcome: Outcome, rows: u64, at_us: i64) -> Completion {
    Completion { outcome, rows: [(did(1), rows)].into(), result_rows: rows, bytes: 10, ended_us: at_us }
}

struct World {
    dir: TempDir,
    ledger: Arc<MemoryLedger>,
    audit: Audit,
    is_unchanged: Arc<AtomicBool>,
}

impl World {
    fn new() -> World {
        let (dir, ledger) = (TempDir::new().unwrap(), Arc::new(MemoryLedger::new("example.org/log")));
        let audit = Audit::open(dir.path(), Arc::clone(&ledger) as Arc<dyn Ledger>).unwrap();
        World { dir, ledger, audit, is_unchanged: Arc::new(AtomicBool::new(true)) }
    }

    fn poll(&self, intent: Intent) -> Receipt {
        let is_unchanged = Arc::clone(&self.is_unchanged);
        self.audit.poll(intent, OPEN_US, Arc::new(move || is_unchanged.load(Ordering::SeqCst))).unwrap()
    }

    /// One request from beginning to end.
    fn ask(&self, intent: Intent, rows: u64) {
        let at_us = intent.started_us;
        let receipt = self.poll(intent);
        self.audit.complete(&receipt, completion(Outcome::Released, rows, at_us + 1)).unwrap();
    }

    fn report(&self, seed: u8) -> Report {
        self.audit.report(&did(seed), Page::default()).unwrap()
    }

    /// Outcome, repeats and rows of each access.
    fn brief(&self, seed: u8) -> Vec<(Seen, Option<u64>, Option<u64>)> {
        let accesses = self.report(seed).accesses;
        accesses.iter().map(|access| (access.outcome, access.repeats, access.rows)).collect()
    }
}

/// A statement asked every 5 seconds for 15 minutes is two log entries; meanwhile the record reads "assume that all was
/// read" and says until when, afterwards it holds the number of repeats and the sum of rows of each person. The first
/// request after that is a new record.
#[test]
fn a_quarter_of_an_hour_is_one_record() {
    let world = World::new();
    let mut at_us = START_US;
    while at_us < START_US + WINDOW_US {
        world.ask(intent(at_us), 10);
        at_us += 5_000_000;
    }
    assert_eq!(world.ledger.size(), 1);
    let running = world.report(1).accesses.remove(0);
    assert_eq!((running.outcome, running.rows, running.repeats), (Seen::AssumeAllWasRead, None, None));
    assert_eq!(running.repeat_until_us, Some(START_US + WINDOW_US));
    world.audit.end_polls(START_US + WINDOW_US - 1);
    assert_eq!(world.ledger.size(), 1);
    world.audit.end_polls(START_US + WINDOW_US);
    assert_eq!(world.ledger.size(), 2);
    assert_eq!(world.brief(1), [(Seen::Released, Some(180), Some(1_800))]);
    assert_eq!(world.brief(2), [(Seen::Released, Some(180), Some(0))]);
    assert_eq!(world.report(3).accesses[0].outcome, Seen::Refused);
    world.ask(intent(at_us), 1);
    assert_eq!((world.ledger.size(), world.report(1).newest), (3, 2));
    assert_eq!(world.audit.check().unwrap(), vec![]);
}

/// Anything that the intent on record does not cover is a new record, and ends the old one at once if it is the same
/// question: other people, signals or times; changed consent; another recipient, token, purpose, study or text.
#[test]
fn what_is_not_covered_is_recorded() {
    type Change = fn(&mut Intent);
    let same_question: Vec<Change> = vec![
        |intent| intent.scope = [scope(1), scope(2), scope(4)].into(),
        |intent| intent.scope = [scope(1)].into(),
        |intent| Arc::make_mut(&mut intent.scope)[1] = scope(4),
        |intent| Arc::make_mut(&mut intent.scope)[0].signals = signals("*"),
        |intent| Arc::make_mut(&mut intent.scope)[0].from_us = -1,
        |intent| Arc::make_mut(&mut intent.scope)[0].to_us = 501,
        |intent| intent.withheld.push(did(5)),
        |intent| intent.withheld.clear(),
        |intent| intent.withheld[0] = did(5),
        |intent| intent.started_us = START_US + WINDOW_US,
    ];
    let another: Vec<Change> = vec![
        |intent| intent.recipient = did(98),
        |intent| intent.token_id = "t2".into(),
        |intent| intent.purpose = "CAREMGT".into(),
        |intent| intent.study = Some("s".into()),
        |intent| intent.sql = "SELECT 2".into(),
    ];
    let cases = same_question
        .into_iter()
        .map(|change| (change, 3))
        .chain(another.into_iter().map(|change| (change, 2)));
    for (case, (change, entries)) in cases.enumerate() {
        let world = World::new();
        world.ask(intent(START_US), 1);
        let mut other = intent(START_US + 1);
        change(&mut other);
        let receipt = world.poll(other);
        assert_eq!(world.ledger.size(), entries, "case {case}");
        drop(receipt);
    }
    let world = World::new();
    world.ask(intent(START_US), 1);
    let mut narrower = intent(START_US + 1);
    let less = Scope { signals: signals("heart_rate"), from_us: 1, to_us: 499, ..scope(1) };
    narrower.scope = [less, scope(2)].into();
    world.ask(narrower, 1);
    assert_eq!(world.ledger.size(), 1);
    world.is_unchanged.store(false, Ordering::SeqCst);
    world.audit.end_polls(START_US + 2);
    assert_eq!(world.brief(1), [(Seen::Released, Some(2), Some(2))]);
}

/// A change of consent, an error or a reader who goes away ends the record with that outcome, once all that runs in it has
/// ended; the next request is a new record.
#[test]
fn what_ends_badly_ends_the_record() {
    for (outcome, seen) in [
        (Outcome::Revoked, Seen::Revoked),
        (Outcome::Error, Seen::Error),
        (Outcome::Cancelled, Seen::Cancelled),
    ] {
        let world = World::new();
        let (one, two) = (world.poll(intent(START_US)), world.poll(intent(START_US + 1)));
        world.audit.complete(&one, completion(outcome, 4, START_US + 2)).unwrap();
        assert_eq!(world.brief(1), [(Seen::AssumeAllWasRead, None, None)]);
        let after = world.poll(intent(START_US + 3));
        assert_eq!(world.report(1).newest, 2);
        world.audit.complete(&two, completion(Outcome::Released, 5, START_US + 4)).unwrap();
        assert_eq!(world.brief(1)[0], (seen, Some(2), Some(9)));
        drop(after);
    }
}

/// A repeat that never ends, and a crash, leave the record without a completion: assume that all was read. A proper end of
/// the process completes what can be. One repeat is counted once.
#[test]
fn unknown_ends_stay_unknown() {
    let world = World::new();
    world.ask(intent(START_US), 1);
    let lost = world.poll(intent(START_US + 1));
    drop(lost);
    world.audit.end_polls(OPEN_US);
    assert_eq!(world.brief(1), [(Seen::AssumeAllWasRead, None, None)]);

    let world = World::new();
    let receipt = world.poll(intent(START_US));
    let ended = || completion(Outcome::Released, 3, START_US + 1);
    world.audit.complete(&receipt, ended()).unwrap();
    assert!(matches!(world.audit.complete(&receipt, ended()), Err(AuditError::AlreadyComplete)));
    let outside = Completion { rows: [(did(4), 1)].into(), ..ended() };
    assert!(matches!(world.audit.complete(&receipt, outside), Err(AuditError::OutsideScope { .. })));
    let World { dir, ledger, audit, .. } = world;
    drop(audit);
    let audit = Audit::open(dir.path(), ledger as Arc<dyn Ledger>).unwrap();
    let access = audit.report(&did(1), Page::default()).unwrap().accesses.remove(0);
    assert_eq!((access.outcome, access.repeats, access.rows), (Seen::Released, Some(1), Some(3)));
}

/// The window never outlives the permission, and beyond the limits each request has its own record again.
#[test]
fn windows_are_bounded() {
    let world = World::new();
    let receipt = world.audit.poll(intent(START_US), START_US + 5, Arc::new(|| true)).unwrap();
    world.audit.complete(&receipt, completion(Outcome::Released, 1, START_US)).unwrap();
    assert_eq!(world.report(1).accesses[0].repeat_until_us, Some(START_US + 5));
    world.ask(intent(START_US + 5), 1);
    assert_eq!(world.report(1).newest, 2);
}
