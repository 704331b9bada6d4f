//! A provider as configured, and the order in which its tokens are checked.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemas_identity::json::parse_foreign_object;
use schemas_identity::token::{Scope, Token, Vouched};
use thiserror::Error;

use crate::claims::{Claims, Path, issuer};
use crate::jwt::Parts;
use crate::keys::Keys;
use crate::metrics::Metrics;
use crate::party::PartySecret;
use crate::source::Source;

/// Longest accepted token, bytes: providers put groups into them.
pub const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// Bytes of the digest that names a token which has no id of its own.
const DERIVED_ID_BYTES: usize = 16;

/// Why a token is not taken. Outsiders are told one constant text; this is for the operator's log.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refused {
    /// Longer than [`TOKEN_BYTES_MAX`].
    #[error("longer than {TOKEN_BYTES_MAX} bytes")]
    TooLong,
    /// Not three parts of canonical base64url.
    #[error("not three base64url parts")]
    Form,
    /// The header says what it may not, or lacks what it must.
    #[error("header: {0}")]
    Header(&'static str),
    /// The payload is no JSON object, or has a member twice.
    #[error("the payload is not a JSON object without duplicate members")]
    Payload,
    /// `iss` is none of the configured providers.
    #[error("no provider is configured under this issuer")]
    Issuer,
    /// The provider has no such key, as far as we know.
    #[error("the provider has no key of this kid")]
    UnknownKey,
    /// The keys could not be had, or not for too long.
    #[error("the provider's keys are unknown or too old")]
    NoKeys,
    /// The header claims another algorithm than the key has.
    #[error("alg is not the key's")]
    Algorithm,
    /// The signature is not the key's.
    #[error("the signature does not verify")]
    Signature,
    /// A claim is missing or of the wrong form.
    #[error("claims: {0}")]
    Claims(&'static str),
    /// Made for somebody else.
    #[error("made for another audience")]
    Audience,
    /// Expired, too old, or not valid yet.
    #[error("not valid now")]
    Time,
}

impl Refused {
    /// A stable short name for counters.
    pub fn code(&self) -> &'static str {
        match self {
            Refused::TooLong | Refused::Form | Refused::Payload => "form",
            Refused::Header(_) => "header",
            Refused::Issuer => "issuer",
            Refused::UnknownKey => "unknown-key",
            Refused::NoKeys => "no-keys",
            Refused::Algorithm => "algorithm",
            Refused::Signature => "signature",
            Refused::Claims(_) => "claims",
            Refused::Audience => "audience",
            Refused::Time => "time",
        }
    }
}

/// A provider as configured.
#[derive(Debug, Clone)]
pub struct ProviderOptions {
    /// `iss` of its tokens, exactly.
    pub issuer: String,
    /// What `aud` must name.
    pub audience: String,
    /// Where its keys come from.
    pub source: Source,
    /// Where in its tokens the values stand that roles hang on.
    pub roles_claim: Path,
    /// Value -> role of this deployment.
    pub roles: BTreeMap<String, String>,
    /// Value -> study of this deployment.
    pub studies: BTreeMap<String, String>,
    /// Purposes that its people may name.
    pub purposes: Vec<String>,
    /// Seconds after which a token is too old, whatever its `exp` says.
    pub age_max_s: i64,
    /// Seconds between two fetches of its keys.
    pub refresh_s: i64,
    /// Seconds after the last good fetch at which its keys are trusted no more.
    pub stale_max_s: i64,
}

/// A provider with its keys.
#[derive(Debug)]
pub struct Provider {
    options: ProviderOptions,
    keys: Keys,
    secret: Arc<PartySecret>,
}

impl Provider {
    /// A provider without keys yet: none of its tokens is taken before [`Provider::keep`] found some.
    pub fn new(options: ProviderOptions, secret: Arc<PartySecret>, metrics: Metrics) -> Provider {
        let keys = Keys::new(options.source.clone(), options.refresh_s, options.stale_max_s, metrics);
        Provider { options, keys, secret }
    }

    /// Its name.
    pub fn issuer(&self) -> &str {
        &self.options.issuer
    }

