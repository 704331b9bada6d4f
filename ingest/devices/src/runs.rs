//! The durable sequence numbers of one boot as runs, and what is missing between them: the gap ledger.
//!
//! A gap is the stretch right below a run, so the ledger needs no memory of its own and can never disagree with what is
//! stored. Each run carries what is known of the gap below it: open since when, closed (given up after
//! [`GAP_GIVEN_UP_AFTER_US`]), or unknown (only the lake can tell). It knows no boot, no device and no bound on memory.
//!
//! Counting: a gap *opens* when a frame arrives beyond it, or when a frame splits an open one in two; it is *filled* when
//! its last missing frame arrives; it is *closed* when it is given up. So per device opened = open + filled + closed, where
//! a closed gap that is filled after all moves from closed to filled.

/// A gap that is older than this by arrival is closed, microseconds (14 days): devices keep frames that long.
pub const GAP_GIVEN_UP_AFTER_US: i64 = 14 * 24 * 3_600 * 1_000_000;

/// What is known of the missing numbers right below a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gap(i64);

impl Gap {
    /// Whether anything is missing there only the lake can tell.
    pub(crate) const UNKNOWN: Gap = Gap(i64::MIN);
    /// Given up; the device may still fill it.
    pub(crate) const CLOSED: Gap = Gap(i64::MIN + 1);

    /// Known since this arrival, microseconds since 1970 UTC.
    pub(crate) fn open(since_us: i64) -> Gap {
        Gap(since_us.max(i64::MIN + 2))
    }

    /// Since when it is open.
    pub(crate) fn since_us(self) -> Option<i64> {
        (self != Gap::UNKNOWN && self != Gap::CLOSED).then_some(self.0)
    }
}

/// What happened to gaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Tally {
    pub(crate) opened: u32,
    pub(crate) filled: u32,
    pub(crate) closed: u32,
    /// Filled after they had been closed; counted as filled too.
    pub(crate) reopened: u32,
}

impl Tally {
    fn fill(&mut self, gap: Gap) {
        if gap != Gap::UNKNOWN {
            self.filled += 1;
        }
        if gap == Gap::CLOSED {
            self.reopened += 1;
        }
    }

    fn split(&mut self, gap: Gap) {
        if gap != Gap::UNKNOWN {
            self.opened += 1;
        }
        if gap == Gap::CLOSED {
            self.closed += 1;
        }
    }

    fn close(&mut self, gap: Gap) {
        if gap.since_us().is_some() {
            self.closed += 1;
        }
    }
}

/// Durable numbers `first..=last`, and the gap right below `first`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) gap: Gap,
}

/// Where a boot's numbers begin to be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Floor {
    /// Below this numbers were given up: they are stored or refused.
    pub(crate) given_up: u64,
    /// Below this, outside the runs, only the lake knows; `u64::MAX` where that holds for the whole boot.
    pub(crate) unsure: u64,
}

/// Marks `first..=last` durable in rising, never touching runs.
pub(crate) fn add(runs: &mut Vec<Run>, floor: Floor, range: (u64, u64), now_us: i64, tally: &mut Tally) {
    let (first, last) = (range.0.max(floor.given_up), range.1);
    if last < first {
        return;
    }
    let start = runs.partition_point(|run| run.last.saturating_add(1) < first);
    let stop = runs.partition_point(|run| run.first <= last.saturating_add(1)).max(start);
    let below = start.checked_sub(1).and_then(|index| runs.get(index));
    let lowest = below.map_or(floor.given_up, |run| run.last.saturating_add(1));
    if start == stop {
        let gap = gap_below(runs.get(start).map(|above| above.gap), lowest, first, (floor, now_us), tally);
        runs.insert(start, Run { first, last, gap });
        return;
    }
    let touched = runs.get(start..stop).unwrap_or_default();
    let mut merged = Run { first, last, gap: Gap::UNKNOWN };
    for (index, run) in touched.iter().enumerate() {
        if index == 0 {
            merged.gap = run.gap;
            // The numbers right below the run came down to the ones known before.
            if first < run.first && first == lowest {
                tally.fill(run.gap);
            }
        } else {
            tally.fill(run.gap);
        }
        merged.first = merged.first.min(run.first);
        merged.last = merged.last.max(run.last);
    }
    runs.splice(start..stop, [merged]);
}

