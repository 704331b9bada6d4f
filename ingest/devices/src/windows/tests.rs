//! The windows against a naive model that keeps everything, and rule by rule.

use std::collections::BTreeMap;
use std::convert::Infallible;

use proptest::prelude::*;

use super::*;

mod budget;
mod clocks;

const NAME: ShortId = ShortId([7; 8]);

fn digest(seq: u64, variant: u8) -> [u8; 16] {
    let mut digest = [variant.wrapping_add(1); 16];
    digest[..8].copy_from_slice(&seq.to_le_bytes());
    digest
}

/// A frame whose digest and `prev` follow the numbers; boot 0 begins with zeros.
fn ask(boot: u8, seq: u64) -> Ask {
    let boot_digest = |seq| digest(seq, boot.wrapping_mul(16));
    let prev = seq.checked_sub(1).map_or([0; 16], boot_digest);
    let (device, boot) = (DeviceNumber(0), BootId([boot; 8]));
    Ask { device, boot, seq, digest: boot_digest(seq), prev, is_revoked: false }
}

fn revoked(ask: Ask) -> Ask {
    Ask { is_revoked: true, ..ask }
}

fn new(gap: bool, broken: bool, compromised: bool) -> Standing {
    Standing::New(New { has_gap_before: gap, is_chain_broken: broken, is_compromised: compromised })
}

fn with(asks: &[Ask]) -> Windows {
    let mut windows = Windows::new(Limits::default());
    for ask in asks {
        assert!(matches!(windows.judge_and_reserve(ask), Standing::New(_)), "{ask:?}");
    }
    windows.commit();
    windows
}

// Exactly once: a frame is new the first time only, whether the first is durable or reserved; another payload under the
// same number is never DUP; after a rollback the frame is new again.
#[test]
fn once_only() {
    let mut windows = Windows::default();
    let other = Ask { digest: [9; 16], ..ask(0, 0) };
    assert_eq!(windows.judge_and_reserve(&ask(0, 0)), new(false, false, false));
    assert_eq!(windows.judge_and_reserve(&ask(0, 0)), Standing::Dup);
    assert_eq!(windows.judge_and_reserve(&other), Standing::Equivocation);
    assert_eq!(windows.report(DeviceNumber(0), NAME).acked_to, None);
    windows.rollback();
    assert_eq!(windows.judge_and_reserve(&other), new(false, false, false));
    windows.commit();
    assert_eq!(windows.judge_and_reserve(&ask(0, 0)), Standing::Equivocation);
    assert_eq!(windows.judge_and_reserve(&other), Standing::Dup);
    windows.rollback();
    assert_eq!(windows.judge_and_reserve(&other), Standing::Dup);
}

// A jump is a gap, not an error; the gap shows in the report until the late frame fills it.
#[test]
fn gaps_show_and_close() {
    let mut windows = with(&[ask(0, 0), ask(0, 1)]);
    assert_eq!(windows.judge_and_reserve(&ask(0, 4)), new(true, false, false));
    windows.commit();
    let report = windows.report(DeviceNumber(0), NAME);
    assert_eq!((report.acked_to, report.gaps), (Some((BootId([0; 8]), 4)), vec![(2, 3)]));
    assert_eq!(windows.judge_and_reserve(&ask(0, 3)), new(true, false, false));
    assert_eq!(windows.judge_and_reserve(&ask(0, 2)), new(false, false, false));
    windows.commit();
    assert!(windows.report(DeviceNumber(0), NAME).gaps.is_empty());
}

// A frame that does not fit the one before it, or the one after it, is kept with CHAIN.
#[test]
fn broken_chain_is_told() {
    let wrong = |seq| Ask { prev: [8; 16], ..ask(0, seq) };
    let mut windows = with(&[ask(0, 0), ask(0, 3)]);
    assert_eq!(windows.judge_and_reserve(&wrong(1)), new(false, true, false));
    let forged = Ask { digest: [8; 16], ..ask(0, 2) };
    assert_eq!(windows.judge_and_reserve(&forged), new(false, true, false));
    windows.rollback();
    // Where the frame before is missing nothing can be said.
    assert_eq!(windows.judge_and_reserve(&wrong(6)), new(true, false, false));
}

// At sequence number 0, prev is zeros or the last frame of a known boot; a device's first boot here proves nothing.
#[test]
fn chain_between_boots() {
    let first = |prev| Ask { prev, ..ask(1, 0) };
    assert_eq!(with(&[]).judge_and_reserve(&first([5; 16])), new(false, false, false));
    let old = [ask(0, 0), ask(0, 1)];
    assert_eq!(with(&old).judge_and_reserve(&first([0; 16])), new(false, false, false));
    assert_eq!(with(&old).judge_and_reserve(&first(ask(0, 1).digest)), new(false, false, false));
    assert_eq!(with(&old).judge_and_reserve(&first(ask(0, 0).digest)), new(false, true, false));
}

