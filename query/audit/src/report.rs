//! What one subject may see: every access that concerned it, and nothing of anybody else.
//!
//! Left out on purpose: the SQL text, other subjects, totals over them, and the record's salt. An intent without its
//! completion reads "assume all was read". A gap in the running numbers shows as missing.

use schemas_identity::Did;
use serde::Serialize;

use crate::audit::Audit;
use crate::entry::Outcome;
use crate::error::AuditError;
use crate::file;
use crate::record::{Asked, Counted, IntentRecord, Record, ScopeRecord, VouchedFor};

/// Most accesses on one page.
pub const PAGE_MAX: usize = 200;
/// A page ends early once so many bytes of records were read for it.
const PAGE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Which part of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// How many of the oldest to skip: [`Report::next`] of the page before.
    pub after: u64,
    /// How many at most; no more than [`PAGE_MAX`].
    pub limit: usize,
}

impl Default for Page {
    fn default() -> Page {
        Page { after: 0, limit: PAGE_MAX }
    }
}

/// One page of a subject's accesses, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The accesses.
    pub accesses: Vec<Access>,
    /// The running number of the newest one there is.
    pub newest: u64,
    /// Running numbers that should be there and are not, as inclusive ranges: records were lost or removed.
    pub missing: Vec<(u64, u64)>,
    /// Queries and results of anybody that the log names and that have no record here. Whom they concerned is lost too.
    pub lost: u64,
    /// What to pass as [`Page::after`] for the next page; nothing if this is the last.
    pub next: Option<u64>,
}

/// One access to one subject, as the subject sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Access {
    /// The subject's own running number: 1, 2, 3 and so on without a gap.
    pub number: u64,
    /// Who.
    pub recipient: String,
    /// Who vouched for them and as what, if they have no key of their own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vouched: Option<VouchedFor>,
    /// For which purpose.
    pub purpose: String,
    /// In which study's name.
    pub study: Option<String>,
    /// When it began, microseconds since 1970 UTC.
    pub started_us: i64,
    /// When it ended, if that was recorded.
    pub ended_us: Option<i64>,
    /// Until when it may be asked again under this one record, if the recipient polls.
    pub repeat_until_us: Option<i64>,
    /// How many requests it stands for, exactly; nothing if not recorded.
    pub repeats: Option<u64>,
    /// Which signals were open to it; none if refused.
    pub signals: Vec<String>,
    /// From which sample time; nothing is open.
    pub from_us: Option<i64>,
    /// Before which sample time; nothing is open.
    pub to_us: Option<i64>,
    /// Rows of this subject that were read, exactly; nothing if not recorded.
    pub rows: Option<u64>,
    /// How it ended.
    pub outcome: Seen,
    /// Why it was refused.
    pub reason: Option<String>,
    /// The consent epoch it rested on.
    pub epoch: u64,
    /// Where its commitment is in the log; nothing while the log has not confirmed it.
    pub log_index: Option<u64>,
    /// The same of its completion.
    pub result_index: Option<u64>,
    /// The revocation that came after it: what was released is not called back. See [`Report::settle`].
    pub withdrawn: Option<Withdrawn>,
}

/// A revocation of a grant that covers an earlier access.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Withdrawn {
    /// Id of the revocation.
    pub statement: String,
    /// Its place in the log, after the access.
    pub log_index: u64,
}

/// How an access ended, to its subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Seen {
    /// Completed; the rows left.
    Released,
    /// Failed; the rows counted may have left.
    Error,
    /// The recipient went away; the rows counted may have left.
    Cancelled,
    /// Stopped by a change of consent; the rows counted may have left.
    Revoked,
    /// Still running, or its end was never recorded: assume that all was read.
    AssumeAllWasRead,
    /// Asked for and not given.
    Refused,
}

impl From<Outcome> for Seen {
    fn from(outcome: Outcome) -> Seen {
        match outcome {
            Outcome::Released => Seen::Released,
            Outcome::Error => Seen::Error,
            Outcome::Cancelled => Seen::Cancelled,
            Outcome::Revoked => Seen::Revoked,
        }
    }
}

