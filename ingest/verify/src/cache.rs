//! Tables of keys: a small one at a key's first frame, larger ones once it has sent as many as [`Limits`] says, within a
//! bound of bytes. When there is no room the key that was used longest ago, of those a moving hand meets unused, gives way (second
//! chance). It knows no frame and no verdict: a key without a table is the caller's to verify otherwise.

use std::collections::HashMap;

use schemas_identity::PublicKey;

use crate::comb::{HOT, LARGE, SMALL, Shape, Table};
use crate::point::Point;

/// How much memory tables may have, and which keys get larger ones.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) bytes_max: usize,
    /// Signatures after which a key gets its large table.
    pub(crate) large_after: u32,
    /// Signatures after which it gets a hot one, if half of `bytes_max` is enough for all tables then.
    pub(crate) hot_after: u32,
}

/// What a key costs beside its table: map entry and slot.
const SLOT_BYTES: usize = 128;

struct Slot {
    key: [u8; 32],
    table: Table,
    uses: u32,
    /// Met unused by the hand once more before it goes.
    is_fresh: bool,
    /// The call that used it last: a table in use stays.
    call: u64,
}

/// Counts of a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tables {
    /// Keys with a small table.
    pub small: u64,
    /// Keys with a large table.
    pub large: u64,
    /// Keys with the largest.
    pub hot: u64,
    /// Bytes of all tables.
    pub bytes: u64,
    /// Tables that gave way to others.
    pub evicted: u64,
}

/// The tables.
pub(crate) struct Cache {
    limits: Limits,
    /// Numbers stay while a key has a table; empty places are in `free`.
    slots: Vec<Option<Slot>>,
    free: Vec<usize>,
    by_key: HashMap<[u8; 32], usize>,
    hand: usize,
    call: u64,
    pub(crate) counts: Tables,
}

fn cost(shape: Shape) -> usize {
    shape.bytes() + SLOT_BYTES
}

impl Cache {
    pub(crate) fn new(limits: Limits) -> Cache {
        Cache {
            limits,
            slots: Vec::new(),
            free: Vec::new(),
            by_key: HashMap::new(),
            hand: 0,
            call: 0,
            counts: Tables::default(),
        }
    }

    /// A new group: what it uses from now on stays until the next one begins.
    pub(crate) fn begin(&mut self) {
        self.call += 1;
    }

    /// The number of the key's table, built or enlarged if there is room; `None`: no room while this group lasts.
    ///
    /// Numbers hold until the next [`Cache::begin`].
    pub(crate) fn find(&mut self, key: &PublicKey) -> Option<usize> {
        let bytes = key.as_bytes();
        let Some(at) = self.by_key.get(bytes).copied() else { return self.build(bytes) };
        let slot = self.slots[at].as_mut()?;
        (slot.is_fresh, slot.call) = (true, self.call);
        slot.uses = slot.uses.saturating_add(1);
        let (uses, shape) = (slot.uses, slot.table.shape());
        if shape == SMALL && uses >= self.limits.large_after {
            let has_room = self.make_room(cost(LARGE) - cost(SMALL));
            self.promote(at, LARGE, has_room);
        } else if shape == LARGE && uses >= self.limits.hot_after {
            // For speed alone nobody gives way, and new keys find room.
            let has_room = self.counts.bytes as usize + cost(HOT) - cost(LARGE) <= self.limits.bytes_max / 2;
            self.promote(at, HOT, has_room);
        }
        Some(at)
    }

    /// The table of a number that [`Cache::find`] gave for this group.
    pub(crate) fn table(&self, at: usize) -> Option<&Table> {
        self.slots[at].as_ref().map(|slot| &slot.table)
    }

    fn build(&mut self, key: &[u8; 32]) -> Option<usize> {
        if !self.make_room(cost(SMALL)) {
            return None;
        }
        // Tables hold multiples of -A: the equation is sB - kA.
        let table = Table::new(&Point::decompress(key)?.neg(), SMALL);
        let slot = Some(Slot { key: *key, table, uses: 1, is_fresh: true, call: self.call });
        let at = match self.free.pop() {
            Some(at) => at,
            None => {
                self.slots.push(None);
                self.slots.len() - 1
            }
        };
        self.slots[at] = slot;
        self.by_key.insert(*key, at);
        self.count(SMALL, 1);
        Some(at)
    }

