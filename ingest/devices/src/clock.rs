//! When a frame was measured: the device's clock where it can be believed, else its monotonic clock and an anchor.
//! Pure functions; arrival times come in as arguments. All results are finite for any input.

/// Wall clocks before this are clocks that were never set: 2000-01-01T00:00:00Z, microseconds.
pub const WALL_US_MIN: i64 = 946_684_800_000_000;
/// A wall clock may be ahead of arrival by this much, microseconds (10 minutes).
pub const AHEAD_US_MAX: i64 = 600_000_000;
/// A frame placed earlier than this before its arrival is `LATE`, microseconds (1 hour): a device that was out of reach
/// for a meal is not worth a remark, one whose data would change yesterday's report is.
pub const LATE_AFTER_US: i64 = 3_600_000_000;

/// One moment of a boot whose time is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Anchor {
    /// Time of the moment, microseconds since 1970 UTC.
    pub t0_us: i64,
    /// The device's monotonic clock at it, microseconds since boot.
    pub mono_us: u64,
    /// From a wall clock that could be believed; else from an arrival.
    pub is_measured: bool,
}

/// Where a frame was placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    /// Time of the frame's t0, microseconds since 1970 UTC.
    pub t0_us: i64,
    /// The wall clock was not used: code `CLOCK`, flag 1.
    pub is_corrected: bool,
    /// Flag 2.
    pub is_late: bool,
}

/// Places a frame: its wall clock if that is set, not before 2000 and at most ten minutes after arrival; else derived
/// from its monotonic clock and the boot's best anchor; without one, or where the derived time could not be believed
/// either, its arrival.
#[must_use]
pub fn place(wall_us: Option<i64>, mono_us: u64, received_us: i64, anchor: Option<Anchor>) -> Placed {
    let (t0_us, is_corrected) = match wall_us {
        Some(wall_us) if is_believable(wall_us, received_us) => (wall_us, false),
        _ => (derive(mono_us, received_us, anchor), true),
    };
    Placed { t0_us, is_corrected, is_late: t0_us < received_us.saturating_sub(LATE_AFTER_US) }
}

/// The better of the boot's anchor and what a placed frame teaches.
///
/// A measured anchor beats an arrival, and among measured ones the later in the boot wins (clocks get set, then drift).
/// Among arrivals the one with the shortest way wins: frames wait on the device, they never arrive early.
#[must_use]
pub fn learn(known: Option<Anchor>, placed: Placed, mono_us: u64, received_us: i64) -> Anchor {
    let t0_us = if placed.is_corrected { received_us } else { placed.t0_us };
    let fresh = Anchor { t0_us, mono_us, is_measured: !placed.is_corrected };
    let Some(known) = known else {
        return fresh;
    };
    let is_better = match (known.is_measured, fresh.is_measured) {
        (true, true) => fresh.mono_us >= known.mono_us,
        (false, false) => boot_us(fresh) < boot_us(known),
        (_, fresh_is_measured) => fresh_is_measured,
    };
    if is_better { fresh } else { known }
}

fn derive(mono_us: u64, received_us: i64, anchor: Option<Anchor>) -> i64 {
    let arrival = Anchor { t0_us: received_us, mono_us, is_measured: false };
    let best = match anchor {
        Some(known) if known.is_measured || boot_us(known) < boot_us(arrival) => known,
        _ => arrival,
    };
    match i64::try_from(boot_us(best) + i128::from(mono_us)) {
        Ok(t0_us) if is_believable(t0_us, received_us) => t0_us,
        _ => received_us,
    }
}

/// When the boot began, as this anchor has it.
fn boot_us(anchor: Anchor) -> i128 {
    i128::from(anchor.t0_us) - i128::from(anchor.mono_us)
}

