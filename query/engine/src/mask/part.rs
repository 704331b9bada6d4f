//! A mask shared out among the partitions of a scan, and what a partition asks of it row by row. Who reads what follows from
//! which devices the mask names, never from how many rows or statements there are: order is visible (rows that nobody
//! ordered, LIMIT, the last digit of a sum), so it must not tell of hidden ones.
//!
//! Devices are dealt out in blocks. Files are sorted by device, so a block is a few pages side by side in each.

use std::ops::Range;
use std::sync::Arc;

use super::{Bounds, Interval, Mask};

/// Blocks of devices in all: enough that those with many rows rarely all fall to one partition, few enough that pages at
/// their edges, which several partitions decode, are few.
const BLOCKS: usize = 32;

/// Every so many-th block of a mask's devices, with all that the mask says of them.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    mask: Arc<Mask>,
    /// Where blocks but the first begin, among the mask's intervals.
    cuts: Arc<[usize]>,
    /// Every so many-th.
    count: usize,
    /// From this one on.
    number: usize,
}

impl Part {
    /// The mask in `count` parts. Some are empty if it has fewer devices: a plan's shape says nothing of that.
    pub(crate) fn of(mask: &Arc<Mask>, count: usize) -> Vec<Part> {
        let entries = &mask.entries;
        let mut last = None;
        let is_first = |at: &usize| last.replace(entries[*at].device) != Some(entries[*at].device);
        let devices: Vec<usize> = (0..entries.len()).filter(is_first).collect();
        let count = count.max(1);
        let blocks = BLOCKS.max(count).min(devices.len()).max(1);
        let cuts: Arc<[usize]> =
            (1..blocks).filter_map(|block| devices.get(devices.len() * block / blocks)).copied().collect();
        let part = |number| Part { mask: Arc::clone(mask), cuts: Arc::clone(&cuts), count, number };
        (0..count).map(part).collect()
    }

    /// Whether it has no device at all.
    pub(crate) fn is_empty(&self) -> bool {
        !self.any(&Bounds::ALL)
    }

    /// False only if nothing inside `bounds` can be visible to this part.
    pub(crate) fn any(&self, bounds: &Bounds) -> bool {
        let mask = &self.mask;
        if bounds.times.1 < mask.hull.0 || bounds.times.0 >= mask.hull.1 {
            return false;
        }
        let places = mask.of_devices(bounds.devices.0, bounds.devices.1);
        self.own(places).any(|own| mask.any_of(own, bounds))
    }

    /// What of these places is in this part, block by block.
    fn own(&self, places: Range<usize>) -> impl Iterator<Item = Range<usize>> {
        let (first, last) = (self.block(places.start), self.block(places.end.saturating_sub(1)));
        (first..=last).filter(|block| self.has(*block)).map(move |block| {
            let from = block.checked_sub(1).and_then(|before| self.cuts.get(before)).copied().unwrap_or(0);
            let to = self.cuts.get(block).copied().unwrap_or(usize::MAX);
            from.max(places.start)..to.min(places.end)
        })
    }

    /// The block that an interval of the mask is in, by its place; a device's are all in one.
    fn block(&self, at: usize) -> usize {
        self.cuts.partition_point(|cut| *cut <= at)
    }

    fn has(&self, block: usize) -> bool {
        block % self.count == self.number
    }
}

/// Remembers the intervals of the last device and signal asked for: rows come sorted, so most questions repeat, and the
/// next device is most often the next entry.
pub(crate) struct Lookup {
    part: Part,
    key: Option<(u32, u16)>,
    /// Entries of the last device asked for.
    own: Range<usize>,
    intervals: Vec<Interval>,
}

impl Lookup {
    /// A reader's own view on its part of a mask.
    pub(crate) fn new(part: Part) -> Self {
        Self { part, key: None, own: 0..0, intervals: Vec::new() }
    }

    /// Whether a row's device and signal alone say whose it is.
    pub(crate) fn is_timeless(&self) -> bool {
        self.part.mask.is_timeless
    }

