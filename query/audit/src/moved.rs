//! How the people of two reads differ: of whom the first could read and the second cannot, and the other way round. Only
//! numbers leave. What it is not: a reason; a revoked grant, an ended one and a device taken off look alike here.

use std::collections::BTreeMap;

use crate::audit::Audit;
use crate::error::AuditError;
use crate::record::{Record, ScopeRecord};

/// Numbers of people.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Moved {
    /// In the first read's scope, not in the second's.
    pub withdrawn: u64,
    /// In the second's, not in the first's.
    pub joined: u64,
    /// In both, with other signals or another time.
    pub changed: u64,
}

/// What one scope opens, subject aside.
type Opened<'r> = (&'r [String], Option<i64>, Option<i64>);

impl Audit {
    /// Compares the scopes of two reads by the numbers of their records; `None` if either is no record of a read.
    ///
    /// # Errors
    /// If a record cannot be read back.
    pub fn moved(&self, first: u64, second: u64) -> Result<Option<Moved>, AuditError> {
        let (first, second) = (self.scope_of(first)?, self.scope_of(second)?);
        let (Some(first), Some(second)) = (first, second) else { return Ok(None) };
        Ok(Some(compare(&people(&first), &people(&second))))
    }

    /// The people of an intent, named there or in the one it refers to.
    fn scope_of(&self, record: u64) -> Result<Option<Vec<ScopeRecord>>, AuditError> {
        let Some(Record::Intent(intent)) = self.record(record)?.0 else { return Ok(None) };
        let Some(like) = intent.like else { return Ok(Some(intent.scope)) };
        match self.record(like.record)?.0 {
            Some(Record::Intent(named)) => Ok(Some(named.scope)),
            _ => Ok(None),
        }
    }
}

fn people(scope: &[ScopeRecord]) -> BTreeMap<&str, Opened<'_>> {
    let mut people = BTreeMap::new();
    for part in scope {
        let opened: Opened<'_> = (&part.signals, part.from_us, part.to_us);
        people.extend(part.subjects.iter().map(|(subject, _)| (subject.as_str(), opened)));
    }
    people
}

fn compare(first: &BTreeMap<&str, Opened<'_>>, second: &BTreeMap<&str, Opened<'_>>) -> Moved {
    let mut moved = Moved::default();
    for (subject, opened) in first {
        match second.get(subject) {
            None => moved.withdrawn += 1,
            Some(now) if now != opened => moved.changed += 1,
            Some(_) => {}
        }
    }
    for subject in second.keys() {
        moved.joined += u64::from(!first.contains_key(subject));
    }
    moved
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(signal: &str, subjects: &[&str]) -> ScopeRecord {
        let subjects = subjects.iter().map(|subject| ((*subject).to_owned(), 1)).collect();
        ScopeRecord { signals: vec![signal.to_owned()], from_us: None, to_us: Some(5), subjects }
    }

    /// Guarantee: who went, who came and whose scope changed are counted apart, each person once; running numbers, which
    /// differ from read to read, are no change.
    #[test]
    fn people_are_counted_once() {
        let first = [scope("spo2", &["a", "b", "c"]), scope("steps", &["d"])];
        let mut second = [scope("steps", &["c", "d"]), scope("spo2", &["b", "e", "f"])];
        second[0].subjects[1].1 = 7;
        let moved = compare(&people(&first), &people(&second));
        assert_eq!(moved, Moved { withdrawn: 1, joined: 2, changed: 1 });
        assert_eq!(compare(&people(&first), &people(&first)), Moved::default());
    }
}
