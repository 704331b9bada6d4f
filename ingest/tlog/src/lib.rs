//! The embedded transparency log: `FileLog` keeps a C2SP tlog-tiles directory and is a `Ledger`.
//!
//! ```text
//! DIR/checkpoint             newest signed head; replaced as a whole
//! DIR/tile/...               hash tiles and entry bundles, servable as they are
//! DIR/.journal               commit point: entries that the tiles may not yet hold durably
//! DIR/.lock                  one writer at a time
//! ```
//!
//! How an append becomes durable: concurrent callers queue; one of them writes all that waits as one journal record, signed
//! head included, and calls fdatasync once. That is the commit. Tiles and `checkpoint` are then written from it without a
//! sync and may be lost; after a crash they are written again from the journal. When the journal has grown past
//! [`Options::journal_bytes_max`], every file it stands for is synced, and only then does a new journal begin.
//! So the checkpoint never names what is not on disk.
//!
//! | file | holds |
//! |---|---|
//! | `journal` | records, their checksums, torn tails |
//! | `disk`    | each change to the directory, one function each, so that tests can stop after any of them |
//! | `edge`    | the part of the tree that still changes, in memory |
//! | `reader`  | hashes and entries that no longer change, from disk, checked |
//! | `writer`  | one round of group commit |
//! | `recover` | opening: replay, and refusal of a directory that contradicts itself |
//! | `log`     | `FileLog` |
//!
//! Memory: at most 256 entries and 256 hashes per tile level, a small cache of tiles, and what waits to be appended.
//! Speed on a shared 2-core machine: see `examples/appends.rs`, which prints it.
//!
//! What it is not: able to notice that the whole directory was put back to an older state; whoever kept a newer
//! checkpoint (a witness, an anchor, an auditor) does.
#![forbid(unsafe_code)]

mod disk;
mod edge;
mod journal;
mod log;
mod reader;
mod recover;
mod writer;

pub use log::{FileLog, Options};
pub use recover::audit_log;
pub use schemas_evidence::tiles::{Finding, LogAudit};

#[cfg(test)]
mod tests;
