//! Everything this crate makes is structurally valid FHIR R4, and the validator that says so sees what is not.
#![expect(clippy::unwrap_used, reason = "a panic is how a test speaks")]

mod structure;

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use schemas_fhir::{Access, Ended, Listing, Withdrawal, audit_event, collection, consents, searchset};
use schemas_identity::statement::sign;
use schemas_identity::{Body, Did, SecretKey, Statement};
use serde_json::{Value, json};
use structure::definitions;

const ORIGIN: &str = "example.org/log";
const NOW_S: i64 = 1_767_225_600;

fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed(&[seed; 32])
}

fn did(seed: u8) -> Did {
    key(seed).public().did()
}

fn say(kind: &str, fields: Value, nonce: u8) -> Statement {
    let body = Body::from_fields(kind, fields.as_object().unwrap().clone()).unwrap();
    Statement::parse(&sign(&body, ORIGIN, NOW_S + i64::from(nonce), [nonce; 16], &key(1)), ORIGIN).unwrap()
}

/// A grant of everything to a party, with some fields changed.
fn rule(kind: &str, nonce: u8, changed: Value) -> Statement {
    let mut fields = json!({
        "subject": did(1), "grantee": {"kind": "party", "value": did(2)}, "signals": ["*"], "devices": "*",
        "resolution": "raw", "purposes": ["HRESCH"], "export": "rows",
    });
    for (name, value) in changed.as_object().unwrap() {
        fields[name] = value.clone();
    }
    say(kind, fields, nonce)
}

/// One of each kind of grant and deny, two of them taken back.
fn life() -> Vec<Statement> {
    let plain = rule("grant", 1, json!({}));
    let narrow = rule(
        "grant",
        2,
        json!({
            "grantee": {"kind": "study", "value": "sleep-1"}, "signals": ["heart_rate", "eda", "ecg"],
            "devices": ["0123456789abcdef"], "resolution": "1m", "purposes": ["TREAT", "CAREMGT"],
            "export": "aggregate", "min_cohort": 25, "duo": ["HMB", "NPU"],
            "data_from": "2025-01-01T00:00:00Z", "data_to": "2026-01-01T00:00:00Z",
            "valid_from": "2025-06-01T00:00:00Z", "valid_to": "2027-01-01T00:00:00Z",
            "notice": {"hash": "ab", "version": "3", "language": "de"},
        }),
    );
    let role = rule("grant", 3, json!({"grantee": {"kind": "role", "value": "clinician"}, "export": "none"}));
    let deny =
        rule("deny", 4, json!({"purposes": [], "signals": ["vitals"], "resolution": "1h", "export": "none"}));
    let lifted = rule("deny", 5, json!({"grantee": {"kind": "role", "value": "payer"}}));
    let all = say("revoke", json!({"grant": "*"}), 6);
    let one = say("revoke", json!({"grant": lifted.id.to_string()}), 7);
    let after = rule("grant", 8, json!({"data_from": "2026-01-01T00:00:00Z"}));
    vec![plain, narrow, role, deny, lifted, all, one, after]
}

fn access<'a>(subject: &'a Did, signals: &'a [String]) -> Access<'a> {
    Access {
        subject,
        recipient: "did:key:z6MkRecipient",
        issuer: None,
        roles: vec![],
        purpose: "HRESCH",
        study: Some("sleep-1"),
        number: 7,
        started_us: NOW_S * 1_000_000,
        ended_us: Some(NOW_S * 1_000_000 + 5),
        signals,
        from_us: None,
        to_us: Some(NOW_S * 1_000_000),
        rows: Some(42),
        repeats: Some(1),
        ended: Ended::Released,
        reason: None,
        epoch: 3,
        log_index: Some(11),
        result_index: Some(12),
        withdrawn: Some(Withdrawal { statement: "ab", log_index: 20 }),
    }
}

