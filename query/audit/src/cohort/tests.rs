//! Records that refer say what records that name would say.

use std::fs;
use std::path::Path;

use schemas_evidence::memory::MemoryLedger;
use schemas_identity::SecretKey;
use schemas_signals::Registry;
use tempfile::TempDir;

use super::*;
use crate::file::Place;
use crate::index::Index;
use crate::record::{Asked, IntentRecord, Record};
use crate::*;

struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

fn people(count: u8) -> Vec<Did> {
    let mut people: Vec<Did> =
        (0..count).map(|seed| SecretKey::from_seed(&[seed; 32]).public().did()).collect();
    people.sort_unstable();
    people
}

fn scope(subjects: &[Did], kinds: usize) -> Vec<Scope> {
    let names = ["heart_rate", "steps", "spo2"];
    let of = |(at, subject): (usize, &Did)| {
        let signals = Registry::builtin().resolve(names[at % kinds]);
        Scope { subject: *subject, signals, from_us: i64::MIN, to_us: 500 }
    };
    subjects.iter().enumerate().map(of).collect()
}

fn intent(scope: Vec<Scope>, withheld: Vec<Did>) -> Intent {
    Intent {
        recipient: people(1)[0],
        voucher: None,
        token_id: "t".into(),
        purpose: "HRESCH".into(),
        study: None,
        sql: "SELECT 1".into(),
        scope: scope.into(),
        withheld,
        epoch: 3,
        log_size: 0,
        started_us: 1_000,
    }
}

fn open(dir: &Path, ledger: &Arc<MemoryLedger>, file_bytes_max: u64) -> Audit {
    let options = Options { dir: dir.to_owned(), file_bytes_max };
    Audit::open(options, Arc::clone(ledger) as Arc<dyn schemas_evidence::ledger::Ledger>).unwrap()
}

fn bytes(dir: &Path) -> u64 {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
}

/// One step of a story, done the same way to both audits. The one that only names gets its people in another order.
fn step(audit: &Audit, dice: &mut Dice, everybody: &[Did], names: bool) -> u64 {
    let [all, some] = [everybody, &everybody[5..25]];
    let subjects = [all, all, all, some, &everybody[..3]][dice.below(5) as usize];
    let mut scope = scope(subjects, 1 + dice.below(3) as usize);
    if names {
        scope.reverse();
    }
    let withheld = if dice.below(4) == 0 { vec![everybody[39]] } else { Vec::new() };
    let withheld = if subjects.len() == all.len() { Vec::new() } else { withheld };
    let receipt = audit.intent(intent(scope, withheld)).unwrap();
    let share = dice.below(4);
    let mut rows = BTreeMap::new();
    for subject in subjects {
        if dice.below(4) >= share {
            rows.insert(*subject, 1 + dice.below(300));
        }
    }
    let completion =
        Completion { outcome: Outcome::Released, rows, result_rows: 1, bytes: 1, ended_us: 2_000 };
    if dice.below(8) > 0 {
        audit.complete(&receipt, completion).unwrap();
    }
    if dice.below(6) == 0 {
        let refused = Refused {
            recipient: everybody[0],
            voucher: None,
            token_id: "t".into(),
            purpose: "HRESCH".into(),
            study: None,
            sql: "DROP".into(),
            subjects: everybody[dice.below(30) as usize..][..2].to_vec(),
            reason: "statement".into(),
            epoch: 3,
            at_us: 5,
        };
        audit.refused(refused).unwrap();
    }
    receipt.number()
}

