//! The component. Callers block until their record is durable and in the log; those who come together share one sync.
//!
//! Whoever finds no leader leads: takes all that waits, writes it as one group, syncs once, appends all commitments in one
//! call, and wakes the others. What it is not: a thread of its own; with nobody asking, nothing runs.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::{Condvar, Mutex, RwLock};
use schemas_evidence::entry::{Entry as LogEntry, commitment};
use schemas_evidence::ledger::Ledger;
use schemas_identity::Did;

use crate::cohort::{Cohort, Cohorts, PEOPLE_MIN};
use crate::entry::{Completion, Intent, Outcome, Refused, Scope};
use crate::error::AuditError;
use crate::file::{Files, Item};
use crate::index::Index;
use crate::loading::{Loading, lock, match_log};
use crate::polling::{Polls, Share};
use crate::record::{self, Like, Record};

/// Most subjects one record may concern.
pub const SUBJECTS_MAX: usize = 500_000;
/// Most bytes, roughly, that ride with the oldest record of a group, whose own size does not count.
const GROUP_BYTES_TARGET: usize = 2 * 1024 * 1024;
/// Rough size of one subject in a record.
const SUBJECT_BYTES: usize = 90;
/// Rough size of one by its place.
const COUNT_BYTES: usize = 5;
/// Rough size of the rest of a record.
const RECORD_BYTES: usize = 20 * 1024;
/// Up to this the end of a read is as urgent as the beginning of another: somebody may wait for an empty answer.
const SMALL_BYTES: usize = 2 * RECORD_BYTES;

/// Where and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// The directory; made if it is not there.
    pub dir: PathBuf,
    /// A file of at least this many bytes is followed by a new one. Default 64 MiB.
    pub file_bytes_max: u64,
}

impl Options {
    /// The defaults for a directory.
    pub fn new(dir: impl Into<PathBuf>) -> Options {
        Options { dir: dir.into(), file_bytes_max: 64 * 1024 * 1024 }
    }
}

impl<P: Into<PathBuf>> From<P> for Options {
    fn from(dir: P) -> Options {
        Options::new(dir)
    }
}

/// What opening found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Opened {
    /// Records there are.
    pub records: u64,
    /// The newest time that a record names, microseconds UTC: whoever's clock says less has moved it back.
    pub newest_us: i64,
    /// Bytes of a torn group cut off the end: never acknowledged to anybody.
    pub torn_bytes: u64,
    /// Records whose commitment was not in the log and was appended now.
    pub relogged: u64,
    /// Log indices of queries and results after the newest known record that have no record here: files were lost.
    pub lost: Vec<u64>,
}

/// Proof of an intent: without one, no row.
#[derive(Debug, Clone)]
pub struct Receipt {
    number: u64,
    log_index: u64,
    /// Ascending.
    scope: Arc<[Scope]>,
    /// Where they stand in the record, if there are many.
    cohort: Option<Arc<Cohort>>,
    /// Of a polling client: its part in the record it shares.
    share: Option<Arc<Share>>,
}

impl Receipt {
    pub(crate) fn shared(&self, share: Share) -> Receipt {
        Receipt { share: Some(Arc::new(share)), ..self.clone() }
    }

    /// The number of the intent's record.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Where the intent's commitment is in the log.
    pub fn log_index(&self) -> u64 {
        self.log_index
    }
}

/// The audit. Share it in an `Arc`.
pub struct Audit {
    dir: PathBuf,
    ledger: Arc<dyn Ledger>,
    pub(crate) index: RwLock<Index>,
    queue: Mutex<Queue>,
    turn: Condvar,
    writer: Mutex<Writer>,
    opened: Opened,
    cohorts: Mutex<Cohorts>,
    /// The file that the next group will be in; whoever leads keeps it true.
    file: AtomicU32,
    pub(crate) polls: Polls,
    /// Held as long as the audit lives.
    _lock: File,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<(Draft, Arc<Slot>)>,
    is_led: bool,
}

type Slot = Mutex<Option<Result<Written, AuditError>>>;

#[derive(Debug, Clone)]
struct Written {
    number: u64,
    log_index: u64,
    cohort: Option<Arc<Cohort>>,
}