/// Guarantee: every kind of grant and deny becomes a valid `Consent` that says the same, and only a revocation makes it
/// inactive: `*` ends grants before it, never a deny, never a grant after it.
#[test]
fn consents_say_what_was_signed() {
    let life = life();
    let made = consents(&life).unwrap();
    let brief: Vec<(&str, &str)> = made
        .iter()
        .map(|consent| (consent["status"].as_str().unwrap(), consent["provision"]["type"].as_str().unwrap()))
        .collect();
    let expected = [
        ("inactive", "permit"),
        ("inactive", "permit"),
        ("inactive", "permit"),
        ("active", "deny"),
        ("inactive", "deny"),
        ("active", "permit"),
    ];
    assert_eq!(brief, expected);
    let (plain, narrow, deny) = (&made[0], &made[1]["provision"], &made[3]["provision"]);
    assert_eq!(plain["id"], life[0].id.to_string());
    assert_eq!(
        STANDARD.decode(plain["sourceAttachment"]["data"].as_str().unwrap()).unwrap(),
        life[0].compact.as_bytes()
    );
    assert_eq!(plain["extension"][0]["valueString"], life[5].id.to_string());
    for open in ["code", "modifierExtension", "period", "dataPeriod", "data"] {
        assert_eq!(plain["provision"][open], Value::Null, "{open}");
    }
    let codes: Vec<&str> = narrow["code"]
        .as_array()
        .unwrap()
        .iter()
        .map(|code| code["coding"][0]["code"].as_str().unwrap())
        .collect();
    assert_eq!(codes, ["8867-4", "eda", "131328"]);
    assert_eq!(narrow["code"][0]["coding"][0]["system"], "http://loinc.org");
    assert_eq!(narrow["dataPeriod"]["end"], "2025-12-31T23:59:59.999999Z");
    assert_eq!(narrow["data"][0]["reference"]["identifier"]["value"], "0123456789abcdef");
    assert_eq!(narrow["actor"][0]["reference"]["identifier"]["value"], "sleep-1");
    let narrowing: Vec<&Value> = narrow["modifierExtension"].as_array().unwrap().iter().collect();
    assert_eq!(narrowing.len(), 5);
    assert_eq!(narrowing[0]["valueCode"], "1m");
    assert_eq!(made[1]["scope"]["coding"][0]["code"], "research");
    assert_eq!(
        (&deny["purpose"], &deny["action"], &deny["modifierExtension"]),
        (&Value::Null, &Value::Null, &Value::Null)
    );
    let Some(definitions) = definitions("consents_say_what_was_signed") else { return };
    for consent in &made {
        assert_eq!(definitions.problems(consent), Vec::<String>::new(), "{consent:#}");
    }
    assert_eq!(definitions.problems(&collection(made)), Vec::<String>::new());
    assert_eq!(definitions.problems(&collection(Vec::new())), Vec::<String>::new());
}

/// Guarantee: an access says who, why, when and how much, without the text of the query; a page that knows of lost
/// records says so inside the bundle.
#[test]
fn accesses_are_events() {
    let (subject, signals) = (did(1), vec!["heart_rate".to_owned(), "eda".to_owned()]);
    let event = audit_event(&access(&subject, &signals), ORIGIN);
    assert_eq!((&event["recorded"], &event["outcome"]), (&json!("2026-01-01T00:00:00Z"), &json!("0")));
    let outcome =
        |ended| audit_event(&Access { ended, ..access(&subject, &signals) }, ORIGIN)["outcome"].clone();
    let ends = [Ended::Unknown, Ended::Error, Ended::Cancelled, Ended::Revoked, Ended::Refused];
    assert_eq!(ends.map(outcome), ["0", "4", "4", "4", "8"]);
    assert_eq!(event["purposeOfEvent"][0]["coding"][0]["code"], "HRESCH");
    assert_eq!(event["agent"][0]["who"]["identifier"]["value"], "did:key:z6MkRecipient");
    assert_eq!(event["source"]["observer"]["identifier"]["value"], ORIGIN);
    assert_eq!(event["entity"][0]["what"]["identifier"]["value"], subject.to_string());
    assert_eq!(event["entity"][1]["query"], Value::Null);
    let details: Vec<(&str, &str)> = event["entity"][1]["detail"]
        .as_array()
        .unwrap()
        .iter()
        .map(|detail| (detail["type"].as_str().unwrap(), detail["valueString"].as_str().unwrap()))
        .collect();
    for expected in
        [("rows", "42"), ("signal", "eda"), ("log-index", "11"), ("released-before-withdrawal", "ab")]
    {
        assert!(details.contains(&expected), "{expected:?} in {details:?}");
    }
    let listing = Listing {
        subject: &subject,
        observer: ORIGIN,
        accesses: vec![access(&subject, &signals)],
        newest: 9,
        missing: &[(2, 3)],
        lost: 1,
        this: "/v1/me/accesses?after=0".into(),
        next: Some("/v1/me/accesses?after=1".into()),
    };
    let bundle = searchset(&listing);
    assert_eq!((&bundle["total"], &bundle["link"][1]["relation"]), (&json!(7), &json!("next")));
    assert_eq!(bundle["entry"][1]["resource"]["issue"].as_array().unwrap().len(), 2);
    assert_eq!(bundle["entry"][1]["search"]["mode"], "outcome");
    let empty = searchset(&Listing { accesses: Vec::new(), missing: &[], lost: 0, next: None, ..listing });
    let Some(definitions) = definitions("accesses_are_events") else { return };
    for bundle in [bundle, empty] {
        assert_eq!(definitions.problems(&bundle), Vec::<String>::new(), "{bundle:#}");
    }
}

