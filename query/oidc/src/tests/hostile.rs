//! Bytes that nobody would send by accident: no panic, and nothing but a whole good token is one.

use std::sync::OnceLock;

use proptest::prelude::*;

use super::{NOW_S, World, claims, encode};
use crate::KeySet;

fn world() -> &'static (World, String) {
    static ONCE: OnceLock<(World, String)> = OnceLock::new();
    ONCE.get_or_init(|| {
        let world = World::new();
        let good = world.ed.token("ed", &claims());
        (world, good)
    })
}

/// JSON of any shape, with the names that matter among its names.
fn json() -> impl Strategy<Value = String> {
    let name = prop_oneof![
        prop::sample::select(vec![
            "alg", "kid", "typ", "iss", "aud", "exp", "iat", "sub", "keys", "kty", "crv", "x", "y", "n", "e"
        ])
        .prop_map(str::to_owned),
        "[a-z\"\\\\]{0,3}",
    ];
    let leaf = prop_oneof![
        Just("null".to_owned()),
        any::<i64>().prop_map(|number| number.to_string()),
        any::<f64>().prop_map(|number| number.to_string()),
        prop::sample::select(vec![
            "\"EdDSA\"",
            "\"ed\"",
            "\"RSA\"",
            "\"EC\"",
            "\"OKP\"",
            "\"Ed25519\"",
            "\"AQAB\"",
            "\"\"",
            "true",
            "1e999"
        ])
        .prop_map(str::to_owned),
        ".{0,8}".prop_map(|text| format!("{text:?}")),
    ];
    leaf.prop_recursive(4, 32, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(|items| format!("[{}]", items.join(","))),
            prop::collection::vec((name.clone(), inner), 0..6).prop_map(|items| {
                let members: Vec<String> =
                    items.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Guarantee: any text is answered, and none is a token.
    #[test]
    fn any_text(text in ".{0,200}") {
        prop_assert!(world().0.verify(&text).is_err());
    }

    /// Guarantee: any bytes as a document of keys are answered.
    #[test]
    fn any_document(bytes in prop::collection::vec(any::<u8>(), 0..300), json in json()) {
        let _ = KeySet::parse(&bytes);
        let _ = KeySet::parse(json.as_bytes());
        let _ = KeySet::parse(format!("{{\"keys\":[{json}]}}").as_bytes());
    }

    /// Guarantee: any JSON as header and claims, really signed by the right key, is answered.
    #[test]
    fn any_json(header in json(), claims in json()) {
        let world = &world().0;
        prop_assert!(world.verify(&world.ed.token_of(&header, &claims)).is_err());
        let good_header = r#"{"alg":"EdDSA","kid":"ed"}"#;
        prop_assert!(world.verify(&world.ed.token_of(good_header, &claims)).is_err());
        let nested = format!("{}{}{}", "[".repeat(3_000), claims, "]".repeat(3_000));
        let nested = format!("{}.{}.AA", encode(&header), encode(nested));
        prop_assert!(world.verify(&nested).is_err());
    }

    /// Guarantee: whatever JSON stands in the place of one claim of a good token, it is answered, and if it is still a good one
    /// then with no more than the good one had.
    #[test]
    fn any_claim(name in prop::sample::select(vec!["aud", "exp", "iat", "nbf", "sub", "jti", "realm_access", "iss"]), value in json()) {
        let world = &world().0;
        let mut members = claims();
        members.as_object_mut().unwrap().remove(name);
        let claims = members.to_string().replacen('{', &format!("{{\"{name}\":{value},"), 1);
        let header = r#"{"alg":"EdDSA","kid":"ed"}"#;
        if let Ok(token) = world.verify(&world.ed.token_of(header, &claims)) {
            prop_assert!(token.exp_s > NOW_S && token.exp_s <= NOW_S + 960);
            prop_assert!(!token.jti.is_empty() && token.jti.len() <= 64);
            let roles = &token.vouched.unwrap().roles;
            prop_assert!(roles.is_empty() || (name != "realm_access" && roles.len() == 1));
        }
    }

    /// Guarantee: no change of one byte of a good token makes another good one.
    #[test]
    fn one_byte_changed(at in 0_usize..10_000, byte in prop_oneof![4 => b'A'..=b'z', 1 => any::<u8>()]) {
        let (world, good) = world();
        let mut bytes = good.clone().into_bytes();
        let at = at % bytes.len();
        bytes[at] = byte;
        if let Ok(changed) = String::from_utf8(bytes) {
            prop_assert_eq!(world.verify(&changed).is_ok(), changed == *good);
        }
    }

    /// Guarantee: a random signature of any length is no key's.
    #[test]
    fn any_signature(signature in prop_oneof![prop::collection::vec(any::<u8>(), 64), prop::collection::vec(any::<u8>(), 0..300)], kid in 0_usize..3) {
        let world = &world().0;
        let (kid, signer) = world.signers()[kid];
        let good = signer.token(kid, &claims());
        let signed = good.rsplit_once('.').unwrap().0;
        let forged = format!("{signed}.{}", encode(signature));
        prop_assert!(world.verify(&forged).is_err());
    }

    /// Guarantee: whatever the time, a token is good for exactly the seconds between its bounds.
    #[test]
    fn any_time(now_s in prop_oneof![any::<i64>(), NOW_S - 2_000..NOW_S + 2_000]) {
        let good = &world().1;
        // Keys are fresh whenever it is.
        let fresh = World::new();
        fresh.keep(now_s).unwrap();
        let is_good = (NOW_S - 70..NOW_S + 300).contains(&now_s);
        prop_assert_eq!(fresh.providers.verify(good, now_s).is_ok(), is_good);
    }
}