enum Draft {
    /// With the cohort of its scope, if it was named not long ago.
    Intent {
        intent: Intent,
        repeat_until_us: Option<i64>,
        cohort: Option<Arc<Cohort>>,
    },
    Completion {
        query: u64,
        completion: Completion,
        repeats: Option<u64>,
        cohort: Option<Arc<Cohort>>,
    },
    Refused(Refused),
}

impl Draft {
    /// The people that an intent names, if it is to be written to this file and they are many.
    fn names(&self, file: u32) -> Option<&Arc<[Scope]>> {
        match self {
            Draft::Intent { cohort: Some(cohort), .. } if cohort.file == file => None,
            Draft::Intent { intent, .. } => Some(&intent.scope).filter(|scope| scope.len() >= PEOPLE_MIN),
            _ => None,
        }
    }
}

struct Writer {
    files: Files,
    /// Durable records whose commitment the log has not confirmed, oldest first.
    unlogged: Vec<(u64, LogEntry)>,
    /// Links not yet written: they ride with the next group.
    links: Vec<Item>,
    /// Completions of intents that failed after they became durable: nothing was read.
    followups: Vec<Draft>,
}

impl Audit {
    /// Opens a directory: reads all records, cuts a torn tail, brings log and records together.
    pub fn open(options: impl Into<Options>, ledger: Arc<dyn Ledger>) -> Result<Audit, AuditError> {
        let Options { dir, file_bytes_max } = options.into();
        fs::create_dir_all(&dir).map_err(AuditError::io("create", &dir))?;
        let lock = lock(&dir)?;
        let mut loading = Loading::default();
        let (files, torn_bytes) =
            Files::open(&dir, file_bytes_max, |item, place| loading.take(item, place, &dir))?;
        let Loading { mut index, unlinked, newest_us } = loading;
        let mut opened = Opened { records: index.next(), newest_us, torn_bytes, ..Opened::default() };
        let mut links = Vec::new();
        let unlogged = match_log(&mut index, unlinked, ledger.as_ref(), &mut opened, &mut links)?;
        let mut writer = Writer { files, unlogged, links, followups: Vec::new() };
        opened.relogged = writer.unlogged.len() as u64;
        for (number, log_index) in writer.log(ledger.as_ref(), Vec::new())? {
            index.link(number, log_index);
        }
        if !opened.lost.is_empty() {
            tracing::error!(lost = opened.lost.len(), "the log has queries whose audit records are gone");
        }
        let file = AtomicU32::new(writer.files.next_file());
        Ok(Audit {
            dir,
            ledger,
            index: RwLock::new(index),
            queue: Mutex::default(),
            turn: Condvar::new(),
            writer: Mutex::new(writer),
            opened,
            cohorts: Mutex::default(),
            file,
            polls: Polls::default(),
            _lock: lock,
        })
    }

    /// What opening found and did.
    pub fn opened(&self) -> &Opened {
        &self.opened
    }

    /// Records that somebody is about to read. When it returns, the record is durable and its commitment in the log.
    pub fn intent(&self, intent: Intent) -> Result<Receipt, AuditError> {
        self.intend(intent, None)
    }

    pub(crate) fn intend(&self, intent: Intent, repeat_until_us: Option<i64>) -> Result<Receipt, AuditError> {
        bounded(intent.scope.len() + intent.withheld.len())?;
        let scope = intent.ascending();
        let cohort = self.cohorts.lock().find(&intent.scope);
        let Written { number, log_index, cohort } =
            self.commit(Draft::Intent { intent, repeat_until_us, cohort })?;
        Ok(Receipt { number, log_index, scope, cohort, share: None })
    }

    /// Records how a read ended; returns where in the log. Without this, assume that all was read. For a repeat of a
    /// polling client it is counted, recorded at the end of its window, and the intent's place is returned.
    pub fn complete(&self, receipt: &Receipt, completion: Completion) -> Result<u64, AuditError> {
        let outside = outside(&completion, &receipt.scope);
        if outside > 0 {
            return Err(AuditError::OutsideScope { subjects: outside });
        }
        match &receipt.share {
            Some(share) => self.complete_share(share, completion),
            None => self.write_completion(receipt, completion, None),
        }
    }

    pub(crate) fn write_completion(
        &self,
        receipt: &Receipt,
        completion: Completion,
        repeats: Option<u64>,
    ) -> Result<u64, AuditError> {
        let cohort = receipt.cohort.clone();
        let draft = Draft::Completion { query: receipt.number, completion, repeats, cohort };
        Ok(self.commit(draft)?.log_index)
    }

