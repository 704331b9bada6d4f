//! How many rows of each person a query was given, counted in the scan leaf as they leave it. Exact, and a
//! matter of the audit: not a result, never shown to the asker.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use schemas_identity::Did;

use crate::columns::Run;

/// Rows released so far, per person.
#[derive(Default)]
pub(crate) struct Counts {
    rows: Mutex<BTreeMap<Did, u64>>,
}

impl Counts {
    /// Adds the rows of some runs.
    pub(crate) fn add(&self, runs: &[Run], people: &[Did]) {
        let mut rows = self.rows.lock();
        for run in runs {
            if let Some(person) = people.get(run.who as usize) {
                let count = rows.entry(*person).or_insert(0);
                *count = count.saturating_add(u64::try_from(run.len).unwrap_or(u64::MAX));
            }
        }
    }

    /// The counts so far.
    pub(crate) fn snapshot(&self) -> BTreeMap<Did, u64> {
        self.rows.lock().clone()
    }
}
