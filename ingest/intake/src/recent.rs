//! A bounded map that forgets what was not touched for longest, roughly.
//!
//! What it is: two generations. A touched entry moves to the young one; when that is full the old one is dropped and
//! the young one becomes old. So at most `entries_max` entries are held, and an entry survives at least
//! `entries_max / 2` touches of others. What it is not: an exact LRU (that needs a list per touch).

use std::collections::HashMap;
use std::hash::Hash;

#[derive(Debug)]
pub(crate) struct Recent<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    generation_max: usize,
}

impl<K: Hash + Eq + Clone, V> Recent<K, V> {
    pub(crate) fn new(entries_max: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), generation_max: (entries_max / 2).max(1) }
    }

    /// The entry of `key`, made by `fresh` if it is not known (any more).
    pub(crate) fn touch(&mut self, key: &K, fresh: impl FnOnce() -> V) -> &mut V {
        if !self.young.contains_key(key) && self.young.len() >= self.generation_max {
            self.old = std::mem::take(&mut self.young);
        }
        let old = &mut self.old;
        self.young.entry(key.clone()).or_insert_with(|| old.remove(key).unwrap_or_else(fresh))
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.young.get(key).or_else(|| self.old.get(key))
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However many keys pass, the map stays within its bound and keeps the latest.
    #[test]
    fn it_stays_bounded_and_keeps_the_latest() {
        let mut recent = Recent::new(10);
        for key in 0..1_000 {
            *recent.touch(&key, || 0) = key;
            assert!(recent.len() <= 10);
        }
        assert_eq!(recent.get(&999), Some(&999));
        assert_eq!(recent.get(&1), None);
    }

    /// An entry in use survives any number of others.
    #[test]
    fn a_touched_entry_survives() {
        let mut recent = Recent::new(10);
        *recent.touch(&u64::MAX, || 0) = 7;
        for key in 0..1_000 {
            recent.touch(&key, || 0);
            assert_eq!(*recent.touch(&u64::MAX, || 0), 7);
        }
    }
}