// After a revocation: what was stored is DUP; the direct successor of a frame from before is kept and flagged, but
// opens no door for the next; frames that a frame from before proves are kept, back through a whole gap.
#[test]
fn revoked_keys() {
    let mut windows = with(&[ask(0, 0), ask(0, 1), ask(0, 5)]);
    assert_eq!(windows.judge_and_reserve(&revoked(ask(0, 1))), Standing::Dup);
    assert_eq!(windows.judge_and_reserve(&revoked(ask(0, 3))), Standing::Revoked);
    assert_eq!(windows.judge_and_reserve(&revoked(ask(0, 4))), new(true, false, true));
    assert_eq!(windows.judge_and_reserve(&revoked(ask(0, 3))), new(true, false, true));
    let forged = Ask { prev: [1; 16], ..revoked(ask(0, 6)) };
    assert_eq!(windows.judge_and_reserve(&forged), Standing::Revoked);
    assert_eq!(windows.judge_and_reserve(&revoked(ask(0, 6))), new(false, false, true));
    assert_eq!(windows.judge_and_reserve(&revoked(ask(0, 7))), Standing::Revoked);
    windows.commit();
    assert_eq!(windows.judge_and_reserve(&revoked(ask(0, 7))), Standing::Revoked);
    assert_eq!(windows.judge_and_reserve(&revoked(ask(2, 0))), Standing::Revoked);
    let next_boot = Ask { prev: ask(0, 6).digest, ..revoked(ask(2, 0)) };
    assert_eq!(windows.judge_and_reserve(&next_boot), Standing::Revoked);
}

// A forged frame must not break in where a frame from before proves another one.
#[test]
fn a_thief_cannot_fill_a_gap() {
    let mut windows = with(&[ask(0, 0), ask(0, 3)]);
    let forged = Ask { digest: [8; 16], ..revoked(ask(0, 2)) };
    assert_eq!(windows.judge_and_reserve(&forged), Standing::Revoked);
}

// Old frames are decided by what is stored: same is DUP, other is EQUIVOCATION, nothing is SEQ_OLD.
#[test]
fn old_frames_are_looked_up() {
    let limits = Limits { digests_per_boot: 2, runs_per_boot: 2, ..Limits::default() };
    let mut windows = Windows::new(limits);
    for seq in [0, 2, 4, 6] {
        windows.judge_and_reserve(&ask(0, seq));
        windows.commit();
    }
    let first = ask(0, 0);
    assert_eq!(windows.judge_and_reserve(&first), Standing::NeedsLookup);
    assert_eq!(windows.resolve(&first, Some(first.digest)), Standing::Dup);
    assert_eq!(windows.resolve(&first, Some([1; 16])), Standing::Equivocation);
    // 1 was never stored and the floor has risen over it; 5 is still welcome.
    assert_eq!(windows.judge_with(&ask(0, 1), |_, _, _| Ok::<_, Infallible>(None)), Ok(Standing::SeqOld));
    assert_eq!(windows.judge_and_reserve(&ask(0, 5)), new(false, false, false));
    assert_eq!(windows.judge_with(&ask(0, 0), |_, _, _| Err("down")), Err("down"));
}

// A number that is durable here and gone from the store was erased: it does not come back.
#[test]
fn erased_frames_stay_away() {
    let limits = Limits { digests_per_boot: 1, ..Limits::default() };
    let mut windows = Windows::new(limits);
    windows.record(&ask(0, 0));
    windows.record(&ask(0, 1));
    assert_eq!(windows.judge_with(&ask(0, 0), |_, _, _| Ok::<_, Infallible>(None)), Ok(Standing::SeqOld));
}

// Boots are bounded: the longest unheard is forgotten, its frames are still told apart by look-up, new boots still work.
#[test]
fn boots_are_bounded() {
    let limits = Limits { boots_per_device: 3, ..Limits::default() };
    let mut windows = Windows::new(limits);
    let mut stored = BTreeMap::new();
    for boot in 0..9_u8 {
        for seq in 0..3 {
            let ask = ask(boot, seq);
            let look_up = |_, boot: BootId, seq| Ok::<_, Infallible>(stored.get(&(boot, seq)).copied());
            let standing = windows.judge_with(&ask, look_up).unwrap();
            assert!(matches!(standing, Standing::New(_)), "{ask:?} {standing:?}");
            windows.commit();
            stored.insert((ask.boot, seq), ask.digest);
        }
        assert!(windows.fleet.get(0).unwrap().boots().count() <= 3);
    }
    for (boot, seq) in [(0, 0), (0, 2), (5, 1), (8, 2)] {
        let look_up = |_, boot: BootId, seq| Ok::<_, Infallible>(stored.get(&(boot, seq)).copied());
        assert_eq!(windows.judge_with(&ask(boot, seq), look_up), Ok(Standing::Dup));
    }
    assert!(matches!(windows.judge_and_reserve(&ask(0, 3)), Standing::NeedsLookup));
}