    /// Records that somebody asked and got nothing; returns where in the log.
    pub fn refused(&self, refused: Refused) -> Result<u64, AuditError> {
        bounded(refused.subjects.len())?;
        Ok(self.commit(Draft::Refused(refused))?.log_index)
    }

    /// Whether a failed write has closed the audit.
    pub fn is_poisoned(&self) -> bool {
        self.writer.lock().files.is_poisoned()
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn ledger(&self) -> &dyn Ledger {
        self.ledger.as_ref()
    }

    /// Waits in the queue until a leader has served it, or leads.
    fn commit(&self, draft: Draft) -> Result<Written, AuditError> {
        let slot: Arc<Slot> = Arc::default();
        let mut queue = self.queue.lock();
        queue.waiting.push_back((draft, Arc::clone(&slot)));
        loop {
            if let Some(result) = slot.lock().take() {
                return result;
            }
            if queue.is_led {
                self.turn.wait(&mut queue);
                continue;
            }
            queue.is_led = true;
            let room = (GROUP_BYTES_TARGET, self.file.load(Ordering::Acquire));
            self.refer(&mut queue.waiting, room.1);
            let (drafts, slots): (Vec<_>, Vec<_>) = take_group(&mut queue.waiting, room).into_iter().unzip();
            drop(queue);
            let results = self.write(drafts);
            for (slot, result) in slots.iter().zip(results) {
                *slot.lock() = Some(result);
            }
            queue = self.queue.lock();
            queue.is_led = false;
            self.turn.notify_all();
        }
    }

    /// Whoever waited while others had the very same people named refers to them.
    fn refer(&self, waiting: &mut VecDeque<(Draft, Arc<Slot>)>, file: u32) {
        let cohorts = self.cohorts.lock();
        for (draft, _) in waiting {
            if let Some(scope) = draft.names(file).cloned()
                && let Draft::Intent { cohort, .. } = draft
            {
                *cohort = cohorts.find_same(&scope);
            }
        }
    }

    /// Writes one group and logs it. One result per draft, in order.
    fn write(&self, mut drafts: Vec<Draft>) -> Vec<Result<Written, AuditError>> {
        let mut writer = self.writer.lock();
        let asked = drafts.len();
        // As long as the log takes nothing, nothing more is written: the backlog stays one group long.
        match writer.log(self.ledger.as_ref(), Vec::new()) {
            Ok(logged) => self.link(&logged),
            Err(error) => return fail_all(asked, error),
        }
        drafts.append(&mut writer.followups);
        let file = writer.files.next_file();
        let prepared = match self.prepare(&drafts, file) {
            Ok(prepared) => prepared,
            Err(error) => return fail_all(asked, error),
        };
        let mut items = writer.links.clone();
        let records = prepared.iter().flatten();
        items.extend(records.clone().map(|ready| ready.item.clone()));
        let places = match writer.files.append(&items) {
            Ok(places) => places,
            Err(error) => return fail_all(asked, error),
        };
        writer.links.clear();
        let mut index = self.index.write();
        for (ready, place) in records.clone().zip(places) {
            if let Err(error) = index.add(&ready.record, place) {
                return fail_all(asked, error);
            }
        }
        drop(index);
        self.file.store(writer.files.next_file(), Ordering::Release);
        self.remember(records);
        let entries = prepared.iter().flatten().map(|ready| (ready.number, ready.entry.clone())).collect();
        let logged = writer.log(self.ledger.as_ref(), entries);
        self.settle(&mut writer, drafts, prepared, logged, asked)
    }

    /// Takes note of whom these records name, for later ones to refer to.
    fn remember<'r>(&self, records: impl Iterator<Item = &'r Ready>) {
        let mut cohorts = self.cohorts.lock();
        for ready in records {
            let (Record::Intent(intent), Some(cohort)) = (&ready.record, &ready.cohort) else { continue };
            match &intent.like {
                None => cohorts.add(Arc::clone(cohort)),
                Some(like) if cohort.is_worn(like) => cohorts.forget(like.record),
                Some(_) => {}
            }
        }
    }