/// The gap below a run that touches no other: a part of the one that it splits, or a new one.
fn gap_below(above: Option<Gap>, lowest: u64, first: u64, now: (Floor, i64), tally: &mut Tally) -> Gap {
    let (floor, now_us) = now;
    match above {
        _ if first == lowest => Gap::UNKNOWN,
        Some(gap) => {
            tally.split(gap);
            gap
        }
        None if lowest < floor.unsure => Gap::UNKNOWN,
        None => {
            tally.opened += 1;
            Gap::open(now_us)
        }
    }
}

/// Gives up the lowest runs beyond `runs_max`; numbers below them are stored or refused from now on.
pub(crate) fn bound(runs: &mut Vec<Run>, floor: &mut Floor, runs_max: usize, tally: &mut Tally) {
    while runs.len() > runs_max.max(1) {
        let lowest = runs.remove(0);
        if lowest.first > floor.given_up {
            tally.close(lowest.gap);
        }
        floor.given_up = floor.given_up.max(lowest.last.saturating_add(1));
    }
}

/// Forgets all runs but the highest: only the lake knows what is below it, and the device may still send that.
pub(crate) fn forget_lower(runs: &mut Vec<Run>, floor: &mut Floor, tally: &mut Tally) {
    close_all(runs, *floor, tally);
    if let Some(mut highest) = runs.pop() {
        floor.unsure = floor.unsure.max(highest.first);
        highest.gap = Gap::UNKNOWN;
        *runs = vec![highest];
    }
}

/// Counts every open gap as closed, for runs that are about to go.
pub(crate) fn close_all(runs: &[Run], floor: Floor, tally: &mut Tally) {
    for (_, _, gap) in gaps(runs, floor) {
        tally.close(gap);
    }
}

/// Closes the gaps that are older than the limit.
pub(crate) fn close_old(runs: &mut [Run], floor: Floor, now_us: i64, tally: &mut Tally) {
    let mut lowest = floor.given_up;
    for run in runs {
        let is_gap = run.first > lowest;
        lowest = run.last.saturating_add(1);
        let Some(since_us) = run.gap.since_us() else { continue };
        if is_gap && now_us.saturating_sub(since_us) > GAP_GIVEN_UP_AFTER_US {
            tally.close(run.gap);
            run.gap = Gap::CLOSED;
        }
    }
}

