//! The claims of a token whose signature verified: for whom, by whom, about whom, when, and the values that roles hang on.
//!
//! `iss`, `sub`, `aud`, `iat` and `exp` must be there, whole numbers where they are times. A token bound to a key of its
//! holder (`cnf`) is refused: taken as a plain bearer token it would lose that protection.

use std::collections::BTreeSet;

use schemas_identity::token::CLOCK_SKEW_SECONDS_MAX;
use serde_json::{Map, Value};

use crate::provider::Refused;

/// Values of the roles claim at most.
pub const VALUES_MAX: usize = 1_024;
/// Values of `aud` at most.
pub const AUDIENCES_MAX: usize = 16;
/// Longest `sub`, bytes; OpenID Connect says the same.
const SUB_BYTES_MAX: usize = 255;
/// Longest id of a token that is kept as it is, as our own tokens have it.
const JTI_BYTES_MAX: usize = 64;

/// What a token says that holds now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// The person, at the provider.
    pub sub: String,
    /// The token's id, if it has a short plain one.
    pub jti: Option<String>,
    /// Issued, seconds since 1970.
    pub iat_s: i64,
    /// The first second at which it is of no use any more: its own end, or when it is too old.
    pub exp_s: i64,
}

/// Whom a payload claims to be from; which provider's keys are tried hangs on this, nothing else.
pub fn issuer(payload: &Map<String, Value>) -> Option<&str> {
    payload.get("iss").and_then(Value::as_str)
}

impl Claims {
    /// Checks everything but the issuer, which the caller chose the keys by.
    ///
    /// # Errors
    /// If a claim is missing, of another form, or does not hold now.
    pub fn check(
        payload: &Map<String, Value>,
        audience: &str,
        age_max_s: i64,
        now_s: i64,
    ) -> Result<Claims, Refused> {
        if payload.contains_key("cnf") {
            return Err(Refused::Claims("cnf: bound to a key that is not shown"));
        }
        if !is_for(payload.get("aud"), audience)? {
            return Err(Refused::Audience);
        }
        let iat_s = seconds(payload, "iat")?.ok_or(Refused::Claims("iat is missing"))?;
        let exp_s = seconds(payload, "exp")?.ok_or(Refused::Claims("exp is missing"))?;
        let starts_s = seconds(payload, "nbf")?.unwrap_or(iat_s).max(iat_s);
        let ends_s = exp_s.min(iat_s.saturating_add(age_max_s));
        let is_early = starts_s > now_s.saturating_add(CLOCK_SKEW_SECONDS_MAX);
        if is_early || now_s >= ends_s || exp_s <= iat_s {
            return Err(Refused::Time);
        }
        let sub = payload.get("sub").and_then(Value::as_str).unwrap_or_default();
        if sub.is_empty() || sub.len() > SUB_BYTES_MAX {
            return Err(Refused::Claims("sub is missing, empty or too long"));
        }
        let jti = payload.get("jti").and_then(Value::as_str).filter(|jti| is_plain(jti));
        Ok(Claims { sub: sub.to_owned(), jti: jti.map(str::to_owned), iat_s, exp_s: ends_s })
    }
}

/// An id that can stand in a path, so that its owner can revoke it there.
fn is_plain(jti: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    !jti.is_empty()
        && jti.len() <= JTI_BYTES_MAX
        && jti.bytes().all(plain)
        && jti.contains(char::is_alphanumeric)
}

fn is_for(aud: Option<&Value>, audience: &str) -> Result<bool, Refused> {
    match aud {
        Some(Value::String(named)) => Ok(named == audience),
        Some(Value::Array(named)) if named.len() <= AUDIENCES_MAX => {
            Ok(named.iter().any(|named| named.as_str() == Some(audience)))
        }
        _ => Err(Refused::Claims("aud is missing, too long or no text")),
    }
}

/// A time, if it is there.
fn seconds(payload: &Map<String, Value>, name: &str) -> Result<Option<i64>, Refused> {
    match payload.get(name) {
        None => Ok(None),
        Some(value) => match value.as_i64() {
            Some(seconds) => Ok(Some(seconds)),
            None => Err(Refused::Claims("a time is no whole number of seconds")),
        },
    }
}

/// Where the values of roles stand: members from the outside in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path(Vec<String>);

impl Path {
    /// Names with dots between them (`realm_access.roles`), or, if it begins with `/`, a JSON pointer (RFC 6901) for names
    /// that have dots themselves (`/https:~1~1example.org~1roles`). `None` if a name is empty.
    pub fn parse(text: &str) -> Option<Path> {
        let unescaped = |name: &str| name.replace("~1", "/").replace("~0", "~");
        let names: Vec<String> = match text.strip_prefix('/') {
            Some(pointer) => pointer.split('/').map(unescaped).collect(),
            None => text.split('.').map(str::to_owned).collect(),
        };
        names.iter().all(|name| !name.is_empty()).then_some(Path(names))
    }

    /// The texts there: one, or a list of them. Nothing there means no role, and so does what is no text.
    ///
    /// # Errors
    /// If there are more than [`VALUES_MAX`].
    pub fn values<'p>(&self, payload: &'p Map<String, Value>) -> Result<BTreeSet<&'p str>, Refused> {
        let (Some(first), rest) = (self.0.first(), self.0.get(1..).unwrap_or_default()) else {
            return Ok(BTreeSet::new());
        };
        let mut found = payload.get(first);
        for name in rest {
            found = found.and_then(Value::as_object).and_then(|members| members.get(name));
        }
        match found {
            Some(Value::String(value)) => Ok(BTreeSet::from([value.as_str()])),
            Some(Value::Array(values)) if values.len() > VALUES_MAX => {
                Err(Refused::Claims("too many values of the roles claim"))
            }
            Some(Value::Array(values)) => Ok(values.iter().filter_map(Value::as_str).collect()),
            _ => Ok(BTreeSet::new()),
        }
    }
}
