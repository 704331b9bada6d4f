//! Tokens of an identity provider, through the same door: let in, listed, revoked and ended as all others, and never for more
//! than reading.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use query_oidc::claims::Path;
use query_oidc::{Metrics, PartySecret, Provider, ProviderOptions, Providers, Refused, Source};
use schemas_identity::statement::RevokeKey;
use serde_json::{Value, json};

use super::*;

const ISSUER: &str = "https://id.example";

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The provider signs with key 50.
fn providers(dir: &TempDir) -> Providers {
    let path = dir.path().join("keys.json");
    let key = json!({"kty": "OKP", "crv": "Ed25519", "kid": "k", "x": encode(key(50).public().as_bytes())});
    fs::write(&path, json!({"keys": [key]}).to_string()).unwrap();
    let options = ProviderOptions {
        issuer: ISSUER.into(),
        audience: "vitalog".into(),
        source: Source::File(path),
        roles_claim: Path::parse("groups").unwrap(),
        roles: BTreeMap::from([("ward".into(), "clinician".into())]),
        studies: BTreeMap::new(),
        purposes: vec!["TREAT".into()],
        age_max_s: 900,
        refresh_s: 300,
        stale_max_s: 86_400,
    };
    let metrics = Metrics::new(&prometheus::Registry::new()).unwrap();
    let provider = Provider::new(options, Arc::new(PartySecret::new(&[7; 32])), metrics.clone());
    provider.keep(NOW_S).unwrap();
    Providers::new(vec![Arc::new(provider)], metrics)
}

impl World {
    /// With a provider; also after a kill.
    fn trusting(mut self, now_s: i64) -> World {
        self.killed(now_s);
        let tokens = Tokens::open(&self.dir.path().join("tokens"), ORIGIN, self.consents.clone(), now_s);
        self.tokens = tokens.unwrap().trusting(providers(&self.dir));
        self
    }
}

fn claims(sub: &str, jti: &str) -> Value {
    json!({"iss": ISSUER, "aud": "vitalog", "sub": sub, "jti": jti, "iat": NOW_S, "exp": NOW_S + 600, "groups": ["ward"]})
}

fn signed(header: &Value, claims: &Value, seed: u8) -> String {
    let message = format!("{}.{}", encode(header.to_string()), encode(claims.to_string()));
    format!("{message}.{}", encode(key(seed).sign(message.as_bytes())))
}

fn text_of(sub: &str, jti: &str) -> String {
    signed(&json!({"alg": "EdDSA", "kid": "k"}), &claims(sub, jti), 50)
}

/// Guarantee: a provider's token comes in for reading alone, is listed for its holder with what it gave, and its holder ends
/// one or all by any of them; nobody else's end with it; a kill changes nothing.
#[test]
fn a_providers_token_has_an_owner() {
    let mut world = World::new().trusting(NOW_S);
    let admit = |world: &World, sub: &str, jti: &str| world.tokens.admit(&text_of(sub, jti), NOW_S);
    let (first, other) = (admit(&world, "maria", "a").unwrap(), admit(&world, "josef", "a").unwrap());
    assert_eq!((first.scope, other.scope), (Scope::Sql, Scope::Sql));
    assert_ne!(first.iss, other.iss);
    let second = admit(&world, "maria", "b").unwrap();
    assert_eq!(second.iss, first.iss);
    world.tokens.keep(NOW_S).unwrap();
    world.tokens.revoke(&second, Target::One("a"), NOW_S).unwrap();
    for _ in 0..2 {
        assert_eq!(admit(&world, "maria", "a"), Err(NotAdmitted::Revoked));
        assert!(admit(&world, "maria", "b").is_ok() && admit(&world, "josef", "a").is_ok());
        let listed = world.tokens.list(&first.iss).tokens;
        let shown: Vec<_> = listed.iter().map(|one| (one.jti.as_str(), one.is_revoked)).collect();
        assert_eq!(shown, [("a", true), ("b", false)]);
        assert_eq!(listed[1].seen.as_ref().unwrap().token, second);
        world = world.trusting(NOW_S);
    }
    world.tokens.revoke(&second, Target::All, NOW_S).unwrap();
    assert_eq!(admit(&world, "maria", "c"), Err(NotAdmitted::Revoked));
    assert!(admit(&world, "josef", "a").is_ok());
}

