//! The JSON of a record: what the commitment in the log commits to. One field order, no optional spelling.
//!
//! Each subject stands with its own running number, so that a person who reads only their own part sees a missing record.
//! Subjects are text here: reading a record must not cost a curve operation per person.

use std::collections::BTreeMap;

use schemas_identity::Did;
use schemas_signals::Registry;
use serde::{Deserialize, Serialize};

use crate::cohort::Cohort;
use crate::entry::{Completion, Intent, Refused, Scope, Voucher};
use crate::normalise::normalise;

/// Longest name (token, purpose, study, reason) kept, in bytes.
const NAME_BYTES_MAX: usize = 256;

/// A subject and its running number, or a subject and its rows.
pub(crate) type Counted = (String, u64);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "lowercase")]
pub(crate) enum Record {
    Intent(IntentRecord),
    Completion(CompletionRecord),
    Refused(RefusedRecord),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Asked {
    pub(crate) recipient: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) vouched: Option<VouchedFor>,
    pub(crate) token: String,
    pub(crate) purpose: String,
    pub(crate) study: Option<String>,
    pub(crate) sql: String,
    /// BLAKE3 of the full text, keyed with the record's salt: nobody without the salt can test a guess.
    pub(crate) sql_hash: String,
    pub(crate) epoch: u64,
}

#[cfg(test)]
impl Asked {
    /// Of nobody, about nothing.
    pub(crate) fn blank() -> Asked {
        Asked {
            recipient: String::new(),
            vouched: None,
            token: String::new(),
            purpose: String::new(),
            study: None,
            sql: String::new(),
            sql_hash: String::new(),
            epoch: 0,
        }
    }
}

/// A recipient without a key: who vouched for them, and as what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VouchedFor {
    /// The identity provider.
    pub issuer: String,
    /// Roles of the token, as the operator had them then.
    pub roles: Vec<VouchedRole>,
}

/// A role as it was when it was used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VouchedRole {
    /// Its name.
    pub role: String,
    /// Its title.
    pub title: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct IntentRecord {
    pub(crate) asked: Asked,
    pub(crate) scope: Vec<ScopeRecord>,
    pub(crate) withheld: Vec<Counted>,
    pub(crate) log_size: u64,
    pub(crate) started_us: i64,
    /// Until when the same may be asked again under this record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) repeat_until_us: Option<i64>,
    /// In place of `scope`, which is empty then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) like: Option<Like>,
}

/// The very scope of another intent: the same people at the same places.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Like {
    /// The intent's record.
    pub(crate) record: u64,
    /// What each running number there is raised by,
    pub(crate) plus: u64,
    /// but for these places, which have these numbers. Ascending.
    pub(crate) other: Vec<(u32, u64)>,
}

impl Like {
    /// The running number at a place that has `number` in the record referred to.
    pub(crate) fn number(&self, place: usize, number: u64) -> u64 {
        let other = self.other.binary_search_by_key(&place, |(place, _)| *place as usize);
        match other.ok().and_then(|at| self.other.get(at)) {
            Some((_, number)) => *number,
            None => number.saturating_add(self.plus),
        }
    }
}

/// Subjects with one and the same scope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ScopeRecord {
    pub(crate) signals: Vec<String>,
    pub(crate) from_us: Option<i64>,
    pub(crate) to_us: Option<i64>,
    pub(crate) subjects: Vec<Counted>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CompletionRecord {
    /// Number of the intent's record.
    pub(crate) query: u64,
    pub(crate) outcome: String,
    pub(crate) rows: Vec<Counted>,
    /// In place of `rows`, which is empty then: by place in the intent's scope, 0 for those past the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) counts: Option<Vec<u64>>,
    pub(crate) result_rows: u64,
    pub(crate) bytes: u64,
    pub(crate) ended_us: i64,
    /// How many requests the counts are of; nothing is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) repeats: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RefusedRecord {
    pub(crate) asked: Asked,
    pub(crate) subjects: Vec<Counted>,
    pub(crate) reason: String,
    pub(crate) at_us: i64,
}

impl Record {
    /// Whether it is to be read together with another record.
    pub(crate) fn refers(&self) -> bool {
        match self {
            Record::Intent(intent) => intent.like.is_some(),
            Record::Completion(completion) => completion.counts.is_some(),
            Record::Refused(_) => false,
        }
    }

    /// Every subject that the record names, with its running number: first the scope, place by place. A completion concerns
    /// those of its intent.
    pub(crate) fn numbered(&self) -> Box<dyn Iterator<Item = &Counted> + '_> {
        match self {
            Record::Intent(intent) => {
                Box::new(intent.scope.iter().flat_map(|scope| &scope.subjects).chain(&intent.withheld))
            }
            Record::Completion(_) => Box::new(std::iter::empty()),
            Record::Refused(refused) => Box::new(refused.subjects.iter()),
        }
    }
}

/// Who stands where in an intent's record: subjects with the same scope beside each other, in the order handed in.
fn grouped(scope: &[Scope]) -> BTreeMap<(Vec<u32>, i64, i64), Vec<usize>> {
    let mut groups: BTreeMap<(Vec<u32>, i64, i64), Vec<usize>> = BTreeMap::new();
    let is_alike = |one: &Scope, next: &Scope| {
        (one.signals, one.from_us, one.to_us) == (next.signals, next.from_us, next.to_us)
    };
    let mut first = 0;
    for alike in scope.chunk_by(is_alike) {
        let [Scope { signals, from_us, to_us, .. }, ..] = alike else { continue };
        let group = groups.entry((signals.iter().collect(), *from_us, *to_us)).or_default();
        group.extend(first..first + alike.len());
        first += alike.len();
    }
    groups
}

