//! Signature verification for the write path: which implementation of `schemas_frame::Verifier` runs here.
//!
//! The rule is `enrolled-strict`; its oracle is `schemas_frame::Reference`, and that is also the only backend so far. A
//! faster one joins [`backend`] once it gives the reference's verdict on everything in `tests`. It chooses no keys, keeps
//! no queue and spawns no thread: the pipeline hands it slices.

use schemas_frame::{Reference, Verifier};

#[cfg(test)]
mod tests;

/// The verifier for this machine. Chosen once, at start; `name()` says which.
#[must_use]
pub fn backend() -> Box<dyn Verifier> {
    Box::new(Reference)
}
