//! The sequence numbers of one boot of one device: what is durable, what is reserved, what can still be compared.
//! It knows one boot only; other boots are `device`, the whole fleet and its budget `fleet`.
//!
//! The ordinary boot (one run, the digest of its last frame, an anchor) lives in the struct itself; whatever is more
//! (lower runs, older digests, reservations) stands in one box, which goes when it is empty.

use std::collections::BTreeMap;
use std::mem::size_of;

use crate::clock::Anchor;
use crate::runs::{self, Floor, Gap, Run, Tally};

/// First 16 bytes of a frame's BLAKE3, as `prev` has it.
pub(crate) type Digest = [u8; 16];

/// What the allocator spends on each allocation, roughly.
pub(crate) const ALLOCATION_BYTES: usize = 16;

/// A frame that can still be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) seq: u64,
    pub(crate) digest: Digest,
    /// Absent where only the stored ranges told of the frame, and where the frame before it is durable too.
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
    /// Given up: stored, or its time is over.
    Below,
    /// Only the lake knows.
    Unsure,
}

/// A frame that waits for the durable write of its group.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reserved {
    pub(crate) digest: Digest,
    pub(crate) prev: Digest,
    pub(crate) is_vouched: bool,
    /// Counted once it is durable.
    pub(crate) is_chain_broken: bool,
}

/// How much of a boot is kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) runs_max: usize,
    pub(crate) seen_max: usize,
}

#[derive(Debug, Clone, Copy)]
struct Kept {
    seq: u64,
    digest: Digest,
    is_vouched: bool,
}

/// What an ordinary boot does not have.
#[derive(Debug, Clone, Default)]
struct More {
    /// Runs below the highest one.
    lower: Vec<Run>,
    /// Durable frames below the last one that can be compared, by rising sequence number.
    seen: Vec<Kept>,
    /// What frames without a durable predecessor say of it.
    prevs: Vec<(u64, Digest)>,
    reserved: BTreeMap<u64, Reserved>,
    floor: Floor,
}

/// One boot.
#[derive(Debug, Clone)]
pub(crate) struct Boot {
    pub(crate) id: [u8; 8],
    /// The highest run; nothing is durable without it.
    high: Run,
    /// Digest of the frame `high.last`.
    last: Digest,
    anchor_t0_us: i64,
    anchor_mono_us: u64,
    marks: u8,
    more: Option<Box<More>>,
}

const HAS_RUN: u8 = 1;
const HAS_LAST: u8 = 2;
const IS_LAST_VOUCHED: u8 = 4;
const HAS_ANCHOR: u8 = 8;
const IS_ANCHOR_MEASURED: u8 = 16;

impl Boot {
    /// A boot never heard of, or (`is_partial`) one of which frames may be stored.
    pub(crate) fn new(id: [u8; 8], is_partial: bool) -> Boot {
        let high = Run { first: 0, last: 0, gap: Gap::UNKNOWN };
        let (last, more) = (Digest::default(), None);
        let mut boot = Boot { id, high, last, anchor_t0_us: 0, anchor_mono_us: 0, marks: 0, more };
        if is_partial {
            boot.more_mut().floor.unsure = u64::MAX;
        }
        boot
    }

    fn is(&self, mark: u8) -> bool {
        self.marks & mark != 0
    }

    fn mark(&mut self, mark: u8, is_set: bool) {
        self.marks = if is_set { self.marks | mark } else { self.marks & !mark };
    }

    fn more_mut(&mut self) -> &mut More {
        self.more.get_or_insert_default()
    }

    fn floor(&self) -> Floor {
        self.more.as_ref().map(|more| more.floor).unwrap_or_default()
    }

    /// Nothing durable and nothing reserved.
    pub(crate) fn is_empty(&self) -> bool {
        !self.is(HAS_RUN) && !self.has_reserved()
    }

    pub(crate) fn has_reserved(&self) -> bool {
        self.more.as_ref().is_some_and(|more| !more.reserved.is_empty())
    }

    pub(crate) fn anchor(&self) -> Option<Anchor> {
        let is_measured = self.is(IS_ANCHOR_MEASURED);
        let anchor = Anchor { t0_us: self.anchor_t0_us, mono_us: self.anchor_mono_us, is_measured };
        self.is(HAS_ANCHOR).then_some(anchor)
    }

    pub(crate) fn set_anchor(&mut self, anchor: Anchor) {
        (self.anchor_t0_us, self.anchor_mono_us) = (anchor.t0_us, anchor.mono_us);
        self.mark(HAS_ANCHOR, true);
        self.mark(IS_ANCHOR_MEASURED, anchor.is_measured);
    }

