//! The check that every door makes: form, signature, audience, time, the key, revocation. One function, so that no door
//! can forget a part of it; tokens of identity providers come through it too, and out of it as every other token.

use schemas_identity::token::{Token, TokenError, is_ours};
use thiserror::Error;

use crate::Tokens;

/// Longest accepted token that its owner's key signed, bytes; a provider's may be longer ([`query_oidc::TOKEN_BYTES_MAX`]).
pub const TOKEN_BYTES_MAX: usize = 4 * 1024;

/// Why a token is not admitted. Outsiders are told one constant text; this is for the operator's log.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NotAdmitted {
    /// Longer than any token.
    #[error("longer than {TOKEN_BYTES_MAX} bytes")]
    TooLong,
    /// Not a valid token of this deployment now.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// Not a valid token of an identity provider now.
    #[error("identity provider: {0}")]
    Provider(#[from] query_oidc::Refused),
    /// Its key was revoked or replaced.
    #[error("the key is no longer in force")]
    KeyRevoked,
    /// It was revoked.
    #[error("the token was revoked")]
    Revoked,
}

impl Tokens {
    /// The token of a text, if it may be used now (seconds since 1970); its use is noted. Does no I/O.
    ///
    /// # Errors
    /// If it may not be used, whatever the reason; nothing is noted then, so strangers cannot fill anything with it.
    pub fn admit(&self, text: &str, now_s: i64) -> Result<Token, NotAdmitted> {
        let token = self.verified(text, now_s)?;
        self.in_force(&token)?;
        self.seen.lock().note(&token, now_s);
        Ok(token)
    }

    /// Whether a token that was admitted may still be used (seconds since 1970): for those who stay longer than a request.
    pub fn holds(&self, token: &Token, now_s: i64) -> bool {
        now_s < token.exp_s && self.in_force(token).is_ok()
    }

    fn in_force(&self, token: &Token) -> Result<(), NotAdmitted> {
        if !self.consents.is_live(&token.iss) {
            return Err(NotAdmitted::KeyRevoked);
        }
        if self.consents.ended().is_ended(token) {
            return Err(NotAdmitted::Revoked);
        }
        Ok(())
    }

    /// By the asker's own key, or by a provider's. What the text says of its kind only chooses who looks at it: each of the
    /// two is a whole check, and neither takes the other's tokens.
    fn verified(&self, text: &str, now_s: i64) -> Result<Token, NotAdmitted> {
        let is_provided = !self.providers.is_empty() && !is_ours(text);
        if is_provided {
            return Ok(self.providers.verify(text, now_s)?);
        }
        if text.len() > TOKEN_BYTES_MAX {
            return Err(NotAdmitted::TooLong);
        }
        Ok(Token::parse(text, &self.origin, now_s)?)
    }
}
