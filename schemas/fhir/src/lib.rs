//! Accesses and consent as FHIR R4 resources, for systems that speak nothing else: pure functions to JSON.
//!
//! | file | holds |
//! |---|---|
//! | [`terms`] | code systems, identifiers, instants and periods: the words both resources share |
//! | [`audit_event()`] | one access to one person as an `AuditEvent` |
//! | [`mod@consent`] | a person's signed grants and denies as `Consent` |
//! | [`mod@bundle`] | many of them as one `Bundle` |
//!
//! What it is not: a FHIR server, an importer, or a claim of conformance to a profile. What it makes is validated against
//! the R4 StructureDefinitions (4.0) in its tests, no further. Only one direction: our records and statements stay the
//! truth, and a resource carries the signed statement itself or the log index that leads to it.
//!
//! Everybody is a did:key or a pseudonym: no name, address or birth date is known here, so none can leave.
//! No SQL either: a statement's text may hold what somebody typed about somebody else.
#![forbid(unsafe_code)]

pub mod audit_event;
pub mod bundle;
pub mod consent;
pub mod terms;

pub use audit_event::{Access, Ended, Withdrawal, audit_event};
pub use bundle::{Listing, collection, searchset};
pub use consent::{ConsentError, consents};
