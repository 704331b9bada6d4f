//! A fleet of devices without hardware: real recordings as signed frames, a seeded simulator, and the sender that a
//! device maker would write: it resends until it has a durable verdict.
//!
//! What it is not: part of the server. It knows the formats in `schemas` and the HTTP contract, nothing else.

pub mod decimal;
pub mod e4;
pub mod keys;
pub mod mqtt;
pub mod send;
pub mod simulate;
mod stream;
pub mod table;

pub use stream::{Column, Recording, Times};

use std::path::PathBuf;

/// What can go wrong with recordings and key folders.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// The system refused.
    #[error("{path}: {source}")]
    Io {
        /// File or directory.
        path: PathBuf,
        /// Reason given by the system.
        source: std::io::Error,
    },
    /// A recording's file is not what its format says.
    #[error("{path} line {line}: {problem}")]
    Recording {
        /// The file.
        path: PathBuf,
        /// 1 = first line.
        line: usize,
        /// What is wrong.
        problem: &'static str,
    },
    /// A map of columns that cannot be used.
    #[error("{path}: {problem}")]
    Map {
        /// The map.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A folder without a recording in it.
    #[error("{path} holds no Empatica E4 recording (expected ACC.csv, BVP.csv, ... in it or in its folders)")]
    NoRecording {
        /// The folder.
        path: PathBuf,
    },
    /// A key file or map that cannot be used.
    #[error("{path}: {problem}")]
    Keys {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: &'static str,
    },
    /// A frame that breaks the format.
    #[error(transparent)]
    Encode(#[from] schemas_frame::EncodeError),
}
