//! Bearer tokens: JWT (RFC 7519) signed by the asker's own key; `iss` = `sub` = the did:key in `kid`.
//! Not a session: a token is usable until it expires, by whoever holds it, against one origin only.
//!
//! A [`Token`] may also stand for one that an identity provider signed ([`Vouched`]); those are verified elsewhere
//! (`query-oidc`), and nothing in this file makes one.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::json;

use crate::jws::{self, JwsError};
use crate::{Did, SecretKey};

/// `typ` of a token, checked exactly.
pub const TOKEN_TYP: &str = "vitalog-token+jwt";
/// Longest life of a token in seconds.
pub const TOKEN_SECONDS_MAX: i64 = 24 * 3600;
/// How far a token may be issued in the future: clocks differ.
pub const CLOCK_SKEW_SECONDS_MAX: i64 = 60;
const JTI_BYTES_MAX: usize = 64;
const NAME_BYTES_MAX: usize = 128;

/// What a token may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Ask, and read what concerns oneself.
    Sql,
    /// Publish frames.
    Publish,
    /// Operate the deployment.
    Operate,
}

impl Scope {
    /// The claim's text.
    pub fn as_str(self) -> &'static str {
        match self {
            Scope::Sql => "sql",
            Scope::Publish => "publish",
            Scope::Operate => "operate",
        }
    }
}

/// What an identity provider says of somebody by one token, in words of this deployment: each is allowed, none is chosen.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Vouched {
    /// The provider.
    pub issuer: String,
    /// Roles that the person has as long as this token holds.
    pub roles: BTreeSet<String>,
    /// Studies that the person is in as long as this token holds.
    pub studies: BTreeSet<String>,
    /// Purposes that may be named.
    pub purposes: BTreeSet<String>,
}

/// A verified token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Who asks. Of somebody vouched for it is a name without a key ([`Did::of_nobody`]).
    pub iss: Did,
    /// Id of the token.
    pub jti: String,
    /// Purpose of use, an HL7 v3 ActReason code; empty if vouched for, since the request names it then.
    pub purpose: String,
    /// Study in whose name is asked.
    pub study: Option<String>,
    /// What an identity provider vouches for; nothing if the asker's own key signed the token.
    pub vouched: Option<Arc<Vouched>>,
    /// What it may be used for.
    pub scope: Scope,
    /// Issued, seconds since 1970.
    pub iat_s: i64,
    /// Expires, seconds since 1970.
    pub exp_s: i64,
}

