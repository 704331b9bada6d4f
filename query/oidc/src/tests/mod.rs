//! Providers against forgers, slow and lying servers, and time. Keys are made here, except for one RSA key that was made once
//! for these tests (`fixtures/rsa2048.txt`) and is worth nothing elsewhere.

mod attacks;
mod fetching;
mod hostile;
mod vectors;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::RsaPublicKeyComponents;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use schemas_identity::SecretKey;
use schemas_identity::token::Token;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::claims::Path;
use crate::{Metrics, PartySecret, Provider, ProviderOptions, Providers, Refused, Source};

pub(super) const NOW_S: i64 = 1_800_000_000;
pub(super) const ISSUER: &str = "https://id.example/realms/hospital";
pub(super) const AUDIENCE: &str = "vitalog";

pub(super) fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A provider's private key.
pub(super) enum Signer {
    Rs(Box<RsaKeyPair>),
    Es(EcdsaKeyPair),
    Ed(SecretKey),
}

impl Signer {
    /// The one of the fixture.
    pub(super) fn rs() -> Signer {
        let pem = include_str!("../../fixtures/rsa2048.txt");
        let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        Signer::Rs(Box::new(RsaKeyPair::from_pkcs8(&STANDARD.decode(body).unwrap()).unwrap()))
    }

    /// A new one.
    pub(super) fn es() -> Signer {
        let (kind, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
        let document = EcdsaKeyPair::generate_pkcs8(kind, &random).unwrap();
        Signer::Es(EcdsaKeyPair::from_pkcs8(kind, document.as_ref(), &random).unwrap())
    }

    pub(super) fn ed(seed: u8) -> Signer {
        Signer::Ed(SecretKey::from_seed(&[seed; 32]))
    }

    pub(super) fn alg(&self) -> &'static str {
        match self {
            Signer::Rs(_) => "RS256",
            Signer::Es(_) => "ES256",
            Signer::Ed(_) => "EdDSA",
        }
    }

    pub(super) fn jwk(&self, kid: &str) -> Value {
        match self {
            Signer::Rs(pair) => {
                let public: RsaPublicKeyComponents<Vec<u8>> = pair.public().into();
                json!({"kty": "RSA", "use": "sig", "alg": "RS256", "kid": kid, "n": encode(public.n), "e": encode(public.e)})
            }
            Signer::Es(pair) => {
                let point = pair.public_key().as_ref();
                json!({"kty": "EC", "crv": "P-256", "kid": kid, "x": encode(&point[1..33]), "y": encode(&point[33..])})
            }
            Signer::Ed(key) => {
                json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": encode(key.public().as_bytes())})
            }
        }
    }

    pub(super) fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Signer::Rs(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).unwrap();
                signature
            }
            Signer::Es(pair) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
            Signer::Ed(key) => key.sign(message).to_vec(),
        }
    }

    /// A token of this header and these claims, really signed.
    pub(super) fn token_of(&self, header: &str, claims: &str) -> String {
        let signed = format!("{}.{}", encode(header), encode(claims));
        format!("{signed}.{}", encode(self.sign(signed.as_bytes())))
    }

    pub(super) fn token(&self, kid: &str, claims: &Value) -> String {
        self.token_of(&json!({"alg": self.alg(), "typ": "JWT", "kid": kid}).to_string(), &claims.to_string())
    }
}

/// Claims of somebody with one role.
pub(super) fn claims() -> Value {
    json!({
        "iss": ISSUER, "aud": AUDIENCE, "sub": "f:1:maria", "iat": NOW_S - 10, "exp": NOW_S + 300, "jti": "t1",
        "realm_access": {"roles": ["ward-doctors", "offline_access"]}, "weight": 0.5,
    })
}

/// The same with one claim changed; `Null` takes it away.
pub(super) fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    match value {
        Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
        value => claims[name] = value,
    }
    claims
}

pub(super) fn document(keys: &[Value]) -> String {
    json!({"keys": keys}).to_string()
}

pub(super) fn options(source: Source) -> ProviderOptions {
    let table = |value: &str, name: &str| BTreeMap::from([(value.to_owned(), name.to_owned())]);
    ProviderOptions {
        issuer: ISSUER.into(),
        audience: AUDIENCE.into(),
        source,
        roles_claim: Path::parse("realm_access.roles").unwrap(),
        roles: table("ward-doctors", "clinician"),
        studies: table("sleep-team", "sleep"),
        purposes: vec!["TREAT".into(), "CAREMGT".into()],
        age_max_s: 900,
        refresh_s: 300,
        stale_max_s: 86_400,
    }
}

pub(super) fn providers(options: ProviderOptions) -> Providers {
    let metrics = Metrics::new(&prometheus::Registry::new()).unwrap();
    let provider = Provider::new(options, Arc::new(PartySecret::new(&[7; 32])), metrics.clone());
    Providers::new(vec![Arc::new(provider)], metrics)
}

/// A provider whose keys stand in a file: `rs`, `es` and `ed`.
pub(super) struct World {
    pub(super) rs: Signer,
    pub(super) es: Signer,
    pub(super) ed: Signer,
    pub(super) providers: Providers,
    pub(super) path: PathBuf,
    _dir: TempDir,
}

impl World {
    pub(super) fn new() -> World {
        World::with(|options| options)
    }

    pub(super) fn with(change: impl FnOnce(ProviderOptions) -> ProviderOptions) -> World {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("keys.json");
        let (rs, es, ed) = (Signer::rs(), Signer::es(), Signer::ed(1));
        let providers = providers(change(options(Source::File(path.clone()))));
        let world = World { rs, es, ed, providers, path, _dir: dir };
        let keys = [world.rs.jwk("rs"), world.es.jwk("es"), world.ed.jwk("ed")];
        world.publish(&document(&keys));
        world.keep(NOW_S).unwrap();
        world
    }

    pub(super) fn publish(&self, document: &str) {
        std::fs::write(&self.path, document).unwrap();
    }

    pub(super) fn keep(&self, now_s: i64) -> Result<(), crate::KeysError> {
        self.providers.all()[0].keep(now_s)
    }

    pub(super) fn signers(&self) -> [(&'static str, &Signer); 3] {
        [("rs", &self.rs), ("es", &self.es), ("ed", &self.ed)]
    }

    pub(super) fn verify(&self, text: &str) -> Result<Token, Refused> {
        self.providers.verify(text, NOW_S)
    }

    /// Signed by the key `ed`.
    pub(super) fn asked(&self, claims: &Value) -> Result<Token, Refused> {
        self.verify(&self.ed.token("ed", claims))
    }
}
