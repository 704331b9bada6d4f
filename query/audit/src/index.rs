//! In memory, rebuilt at open: where each record is, where its commitment is in the log, and which concern whom.
//!
//! Per access and subject it costs four bytes, and twelve for each of the people named in the newest file. What it is not: a copy of the records; a report reads those from disk.

use std::collections::HashMap;

use crate::cohort::{Base, PEOPLE_MIN};
use crate::error::AuditError;
use crate::file::Place;
use crate::record::{IntentRecord, Like, Record};

/// One record.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) place: Place,
    pub(crate) log_index: Option<u64>,
    /// Of an intent: the record of its completion.
    pub(crate) completion: Option<u32>,
    pub(crate) is_completion: bool,
}

/// One subject's records.
#[derive(Debug, Clone, Default)]
pub(crate) struct Trail {
    /// The number its newest record has.
    pub(crate) newest: u64,
    /// Intents and refusals that concern it, oldest first.
    pub(crate) records: Vec<u32>,
    /// Running numbers that should be there and are not, as inclusive ranges.
    pub(crate) missing: Vec<(u64, u64)>,
}

/// All records.
#[derive(Debug, Default)]
pub(crate) struct Index {
    pub(crate) entries: Vec<Entry>,
    /// By number of the subject.
    pub(crate) trails: Vec<Trail>,
    numbers: HashMap<Box<str>, u32>,
    /// Intents of the newest file that others may refer to.
    bases: HashMap<u64, Base>,
    file: u32,
}

impl Index {
    /// The number of the next record.
    pub(crate) fn next(&self) -> u64 {
        self.entries.len() as u64
    }

    pub(crate) fn entry(&self, number: u64) -> Option<&Entry> {
        self.entries.get(usize::try_from(number).ok()?)
    }

    /// The number of a subject's trail.
    pub(crate) fn number(&self, subject: &str) -> Option<u32> {
        self.numbers.get(subject).copied()
    }

    /// What concerned a subject.
    pub(crate) fn trail(&self, subject: &str) -> Option<&Trail> {
        self.trails.get(self.number(subject)? as usize)
    }

    /// The people of an intent in this file, if others may refer to them.
    pub(crate) fn base(&self, record: u64, file: u32) -> Option<&Base> {
        (file == self.file).then(|| self.bases.get(&record)).flatten()
    }

    fn number_or_new(&mut self, subject: &str) -> Result<u32, AuditError> {
        // Looked up first, so that a known subject costs no allocation.
        if let Some(number) = self.number(subject) {
            return Ok(number);
        }
        let number = u32::try_from(self.trails.len()).map_err(|_| AuditError::Full)?;
        self.trails.push(Trail::default());
        self.numbers.insert(subject.into(), number);
        Ok(number)
    }

    /// Adds a record that is durable. `number` must be the next one.
    pub(crate) fn add(&mut self, record: &Record, place: Place) -> Result<(), AuditError> {
        let number = u32::try_from(self.entries.len()).map_err(|_| AuditError::Full)?;
        let is_completion = matches!(record, Record::Completion(_));
        self.entries.push(Entry { place, log_index: None, completion: None, is_completion });
        if place.file != self.file {
            (self.file, self.bases) = (place.file, HashMap::new());
        }
        if let Record::Completion(completion) = record {
            let intent = usize::try_from(completion.query).ok().and_then(|query| self.entries.get_mut(query));
            if let Some(intent) = intent.filter(|intent| !intent.is_completion) {
                intent.completion.get_or_insert(number);
            }
        }
        if let Record::Intent(IntentRecord { like: Some(like), .. }) = record {
            self.add_like(like, number, place)?;
        }
        let mut named = Base::default();
        for (subject, running) in record.numbered() {
            let trail = self.number_or_new(subject)?;
            self.trails[trail as usize].add(*running, number);
            named.trails.push(trail);
            named.numbers.push(*running);
        }
        if let Record::Intent(intent) = record {
            let people = intent.scope.iter().map(|scope| scope.subjects.len()).sum();
            if people >= PEOPLE_MIN {
                named.trails.truncate(people);
                named.numbers.truncate(people);
                self.bases.insert(u64::from(number), named);
            }
        }
        Ok(())
    }

    fn add_like(&mut self, like: &Like, number: u32, place: Place) -> Result<(), AuditError> {
        let Some(base) = self.bases.get(&like.record) else {
            return Err(AuditError::Dangling { record: u64::from(number), file: place.file });
        };
        for (at, (trail, running)) in base.trails.iter().zip(&base.numbers).enumerate() {
            if let Some(trail) = self.trails.get_mut(*trail as usize) {
                trail.add(like.number(at, *running), number);
            }
        }
        Ok(())
    }

    /// Notes where a record's commitment is in the log.
    pub(crate) fn link(&mut self, number: u64, log_index: u64) {
        if let Some(entry) = usize::try_from(number).ok().and_then(|number| self.entries.get_mut(number)) {
            entry.log_index = Some(log_index);
        }
    }
}

impl Trail {
    fn add(&mut self, running: u64, number: u32) {
        let expected = self.newest + 1;
        if running > expected {
            self.missing.push((expected, running - 1));
        }
        self.newest = self.newest.max(running);
        self.records.push(number);
    }
}
