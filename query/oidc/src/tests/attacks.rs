//! Forgers: other algorithms, other keys, other headers, other times, other audiences.

use serde_json::{Value, json};

use super::{AUDIENCE, ISSUER, NOW_S, Signer, World, claims, document, encode, with};
use crate::Refused;
use crate::provider::TOKEN_BYTES_MAX;

/// HMAC-SHA-256 (RFC 2104), as whoever confuses RS256 with HS256 would make it.
fn hmac(secret: &[u8], message: &[u8]) -> Vec<u8> {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret);
    ring::hmac::sign(&key, message).as_ref().to_vec()
}

/// Guarantee (F17): no algorithm but the key's own is ever used, whatever the header says: not `none`, not an HMAC with the
/// public key as its secret, not another key's.
#[test]
fn the_key_decides_the_algorithm() {
    let world = World::new();
    for (kid, signer) in world.signers() {
        let good = signer.token(kid, &claims());
        assert!(world.verify(&good).is_ok());
        let claims = claims().to_string();
        for alg in [
            "none", "None", "NONE", "", "HS256", "HS512", "RS384", "RS512", "PS256", "ES384", "ES256K",
            "Ed448",
        ] {
            let header = json!({"alg": alg, "kid": kid}).to_string();
            assert_eq!(world.verify(&signer.token_of(&header, &claims)), Err(Refused::Algorithm), "{alg}");
            let unsigned = format!("{}.{}.", encode(&header), encode(&claims));
            assert_eq!(world.verify(&unsigned), Err(Refused::Algorithm), "{alg}");
        }
        // Another key of the same provider, under this key's name, by either name of the algorithm.
        for (_, other) in world.signers().into_iter().filter(|(other, _)| *other != kid) {
            for alg in [signer.alg(), other.alg()] {
                let header = json!({"alg": alg, "kid": kid}).to_string();
                assert!(world.verify(&other.token_of(&header, &claims)).is_err(), "{kid} by {}", other.alg());
            }
        }
    }
    let (header, claims) = (json!({"alg": "HS256", "kid": "rs"}).to_string(), claims().to_string());
    let message = format!("{}.{}", encode(header), encode(claims));
    let jwk = world.rs.jwk("rs");
    let pem = include_str!("../../fixtures/rsa2048.txt");
    let modulus = crate::jwt::decode(jwk["n"].as_str().unwrap()).unwrap();
    for secret in [
        modulus.as_slice(),
        jwk["n"].as_str().unwrap().as_bytes(),
        pem.as_bytes(),
        jwk.to_string().as_bytes(),
        b"",
    ] {
        let forged = format!("{message}.{}", encode(hmac(secret, message.as_bytes())));
        assert_eq!(world.verify(&forged), Err(Refused::Algorithm));
    }
}