/// Purpose, study, signals, times, counts, and which end.
type AnyAccess = (String, Option<String>, Vec<String>, [Option<i64>; 4], [Option<u64>; 4], usize);

fn any_access() -> impl Strategy<Value = AnyAccess> {
    let time = || prop::option::of(prop_oneof![any::<i64>(), 0..4_000_000_000_000_000_i64]);
    let count = || prop::option::of(any::<u64>());
    (
        ".{0,40}",
        prop::option::of(".{0,40}"),
        prop::collection::vec(prop_oneof![Just("heart_rate".to_owned()), ".{0,20}"], 0..4),
        [time(), time(), time(), time()],
        [count(), count(), count(), count()],
        0..6_usize,
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Guarantee: whatever an access holds, odd names and impossible times included, its event is valid.
    #[test]
    fn any_access_is_a_valid_event((purpose, study, signals, times, counts, ended) in any_access()) {
        let Some(definitions) = once() else { return Ok(()) };
        let subject = did(1);
        let ended = [
            Ended::Released, Ended::Error, Ended::Cancelled, Ended::Revoked, Ended::Unknown, Ended::Refused,
        ][ended];
        let access = Access {
            purpose: &purpose, study: study.as_deref(), started_us: times[0].unwrap_or(0), ended_us: times[1],
            from_us: times[2], to_us: times[3], rows: counts[0], repeats: counts[1], log_index: counts[2],
            issuer: study.as_deref(), roles: vec![(&purpose, study.as_deref().unwrap_or(""))],
            result_index: counts[3], ended, reason: study.as_deref(), withdrawn: None,
            ..access(&subject, &signals)
        };
        let event = audit_event(&access, ORIGIN);
        prop_assert_eq!(definitions.problems(&event), Vec::<String>::new(), "{:#}", event);
    }
}

/// The definitions, read once for all cases.
fn once() -> Option<&'static structure::Definitions> {
    static ONCE: std::sync::OnceLock<Option<structure::Definitions>> = std::sync::OnceLock::new();
    ONCE.get_or_init(|| definitions("any_access_is_a_valid_event")).as_ref()
}