fn is_believable(t0_us: i64, received_us: i64) -> bool {
    t0_us >= WALL_US_MIN && t0_us <= received_us.saturating_add(AHEAD_US_MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// 2026-01-01T00:00:00Z.
    const NOW: i64 = 1_767_225_600_000_000;

    fn measured(t0_us: i64, mono_us: u64) -> Option<Anchor> {
        Some(Anchor { t0_us, mono_us, is_measured: true })
    }

    fn check(wall_us: Option<i64>, mono_us: u64, anchor: Option<Anchor>, expected: (i64, bool, bool)) {
        let placed = place(wall_us, mono_us, NOW, anchor);
        let found = (placed.t0_us, placed.is_corrected, placed.is_late);
        assert_eq!(found, expected, "{wall_us:?} {mono_us} {anchor:?}");
    }

    // The contract's rule, at each of its edges: a set clock from 2000 on and up to ten minutes ahead is taken as it is.
    #[test]
    fn a_believable_wall_clock_is_kept() {
        check(Some(NOW), 5, None, (NOW, false, false));
        check(Some(NOW + AHEAD_US_MAX), 5, None, (NOW + AHEAD_US_MAX, false, false));
        check(Some(WALL_US_MIN), 5, None, (WALL_US_MIN, false, true));
        check(Some(NOW - LATE_AFTER_US), 5, None, (NOW - LATE_AFTER_US, false, false));
        check(Some(NOW - LATE_AFTER_US - 1), 5, None, (NOW - LATE_AFTER_US - 1, false, true));
    }

    // A clock that is null, in 1970, just before 2000, just over ten minutes ahead or in 2100 is derived and flagged.
    #[test]
    fn an_unbelievable_wall_clock_is_derived() {
        let anchor = measured(NOW - 60_000_000, 1_000_000);
        let expected = (NOW - 60_000_000 + 4_000_000, true, false);
        for wall_us in
            [None, Some(0), Some(-1), Some(WALL_US_MIN - 1), Some(NOW + AHEAD_US_MAX + 1), Some(i64::MAX)]
        {
            check(wall_us, 5_000_000, anchor, expected);
            check(wall_us, 5_000_000, None, (NOW, true, false));
        }
    }

    // Without a good frame the shortest way seen decides; a frame that waited on the device is placed back in time.
    #[test]
    fn arrivals_anchor_by_the_shortest_way() {
        let first = place(None, 10_000_000, NOW, None);
        let anchor = learn(None, first, 10_000_000, NOW);
        let waited = place(None, 4_000_000, NOW + 1_000_000, Some(anchor));
        assert_eq!(waited.t0_us, NOW - 6_000_000);
        assert_eq!(learn(Some(anchor), waited, 4_000_000, NOW + 1_000_000), anchor);
        let quicker = place(None, 13_000_000, NOW + 2_000_000, Some(anchor));
        assert_eq!(quicker.t0_us, NOW + 2_000_000);
    }

    // A good frame replaces an arrival as anchor, a later good frame an earlier one, never the other way round.
    #[test]
    fn the_best_anchor_stays() {
        let arrival = learn(None, place(None, 9, NOW, None), 9, NOW);
        let good = learn(Some(arrival), place(Some(NOW - 5), 10, NOW, None), 10, NOW);
        assert_eq!(Some(good), measured(NOW - 5, 10));
        assert_eq!(learn(Some(good), place(None, 11, NOW, Some(good)), 11, NOW), good);
        assert_eq!(learn(Some(good), place(Some(NOW - 9), 4, NOW, None), 4, NOW), good);
        let later = learn(Some(good), place(Some(NOW), 20, NOW, None), 20, NOW);
        assert_eq!(Some(later), measured(NOW, 20));
    }

    // A monotonic clock that leads nowhere believable gives the arrival, never a time in the far future or past.
    #[test]
    fn absurd_monotonic_clocks_fall_back_to_arrival() {
        check(None, u64::MAX, measured(NOW, 0), (NOW, true, false));
        check(None, 0, measured(NOW, u64::MAX), (NOW, true, false));
        check(None, 0, measured(i64::MIN, u64::MAX), (NOW, true, false));
    }

    proptest! {
        // Any input gives a finite answer, and a corrected time is never later than ten minutes after arrival.
        #[test]
        fn total(wall in any::<Option<i64>>(), mono in any::<u64>(), received in any::<i64>(),
                 anchor in any::<Option<(i64, u64, bool)>>()) {
            let anchor = anchor.map(|(t0_us, mono_us, is_measured)| Anchor { t0_us, mono_us, is_measured });
            let placed = place(wall, mono, received, anchor);
            prop_assert!(placed.t0_us <= received.saturating_add(AHEAD_US_MAX));
            prop_assert!(placed.is_corrected || wall == Some(placed.t0_us));
            let _ = learn(anchor, placed, mono, received);
        }
    }
}
