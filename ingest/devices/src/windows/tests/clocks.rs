//! Clocks as devices have them: off by hours or decades, jumping within a boot, backlogs of two weeks out of order.

use super::*;

/// 2026-03-01T00:00:00Z.
const NOW: i64 = 1_772_323_200_000_000;
const SECOND: i64 = 1_000_000;
const HOUR: i64 = 3_600 * SECOND;
const DAY: i64 = 24 * HOUR;

/// What a frame says of its time, and when it arrives.
#[derive(Debug, Clone, Copy)]
struct Reading {
    seq: u64,
    wall_us: Option<i64>,
    mono_us: u64,
    received_us: i64,
}

/// Sends frames of one boot and gives where each new one was placed.
fn send(windows: &mut Windows, readings: &[Reading]) -> BTreeMap<u64, Placed> {
    let mut placed = BTreeMap::new();
    for reading in readings {
        let ask = ask(0, reading.seq);
        windows.arrive(reading.received_us);
        if let Standing::New(_) = windows.judge_and_reserve(&ask) {
            let times = (reading.wall_us, reading.mono_us);
            placed.insert(reading.seq, windows.place(ask.device, ask.boot, times, reading.received_us));
            windows.commit();
        }
    }
    placed
}

fn times(windows: &Windows) -> crate::Times {
    windows.view(DeviceNumber(0)).unwrap().times.unwrap()
}

// A clock in 1970 or 2100 is kept in the frame, flagged, and corrected by the monotonic clock as soon as one frame of
// the boot had a believable one; the view says how far it is off.
#[test]
fn decades_off_is_corrected_by_the_anchor() {
    for wrong in [0, 4_102_444_800_000_000_i64] {
        let mut windows = Windows::default();
        let second = |n: i64| (n * SECOND) as u64;
        let good = Reading { seq: 0, wall_us: Some(NOW), mono_us: second(100), received_us: NOW + SECOND };
        let reset =
            Reading { seq: 1, wall_us: Some(wrong), mono_us: second(160), received_us: NOW + 2 * HOUR };
        let placed = send(&mut windows, &[good, reset]);
        assert!(!placed[&0].is_corrected);
        let expected = Placed { t0_us: NOW + 60 * SECOND, is_corrected: true, is_late: true };
        assert_eq!(placed[&1], expected);
        let times = times(&windows);
        assert_eq!(times.clock_offset_us, Some(wrong - (NOW + 2 * HOUR)));
        assert!(times.is_clock_corrected);
        assert_eq!(times.last_measured_us, Some(NOW + 60 * SECOND));
        assert_eq!(times.last_arrival_us, NOW + 2 * HOUR);
    }
}

// A clock hours behind cannot be told from a frame that waited: it is kept as it is, its offset shows. Hours ahead
// cannot be: it is corrected.
#[test]
fn hours_off_shows_in_the_offset() {
    let mut windows = Windows::default();
    let behind = Reading { seq: 0, wall_us: Some(NOW - 5 * HOUR), mono_us: 0, received_us: NOW };
    let placed = send(&mut windows, &[behind]);
    assert_eq!((placed[&0].t0_us, placed[&0].is_corrected), (NOW - 5 * HOUR, false));
    assert_eq!(times(&windows).clock_offset_us, Some(-5 * HOUR));
    let ahead = Reading { seq: 1, wall_us: Some(NOW + 5 * HOUR), mono_us: 60_000_000, received_us: NOW + 9 };
    let placed = send(&mut windows, &[ahead]);
    assert_eq!((placed[&1].t0_us, placed[&1].is_corrected), (NOW - 5 * HOUR + 60 * SECOND, true));
    assert_eq!(times(&windows).clock_offset_us, Some(5 * HOUR - 9));
}

// A wall clock that is set within a boot (never set, then set by the phone) is used from then on; frames from before
// that arrive later are placed by it.
#[test]
fn a_jump_within_a_boot_serves_the_late_ones() {
    let mut windows = Windows::default();
    let at = |seq: u64, wall_us, minute: u64, received_us| Reading {
        seq,
        wall_us,
        mono_us: minute * 60_000_000,
        received_us,
    };
    let unset = Some(12 * HOUR);
    let placed = send(
        &mut windows,
        &[
            at(0, unset, 0, NOW),
            at(2, Some(NOW + 2 * 60 * SECOND), 2, NOW + 2 * 60 * SECOND + 7),
            at(1, unset, 1, NOW + DAY),
            at(3, unset, 3, NOW + DAY),
        ],
    );
    assert_eq!((placed[&0].t0_us, placed[&0].is_corrected), (NOW, true));
    assert_eq!((placed[&2].t0_us, placed[&2].is_corrected), (NOW + 120 * SECOND, false));
    assert_eq!((placed[&1].t0_us, placed[&1].is_corrected), (NOW + 60 * SECOND, true));
    assert_eq!((placed[&3].t0_us, placed[&3].is_corrected), (NOW + 180 * SECOND, true));
}

