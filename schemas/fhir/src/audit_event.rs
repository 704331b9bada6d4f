//! One access to one person as an `AuditEvent`, made for that person: nobody else is in it.
//!
//! | ours | `AuditEvent` |
//! |---|---|
//! | any access | `type` DCM 110112 (Query), `action` E (the query was executed, not a record opened) |
//! | time of the intent, which is durable before a row leaves | `recorded`, `period.start` |
//! | end | `period.end`; left out as long as no end is recorded |
//! | released, or no end recorded: assume that all was read | `outcome` 0 |
//! | error, reader gone, consent changed: rows counted may have left | `outcome` 4 |
//! | refused | `outcome` 8 |
//! | recipient | `agent`, requestor, type IRCP, by did:key |
//! | who vouched for a recipient without a key, and as what | `agent.who.identifier.assigner`, `agent.role` |
//! | purpose | `purposeOfEvent`, v3-ActReason |
//! | the deployment | `source.observer`, by the name of its log |
//! | the person | `entity` of role 1 (Patient) |
//! | study, signals, times, rows, numbers, log indices | `detail` of an `entity` of role 24 (Query) |
//!
//! The query's text is left out (`entity.query`): it may hold what the recipient typed about others.

use schemas_identity::Did;
use serde_json::{Value, json};

use crate::terms;

/// How an access ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ended {
    /// All was handed over.
    Released,
    /// It failed; rows counted may have left.
    Error,
    /// The recipient went away; rows counted may have left.
    Cancelled,
    /// A change of consent stopped it; rows counted may have left.
    Revoked,
    /// No end is recorded: assume that all was read.
    Unknown,
    /// Nothing was given.
    Refused,
}

/// The revocation that came after an access.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Withdrawal<'a> {
    /// Id of the revocation.
    pub statement: &'a str,
    /// Its place in the log.
    pub log_index: u64,
}

/// One access, as its subject may see it. Times are microseconds since 1970 UTC.
#[derive(Debug, Clone)]
pub struct Access<'a> {
    /// Whose data.
    pub subject: &'a Did,
    /// Who asked: a did:key.
    pub recipient: &'a str,
    /// The identity provider that vouched for them, if they have no key of their own.
    pub issuer: Option<&'a str>,
    /// Name and title of the roles it gave them.
    pub roles: Vec<(&'a str, &'a str)>,
    /// The stated purpose.
    pub purpose: &'a str,
    /// In which study's name.
    pub study: Option<&'a str>,
    /// The subject's own running number.
    pub number: u64,
    /// When it began.
    pub started_us: i64,
    /// When it ended, if that is recorded.
    pub ended_us: Option<i64>,
    /// Names of the signals open to it.
    pub signals: &'a [String],
    /// From which sample time; nothing is open.
    pub from_us: Option<i64>,
    /// Before which sample time; nothing is open.
    pub to_us: Option<i64>,
    /// Rows of the subject, exactly; nothing if not recorded.
    pub rows: Option<u64>,
    /// How often the same was asked within this one record; nothing if not recorded.
    pub repeats: Option<u64>,
    /// How it ended.
    pub ended: Ended,
    /// Why it was refused: a code.
    pub reason: Option<&'a str>,
    /// The consent epoch.
    pub epoch: u64,
    /// Where its commitment is in the log.
    pub log_index: Option<u64>,
    /// The same of its completion.
    pub result_index: Option<u64>,
    /// The later revocation of a grant that covers it.
    pub withdrawn: Option<Withdrawal<'a>>,
}

impl Ended {
    /// FHIR's code and our words.
    fn outcome(self) -> (&'static str, &'static str) {
        match self {
            Ended::Released => ("0", "released"),
            Ended::Unknown => ("0", "no end recorded: assume that all was read"),
            Ended::Error => ("4", "failed: rows counted may have left"),
            Ended::Cancelled => ("4", "the recipient went away: rows counted may have left"),
            Ended::Revoked => ("4", "stopped by a change of consent: rows counted may have left"),
            Ended::Refused => ("8", "refused: nothing was given"),
        }
    }
}

