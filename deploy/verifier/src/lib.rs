//! The outsider's verifier: is this evidence good, is this answer the one that was given, is this log sound? As a library, so that others can call what they ship.
//!
//! | file | holds |
//! |---|---|
//! | `cli`    | arguments, exit codes |
//! | `report` | what people and programs are shown |
//! | `source` | a log as a directory, or behind a URL |
//!
//! It rests on the schemas alone, the agreements a stranger could implement too. What it is not: a client of the product, or
//! a judge of whom to trust: the policy is always given by whoever verifies.
#![forbid(unsafe_code)]

mod cli;
mod report;
mod source;

pub use cli::{Exit, run};
pub use report::{evidence_json, evidence_text, log_json, log_text, manifest_json, manifest_text};
pub use source::{DirSource, HttpSource, open_source};