    /// The visible intervals of a device and signal.
    pub(crate) fn get(&mut self, device: u32, signal: u16) -> &[Interval] {
        if self.key != Some((device, signal)) {
            if self.key.is_none_or(|(known, _)| known != device) {
                self.own = self.find(device);
            }
            let mask = &self.part.mask;
            let own = match self.part.has(self.part.block(self.own.start)) {
                true => mask.entries.get(self.own.clone()).unwrap_or_default(),
                false => &[],
            };
            mask.intervals(own, signal, &mut self.intervals);
            self.key = Some((device, signal));
        }
        &self.intervals
    }

    fn find(&self, device: u32) -> Range<usize> {
        let entries = &self.part.mask.entries;
        let at = self.own.end;
        let is_next = entries.get(at).is_some_and(|entry| entry.device == device)
            && at
                .checked_sub(1)
                .and_then(|before| entries.get(before))
                .is_none_or(|entry| entry.device < device);
        let start = match is_next {
            true => at,
            false => entries.partition_point(|entry| entry.device < device),
        };
        let count = entries.iter().skip(start).take_while(|entry| entry.device == device).count();
        start..start + count
    }
}

#[cfg(test)]
mod tests {
    use schemas_consent::Span;
    use schemas_identity::{DeviceNumber, SecretKey};
    use schemas_signals::SignalSet;

    use super::*;

    /// A mask of devices with so many intervals each.
    fn mask(intervals: &[usize]) -> Arc<Mask> {
        let subject = SecretKey::from_seed(&[1; 32]).public().did();
        let signals = SignalSet::of(1);
        let spans = (0..).zip(intervals).flat_map(|(device, count)| {
            (0..*count as i64).map(move |at| {
                let (from_us, to_us) = (at * 10, at * 10 + 5);
                Span { device: DeviceNumber(device), signals, from_us, to_us, subject, grant: None }
            })
        });
        Arc::new(Mask::new(&spans.collect::<Vec<_>>()))
    }

    fn near(device: u32) -> Bounds {
        Bounds { devices: (device, device), ..Bounds::ALL }
    }

    /// Guarantee: however a mask is shared out, each device is in one part with all its intervals, in none is nobody, and of many
    /// devices, and of many side by side, no part has many more than another.
    #[test]
    fn parts_are_whole_and_even() {
        let cases: [&[usize]; 9] =
            [&[], &[1], &[40], &[1, 1], &[40, 1], &[1, 40, 1], &[3; 5], &[1; 1_000], &[2, 0, 0, 7, 1, 1, 1]];
        for (intervals, count) in cases.into_iter().flat_map(|case| [1, 2, 3, 8, 200].map(|n| (case, n))) {
            let mask = mask(intervals);
            let parts = Part::of(&mask, count);
            assert_eq!(parts.len(), count);
            for (device, expected) in (0..).zip(intervals) {
                let owners = parts.iter().filter(|part| part.any(&near(device)));
                assert_eq!(owners.count(), usize::from(*expected > 0), "{intervals:?} {count}: {device}");
                let seen = parts.iter().map(|part| Lookup::new(part.clone()).get(device, 1).len());
                assert_eq!(seen.collect::<Vec<_>>().iter().sum::<usize>(), *expected);
            }
            let known = intervals.iter().filter(|count| **count > 0).count();
            let busy = parts.iter().filter(|part| !part.is_empty()).count();
            assert_eq!(busy, count.min(known), "{intervals:?} {count}");
        }
        let many = Part::of(&mask(&[1; 1_000]), 4);
        for side_by_side in [0..1_000, 200..400, 873..1_000] {
            let of = |part: &Part| side_by_side.clone().filter(|device| part.any(&near(*device))).count();
            let counts: Vec<usize> = many.iter().map(of).collect();
            let even = side_by_side.len() / 4;
            assert!(counts.iter().all(|count| count.abs_diff(even) <= 32), "{side_by_side:?}: {counts:?}");
        }
    }

    /// Guarantee: asked in any order, a part answers for its own devices as the mask says, and for others with nothing.
    #[test]
    fn a_part_answers_for_its_own() {
        let mask = mask(&[2; 100]);
        for part in Part::of(&mask, 3) {
            let mut lookup = Lookup::new(part.clone());
            for step in [1, 7, 37, 99] {
                for device in (0..100).map(|at| at * step % 100) {
                    let expected = if part.any(&near(device)) { 2 } else { 0 };
                    assert_eq!(lookup.get(device, 1).len(), expected, "{device}");
                    assert!(lookup.get(device, 2).is_empty());
                }
            }
        }
    }
}
