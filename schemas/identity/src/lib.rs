//! Who is who: ids, Ed25519 keys under one admission rule, did:key names, signed statements and tokens, and the
//! register that statements fold into.
//!
//! What it is not: no I/O, no clock, no storage. Time and randomness come in as arguments. What a *grant* means is
//! decided in `schemas-consent`; here it is only a well-formed signed statement.
//!
//! | file | holds |
//! |---|---|
//! | `ids` | short ids, boot ids, statement ids, device numbers |
//! | `keys` | the key rule and the signature rule (`enrolled-strict`) |
//! | `did` | did:key for Ed25519 |
//! | `jws` | compact JWS, strict |
//! | `json` | JSON objects without duplicate members |
//! | `statement` | every kind of statement: sign, parse |
//! | `register` | the fold: makers, roles, studies, devices, key history, bindings |
//! | `token` | bearer tokens |
//! | `time` | RFC 3339 to microseconds |

mod did;
mod ids;
pub mod json;
mod jws;
mod keys;
pub mod register;
pub mod statement;
pub mod time;
pub mod token;

pub use did::{Did, DidError};
pub use ids::{BootId, DeviceNumber, IdError, ShortId, StatementId};
pub use jws::{JWS_BYTES_MAX, JwsError, sign_compact};
pub use keys::{KeyRefusal, PemError, PublicKey, SecretKey};
pub use register::Register;
pub use statement::{Body, GrantBody, Statement};

/// A person is named by the did:key of their first key.
pub type SubjectId = Did;
