//! Opening: the index rebuilt from the files, and the files brought together with the log.
//!
//! A record is durable before its commitment is logged, and the link that says where it was logged rides with the next
//! group. So after a crash some records have no link: their commitments are looked for in the log and, where missing,
//! appended again by the caller.

use std::collections::{HashMap, HashSet};
use std::fs::{File, TryLockError};
use std::path::Path;

use schemas_evidence::entry::{Entry as LogEntry, commitment};
use schemas_evidence::ledger::{ENTRIES_PER_READ_MAX, Ledger};

use crate::audit::{Opened, log_entry};
use crate::error::AuditError;
use crate::file::{Item, Place};
use crate::index::Index;
use crate::record::Record;

/// The records seen so far while opening.
#[derive(Default)]
pub(crate) struct Loading {
    pub(crate) index: Index,
    /// Records without a link, by number.
    pub(crate) unlinked: HashMap<u64, Unlinked>,
    /// The newest time named.
    pub(crate) newest_us: i64,
}

/// A record whose place in the log is not known.
pub(crate) struct Unlinked {
    log_size: u64,
    entry: LogEntry,
}

impl Loading {
    /// Takes the next item of the files.
    pub(crate) fn take(&mut self, item: Item, place: Option<Place>, dir: &Path) -> Result<(), AuditError> {
        let damaged = |problem| AuditError::Corrupt { path: dir.to_owned(), offset: 0, problem };
        match (item, place) {
            (Item::Record { number, log_size, salt, body, .. }, Some(place)) => {
                if number != self.index.next() {
                    return Err(damaged("records are not in order"));
                }
                let record: Record =
                    serde_json::from_slice(&body).map_err(|_| damaged("a record that does not read"))?;
                let (epoch, at_us) = match &record {
                    Record::Intent(intent) => (Some(intent.asked.epoch), intent.started_us),
                    Record::Refused(refused) => (Some(refused.asked.epoch), refused.at_us),
                    Record::Completion(completion) => (None, completion.ended_us),
                };
                self.newest_us = self.newest_us.max(at_us);
                self.index.add(&record, place)?;
                let entry = log_entry(commitment(&salt, &body), epoch);
                self.unlinked.insert(number, Unlinked { log_size, entry });
            }
            (Item::Link { number, log_index }, _) => {
                self.index.link(number, log_index);
                self.unlinked.remove(&number);
            }
            (Item::Record { .. }, None) => return Err(damaged("a record without a place")),
        }
        Ok(())
    }
}

/// Finds the commitments of unlinked records in the log; returns those that are not there, oldest first.
/// Queries and results after the newest link that belong to no record are noted as lost.
pub(crate) fn match_log(
    index: &mut Index,
    unlinked: HashMap<u64, Unlinked>,
    ledger: &dyn Ledger,
    opened: &mut Opened,
    links: &mut Vec<Item>,
) -> Result<Vec<(u64, LogEntry)>, AuditError> {
    let linked: HashSet<u64> = index.entries.iter().filter_map(|entry| entry.log_index).collect();
    let after_newest = linked.iter().max().map_or(0, |newest| newest + 1);
    let from = unlinked.values().map(|record| record.log_size).fold(after_newest, u64::min);
    let by_entry: HashMap<String, u64> =
        unlinked.iter().map(|(number, record)| (record.entry.to_text(), *number)).collect();
    let mut found = HashSet::new();
    let size = ledger.size();
    let mut at = from.min(size);
    while at < size {
        let to = size.min(at + ENTRIES_PER_READ_MAX);
        for (log_index, text) in (at..to).zip(ledger.entries(at, to)?) {
            match by_entry.get(&text) {
                Some(number) => {
                    if found.insert(*number) {
                        index.link(*number, log_index);
                        links.push(Item::Link { number: *number, log_index });
                    }
                }
                None if linked.contains(&log_index) => {}
                None => {
                    let ours = matches!(
                        LogEntry::parse(&text),
                        Ok(LogEntry::Query { .. } | LogEntry::Result { .. })
                    );
                    if ours && log_index >= after_newest {
                        opened.lost.push(log_index);
                    }
                }
            }
        }
        at = to;
    }
    let mut unlogged: Vec<(u64, LogEntry)> = unlinked
        .into_iter()
        .filter(|(number, _)| !found.contains(number))
        .map(|(number, record)| (number, record.entry))
        .collect();
    unlogged.sort_unstable_by_key(|(number, _)| *number);
    Ok(unlogged)
}

/// Keeps a second process out for as long as the file is held.
pub(crate) fn lock(dir: &Path) -> Result<File, AuditError> {
    let path = dir.join("lock");
    let file = File::create(&path).map_err(AuditError::io("create", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(AuditError::Locked { path }),
        Err(TryLockError::Error(source)) => Err(AuditError::Io { action: "lock", path, source }),
    }
}