/// Guarantee (F17): a token brings neither its own key nor the place of one; `kid` is a name among the issuer's keys and
/// nothing else, whatever it looks like; a member we do not know is refused.
#[test]
fn a_token_brings_no_key() {
    let world = World::new();
    let attacker = Signer::ed(66);
    let own = attacker.jwk("ed");
    for (name, value) in [
        ("jku", json!("http://127.0.0.1:1/keys")),
        ("x5u", json!("http://127.0.0.1:1/cert")),
        ("jwk", own.clone()),
        ("x5c", json!(["AAAA"])),
        ("crit", json!(["exp"])),
        ("crit", json!([])),
        ("b64", json!(false)),
        ("zip", json!("DEF")),
        ("nonce", json!("n")),
        ("Alg", json!("none")),
    ] {
        let mut header = json!({"alg": "EdDSA", "kid": "ed"});
        header[name] = value;
        for signer in [&attacker, &world.ed] {
            let text = signer.token_of(&header.to_string(), &claims().to_string());
            assert!(matches!(world.verify(&text), Err(Refused::Header(_))), "{name}");
        }
    }
    for kid in [
        "../../../../dev/null",
        "/etc/passwd",
        "https://evil.example/keys",
        "ed'; DROP TABLE keys --",
        "ED",
        "ed ",
        " ed",
        "ed\u{0}",
        "did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp",
    ] {
        assert_eq!(world.verify(&attacker.token(kid, &claims())), Err(Refused::UnknownKey), "{kid}");
        assert_eq!(world.verify(&world.ed.token(kid, &claims())), Err(Refused::UnknownKey), "{kid}");
    }
    let header = |kid: Value| json!({"alg": "EdDSA", "kid": kid}).to_string();
    for kid in [json!(""), json!("k".repeat(257)), json!(1), json!(["ed"]), json!(null)] {
        let text = world.ed.token_of(&header(kid.clone()), &claims().to_string());
        assert!(matches!(world.verify(&text), Err(Refused::Header(_))), "{kid}");
    }
    let nameless = world.ed.token_of(r#"{"alg":"EdDSA"}"#, &claims().to_string());
    assert!(matches!(world.verify(&nameless), Err(Refused::Header(_))));
    assert_eq!(world.verify(&attacker.token("ed", &claims())), Err(Refused::Signature));
}

/// Guarantee (F17): a token works for its issuer, its audience and its time alone; nothing that must be there may be missing.
#[test]
fn bounds_of_a_token() {
    let world = World::new();
    let claim = |name, value| world.asked(&with(name, value));
    for wrong in
        [json!("https://evil.example"), json!(format!("{ISSUER}/")), json!([ISSUER]), json!(null), json!("")]
    {
        assert_eq!(claim("iss", wrong), Err(Refused::Issuer));
    }
    for wrong in [json!("other"), json!(["a", "b"]), json!([]), json!("Vitalog"), json!([[AUDIENCE]])] {
        assert_eq!(claim("aud", wrong), Err(Refused::Audience));
    }
    let many: Vec<&str> = std::iter::repeat_n(AUDIENCE, 17).collect();
    for wrong in [json!(null), json!(1), json!({"aud": AUDIENCE}), json!(many)] {
        assert!(matches!(claim("aud", wrong), Err(Refused::Claims(_))));
    }
    for (name, second, is_good) in [
        ("exp", NOW_S + 1, true),
        ("exp", NOW_S, false),
        ("exp", NOW_S - 1, false),
        ("exp", i64::MAX, true),
        ("exp", i64::MIN, false),
        ("iat", NOW_S + 60, true),
        ("iat", NOW_S + 61, false),
        ("iat", NOW_S - 899, true),
        ("iat", NOW_S - 900, false),
        ("iat", i64::MIN, false),
        ("iat", i64::MAX, false),
        ("nbf", NOW_S + 60, true),
        ("nbf", NOW_S + 61, false),
    ] {
        let expected = if is_good { None } else { Some(Refused::Time) };
        assert_eq!(claim(name, json!(second)).err(), expected, "{name} {second}");
    }
    assert_eq!(
        world.asked(&{
            let mut claims = with("iat", json!(NOW_S + 30));
            claims["exp"] = json!(NOW_S + 30);
            claims
        }),
        Err(Refused::Time)
    );
    for (name, values) in [
        ("exp", vec![json!(null), json!("1800000300"), json!(1_800_000_300.5), json!(u64::MAX), json!(true)]),
        ("iat", vec![json!(null), json!("x"), json!([NOW_S])]),
        ("nbf", vec![json!("x"), json!(0.5)]),
        ("sub", vec![json!(null), json!(""), json!(7), json!("s".repeat(256))]),
        ("cnf", vec![json!({"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"})]),
    ] {
        for value in values {
            assert!(matches!(claim(name, value.clone()), Err(Refused::Claims(_))), "{name} {value}");
        }
    }
}

/// Guarantee (F17): two readers of one token never see two tokens: a member twice, at any depth, in header or claims, is
/// refused; so are other kinds of token, other spellings of base64url, more or fewer parts, and more bytes than a token has.
#[test]
fn forms_of_a_token() {
    let world = World::new();
    let header = json!({"alg": "EdDSA", "kid": "ed"}).to_string();
    let claims_text = claims().to_string();
    let twice = |text: &str, more: &str| text.replacen('{', &format!("{{{more},"), 1);
    for (header, claims, refusal) in [
        (
            twice(&header, r#""kid":"rs""#),
            claims_text.clone(),
            Refused::Header("not a JSON object without duplicate members"),
        ),
        (
            twice(&header, r#""alg":"none""#),
            claims_text.clone(),
            Refused::Header("not a JSON object without duplicate members"),
        ),
        (header.clone(), twice(&claims_text, r#""aud":"other""#), Refused::Payload),
        (header.clone(), twice(&claims_text, r#""exp":1"#), Refused::Payload),
        (header.clone(), claims_text.replace("\"roles\":", "\"roles\":[],\"roles\":"), Refused::Payload),
        (header.clone(), "[]".into(), Refused::Payload),
        (header.clone(), format!("{claims_text} x"), Refused::Payload),
        (header.clone(), String::new(), Refused::Payload),
    ] {
        assert_eq!(world.verify(&world.ed.token_of(&header, &claims)), Err(refusal), "{header} {claims}");
    }
    for typ in
        [json!("vitalog-token+jwt"), json!("vitalog+jws"), json!("logout+jwt"), json!("dpop+jwt"), json!(1)]
    {
        let header = json!({"alg": "EdDSA", "kid": "ed", "typ": typ}).to_string();
        assert!(matches!(world.verify(&world.ed.token_of(&header, &claims_text)), Err(Refused::Header(_))));
    }
    for typ in ["JWT", "jwt", "at+jwt", "application/at+jwt", "AT+JWT"] {
        let header =
            json!({"alg": "EdDSA", "kid": "ed", "typ": typ, "x5t": "AA", "x5t#S256": "AA"}).to_string();
        assert!(world.verify(&world.ed.token_of(&header, &claims_text)).is_ok(), "{typ}");
    }
    let good = world.ed.token("ed", &claims());
    let (signed, signature) = good.rsplit_once('.').unwrap();
    for odd in [
        String::new(),
        "..".into(),
        "...".into(),
        ".".into(),
        signed.into(),
        format!("{signed}."),
        format!("{good}."),
        format!("{good}.{signature}"),
        format!("{good}="),
        format!("{good} "),
        format!(" {good}"),
        format!("{signed}+.{signature}"),
        good.replace('.', ".\n"),
    ] {
        assert!(world.verify(&odd).is_err(), "{odd}");
    }
    let padded = with("padding", json!("x".repeat(TOKEN_BYTES_MAX)));
    assert_eq!(world.asked(&padded), Err(Refused::TooLong));
    let header = json!({"alg": "EdDSA", "kid": "ed", "x5t": "x".repeat(2_048)}).to_string();
    assert_eq!(world.verify(&world.ed.token_of(&header, &claims_text)), Err(Refused::Header("too long")));
}

/// Guarantee: one provider's key says nothing about another provider's people.
#[test]
fn keys_are_their_issuers() {
    let (first, second) = (
        World::new(),
        World::with(|options| crate::ProviderOptions { issuer: "https://other.example".into(), ..options }),
    );
    second.publish(&document(&[Signer::ed(2).jwk("ed"), Signer::ed(3).jwk("only-here")]));
    second.keep(NOW_S + 1).unwrap();
    let metrics = crate::Metrics::new(&prometheus::Registry::new()).unwrap();
    let both = [first.providers.all(), second.providers.all()].concat();
    let both = crate::Providers::new(both, metrics);
    let theirs = with("iss", json!("https://other.example"));
    for (signer, kid, claims, is_good) in [
        (Signer::ed(1), "ed", claims(), true),
        (Signer::ed(2), "ed", theirs.clone(), true),
        (Signer::ed(2), "ed", claims(), false),
        (Signer::ed(1), "ed", theirs.clone(), false),
        (Signer::ed(3), "only-here", claims(), false),
        (Signer::ed(3), "only-here", theirs, true),
    ] {
        assert_eq!(both.verify(&signer.token(kid, &claims), NOW_S).is_ok(), is_good);
    }
}
