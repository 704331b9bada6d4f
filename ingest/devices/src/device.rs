//! One device: its boots, what ties a frame to its neighbours, and where the device stands. It knows no other device.
//!
//! The boot last heard of lies in the struct itself; older ones, which most devices do not have, in a box.

use std::mem::size_of;

use crate::boot::{ALLOCATION_BYTES, Boot, Bounds, Digest, Known};
use crate::clock::Placed;
use crate::runs::Tally;
use crate::view::Times;
use crate::windows::{Ask, Limits};

/// Where a device stands, beside its sequence numbers. Counts are of this process's life.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Story {
    pub(crate) last_arrival_us: i64,
    /// Latest time of measurement, whenever it arrived.
    pub(crate) measured_us: i64,
    /// The device's wall clock minus the arrival of its last frame that had one.
    pub(crate) offset_us: i64,
    pub(crate) filled: u32,
    pub(crate) closed: u32,
    pub(crate) chain_broken: u32,
}

/// One device.
#[derive(Debug)]
pub(crate) struct Device {
    hot: Boot,
    /// The boot longest unheard of comes first.
    #[expect(
        clippy::box_collection,
        reason = "eight bytes instead of 24 in each device that has no other boot"
    )]
    older: Option<Box<Vec<Boot>>>,
    pub(crate) story: Story,
    /// Bytes outside the struct, as last settled.
    heap_bytes: u32,
    marks: u8,
}

const IS_HEARD: u8 = 1;
const HAS_FORGOTTEN: u8 = 2;
const IS_WARM: u8 = 4;
const HAS_OFFSET: u8 = 8;
const IS_CORRECTED: u8 = 16;
const HAS_MEASURED: u8 = 32;
const HAS_TIMES: u8 = 64;

impl Default for Device {
    fn default() -> Device {
        let hot = Boot::new([0; 8], false);
        Device { hot, older: None, story: Story::default(), heap_bytes: 0, marks: 0 }
    }
}

/// What the neighbours say about a frame.
#[derive(Debug, Default)]
pub(crate) struct Ties {
    pub(crate) has_gap_before: bool,
    pub(crate) is_broken: bool,
    pub(crate) follows_vouched: bool,
    pub(crate) proven_older: bool,
}

impl Device {
    fn is(&self, mark: u8) -> bool {
        self.marks & mark != 0
    }

    fn mark(&mut self, mark: u8, is_set: bool) {
        self.marks = if is_set { self.marks | mark } else { self.marks & !mark };
    }

    /// A boot was given up: an unknown one may have stored frames.
    pub(crate) fn has_forgotten(&self) -> bool {
        self.is(HAS_FORGOTTEN)
    }

    /// Whether it sent since the last call.
    pub(crate) fn cool(&mut self) -> bool {
        let is_warm = self.is(IS_WARM);
        self.mark(IS_WARM, false);
        is_warm
    }

    fn older(&self) -> &[Boot] {
        self.older.as_ref().map(|older| older.as_slice()).unwrap_or_default()
    }

    /// All boots, the one last heard of first.
    pub(crate) fn boots(&self) -> impl Iterator<Item = &Boot> {
        let hot = self.is(IS_HEARD).then_some(&self.hot);
        hot.into_iter().chain(self.older().iter().rev())
    }

    fn boots_mut(&mut self) -> impl Iterator<Item = &mut Boot> {
        let hot = (self.marks & IS_HEARD != 0).then_some(&mut self.hot);
        hot.into_iter().chain(self.older.iter_mut().flat_map(|older| older.iter_mut().rev()))
    }

    pub(crate) fn find(&self, boot: [u8; 8]) -> Option<&Boot> {
        self.boots().find(|candidate| candidate.id == boot)
    }

    pub(crate) fn find_mut(&mut self, boot: [u8; 8]) -> Option<&mut Boot> {
        self.boots_mut().find(|candidate| candidate.id == boot)
    }

    /// What is known about a frame's number.
    pub(crate) fn look_up(&self, boot: [u8; 8], seq: u64) -> Known {
        match self.find(boot) {
            Some(boot) => boot.look_up(seq),
            None if self.has_forgotten() => Known::Unsure,
            None => Known::New,
        }
    }

