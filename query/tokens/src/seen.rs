//! Tokens that were used, for their owners to look at. A list of bounded length that forgets the oldest: what it lost is
//! not shown, and nothing else hangs on it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use schemas_identity::Did;
use schemas_identity::token::{CLOCK_SKEW_SECONDS_MAX, Token};

/// Tokens listed of one key.
pub const SEEN_OF_KEY_MAX: usize = 128;
/// Tokens listed in all: about 16 MB at their longest.
pub const SEEN_MAX: usize = 32_768;
/// After a crash the last use is known to so many seconds.
const LAST_USE_SECONDS: i64 = 60;

/// A token that was used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// What it says.
    pub token: Token,
    /// Its first use, seconds since 1970.
    pub first_s: i64,
    /// Its last use, seconds since 1970.
    pub last_s: i64,
}

#[derive(Debug)]
struct Entry {
    seen: Seen,
    /// The last use as the file has it.
    written_s: i64,
}

/// All of them, in the order in which they were first seen.
#[derive(Debug, Default)]
pub(crate) struct SeenList {
    entries: BTreeMap<u64, Entry>,
    keys: HashMap<Did, HashMap<String, u64>>,
    unwritten: BTreeSet<u64>,
    next: u64,
}

impl SeenList {
    /// A use, now.
    pub(crate) fn note(&mut self, token: &Token, now_s: i64) {
        let known = self.keys.get(&token.iss).and_then(|ids| ids.get(&token.jti)).copied();
        let Some(order) = known else {
            let seen = Seen { token: token.clone(), first_s: now_s, last_s: now_s };
            let order = self.insert(seen);
            self.unwritten.insert(order);
            return;
        };
        let Some(entry) = self.entries.get_mut(&order) else { return };
        entry.seen.last_s = entry.seen.last_s.max(now_s);
        // An id used for two tokens is shown as the later one says.
        let is_other = entry.seen.token != *token;
        if is_other && token.exp_s >= entry.seen.token.exp_s {
            entry.seen.token = token.clone();
        }
        if is_other || now_s.saturating_sub(entry.written_s) >= LAST_USE_SECONDS {
            entry.written_s = now_s;
            self.unwritten.insert(order);
        }
    }

    /// One from the file; a later line about the same token replaces an earlier one.
    pub(crate) fn remember(&mut self, seen: Seen) {
        let known = self.keys.get(&seen.token.iss).and_then(|ids| ids.get(&seen.token.jti)).copied();
        match known.and_then(|order| self.entries.get_mut(&order)) {
            Some(entry) => {
                entry.written_s = seen.last_s;
                entry.seen = seen;
            }
            None => {
                self.insert(seen);
            }
        }
    }

    fn insert(&mut self, seen: Seen) -> u64 {
        let ids = self.keys.get(&seen.token.iss);
        if let Some(ids) = ids.filter(|ids| ids.len() >= SEEN_OF_KEY_MAX)
            && let Some(oldest) = ids.values().min().copied()
        {
            self.remove(oldest);
        }
        if self.entries.len() >= SEEN_MAX
            && let Some(oldest) = self.entries.keys().next().copied()
        {
            self.remove(oldest);
        }
        let order = self.next;
        self.next += 1;
        self.keys.entry(seen.token.iss).or_default().insert(seen.token.jti.clone(), order);
        self.entries.insert(order, Entry { written_s: seen.last_s, seen });
        order
    }

    fn remove(&mut self, order: u64) {
        self.unwritten.remove(&order);
        let Some(entry) = self.entries.remove(&order) else { return };
        let iss = entry.seen.token.iss;
        if let Some(ids) = self.keys.get_mut(&iss) {
            ids.remove(&entry.seen.token.jti);
            if ids.is_empty() {
                self.keys.remove(&iss);
            }
        }
    }

    /// Forgets those that are over.
    pub(crate) fn forget(&mut self, now_s: i64) {
        let is_over = |seen: &Seen| now_s > seen.token.exp_s.saturating_add(CLOCK_SKEW_SECONDS_MAX);
        let over = self.entries.iter().filter(|(_, entry)| is_over(&entry.seen));
        let over: Vec<u64> = over.map(|(order, _)| *order).collect();
        for order in over {
            self.remove(order);
        }
    }

    /// What the file does not have yet, which it is now taken to have.
    pub(crate) fn take_unwritten(&mut self) -> Vec<Seen> {
        let orders = std::mem::take(&mut self.unwritten);
        orders.iter().filter_map(|order| self.entries.get(order)).map(|entry| entry.seen.clone()).collect()
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Seen> {
        self.entries.values().map(|entry| &entry.seen)
    }

    pub(crate) fn of(&self, iss: &Did) -> Vec<Seen> {
        let orders = self.keys.get(iss).into_iter().flat_map(HashMap::values);
        orders.filter_map(|order| self.entries.get(order)).map(|entry| entry.seen.clone()).collect()
    }

    pub(crate) fn keys(&self) -> Vec<Did> {
        self.keys.keys().copied().collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }
}