/// The place of each subject of a scope in its record.
pub(crate) fn places(scope: &[Scope]) -> Vec<u32> {
    let mut places = vec![0; scope.len()];
    for (place, at) in (0..).zip(grouped(scope).into_values().flatten()) {
        places[at] = place;
    }
    places
}

/// A record of an intent that names its people. `number` gives each subject its next running number.
pub(crate) fn intent(
    intent: &Intent,
    repeat_until_us: Option<i64>,
    salt: &[u8; 32],
    number: &mut impl FnMut(&str) -> u64,
) -> Record {
    let scope = grouped(&intent.scope).into_iter().map(|((signals, from_us, to_us), members)| ScopeRecord {
        signals: signals.iter().map(|id| signal_name(*id)).collect(),
        from_us: (from_us != i64::MIN).then_some(from_us),
        to_us: (to_us != i64::MAX).then_some(to_us),
        subjects: members.iter().map(|at| numbered(&intent.scope[*at].subject, number)).collect(),
    });
    let scope = scope.collect();
    intent_with(intent, repeat_until_us, salt, number, (scope, None))
}

/// A record of an intent that refers to another for its people.
pub(crate) fn intent_like(
    intent: &Intent,
    repeat_until_us: Option<i64>,
    salt: &[u8; 32],
    number: &mut impl FnMut(&str) -> u64,
    like: Like,
) -> Record {
    intent_with(intent, repeat_until_us, salt, number, (Vec::new(), Some(like)))
}

fn intent_with(
    intent: &Intent,
    repeat_until_us: Option<i64>,
    salt: &[u8; 32],
    number: &mut impl FnMut(&str) -> u64,
    (scope, like): (Vec<ScopeRecord>, Option<Like>),
) -> Record {
    Record::Intent(IntentRecord {
        scope,
        withheld: intent.withheld.iter().map(|subject| numbered(subject, number)).collect(),
        asked: Asked {
            recipient: intent.recipient.to_string(),
            vouched: intent.voucher.as_ref().map(vouched_for),
            token: clip(&intent.token_id),
            purpose: clip(&intent.purpose),
            study: intent.study.as_deref().map(clip),
            sql: normalise(&intent.sql),
            sql_hash: sql_hash(salt, &intent.sql),
            epoch: intent.epoch,
        },
        log_size: intent.log_size,
        started_us: intent.started_us,
        repeat_until_us,
        like,
    })
}

/// A record of a refused attempt.
pub(crate) fn refused(refused: &Refused, salt: &[u8; 32], number: &mut impl FnMut(&str) -> u64) -> Record {
    Record::Refused(RefusedRecord {
        subjects: refused.subjects.iter().map(|subject| numbered(subject, number)).collect(),
        asked: Asked {
            recipient: refused.recipient.to_string(),
            vouched: refused.voucher.as_ref().map(vouched_for),
            token: clip(&refused.token_id),
            purpose: clip(&refused.purpose),
            study: refused.study.as_deref().map(clip),
            sql: normalise(&refused.sql),
            sql_hash: sql_hash(salt, &refused.sql),
            epoch: refused.epoch,
        },
        reason: clip(&refused.reason),
        at_us: refused.at_us,
    })
}

/// A record of a completion; with a cohort, whose places the intent's record has, counts may go by place.
pub(crate) fn completion(
    query: u64,
    completion: &Completion,
    repeats: Option<u64>,
    cohort: Option<&Cohort>,
) -> Record {
    let counts = cohort.and_then(|cohort| cohort.counts(&completion.rows));
    let named = if counts.is_none() { Some(&completion.rows) } else { None };
    Record::Completion(CompletionRecord {
        query,
        outcome: completion.outcome.as_str().to_owned(),
        rows: named.into_iter().flatten().map(|(subject, rows)| (subject.to_string(), *rows)).collect(),
        counts,
        result_rows: completion.result_rows,
        bytes: completion.bytes,
        ended_us: completion.ended_us,
        repeats,
    })
}

fn vouched_for(voucher: &Voucher) -> VouchedFor {
    let role = |(role, title): &(String, String)| VouchedRole { role: clip(role), title: clip(title) };
    VouchedFor { issuer: clip(&voucher.issuer), roles: voucher.roles.iter().map(role).collect() }
}

fn numbered(subject: &Did, number: &mut impl FnMut(&str) -> u64) -> Counted {
    let name = subject.to_string();
    let next = number(&name);
    (name, next)
}

fn signal_name(id: u32) -> String {
    match Registry::builtin().by_id(id) {
        Some(signal) => signal.name.clone(),
        None => id.to_string(),
    }
}

fn sql_hash(salt: &[u8; 32], sql: &str) -> String {
    hex::encode(blake3::keyed_hash(salt, sql.as_bytes()).as_bytes())
}

fn clip(text: &str) -> String {
    text.get(..text.floor_char_boundary(NAME_BYTES_MAX)).unwrap_or_default().to_owned()
}
