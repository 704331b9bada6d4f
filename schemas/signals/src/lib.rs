//! The registry of what can be measured: ids, names, codes, units, plausible ranges, classes; and the Arrow shapes
//! that rows of it take.
//!
//! The entries are `catalogue/*.toml`, compiled in. This crate does not read files, judge values in frames, or know
//! people. A code is LOINC or MDC where that code is confirmed by two public sources, else it is the registry's own
//! (`system = "vitalog"`): a missing code can be added later, a wrong one cannot be taken back.
//!
//! Files: [`registry`] (entries and lookups), [`set`] (sets of signals), [`columns`] (Arrow schemas).
//! Limit: ids are 1 to 255 ([`SIGNAL_IDS_MAX`]), so that a set of signals is 32 bytes and copies.
#![forbid(unsafe_code)]

pub mod columns;
pub mod registry;
pub mod set;

pub use registry::{CatalogueError, Registry, Signal};
pub use set::SignalSet;

/// Ids are below this.
pub const SIGNAL_IDS_MAX: u32 = 256;
/// The class whose regular series are stored as waves whatever their length.
pub const CLASS_WAVEFORM: &str = "waveform";
/// A regular series of at least this many samples is stored as a wave whatever its class.
pub const WAVE_SAMPLES_MIN: usize = 32;