/// What stands in the place of a name that only the recipient claims: a report is no letterbox for its text.
pub(crate) const UNRECOGNISED: &str = "unrecognised";
/// Why a subject of a query's withheld list was refused.
const WITHHELD: &str = "no grant in force";

impl Audit {
    /// One page of what concerned a subject. The caller makes sure that the subject is the one who asks.
    pub fn report(&self, subject: &Did, page: Page) -> Result<Report, AuditError> {
        let name = subject.to_string();
        let (records, newest, missing) = {
            let index = self.index.read();
            let Some(trail) = index.trail(&name) else {
                return Ok(Report { lost: self.lost(), ..Report::default() });
            };
            let skipped = usize::try_from(page.after).unwrap_or(usize::MAX).min(trail.records.len());
            // One more than fits, to know whether there is a next page.
            let wanted = page.limit.clamp(1, PAGE_MAX) + 1;
            let records: Vec<u32> = trail.records.iter().skip(skipped).take(wanted).copied().collect();
            (records, trail.newest, trail.missing.clone())
        };
        let shown = records.len().min(page.limit.clamp(1, PAGE_MAX));
        let (mut accesses, mut read_records) = (Vec::new(), 0);
        let mut reading = Reading { audit: self, subject: &name, bytes: 0, base: None };
        for number in records.iter().take(shown) {
            if reading.bytes > PAGE_BYTES_MAX {
                break;
            }
            accesses.extend(reading.access(u64::from(*number))?);
            read_records += 1;
        }
        let next = (read_records < records.len()).then_some(page.after + read_records as u64);
        Ok(Report { accesses, newest, missing, lost: self.lost(), next })
    }

    fn lost(&self) -> u64 {
        self.opened().lost.len() as u64
    }

    /// Reads one record from disk.
    pub(crate) fn record(&self, number: u64) -> Result<(Option<Record>, u64), AuditError> {
        let Some(entry) = self.index.read().entry(number).copied() else { return Ok((None, 0)) };
        let (_, body) = file::read(self.dir(), entry.place)?;
        // It read when it was written or opened; if it no longer does, the file was changed underneath.
        let record = serde_json::from_slice(&body).map_err(|_| AuditError::Corrupt {
            path: self.dir().to_owned(),
            offset: entry.place.offset,
            problem: "a record that does not read",
        })?;
        Ok((Some(record), body.len() as u64))
    }
}

/// Reads a subject's parts of records, one after the other.
struct Reading<'a> {
    audit: &'a Audit,
    subject: &'a str,
    /// How many bytes were read.
    bytes: u64,
    /// The record that the last reference led to, and the subject's place in it: the next one often leads there too.
    base: Option<(u64, Option<Standing>)>,
}

/// Where somebody stands in the scope of an intent.
#[derive(Clone)]
struct Standing {
    number: u64,
    place: usize,
    /// Without the people.
    scope: ScopeRecord,
}

impl Standing {
    fn of(scope: &[ScopeRecord], subject: &str) -> Option<Standing> {
        let mut first = 0;
        for part in scope {
            if let Some(at) = part.subjects.iter().position(|(name, _)| name == subject) {
                let scope = ScopeRecord { subjects: Vec::new(), signals: part.signals.clone(), ..*part };
                return Some(Standing { number: part.subjects[at].1, place: first + at, scope });
            }
            first += part.subjects.len();
        }
        None
    }
}

