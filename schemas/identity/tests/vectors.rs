//! The published vectors in `schemas/vectors/statement.json`: one statement of every kind, and forgeries that must be
//! refused. `VITALOG_BLESS=1` rewrites them.
#![expect(clippy::unwrap_used, reason = "a vector that cannot be made is a failed test")]

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use schemas_identity::statement::{self, Body, STATEMENT_TYP, Statement};
use schemas_identity::{SecretKey, sign_compact};
use serde_json::{Value, json};

const ORIGIN: &str = "log.example/vitalog";
const IAT_S: i64 = 1_790_000_000;
const ID: &str = "1111111111111111111111111111111111111111111111111111111111111111";

fn check(name: &str, made: &Value) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../vectors").join(name);
    let text = format!("{}\n", serde_json::to_string_pretty(made).unwrap());
    if std::env::var_os("VITALOG_BLESS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(kept == text, "{name} differs from what this build makes; VITALOG_BLESS=1 rewrites it");
}

fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed(&[seed; 32])
}

fn did(seed: u8) -> String {
    key(seed).public().did().to_string()
}

/// Signers by seed: 1 operator, 2 maker, 3 device, 4 subject, 5 registrar, 6 clinician, 7 a newer device key.
fn kinds() -> Vec<(&'static str, u8, Value)> {
    let pop = |seed: u8| statement::proof_of_possession(ORIGIN, &key(2).public().did(), &key(seed));
    let device = key(3).public().short_id();
    let (from, to) = ("2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z");
    let grant = json!({
        "subject": did(4), "grantee": {"kind": "study", "value": "sleep-2026"}, "signals": ["heart_rate", "waveform"],
        "devices": [device.to_string()], "resolution": "1m", "purposes": ["HRESCH"], "duo": ["DUO:0000042"],
        "data_from": from, "data_to": null, "valid_from": from, "valid_to": to, "export": "aggregate",
        "min_cohort": 11, "notice": {"hash": ID, "version": "1", "language": "en"}, "prev": null,
    });
    let mut deny = grant.clone();
    deny["prev"] = json!(ID);
    vec![
        ("maker", 1, json!({"party": did(2), "title": "Example Wearables", "from": null, "to": null})),
        (
            "role",
            1,
            json!({
                "role": "clinician", "title": "Clinicians", "members": [did(6)], "purposes": ["TREAT", "ETREAT"],
                "from": from, "to": null,
            }),
        ),
        (
            "study",
            1,
            json!({
                "study": "sleep-2026", "title": "Sleep", "members": [did(6)], "purposes": ["HRESCH"],
                "duo": ["DUO:0000042"], "terms": [{"id": "t1", "required": true, "text": "no re-identification"}],
                "from": from, "to": to,
            }),
        ),
        ("enrol", 2, json!({"device_key": did(3), "model": "E4", "signals": ["heart_rate"], "pop": pop(3)})),
        ("rotate", 2, json!({"old": did(3), "new": did(7), "pop": pop(7)})),
        ("revoke-key", 2, json!({"key": did(3), "compromised_from": "2026-06-01T12:30:00.5Z"})),
        ("bind", 4, json!({"device": device.to_string(), "from": from, "to": null})),
        ("unbind", 4, json!({"device": device.to_string(), "from": from, "to": to})),
        ("grant", 4, grant),
        ("deny", 4, deny),
        ("revoke", 4, json!({"subject": did(4), "grant": "*", "prev": ID})),
        ("freeze", 5, json!({"subject": did(4), "reason": "lost contact"})),
        ("break-glass", 6, json!({"subject": did(4), "reason": "unconscious"})),
        ("erase", 4, json!({"scope": "all"})),
    ]
}

fn vector(index: u8, kind: &str, seed: u8, fields: &Value) -> Value {
    let body = Body::from_fields(kind, fields.as_object().unwrap().clone()).unwrap();
    let nonce = [index; 16];
    let co_seed = matches!(kind, "bind" | "unbind").then_some(if kind == "bind" { 3 } else { 5 });
    let compact = match co_seed {
        Some(co) => statement::sign_with_co(&body, ORIGIN, IAT_S, nonce, &key(seed), &key(co)),
        None => statement::sign(&body, ORIGIN, IAT_S, nonce, &key(seed)),
    };
    let read = Statement::parse(&compact, ORIGIN).unwrap_or_else(|error| panic!("{kind}: {error}"));
    assert_eq!((read.signer, read.body.kind()), (key(seed).public().did(), kind));
    let payload = URL_SAFE_NO_PAD.decode(compact.split('.').nth(1).unwrap()).unwrap();
    json!({
        "name": kind,
        "seed": hex::encode([seed; 32]),
        "signer": did(seed),
        "co_seed": co_seed.map(|co| hex::encode([co; 32])),
        "payload": String::from_utf8(payload).unwrap(),
        "compact": compact,
        "id": read.id.to_string(),
    })
}

