//! A set of signal ids as 256 bits: small enough to copy into every span and warrant. Knows no names.

use crate::SIGNAL_IDS_MAX;

const WORDS: usize = 4;
const WORD_BITS: u32 = 64;

/// A set of signal ids below [`SIGNAL_IDS_MAX`]. An id beyond is never a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct SignalSet([u64; WORDS]);

impl SignalSet {
    /// No signal.
    pub const EMPTY: SignalSet = SignalSet([0; WORDS]);

    /// The set of one id.
    pub fn of(id: u32) -> SignalSet {
        let mut set = SignalSet::EMPTY;
        set.insert(id);
        set
    }

    /// The ids from `first` to `last`, both included, as far as they can be members.
    pub fn between(first: u32, last: u32) -> SignalSet {
        (first..=last.min(SIGNAL_IDS_MAX - 1)).collect()
    }

    /// Adds an id. Returns whether it can be a member, that is, is below [`SIGNAL_IDS_MAX`].
    pub fn insert(&mut self, id: u32) -> bool {
        match self.0.get_mut((id / WORD_BITS) as usize) {
            Some(word) => *word |= 1 << (id % WORD_BITS),
            None => return false,
        }
        true
    }

    /// Removes an id.
    pub fn remove(&mut self, id: u32) {
        if let Some(word) = self.0.get_mut((id / WORD_BITS) as usize) {
            *word &= !(1 << (id % WORD_BITS));
        }
    }

    /// Whether the id is a member.
    pub fn contains(&self, id: u32) -> bool {
        match self.0.get((id / WORD_BITS) as usize) {
            Some(word) => word >> (id % WORD_BITS) & 1 == 1,
            None => false,
        }
    }

    /// Members of either.
    #[must_use]
    pub fn union(self, other: SignalSet) -> SignalSet {
        self.zip(other, |a, b| a | b)
    }

    /// Members of both.
    #[must_use]
    pub fn intersect(self, other: SignalSet) -> SignalSet {
        self.zip(other, |a, b| a & b)
    }

    /// Members of this that are not members of `other`.
    #[must_use]
    pub fn minus(self, other: SignalSet) -> SignalSet {
        self.zip(other, |a, b| a & !b)
    }

    /// Whether there is no member.
    pub fn is_empty(&self) -> bool {
        *self == SignalSet::EMPTY
    }

    /// How many members.
    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// The members in rising order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + use<> {
        let set = *self;
        (0..SIGNAL_IDS_MAX).filter(move |id| set.contains(*id))
    }

    fn zip(self, other: SignalSet, op: fn(u64, u64) -> u64) -> SignalSet {
        let mut words = [0; WORDS];
        for (word, (a, b)) in words.iter_mut().zip(self.0.into_iter().zip(other.0)) {
            *word = op(a, b);
        }
        SignalSet(words)
    }
}

impl FromIterator<u32> for SignalSet {
    /// Collects ids; those that cannot be members are left out.
    fn from_iter<I: IntoIterator<Item = u32>>(ids: I) -> SignalSet {
        let mut set = SignalSet::EMPTY;
        for id in ids {
            set.insert(id);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Set operations are those of sets, at word boundaries too; ids past the end never become members.
    #[test]
    fn operations() {
        let a: SignalSet = [0, 1, 63, 64, 255].into_iter().collect();
        let b: SignalSet = [1, 64, 128].into_iter().collect();
        assert_eq!(a.union(b).iter().collect::<Vec<_>>(), [0, 1, 63, 64, 128, 255]);
        assert_eq!(a.intersect(b).iter().collect::<Vec<_>>(), [1, 64]);
        assert_eq!(a.minus(b).iter().collect::<Vec<_>>(), [0, 63, 255]);
        assert_eq!(SignalSet::between(63, 65).iter().collect::<Vec<_>>(), [63, 64, 65]);
        assert_eq!(
            SignalSet::between(250, u32::MAX).iter().collect::<Vec<_>>(),
            [250, 251, 252, 253, 254, 255]
        );
        assert!(SignalSet::between(9, 8).is_empty() && SignalSet::between(300, 400).is_empty());
        assert_eq!((a.len(), a.is_empty(), SignalSet::EMPTY.is_empty()), (5, false, true));
        let mut c = SignalSet::of(7);
        assert!(!c.insert(256) && !c.contains(256) && !c.contains(u32::MAX));
        c.remove(7);
        c.remove(300);
        assert!(c.is_empty());
    }
}