    pub(crate) fn look_up(&self, seq: u64) -> Known {
        if let Some(seen) = self.find(seq) {
            return Known::Seen(seen);
        }
        let floor = self.floor();
        match () {
            () if seq < floor.given_up => Known::Below,
            () if self.is_durable(seq) => Known::Stored,
            () if seq < floor.unsure => Known::Unsure,
            () => Known::New,
        }
    }

    fn is_durable(&self, seq: u64) -> bool {
        if self.is(HAS_RUN) && seq >= self.high.first {
            return seq <= self.high.last;
        }
        let Some(more) = &self.more else { return false };
        let after = more.lower.partition_point(|run| run.first <= seq);
        let run = after.checked_sub(1).and_then(|index| more.lower.get(index));
        run.is_some_and(|run| seq <= run.last)
    }

    /// The frame with this number, durable or reserved, if it can still be compared.
    pub(crate) fn find(&self, seq: u64) -> Option<Seen> {
        if self.is(HAS_LAST) && self.high.last == seq {
            let (digest, is_vouched) = (self.last, self.is(IS_LAST_VOUCHED));
            return Some(Seen { seq, digest, prev: self.prev_of(seq), is_vouched });
        }
        let more = self.more.as_ref()?;
        if let Ok(index) = more.seen.binary_search_by_key(&seq, |kept| kept.seq) {
            let Kept { digest, is_vouched, .. } = *more.seen.get(index)?;
            return Some(Seen { seq, digest, prev: self.prev_of(seq), is_vouched });
        }
        let reserved = more.reserved.get(&seq)?;
        let (digest, prev, is_vouched) = (reserved.digest, Some(reserved.prev), reserved.is_vouched);
        Some(Seen { seq, digest, prev, is_vouched })
    }

    fn prev_of(&self, seq: u64) -> Option<Digest> {
        let prevs = &self.more.as_ref()?.prevs;
        let index = prevs.binary_search_by_key(&seq, |(of, _)| *of).ok()?;
        prevs.get(index).map(|(_, prev)| *prev)
    }

    /// The last frame of the boot, durable or reserved, if it can still be compared.
    pub(crate) fn last(&self) -> Option<Seen> {
        let reserved = self.more.as_ref().and_then(|more| more.reserved.keys().next_back().copied());
        self.find(self.highest().into_iter().chain(reserved).max()?)
    }

    /// Highest durable sequence number.
    pub(crate) fn highest(&self) -> Option<u64> {
        self.is(HAS_RUN).then_some(self.high.last)
    }

    pub(crate) fn reserve(&mut self, seq: u64, frame: Reserved) {
        self.more_mut().reserved.insert(seq, frame);
    }

    pub(crate) fn drop_reserved(&mut self) {
        if let Some(more) = &mut self.more {
            more.reserved.clear();
        }
        self.compact();
    }

    /// What is reserved becomes durable. Gives how many frames broke the chain.
    pub(crate) fn commit(&mut self, bounds: Bounds, now_us: i64, tally: &mut Tally) -> u32 {
        let Some(more) = &mut self.more else { return 0 };
        let mut broken = 0;
        for (seq, frame) in std::mem::take(&mut more.reserved) {
            broken += u32::from(frame.is_chain_broken);
            let (digest, prev, is_vouched) = (frame.digest, Some(frame.prev), frame.is_vouched);
            self.store(Seen { seq, digest, prev, is_vouched }, bounds, now_us, tally);
        }
        self.compact();
        broken
    }

    /// A frame is durable, and comparable.
    pub(crate) fn store(&mut self, seen: Seen, bounds: Bounds, now_us: i64, tally: &mut Tally) {
        self.remember(seen, bounds.seen_max);
        self.add_run((seen.seq, seen.seq), bounds.runs_max, now_us, tally);
        self.keep_prev(seen);
    }

    /// A stored range whose last frame is known by its digest.
    pub(crate) fn restore(&mut self, first: u64, last: Seen, bounds: Bounds, now_us: i64, tally: &mut Tally) {
        if self.find(last.seq).is_none() {
            self.remember(last, bounds.seen_max);
        }
        self.add_run((first, last.seq), bounds.runs_max, now_us, tally);
    }

    /// Keeps a durable frame for comparison, before it is counted among the runs; the lowest number makes room.
    fn remember(&mut self, seen: Seen, seen_max: usize) {
        let known = self.highest();
        if known.is_none_or(|highest| seen.seq >= highest) {
            if let Some(highest) = known.filter(|highest| self.is(HAS_LAST) && *highest < seen.seq) {
                let (digest, is_vouched) = (self.last, self.is(IS_LAST_VOUCHED));
                self.insert_seen(Kept { seq: highest, digest, is_vouched }, seen_max);
            }
            self.last = seen.digest;
            self.mark(HAS_LAST, true);
            self.mark(IS_LAST_VOUCHED, seen.is_vouched);
            return;
        }
        let Seen { seq, digest, is_vouched, .. } = seen;
        self.insert_seen(Kept { seq, digest, is_vouched }, seen_max);
    }