/// A compact JWS with any header over any payload, signed all the same.
fn forged(header: &str, payload: &str, signer: &SecretKey) -> String {
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
    let signature = URL_SAFE_NO_PAD.encode(signer.sign(signed.as_bytes()));
    format!("{signed}.{signature}")
}

fn forgeries() -> Vec<(&'static str, String)> {
    let signer = key(4);
    let kid = did(4);
    let nonce = URL_SAFE_NO_PAD.encode([9; 16]);
    let payload =
        format!(r#"{{"v":1,"kind":"erase","aud":"{ORIGIN}","iat":{IAT_S},"nonce":"{nonce}","scope":"all"}}"#);
    let head = |alg: &str, typ: &str, kid: &str| format!(r#"{{"alg":"{alg}","typ":"{typ}","kid":"{kid}"}}"#);
    let good = forged(&head("EdDSA", STATEMENT_TYP, &kid), &payload, &signer);
    assert!(Statement::parse(&good, ORIGIN).is_ok(), "the forgeries start from a good statement");
    let edited = |from: &str, to: &str| {
        assert!(payload.contains(from));
        sign_compact(STATEMENT_TYP, payload.replace(from, to).as_bytes(), &signer)
    };
    let header = |header: String| forged(&header, &payload, &signer);
    let (front, signature) = good.rsplit_once('.').unwrap();
    let mut flipped = URL_SAFE_NO_PAD.decode(signature).unwrap();
    flipped[0] ^= 1;
    vec![
        ("signature changed", format!("{front}.{}", URL_SAFE_NO_PAD.encode(&flipped))),
        ("signature missing", format!("{front}.")),
        ("signature padded", format!("{good}==")),
        ("two parts", front.to_owned()),
        ("four parts", format!("{good}.AAAA")),
        ("alg none", header(head("none", STATEMENT_TYP, &kid))),
        ("alg ES256", header(head("ES256", STATEMENT_TYP, &kid))),
        ("typ JWT", header(head("EdDSA", "JWT", &kid))),
        ("typ in capitals", header(head("EdDSA", "VITALOG+JWS", &kid))),
        ("kid of another key", header(head("EdDSA", STATEMENT_TYP, &did(5)))),
        ("kid no did", header(head("EdDSA", STATEMENT_TYP, "me"))),
        (
            "header with a fourth field",
            header(format!(
                r#"{{"alg":"EdDSA","typ":"{STATEMENT_TYP}","kid":"{kid}","jku":"https://example.org"}}"#
            )),
        ),
        ("header without typ", header(format!(r#"{{"alg":"EdDSA","kid":"{kid}"}}"#))),
        ("another deployment", edited(ORIGIN, "other.example/vitalog")),
        ("version 2", edited("\"v\":1", "\"v\":2")),
        ("unknown kind", edited("erase", "obliterate")),
        ("unknown field", edited("\"scope\"", "\"extra\":1,\"scope\"")),
        ("field twice", edited("\"scope\"", "\"scope\":\"all\",\"scope\"")),
        ("field missing", edited(",\"scope\":\"all\"", "")),
        ("nonce too short", edited(&nonce, "AAAA")),
        ("iat as text", edited(&format!("{IAT_S}"), &format!("\"{IAT_S}\""))),
        ("payload an array", sign_compact(STATEMENT_TYP, b"[]", &signer)),
    ]
}

/// One statement of every kind has exactly these bytes and this id; each forgery is refused.
#[test]
fn statement_vectors() {
    let statements: Vec<Value> =
        (1..).zip(kinds()).map(|(index, (kind, seed, fields))| vector(index, kind, seed, &fields)).collect();
    let refused: Vec<Value> = forgeries()
        .into_iter()
        .map(|(name, compact)| {
            assert!(Statement::parse(&compact, ORIGIN).is_err(), "{name}");
            json!({"name": name, "compact": compact})
        })
        .collect();
    check("statement.json", &json!({"origin": ORIGIN, "statements": statements, "refused": refused}));
}