/// A place and beginning of a complaint, and the one change to a valid resource that must bring it about.
type Fault = (&'static str, fn(&mut Value));

fn event_faults() -> Vec<Fault> {
    vec![
        ("AuditEvent.recorded: missing", |event| drop(event.as_object_mut().unwrap().remove("recorded"))),
        ("AuditEvent.recorded: `2026-01-01` is not", |event| event["recorded"] = "2026-01-01".into()),
        ("AuditEvent.recorded: `2026-13-01T", |event| event["recorded"] = "2026-13-01T00:00:00Z".into()),
        ("AuditEvent.sql: unknown element", |event| event["sql"] = "SELECT".into()),
        ("AuditEvent.agent: missing", |event| drop(event.as_object_mut().unwrap().remove("agent"))),
        ("AuditEvent.agent: 0 values", |event| event["agent"] = json!([])),
        ("AuditEvent.agent: one value where", |event| event["agent"] = event["agent"][0].clone()),
        ("AuditEvent.type: a list where", |event| event["type"] = json!([event["type"]])),
        ("AuditEvent.action: code \"X\"", |event| event["action"] = "X".into()),
        ("AuditEvent.outcome: code \"1\"", |event| event["outcome"] = "1".into()),
        ("AuditEvent.agent.requestor: \"yes\"", |event| event["agent"][0]["requestor"] = "yes".into()),
        ("AuditEvent.agent.nickname: unknown", |event| event["agent"][0]["nickname"] = "x".into()),
        ("AuditEvent.source.observer: missing", |event| {
            drop(event["source"].as_object_mut().unwrap().remove("observer"));
        }),
        ("AuditEvent.entity.detail.value[x]: more than one", |event| {
            event["entity"][1]["detail"][0]["valueBase64Binary"] = "AAAA".into();
        }),
        ("AuditEvent.type.kode: unknown", |event| event["type"]["kode"] = "x".into()),
        ("AuditEvent.id: `a b`", |event| event["id"] = "a b".into()),
        ("AuditEvent.type.code: `a  b`", |event| event["type"]["code"] = "a  b".into()),
        ("AuditEvent.type.system: `a b`", |event| event["type"]["system"] = "a b".into()),
        ("AuditEvent.period: empty", |event| event["period"] = json!({})),
    ]
}

fn consent_faults() -> Vec<Fault> {
    vec![
        ("Consent.status: missing", |consent| drop(consent.as_object_mut().unwrap().remove("status"))),
        ("Consent.status: code \"revoked\"", |consent| consent["status"] = "revoked".into()),
        ("Consent.category: 0 values", |consent| consent["category"] = json!([])),
        ("Consent.dateTime: `yesterday`", |consent| consent["dateTime"] = "yesterday".into()),
        ("Consent.provision.type: code \"allow\"", |consent| consent["provision"]["type"] = "allow".into()),
        ("Consent.provision.actor.role: missing", |consent| {
            drop(consent["provision"]["actor"][0].as_object_mut().unwrap().remove("role"));
        }),
        ("Consent.provision.provision.type: code", |consent| {
            consent["provision"]["provision"] = json!([{"type": "allow"}]);
        }),
        ("Consent.provision.modifierExtension: an extension has one value", |consent| {
            consent["provision"]["modifierExtension"][0]["valueString"] = "x".into();
        }),
        ("Consent.sourceAttachment.data: `a`", |consent| consent["sourceAttachment"]["data"] = "a".into()),
    ]
}

/// Guarantee: the validator finds what is broken: one change to a valid resource, one complaint, at that place.
#[test]
fn the_validator_sees_what_is_broken() {
    let Some(definitions) = definitions("the_validator_sees_what_is_broken") else { return };
    let (subject, signals) = (did(1), vec!["eda".to_owned()]);
    let event = audit_event(&access(&subject, &signals), ORIGIN);
    let consent = consents(&life()).unwrap()[1].clone();
    for (whole, faults) in [(&event, event_faults()), (&consent, consent_faults())] {
        assert_eq!(definitions.problems(whole), Vec::<String>::new());
        for (complaint, change) in faults {
            let mut broken = whole.clone();
            change(&mut broken);
            let problems = definitions.problems(&broken);
            assert!(
                problems.len() == 1 && problems[0].starts_with(complaint),
                "expected `{complaint}`, found {problems:?}"
            );
        }
    }
    let nonsense =
        json!({"resourceType": "Bundle", "type": "pile", "entry": [{"resource": {"resourceType": "Cake"}}]});
    assert_eq!(definitions.problems(&nonsense).len(), 2);
}

/// Guarantee: the validator takes the published examples for what they are, so it is not merely strict.
#[test]
fn published_examples_are_valid() {
    let Some(definitions) = definitions("published_examples_are_valid") else { return };
    let folder = match std::env::var_os("VITALOG_SHARED") {
        Some(shared) => Path::new(&shared).join("data/fhir_r4_examples"),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/fhir_r4_examples"),
    };
    let mut seen = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if !name.starts_with("AuditEvent") && !name.starts_with("Consent") {
            continue;
        }
        let example: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(definitions.problems(&example), Vec::<String>::new(), "{name}");
        seen += 1;
    }
    assert_eq!(seen, 21);
}
