//! In memory, rebuilt at open: where each record is, where its commitment is in the log, and which concern whom.
//!
//! Per access and subject it costs four bytes. What it is not: a copy of the records; a report reads those from disk.

use std::collections::HashMap;

use crate::error::AuditError;
use crate::file::Place;
use crate::record::Record;

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
    pub(crate) trails: HashMap<Box<str>, Trail>,
}

impl Index {
    /// The number of the next record.
    pub(crate) fn next(&self) -> u64 {
        self.entries.len() as u64
    }

    pub(crate) fn entry(&self, number: u64) -> Option<&Entry> {
        self.entries.get(usize::try_from(number).ok()?)
    }

    /// Adds a record that is durable. `number` must be the next one.
    pub(crate) fn add(&mut self, record: &Record, place: Place) -> Result<(), AuditError> {
        let number = u32::try_from(self.entries.len()).map_err(|_| AuditError::Full)?;
        let is_completion = matches!(record, Record::Completion(_));
        self.entries.push(Entry { place, log_index: None, completion: None, is_completion });
        if let Record::Completion(completion) = record {
            let intent = usize::try_from(completion.query).ok().and_then(|query| self.entries.get_mut(query));
            if let Some(intent) = intent.filter(|intent| !intent.is_completion) {
                intent.completion.get_or_insert(number);
            }
        }
        for (subject, running) in record.numbered() {
            // Looked up first, so that a known subject costs no allocation.
            match self.trails.get_mut(subject.as_str()) {
                Some(trail) => trail.add(*running, number),
                None => self.trails.entry(subject.as_str().into()).or_default().add(*running, number),
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