    fn link(&self, logged: &[(u64, u64)]) {
        let mut index = self.index.write();
        for (number, log_index) in logged {
            index.link(*number, *log_index);
        }
    }

    /// Numbers and encodes drafts for a file. A second completion of one query is refused here, where the order is known.
    fn prepare(&self, drafts: &[Draft], file: u32) -> Result<Vec<Option<Ready>>, AuditError> {
        let index = self.index.read();
        let log_size = self.ledger.size();
        let mut running = Running::new(&index);
        let mut completed: HashSet<u64> = HashSet::new();
        let mut next = index.next();
        let mut prepared = Vec::with_capacity(drafts.len());
        for draft in drafts {
            if let Draft::Completion { query, .. } = draft {
                let is_known = index.entry(*query).is_some_and(|intent| intent.completion.is_some());
                if is_known || !completed.insert(*query) {
                    prepared.push(None);
                    continue;
                }
            }
            prepared.push(Some(Ready::encode(draft, next, (file, log_size), &mut running)?));
            next += 1;
        }
        Ok(prepared)
    }

    /// Turns what the log said into results; intents it did not take get a completion that says nothing was read.
    fn settle(
        &self,
        writer: &mut Writer,
        drafts: Vec<Draft>,
        prepared: Vec<Option<Ready>>,
        logged: Result<Vec<(u64, u64)>, AuditError>,
        asked: usize,
    ) -> Vec<Result<Written, AuditError>> {
        let (pairs, failure) = match logged {
            Ok(pairs) => (pairs, None),
            Err(error) => (Vec::new(), Some(error)),
        };
        self.link(&pairs);
        let places: HashMap<u64, u64> = pairs.into_iter().collect();
        let mut results = Vec::with_capacity(drafts.len());
        for (draft, ready) in drafts.into_iter().zip(prepared) {
            results.push(match (ready, &failure) {
                (None, _) => Err(AuditError::AlreadyComplete),
                (Some(ready), Some(error)) => {
                    writer.followups.extend(never_started(&draft, ready.number));
                    Err(again(error))
                }
                (Some(ready), None) => match places.get(&ready.number) {
                    Some(log_index) => {
                        Ok(Written { number: ready.number, log_index: *log_index, cohort: ready.cohort })
                    }
                    None => Err(AuditError::Poisoned),
                },
            });
        }
        results.truncate(asked);
        results
    }
}

/// Running numbers while a group is made: what the index says, and what the group gave so far.
struct Running<'i> {
    index: &'i Index,
    /// By number of the trail: how many this group gave.
    given: Vec<u32>,
    /// Newest numbers of subjects who are new.
    fresh: HashMap<String, u64>,
}