    /// The boot, made if need be, as the one last heard of.
    pub(crate) fn boot_mut(&mut self, boot: [u8; 8], limits: Limits) -> (&mut Boot, Tally) {
        let mut tally = Tally::default();
        if self.find(boot).is_none() {
            self.make_room(limits, &mut tally);
            let fresh = Boot::new(boot, self.has_forgotten());
            if self.is(IS_HEARD) {
                let before = std::mem::replace(&mut self.hot, fresh);
                self.older.get_or_insert_default().push(before);
            } else {
                self.hot = fresh;
                self.mark(IS_HEARD, true);
            }
        }
        self.touch(boot, limits);
        (&mut self.hot, tally)
    }

    /// Forgets the boot longest unheard of, unless it has reserved frames: those are bounded by the group.
    fn make_room(&mut self, limits: Limits, tally: &mut Tally) {
        if self.boots().count() < limits.boots_per_device.max(1) {
            return;
        }
        let without = self.older().iter().position(|boot| !boot.has_reserved());
        if let (Some(index), Some(older)) = (without, &mut self.older) {
            older.remove(index).close_all(tally);
            self.mark(HAS_FORGOTTEN, true);
        } else if self.is(IS_HEARD) && !self.hot.has_reserved() {
            self.drop_hot(tally);
            self.mark(HAS_FORGOTTEN, true);
        }
    }

    fn drop_hot(&mut self, tally: &mut Tally) {
        self.hot.close_all(tally);
        match self.older.as_mut().and_then(|older| older.pop()) {
            Some(before) => self.hot = before,
            None => {
                self.hot = Boot::new([0; 8], false);
                self.mark(IS_HEARD, false);
            }
        }
        self.drop_empty_box();
    }

    fn drop_empty_box(&mut self) {
        if self.older().is_empty() {
            self.older = None;
        }
    }

    /// Makes a boot the one last heard of, and lets the one that it pushes back keep its last digest only.
    pub(crate) fn touch(&mut self, boot: [u8; 8], limits: Limits) {
        self.mark(IS_WARM, true);
        let Some(older) = &mut self.older else { return };
        if self.hot.id != boot {
            let Some(index) = older.iter().rposition(|candidate| candidate.id == boot) else { return };
            let found = older.remove(index);
            older.push(std::mem::replace(&mut self.hot, found));
        }
        // `hot` is one of the boots with digests.
        let behind = older.len().checked_sub(limits.boots_with_digests.max(1));
        if let Some(pushed) = behind.and_then(|index| older.get_mut(index)) {
            pushed.shrink(1);
        }
    }

    /// Nothing reserved for a boot was stored.
    pub(crate) fn rollback(&mut self, boot: [u8; 8]) {
        if let Some(found) = self.find_mut(boot) {
            found.drop_reserved();
        }
        if self.is(IS_HEARD) && self.hot.id == boot && self.hot.is_empty() {
            self.drop_hot(&mut Tally::default());
        } else if let Some(older) = &mut self.older {
            older.retain(|candidate| candidate.id != boot || !candidate.is_empty());
            self.drop_empty_box();
        }
    }

    /// A frame arrived and was placed in time, `is_measured` by a clock and not by its arrival.
    pub(crate) fn note(&mut self, placed: Placed, is_measured: bool, wall_us: Option<i64>, received_us: i64) {
        self.story.last_arrival_us = self.story.last_arrival_us.max(received_us);
        if is_measured && (!self.is(HAS_MEASURED) || placed.t0_us > self.story.measured_us) {
            self.story.measured_us = placed.t0_us;
            self.mark(HAS_MEASURED, true);
        }
        if let Some(wall_us) = wall_us {
            self.story.offset_us = wall_us.saturating_sub(received_us);
        }
        self.mark(HAS_TIMES, true);
        self.mark(HAS_OFFSET, wall_us.is_some());
        self.mark(IS_CORRECTED, placed.is_corrected);
    }

    pub(crate) fn times(&self) -> Option<Times> {
        let times = Times {
            last_arrival_us: self.story.last_arrival_us,
            last_measured_us: self.is(HAS_MEASURED).then_some(self.story.measured_us),
            clock_offset_us: self.is(HAS_OFFSET).then_some(self.story.offset_us),
            is_clock_corrected: self.is(IS_CORRECTED),
        };
        self.is(HAS_TIMES).then_some(times)
    }

    pub(crate) fn count(&mut self, tally: Tally) {
        let story = &mut self.story;
        story.filled = story.filled.saturating_add(tally.filled);
        story.closed = story.closed.saturating_add(tally.closed).saturating_sub(tally.reopened);
    }

