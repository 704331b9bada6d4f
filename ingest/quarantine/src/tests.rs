//! What must hold whatever is sent and whenever the machine stops.

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use schemas_frame::Code;

use super::*;

const NOW: i64 = 1_772_323_200_000_000;
const ALL: Filter = Filter { reason: None, device: None, count_max: usize::MAX, bytes_max: usize::MAX };

fn small() -> Budgets {
    Budgets { equivocation: 4_096, key_revoked: 4_096, sig_bad: 4_096, key_unknown: 8_192, decode: 1_024 }
}

fn frame(n: u32) -> Vec<u8> {
    let mut frame = vec![7; 100];
    frame[..4].copy_from_slice(&n.to_le_bytes());
    frame
}

fn keep(store: &mut Quarantine, reason: Reason, n: u32) -> Outcome {
    let (received_us, frame) = (NOW + i64::from(n) * 1_000_000, frame(n));
    store.keep(&Item { reason, received_us, door: "http", frame: &frame }).unwrap()
}

fn kept(directory: &Path, reason: Reason) -> Vec<u32> {
    let (entries, more) = list(directory, &Filter { reason: Some(reason), ..ALL }).unwrap();
    assert!(!more);
    let number = |entry: &Entry| u32::from_le_bytes(entry.frame[..4].try_into().unwrap());
    entries.iter().map(number).collect()
}

fn disk_bytes(directory: &Path) -> u64 {
    fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
}

// A flood of frames that anybody can send keeps to its own budget, its oldest go, and evidence is not touched.
#[test]
fn a_flood_keeps_its_bounds() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = Quarantine::open(directory.path(), small()).unwrap();
    assert_eq!(keep(&mut store, Reason::Equivocation, 1), Outcome::Kept);
    for n in 0..5_000 {
        assert_eq!(keep(&mut store, Reason::KeyUnknown, n), Outcome::Kept);
        store.flush().unwrap();
        assert!(store.usage(Reason::KeyUnknown).0 <= small().key_unknown);
    }
    assert_eq!(kept(directory.path(), Reason::Equivocation), [1]);
    let left = kept(directory.path(), Reason::KeyUnknown);
    assert!(left.len() > 40 && left.last() == Some(&4_999) && left.is_sorted(), "{left:?}");
    assert!(store.usage(Reason::KeyUnknown).1 > 0);
    assert!(disk_bytes(directory.path()) <= small().key_unknown + small().equivocation);
    let reopened = Quarantine::open(directory.path(), small()).unwrap();
    assert_eq!(reopened.usage(Reason::KeyUnknown).0, store.usage(Reason::KeyUnknown).0);
}

// A flood within one instant is cut by rate: it must not take the disk from those that matter.
#[test]
fn a_flood_is_slowed_down() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = Quarantine::open(directory.path(), Budgets::default()).unwrap();
    let send = |store: &mut Quarantine, reason, n: u32, received_us| {
        let mut frame = vec![1; 60_000];
        frame[..4].copy_from_slice(&n.to_le_bytes());
        store.keep(&Item { reason, received_us, door: "mqtt", frame: &frame }).unwrap()
    };
    let burst = (0..1_000).filter(|n| send(&mut store, Reason::SigBad, *n, NOW) == Outcome::Kept).count();
    assert!((50..80).contains(&burst), "{burst}");
    assert_eq!(send(&mut store, Reason::SigBad, 1_001, NOW + 100_000), Outcome::Kept);
    assert_eq!(send(&mut store, Reason::Equivocation, 1, NOW), Outcome::Kept);
}

// Evidence never makes room: when its budget is full the caller is told, and what is there stays.
#[test]
fn evidence_stays() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = Quarantine::open(directory.path(), small()).unwrap();
    let outcomes: Vec<_> = (0..60).map(|n| keep(&mut store, Reason::Equivocation, n)).collect();
    store.flush().unwrap();
    let count = outcomes.iter().filter(|outcome| **outcome == Outcome::Kept).count();
    assert_eq!(count, 32);
    assert!(outcomes[count..].iter().all(|outcome| *outcome == Outcome::Full));
    assert_eq!(kept(directory.path(), Reason::Equivocation), (0..32).collect::<Vec<_>>());
}