    fn insert_seen(&mut self, kept: Kept, seen_max: usize) {
        let below_last_max = seen_max.saturating_sub(1);
        if below_last_max == 0 {
            return;
        }
        let seen = &mut self.more_mut().seen;
        let at = seen.partition_point(|other| other.seq < kept.seq);
        match seen.get_mut(at) {
            Some(other) if other.seq == kept.seq => *other = kept,
            _ => seen.insert(at, kept),
        }
        self.trim(below_last_max);
    }

    fn trim(&mut self, below_last_max: usize) {
        let Some(more) = &mut self.more else { return };
        let excess = more.seen.len().saturating_sub(below_last_max);
        if excess == 0 {
            return;
        }
        more.seen.drain(..excess);
        let lowest = more.seen.first().map_or(self.high.last, |kept| kept.seq);
        let useless = more.prevs.partition_point(|(seq, _)| *seq < lowest);
        more.prevs.drain(..useless);
    }

    /// A `prev` is of use only until the frame that it names is durable.
    fn keep_prev(&mut self, seen: Seen) {
        if let Some(more) = &mut self.more
            && let Some(after) = seen.seq.checked_add(1)
            && let Ok(index) = more.prevs.binary_search_by_key(&after, |(seq, _)| *seq)
        {
            more.prevs.remove(index);
        }
        let (Some(prev), Some(before)) = (seen.prev, seen.seq.checked_sub(1)) else { return };
        if self.is_durable(before) || self.find(seen.seq).is_none() {
            return;
        }
        let prevs = &mut self.more_mut().prevs;
        let at = prevs.partition_point(|(seq, _)| *seq < seen.seq);
        prevs.insert(at, (seen.seq, prev));
    }

    fn add_run(&mut self, range: (u64, u64), runs_max: usize, now_us: i64, tally: &mut Tally) {
        let follows = self.high.last.checked_add(1) == Some(range.0);
        if self.is(HAS_RUN) && follows && range.1 >= range.0 {
            self.high.last = range.1;
            return;
        }
        self.change_runs(|runs, floor| {
            runs::add(runs, *floor, range, now_us, tally);
            runs::bound(runs, floor, runs_max, tally);
        });
    }

    /// Hands out all runs, the highest among them, and takes them back.
    fn change_runs(&mut self, change: impl FnOnce(&mut Vec<Run>, &mut Floor)) {
        let mut floor = self.floor();
        let mut all = self.more.as_mut().map(|more| std::mem::take(&mut more.lower)).unwrap_or_default();
        if self.is(HAS_RUN) {
            all.push(self.high);
        }
        change(&mut all, &mut floor);
        if let Some(highest) = all.pop() {
            self.high = highest;
            self.mark(HAS_RUN, true);
        }
        if !all.is_empty() || floor != self.floor() {
            let more = self.more_mut();
            (more.lower, more.floor) = (all, floor);
        }
    }

    fn all_runs(&self) -> Vec<Run> {
        let lower = self.more.as_ref().map(|more| more.lower.as_slice()).unwrap_or_default();
        let high = self.is(HAS_RUN).then_some(self.high);
        lower.iter().copied().chain(high).collect()
    }

    /// Missing numbers below the highest durable one, lowest first, at most `count` ranges, each with what is known of
    /// it. Where only the lake knows nothing is told.
    pub(crate) fn gaps(&self, count: usize) -> Vec<(u64, u64, Gap)> {
        if self.more.is_none() && self.high.first == 0 {
            return Vec::new();
        }
        let known = |gap: &(u64, u64, Gap)| gap.2 != Gap::UNKNOWN;
        runs::gaps(&self.all_runs(), self.floor()).filter(known).take(count).collect()
    }

    /// Closes gaps that are older than the limit.
    pub(crate) fn close_old(&mut self, now_us: i64, tally: &mut Tally) {
        if self.more.is_some() || self.high.first > 0 {
            self.change_runs(|runs, floor| runs::close_old(runs, *floor, now_us, tally));
        }
    }

    /// The boot is about to be forgotten.
    pub(crate) fn close_all(&self, tally: &mut Tally) {
        runs::close_all(&self.all_runs(), self.floor(), tally);
    }

    /// Keeps the digests of the last `seen_max` frames, at least that of the last one.
    pub(crate) fn shrink(&mut self, seen_max: usize) {
        self.trim(seen_max.saturating_sub(1));
        if let Some(more) = &mut self.more {
            more.seen.shrink_to_fit();
            more.prevs.shrink_to_fit();
        }
        self.compact();
    }

