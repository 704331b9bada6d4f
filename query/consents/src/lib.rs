//! The live index of consent, folded from statements in log order, and the only maker of a [`Warrant`].
//!
//! Read: [`index`] (the fold, snapshots, what changed when), [`ask`] (a token narrowed to one purpose and study),
//! [`warrant`] (what one request may see, and whether that still holds), [`basis`] (that, kept for the next one), [`ended`] (tokens revoked before their time),
//! [`pseudonym`], [`catalog`] (counts), [`explain`] (why rows are missing).
//!
//! What it is not: a store of statements (ingest has the book), a judge (`schemas-consent` decides), or a door. Nothing
//! here reads a clock: the present is an argument.
//!
//! Invariant: no query runs without a `Warrant`, and only [`Consents::warrant`] makes one.

pub mod ask;
pub mod basis;
pub mod catalog;
pub mod ended;
pub mod explain;
pub mod index;
pub mod pseudonym;
pub mod warrant;

pub use ask::{Ask, Refusal};
pub use basis::Basis;
pub use catalog::{GrantCount, StudyCard};
pub use ended::{Ended, Ending};
pub use explain::{ReasonCount, Why};
pub use index::{Consents, FoldError};
pub use pseudonym::DeploymentSecret;
pub use warrant::Warrant;

#[cfg(test)]
mod tests;
