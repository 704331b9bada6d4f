//! Tokens of identity providers (OpenID Connect): verified against the keys that a provider publishes, and turned into a
//! [`Token`](schemas_identity::token::Token) that says which roles and studies of this deployment its holder has.
//!
//! ```text
//! keys: file, or URL fetched in the background --> [`KeySet`] --.
//!                                                               v
//! token text --> form, header --> the one key named by `kid` --> signature --> claims --> roles by the configured table
//! ```
//!
//! Read: [`provider`] (a provider as configured; the order of checks), [`jwt`] (form and header), [`jwk`] (keys: the key
//! decides the algorithm), [`claims`] (who, when, for whom), [`keys`] (how fresh keys are), [`source`] (where they come from),
//! [`party`] (the name of a person without a key), [`metrics`].
//!
//! What it is not: a login (no browser, no code flow, no client secret), a session (a token is looked at anew with each
//! request), a judge of what a role may see (`schemas-consent`), a clock or a thread: the present is an argument, and whoever
//! serves calls [`Provider::keep`] each second from where waiting is no harm.
//!
//! Everything not understood is refused. Only RS256, ES256 and EdDSA are there to be chosen, so neither `none` nor an HMAC
//! with a public key can be; nothing in a token says where to look for a key.
//!
//! | limit | value | beyond it |
//! |---|---|---|
//! | text of a token ([`TOKEN_BYTES_MAX`]) | 16 KiB | refused unread |
//! | its header ([`jwt::HEADER_BYTES_MAX`]) | 2 KiB | refused |
//! | `kid` ([`jwk::KID_BYTES_MAX`]) | 256 bytes | refused; a key with a longer one is left out |
//! | document of keys ([`source::DOCUMENT_BYTES_MAX`]) | 256 KiB | refused; the keys from before stay |
//! | keys in it ([`jwk::KEYS_MAX`]) | 64 | as above |
//! | values of the roles claim, of `aud` ([`claims::VALUES_MAX`], [`claims::AUDIENCES_MAX`]) | 1,024, 16 | refused |
//! | time of a fetch ([`source::FETCH_TIME_MAX`]) | 10 s | failed; tried again later |
//! | fetches for an unknown `kid` ([`keys::WANTED_EVERY_S`]) | one a minute | the token is refused, none is made |

pub mod claims;
pub mod jwk;
pub mod jwt;
pub mod keys;
pub mod metrics;
pub mod party;
pub mod provider;
pub mod source;
#[cfg(test)]
mod tests;

pub use jwk::KeySet;
pub use keys::KeysError;
pub use metrics::Metrics;
pub use party::PartySecret;
pub use provider::{Provider, ProviderOptions, Providers, Refused, TOKEN_BYTES_MAX};
pub use source::{Source, SourceError};