/// Missing stretches, lowest first, with what is known of each.
pub(crate) fn gaps(runs: &[Run], floor: Floor) -> impl Iterator<Item = (u64, u64, Gap)> {
    let mut lowest = floor.given_up;
    runs.iter().filter_map(move |run| {
        let from = lowest;
        lowest = run.last.saturating_add(1);
        (run.first > from).then(|| (from, run.first - 1, run.gap))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn build(adds: &[(u64, u64)], runs_max: usize) -> (Vec<(u64, u64)>, u64) {
        let (mut runs, mut floor, mut tally) = (Vec::new(), Floor::default(), Tally::default());
        for range in adds {
            add(&mut runs, floor, *range, 0, &mut tally);
            bound(&mut runs, &mut floor, runs_max, &mut tally);
        }
        (runs.iter().map(|run| (run.first, run.last)).collect(), floor.given_up)
    }

    // Runs stay disjoint, sorted and merged however they arrive, at both ends of the numbers too.
    #[test]
    fn runs_merge() {
        assert_eq!(build(&[(5, 5), (3, 3), (4, 4)], 9).0, [(3, 5)]);
        assert_eq!(build(&[(0, 0), (2, 2), (9, 9), (1, 8)], 9).0, [(0, 9)]);
        assert_eq!(build(&[(7, 7), (0, 1), (3, 4)], 9).0, [(0, 1), (3, 4), (7, 7)]);
        assert_eq!(build(&[(2, 3), (2, 3), (1, 9)], 9).0, [(1, 9)]);
        assert_eq!(
            build(&[(u64::MAX, u64::MAX), (u64::MAX - 1, u64::MAX - 1)], 9).0,
            [(u64::MAX - 1, u64::MAX)]
        );
    }

    // Too many gaps: the oldest run is given up, the floor rises over it and nothing else is forgotten.
    #[test]
    fn the_floor_rises() {
        assert_eq!(build(&[(0, 0), (2, 2), (4, 4)], 2), (vec![(2, 2), (4, 4)], 1));
        assert_eq!(build(&[(6, 6), (8, 8), (1, 2)], 2), (vec![(6, 6), (8, 8)], 3));
        assert_eq!(build(&[(6, 6), (8, 8), (1, 2), (0, 1)], 2), (vec![(6, 6), (8, 8)], 3));
    }

    fn ledger(adds: &[u64]) -> (Vec<(u64, u64, Option<i64>)>, Tally) {
        let (mut runs, floor, mut tally) = (Vec::new(), Floor::default(), Tally::default());
        for (now_us, seq) in adds.iter().enumerate() {
            add(&mut runs, floor, (*seq, *seq), now_us as i64, &mut tally);
        }
        let open = gaps(&runs, floor).map(|(first, last, gap)| (first, last, gap.since_us())).collect();
        (open, tally)
    }

    // A gap is known since the frame beyond it arrived, keeps that time when it shrinks or is split, and is filled when
    // its last number arrives.
    #[test]
    fn gaps_keep_their_beginning() {
        let tally = |opened, filled| Tally { opened, filled, ..Tally::default() };
        assert_eq!(ledger(&[0, 1, 5]), (vec![(2, 4, Some(2))], tally(1, 0)));
        assert_eq!(ledger(&[0, 5, 3]), (vec![(1, 2, Some(1)), (4, 4, Some(1))], tally(2, 0)));
        assert_eq!(ledger(&[0, 5, 1, 4]), (vec![(2, 3, Some(1))], tally(1, 0)));
        assert_eq!(ledger(&[0, 3, 2, 1]), (vec![], tally(1, 1)));
        assert_eq!(ledger(&[2]), (vec![(0, 1, Some(0))], tally(1, 0)));
        assert_eq!(ledger(&[2, 0, 1]), (vec![], tally(1, 1)));
        assert_eq!(ledger(&[2, 1, 0]), (vec![], tally(1, 1)));
    }

    // Fourteen days after it was seen a gap is closed; the device may still fill it, and then it counts as filled.
    #[test]
    fn old_gaps_close_and_may_still_be_filled() {
        let (mut runs, floor, mut tally) = (Vec::new(), Floor::default(), Tally::default());
        for (seq, now_us) in [(0, 0), (3, 10), (5, 20)] {
            add(&mut runs, floor, (seq, seq), now_us, &mut tally);
        }
        close_old(&mut runs, floor, 10 + GAP_GIVEN_UP_AFTER_US, &mut tally);
        assert_eq!(tally.closed, 0);
        close_old(&mut runs, floor, 11 + GAP_GIVEN_UP_AFTER_US, &mut tally);
        assert_eq!(gaps(&runs, floor).map(|gap| gap.2).collect::<Vec<_>>(), [Gap::CLOSED, Gap::open(20)]);
        assert_eq!(tally, Tally { opened: 2, closed: 1, ..Tally::default() });
        add(&mut runs, floor, (1, 2), 99, &mut tally);
        assert_eq!(tally, Tally { opened: 2, closed: 1, filled: 1, reopened: 1 });
        assert_eq!(gaps(&runs, floor).collect::<Vec<_>>(), [(4, 4, Gap::open(20))]);
    }

    proptest! {
        // However frames come, gaps are exactly what is missing, and opened = open + filled + closed.
        #[test]
        fn the_ledger_balances(seqs in prop::collection::vec(0_u64..40, 1..60), runs_max in 1_usize..12) {
            let (mut runs, mut floor, mut tally) = (Vec::new(), Floor::default(), Tally::default());
            let mut stored = std::collections::BTreeSet::new();
            for (now_us, seq) in seqs.iter().enumerate() {
                if *seq >= floor.given_up {
                    stored.insert(*seq);
                }
                add(&mut runs, floor, (*seq, *seq), now_us as i64, &mut tally);
                bound(&mut runs, &mut floor, runs_max, &mut tally);
                let open: Vec<_> = gaps(&runs, floor).collect();
                let told: Vec<u64> = open.iter().flat_map(|(first, last, _)| *first..=*last).collect();
                let highest = runs.last().map_or(0, |run| run.last);
                let missing: Vec<u64> = (floor.given_up..highest).filter(|seq| !stored.contains(seq)).collect();
                prop_assert_eq!(told, missing);
                prop_assert_eq!(tally.opened, open.len() as u32 + tally.filled + tally.closed - tally.reopened);
            }
        }
    }
}