/// Guarantee: whatever is asked in whatever order, over restarts and new files, everybody reads the same report as if each
/// record had named them, and reads differ by as many people; and the records are smaller.
#[test]
fn a_reference_says_what_names_say() {
    for seed in 0..12 {
        let everybody = people(40);
        let dirs = [TempDir::new().unwrap(), TempDir::new().unwrap()];
        let ledgers = [0, 1].map(|_| Arc::new(MemoryLedger::new("example.org/log")));
        // Files of one record, of some, of all.
        let file_bytes_max = [1, 20_000, u64::MAX][seed as usize % 3];
        let mut dice = [Dice(seed), Dice(seed)];
        let mut reads = Vec::new();
        for _ in 0..3 {
            let audits = [0, 1].map(|at| open(dirs[at].path(), &ledgers[at], file_bytes_max));
            for _ in 0..12 {
                let numbers = [0, 1].map(|at| step(&audits[at], &mut dice[at], &everybody, at == 1));
                assert_eq!(numbers[0], numbers[1]);
                reads.push(numbers[0]);
            }
            for subject in &everybody {
                let [refers, names] = [0, 1].map(|at| audits[at].report(subject, Page::default()).unwrap());
                assert_eq!(refers, names, "seed {seed}");
                assert!(refers.missing.is_empty());
                assert!(refers.accesses.iter().zip(1..).all(|(access, number)| access.number == number));
            }
            for pair in reads.windows(2) {
                let [refers, names] = [0, 1].map(|at| audits[at].moved(pair[0], pair[1]).unwrap().unwrap());
                assert_eq!(refers, names, "seed {seed}");
            }
            assert!(audits[0].check().unwrap().is_empty());
        }
        if file_bytes_max == u64::MAX {
            let [refers, names] = [0, 1].map(|at| bytes(dirs[at].path()));
            assert!(refers * 4 < names * 3, "seed {seed}: {refers} of {names} bytes");
        }
    }
}

/// Guarantee: people who ask for the same cohort at once get records of their own, and nobody's numbers have a gap or a double.
#[test]
fn many_at_once() {
    let (dir, ledger) = (TempDir::new().unwrap(), Arc::new(MemoryLedger::new("example.org/log")));
    let everybody = people(40);
    let audit = open(dir.path(), &ledger, u64::MAX);
    std::thread::scope(|threads| {
        for thread in 0..8 {
            let (audit, everybody) = (&audit, &everybody);
            threads.spawn(move || {
                for turn in 0..10 {
                    let subjects = if (thread + turn) % 3 == 0 { &everybody[..20] } else { everybody };
                    let receipt = audit.intent(intent(scope(subjects, 1), Vec::new())).unwrap();
                    let rows = subjects.iter().map(|subject| (*subject, receipt.number() + 1)).collect();
                    let outcome = Outcome::Released;
                    audit
                        .complete(
                            &receipt,
                            Completion { outcome, rows, result_rows: 1, bytes: 1, ended_us: 5 },
                        )
                        .unwrap();
                }
            });
        }
    });
    let before: Vec<Report> =
        everybody.iter().map(|subject| audit.report(subject, Page::default()).unwrap()).collect();
    drop(audit);
    let audit = open(dir.path(), &ledger, u64::MAX);
    for (subject, before) in everybody.iter().zip(before) {
        let report = audit.report(subject, Page::default()).unwrap();
        assert_eq!(report, before);
        assert!(report.missing.is_empty());
        let numbers: Vec<u64> = report.accesses.iter().map(|access| access.number).collect();
        assert_eq!(numbers, (1..=report.newest).collect::<Vec<_>>());
        assert!(report.accesses.iter().all(|access| access.rows > Some(0)));
    }
}

/// Guarantee: of many who ask for the same people at once one names them, and the others, who waited for that, refer to it.
#[test]
fn people_are_named_once_by_all_who_wait() {
    const AT_ONCE: usize = 24;
    let everybody = people(200);
    let all: Arc<[Scope]> = scope(&everybody, 1).into();
    let named = {
        let (dir, ledger) = (TempDir::new().unwrap(), Arc::new(MemoryLedger::new("example.org/log")));
        let audit = open(dir.path(), &ledger, u64::MAX);
        audit.intent(intent(all.to_vec(), Vec::new())).unwrap();
        bytes(dir.path())
    };
    let (dir, ledger) = (TempDir::new().unwrap(), Arc::new(MemoryLedger::new("example.org/log")));
    let audit = open(dir.path(), &ledger, u64::MAX);
    let begin = std::sync::Barrier::new(AT_ONCE);
    std::thread::scope(|threads| {
        for _ in 0..AT_ONCE {
            threads.spawn(|| {
                let same = Intent { scope: Arc::clone(&all), ..intent(Vec::new(), Vec::new()) };
                begin.wait();
                audit.intent(same).unwrap();
            });
        }
    });
    let all_together = bytes(dir.path());
    assert!(all_together < 2 * named + AT_ONCE as u64 * 1_000, "{all_together} bytes, one of them {named}");
    assert!(audit.check().unwrap().is_empty());
}