/// The resource for one access. `observer` is the name of the deployment's log.
pub fn audit_event(access: &Access<'_>, observer: &str) -> Value {
    let (outcome, words) = access.ended.outcome();
    let mut event = json!({
        "resourceType": "AuditEvent",
        "id": format!("access-{}", access.number),
        "type": terms::coding(terms::DICOM, "110112", "Query"),
        "action": "E",
    });
    let mut set = |name: &str, value: Value| event[name] = value;
    let mut period = serde_json::Map::new();
    if let Some(start) = terms::instant(access.started_us) {
        period.insert("start".to_owned(), start.into());
    }
    if let Some(end) = access.ended_us.and_then(terms::instant) {
        period.insert("end".to_owned(), end.into());
    }
    if !period.is_empty() {
        set("period", Value::Object(period));
    }
    // `recorded` is required; a clock that far off is shown as the beginning of time rather than left out.
    set(
        "recorded",
        terms::instant(access.started_us).unwrap_or_else(|| terms::FIRST_INSTANT.to_owned()).into(),
    );
    set("outcome", outcome.into());
    set("outcomeDesc", words.into());
    set("purposeOfEvent", json!([terms::purpose(access.purpose)]));
    set("agent", json!([agent(access)]));
    set(
        "source",
        json!({
            "observer": {"type": "Device", "identifier": {"system": terms::LOG, "value": observer}},
            "type": [terms::coding(
                "http://terminology.hl7.org/CodeSystem/security-source-type", "4", "Application Server")],
        }),
    );
    set("entity", json!([person(access), query(access)]));
    event
}

fn agent(access: &Access<'_>) -> Value {
    let mut agent = json!({
        "type": terms::concept(terms::PARTICIPATION, "IRCP", "information recipient"),
        "who": terms::party(access.recipient),
        "requestor": true,
    });
    if let Some(issuer) = access.issuer {
        agent["who"]["identifier"]["assigner"] = json!({"display": terms::text(issuer)});
    }
    if !access.roles.is_empty() {
        // Roles are this deployment's, so there is no system of codes to name.
        let role = |(name, title): &(&str, &str)| json!({"text": terms::text(&format!("{title} ({name})"))});
        agent["role"] = access.roles.iter().map(role).collect();
    }
    agent
}

fn person(access: &Access<'_>) -> Value {
    json!({
        "what": terms::patient(access.subject),
        "type": terms::coding("http://terminology.hl7.org/CodeSystem/audit-entity-type", "1", "Person"),
        "role": terms::coding("http://terminology.hl7.org/CodeSystem/object-role", "1", "Patient"),
    })
}

fn query(access: &Access<'_>) -> Value {
    let mut details = Vec::new();
    let mut detail = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            details.push(json!({"type": name, "valueString": terms::text(&value)}));
        }
    };
    let number = |number: u64| number.to_string();
    detail("number", Some(number(access.number)));
    detail("study", access.study.map(str::to_owned));
    for signal in access.signals {
        detail("signal", Some(signal.clone()));
    }
    detail("data-from", access.from_us.and_then(terms::instant));
    detail("data-before", access.to_us.and_then(terms::instant));
    detail("rows", access.rows.map(number));
    detail("repeats", access.repeats.map(number));
    detail("reason", access.reason.map(str::to_owned));
    detail("consent-epoch", Some(number(access.epoch)));
    detail("log-index", access.log_index.map(number));
    detail("result-log-index", access.result_index.map(number));
    if let Some(withdrawn) = access.withdrawn {
        detail("released-before-withdrawal", Some(withdrawn.statement.to_owned()));
        detail("withdrawal-log-index", Some(number(withdrawn.log_index)));
    }
    json!({
        "type": terms::coding("http://terminology.hl7.org/CodeSystem/audit-entity-type", "2", "System Object"),
        "role": terms::coding("http://terminology.hl7.org/CodeSystem/object-role", "24", "Query"),
        "detail": details,
    })
}
