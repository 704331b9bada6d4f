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
use crate::record::{Asked, Counted, Record, ScopeRecord, VouchedFor};

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
            let Some(trail) = index.trails.get(name.as_str()) else {
                return Ok(Report { lost: self.lost(), ..Report::default() });
            };
            let skipped = usize::try_from(page.after).unwrap_or(usize::MAX).min(trail.records.len());
            // One more than fits, to know whether there is a next page.
            let wanted = page.limit.clamp(1, PAGE_MAX) + 1;
            let records: Vec<u32> = trail.records.iter().skip(skipped).take(wanted).copied().collect();
            (records, trail.newest, trail.missing.clone())
        };
        let shown = records.len().min(page.limit.clamp(1, PAGE_MAX));
        let (mut accesses, mut bytes, mut read_records) = (Vec::new(), 0, 0);
        for number in records.iter().take(shown) {
            if bytes > PAGE_BYTES_MAX {
                break;
            }
            let (access, read) = self.access(u64::from(*number), &name)?;
            bytes += read;
            read_records += 1;
            accesses.extend(access);
        }
        let next = (read_records < records.len()).then_some(page.after + read_records as u64);
        Ok(Report { accesses, newest, missing, lost: self.lost(), next })
    }

    fn lost(&self) -> u64 {
        self.opened().lost.len() as u64
    }

    /// A subject's part of one record, and how many bytes were read for it.
    fn access(&self, number: u64, subject: &str) -> Result<(Option<Access>, u64), AuditError> {
        let Some(entry) = self.index.read().entry(number).copied() else { return Ok((None, 0)) };
        let (record, mut bytes) = self.record(number)?;
        let mut access = match record {
            Some(Record::Intent(intent)) => {
                let in_scope =
                    intent.scope.iter().find_map(|scope| Some((find(&scope.subjects, subject)?, scope)));
                match in_scope {
                    Some((running, scope)) => Access {
                        repeat_until_us: intent.repeat_until_us,
                        ..of_scope(running, scope, intent.asked, intent.started_us)
                    },
                    None => match find(&intent.withheld, subject) {
                        Some(running) => of_refused(running, WITHHELD, intent.asked, intent.started_us),
                        None => return Ok((None, bytes)),
                    },
                }
            }
            Some(Record::Refused(refused)) => match find(&refused.subjects, subject) {
                Some(running) => of_refused(running, &refused.reason, refused.asked, refused.at_us),
                None => return Ok((None, bytes)),
            },
            _ => return Ok((None, bytes)),
        };
        access.log_index = entry.log_index;
        if let (Seen::AssumeAllWasRead, Some(completion)) = (access.outcome, entry.completion) {
            bytes += self.fill_in(&mut access, u64::from(completion), subject)?;
        }
        Ok((Some(access), bytes))
    }

    /// Adds what the completion says about the subject.
    fn fill_in(&self, access: &mut Access, completion: u64, subject: &str) -> Result<u64, AuditError> {
        let log_index = self.index.read().entry(completion).and_then(|entry| entry.log_index);
        let (record, bytes) = self.record(completion)?;
        if let Some(Record::Completion(completion)) = record
            && let Some(outcome) = Outcome::parse(&completion.outcome)
        {
            access.outcome = outcome.into();
            access.rows = Some(find(&completion.rows, subject).unwrap_or(0));
            access.repeats = Some(completion.repeats.unwrap_or(1));
            access.ended_us = Some(completion.ended_us);
            access.result_index = log_index;
        }
        Ok(bytes)
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

fn find(counted: &[Counted], subject: &str) -> Option<u64> {
    counted.iter().find(|(name, _)| name == subject).map(|(_, count)| *count)
}

fn known_purpose(purpose: String) -> String {
    if schemas_consent::terms::is_purpose(&purpose) { purpose } else { UNRECOGNISED.to_owned() }
}

fn of_scope(number: u64, scope: &ScopeRecord, asked: Asked, started_us: i64) -> Access {
    Access {
        signals: scope.signals.clone(),
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