    pub(crate) fn close_old(&mut self, now_us: i64) -> Tally {
        let mut tally = Tally::default();
        self.boots_mut().for_each(|boot| boot.close_old(now_us, &mut tally));
        tally
    }

    /// Keeps at most so many digests per boot.
    pub(crate) fn shrink(&mut self, seen_max: usize) {
        self.boots_mut().for_each(|boot| boot.shrink(seen_max));
    }

    /// Gives up boots, longest unheard of first, then lower runs, until no more than `heap_max` bytes are left outside
    /// the struct. What it gives up costs a look-up each from then on, never a refusal.
    pub(crate) fn clip(&mut self, heap_max: usize) -> Tally {
        let mut tally = Tally::default();
        if let Some(older) = &mut self.older {
            let mut left = heap_of(&self.hot, Some(&**older));
            let mut count = 0;
            for boot in older.iter() {
                if left <= heap_max || boot.has_reserved() {
                    break;
                }
                boot.close_all(&mut tally);
                left = left.saturating_sub(size_of::<Boot>() + boot.heap_bytes());
                count += 1;
            }
            older.drain(..count);
            older.shrink_to_fit();
            self.mark(HAS_FORGOTTEN, self.is(HAS_FORGOTTEN) || count > 0);
        }
        self.drop_empty_box();
        let left = heap_of(&self.hot, self.older.as_deref());
        if left > heap_max && !self.hot.has_reserved() {
            self.hot.forget_lower(&mut tally);
        }
        tally
    }

    /// Measures again; gives bytes outside the struct before and after.
    pub(crate) fn settle(&mut self) -> (usize, usize) {
        let before = self.heap_bytes;
        let heap = heap_of(&self.hot, self.older.as_deref());
        self.heap_bytes = u32::try_from(heap).unwrap_or(u32::MAX);
        (before as usize, self.heap_bytes as usize)
    }

    /// Bytes outside the struct, as last settled.
    pub(crate) fn settled(&self) -> usize {
        self.heap_bytes as usize
    }

    pub(crate) fn bounds(limits: Limits) -> Bounds {
        Bounds { runs_max: limits.runs_per_boot, seen_max: limits.digests_per_boot }
    }

    /// What the frames before and after say about a new one.
    pub(crate) fn ties(&self, ask: &Ask) -> Ties {
        let mut ties = Ties::default();
        let boot = self.find(ask.boot.0);
        if let Some(seq) = ask.seq.checked_sub(1) {
            let known = self.look_up(ask.boot.0, seq);
            ties.has_gap_before = known == Known::New;
            if let Known::Seen(seen) = known {
                ties.is_broken = seen.digest != ask.prev;
                ties.follows_vouched = !ties.is_broken && seen.is_vouched;
            }
        } else {
            self.ties_to_boot_before(ask, &mut ties);
        }
        let after = ask.seq.checked_add(1).and_then(|seq| boot?.find(seq));
        if let Some((after, prev)) = after.and_then(|seen| Some((seen, seen.prev?))) {
            ties.proven_older = prev == ask.digest && after.is_vouched;
            ties.is_broken |= prev != ask.digest;
        }
        ties
    }

    /// At sequence number 0 `prev` is zeros, or the digest of the last frame of the boot before. It is broken if all
    /// of the device's boots are known and it is the last frame of none.
    fn ties_to_boot_before(&self, ask: &Ask, ties: &mut Ties) {
        if ask.prev == Digest::default() {
            return;
        }
        let mut is_certain = !self.has_forgotten();
        let mut others = 0;
        for boot in self.boots().filter(|boot| boot.id != ask.boot.0) {
            others += 1;
            match boot.last() {
                Some(seen) if seen.digest == ask.prev => {
                    ties.follows_vouched = seen.is_vouched;
                    return;
                }
                Some(_) => {}
                None => is_certain = false,
            }
        }
        // A device may have had boots before it was enrolled: its first one here proves nothing.
        ties.is_broken = is_certain && others > 0;
    }
}

/// Bytes outside the struct; of vectors the capacity counts.
fn heap_of(hot: &Boot, older: Option<&Vec<Boot>>) -> usize {
    let mut sum = hot.heap_bytes();
    if let Some(older) = older {
        sum += older.capacity() * size_of::<Boot>() + size_of::<Vec<Boot>>() + 2 * ALLOCATION_BYTES;
    }
    for boot in older.into_iter().flatten() {
        sum += boot.heap_bytes();
    }
    sum
}
