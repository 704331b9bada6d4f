//! Consent: what a person's signed statements allow, as one pure, total function.
//!
//! Read in this order: [`terms`] (purpose, resolution, export, period), [`grant`] (one grant or deny, validated),
//! [`asker`] (who is in which group), [`state`] (the fold over a log of statements), `decide` (may this principal see this one sample, and why),
//! [`spans`] (the same answer for all samples at once, as disjoint intervals per device), `explain` (why nothing of somebody).
//!
//! What this crate does not do: read a clock, touch a disk, check a signature (`schemas-identity` did), or know a row.
//! Everything not understood is a refusal: unknown signal, purpose, role, study or export never widens access.
//!
//! ```text
//! statements in log order -> ConsentState -+-> decide(state, register, request, point) -> Permit | Deny(reason)
//!             enrolment, roles, studies,   |
//!             bindings  -> Register -------+-> compile(state, register, request) -> [Span], pointwise the same
//! ```
//!
//! The order of authority: erased, then frozen, then the subject's own view, then denies, then grants and break-glass.

pub mod asker;
pub mod decide;
pub mod duo;
pub mod explain;
pub mod grant;
mod matching;
pub mod refusal;
pub mod spans;
pub mod state;
pub mod terms;

pub use asker::Asker;
pub use decide::{Decision, Point, Reason, Request, decide};
pub use explain::explain;
pub use grant::{Devices, Grant, Grantee};
pub use refusal::Refusal;
pub use spans::{Span, compile, compile_some, horizon, named_among, named_subjects, steady_until};
pub use state::{ConsentState, Emergency, Ended, Freeze, SubjectConsent};
pub use terms::{Export, Period, Resolution, Use};

#[cfg(test)]
mod tests;
