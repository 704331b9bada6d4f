//! The sequence numbers of one boot of one device: what is durable, what is reserved, what can still be compared.
//! It knows one boot only; devices, other boots and limits on them are `windows`.

use crate::clock::Anchor;

/// First 16 bytes of a frame's BLAKE3, as `prev` has it.
pub(crate) type Digest = [u8; 16];

/// A frame that can still be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) seq: u64,
    pub(crate) digest: Digest,
    /// Absent where only the stored ranges told of the frame.
    pub(crate) prev: Option<Digest>,
    /// Accepted while its key was good, or proven older by such a frame.
    pub(crate) is_vouched: bool,
}

/// What is known about one sequence number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    /// Not stored, not reserved.
    New,
    /// Stored or reserved, and here is its frame.
    Seen(Seen),
    /// Stored, but too long ago to be compared here.
    Stored,
    /// Below everything kept here: stored or not.
    Below,
}

/// One boot.
#[derive(Debug, Clone)]
pub(crate) struct Boot {
    pub(crate) id: [u8; 8],
    /// Durable sequence numbers: inclusive runs, rising, never touching.
    runs: Vec<(u64, u64)>,
    /// Below this the runs were given up; only the lake knows.
    floor: u64,
    /// Durable frames that can be compared, by rising sequence number.
    seen: Vec<Seen>,
    /// Reserved frames, by rising sequence number.
    reserved: Vec<Seen>,
    /// Nothing is known here but what arrived since: earlier frames of this boot may be stored.
    pub(crate) is_partial: bool,
    pub(crate) anchor: Option<Anchor>,
}

impl Boot {
    pub(crate) fn new(id: [u8; 8], is_partial: bool) -> Boot {
        let (runs, seen, reserved) = (Vec::new(), Vec::new(), Vec::new());
        Boot { id, runs, floor: 0, seen, reserved, is_partial, anchor: None }
    }

    /// Nothing durable and nothing reserved.
    pub(crate) fn is_empty(&self) -> bool {
        self.runs.is_empty() && self.reserved.is_empty() && self.floor == 0
    }

    pub(crate) fn has_reserved(&self) -> bool {
        !self.reserved.is_empty()
    }

    pub(crate) fn look_up(&self, seq: u64) -> Known {
        if let Some(seen) = self.find(seq) {
            return Known::Seen(seen);
        }
        if seq < self.floor {
            return Known::Below;
        }
        let after = self.runs.partition_point(|(first, _)| *first <= seq);
        match after.checked_sub(1).and_then(|index| self.runs.get(index)) {
            Some((_, last)) if seq <= *last => Known::Stored,
            _ => Known::New,
        }
    }

    /// The frame with this number, durable or reserved, if it can still be compared.
    pub(crate) fn find(&self, seq: u64) -> Option<Seen> {
        find(&self.seen, seq).or_else(|| find(&self.reserved, seq))
    }

    /// The last frame of the boot, durable or reserved, if it can still be compared.
    pub(crate) fn last(&self) -> Option<Seen> {
        let seq = self.highest().into_iter().chain(self.reserved.last().map(|seen| seen.seq)).max()?;
        self.find(seq)
    }

    /// Highest durable sequence number.
    pub(crate) fn highest(&self) -> Option<u64> {
        self.runs.last().map(|(_, last)| *last).or_else(|| self.floor.checked_sub(1))
    }

    pub(crate) fn reserve(&mut self, seen: Seen) {
        let at = self.reserved.partition_point(|other| other.seq < seen.seq);
        self.reserved.insert(at, seen);
    }

    pub(crate) fn drop_reserved(&mut self) {
        self.reserved.clear();
    }

    /// What is reserved becomes durable.
    pub(crate) fn commit(&mut self, runs_max: usize, seen_max: usize) {
        for seen in std::mem::take(&mut self.reserved) {
            self.add_run(seen.seq, seen.seq, runs_max);
            self.remember(seen, seen_max);
        }
    }