    /// Puts a larger table in place of a key's, if there is room; else it is asked again after as many frames.
    fn promote(&mut self, at: usize, shape: Shape, has_room: bool) {
        let Some(slot) = self.slots[at].as_mut() else { return };
        slot.uses = 0;
        let Some(point) = Point::decompress(&slot.key).filter(|_| has_room) else { return };
        let old = slot.table.shape();
        slot.table = Table::new(&point.neg(), shape);
        self.count(old, -1);
        self.count(shape, 1);
    }

    fn count(&mut self, shape: Shape, change: i64) {
        let counts = &mut self.counts;
        let tier = match shape {
            SMALL => &mut counts.small,
            LARGE => &mut counts.large,
            _ => &mut counts.hot,
        };
        *tier = tier.saturating_add_signed(change);
        counts.bytes = counts.bytes.saturating_add_signed(change * cost(shape) as i64);
    }

    fn fits(&self, bytes: usize) -> bool {
        self.counts.bytes as usize + bytes <= self.limits.bytes_max
    }

    /// Lets idle keys go until `bytes` fit; two rounds of the hand at most.
    fn make_room(&mut self, bytes: usize) -> bool {
        for _ in 0..2 * self.slots.len() {
            if self.fits(bytes) {
                return true;
            }
            self.hand = (self.hand + 1) % self.slots.len();
            if let Some(slot) = &mut self.slots[self.hand] {
                if slot.call == self.call {
                    continue;
                }
                if !std::mem::take(&mut slot.is_fresh) {
                    self.evict(self.hand);
                }
            }
        }
        self.fits(bytes)
    }

    fn evict(&mut self, at: usize) {
        let Some(gone) = self.slots[at].take() else { return };
        self.free.push(at);
        self.by_key.remove(&gone.key);
        self.count(gone.table.shape(), -1);
        self.counts.evicted += 1;
    }
}

#[cfg(test)]
mod tests {
    use schemas_identity::SecretKey;

    use super::*;

    fn key(seed: u8) -> PublicKey {
        SecretKey::from_seed(&[seed; 32]).public()
    }

    const AFTER: u32 = 32;

    fn cache(bytes_max: usize) -> Cache {
        Cache::new(Limits { bytes_max, large_after: AFTER, hot_after: AFTER })
    }

    // The bound of bytes holds whatever is asked; what a group uses stays for that group; idle keys give way.
    #[test]
    fn the_bound_holds() {
        let mut cache = cache(3 * cost(SMALL));
        cache.begin();
        let first: Vec<_> = (0..4).map(|seed| cache.find(&key(seed))).collect();
        assert_eq!(first, [Some(0), Some(1), Some(2), None], "no room for a fourth in one group");
        for round in 0..50_u8 {
            cache.begin();
            assert!(cache.find(&key(round % 7)).is_some(), "round {round}");
            assert!(cache.counts.bytes as usize <= 3 * cost(SMALL));
        }
        assert!(cache.counts.evicted > 10, "{:?}", cache.counts);
        assert_eq!((cache.counts.small, cache.counts.large), (3, 0), "no room for a large one");
    }

    // A key that goes on sending gets a large table, then a hot one if half the room is enough; the counts follow.
    #[test]
    fn active_keys_are_promoted() {
        let large = Tables { large: 1, bytes: cost(LARGE) as u64, ..Tables::default() };
        let hot = Tables { hot: 1, bytes: cost(HOT) as u64, ..Tables::default() };
        for (bytes_max, last) in [(2 * cost(HOT), hot), (2 * cost(HOT) - 1, large)] {
            let mut cache = cache(bytes_max);
            for _ in 0..AFTER {
                cache.begin();
                cache.find(&key(1)).unwrap();
            }
            assert_eq!(cache.counts, large);
            for _ in 0..AFTER {
                cache.begin();
                cache.find(&key(1)).unwrap();
            }
            assert_eq!(cache.counts, last);
        }
    }
}