/// Guarantee: a reference gives everybody the number it was made for, and spells out as few as can be where most go together.
#[test]
fn a_reference_gives_each_their_number() {
    let mut dice = Dice(3);
    for _ in 0..2_000 {
        let count = 1 + dice.below(40) as usize;
        let numbers: Vec<u64> = (0..count).map(|_| 1 + dice.below(9)).collect();
        let (plus, share) = (dice.below(5), 1 + dice.below(12));
        let next: Vec<u64> = numbers
            .iter()
            .map(|number| number + plus + if dice.below(share) == 0 { dice.below(3) } else { 0 })
            .collect();
        let like = Base { trails: Vec::new(), numbers: numbers.clone() }.like(7, &next);
        let given: Vec<u64> =
            numbers.iter().enumerate().map(|(place, number)| like.number(place, *number)).collect();
        assert_eq!(given, next);
        let differ = next.iter().zip(&numbers).filter(|(next, number)| *next - *number != plus).count();
        assert!(differ * 2 >= count || like.other.len() == differ, "{} for {differ}", like.other.len());
    }
}

/// Guarantee: where numbers have drifted apart, people are named anew.
#[test]
fn drifted_people_are_named_anew() {
    let (dir, ledger) = (TempDir::new().unwrap(), Arc::new(MemoryLedger::new("example.org/log")));
    let everybody = people(40);
    let audit = open(dir.path(), &ledger, u64::MAX);
    let ask = |subjects: &[Did]| {
        let before = bytes(dir.path());
        audit.intent(intent(scope(subjects, 1), Vec::new())).unwrap();
        bytes(dir.path()) - before
    };
    let named = ask(&everybody);
    assert!(ask(&everybody) * 3 < named);
    for _ in 0..2 {
        ask(&everybody[..20]);
    }
    // Twenty of forty differ now: spelled out once, then named again, then referred to.
    let (spelled, again, referred) = (ask(&everybody), ask(&everybody), ask(&everybody));
    assert!(
        spelled * 2 < named && again > named * 9 / 10 && referred * 3 < named,
        "{spelled} {again} {referred}"
    );
}

/// Guarantee: a reference to people who are not named in the file is an error, not a record of nobody.
#[test]
fn a_reference_to_nothing_is_an_error() {
    let asked = Asked::blank();
    let named = |scope, like| {
        Record::Intent(IntentRecord {
            asked: asked.clone(),
            scope,
            withheld: Vec::new(),
            log_size: 0,
            started_us: 0,
            repeat_until_us: None,
            like,
        })
    };
    let subjects = (0..PEOPLE_MIN).map(|number| (number.to_string(), 1)).collect();
    let scope = vec![record::ScopeRecord { signals: Vec::new(), from_us: None, to_us: None, subjects }];
    let like = Some(Like { record: 0, plus: 1, other: Vec::new() });
    let place = |file| Place { file, offset: 0, bytes: 0 };
    for (second, is_good) in [(1, true), (2, false)] {
        let mut index = Index::default();
        index.add(&named(scope.clone(), None), place(1)).unwrap();
        let added = index.add(&named(Vec::new(), like.clone()), place(second));
        assert_eq!(added.is_ok(), is_good);
        assert!(is_good || matches!(added, Err(AuditError::Dangling { record: 1, file: 2 })));
    }
}