// Only the boots last heard of keep their digests; the others keep the last, so that the chain into a new boot holds.
#[test]
fn older_boots_shrink() {
    let mut windows = with(&[ask(0, 0), ask(0, 1), ask(1, 0), ask(2, 0)]);
    windows.commit();
    assert_eq!(windows.judge_and_reserve(&ask(0, 0)), Standing::NeedsLookup);
    assert_eq!(windows.judge_and_reserve(&ask(0, 1)), Standing::Dup);
    let next = Ask { prev: ask(0, 1).digest, ..ask(3, 0) };
    assert_eq!(windows.judge_and_reserve(&next), new(false, false, false));
}

// A boot's frames are placed by the best anchor heard so far, each boot by its own.
#[test]
fn anchors_are_per_boot() {
    let now = 1_767_225_600_000_000;
    let mut windows = with(&[ask(0, 0), ask(1, 0)]);
    let mut place = |boot, wall, mono, received| {
        windows.place(DeviceNumber(0), BootId([boot; 8]), (wall, mono), received)
    };
    assert_eq!(place(0, Some(now - 500), 1_000, now).t0_us, now - 500);
    assert_eq!(place(0, None, 3_000, now + 9_000).t0_us, now + 1_500);
    assert_eq!(place(1, None, 3_000, now + 9_000).t0_us, now + 9_000);
    assert!(place(7, Some(0), 0, now).is_corrected);
}

/// What can happen.
#[derive(Debug, Clone)]
enum Op {
    Judge {
        device: u8,
        boot: u8,
        seq: u64,
        variant: u8,
        right_prev: bool,
    },
    Commit,
    Rollback,
    /// Everything durable comes back: this percent as ranges, the rest as frames.
    Restart(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let judge = (0_u8..2, 0_u8..4, 0_u64..14, 0_u8..10, any::<bool>()).prop_map(
        |(device, boot, seq, variant, right_prev)| Op::Judge {
            device,
            boot,
            seq,
            variant: variant.saturating_sub(7),
            right_prev,
        },
    );
    prop_oneof![12 => judge, 2 => Just(Op::Commit), 1 => Just(Op::Rollback), 1 => (0_usize..=100).prop_map(Op::Restart)]
}

type Key = (u32, [u8; 8], u64);

/// Keeps everything.
#[derive(Default)]
struct Model {
    durable: BTreeMap<Key, Ask>,
    order: Vec<Key>,
    open: BTreeMap<Key, Ask>,
    open_order: Vec<Key>,
}

impl Model {
    fn get(&self, device: u32, boot: [u8; 8], seq: u64) -> Option<&Ask> {
        let key = (device, boot, seq);
        self.durable.get(&key).or_else(|| self.open.get(&key))
    }

    fn expect(&self, ask: &Ask) -> Standing {
        let neighbour = |seq: Option<u64>| self.get(ask.device.0, ask.boot.0, seq?);
        match neighbour(Some(ask.seq)) {
            Some(known) if known.digest == ask.digest => return Standing::Dup,
            Some(_) => return Standing::Equivocation,
            None => {}
        }
        let before = neighbour(ask.seq.checked_sub(1));
        let after = neighbour(Some(ask.seq + 1));
        let is_broken =
            before.is_some_and(|b| b.digest != ask.prev) || after.is_some_and(|a| a.prev != ask.digest);
        new(ask.seq > 0 && before.is_none(), is_broken, false)
    }

    fn reserve(&mut self, ask: Ask) {
        let key = (ask.device.0, ask.boot.0, ask.seq);
        self.open.insert(key, ask);
        self.open_order.push(key);
    }

    fn commit(&mut self) {
        self.durable.append(&mut self.open);
        self.order.append(&mut self.open_order);
    }

    fn rollback(&mut self) {
        self.open.clear();
        self.open_order.clear();
    }

    fn restart(&self, limits: Limits, percent: usize) -> Windows {
        let mut windows = Windows::new(limits);
        let (batched, logged) = self.order.split_at(self.order.len() * percent / 100);
        for batch in batched.chunks(5) {
            let mut keys = batch.to_vec();
            keys.sort_unstable();
            for key in keys {
                let last_digest = self.durable[&key].digest;
                let (device, boot, first) = key;
                windows.restore(&DeviceRange { device, boot, first, last: first, last_digest });
            }
        }
        for key in logged {
            windows.record(&self.durable[key]);
        }
        windows
    }