impl<'i> Running<'i> {
    fn new(index: &'i Index) -> Running<'i> {
        Running { index, given: vec![0; index.trails.len()], fresh: HashMap::new() }
    }

    fn next(&mut self, subject: &str) -> u64 {
        if let Some(trail) = self.index.number(subject) {
            let next = self.peek(trail);
            self.give(trail);
            return next;
        }
        let newest = self.fresh.entry(subject.to_owned()).or_insert(0);
        *newest += 1;
        *newest
    }

    fn peek(&self, trail: u32) -> u64 {
        let newest = self.index.trails.get(trail as usize).map_or(0, |trail| trail.newest);
        newest + u64::from(self.given.get(trail as usize).copied().unwrap_or(0)) + 1
    }

    fn give(&mut self, trail: u32) {
        if let Some(given) = self.given.get_mut(trail as usize) {
            *given += 1;
        }
    }

    /// A reference to where the people of a cohort are named, if it is in this file; each gets their next number then.
    fn like(&mut self, cohort: &Cohort, file: u32) -> Option<Like> {
        let base = self.index.base(cohort.record, file).filter(|_| cohort.file == file)?;
        let next: Vec<u64> = base.trails.iter().map(|trail| self.peek(*trail)).collect();
        let like = base.like(cohort.record, &next);
        base.trails.iter().for_each(|trail| self.give(*trail));
        Some(like)
    }
}

/// A draft with its number, salt and bytes.
struct Ready {
    number: u64,
    record: Record,
    item: Item,
    entry: LogEntry,
    /// Of an intent: where its people stand.
    cohort: Option<Arc<Cohort>>,
}

impl Ready {
    fn encode(
        draft: &Draft,
        number: u64,
        (file, log_size): (u32, u64),
        running: &mut Running<'_>,
    ) -> Result<Ready, AuditError> {
        let mut salt = [0; 32];
        getrandom::fill(&mut salt).map_err(|_| AuditError::Random)?;
        let (record, epoch, cohort) = match draft {
            Draft::Intent { intent, repeat_until_us, cohort } => {
                let like = cohort.as_ref().and_then(|cohort| Some((running.like(cohort, file)?, cohort)));
                let mut number_of = |subject: &str| running.next(subject);
                let (record, cohort) = match like {
                    Some((like, cohort)) => {
                        let record =
                            record::intent_like(intent, *repeat_until_us, &salt, &mut number_of, like);
                        (record, Some(Arc::clone(cohort)))
                    }
                    None => {
                        let record = record::intent(intent, *repeat_until_us, &salt, &mut number_of);
                        (record, Cohort::of(intent, number, file).map(Arc::new))
                    }
                };
                (record, Some(intent.epoch), cohort)
            }
            Draft::Refused(refused) => {
                let record = record::refused(refused, &salt, &mut |subject| running.next(subject));
                (record, Some(refused.epoch), None)
            }
            Draft::Completion { query, completion, repeats, cohort } => {
                (record::completion(*query, completion, *repeats, cohort.as_deref()), None, None)
            }
        };
        // A struct of text and numbers always has a JSON text.
        let body = serde_json::to_vec(&record).map_err(|_| AuditError::Poisoned)?;
        let entry = log_entry(commitment(&salt, &body), epoch);
        let item = Item::Record { number, log_size, salt, body, refers: record.refers() };
        Ok(Ready { number, record, item, entry, cohort })
    }
}

pub(crate) fn log_entry(commitment: [u8; 32], epoch: Option<u64>) -> LogEntry {
    match epoch {
        Some(epoch) => LogEntry::Query { commitment, epoch },
        None => LogEntry::Result { commitment },
    }
}

impl Writer {
    /// Appends commitments, older unconfirmed ones first, and returns (record, log index) of all of them.
    fn log(&mut self, ledger: &dyn Ledger, new: Vec<(u64, LogEntry)>) -> Result<Vec<(u64, u64)>, AuditError> {
        self.unlogged.extend(new);
        if self.unlogged.is_empty() {
            return Ok(Vec::new());
        }
        let entries: Vec<LogEntry> = self.unlogged.iter().map(|(_, entry)| entry.clone()).collect();
        // On an error they stay here and are tried again: twice in the log is harmless, missing is not.
        let indices = ledger.append(&entries)?;
        let logged: Vec<(u64, u64)> = self
            .unlogged
            .drain(..)
            .zip(indices)
            .map(|((number, _), log_index)| (number, log_index))
            .collect();
        let links =
            logged.iter().map(|(number, log_index)| Item::Link { number: *number, log_index: *log_index });
        self.links.extend(links);
        Ok(logged)
    }
}

/// How many of a completion's subjects are not in scope. Both ascend, so it is one pass.
fn outside(completion: &Completion, scope: &[Scope]) -> usize {
    let mut scope = scope.iter().map(|scope| &scope.subject).peekable();
    let is_outside = |subject: &&Did| {
        while scope.next_if(|known| *known < *subject).is_some() {}
        scope.peek() != Some(subject)
    };
    completion.rows.keys().filter(is_outside).count()
}

fn bounded(subjects: usize) -> Result<(), AuditError> {
    if subjects > SUBJECTS_MAX {
        Err(AuditError::TooManySubjects { subjects, max: SUBJECTS_MAX })
    } else {
        Ok(())
    }
}

/// Takes what makes one group: the oldest, whatever its size, and as much as fits of the others, small before large,
/// and the long ends of reads last. So nobody is passed over, and a record of one person does not wait for a hundred of
/// thousands: after a revocation the ends of all it stopped are many and long, and so are the beginnings when they ask
/// again. Of those who hand in the very same people to be named, as clients that ask the same do, one does; the others
/// refer to that in a later group. `file` is the one the group goes to.
fn take_group(
    waiting: &mut VecDeque<(Draft, Arc<Slot>)>,
    (bytes_target, file): (usize, u32),
) -> Vec<(Draft, Arc<Slot>)> {
    let mut group: Vec<(Draft, Arc<Slot>)> = waiting.pop_front().into_iter().collect();
    let mut named: Vec<Arc<[Scope]>> =
        group.iter().filter_map(|(draft, _)| draft.names(file).cloned()).collect();
    let rank = |(draft, _): &(Draft, Arc<Slot>)| {
        let bytes = estimate(draft, file);
        (matches!(draft, Draft::Completion { .. }) && bytes > SMALL_BYTES, bytes)
    };
    let mut ranked: Vec<((bool, usize), usize)> = waiting.iter().map(rank).zip(0..).collect();
    ranked.sort_unstable();
    let mut room = bytes_target;
    let mut chosen: Vec<usize> = Vec::new();
    for ((_, bytes), at) in ranked {
        if let Some(scope) = waiting[at].0.names(file) {
            if named.iter().any(|other| Arc::ptr_eq(other, scope)) {
                continue;
            }
            named.push(Arc::clone(scope));
        }
        let Some(left) = room.checked_sub(bytes) else { break };
        room = left;
        chosen.push(at);
    }
    chosen.sort_unstable();
    // From the back, so that the places of the others stay what they are.
    let taken: Vec<_> = chosen.into_iter().rev().filter_map(|at| waiting.remove(at)).collect();
    group.extend(taken.into_iter().rev());
    group
}

/// Roughly how many bytes its record has, and not far below: groups are held in memory.
fn estimate(draft: &Draft, file: u32) -> usize {
    let (named, counted) = match draft {
        Draft::Intent { intent, cohort: Some(cohort), .. } if cohort.file == file => {
            (intent.withheld.len(), cohort.len())
        }
        Draft::Intent { intent, .. } => (intent.scope.len() + intent.withheld.len(), 0),
        Draft::Refused(refused) => (refused.subjects.len(), 0),
        Draft::Completion { completion, cohort: Some(_), .. } => (0, completion.rows.len()),
        Draft::Completion { completion, .. } => (completion.rows.len(), 0),
    };
    RECORD_BYTES + SUBJECT_BYTES * named + COUNT_BYTES * counted
}

fn never_started(draft: &Draft, number: u64) -> Option<Draft> {
    let Draft::Intent { intent, .. } = draft else { return None };
    let completion = Completion {
        outcome: Outcome::Error,
        rows: Default::default(),
        result_rows: 0,
        bytes: 0,
        ended_us: intent.started_us,
    };
    Some(Draft::Completion { query: number, completion, repeats: None, cohort: None })
}

/// One failure for everybody in the group: the first gets it as it is, the others learn its kind.
fn fail_all(asked: usize, error: AuditError) -> Vec<Result<Written, AuditError>> {
    let mut results: Vec<_> = (1..asked).map(|_| Err(again(&error))).collect();
    results.insert(0, Err(error));
    results.truncate(asked);
    results
}

fn again(error: &AuditError) -> AuditError {
    match error {
        AuditError::Ledger(error) => AuditError::Ledger(error.clone()),
        AuditError::Random => AuditError::Random,
        AuditError::Full => AuditError::Full,
        _ => AuditError::Poisoned,
    }
}

#[cfg(test)]
mod tests {
    use schemas_identity::SecretKey;

