//! A person's signed grants and denies as `Consent` resources.
//!
//! | ours | `Consent` |
//! |---|---|
//! | id of the statement | `id`, `identifier` |
//! | not taken back, taken back | `status` active, inactive; the revocation in an extension |
//! | grant to a study, any other | `scope` research, patient-privacy |
//! | the subject, who alone signs | `patient`, `performer` |
//! | the signed statement itself | `sourceAttachment` (application/jose): whoever doubts the rest verifies this |
//! | no grant, no row | `policyRule` OPTOUT: all is closed, the provision is what differs |
//! | grant, deny | `provision.type` permit, deny |
//! | valid from, to | `provision.period` |
//! | grantee | `provision.actor`, role IRCP; a role or study as a `Group` by name |
//! | export of a grant | `provision.action`: access; disclose too where rows may leave |
//! | purposes | `provision.purpose`, v3-ActReason |
//! | readings | `provision.class` Observation |
//! | signals | `provision.code`, LOINC or 11073 where the registry has them; left out for all |
//! | devices | `provision.data`, authored by these devices |
//! | measured from, to | `provision.dataPeriod` |
//! | resolution, export, smallest group, data use terms | `provision.modifierExtension` |
//!
//! Those last four narrow a grant, so they are *modifier* extensions: a reader who does not know them must not read the
//! rest as wider than it is. `securityLabel` is left out: our data carries no labels, and a label there would narrow to
//! nothing. Freezes and break-glass are not the person's own word and are no `Consent`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use schemas_consent::{Devices, Export, Grant, Grantee, Refusal, Resolution};
use schemas_identity::statement::{GrantBody, RevokeTarget};
use schemas_identity::{Body, Statement, StatementId};
use schemas_signals::{Registry, SignalSet};
use serde_json::{Map, Value, json};

use crate::terms::{self, coding, concept, extension};

/// Statements that do not make resources.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConsentError {
    /// A grant or deny that no server accepts.
    #[error("statement {id} is not valid")]
    Invalid {
        /// The statement.
        id: StatementId,
        /// Why.
        #[source]
        refusal: Refusal,
    },
}

/// What one revocation did.
struct Revoked<'s> {
    target: RevokeTarget,
    at: usize,
    by: &'s Statement,
}

/// One resource per grant and deny among a person's own statements, which come in log order; what is neither, nor a
/// revocation, is passed over.
///
/// # Errors
/// A grant or deny that is not valid: such a one was never in force.
pub fn consents(statements: &[Statement]) -> Result<Vec<Value>, ConsentError> {
    let revoked: Vec<Revoked<'_>> = statements
        .iter()
        .enumerate()
        .filter_map(|(at, by)| match &by.body {
            Body::Revoke(revoke) => Some(Revoked { target: revoke.grant, at, by }),
            _ => None,
        })
        .collect();
    let mut resources = Vec::new();
    for (at, statement) in statements.iter().enumerate() {
        let (body, is_deny) = match &statement.body {
            Body::Grant(body) => (body, false),
            Body::Deny(body) => (body, true),
            _ => continue,
        };
        // The index in this list stands for the log's: only the order counts.
        let made = if is_deny { Grant::from_deny } else { Grant::from_grant };
        let rule = made(body, statement.id, at as u64)
            .map_err(|refusal| ConsentError::Invalid { id: statement.id, refusal })?;
        let ended = revoked.iter().find(|revoked| revoked.at > at && revoked.ends(&rule.id, is_deny));
        resources.push(consent(statement, body, &rule, is_deny, ended.map(|revoked| revoked.by)));
    }
    Ok(resources)
}

impl Revoked<'_> {
    /// `*` takes all grants back and leaves denies alone: it must not open anything.
    fn ends(&self, id: &StatementId, is_deny: bool) -> bool {
        match self.target {
            RevokeTarget::All => !is_deny,
            RevokeTarget::One(target) => target == *id,
        }
    }
}

fn consent(
    statement: &Statement,
    body: &GrantBody,
    rule: &Grant,
    is_deny: bool,
    ended_by: Option<&Statement>,
) -> Value {
    let id = statement.id.to_string();
    let scope = match &rule.grantee {
        Grantee::Study(_) => ("research", "Research"),
        _ => ("patient-privacy", "Privacy Consent"),
    };
    let mut resource = json!({"resourceType": "Consent", "id": id});
    let mut set = |name: &str, value: Value| resource[name] = value;
    let extensions = extensions(body, ended_by);
    if !extensions.is_empty() {
        set("extension", extensions.into());
    }
    set("identifier", json!([{"system": terms::STATEMENT, "value": id}]));
    set("status", if ended_by.is_some() { "inactive" } else { "active" }.into());
    set("scope", concept("http://terminology.hl7.org/CodeSystem/consentscope", scope.0, scope.1));
    set(
        "category",
        json!([
            concept(terms::LOINC, "59284-0", "Consent Document"),
            concept(terms::ACT_CODE, "IDSCL", "information disclosure"),
        ]),
    );
    set("patient", terms::patient(&statement.signer));
    if let Some(at) = terms::instant(statement.iat_s.saturating_mul(1_000_000)) {
        set("dateTime", at.into());
    }
    set("performer", json!([terms::patient(&statement.signer)]));
    set(
        "sourceAttachment",
        json!({
            "contentType": "application/jose",
            "data": STANDARD.encode(&statement.compact),
            "title": "the statement as signed",
        }),
    );
    let mut rule_words = concept(terms::ACT_CODE, "OPTOUT", "opt-out");
    rule_words["text"] = "nobody sees anything unless a grant says so; a deny overrides every grant".into();
    set("policyRule", rule_words);
    set("provision", provision(rule, is_deny));
    resource
}