impl Reading<'_> {
    fn record(&mut self, number: u64) -> Result<Option<Record>, AuditError> {
        let (record, bytes) = self.audit.record(number)?;
        self.bytes += bytes;
        Ok(record)
    }

    /// Where the subject stands in an intent's scope, or in that of the intent it refers to.
    fn standing(&mut self, intent: &IntentRecord) -> Result<Option<Standing>, AuditError> {
        let Some(like) = &intent.like else { return Ok(Standing::of(&intent.scope, self.subject)) };
        let known = self.base.take().filter(|(record, _)| *record == like.record);
        let base = match known {
            Some((_, base)) => base,
            None => match self.record(like.record)? {
                Some(Record::Intent(base)) => Standing::of(&base.scope, self.subject),
                _ => None,
            },
        };
        self.base = Some((like.record, base.clone()));
        Ok(base.map(|base| Standing { number: like.number(base.place, base.number), ..base }))
    }

    /// A subject's part of one record.
    fn access(&mut self, number: u64) -> Result<Option<Access>, AuditError> {
        let Some(entry) = self.audit.index.read().entry(number).copied() else { return Ok(None) };
        let (mut access, place) = match self.record(number)? {
            Some(Record::Intent(intent)) => match self.standing(&intent)? {
                Some(standing) => {
                    let access = of_scope(standing.number, standing.scope, intent.asked, intent.started_us);
                    (Access { repeat_until_us: intent.repeat_until_us, ..access }, standing.place)
                }
                None => match find(&intent.withheld, self.subject) {
                    Some(running) => (of_refused(running, WITHHELD, intent.asked, intent.started_us), 0),
                    None => return Ok(None),
                },
            },
            Some(Record::Refused(refused)) => match find(&refused.subjects, self.subject) {
                Some(running) => (of_refused(running, &refused.reason, refused.asked, refused.at_us), 0),
                None => return Ok(None),
            },
            _ => return Ok(None),
        };
        access.log_index = entry.log_index;
        if let (Seen::AssumeAllWasRead, Some(completion)) = (access.outcome, entry.completion) {
            self.fill_in(&mut access, u64::from(completion), place)?;
        }
        Ok(Some(access))
    }

    /// Adds what the completion says about the subject, who stands at this place of the intent.
    fn fill_in(&mut self, access: &mut Access, completion: u64, place: usize) -> Result<(), AuditError> {
        let log_index = self.audit.index.read().entry(completion).and_then(|entry| entry.log_index);
        if let Some(Record::Completion(completion)) = self.record(completion)?
            && let Some(outcome) = Outcome::parse(&completion.outcome)
        {
            let rows = match &completion.counts {
                Some(counts) => counts.get(place).copied(),
                None => find(&completion.rows, self.subject),
            };
            access.outcome = outcome.into();
            access.rows = Some(rows.unwrap_or(0));
            access.repeats = Some(completion.repeats.unwrap_or(1));
            access.ended_us = Some(completion.ended_us);
            access.result_index = log_index;
        }
        Ok(())
    }
}

fn find(counted: &[Counted], subject: &str) -> Option<u64> {
    counted.iter().find(|(name, _)| name == subject).map(|(_, count)| *count)
}

fn known_purpose(purpose: String) -> String {
    if schemas_consent::terms::is_purpose(&purpose) { purpose } else { UNRECOGNISED.to_owned() }
}

fn of_scope(number: u64, scope: ScopeRecord, asked: Asked, started_us: i64) -> Access {
    Access {
        signals: scope.signals,
        from_us: scope.from_us,
        to_us: scope.to_us,
        ..blank(number, asked, started_us)
    }
}

fn of_refused(number: u64, reason: &str, asked: Asked, at_us: i64) -> Access {
    Access {
        rows: Some(0),
        repeats: Some(1),
        ended_us: Some(at_us),
        outcome: Seen::Refused,
        reason: Some(reason.to_owned()),
        ..blank(number, asked, at_us)
    }
}

fn blank(number: u64, asked: Asked, started_us: i64) -> Access {
    Access {
        number,
        recipient: asked.recipient,
        vouched: asked.vouched,
        purpose: known_purpose(asked.purpose),
        study: asked.study,
        started_us,
        ended_us: None,
        repeat_until_us: None,
        repeats: None,
        signals: Vec::new(),
        from_us: None,
        to_us: None,
        rows: None,
        outcome: Seen::AssumeAllWasRead,
        reason: None,
        epoch: asked.epoch,
        log_index: None,
        result_index: None,
        withdrawn: None,
    }
}
