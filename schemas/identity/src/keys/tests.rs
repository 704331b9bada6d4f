//! The key rule and the signature rule against published vectors.

use std::path::PathBuf;

use serde_json::Value;

use super::*;

fn shared(path: &str) -> Option<PathBuf> {
    let root = std::env::var_os("VITALOG_SHARED").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared")),
        PathBuf::from,
    );
    let file = root.join(path);
    if file.exists() {
        return Some(file);
    }
    eprintln!("skipped: {path} is not beside this clone (VITALOG_SHARED)");
    None
}

fn load(path: &str) -> Option<Value> {
    Some(serde_json::from_slice(&std::fs::read(shared(path)?).unwrap()).unwrap())
}

fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap()).unwrap()
}

/// The whole rule: an admitted key and an accepted signature.
fn accepts(key: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let Ok(signature) = <&[u8; 64]>::try_from(signature) else { return false };
    PublicKey::admit(key).is_ok_and(|key| key.verify(message, signature))
}

/// Guarantee: no disagreement with Wycheproof's 151 verdicts.
#[test]
fn wycheproof() {
    let Some(file) = load("vectors/ed25519/wycheproof_ed25519_test.json") else { return };
    let mut seen = 0;
    for group in file["testGroups"].as_array().unwrap() {
        let key = &group["publicKey"]["pk"];
        for test in group["tests"].as_array().unwrap() {
            let accepted = accepts(&bytes(key), &bytes(&test["msg"]), &bytes(&test["sig"]));
            assert_eq!(accepted, test["result"] == "valid", "tcId {}", test["tcId"]);
            seen += 1;
        }
    }
    assert_eq!(seen, 151);
}

/// Guarantee: of the 914 edge cases where libraries disagree, the rule accepts the one clean vector only.
#[test]
fn cctv_edge_cases() {
    let Some(file) = load("vectors/ed25519/cctv_ed25519vectors.json") else { return };
    let tests = file.as_array().unwrap();
    let accepted = tests
        .iter()
        .filter(|test| {
            accepts(&bytes(&test["key"]), test["msg"].as_str().unwrap().as_bytes(), &bytes(&test["sig"]))
        })
        .count();
    assert_eq!((tests.len(), accepted), (914, 1));
}

/// Guarantee: for admitted keys the rule is `verify_strict`, on the twelve cases that tell libraries apart.
#[test]
fn speccheck() {
    let Some(file) = load("vectors/ed25519/speccheck_cases.json") else { return };
    let tests = file.as_array().unwrap();
    assert_eq!(tests.len(), 12);
    for test in tests {
        let (key, message, signature) =
            (bytes(&test["pub_key"]), bytes(&test["message"]), bytes(&test["signature"]));
        let strict = VerifyingKey::from_bytes(&key.clone().try_into().unwrap()).is_ok_and(|key| {
            key.verify_strict(&message, &Signature::from_bytes(&signature.clone().try_into().unwrap()))
                .is_ok()
        });
        let expected = PublicKey::admit(&key).is_ok() && strict;
        assert_eq!(accepts(&key, &message, &signature), expected);
    }
}

/// Guarantee: RFC 8032 section 7.1 signs and verifies exactly as printed there.
#[test]
fn rfc8032() {
    let text = include_str!("../../../vectors/ed25519_rfc8032.json");
    let file: Value = serde_json::from_str(text).unwrap();
    for test in file["vectors"].as_array().unwrap() {
        let seed: [u8; 32] = bytes(&test["secret"]).try_into().unwrap();
        let message = bytes(&test["message"]);
        let key = SecretKey::from_seed(&seed);
        assert_eq!(key.public().as_bytes().to_vec(), bytes(&test["public"]), "{}", test["name"]);
        assert_eq!(key.sign(&message).to_vec(), bytes(&test["signature"]), "{}", test["name"]);
        assert!(accepts(&bytes(&test["public"]), &message, &bytes(&test["signature"])));
    }
}

/// Guarantee: small order, torsion, second spellings and wrong lengths never become keys.
#[test]
fn hostile_keys_are_refused() {
    let identity = "0100000000000000000000000000000000000000000000000000000000000000";
    let order_8 = "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05";
    let second_spelling = "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff";
    let cases = [
        (identity, KeyRefusal::SmallOrder),
        (order_8, KeyRefusal::SmallOrder),
        (second_spelling, KeyRefusal::NonCanonical),
        ("0200000000000000000000000000000000000000000000000000000000000000", KeyRefusal::NotAPoint),
    ];
    for (text, expected) in cases {
        assert_eq!(PublicKey::admit(&hex::decode(text).unwrap()), Err(expected), "{text}");
    }
    assert_eq!(PublicKey::admit(&[0; 31]), Err(KeyRefusal::Length(31)));
    let clean = CompressedEdwardsY(*SecretKey::from_seed(&[7; 32]).public().as_bytes()).decompress().unwrap();
    let torsion = CompressedEdwardsY(hex::decode(order_8).unwrap().try_into().unwrap()).decompress().unwrap();
    assert_eq!(PublicKey::admit(&(clean + torsion).compress().to_bytes()), Err(KeyRefusal::Torsion));
}

/// Guarantee: a key file round-trips, and its text never shows up in debug output.
#[test]
fn pem_round_trip() {
    let key = SecretKey::from_seed(&[9; 32]);
    let again = SecretKey::from_pem(&key.to_pem()).unwrap();
    assert_eq!(key.public(), again.public());
    assert!(key.to_pem().starts_with("-----BEGIN PRIVATE KEY-----\n"));
    assert!(!format!("{key:?}").contains("0909"));
    assert_eq!(SecretKey::from_pem("hello").err(), Some(PemError));
}
