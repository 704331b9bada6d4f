//! The write path on a machine that fails in every way it can: a deterministic simulation.
//!
//! ```text
//! dice.rs         chance from a seed
//! plug.rs         dies in any disk operation; lets one thread run in the middle of another
//! disks.rs        disks of the write-ahead log, the lake and the ledger, and what a power loss leaves of them
//! fleet.rs        devices that behave and misbehave
//! desk.rs         what was sent and answered; contradictions between answers
//! world.rs        the machine: real queue, checks, deciding thread, log and lake, step by step
//! invariants.rs   what must hold after each restart
//! sim.rs          a run of one seed, many seeds, replay
//! whole.rs        not simulated: threads and a real directory
//! lost.rs         a write-ahead log that is gone, or parts of it
//! ```

mod desk;
mod dice;
mod disks;
mod fleet;
mod invariants;
mod lost;
mod plug;
mod sim;
mod whole;
mod world;