/// Why a token is not accepted. Outsiders are told one constant text; this is for the operator's log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The JWS around it.
    #[error(transparent)]
    Jws(#[from] JwsError),
    /// A claim is missing, unknown or of the wrong form.
    #[error("claims: {0}")]
    Claims(String),
    /// `iss`, `sub` and the signer are not one party.
    #[error("iss, sub and kid differ")]
    Issuer,
    /// Made for another deployment.
    #[error("made for another deployment")]
    Audience,
    /// Expired, issued in the future, or with too long a life.
    #[error("not valid now")]
    Time,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Claims {
    iss: Did,
    sub: Did,
    aud: String,
    iat: i64,
    exp: i64,
    jti: String,
    purpose: String,
    #[serde(default)]
    study: Option<String>,
    #[serde(default)]
    scope: Option<String>,
}

/// Whether a text says of itself that it is a token of this kind; it may be a bad one.
pub fn is_ours(jwt: &str) -> bool {
    jws::says_typ(jwt, TOKEN_TYP)
}

/// Signs a token with the key of `token.iss`.
pub fn issue(token: &Token, origin: &str, key: &SecretKey) -> String {
    let mut claims = json!({
        "iss": token.iss, "sub": token.iss, "aud": origin, "iat": token.iat_s, "exp": token.exp_s,
        "jti": token.jti, "purpose": token.purpose, "scope": token.scope.as_str(),
    });
    if let Some(study) = &token.study {
        claims["study"] = study.clone().into();
    }
    jws::sign_compact(TOKEN_TYP, claims.to_string().as_bytes(), key)
}

impl Token {
    /// Verifies a token for a deployment at a moment (seconds since 1970).
    pub fn parse(jwt: &str, origin: &str, now_s: i64) -> Result<Token, TokenError> {
        let opened = jws::open(jwt, TOKEN_TYP)?;
        let claims: Claims = serde_json::from_value(serde_json::Value::Object(opened.payload))
            .map_err(|error| TokenError::Claims(error.to_string()))?;
        if claims.iss != opened.signer || claims.sub != opened.signer {
            return Err(TokenError::Issuer);
        }
        if claims.aud != origin {
            return Err(TokenError::Audience);
        }
        let life = claims.exp.saturating_sub(claims.iat);
        let early = claims.iat > now_s.saturating_add(CLOCK_SKEW_SECONDS_MAX);
        if early || claims.exp <= now_s || life <= 0 || life > TOKEN_SECONDS_MAX {
            return Err(TokenError::Time);
        }
        claims.into_token()
    }
}

impl Claims {
    fn into_token(self) -> Result<Token, TokenError> {
        let named = |text: &str, most: usize| !text.is_empty() && text.len() <= most;
        if !named(&self.jti, JTI_BYTES_MAX) || !named(&self.purpose, NAME_BYTES_MAX) {
            return Err(TokenError::Claims("jti or purpose is empty or too long".into()));
        }
        if self.study.as_ref().is_some_and(|study| !named(study, NAME_BYTES_MAX)) {
            return Err(TokenError::Claims("study is empty or too long".into()));
        }
        let scope = match self.scope.as_deref() {
            None | Some("sql") => Scope::Sql,
            Some("publish") => Scope::Publish,
            Some("operate") => Scope::Operate,
            Some(_) => return Err(TokenError::Claims("unknown scope".into())),
        };
        Ok(Token {
            iss: self.iss,
            jti: self.jti,
            purpose: self.purpose,
            study: self.study,
            vouched: None,
            scope,
            iat_s: self.iat,
            exp_s: self.exp,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn token(key: &SecretKey) -> Token {
        Token {
            iss: key.public().did(),
            jti: "t1".into(),
            purpose: "HRESCH".into(),
            study: None,
            vouched: None,
            scope: Scope::Sql,
            iat_s: NOW,
            exp_s: NOW + 3600,
        }
    }

    /// Guarantee: a token works for its deployment and its time, and nowhere else.
    #[test]
    fn bounds_of_a_token() {
        let key = SecretKey::from_seed(&[1; 32]);
        let text = issue(&token(&key), "a/log", &key);
        assert_eq!(Token::parse(&text, "a/log", NOW).unwrap(), token(&key));
        assert_eq!(Token::parse(&text, "b/log", NOW), Err(TokenError::Audience));
        assert_eq!(Token::parse(&text, "a/log", NOW + 3600), Err(TokenError::Time));
        assert_eq!(Token::parse(&text, "a/log", NOW - 61), Err(TokenError::Time));
        let long = Token { exp_s: NOW + TOKEN_SECONDS_MAX + 1, ..token(&key) };
        assert_eq!(Token::parse(&issue(&long, "a/log", &key), "a/log", NOW), Err(TokenError::Time));
    }

    /// Guarantee: nobody signs for another, and `alg` tricks fail.
    #[test]
    fn forged_tokens() {
        let (mine, other) = (SecretKey::from_seed(&[1; 32]), SecretKey::from_seed(&[2; 32]));
        let stolen_name = issue(&token(&mine), "a/log", &other);
        assert_eq!(Token::parse(&stolen_name, "a/log", NOW), Err(TokenError::Issuer));
        let text = issue(&token(&mine), "a/log", &mine);
        let body = text.split('.').nth(1).unwrap();
        for alg in ["none", "HS256", "RS256", "ES256"] {
            let header = format!(r#"{{"alg":"{alg}","typ":"{TOKEN_TYP}","kid":"{}"}}"#, mine.public().did());
            let forged =
                format!("{}.{body}.{}", jws::encode(header.as_bytes()), text.rsplit('.').next().unwrap());
            assert!(
                matches!(Token::parse(&forged, "a/log", NOW), Err(TokenError::Jws(JwsError::Header(_)))),
                "{alg}"
            );
        }
    }
}
