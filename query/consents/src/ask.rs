//! A request for a warrant: what a verified token says, narrowed by what the connection names.
//!
//! Naming a purpose or study can only narrow a token. A token without a study cannot gain one, and nothing is assumed:
//! no purpose, no warrant. A token that an identity provider signed carries neither: it allows some, and naming one of these
//! narrows it to that one.

use schemas_consent::{Resolution, Use};
use schemas_identity::Did;
use schemas_identity::token::{Scope, Token, Vouched};
use thiserror::Error;

/// One request for a warrant.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// The verified token.
    pub token: &'a Token,
    /// The purpose the connection names, if it does; must be the token's, or one that it allows.
    pub purpose: Option<&'a str>,
    /// The study the connection names, if it does; must be the token's, or one that it allows.
    pub study: Option<&'a str>,
    /// What will happen to the data. The door knows; the asking party has no say.
    pub use_: Use,
    /// How fine the data asked for is.
    pub resolution: Resolution,
    /// The present, microseconds since 1970 UTC.
    pub now_us: i64,
}

impl<'a> Ask<'a> {
    /// Rows at full resolution through SQL, for the token's own purpose and study.
    pub fn rows(token: &'a Token, now_us: i64) -> Ask<'a> {
        Ask { token, purpose: None, study: None, use_: Use::Rows, resolution: Resolution::Raw, now_us }
    }

    /// The same with the names a connection carries.
    #[must_use]
    pub fn named(self, purpose: Option<&'a str>, study: Option<&'a str>) -> Ask<'a> {
        Ask { purpose, study, ..self }
    }

    /// The purpose and study that the request states, allowed or not: for records.
    pub fn stated(&self) -> (&'a str, Option<&'a str>) {
        match &self.token.vouched {
            Some(_) => (self.purpose.unwrap_or_default(), self.study),
            None => (&self.token.purpose, self.token.study.as_deref()),
        }
    }

    /// Checks that the token may be used for this, and returns who asks, for which purpose and study.
    pub(crate) fn narrowed(&self) -> Result<(Did, &'a str, Option<&'a str>), Refusal> {
        let token = self.token;
        if token.scope != Scope::Sql {
            return Err(Refusal::Scope);
        }
        if self.now_us >= token.exp_s.saturating_mul(1_000_000) {
            return Err(Refusal::Expired);
        }
        if let Some(vouched) = &token.vouched {
            return self.chosen(vouched);
        }
        if token.purpose.is_empty() {
            return Err(Refusal::NoPurpose);
        }
        if let Some(named) = self.purpose
            && named != token.purpose
        {
            return Err(Refusal::OtherPurpose);
        }
        if let Some(named) = self.study
            && token.study.as_deref() != Some(named)
        {
            return Err(Refusal::OtherStudy);
        }
        Ok((token.iss, &token.purpose, token.study.as_deref()))
    }

    /// The same of a token that allows some purposes and studies and names none.
    fn chosen(&self, vouched: &Vouched) -> Result<(Did, &'a str, Option<&'a str>), Refusal> {
        let purpose = self.purpose.filter(|named| !named.is_empty()).ok_or(Refusal::NoPurpose)?;
        if !vouched.purposes.contains(purpose) {
            return Err(Refusal::OtherPurpose);
        }
        if self.study.is_some_and(|named| !vouched.studies.contains(named)) {
            return Err(Refusal::OtherStudy);
        }
        Ok((self.token.iss, purpose, self.study))
    }
}

/// Why no warrant is made. It never depends on any subject's consent: having no grant gives an empty warrant, not this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The token is for something else than reading.
    #[error("the token's scope does not allow queries")]
    Scope,
    /// The token is over.
    #[error("the token has expired")]
    Expired,
    /// Neither the token names a purpose nor, where it may, the connection.
    #[error("no purpose is named")]
    NoPurpose,
    /// The purpose is none that a grant could name.
    #[error("the purpose is not a known one")]
    UnknownPurpose,
    /// The connection names a purpose the token does not have.
    #[error("the purpose is not the token's; names narrow a token and never widen it")]
    OtherPurpose,
    /// The connection names a study the token does not have.
    #[error("the study is not the token's; names narrow a token and never widen it")]
    OtherStudy,
    /// There is no such study, or the party is not in it, or it is over. One text for all of them.
    #[error("the study is not open to this party")]
    StudyClosed,
    /// The asking key was revoked or replaced.
    #[error("the key is no longer in force")]
    KeyRevoked,
    /// The token was revoked.
    #[error("the token was revoked")]
    TokenRevoked,
}

impl Refusal {
    /// A stable short name for answers and audit records.
    pub fn code(&self) -> &'static str {
        match self {
            Refusal::Scope => "scope",
            Refusal::Expired => "token-expired",
            Refusal::NoPurpose => "no-purpose",
            Refusal::UnknownPurpose => "unknown-purpose",
            Refusal::OtherPurpose => "other-purpose",
            Refusal::OtherStudy => "other-study",
            Refusal::StudyClosed => "study-closed",
            Refusal::KeyRevoked => "key-revoked",
            Refusal::TokenRevoked => "token-revoked",
        }
    }
}
