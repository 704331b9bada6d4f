//! Keys as providers publish them (RFC 7517, 7518, 8037): the key decides the algorithm, once, when it is read.
//!
//! | `kty` | `crv` | verifies | note |
//! |---|---|---|---|
//! | RSA | | RS256 | 2048 to 8192 bits, exponent 65537 |
//! | EC | P-256 | ES256 | the point is checked with each signature |
//! | OKP | Ed25519 | EdDSA | our own key rule and signature rule |
//!
//! A key of another kind, for encryption, for another algorithm, without a `kid` or with a private part is left out. Two
//! keys of one `kid` make the whole document unusable: which of them a token meant could not be told.

use std::collections::BTreeMap;

use ring::signature::{ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256};
use ring::signature::{RsaPublicKeyComponents, UnparsedPublicKey};
use schemas_identity::PublicKey;
use schemas_identity::json::parse_foreign_object;
use serde_json::{Map, Value};
use thiserror::Error;

use crate::jwt;

/// Keys in a document at most.
pub const KEYS_MAX: usize = 64;
/// Longest `kid`, bytes.
pub const KID_BYTES_MAX: usize = 256;
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;
/// 65537, which every provider uses; small exponents invite mistakes of others.
const RSA_EXPONENT: [u8; 3] = [1, 0, 1];
/// Members that only a private or a symmetric key has.
const SECRET_MEMBERS: [&str; 7] = ["d", "p", "q", "dp", "dq", "qi", "k"];

/// A document that is no usable set of keys.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KeySetError {
    /// Not a JSON object without duplicate members.
    #[error("not a JSON object: {0}")]
    Json(String),
    /// No list of keys in it.
    #[error("it has no list `keys` of objects")]
    NoKeys,
    /// More than [`KEYS_MAX`].
    #[error("{0} keys, more than {KEYS_MAX}")]
    TooMany(usize),
    /// Two usable keys of one name.
    #[error("two keys have the kid `{0}`")]
    Twice(String),
}

/// One key, with the only algorithm it may be used for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256 {
        /// The modulus, big-endian.
        modulus: Vec<u8>,
    },
    /// ECDSA on P-256 with SHA-256.
    Es256 {
        /// The uncompressed point.
        point: Vec<u8>,
    },
    /// Ed25519, under the key rule of this house.
    EdDsa(PublicKey),
}

/// A provider's keys by `kid`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeySet {
    keys: BTreeMap<String, Key>,
    left_out: usize,
}

impl KeySet {
    /// Reads a document. An empty one is a good one: a provider may withdraw all keys.
    ///
    /// # Errors
    /// See [`KeySetError`].
    pub fn parse(document: &[u8]) -> Result<KeySet, KeySetError> {
        let document =
            parse_foreign_object(document).map_err(|error| KeySetError::Json(error.to_string()))?;
        let listed = document.get("keys").and_then(Value::as_array).ok_or(KeySetError::NoKeys)?;
        if listed.len() > KEYS_MAX {
            return Err(KeySetError::TooMany(listed.len()));
        }
        let mut set = KeySet::default();
        for value in listed {
            let members = value.as_object().ok_or(KeySetError::NoKeys)?;
            let (Some(kid), Some(key)) = (kid(members), Key::read(members)) else {
                set.left_out += 1;
                continue;
            };
            if set.keys.insert(kid.clone(), key).is_some() {
                return Err(KeySetError::Twice(kid));
            }
        }
        Ok(set)
    }

    /// The key of this very name.
    pub fn get(&self, kid: &str) -> Option<&Key> {
        self.keys.get(kid)
    }

    /// How many keys can be used.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether none can be used.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// How many keys were left out.
    pub fn left_out(&self) -> usize {
        self.left_out
    }
}

fn text<'m>(members: &'m Map<String, Value>, name: &str) -> Option<&'m str> {
    members.get(name).and_then(Value::as_str)
}

fn bytes(members: &Map<String, Value>, name: &str) -> Option<Vec<u8>> {
    jwt::decode(text(members, name)?)
}

fn kid(members: &Map<String, Value>) -> Option<String> {
    let kid = text(members, "kid")?;
    (!kid.is_empty() && kid.len() <= KID_BYTES_MAX).then(|| kid.to_owned())
}

impl Key {
    /// `None` for a key that is not for us.
    fn read(members: &Map<String, Value>) -> Option<Key> {
        if SECRET_MEMBERS.iter().any(|name| members.contains_key(*name)) || !is_for_signatures(members) {
            return None;
        }
        let key = match (text(members, "kty")?, text(members, "crv")) {
            ("RSA", None) => rsa(members)?,
            ("EC", Some("P-256")) => p256(members)?,
            ("OKP", Some("Ed25519")) => Key::EdDsa(PublicKey::admit(&bytes(members, "x")?).ok()?),
            _ => return None,
        };
        match members.get("alg") {
            None => Some(key),
            Some(alg) => alg.as_str().is_some_and(|alg| key.is_called(alg)).then_some(key),
        }
    }

    /// Whether this is a name of its algorithm.
    pub fn is_called(&self, alg: &str) -> bool {
        match self {
            Key::Rs256 { .. } => alg == "RS256",
            Key::Es256 { .. } => alg == "ES256",
            Key::EdDsa(_) => alg == "EdDSA" || alg == "Ed25519",
        }
    }

    /// Whether the signature over the message is this key's, by this key's algorithm.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Key::Rs256 { modulus } => {
                let key = RsaPublicKeyComponents { n: modulus.as_slice(), e: RSA_EXPONENT.as_slice() };
                key.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature).is_ok()
            }
            Key::Es256 { point } => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature).is_ok()
            }
            Key::EdDsa(key) => match signature.try_into() {
                Ok(signature) => key.verify(message, signature),
                Err(_) => false,
            },
        }
    }
}

/// `use` and `key_ops`, where they are there, must say so.
fn is_for_signatures(members: &Map<String, Value>) -> bool {
    let used = members.get("use").is_none_or(|used| used.as_str() == Some("sig"));
    let verifies = |operations: &Value| match operations.as_array() {
        Some(operations) => operations.iter().any(|operation| operation.as_str() == Some("verify")),
        None => false,
    };
    used && members.get("key_ops").is_none_or(verifies)
}

fn rsa(members: &Map<String, Value>) -> Option<Key> {
    let modulus = bytes(members, "n")?;
    let leading = usize::try_from(modulus.first()?.leading_zeros()).ok()?;
    let has_size = RSA_BITS.contains(&(modulus.len() * 8 - leading));
    // A leading zero byte is a second spelling of the number.
    let is_plain = leading < 8 && bytes(members, "e")? == RSA_EXPONENT;
    (has_size && is_plain).then_some(Key::Rs256 { modulus })
}

fn p256(members: &Map<String, Value>) -> Option<Key> {
    let (x, y) = (bytes(members, "x")?, bytes(members, "y")?);
    if x.len() != 32 || y.len() != 32 {
        return None;
    }
    Some(Key::Es256 { point: [&[4], x.as_slice(), y.as_slice()].concat() })
}