    /// Keeps a durable frame for comparison; the lowest number makes room.
    pub(crate) fn remember(&mut self, seen: Seen, seen_max: usize) {
        let at = self.seen.partition_point(|other| other.seq < seen.seq);
        match self.seen.get_mut(at) {
            Some(other) if other.seq == seen.seq => *other = seen,
            _ => self.seen.insert(at, seen),
        }
        self.trim(seen_max);
    }

    fn trim(&mut self, seen_max: usize) {
        let excess = self.seen.len().saturating_sub(seen_max);
        self.seen.drain(..excess);
    }

    /// Keeps the last frame only, for the chain into the next boot.
    pub(crate) fn shrink(&mut self) {
        self.trim(1);
        self.seen.shrink_to_fit();
    }

    /// Marks `first..=last` durable. Beyond the limit on runs the lowest run is given up and the floor rises over it.
    pub(crate) fn add_run(&mut self, first: u64, last: u64, runs_max: usize) {
        let start = self.runs.partition_point(|(_, end)| end.saturating_add(1) < first);
        let stop = self.runs.partition_point(|(begin, _)| *begin <= last.saturating_add(1));
        let mut merged = (first, last);
        for (begin, end) in self.runs.get(start..stop).unwrap_or_default() {
            merged = (merged.0.min(*begin), merged.1.max(*end));
        }
        self.runs.splice(start..stop.max(start), [merged]);
        while self.runs.len() > runs_max.max(1) {
            let (_, end) = self.runs.remove(0);
            self.floor = self.floor.max(end.saturating_add(1));
        }
    }

    /// Missing numbers between the floor and the highest durable one, lowest first, at most `count` ranges.
    pub(crate) fn gaps(&self, count: usize) -> Vec<(u64, u64)> {
        let mut gaps = Vec::new();
        let mut expected = self.floor;
        for (first, last) in &self.runs {
            if gaps.len() == count {
                break;
            }
            if *first > expected {
                gaps.push((expected, first - 1));
            }
            expected = expected.max(last.saturating_add(1));
        }
        gaps
    }
}

fn find(sorted: &[Seen], seq: u64) -> Option<Seen> {
    let index = sorted.binary_search_by_key(&seq, |seen| seen.seq).ok()?;
    sorted.get(index).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(adds: &[(u64, u64)], runs_max: usize) -> (Vec<(u64, u64)>, u64) {
        let mut boot = Boot::new([0; 8], false);
        for (first, last) in adds {
            boot.add_run(*first, *last, runs_max);
        }
        (boot.runs, boot.floor)
    }

    // Runs stay disjoint, sorted and merged however they arrive, at both ends of the numbers too.
    #[test]
    fn runs_merge() {
        assert_eq!(runs(&[(5, 5), (3, 3), (4, 4)], 9).0, [(3, 5)]);
        assert_eq!(runs(&[(0, 0), (2, 2), (9, 9), (1, 8)], 9).0, [(0, 9)]);
        assert_eq!(runs(&[(7, 7), (0, 1), (3, 4)], 9).0, [(0, 1), (3, 4), (7, 7)]);
        assert_eq!(runs(&[(2, 3), (2, 3), (1, 9)], 9).0, [(1, 9)]);
        assert_eq!(
            runs(&[(u64::MAX, u64::MAX), (u64::MAX - 1, u64::MAX - 1)], 9).0,
            [(u64::MAX - 1, u64::MAX)]
        );
    }

    // Too many gaps: the oldest run is given up, the floor rises over it and nothing else is forgotten.
    #[test]
    fn the_floor_rises() {
        assert_eq!(runs(&[(0, 0), (2, 2), (4, 4)], 2), (vec![(2, 2), (4, 4)], 1));
        assert_eq!(runs(&[(6, 6), (8, 8), (1, 2)], 2), (vec![(6, 6), (8, 8)], 3));
        let mut boot = Boot::new([0; 8], false);
        for seq in [0, 2, 4, 6] {
            boot.add_run(seq, seq, 2);
        }
        assert_eq!(boot.look_up(2), Known::Below);
        assert_eq!((boot.look_up(3), boot.look_up(4)), (Known::New, Known::Stored));
        assert_eq!(boot.gaps(9), [(3, 3), (5, 5)]);
    }
}