// Latest is latest measured: a backlog that arrives last does not move it back, and an arrival is no measurement.
#[test]
fn latest_is_latest_measured() {
    let mut windows = Windows::default();
    let fresh = Reading { seq: 9, wall_us: Some(NOW), mono_us: 9, received_us: NOW + 1 };
    let old = Reading { seq: 0, wall_us: Some(NOW - 14 * DAY), mono_us: 0, received_us: NOW + HOUR };
    send(&mut windows, &[fresh, old]);
    assert_eq!(times(&windows).last_measured_us, Some(NOW));
    assert_eq!(times(&windows).last_arrival_us, NOW + HOUR);
    let mut windows = Windows::default();
    send(&mut windows, &[Reading { wall_us: None, ..fresh }]);
    assert_eq!(times(&windows).last_measured_us, None);
}

/// Two weeks, a frame each five minutes; every seventh frame has no wall clock.
fn backlog() -> Vec<Reading> {
    let frames = 14 * DAY / (300 * SECOND);
    let begin = NOW - 14 * DAY;
    let reading = |n: i64| {
        let measured_us = begin + n * 300 * SECOND;
        let wall_us = (n % 7 != 3).then_some(measured_us);
        Reading { seq: n as u64, wall_us, mono_us: (n * 300 * SECOND) as u64, received_us: NOW }
    };
    (0..frames).map(reading).collect()
}

/// A permutation from a seed, with every twentieth frame sent twice.
fn shuffled(mut readings: Vec<Reading>, seed: u64) -> Vec<Reading> {
    let twice: Vec<Reading> =
        readings.iter().copied().filter(|reading| reading.seq % 20 == seed % 20).collect();
    readings.extend(twice);
    let mut state = seed | 1;
    for index in (1..readings.len()).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        readings.swap(index, (state >> 33) as usize % (index + 1));
    }
    readings
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    // Two weeks of backlog in any order, 5 % of it twice: every frame is stored once, is placed as in order wherever its
    // wall clock is believable, is never placed after its arrival otherwise, and no gap is left.
    #[test]
    fn a_shuffled_backlog_is_placed_as_in_order(seed in any::<u64>()) {
        let mut in_order = Windows::default();
        let expected = send(&mut in_order, &backlog());
        let mut windows = Windows::new(Limits { runs_per_boot: 8_192, ..Limits::default() });
        let sent = shuffled(backlog(), seed);
        prop_assert!(sent.len() > backlog().len());
        let mut stored = BTreeMap::new();
        for reading in &sent {
            let ask = ask(0, reading.seq);
            windows.arrive(reading.received_us);
            let look_up = |_, _, seq| Ok::<_, Infallible>(stored.get(&seq).map(|_| digest(seq, 0)));
            match windows.judge_with(&ask, look_up).unwrap() {
                Standing::New(_) => {
                    let times = (reading.wall_us, reading.mono_us);
                    let placed = windows.place(ask.device, ask.boot, times, reading.received_us);
                    prop_assert!(stored.insert(reading.seq, placed).is_none());
                    windows.commit();
                }
                standing => prop_assert_eq!(standing, Standing::Dup),
            }
        }
        prop_assert_eq!(stored.len(), backlog().len());
        for reading in backlog() {
            let (placed, in_order) = (stored[&reading.seq], expected[&reading.seq]);
            if reading.wall_us.is_some() {
                prop_assert_eq!(placed, in_order);
            } else {
                prop_assert!(placed.is_corrected && placed.t0_us <= reading.received_us);
            }
        }
        let view = windows.view(DeviceNumber(0)).unwrap();
        prop_assert_eq!((view.gaps.len(), view.gaps_closed), (0, 0));
        prop_assert!(view.gaps_filled > 0);
        prop_assert_eq!(view.times.unwrap().last_measured_us, Some(NOW - 300 * SECOND));
    }
}