    fn check_report(&self, windows: &Windows, device: u32) {
        let report = windows.report(DeviceNumber(device), NAME);
        let Some((boot, highest)) = report.acked_to else {
            assert!(!self.durable.keys().any(|key| key.0 == device));
            return;
        };
        let seqs: Vec<u64> =
            self.durable.keys().filter(|key| (key.0, key.1) == (device, boot.0)).map(|key| key.2).collect();
        assert_eq!(seqs.last(), Some(&highest));
        let missing: Vec<u64> = (0..highest).filter(|seq| !seqs.contains(seq)).collect();
        let told: Vec<u64> = report.gaps.iter().flat_map(|(first, last)| *first..=*last).collect();
        assert_eq!(told, missing);
    }

    fn check_no_false_gap(&self, windows: &Windows, device: u32) {
        let Some(view) = windows.view(DeviceNumber(device)) else { return };
        for gap in view.gaps {
            for seq in gap.first..=gap.last {
                assert!(!self.durable.contains_key(&(device, gap.boot.0, seq)), "{gap:?} has {seq}");
            }
        }
    }
}

/// What a run of operations is compared for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Exactness {
    /// Room for everything: answers and reports to the letter.
    All,
    /// Bounds per device: nothing wrong is told; reports only where boots are not given up.
    Bounds,
    /// A budget of memory: nothing wrong is told, in reports neither.
    Budget,
}

/// Whether an answer is the model's. With forgotten digests less of the chain and of gaps may be told, never more.
fn agrees(found: Standing, expected: Standing, exactness: Exactness) -> bool {
    match (found, expected) {
        (Standing::New(found), Standing::New(expected)) if exactness != Exactness::All => {
            (!found.is_chain_broken || expected.is_chain_broken)
                && (!found.has_gap_before || expected.has_gap_before)
        }
        _ => found == expected,
    }
}

fn run(ops: &[Op], limits: Limits, exactness: Exactness) {
    let mut windows = Windows::new(limits);
    let mut model = Model::default();
    for op in ops {
        match op {
            Op::Judge { device, boot, seq, variant, right_prev } => {
                let mut ask = ask(*boot, *seq);
                ask.device = DeviceNumber(u32::from(*device));
                ask.digest = digest(*seq, boot * 16 + variant);
                if !right_prev && *seq > 0 {
                    ask.prev = [99; 16];
                }
                let look_up = |device: DeviceNumber, boot: BootId, seq| {
                    Ok::<_, Infallible>(model.durable.get(&(device.0, boot.0, seq)).map(|known| known.digest))
                };
                let found = windows.judge_with(&ask, look_up).unwrap();
                let expected = model.expect(&ask);
                assert!(agrees(found, expected, exactness), "{ask:?}: {found:?}, expected {expected:?}");
                if matches!(found, Standing::New(_)) {
                    model.reserve(ask);
                }
            }
            Op::Commit => {
                windows.commit();
                model.commit();
            }
            Op::Rollback => {
                windows.rollback();
                model.rollback();
            }
            Op::Restart(percent) => {
                model.rollback();
                windows = model.restart(limits, *percent);
            }
        }
        if exactness == Exactness::Budget {
            (0..2).for_each(|device| model.check_no_false_gap(&windows, device));
        } else if limits.boots_per_device > 4 {
            (0..2).for_each(|device| model.check_report(&windows, device));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    // With room for everything and no restart from ranges, every answer is the model's, to the letter.
    #[test]
    fn equals_the_model(mut ops in prop::collection::vec(op(), 1..150)) {
        for op in &mut ops {
            if let Op::Restart(percent) = op {
                *percent = 0;
            }
        }
        let limits = Limits { boots_with_digests: 9, ..Limits::default() };
        run(&ops, limits, Exactness::All);
    }

    // With hardly any memory and restarts from ranges, a frame is still stored exactly once, and never a false alarm:
    // DUP, EQUIVOCATION and NEW are the model's.
    #[test]
    fn equals_the_model_with_little_memory(ops in prop::collection::vec(op(), 1..150),
                                           digests in 1_usize..4, with_digests in 1_usize..3, boots in 1_usize..9) {
        let limits = Limits {
            digests_per_boot: digests, boots_with_digests: with_digests, boots_per_device: boots, runs_per_boot: 64, ..Limits::default()
        };
        run(&ops, limits, Exactness::Bounds);
    }
}
