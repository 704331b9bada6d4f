//! Published signatures, and what a good token becomes.

use std::collections::BTreeSet;

use schemas_identity::token::Scope;
use serde_json::json;

use super::{NOW_S, Signer, World, claims, document, encode, with};
use crate::jwk::KeySetError;
use crate::{KeySet, Refused};

const CLAIMS: &str =
    "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";

/// RFC 7515 A.2, A.3 and RFC 8037 A.4: key, header, payload, signature.
fn published() -> [(serde_json::Value, &'static str, &'static str, &'static str); 3] {
    let rsa = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ";
    [
        (
            json!({"kty": "RSA", "kid": "k", "n": rsa, "e": "AQAB"}),
            "eyJhbGciOiJSUzI1NiJ9",
            CLAIMS,
            "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw",
        ),
        (
            json!({"kty": "EC", "crv": "P-256", "kid": "k", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}),
            "eyJhbGciOiJFUzI1NiJ9",
            CLAIMS,
            "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
        ),
        (
            json!({"kty": "OKP", "crv": "Ed25519", "kid": "k", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}),
            "eyJhbGciOiJFZERTQSJ9",
            "RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc",
            "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
        ),
    ]
}

/// Guarantee: the signatures of the standards verify under their own keys, and under no other and with no bit changed.
#[test]
fn published_signatures() {
    let keys: Vec<KeySet> = published()
        .iter()
        .map(|vector| KeySet::parse(document(std::slice::from_ref(&vector.0)).as_bytes()).unwrap())
        .collect();
    for (at, (_, header, payload, signature)) in published().iter().enumerate() {
        let message = format!("{header}.{payload}");
        let signature = crate::jwt::decode(signature).unwrap();
        for (other, keys) in keys.iter().enumerate() {
            assert_eq!(keys.get("k").unwrap().verify(message.as_bytes(), &signature), at == other);
        }
        let key = keys[at].get("k").unwrap();
        for bit in [0, signature.len() * 4, signature.len() * 8 - 1] {
            let mut changed = signature.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(!key.verify(message.as_bytes(), &changed), "bit {bit}");
        }
        assert!(!key.verify(&message.as_bytes()[1..], &signature));
        assert!(!key.verify(message.as_bytes(), &[]) && !key.verify(message.as_bytes(), &[0; 64]));
    }
}

/// Guarantee: a good token of each algorithm is somebody with the roles and studies that the table gives them and no other,
/// for reading alone, until its end or until it is too old, whichever is first.
#[test]
fn good_tokens() {
    let world = World::new();
    for (kid, signer) in world.signers() {
        let token = world.verify(&signer.token(kid, &claims())).unwrap();
        let vouched = token.vouched.clone().unwrap();
        assert_eq!(vouched.issuer, super::ISSUER);
        assert_eq!(vouched.roles, BTreeSet::from(["clinician".to_owned()]));
        assert_eq!(vouched.studies, BTreeSet::new());
        assert_eq!(vouched.purposes, BTreeSet::from(["CAREMGT".to_owned(), "TREAT".to_owned()]));
        assert_eq!((token.scope, token.purpose.as_str(), token.study.as_deref()), (Scope::Sql, "", None));
        assert_eq!((token.jti.as_str(), token.iat_s, token.exp_s), ("t1", NOW_S - 10, NOW_S + 300));
    }
    let long = world.asked(&with("exp", json!(NOW_S + 100_000))).unwrap();
    assert_eq!(long.exp_s, NOW_S - 10 + 900);
    let roles = json!({"roles": ["sleep-team", 7, null, {"ward-doctors": 1}]});
    let vouched = world.asked(&with("realm_access", roles)).unwrap().vouched.unwrap();
    assert_eq!((vouched.roles.len(), vouched.studies.len()), (0, 1));
    for taken in [json!("other"), json!(["a", AUDIENCES[0]]), json!([AUDIENCES[0]])] {
        let is_ours = taken != "other";
        assert_eq!(world.asked(&with("aud", taken)).is_ok(), is_ours);
    }
}

const AUDIENCES: [&str; 1] = [super::AUDIENCE];

/// Guarantee: one person at one provider always has the same name here, and another name at another provider, for another
/// `sub`, and in another deployment; it is nobody's key.
#[test]
fn names_of_people() {
    let world = World::new();
    let name = world.asked(&claims()).unwrap().iss;
    let again = World::new();
    assert_eq!(again.asked(&with("jti", json!("t2"))).unwrap().iss, name);
    let mut names = BTreeSet::from([name]);
    let secret = |byte| crate::PartySecret::new(&[byte; 32]);
    assert_eq!(secret(7).party(super::ISSUER, "f:1:maria"), Some(name));
    for (secret, issuer, sub) in [
        (secret(7), super::ISSUER, "f:1:marib"),
        (secret(7), "https://id.example/realms/hospitalf", ":1:maria"),
        (secret(7), "https://id.example/realms/hospita", "lf:1:maria"),
        (secret(8), super::ISSUER, "f:1:maria"),
    ] {
        assert!(names.insert(secret.party(issuer, sub).unwrap()));
    }
    // A point that was found; whoever wants to sign in its name has to find its number.
    let forged = Signer::ed(9).sign(b"anything");
    assert!(!name.key().verify(b"anything", &forged.try_into().unwrap()));
}

/// Guarantee: a token without an id of its own has one all the same, which does not hang on the spelling of the signature; one
/// whose id could not stand in a path has one too.
#[test]
fn ids_of_tokens() {
    let world = World::new();
    let derived = world.asked(&with("jti", json!(null))).unwrap().jti;
    assert_eq!(derived.len(), 32);
    assert_eq!(world.asked(&with("jti", json!(null))).unwrap().jti, derived);
    assert_ne!(world.asked(&with("jti", json!("../x"))).unwrap().jti, "../x");
    for odd in ["*", "..", "a b", "", &"j".repeat(65)] {
        let jti = world.asked(&with("jti", json!(odd))).unwrap().jti;
        assert!(jti.len() == 32 && jti != derived, "{odd}");
    }
    // s and n - s are one ECDSA signature spelled twice: both verify, and they are one token.
    let signed = format!(
        "{}.{}",
        encode(json!({"alg": "ES256", "kid": "es"}).to_string()),
        encode(with("jti", json!(null)).to_string())
    );
    let (first, second) = (world.es.sign(signed.as_bytes()), world.es.sign(signed.as_bytes()));
    assert_ne!(first, second);
    let ids = [first, second]
        .map(|signature| world.verify(&format!("{signed}.{}", encode(signature))).unwrap().jti);
    assert_eq!(ids[0], ids[1]);
}

/// Guarantee: keys that are not for signatures by one of the three algorithms, that are weak, private or nameless are left out;
/// a document with two keys of one name, or with too many, is none.
#[test]
fn keys_that_are_left_out() {
    let (rs, es, ed) = (Signer::rs().jwk("k"), Signer::es().jwk("k"), Signer::ed(1).jwk("k"));
    let changed = |key: &serde_json::Value, name: &str, value: serde_json::Value| {
        let mut key = key.clone();
        key[name] = value;
        key
    };
    let modulus = |bytes: usize| encode([&[0x80], vec![1; bytes - 1].as_slice()].concat());
    let identity: [u8; 32] = std::array::from_fn(|at| u8::from(at == 0));
    let bad = [
        changed(&rs, "use", json!("enc")),
        changed(&rs, "alg", json!("RS512")),
        changed(&rs, "alg", json!("PS256")),
        changed(&rs, "alg", json!("HS256")),
        changed(&rs, "alg", json!(7)),
        changed(&rs, "key_ops", json!(["encrypt"])),
        changed(&rs, "e", json!("Aw")),
        changed(&rs, "d", json!("AQAB")),
        changed(&rs, "n", json!(modulus(255))),
        changed(&rs, "n", json!(modulus(1_025))),
        changed(&rs, "n", json!(encode([&[0], vec![0xff; 256].as_slice()].concat()))),
        changed(&rs, "kid", json!("")),
        changed(&rs, "kid", json!("k".repeat(257))),
        changed(&rs, "kid", json!(1)),
        changed(&rs, "kty", json!("oct")),
        changed(&es, "crv", json!("P-384")),
        changed(&es, "crv", json!("secp256k1")),
        changed(&es, "alg", json!("ES384")),
        changed(&es, "x", json!("AA")),
        changed(&ed, "crv", json!("X25519")),
        changed(&ed, "x", json!(encode(identity))),
        changed(&ed, "x", json!(encode([0xff; 32]))),
        json!({"kty": "oct", "kid": "k", "k": "AAAA"}),
        json!({}),
    ];
    for key in bad {
        let set = KeySet::parse(document(std::slice::from_ref(&key)).as_bytes()).unwrap();
        assert!(set.is_empty() && set.left_out() == 1, "{key}");
    }
    for key in [&rs, &es, &ed] {
        let operations = changed(key, "key_ops", json!(["verify"]));
        assert_eq!(KeySet::parse(document(&[operations]).as_bytes()).unwrap().len(), 1);
    }
    assert_eq!(KeySet::parse(document(&[rs.clone(), es]).as_bytes()), Err(KeySetError::Twice("k".into())));
    assert_eq!(KeySet::parse(document(&vec![rs; 65]).as_bytes()), Err(KeySetError::TooMany(65)));
    assert!(KeySet::parse(document(&[]).as_bytes()).unwrap().is_empty());
    for odd in ["", "[]", "{}", r#"{"keys":{}}"#, r#"{"keys":[1]}"#, r#"{"keys":[],"keys":[]}"#, "null"] {
        assert!(KeySet::parse(odd.as_bytes()).is_err(), "{odd}");
    }
}

/// Guarantee: roles may stand anywhere in the claims, also under names with dots; nothing there is no role.
#[test]
fn where_roles_stand() {
    for (path, claim, is_found) in [
        ("groups", json!({"groups": ["ward-doctors"]}), true),
        ("groups", json!({"groups": "ward-doctors"}), true),
        ("groups", json!({"groups": "ward-doctors offline"}), false),
        ("groups", json!({"groups": {"ward-doctors": true}}), false),
        ("groups", json!({}), false),
        ("a.b.c", json!({"a": {"b": {"c": ["ward-doctors"]}}}), true),
        ("a.b.c", json!({"a.b.c": ["ward-doctors"]}), false),
        ("/https:~1~1x.example~1roles", json!({"https://x.example/roles": ["ward-doctors"]}), true),
        ("/a~01", json!({"a~1": ["ward-doctors"]}), true),
    ] {
        let parsed = crate::claims::Path::parse(path).unwrap();
        let world = World::with(|options| crate::ProviderOptions { roles_claim: parsed, ..options });
        let mut claims = with("realm_access", json!(null));
        claims.as_object_mut().unwrap().extend(claim.as_object().unwrap().clone());
        let vouched = world.asked(&claims).unwrap().vouched.unwrap();
        assert_eq!(!vouched.roles.is_empty(), is_found, "{path} in {claim}");
    }
    assert!(
        ["", "a.", ".a", "a..b", "/", "/a//b"].iter().all(|path| crate::claims::Path::parse(path).is_none())
    );
    let world = World::new();
    let many: Vec<String> = (0..1_025).map(|number| number.to_string()).collect();
    let many = world.asked(&with("realm_access", json!({"roles": many})));
    assert_eq!(many, Err(Refused::Claims("too many values of the roles claim")));
}
