//! Large scopes that are asked for again and again: an intent names the people once, and later ones of the same file refer
//! to it. A hundred thousand people take seven megabytes by name, and a few hundred bytes by reference.
//!
//! Everybody still has a running number of their own in every record: theirs in the record that names them and what is
//! added since, or another one that is spelled out. The last intent with names is never further away than the beginning
//! of the file, so a file is read without any before it. What it is not: a name that anybody outside these records
//! gives or sees.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use schemas_identity::Did;

use crate::entry::{Intent, Scope};
use crate::record::{self, Like};

/// Fewest people that are referred to instead of named.
pub(crate) const PEOPLE_MIN: usize = 16;
/// Most scopes remembered, and most people in all of them; beyond, those asked for longest ago are named again.
const COHORTS_MAX: usize = 64;
const COHORTS_PEOPLE_MAX: usize = 1_000_000;
/// Fewer counts than one in so many people are better named; and a reference that spells out more numbers than that is
/// the last one of its kind.
const FEW_ONE_IN: usize = 4;

/// A scope whose people stand in an intent on record.
#[derive(Debug)]
pub(crate) struct Cohort {
    /// The intent's number.
    pub(crate) record: u64,
    /// The file it is in; only intents of the same file refer to it.
    pub(crate) file: u32,
    /// As handed in: each subject once, ascending.
    scope: Arc<[Scope]>,
    /// Where each of them stands in the record.
    places: Vec<u32>,
}

impl Cohort {
    /// What later intents may refer to, if it is worth it and an order can be told.
    pub(crate) fn of(intent: &Intent, record: u64, file: u32) -> Option<Cohort> {
        let is_fit = intent.scope.len() >= PEOPLE_MIN && intent.is_ascending();
        is_fit.then(|| Cohort {
            record,
            file,
            scope: Arc::clone(&intent.scope),
            places: record::places(&intent.scope),
        })
    }

    /// How many people.
    pub(crate) fn len(&self) -> usize {
        self.scope.len()
    }

    /// Whether a reference to it spells out so many numbers that naming the people is as good.
    pub(crate) fn is_worn(&self, like: &Like) -> bool {
        like.other.len() * FEW_ONE_IN > self.len()
    }

    /// Counts by place, without zeros at the end; `None` if few have any, who are better named. All of `rows` must be
    /// in the scope.
    pub(crate) fn counts(&self, rows: &BTreeMap<Did, u64>) -> Option<Vec<u64>> {
        if rows.len() * FEW_ONE_IN < self.scope.len() {
            return None;
        }
        let mut counts = vec![0; self.scope.len()];
        let mut people = self.scope.iter().zip(&self.places);
        for (subject, rows) in rows {
            let place =
                people.find(|(scope, _)| scope.subject == *subject).map(|(_, place)| *place as usize)?;
            counts[place] = *rows;
        }
        let used = counts.iter().rposition(|count| *count > 0).map_or(0, |last| last + 1);
        counts.truncate(used);
        Some(counts)
    }
}

/// The scopes that were named last.
#[derive(Debug, Default)]
pub(crate) struct Cohorts {
    /// Those asked for last come first.
    known: VecDeque<Arc<Cohort>>,
}

impl Cohorts {
    /// The cohort of just this scope.
    pub(crate) fn find(&mut self, scope: &Arc<[Scope]>) -> Option<Arc<Cohort>> {
        // Whoever asks again mostly hands in the very same memory.
        let is_same = |known: &Arc<[Scope]>| Arc::ptr_eq(known, scope) || known == scope;
        let at = self.known.iter().position(|cohort| is_same(&cohort.scope))?;
        let cohort = self.known.remove(at)?;
        self.known.push_front(Arc::clone(&cohort));
        Some(cohort)
    }

    /// As `find`, by memory alone: for those who just waited for somebody else to name them.
    pub(crate) fn find_same(&self, scope: &Arc<[Scope]>) -> Option<Arc<Cohort>> {
        self.known.iter().find(|cohort| Arc::ptr_eq(&cohort.scope, scope)).cloned()
    }

    /// Has the people of a record named anew the next time they are asked for.
    pub(crate) fn forget(&mut self, record: u64) {
        self.known.retain(|known| known.record != record);
    }

    /// Takes one in, in place of an older one of the same scope.
    pub(crate) fn add(&mut self, cohort: Arc<Cohort>) {
        self.known.retain(|known| known.scope != cohort.scope);
        self.known.push_front(cohort);
        let mut people = 0;
        let has_room = |cohort: &&Arc<Cohort>| {
            people += cohort.scope.len();
            people <= COHORTS_PEOPLE_MAX
        };
        let kept = self.known.iter().take(COHORTS_MAX).take_while(has_room).count();
        self.known.truncate(kept);
    }
}

/// People of an intent by their places in it: who, as numbers of trails, and their running numbers.
#[derive(Debug, Default)]
pub(crate) struct Base {
    pub(crate) trails: Vec<u32>,
    pub(crate) numbers: Vec<u64>,
}

impl Base {
    /// A reference to the base for people whose next running numbers are these, by place.
    pub(crate) fn like(&self, record: u64, next: &[u64]) -> Like {
        let added = || next.iter().zip(&self.numbers).map(|(next, number)| next.wrapping_sub(*number));
        let plus = most_common(added());
        let other = (0..)
            .zip(added().zip(next))
            .filter(|(_, (added, _))| *added != plus)
            .map(|(place, (_, next))| (place, *next))
            .collect();
        Like { record, plus, other }
    }
}

/// The value that more than half of all have, if there is one (Boyer and Moore 1981); any of them otherwise.
fn most_common(values: impl Iterator<Item = u64>) -> u64 {
    let (mut candidate, mut lead) = (0, 0_u64);
    for value in values {
        if lead == 0 {
            candidate = value;
        }
        lead = if value == candidate { lead + 1 } else { lead - 1 };
    }
    candidate
}

#[cfg(test)]
mod tests;
