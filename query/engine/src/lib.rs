//! The query engine: one read-only SQL statement under one warrant, answered from the lake's files and the
//! rows not sealed yet, with nothing shown that consent does not allow.
//!
//! | file | holds |
//! |---|---|
//! | [`engine`] | the order of the steps; admission |
//! | `threads` | the threads that plan and evaluate |
//! | `gate` | what a statement must be before it is planned |
//! | `functions`, `session`, `memory`, `catalog`, `rollup` | the planner's world for one request |
//! | `planner`, `rules`, `derived`, `scalar`, `claims` | the planner, where DataFusion's alone would answer wrongly |
//! | `rowwise` | AND and OR that look at each row for itself |
//! | `forms` | what is refused of a plan before it is optimized |
//! | `scan` | `ConsentScan`, the opaque leaf where consent is enforced |
//! | `mask`, `narrow`, `files`, `reader`, `constant`, `origins`, `columns`, `gather`, `counts` | what the leaf is made of |
//! | `mask/part` | which partition reads what: by what may be seen, so that order tells nothing |
//! | [`spill`] | disk for what is larger than a query's memory |
//! | `turns` | whose scan may read next |
//! | `walk`, `bounded` | the last look at a plan, and look-outs in what may work long |
//! | `numbered` | grouping by the numbers of names |
//! | `mapped` | the operator around a function that `bounded` and `numbered` put into plans |
//! | `shown` | `EXPLAIN`: a plan over empty tables, as text |
//! | [`running`], `record` | the stream, and its two records in the audit |
//! | [`manifest`], `shelf` | what an answer was made of: signed, kept, proved; the newest of a folder's files |
//!
//! Absent on purpose: any way to reach a row without a [`query_consents::Warrant`]; EXPLAIN ANALYZE; settings; files
//! or functions outside a closed list; raw tables registered with the planner.

mod bounded;
mod catalog;
mod claims;
mod columns;
mod constant;
mod counts;
mod derived;
pub mod engine;
pub mod error;
mod files;
mod forms;
mod functions;
pub mod gate;
mod gather;
pub mod manifest;
mod mapped;
mod mask;
mod memory;
mod narrow;
mod numbered;
mod origins;
mod planner;
mod positions;
mod reader;
mod record;
mod rollup;
mod rowwise;
mod rules;
pub mod running;
mod scalar;
mod scan;
mod session;
mod shelf;
mod shown;
pub mod spill;
pub mod tables;
mod threads;
mod turns;
pub mod walk;

pub use engine::{Clock, Engine, Options, RunOptions};
pub use error::EngineError;
pub use manifest::{ManifestError, Manifests, QueryManifest};
pub use running::Running;
pub use spill::Spill;
pub use tables::{
    DeviceNames, DeviceNumbers, FileKind, FramesFile, LakeFile, Sources, Tables, TablesError, View,
};

#[cfg(test)]
mod tests;