/// Who took it back, and what the person was shown. Neither changes what the rest means.
fn extensions(body: &GrantBody, ended_by: Option<&Statement>) -> Vec<Value> {
    let mut extensions = Vec::new();
    if let Some(revocation) = ended_by {
        extensions.push(extension("withdrawn-by", "valueString", revocation.id.to_string()));
        if let Some(at) = terms::instant(revocation.iat_s.saturating_mul(1_000_000)) {
            extensions.push(extension("withdrawn-at", "valueDateTime", at));
        }
    }
    if let Some(notice) = &body.notice {
        for (name, text) in [
            ("notice-hash", &notice.hash),
            ("notice-version", &notice.version),
            ("notice-language", &notice.language),
        ] {
            extensions.push(extension(name, "valueString", terms::text(text)));
        }
    }
    extensions
}

fn provision(rule: &Grant, is_deny: bool) -> Value {
    let mut provision = Map::new();
    let mut set = |name: &str, value: Value| drop(provision.insert(name.to_owned(), value));
    let narrowing = if is_deny { Vec::new() } else { narrowing(rule) };
    if !narrowing.is_empty() {
        set("modifierExtension", narrowing.into());
    }
    set("type", if is_deny { "deny" } else { "permit" }.into());
    if let Some(period) = period(rule.valid) {
        set("period", period);
    }
    set(
        "actor",
        json!([{
            "role": concept(terms::PARTICIPATION, "IRCP", "information recipient"),
            "reference": actor(&rule.grantee),
        }]),
    );
    // A deny closes every action: none is named.
    if !is_deny {
        set("action", actions(rule.export).into());
    }
    if !rule.purposes.is_empty() {
        let purposes: Vec<Value> =
            rule.purposes.iter().map(|name| json!({"system": terms::ACT_REASON, "code": name})).collect();
        set("purpose", purposes.into());
    }
    set("class", json!([coding("http://hl7.org/fhir/resource-types", "Observation", "Observation")]));
    if let Some(codes) = codes(rule.signals) {
        set("code", codes);
    }
    if let Some(period) = period(rule.data) {
        set("dataPeriod", period);
    }
    if let Devices::Only(devices) = &rule.devices {
        let authored = devices.iter().map(|device| {
            let identifier = json!({"system": terms::DEVICE, "value": device.to_string()});
            json!({"meaning": "authoredby", "reference": {"type": "Device", "identifier": identifier}})
        });
        set("data", authored.collect::<Vec<Value>>().into());
    }
    Value::Object(provision)
}

/// What narrows a grant in words that FHIR does not have.
fn narrowing(rule: &Grant) -> Vec<Value> {
    let mut terms = Vec::new();
    if rule.resolution != Resolution::Raw {
        terms.push(extension("resolution", "valueCode", rule.resolution.as_str()));
    }
    if rule.export != Export::Rows {
        terms.push(extension("export", "valueCode", rule.export.as_str()));
    }
    // It only matters where people are counted together, which both of these leave open.
    if rule.resolution == Resolution::Aggregate || rule.export == Export::Aggregate {
        terms.push(extension("cohort-min", "valuePositiveInt", rule.cohort_min));
    }
    terms.extend(rule.duo.iter().map(|term| extension("duo", "valueString", terms::text(term))));
    terms
}

fn actor(grantee: &Grantee) -> Value {
    let group = |system: &str, name: &str| json!({"type": "Group", "identifier": {"system": system, "value": terms::text(name)}});
    match grantee {
        Grantee::Party(did) => terms::party(&did.to_string()),
        Grantee::Role(name) => group(terms::ROLE, name),
        Grantee::Study(id) => group(terms::STUDY, id),
    }
}

fn actions(export: Export) -> Vec<Value> {
    let action = |code: &str, display: &str| {
        concept("http://terminology.hl7.org/CodeSystem/consentaction", code, display)
    };
    let mut actions = vec![action("access", "Access")];
    if export == Export::Rows {
        actions.push(action("disclose", "Disclose"));
    }
    actions
}

/// The signals one by one; nothing if they are all there are, for that is what no code means.
fn codes(signals: SignalSet) -> Option<Value> {
    let registry = Registry::builtin();
    if signals == registry.everything() {
        return None;
    }
    let codes = signals.iter().filter_map(|id| registry.by_id(id)).map(terms::signal);
    Some(codes.collect::<Vec<Value>>().into())
}

fn period(period: schemas_consent::Period) -> Option<Value> {
    let open = |us: i64, end: i64| (us != end).then_some(us);
    terms::period(open(period.from_us, i64::MIN), open(period.to_us, i64::MAX))
}
