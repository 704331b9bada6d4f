//! Statements: what parties say, signed, as compact JWS. Every kind of DESIGN section 4, and nothing else.
//!
//! Parsing checks all that needs no state: signature, `typ`, version, audience, exact fields, sizes, that the signer is
//! the one who may say this kind at all, and the device's proof of possession. What needs state (is the signer a
//! registered maker, does the binding overlap) is [`crate::register`]'s.

use serde_json::{Map, Value};

use crate::jws::{self, JwsError};
use crate::{Did, SecretKey, StatementId};

mod body;

pub use body::{
    Bind, Body, BreakGlass, Devices, Enrol, Erase, Freeze, GrantBody, Grantee, GranteeKind, Maker, Notice,
    RevokeBody, RevokeKey, RevokeTarget, Role, Rotate, Study, Term,
};

/// `typ` of a statement, checked exactly.
pub const STATEMENT_TYP: &str = "vitalog+jws";
/// First words of what a device signs to show that its key is its own.
const PROOF_PREFIX: &str = "vitalog 2026 device proof v1\n";
const NONCE_CHARS: usize = 22;

/// Why a statement is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StatementError {
    /// The JWS around it.
    #[error(transparent)]
    Jws(#[from] JwsError),
    /// A common field (v, kind, aud, iat, nonce) is missing or of the wrong form.
    #[error("field `{0}` is missing or malformed")]
    Field(&'static str),
    /// No such kind.
    #[error("unknown kind `{0}`")]
    Kind(String),
    /// The kind's own fields: unknown, missing, too long or malformed.
    #[error("{kind}: {problem}")]
    Body {
        /// The kind.
        kind: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Made for another deployment.
    #[error("made for another deployment (aud `{0}`)")]
    Audience(String),
    /// This kind is signed by somebody else.
    #[error("a {0} is signed by its subject")]
    Signer(&'static str),
    /// `pop` or `co` does not verify.
    #[error("`{0}` does not verify")]
    Proof(&'static str),
}

/// A verified statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// BLAKE3 of the compact text.
    pub id: StatementId,
    /// The text as signed.
    pub compact: String,
    /// Who signed.
    pub signer: Did,
    /// The deployment it is for.
    pub aud: String,
    /// Signed at, seconds since 1970 by the signer's clock.
    pub iat_s: i64,
    /// 22 base64url characters, so that two statements of the same words differ.
    pub nonce: String,
    /// What is said.
    pub body: Body,
    /// What `co` signs: the payload without `co`.
    pub(crate) co_message: Vec<u8>,
}

/// The bytes a device signs to prove its key: the maker (or, in a rotation, the signer) is named in them.
pub fn proof_message(origin: &str, signer: &Did) -> Vec<u8> {
    format!("{PROOF_PREFIX}{origin}\n{signer}").into_bytes()
}

/// `pop` of [`Enrol`] and [`Rotate`]: base64url of the device's signature over [`proof_message`].
pub fn proof_of_possession(origin: &str, signer: &Did, device: &SecretKey) -> String {
    jws::encode(&device.sign(&proof_message(origin, signer)))
}

fn payload(body: &Body, origin: &str, iat_s: i64, nonce: [u8; 16]) -> Map<String, Value> {
    let mut payload = Map::new();
    payload.insert("v".into(), 1.into());
    payload.insert("kind".into(), body.kind().into());
    payload.insert("aud".into(), origin.into());
    payload.insert("iat".into(), iat_s.into());
    payload.insert("nonce".into(), jws::encode(&nonce).into());
    payload.extend(body.fields());
    payload
}

fn to_bytes(payload: Map<String, Value>) -> Vec<u8> {
    Value::Object(payload).to_string().into_bytes()
}

/// Signs a statement; `nonce` must be fresh randomness.
pub fn sign(body: &Body, origin: &str, iat_s: i64, nonce: [u8; 16], key: &SecretKey) -> String {
    jws::sign_compact(STATEMENT_TYP, &to_bytes(payload(body, origin, iat_s, nonce)), key)
}

/// Signs a [`Bind`] or unbind with its second signature: `co` is made by the device's key or by a registrar.
pub fn sign_with_co(
    body: &Body,
    origin: &str,
    iat_s: i64,
    nonce: [u8; 16],
    subject: &SecretKey,
    co: &SecretKey,
) -> String {
    let mut payload = payload(body, origin, iat_s, nonce);
    payload.shift_remove("co");
    let signature = co.sign(&to_bytes(payload.clone()));
    payload.insert("co".into(), jws::encode(&signature).into());
    jws::sign_compact(STATEMENT_TYP, &to_bytes(payload), subject)
}

/// Id of a compact text, before anything else is known of it.
pub fn id_of(compact: &str) -> StatementId {
    StatementId(*blake3::hash(compact.as_bytes()).as_bytes())
}

impl Statement {
    /// Verifies a statement for a deployment.
    pub fn parse(compact: &str, origin: &str) -> Result<Statement, StatementError> {
        let opened = jws::open(compact, STATEMENT_TYP)?;
        let mut fields = opened.payload;
        let mut unsigned = fields.clone();
        unsigned.shift_remove("co");
        if take(&mut fields, "v")?.as_i64() != Some(1) {
            return Err(StatementError::Field("v"));
        }
        let kind = text(take(&mut fields, "kind")?, "kind")?;
        let aud = text(take(&mut fields, "aud")?, "aud")?;
        if aud != origin {
            return Err(StatementError::Audience(aud.chars().take(200).collect()));
        }
        let iat_s = take(&mut fields, "iat")?.as_i64().ok_or(StatementError::Field("iat"))?;
        let nonce = text(take(&mut fields, "nonce")?, "nonce")?;
        if nonce.len() != NONCE_CHARS || jws::decode(&nonce).is_none() {
            return Err(StatementError::Field("nonce"));
        }
        let statement = Statement {
            id: id_of(compact),
            compact: compact.to_owned(),
            signer: opened.signer,
            body: Body::from_fields(&kind, fields)?,
            aud,
            iat_s,
            nonce,
            co_message: to_bytes(unsigned),
        };
        statement.check_signer()?;
        Ok(statement)
    }

    /// Whether `co` is the signature of this key over the payload without `co`.
    pub fn co_signed_by(&self, key: &crate::PublicKey) -> bool {
        let co = match &self.body {
            Body::Bind(bind) | Body::Unbind(bind) => &bind.co,
            _ => return false,
        };
        jws::decode_signature(co).is_some_and(|signature| key.verify(&self.co_message, &signature))
    }

    fn check_signer(&self) -> Result<(), StatementError> {
        let proved = |pop: &str, key: &Did| {
            let message = proof_message(&self.aud, &self.signer);
            jws::decode_signature(pop).is_some_and(|signature| key.key().verify(&message, &signature))
        };
        match &self.body {
            Body::Enrol(enrol) if !proved(&enrol.pop, &enrol.device_key) => Err(StatementError::Proof("pop")),
            Body::Rotate(rotate) if !proved(&rotate.pop, &rotate.new) => Err(StatementError::Proof("pop")),
            _ => Ok(()),
        }
    }
}

fn take(fields: &mut Map<String, Value>, name: &'static str) -> Result<Value, StatementError> {
    fields.shift_remove(name).ok_or(StatementError::Field(name))
}

fn text(value: Value, name: &'static str) -> Result<String, StatementError> {
    match value {
        Value::String(text) => Ok(text),
        _ => Err(StatementError::Field(name)),
    }
}

#[cfg(test)]
mod tests;
