//! How many rows of each person a query was given, counted in the scan leaf as they leave it. Exact, and a
//! matter of the audit: not a result, never shown to the asker.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use schemas_identity::Did;

use crate::mask::People;

/// Rows released so far by all scans of a query.
#[derive(Default)]
pub(crate) struct Counts {
    tallies: Mutex<Vec<Arc<Tally>>>,
}

/// Rows released so far by one scan, per person of its mask.
pub(crate) struct Tally {
    people: Arc<People>,
    rows: Vec<AtomicU64>,
}

impl Tally {
    /// Adds rows of somebody. The driver reads the counts after it has the last batch, which orders them.
    pub(crate) fn add(&self, who: u32, rows: usize) {
        if let Some(sum) = self.rows.get(who as usize) {
            sum.fetch_add(u64::try_from(rows).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
    }
}

impl Counts {
    /// A tally for one more scan.
    pub(crate) fn tally(&self, people: &Arc<People>) -> Arc<Tally> {
        let rows = people.dids().iter().map(|_| AtomicU64::new(0)).collect();
        let tally = Arc::new(Tally { people: Arc::clone(people), rows });
        self.tallies.lock().push(Arc::clone(&tally));
        tally
    }

    /// The counts so far, of those who have any.
    pub(crate) fn snapshot(&self) -> BTreeMap<Did, u64> {
        let mut sums: BTreeMap<Did, u64> = BTreeMap::new();
        for tally in self.tallies.lock().iter() {
            let of = |who: usize| Some((*tally.people.dids().get(who)?, tally.rows.get(who)?));
            let counted = tally.people.in_order().iter().filter_map(|who| of(*who as usize));
            let counted = counted.map(|(did, rows)| (did, rows.load(Ordering::Relaxed)));
            let counted = counted.filter(|(_, rows)| *rows > 0);
            if sums.is_empty() {
                // In order, which a map is made of in one pass.
                sums = counted.collect();
                continue;
            }
            for (did, rows) in counted {
                let sum = sums.entry(did).or_insert(0);
                *sum = sum.saturating_add(rows);
            }
        }
        sums
    }
}
