//! All devices in one budget of memory. Device numbers are dense, so a device is found by its number in a page of slots;
//! what a device needs beyond its slot is counted as it changes.
//!
//! # When the budget is used up
//!
//! One pass over the fleet frees a sixteenth of it, in this order, and stops as soon as that is reached:
//!
//! 1. digests of devices that sent nothing since the last pass, then all digests but [`DIGESTS_WHEN_SHORT`] of each boot,
//!    then all but the last one: a frame sent again costs a look-up;
//! 2. the longest unheard boots and the lowest runs of the devices that have most, all clipped to the same size, so one
//!    device that grows on purpose pays before any other: its old frames cost a look-up.
//!
//! Slots themselves are never given back: they are bounded by how many devices are enrolled, which makers vouch for.

use std::mem::size_of;

use crate::boot::ALLOCATION_BYTES;
use crate::device::Device;
use crate::runs::Tally;
use crate::windows::GapCounts;

/// Devices per page.
const PAGE_DEVICES: usize = 1024;
/// A pass frees this part of the budget, so that passes are rare.
const FREED_PART: usize = 16;
/// Digests that a device keeps in the first shortage.
const DIGESTS_WHEN_SHORT: usize = 8;
/// A share below this is not worth having.
const CLIP_BYTES_MIN: usize = 256;

/// Every device ever heard of, by number.
#[derive(Debug)]
pub(crate) struct Fleet {
    pages: Vec<Option<Box<[Device]>>>,
    slots_bytes: usize,
    heap_bytes: usize,
    bytes_max: usize,
    /// The next pass begins above this.
    pass_above: usize,
    passes: u64,
    /// Where the last look at old gaps ended.
    hand: usize,
    /// Where the last pass stopped, so that it is not always the same devices that pay.
    swept: usize,
    pub(crate) counts: GapCounts,
}

/// Bytes of one slot.
pub(crate) const SLOT_BYTES: usize = size_of::<Device>();
const _: () = assert!(SLOT_BYTES <= 136, "a million devices must fit into 150 MB");

impl Fleet {
    pub(crate) fn new(bytes_max: usize) -> Fleet {
        let (pages, counts) = (Vec::new(), GapCounts::default());
        let (slots_bytes, heap_bytes, pass_above) = (0, 0, bytes_max);
        Fleet { pages, slots_bytes, heap_bytes, bytes_max, pass_above, passes: 0, hand: 0, swept: 0, counts }
    }

    pub(crate) fn get(&self, number: u32) -> Option<&Device> {
        let number = number as usize;
        self.pages.get(number / PAGE_DEVICES)?.as_ref()?.get(number % PAGE_DEVICES)
    }

    pub(crate) fn get_mut(&mut self, number: u32) -> Option<&mut Device> {
        let number = number as usize;
        self.pages.get_mut(number / PAGE_DEVICES)?.as_mut()?.get_mut(number % PAGE_DEVICES)
    }

    /// The device; its page is made if need be.
    pub(crate) fn get_or_make(&mut self, number: u32) -> &mut Device {
        let (page, slot) = (number as usize / PAGE_DEVICES, number as usize % PAGE_DEVICES);
        if page >= self.pages.len() {
            let before = self.pages.capacity();
            self.pages.resize_with(page + 1, || None);
            self.slots_bytes += (self.pages.capacity() - before) * size_of::<Option<Box<[Device]>>>();
        }
        let slots_bytes = &mut self.slots_bytes;
        let slots = self.pages[page].get_or_insert_with(|| {
            *slots_bytes += PAGE_DEVICES * SLOT_BYTES + ALLOCATION_BYTES;
            std::iter::repeat_with(Device::default).take(PAGE_DEVICES).collect()
        });
        &mut slots[slot]
    }

    /// Bytes in use, reservations not counted.
    pub(crate) fn bytes(&self) -> usize {
        self.slots_bytes + self.heap_bytes
    }

    /// How often the budget was used up.
    pub(crate) fn passes(&self) -> u64 {
        self.passes
    }