    use super::*;

    fn draft(query: u64, people: u8) -> Draft {
        let rows = (0..people).map(|seed| (SecretKey::from_seed(&[seed; 32]).public().did(), 1)).collect();
        let completion =
            Completion { outcome: Outcome::Released, rows, result_rows: 0, bytes: 0, ended_us: 0 };
        Draft::Completion { query, completion, repeats: None, cohort: None }
    }

    fn refused(subjects: u8) -> Draft {
        let did = |seed: u8| SecretKey::from_seed(&[seed; 32]).public().did();
        Draft::Refused(Refused {
            recipient: did(200),
            voucher: None,
            token_id: String::new(),
            purpose: String::new(),
            study: None,
            sql: String::new(),
            subjects: (0..subjects).map(did).collect(),
            reason: String::new(),
            epoch: 1,
            at_us: 0,
        })
    }

    fn intent(scope: Vec<Scope>) -> Intent {
        Intent {
            recipient: SecretKey::from_seed(&[1; 32]).public().did(),
            voucher: None,
            token_id: String::new(),
            purpose: String::new(),
            study: None,
            sql: String::new(),
            scope: scope.into(),
            withheld: Vec::new(),
            epoch: 1,
            log_size: 0,
            started_us: 0,
        }
    }

    /// Guarantee: the oldest is in every group, what is small comes before long ends, and all are taken in the end.
    #[test]
    fn groups_pass_nobody_over() {
        let mut waiting: VecDeque<(Draft, Arc<Slot>)> =
            (0..5).map(|query| (draft(query, 40), Arc::default())).collect();
        waiting.push_back((refused(3), Arc::default()));
        let target = estimate(&draft(0, 40), 1) + estimate(&refused(3), 1);
        let (mut oldest, mut groups) = (0, 0);
        while !waiting.is_empty() {
            let group = take_group(&mut waiting, (target, 1));
            let queries: Vec<u64> = group
                .iter()
                .filter_map(|(draft, _)| match draft {
                    Draft::Completion { query, .. } => Some(*query),
                    _ => None,
                })
                .collect();
            assert_eq!(queries.first(), Some(&oldest), "{queries:?}");
            assert!(queries.is_sorted());
            let is_first = groups == 0;
            assert_eq!(group.iter().any(|(draft, _)| matches!(draft, Draft::Refused(_))), is_first);
            oldest += queries.len() as u64;
            groups += 1;
        }
        assert_eq!((oldest, groups), (5, 3));
    }