    /// Fetches or re-reads the keys if it is time to. Blocks for the network or the disk; call it each second or so.
    ///
    /// # Errors
    /// If they could not be had or used; the ones from before stay in use until they are too old.
    pub fn keep(&self, now_s: i64) -> Result<(), crate::KeysError> {
        self.keys.keep(now_s)
    }

    /// Everything about a token that claims to be this provider's.
    fn verify(
        &self,
        parts: &Parts<'_>,
        payload: &serde_json::Map<String, serde_json::Value>,
        now_s: i64,
    ) -> Result<Token, Refused> {
        let keys = self.keys.current(now_s).ok_or(Refused::NoKeys)?;
        let Some(key) = keys.get(&parts.kid) else {
            self.keys.want();
            return Err(Refused::UnknownKey);
        };
        // The key says which algorithm; a header that says another one is a forger's or a fault.
        if !key.is_called(&parts.alg) {
            return Err(Refused::Algorithm);
        }
        if !key.verify(parts.signed.as_bytes(), &parts.signature) {
            return Err(Refused::Signature);
        }
        let options = &self.options;
        let claims = Claims::check(payload, &options.audience, options.age_max_s, now_s)?;
        let values = options.roles_claim.values(payload)?;
        let named = |table: &BTreeMap<String, String>| {
            values.iter().filter_map(|value| table.get(*value).cloned()).collect()
        };
        let vouched = Vouched {
            issuer: options.issuer.clone(),
            roles: named(&options.roles),
            studies: named(&options.studies),
            purposes: options.purposes.iter().cloned().collect(),
        };
        let party = self.secret.party(&options.issuer, &claims.sub);
        Ok(Token {
            iss: party.ok_or(Refused::Claims("sub has no name here"))?,
            jti: claims.jti.unwrap_or_else(|| derived_id(parts.signed)),
            purpose: String::new(),
            study: None,
            vouched: Some(Arc::new(vouched)),
            // Never anything else: what speaks for devices or operates the deployment needs a key of its own.
            scope: Scope::Sql,
            iat_s: claims.iat_s,
            exp_s: claims.exp_s,
        })
    }
}

/// An id for a token without one. Over what was signed, not the signature: an ECDSA signature has two spellings.
fn derived_id(signed: &str) -> String {
    let hash = blake3::hash(signed.as_bytes()).to_hex();
    hash.chars().take(2 * DERIVED_ID_BYTES).collect()
}

/// All providers of a deployment.
#[derive(Debug, Default)]
pub struct Providers {
    providers: Vec<Arc<Provider>>,
    metrics: Option<Metrics>,
}

impl Providers {
    /// These providers; the caller has seen that no two have one issuer.
    pub fn new(providers: Vec<Arc<Provider>>, metrics: Metrics) -> Providers {
        Providers { providers, metrics: Some(metrics) }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.providers.is_empty()
    }

    /// Each of them.
    pub fn all(&self) -> &[Arc<Provider>] {
        &self.providers
    }

    /// The token of a text, if a provider signed it and it may be used now (seconds since 1970). Does no I/O.
    ///
    /// # Errors
    /// If not, whatever the reason.
    pub fn verify(&self, text: &str, now_s: i64) -> Result<Token, Refused> {
        let verified = self.verified(text, now_s);
        if let Some(metrics) = &self.metrics {
            metrics.token(verified.as_ref().err().map_or("ok", Refused::code));
        }
        verified
    }

    fn verified(&self, text: &str, now_s: i64) -> Result<Token, Refused> {
        if text.len() > TOKEN_BYTES_MAX {
            return Err(Refused::TooLong);
        }
        let parts = Parts::of(text)?;
        let payload = parse_foreign_object(&parts.payload).map_err(|_| Refused::Payload)?;
        let claimed = issuer(&payload).ok_or(Refused::Issuer)?;
        let provider = self.providers.iter().find(|provider| provider.issuer() == claimed);
        provider.ok_or(Refused::Issuer)?.verify(&parts, &payload, now_s)
    }
}
