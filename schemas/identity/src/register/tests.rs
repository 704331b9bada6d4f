//! The register against people who say what is not theirs to say.

use serde_json::{Value, json};

use super::*;
use crate::SecretKey;
use crate::statement::{proof_of_possession, sign, sign_with_co};

const ORIGIN: &str = "example.org/log";

fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed(&[seed; 32])
}

const OPERATOR: u8 = 1;
const MAKER: u8 = 2;
const DEVICE: u8 = 3;
const PATIENT: u8 = 4;
const OTHER: u8 = 5;
const REGISTRAR: u8 = 6;

fn say(kind: &str, fields: Value, by: u8) -> Statement {
    let body = Body::from_fields(kind, fields.as_object().unwrap().clone()).unwrap();
    Statement::parse(&sign(&body, ORIGIN, 0, [0; 16], &key(by)), ORIGIN).unwrap()
}

fn bind(kind: &str, from: Value, to: Value, by: u8, co: u8) -> Statement {
    let fields = json!({"device": key(DEVICE).public().short_id(), "from": from, "to": to});
    let body = Body::from_fields(kind, fields.as_object().unwrap().clone()).unwrap();
    Statement::parse(&sign_with_co(&body, ORIGIN, 0, [0; 16], &key(by), &key(co)), ORIGIN).unwrap()
}

fn enrol(device: u8, by: u8) -> Statement {
    let pop = proof_of_possession(ORIGIN, &key(by).public().did(), &key(device));
    say("enrol", json!({"device_key": key(device).public().did(), "pop": pop}), by)
}

fn with_device() -> Register {
    let mut register = Register::new(ORIGIN, vec![key(OPERATOR).public().did()]);
    register.apply(&say("maker", json!({"party": key(MAKER).public().did()}), OPERATOR), 0).unwrap();
    let registrars = json!({"role": "registrar", "members": [key(REGISTRAR).public().did()]});
    register.apply(&say("role", registrars, OPERATOR), 1).unwrap();
    register.apply(&enrol(DEVICE, MAKER), 2).unwrap();
    register
}

/// Guarantee: only operators name makers, only makers enrol, and a key is enrolled once.
#[test]
fn authority() {
    let mut register = with_device();
    let maker = say("maker", json!({"party": key(OTHER).public().did()}), OTHER);
    assert_eq!(register.apply(&maker, 3), Err(Refusal::NotAnOperator));
    assert_eq!(register.apply(&enrol(7, OTHER), 3), Err(Refusal::NotAMaker));
    assert_eq!(register.apply(&enrol(DEVICE, MAKER), 3), Err(Refusal::DuplicateKey));
    assert_eq!(register.device_by_kid(key(DEVICE).public().short_id()).unwrap().number, DeviceNumber(0));
}

/// Guarantee: a device has one wearer at a time, and both sides signed.
#[test]
fn bindings_are_disjoint_and_countersigned() {
    let mut register = with_device();
    let (a, b, c) =
        (json!("2026-01-01T00:00:00Z"), json!("2026-02-01T00:00:00Z"), json!("2026-03-01T00:00:00Z"));
    let forged = bind("bind", a.clone(), b.clone(), PATIENT, OTHER);
    assert_eq!(register.apply(&forged, 3), Err(Refusal::CoSignature));
    register.apply(&bind("bind", a.clone(), c.clone(), PATIENT, DEVICE), 3).unwrap();
    let overlap = bind("bind", b.clone(), Value::Null, OTHER, DEVICE);
    assert_eq!(register.apply(&overlap, 4), Err(Refusal::BindingOverlap));
    register.apply(&bind("bind", c.clone(), Value::Null, OTHER, REGISTRAR), 4).unwrap();
    register.apply(&bind("unbind", b, c, PATIENT, DEVICE), 5).unwrap();
    let who = |text: &str| {
        let at = crate::time::parse_rfc3339_us(text).unwrap();
        register.binding_at(DeviceNumber(0), at).map(|binding| binding.subject)
    };
    assert_eq!(who("2026-01-15T00:00:00Z"), Some(key(PATIENT).public().did()));
    assert_eq!(who("2026-02-15T00:00:00Z"), None);
    assert_eq!(who("2026-03-01T00:00:00Z"), Some(key(OTHER).public().did()));
}

/// Guarantee: a rotated device keeps number and name; a rotated person keeps their id; dead keys say nothing.
#[test]
fn rotation_and_revocation() {
    let mut register = with_device();
    let pop = |by: u8, new: u8| proof_of_possession(ORIGIN, &key(by).public().did(), &key(new));
    let did = |seed: u8| key(seed).public().did();
    let rotate = json!({"old": did(DEVICE), "new": did(10), "pop": pop(MAKER, 10)});
    register.apply(&say("rotate", rotate, MAKER), 3).unwrap();
    let device = register.device_by_kid(key(10).public().short_id()).unwrap();
    assert_eq!((device.number, device.first_id), (DeviceNumber(0), key(DEVICE).public().short_id()));
    let person = json!({"old": did(PATIENT), "new": did(11), "pop": pop(PATIENT, 11)});
    register.apply(&say("rotate", person, PATIENT), 4).unwrap();
    assert_eq!(register.subject_of(&did(11)), did(PATIENT));
    let late = say("erase", json!({"scope": "all"}), PATIENT);
    assert_eq!(register.apply(&late, 5), Err(Refusal::RevokedKey));
    let theft = say("revoke-key", json!({"key": did(10), "compromised_from": "2026-01-01T00:00:00Z"}), OTHER);
    assert_eq!(register.apply(&theft, 5), Err(Refusal::NotAllowed));
    register.apply(&say("revoke-key", json!({"key": did(10)}), MAKER), 5).unwrap();
    assert_eq!(register.device(DeviceNumber(0)).unwrap().keys[1].revoked.unwrap().at_index, 5);
}

/// Guarantee: nobody but the subject grants, nobody but operator or registrar freezes.
#[test]
fn grants_are_the_subjects_own() {
    let register = with_device();
    let grant = json!({"subject": key(PATIENT).public().did(), "signals": ["*"], "purposes": ["TREAT"],
        "grantee": {"kind": "role", "value": "clinician"}});
    assert_eq!(register.check(&say("grant", grant.clone(), OPERATOR)), Err(Refusal::NotAllowed));
    assert_eq!(register.check(&say("grant", grant, PATIENT)), Ok(()));
    let freeze = json!({"subject": key(PATIENT).public().did(), "reason": "lost key"});
    assert_eq!(register.check(&say("freeze", freeze.clone(), OTHER)), Err(Refusal::NotAllowed));
    assert_eq!(register.check(&say("freeze", freeze, REGISTRAR)), Ok(()));
}