    /// Guarantee: the end of a small read does not wait for the beginnings of large ones, of which those that would
    /// name the same people are not in one group.
    #[test]
    fn a_small_end_passes_large_beginnings() {
        let scope = |seed: u8| Scope {
            subject: SecretKey::from_seed(&[seed; 32]).public().did(),
            signals: schemas_signals::SignalSet::EMPTY,
            from_us: 0,
            to_us: 1,
        };
        let everybody: [Arc<[Scope]>; 2] = [(0..40).map(scope).collect(), (0..41).map(scope).collect()];
        let large = |people: &Arc<[Scope]>| Draft::Intent {
            intent: Intent { scope: Arc::clone(people), ..intent(Vec::new()) },
            repeat_until_us: None,
            cohort: None,
        };
        let kinds = |group: Vec<(Draft, Arc<Slot>)>| -> Vec<usize> {
            group
                .iter()
                .map(|(draft, _)| match draft {
                    Draft::Intent { intent, .. } => intent.scope.len(),
                    _ => 0,
                })
                .collect()
        };
        let small = estimate(&draft(9, 1), 1);
        let both = small + estimate(&large(&everybody[1]), 1);
        for (target, first, second) in
            [(small, [40, 0].as_slice(), [40, 41].as_slice()), (both, &[40, 41, 0], &[40])]
        {
            let drafts = [0, 0, 0, 1].map(|who| large(&everybody[who])).into_iter().chain([draft(9, 1)]);
            let mut waiting = drafts.map(|draft| (draft, Arc::default())).collect();
            assert_eq!(kinds(take_group(&mut waiting, (target, 1))), first);
            assert_eq!(kinds(take_group(&mut waiting, (both, 1))), second);
            assert_eq!(kinds(take_group(&mut waiting, (both, 1))), [40]);
        }
    }

    /// Guarantee: an intent whose people would have to be named again, in a new file, is not taken for a small one: a
    /// hundred of them at once would make a group that is too large to be read.
    #[test]
    fn people_of_another_file_count_by_name() {
        let mut subjects: Vec<Did> =
            (0..40_u8).map(|seed| SecretKey::from_seed(&[seed; 32]).public().did()).collect();
        subjects.sort_unstable();
        let of = |subject: &Did| Scope {
            subject: *subject,
            signals: schemas_signals::SignalSet::EMPTY,
            from_us: 0,
            to_us: 1,
        };
        let intent = intent(subjects.iter().map(of).collect());
        let cohort = Cohort::of(&intent, 0, 1).map(Arc::new);
        let draft = |cohort| Draft::Intent { intent: intent.clone(), repeat_until_us: None, cohort };
        let named = estimate(&draft(None), 1);
        assert_eq!(estimate(&draft(cohort.clone()), 2), named);
        assert!(named - estimate(&draft(cohort), 1) > 40 * 80);
    }
}
