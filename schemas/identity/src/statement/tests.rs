//! Statements against forgers, other deployments and sloppy writers.

use serde_json::json;

use super::*;

const ORIGIN: &str = "example.org/log";

fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed(&[seed; 32])
}

fn grant(subject: &SecretKey) -> Body {
    let fields = json!({
        "subject": subject.public().did(), "grantee": {"kind": "party", "value": key(9).public().did().to_string()},
        "signals": ["vitals"], "purposes": ["HRESCH"], "export": "rows", "prev": null,
    });
    Body::from_fields("grant", fields.as_object().unwrap().clone()).unwrap()
}

fn signed(payload: &str, key: &SecretKey) -> String {
    jws::sign_compact(STATEMENT_TYP, payload.as_bytes(), key)
}

/// Guarantee: what is signed is what is read.
#[test]
fn round_trip() {
    let subject = key(1);
    let text = sign(&grant(&subject), ORIGIN, 5, [3; 16], &subject);
    let statement = Statement::parse(&text, ORIGIN).unwrap();
    assert_eq!(statement.body, grant(&subject));
    assert_eq!((statement.signer, statement.iat_s), (subject.public().did(), 5));
    assert_eq!(statement.id, id_of(&text));
}

/// Guarantee: a statement for another deployment is refused, with the reason.
#[test]
fn other_deployment() {
    let subject = key(1);
    let text = sign(&grant(&subject), "other.org/log", 5, [3; 16], &subject);
    assert!(matches!(Statement::parse(&text, ORIGIN), Err(StatementError::Audience(_))));
}

/// Guarantee: unknown and duplicate fields, kinds, versions and bad nonces are refused.
#[test]
fn hostile_payloads() {
    let head = r#""v":1,"kind":"erase","aud":"example.org/log","iat":5"#;
    let nonce = r#""nonce":"AwMDAwMDAwMDAwMDAwMDAw""#;
    let good = format!(r#"{{{head},{nonce},"scope":"all"}}"#);
    assert!(Statement::parse(&signed(&good, &key(1)), ORIGIN).is_ok());
    let bad = [
        format!(r#"{{{head},{nonce},"scope":"all","extra":1}}"#),
        format!(r#"{{{head},{nonce},"scope":"all","scope":"all"}}"#),
        format!(r#"{{{head},{nonce}}}"#),
        format!(r#"{{{head},"nonce":"short","scope":"all"}}"#),
        good.replace("\"v\":1", "\"v\":2"),
        good.replace("erase", "obliterate"),
        good.replace("\"all\"", &format!("\"{}\"", "x".repeat(200))),
        format!("{good} {{}}"),
        "[]".to_owned(),
    ];
    for payload in bad {
        assert!(Statement::parse(&signed(&payload, &key(1)), ORIGIN).is_err(), "{payload}");
    }
}

/// Guarantee: no byte of a statement can change.
#[test]
fn every_byte_counts() {
    let subject = key(1);
    let text = sign(&grant(&subject), ORIGIN, 5, [3; 16], &subject);
    for at in 0..text.len() {
        let mut bytes = text.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(bytes).unwrap();
        assert!(Statement::parse(&changed, ORIGIN).is_err(), "byte {at}");
    }
}

/// Guarantee: a maker cannot enrol a key whose device did not prove it.
#[test]
fn proof_of_possession_is_checked() {
    let (maker, device) = (key(2), key(3));
    let enrol = |pop: String| {
        let fields = json!({"device_key": device.public().did(), "model": "E4", "signals": [], "pop": pop});
        sign(
            &Body::from_fields("enrol", fields.as_object().unwrap().clone()).unwrap(),
            ORIGIN,
            5,
            [0; 16],
            &maker,
        )
    };
    let proof = |origin: &str, party: &SecretKey| proof_of_possession(origin, &party.public().did(), &device);
    assert!(Statement::parse(&enrol(proof(ORIGIN, &maker)), ORIGIN).is_ok());
    for pop in [proof("other.org/log", &maker), proof(ORIGIN, &key(4)), "AAAA".into()] {
        assert_eq!(Statement::parse(&enrol(pop), ORIGIN), Err(StatementError::Proof("pop")));
    }
}
