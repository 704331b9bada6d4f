//! A token's text before anything in it is believed: three parts of canonical base64url, and a header that says only what
//! it may. Nothing here verifies; the bytes to verify and the name of the key are what comes out.
//!
//! The header may have `alg`, `kid`, `typ`, `x5t`, `x5t#S256`. The last two are ignored; anything else (`jku`, `jwk`, `x5u`,
//! `x5c`, `crit`, `b64`, `zip`, `nonce`) is refused: a token does not bring its own key, and rules that we do not know are
//! none that we may skip.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use schemas_identity::json::parse_foreign_object;
use serde_json::Value;

use crate::jwk::KID_BYTES_MAX;
use crate::provider::Refused;

/// Largest header, bytes.
pub const HEADER_BYTES_MAX: usize = 2 * 1024;
const HEADER_MEMBERS: [&str; 5] = ["alg", "kid", "typ", "x5t", "x5t#S256"];
/// Kinds of token that are taken; compared without regard to case, as media types are. A token may leave its kind out.
const KINDS: [&str; 3] = ["jwt", "at+jwt", "application/at+jwt"];

/// A token taken apart, unverified.
#[derive(Debug)]
pub struct Parts<'t> {
    /// What the signature is over.
    pub signed: &'t str,
    /// The payload's bytes.
    pub payload: Vec<u8>,
    /// The signature's bytes.
    pub signature: Vec<u8>,
    /// The algorithm it claims; compared with the key's, never chosen from.
    pub alg: String,
    /// The name of the key; compared with the names of one provider's keys, never used otherwise.
    pub kid: String,
}

/// Canonical base64url without padding; a second spelling is refused.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

impl Parts<'_> {
    /// Takes a text apart. The caller has bounded its length.
    ///
    /// # Errors
    /// If it has another form or its header says what it may not.
    pub fn of(text: &str) -> Result<Parts<'_>, Refused> {
        let (signed, signature) = text.rsplit_once('.').ok_or(Refused::Form)?;
        let (header, payload) = signed.split_once('.').ok_or(Refused::Form)?;
        // base64url has no dot, so a fourth part does not decode.
        let header = decode(header).ok_or(Refused::Form)?;
        let payload = decode(payload).ok_or(Refused::Form)?;
        let signature = decode(signature).ok_or(Refused::Form)?;
        let (alg, kid) = header_of(&header)?;
        Ok(Parts { signed, payload, signature, alg, kid })
    }
}

/// The algorithm and the name of the key.
fn header_of(bytes: &[u8]) -> Result<(String, String), Refused> {
    if bytes.len() > HEADER_BYTES_MAX {
        return Err(Refused::Header("too long"));
    }
    let header = parse_foreign_object(bytes)
        .map_err(|_| Refused::Header("not a JSON object without duplicate members"))?;
    if header.keys().any(|name| !HEADER_MEMBERS.contains(&name.as_str())) {
        return Err(Refused::Header("a member that is not understood"));
    }
    if let Some(typ) = header.get("typ") {
        let typ = typ.as_str().ok_or(Refused::Header("typ is no text"))?;
        if !KINDS.iter().any(|kind| kind.eq_ignore_ascii_case(typ)) {
            return Err(Refused::Header("typ is another kind of token"));
        }
    }
    let text = |name: &str| header.get(name).and_then(Value::as_str).map(str::to_owned);
    let alg = text("alg").ok_or(Refused::Header("alg is missing"))?;
    let kid = text("kid").ok_or(Refused::Header("kid is missing"))?;
    if kid.is_empty() || kid.len() > KID_BYTES_MAX {
        return Err(Refused::Header("kid is empty or too long"));
    }
    Ok((alg, kid))
}
