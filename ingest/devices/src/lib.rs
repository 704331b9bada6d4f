//! Everything that is decided about a frame because of which device sent it: is the key good, was this sequence number
//! seen, does the chain hold, when was it measured, is it plausible.
//!
//! Sans I/O: no clock, no file, no log. Enrolment itself is the register's (`schemas-identity`); durability, the order of
//! the steps and the answer to the sender are the pipeline's; who wore the device is nobody's business here.
//!
//! ```text
//! frame -> gate::key_for  -> signature (ingest-verify) -> Windows::judge_and_reserve -> Windows::place -> plausible::assess
//!            KEY_UNKNOWN        SIG_BAD                     DUP, EQUIVOCATION,            CLOCK, LATE        RANGE,
//!            (key standing)                                 KEY_REVOKED, SEQ_OLD, GAP, CHAIN                 SIGNAL_UNKNOWN
//!          ... many frames, then one durable write ...  -> Windows::commit, or Windows::rollback if it failed
//! ```
//!
//! Files: `gate` (key and its standing), `windows` (judging, reservations), `fleet` (all devices in one budget of memory),
//! `device` (one device's boots), `boot` (one boot's sequence numbers), `runs` (and what is missing between them), `view`
//! (what is told about a device), `clock` (placing a frame in time), `plausible` (values and signals, and which code is told when several apply).
#![forbid(unsafe_code)]

mod boot;
pub mod clock;
mod device;
mod fleet;
pub mod gate;
pub mod plausible;
mod runs;
mod view;
pub mod windows;

pub use clock::{Anchor, Placed, place};
pub use gate::{Gated, KeyStanding, key_for};
pub use plausible::{Assessment, assess, most_telling};
pub use runs::GAP_GIVEN_UP_AFTER_US;
pub use view::{DeviceView, GapView, Times};
pub use windows::{Ask, GapCounts, Limits, New, Standing, Windows};
