//! Compact JWS (RFC 7515) with Ed25519, strict: the header has exactly `alg`, `typ`, `kid`; `alg` is `EdDSA` (RFC 8037)
//! or `Ed25519` (RFC 9864); `kid` is the signer's did:key; base64url has no padding and no second spelling.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use crate::{Did, SecretKey, json};

/// Largest compact text that is looked at.
pub const JWS_BYTES_MAX: usize = 16 << 10;
const HEADER_BYTES_MAX: usize = 512;

/// Why a compact JWS is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JwsError {
    /// Longer than [`JWS_BYTES_MAX`].
    #[error("longer than {JWS_BYTES_MAX} bytes")]
    TooLong,
    /// Not three parts of canonical base64url.
    #[error("not three base64url parts")]
    Form,
    /// Header members other than alg, typ, kid, or values that are not allowed.
    #[error("header: {0}")]
    Header(&'static str),
    /// The payload is no JSON object, or has a member twice.
    #[error("payload: {0}")]
    Payload(String),
    /// The signature does not verify under `kid`.
    #[error("the signature does not verify")]
    Signature,
}

/// A verified JWS.
pub(crate) struct Opened {
    pub(crate) signer: Did,
    pub(crate) payload: Map<String, Value>,
}

/// base64url without padding.
pub(crate) fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Canonical base64url without padding; a second spelling is refused.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

/// A 64-byte signature in base64url.
pub(crate) fn decode_signature(text: &str) -> Option<[u8; 64]> {
    decode(text)?.try_into().ok()
}

/// Signs `payload` as compact JWS with that `typ`; `kid` is the signer's did:key.
pub fn sign_compact(typ: &str, payload: &[u8], key: &SecretKey) -> String {
    let header = format!(r#"{{"alg":"EdDSA","typ":"{typ}","kid":"{}"}}"#, key.public().did());
    let signed = format!("{}.{}", encode(header.as_bytes()), encode(payload));
    let signature = key.sign(signed.as_bytes());
    format!("{signed}.{}", encode(&signature))
}

/// Whether the header of a compact text says that `typ`. It says nothing else about the text: this only chooses who looks at it.
pub(crate) fn says_typ(compact: &str, typ: &str) -> bool {
    let header = compact.split('.').next().unwrap_or_default();
    if header.len() > 2 * HEADER_BYTES_MAX {
        return false;
    }
    let header = decode(header).and_then(|bytes| json::parse_foreign_object(&bytes).ok());
    header.is_some_and(|header| header.get("typ").and_then(Value::as_str) == Some(typ))
}

/// Parses and verifies; the signer is whoever `kid` names.
pub(crate) fn open(compact: &str, typ: &str) -> Result<Opened, JwsError> {
    if compact.len() > JWS_BYTES_MAX {
        return Err(JwsError::TooLong);
    }
    let mut parts = compact.split('.');
    let (Some(header), Some(payload), Some(signature), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(JwsError::Form);
    };
    let signed = &compact[..header.len() + 1 + payload.len()];
    let header = decode(header).ok_or(JwsError::Form)?;
    let payload = decode(payload).ok_or(JwsError::Form)?;
    let signature = decode_signature(signature).ok_or(JwsError::Form)?;
    let signer = check_header(&header, typ)?;
    if !signer.key().verify(signed.as_bytes(), &signature) {
        return Err(JwsError::Signature);
    }
    let payload = json::parse_object(&payload).map_err(|error| JwsError::Payload(error.to_string()))?;
    Ok(Opened { signer, payload })
}

fn check_header(bytes: &[u8], typ: &str) -> Result<Did, JwsError> {
    if bytes.len() > HEADER_BYTES_MAX {
        return Err(JwsError::Header("too long"));
    }
    let header = json::parse_object(bytes).map_err(|_| JwsError::Header("not a JSON object"))?;
    if header.len() != 3 {
        return Err(JwsError::Header("must have exactly alg, typ and kid"));
    }
    let text = |name: &str| header.get(name).and_then(Value::as_str);
    if !matches!(text("alg"), Some("EdDSA" | "Ed25519")) {
        return Err(JwsError::Header("alg must be EdDSA or Ed25519"));
    }
    if text("typ") != Some(typ) {
        return Err(JwsError::Header("typ is not the one expected here"));
    }
    let kid = text("kid").ok_or(JwsError::Header("kid is missing"))?;
    kid.parse().map_err(|_| JwsError::Header("kid is not an admissible did:key"))
}
