//! The budget of memory: what it may cost (look-ups) and what it may never cost (a wrong answer, another device's place).

use super::*;
use crate::fleet::SLOT_BYTES;

/// One page of slots, which is there with the first device.
const PAGE: usize = 1024 * SLOT_BYTES;

fn tiny(bytes_max: usize) -> Limits {
    Limits { bytes_max, ..Limits::default() }
}

/// Frames of one boot in one group each, so that the budget is kept between them.
fn send(windows: &mut Windows, asks: impl IntoIterator<Item = Ask>) {
    for ask in asks {
        let stored = |_, _, _| Ok::<_, Infallible>(None);
        assert!(matches!(windows.judge_with(&ask, stored), Ok(Standing::New(_))), "{ask:?}");
        windows.commit();
    }
}

fn of_device(device: u32, ask: Ask) -> Ask {
    Ask { device: DeviceNumber(device), ..ask }
}

// Under a budget that holds nothing but slots, the highest run and the last digest of each device's last boot stay: the
// next frame is decided here, an older one by the lake.
#[test]
fn the_ordinary_state_is_never_evicted() {
    let mut windows = Windows::new(tiny(0));
    for device in 0..50 {
        send(&mut windows, [0, 1, 2, 7, 8].map(|seq| of_device(device, ask(0, seq))));
    }
    for device in 0..50 {
        let at = |seq| of_device(device, ask(0, seq));
        assert_eq!(windows.judge_and_reserve(&at(8)), Standing::Dup);
        assert_eq!(windows.judge_and_reserve(&Ask { digest: [3; 16], ..at(8) }), Standing::Equivocation);
        assert_eq!(windows.judge_and_reserve(&at(9)), new(false, false, false));
        assert_eq!(windows.judge_and_reserve(&at(1)), Standing::NeedsLookup);
        // Missing and no longer known to be: the lake has it not, so it is taken, not refused.
        assert_eq!(windows.resolve(&at(4), None), new(false, false, false));
    }
    assert!(windows.memory().1 > 0);
}

// Digests go before anything else, those of devices that have fallen silent first.
#[test]
fn silent_devices_lose_their_digests_first() {
    let mut windows = Windows::new(tiny(PAGE + (24 << 10)));
    send(&mut windows, (0..60).map(|seq| of_device(0, ask(0, seq))));
    send(&mut windows, [0, 2].map(|seq| of_device(1, ask(0, seq))));
    // One pass cools everybody down; from then on device 0 is silent and others are not.
    let mut device = 2;
    while windows.judge_and_reserve(&of_device(0, ask(0, 50))) == Standing::Dup {
        send(&mut windows, (0..60).map(|seq| of_device(device, ask(0, seq))));
        device += 1;
        assert!(device < 100, "the budget is not kept");
    }
    let last = of_device(device - 1, ask(0, 40));
    assert_eq!(
        windows.judge_and_reserve(&last),
        Standing::Dup,
        "the device that sent last keeps its digests"
    );
    let gaps = windows.view(DeviceNumber(1)).map(|view| view.gaps.len());
    assert_eq!(gaps, Some(1), "runs are kept while there are digests to give up");
}

// An enrolled device that opens as many gaps and boots as it can pays itself: it cannot squeeze out what others need.
#[test]
fn a_greedy_device_pays_first() {
    let mut windows = Windows::new(tiny(PAGE + (256 << 10)));
    for device in 1..200 {
        send(&mut windows, [0, 2, 3].map(|seq| of_device(device, ask(0, seq))));
    }
    for boot in 0..200_u8 {
        send(&mut windows, (0..40).map(|seq| of_device(0, ask(boot, seq * 2))));
    }
    assert!(windows.memory().0 <= PAGE + (256 << 10) + 4_096, "{:?}", windows.memory());
    for device in 1..200 {
        let view = windows.view(DeviceNumber(device)).unwrap();
        assert_eq!((view.gaps.len(), view.gaps_closed), (1, 0), "device {device}");
    }
    let greedy = windows.view(DeviceNumber(0)).unwrap();
    assert!(greedy.boots_known < 200 && greedy.gaps_closed > 1_000, "{greedy:?}");
    assert_eq!(windows.judge_and_reserve(&of_device(0, ask(0, 0))), Standing::NeedsLookup);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    // With any budget, frames shuffled, doubled and full of gaps, restarts among them: every answer is the one of a model
    // that remembers everything, or the question for the lake that leads to it; and no gap is told that is none.
    #[test]
    fn equals_the_model_with_any_budget(ops in prop::collection::vec(op(), 1..200),
                                        slack in prop_oneof![Just(-1_i64), 0_i64..2_000]) {
        let bytes_max = if slack < 0 { 0 } else { PAGE + slack as usize };
        let limits = Limits { digests_per_boot: 4, runs_per_boot: 64, ..tiny(bytes_max) };
        run(&ops, limits, Exactness::Budget);
    }
}