    /// Keeps the highest run and the last digest; for the rest the lake has to be asked.
    pub(crate) fn forget_lower(&mut self, tally: &mut Tally) {
        self.shrink(1);
        self.change_runs(|runs, floor| runs::forget_lower(runs, floor, tally));
        self.compact();
    }

    fn compact(&mut self) {
        let is_ordinary = self.more.as_ref().is_some_and(|more| {
            more.lower.is_empty()
                && more.seen.is_empty()
                && more.prevs.is_empty()
                && more.reserved.is_empty()
                && more.floor == Floor::default()
        });
        if is_ordinary {
            self.more = None;
        }
    }

    /// Bytes outside the struct. Reservations are not counted: the group bounds them.
    pub(crate) fn heap_bytes(&self) -> usize {
        let Some(more) = &self.more else { return 0 };
        let vectors = [
            more.seen.capacity() * size_of::<Kept>(),
            more.prevs.capacity() * size_of::<(u64, Digest)>(),
            more.lower.capacity() * size_of::<Run>(),
        ];
        let allocations = 1 + vectors.iter().filter(|bytes| **bytes > 0).count();
        size_of::<More>() + vectors.iter().sum::<usize>() + allocations * ALLOCATION_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: Bounds = Bounds { runs_max: 2, seen_max: 64 };

    fn seen(seq: u64) -> Seen {
        Seen { seq, digest: [seq as u8; 16], prev: Some([seq as u8 + 100; 16]), is_vouched: true }
    }

    fn with(seqs: &[u64], bounds: Bounds) -> Boot {
        let mut boot = Boot::new([0; 8], false);
        for seq in seqs {
            boot.store(seen(*seq), bounds, 0, &mut Tally::default());
        }
        boot
    }

    // Too many gaps: below the floor it is given up, above it nothing is forgotten.
    #[test]
    fn below_the_floor_is_given_up() {
        let boot = with(&[0, 2, 4, 6], Bounds { seen_max: 1, ..ROOM });
        assert_eq!(boot.look_up(2), Known::Below);
        assert_eq!((boot.look_up(3), boot.look_up(4)), (Known::New, Known::Stored));
        let gaps: Vec<_> = boot.gaps(9).into_iter().map(|(first, last, _)| (first, last)).collect();
        assert_eq!(gaps, [(3, 3), (5, 5)]);
    }

    // The digests kept are those of the highest numbers, however the frames came; what one says of a frame that is
    // missing is kept until that frame comes.
    #[test]
    fn the_highest_digests_stay() {
        let mut boot = with(&[0, 1, 5, 3], Bounds { runs_max: 9, seen_max: 3 });
        assert_eq!(boot.look_up(0), Known::Stored);
        assert_eq!(boot.find(5), Some(seen(5)));
        assert_eq!(boot.find(3), Some(seen(3)));
        assert_eq!(boot.find(1).map(|seen| seen.digest), Some([1; 16]));
        boot.store(seen(4), Bounds { runs_max: 9, seen_max: 3 }, 0, &mut Tally::default());
        assert_eq!(boot.find(5).map(|seen| seen.prev), Some(None));
        assert_eq!(boot.look_up(1), Known::Stored);
        boot.shrink(1);
        assert_eq!((boot.look_up(4), boot.last().map(|seen| seen.digest)), (Known::Stored, Some([5; 16])));
    }

    // Giving up lower runs turns their numbers into questions for the lake, never into refusals; new numbers stay new.
    #[test]
    fn forgotten_runs_are_questions() {
        let mut boot = with(&[0, 4, 9], Bounds { runs_max: 9, seen_max: 9 });
        let mut tally = Tally::default();
        boot.forget_lower(&mut tally);
        assert_eq!(tally.closed, 2);
        assert_eq!((boot.look_up(0), boot.look_up(7)), (Known::Unsure, Known::Unsure));
        assert!(matches!(boot.look_up(9), Known::Seen(_)));
        assert_eq!((boot.look_up(10), boot.gaps(9)), (Known::New, vec![]));
        boot.store(seen(12), ROOM, 7, &mut tally);
        assert_eq!(boot.gaps(9), [(10, 11, Gap::open(7))]);
    }

    // An ordinary boot costs nothing beside the struct, and reservations leave nothing behind.
    #[test]
    fn an_ordinary_boot_is_small() {
        let mut boot = Boot::new([0; 8], false);
        for seq in 0..9 {
            let (digest, prev) = ([1; 16], [2; 16]);
            boot.reserve(seq, Reserved { digest, prev, is_vouched: true, is_chain_broken: false });
            boot.commit(Bounds { runs_max: 9, seen_max: 1 }, 0, &mut Tally::default());
        }
        assert_eq!((boot.highest(), boot.heap_bytes()), (Some(8), 0));
        assert!(boot.more.is_none());
        assert!(size_of::<Boot>() <= 80, "{}", size_of::<Boot>());
    }
}