/// Guarantee: an operator ends somebody for good by a statement about their name; so does nobody else.
#[test]
fn an_operator_ends_a_person() {
    let world = World::new().trusting(NOW_S);
    let maria = world.tokens.admit(&text_of("maria", "a"), NOW_S).unwrap();
    let running =
        world.consents.warrant(Ask::rows(&maria, NOW_S * 1_000_000).named(Some("TREAT"), None)).unwrap();
    let end = Body::RevokeKey(RevokeKey { key: maria.iss, compromised_from: None });
    let compact = sign(&end, ORIGIN, NOW_S, [9; 16], &key(2));
    let statement = Statement::parse(&compact, ORIGIN).unwrap();
    assert!(world.consents.apply(&statement, 1, 1).is_err());
    assert!(running.is_current());
    world.say(1, &end);
    assert!(!running.is_current());
    assert_eq!(world.tokens.admit(&text_of("maria", "b"), NOW_S), Err(NotAdmitted::KeyRevoked));
    assert!(world.tokens.admit(&text_of("josef", "b"), NOW_S).is_ok());
}

/// Guarantee: what a token says of its kind opens no second way: a provider's signature under our kind, ours under another
/// kind, a provider's token where no provider is trusted, and claims of ours in a provider's token give nothing.
#[test]
fn kinds_are_not_mixed() {
    let world = World::new().trusting(NOW_S);
    let ours = json!({"alg": "EdDSA", "typ": "vitalog-token+jwt", "kid": "k"});
    assert!(matches!(
        world.tokens.admit(&signed(&ours, &claims("m", "a"), 50), NOW_S),
        Err(NotAdmitted::Token(_))
    ));
    let named = json!({"alg": "EdDSA", "typ": "vitalog-token+jwt", "kid": did(50)});
    assert!(world.tokens.admit(&signed(&named, &claims("m", "a"), 50), NOW_S).is_err());
    let (header, rest) = text(2, "a").split_once('.').map(|(h, r)| (h.to_owned(), r.to_owned())).unwrap();
    assert!(world.tokens.admit(&format!("{header}.{rest}"), NOW_S).is_ok());
    let other = encode(json!({"alg": "EdDSA", "typ": "JWT", "kid": did(2)}).to_string());
    assert_eq!(
        world.tokens.admit(&format!("{other}.{rest}"), NOW_S),
        Err(NotAdmitted::Provider(Refused::Issuer))
    );
    let mut greedy = claims("maria", "a");
    for (name, value) in [("scope", "operate"), ("purpose", "TREAT"), ("study", "sleep")] {
        greedy[name] = value.into();
    }
    let greedy =
        world.tokens.admit(&signed(&json!({"alg": "EdDSA", "kid": "k"}), &greedy, 50), NOW_S).unwrap();
    assert_eq!((greedy.scope, greedy.purpose.as_str(), greedy.study), (Scope::Sql, "", None));
    let alone = World::new();
    assert!(matches!(alone.tokens.admit(&text_of("maria", "a"), NOW_S), Err(NotAdmitted::Token(_))));
    assert!(world.tokens.admit(&"A".repeat(20_000), NOW_S).is_err());
}

/// Guarantee: a request chooses among what the provider's people may name, and nothing is chosen for them.
#[test]
fn purposes_are_chosen_within_bounds() {
    let world = World::new().trusting(NOW_S);
    let maria = world.tokens.admit(&text_of("maria", "a"), NOW_S).unwrap();
    let ask = |purpose, study| {
        world
            .consents
            .warrant(Ask::rows(&maria, NOW_S * 1_000_000).named(purpose, study))
            .map(|warrant| warrant.until_us())
    };
    assert_eq!(ask(Some("TREAT"), None), Ok((NOW_S + 600) * 1_000_000));
    assert_eq!(ask(None, None), Err(Refusal::NoPurpose));
    assert_eq!(ask(Some(""), None), Err(Refusal::NoPurpose));
    assert_eq!(ask(Some("HRESCH"), None), Err(Refusal::OtherPurpose));
    assert_eq!(ask(Some("TREAT"), Some("sleep")), Err(Refusal::OtherStudy));
}
