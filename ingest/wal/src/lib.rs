//! The write-ahead log: what makes an acknowledged frame survive a kill or a power loss.
//!
//! `append` returns when its records are on the disk (one buffered write, one `fdatasync`); `open` hands
//! back every record that is not released yet; `release` gives whole segments back once the lake holds them.
//!
//! It is not a store to query, it knows nothing about frames, keys or devices, it does no batching over time
//! (the pipeline drains its queue into one `append`), and it does not encrypt (the header has a version for that).
//!
//! # Layout
//!
//! ```text
//! DIR/0000000000000001.wal     segment 1, sealed: full, followed by segment 2
//! DIR/0000000000000002.wal     the last one is the active segment; only its tail may be torn
//! DIR/spare-0000000000000007   a recycled or prepared file; its content means nothing
//! DIR/lock                     held while a process has the log open
//!
//! segment = header (96 bytes) | record | record | ... | stale or zero bytes
//! header  = magic 8 | version u16 | zero u16 | zero u32 | number u64 | first position u64 | file bytes u64
//!           | zero 16 | chain 32 | zero u32 | crc32c u32                                     (little-endian)
//! record  = frame length u32 | crc32c u32 | mark u64 | index in its append u32 | device u32
//!           | received_us i64 | t0_us i64 | flags u32 | code u8 | zero 3 | frame bytes
//! ```
//!
//! `chain` is BLAKE3 over the header and the records of the segment before, so a changed, cut or exchanged
//! sealed segment is found. `mark` is the record's position XOR a salt taken from BLAKE3 of its own header:
//! bytes left in a recycled file never pass for records of its new life, and nobody who sends frames can
//! know the salt in advance.
//!
//! # Rules that make it safe
//!
//! - A file gets a segment name only after its header is synced; the directory is synced after each rename.
//! - The oldest segment goes first and one at a time, so what is left is always one unbroken run.
//! - At open, the stretch around the end that the last append may have touched is written again and synced
//!   before any record is handed out: what was read from the page cache is then on the disk too.
//! - A bad record in the last segment is a torn tail only if no record of a later append follows it.
//! - After a failed write or sync nothing more is accepted (`is_poisoned`): the kernel may have dropped the pages.
//!
//! # Limits
//!
//! [`RECORD_FRAME_BYTES_MAX`], [`APPEND_BYTES_MAX`], [`SEGMENT_BYTES_MIN`], [`SEGMENT_BYTES_MAX`],
//! [`SPARES_MAX`], and [`Options::bytes_max`] over all files. An append never crosses two segments.
//! Damage to the very last append is indistinguishable from a torn write and is cut like one.
//!
//! Files: `wal` (append, rotate, release), `recover` (open, replay), `format` (bytes), `disk` (the few file
//! operations), `error`, `sim` (the same operations in memory, with faults).
#![forbid(unsafe_code)]

mod disk;
mod error;
mod format;
mod recover;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
#[cfg(test)]
mod tests;
mod wal;

pub use disk::{Disk, Files};
pub use error::{Flaw, WalError};
pub use format::{RECORD_FRAME_BYTES_MAX, Record};
pub use recover::{Recovered, Replay, TornTail};
pub use wal::{
    APPEND_BYTES_MAX, BYTES_MAX_DEFAULT, Options, SEGMENT_BYTES_DEFAULT, SEGMENT_BYTES_MAX,
    SEGMENT_BYTES_MIN, SPARES_MAX, Wal,
};
