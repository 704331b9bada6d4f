//! The JSON of a record: what the commitment in the log commits to. One field order, no optional spelling.
//!
//! Each subject stands with its own running number, so that a person who reads only their own part sees a missing record.
//! Subjects are text here: reading a record must not cost a curve operation per person.

use std::collections::BTreeMap;

use schemas_identity::Did;
use schemas_signals::Registry;
use serde::{Deserialize, Serialize};

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
    /// Every subject the record concerns, with its running number. A completion concerns those of its intent.
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

/// A record of an intent. `number` gives each subject its next running number.
pub(crate) fn intent(
    intent: &Intent,
    repeat_until_us: Option<i64>,
    salt: &[u8; 32],
    number: &mut impl FnMut(&str) -> u64,
) -> Record {
    let mut groups: BTreeMap<(Vec<u32>, i64, i64), Vec<Counted>> = BTreeMap::new();
    let is_alike = |one: &Scope, next: &Scope| {
        (one.signals, one.from_us, one.to_us) == (next.signals, next.from_us, next.to_us)
    };
    for alike in intent.scope.chunk_by(is_alike) {
        let [Scope { signals, from_us, to_us, .. }, ..] = alike else { continue };
        let group = groups.entry((signals.iter().collect(), *from_us, *to_us)).or_default();
        group.extend(alike.iter().map(|scope| numbered(&scope.subject, number)));
    }
    let scope = groups.into_iter().map(|((signals, from_us, to_us), subjects)| ScopeRecord {
        signals: signals.iter().map(|id| signal_name(*id)).collect(),
        from_us: (from_us != i64::MIN).then_some(from_us),
        to_us: (to_us != i64::MAX).then_some(to_us),
        subjects,
    });
    Record::Intent(IntentRecord {
        scope: scope.collect(),
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

/// A record of a completion.
pub(crate) fn completion(query: u64, completion: &Completion, repeats: Option<u64>) -> Record {
    Record::Completion(CompletionRecord {
        query,
        outcome: completion.outcome.as_str().to_owned(),
        rows: completion.rows.iter().map(|(subject, rows)| (subject.to_string(), *rows)).collect(),
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
