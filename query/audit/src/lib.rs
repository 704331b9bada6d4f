//! Who read whose data, why, and how much of it: records that are durable and in the log before a row leaves.
//!
//! | file | holds |
//! |---|---|
//! | [`entry`] | what callers hand in: [`Intent`], [`Completion`], [`Refused`] |
//! | [`normalise`] | SQL without its literals |
//! | `record` | the JSON of a record, as committed to |
//! | `cohort` | large scopes that are asked for again: named once, referred to later |
//! | `file` | record files: groups with a checksum, synced once per group, torn tails cut off |
//! | `index` | in memory, rebuilt at open: which records concern whom |
//! | [`audit`] | the component: group commit |
//! | [`polling`] | one record for a client that asks the same again and again |
//! | `loading` | opening: rebuilds the index, brings records and log together |
//! | [`report`] | what one subject may see of all this |
//! | `moved` | how the people of two reads differ, in numbers |
//! | `withdrawn` | which of it was released before a grant was taken back |
//! | `check` | every record against its commitment in the log |
//!
//! ```text
//! DIR/00000001.audit = "vitalog-audit-1\n" group*
//! group  = "vAG1" | payload bytes u32 | crc32c(payload) u32 | payload          (little endian)
//! payload = item*
//! item   = 1 | record no. u64 | log size when written u64 | salt 32 | body bytes u32 | body (JSON)
//!        | 2 | record no. u64 | log index u64                                  (where the record's commitment is)
//!        | 3 | as 1, of a record to be read with another: an intent with the people of an earlier one in the same file, or a
//!              completion whose counts go by their places
//! ```
//!
//! Invariants: a record is durable before its commitment is appended, so no commitment is without its salt unless files
//! were tampered with; [`Audit::intent`] returns only when both are; after a failed write nothing more is taken.
//! What it is not: a gate (the engine must ask before it reads) or a clock.

pub mod audit;
mod check;
mod cohort;
pub mod entry;
mod error;
mod file;
mod index;
mod loading;
mod moved;
pub mod normalise;
pub mod polling;
mod record;
pub mod report;
mod withdrawn;

pub use audit::{Audit, Opened, Options, Receipt};
pub use check::Finding;
pub use entry::{Completion, Intent, Outcome, Refused, Scope, Voucher};
pub use error::AuditError;
pub use moved::Moved;
pub use record::{VouchedFor, VouchedRole};
pub use report::{Access, Page, Report, Seen, Withdrawn};

#[cfg(test)]
mod tests;