    /// Counts what happened to gaps of a device, and measures it again.
    pub(crate) fn settle(&mut self, number: u32, tally: Tally) {
        self.counts.add(tally);
        let Some(device) = self.get_mut(number) else { return };
        device.count(tally);
        let (before, after) = device.settle();
        self.heap_bytes = (self.heap_bytes + after).saturating_sub(before);
    }

    /// Starts counting anew: what a restart replays is not news.
    pub(crate) fn forget_counts(&mut self) {
        self.counts = GapCounts::default();
        for device in self.pages.iter_mut().flatten().flat_map(|page| page.iter_mut()) {
            (device.story.filled, device.story.closed) = (0, 0);
        }
    }

    /// Looks at the next `count` devices for gaps that are too old.
    pub(crate) fn close_old_gaps(&mut self, count: usize, now_us: i64) {
        let slots = self.pages.len() * PAGE_DEVICES;
        for _ in 0..count.min(slots) {
            self.hand = if self.hand + 1 < slots { self.hand + 1 } else { 0 };
            let number = self.hand as u32;
            let Some(device) = self.get_mut(number) else {
                // A page without devices is passed over in one step.
                self.hand |= PAGE_DEVICES - 1;
                continue;
            };
            let tally = device.close_old(now_us);
            if tally != Tally::default() {
                self.settle(number, tally);
            }
        }
    }

    /// Keeps the budget, see above. Only between groups: reserved frames stay.
    pub(crate) fn keep_budget(&mut self) {
        if self.bytes() <= self.pass_above {
            return;
        }
        self.passes += 1;
        let target = self.bytes_max - self.bytes_max / FREED_PART;
        self.each(target, |device| {
            if !device.cool() {
                device.shrink(1);
            }
            Tally::default()
        });
        for seen_max in [DIGESTS_WHEN_SHORT, 1] {
            self.each(target, |device| {
                device.shrink(seen_max);
                Tally::default()
            });
        }
        if self.bytes() > target {
            let heap_max = self.clip_size(target.saturating_sub(self.slots_bytes));
            self.each(target, |device| {
                if device.settled() > heap_max { device.clip(heap_max) } else { Tally::default() }
            });
        }
        // Slots alone may be more than the budget: then a pass is worth its time only after some growth.
        self.pass_above = self.bytes_max.max(self.bytes() + self.bytes_max / FREED_PART);
    }

    /// Changes device by device until no more than `target` bytes are in use.
    fn each(&mut self, target: usize, mut change: impl FnMut(&mut Device) -> Tally) {
        let slots = self.pages.len() * PAGE_DEVICES;
        for _ in 0..slots {
            if self.bytes() <= target {
                return;
            }
            self.swept = if self.swept + 1 < slots { self.swept + 1 } else { 0 };
            let number = self.swept as u32;
            let Some(device) = self.get_mut(number) else { continue };
            // Reading the slot is enough to know that there is nothing to free.
            if device.settled() > 0 {
                let tally = change(device);
                self.settle(number, tally);
            }
        }
    }

    /// The largest power of two to which all devices can be clipped so that `budget` bytes hold them.
    fn clip_size(&self, budget: usize) -> usize {
        let mut classes = [(0_usize, 0_usize); usize::BITS as usize];
        for device in self.pages.iter().flatten().flat_map(|page| page.iter()) {
            let heap = device.settled();
            if let Some(class) = heap.checked_ilog2().and_then(|log| classes.get_mut(log as usize)) {
                *class = (class.0 + 1, class.1 + heap);
            }
        }
        let mut size = 1_usize << (usize::BITS - 2);
        while size > CLIP_BYTES_MIN {
            let kept = |(log, (count, bytes)): (usize, &(usize, usize))| {
                if 1_usize << log < size { *bytes } else { count * size }
            };
            if classes.iter().enumerate().map(kept).fold(0_usize, usize::saturating_add) <= budget {
                return size;
            }
            size /= 2;
        }
        // Too many devices for a share worth having: as many as need be keep nothing.
        0
    }
}
