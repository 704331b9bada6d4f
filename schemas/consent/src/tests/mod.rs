//! Consent against a golden matrix, random states and hostile orders of statements.

mod fold;
mod golden;
mod pointwise;
mod vouched;
mod world;