// The same bytes are kept once, after a restart too: a device that repeats itself fills nothing.
#[test]
fn repetitions_are_kept_once() {
    let directory = tempfile::tempdir().unwrap();
    for round in 0..3 {
        let mut store = Quarantine::open(directory.path(), small()).unwrap();
        let expected = if round == 0 { Outcome::Kept } else { Outcome::Repeated };
        assert_eq!(keep(&mut store, Reason::Equivocation, 5), expected);
        assert_eq!(keep(&mut store, Reason::Equivocation, 5), Outcome::Repeated);
        store.flush().unwrap();
    }
    assert_eq!(kept(directory.path(), Reason::Equivocation), [5]);
}

// What was accepted is gone from the list for good, the rest stays; marking twice does no harm.
#[test]
fn marked_frames_leave() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = Quarantine::open(directory.path(), small()).unwrap();
    for n in 0..6 {
        keep(&mut store, Reason::KeyUnknown, n);
        store.flush().unwrap();
    }
    let (entries, _) = list(directory.path(), &ALL).unwrap();
    let accepted: Vec<_> = entries.iter().step_by(2).map(|entry| (entry.id, Code::Ok)).collect();
    store.mark(&accepted, NOW).unwrap();
    store.mark(&accepted, NOW).unwrap();
    assert_eq!(kept(directory.path(), Reason::KeyUnknown), [1, 3, 5]);
    drop(store);
    Quarantine::open(directory.path(), small()).unwrap();
    assert_eq!(kept(directory.path(), Reason::KeyUnknown), [1, 3, 5]);
    let id = entries[1].id;
    assert_eq!(id.to_string().parse(), Ok(id));
    assert_eq!("key-unknown-1".parse::<RecordId>(), Err(NotAnId));
}

// A limit on frames or bytes is kept, and says that there is more.
#[test]
fn lists_are_bounded() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = Quarantine::open(directory.path(), small()).unwrap();
    (0..9).for_each(|n| {
        keep(&mut store, Reason::SigBad, n);
    });
    store.flush().unwrap();
    let (entries, more) = list(directory.path(), &Filter { count_max: 4, ..ALL }).unwrap();
    assert_eq!((entries.len(), more), (4, true));
    let (entries, more) = list(directory.path(), &Filter { bytes_max: 250, ..ALL }).unwrap();
    assert_eq!((entries.len(), more), (2, true));
    assert_eq!(entries[0].door, "http");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    // Cut anywhere, as a crash in the middle of a write does, a segment keeps every record before the cut, and goes on
    // from there.
    #[test]
    fn a_torn_tail_is_cut(count in 1_u32..20, cut in any::<prop::sample::Index>()) {
        let directory = tempfile::tempdir().unwrap();
        let mut store = Quarantine::open(directory.path(), Budgets::default()).unwrap();
        for n in 0..count {
            keep(&mut store, Reason::KeyRevoked, n);
        }
        store.flush().unwrap();
        drop(store);
        let path = directory.path().join(Reason::KeyRevoked.file_name(1));
        let bytes = fs::read(&path).unwrap();
        let len = cut.index(bytes.len() + 1);
        fs::write(&path, &bytes[..len]).unwrap();
        let mut store = Quarantine::open(directory.path(), Budgets::default()).unwrap();
        keep(&mut store, Reason::KeyRevoked, 999);
        store.flush().unwrap();
        let whole = (len / (RECORD_BYTES + 100)) as u32;
        let expected: Vec<u32> = (0..whole).chain([999]).collect();
        prop_assert_eq!(kept(directory.path(), Reason::KeyRevoked), expected);
    }

    // Any bytes at all are records or an end.
    #[test]
    fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut records = Records::new(&bytes);
        let count = records.by_ref().count();
        prop_assert!(records.position() <= bytes.len() && count * RECORD_BYTES <= bytes.len());
    }
}
