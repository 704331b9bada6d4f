//! How fast signatures are verified, by us and by others, in the same run and on the same bytes.
//!
//! | file | holds |
//! |---|---|
//! | [`case`] | what is varied |
//! | [`workload`] | keys, messages and signatures from a seed, some bad |
//! | [`peer`] | who is measured |
//! | [`measure`] | rounds in which every peer has its turn |
//! | [`station`] | the whole write path of a frame, without network and disk |
//! | [`report`], [`machine`] | a run's folder, and where the run was |
//!
//! `cargo run --release -p bench-hot -- verify` makes the figures that are kept; `cargo bench -p bench-hot` is for work on
//! a backend. What it is not: a test. It compares no time with a limit; only a wrong verdict makes it fail.
#![forbid(unsafe_code)]

pub mod case;
pub mod machine;
pub mod measure;
pub mod peer;
pub mod report;
pub mod station;
pub mod workload;
