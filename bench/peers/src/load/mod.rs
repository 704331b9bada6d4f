//! Sending a corpus as fast as a window allows, or at a rate, and keeping what became of every frame.
//!
//! | file | holds |
//! |---|---|
//! | [`mqtt`] | many connections on one thread, QoS 1 |
//! | [`http`] | bodies on keep-alive connections, a thread each |
//! | [`figures`] | what a run is reported as |
//!
//! With a rate, a frame's time counts from when it was due, not from when it could be sent: a server that stalls does not
//! hide the frames that would have come meanwhile.

pub mod figures;
pub mod http;
pub mod mqtt;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use schemas_frame::Code;

use crate::corpus::Corpus;
use crate::histogram::Histogram;

/// Nothing answered for so long ends a run.
pub const STALL_MAX: Duration = Duration::from_secs(60);
/// Frames that are due leave in ticks of this.
const TICK_NS: u64 = 1_000_000;

/// What became of each frame of a corpus; shared by all that send.
#[derive(Debug)]
pub struct Verdicts {
    codes: Vec<AtomicU8>,
    answered: AtomicU64,
    kept_again: AtomicU64,
}

/// A code as a byte; 0 is no verdict yet.
fn byte_of(code: Code) -> u8 {
    Code::ALL.iter().position(|one| *one == code).map_or(0, |at| at as u8 + 1)
}

fn code_of(byte: u8) -> Option<Code> {
    Code::ALL.get(usize::from(byte).checked_sub(1)?).copied()
}

impl Verdicts {
    /// None so far.
    #[must_use]
    pub fn new(frames: usize) -> Verdicts {
        Verdicts {
            codes: (0..frames).map(|_| AtomicU8::new(0)).collect(),
            answered: AtomicU64::new(0),
            kept_again: AtomicU64::new(0),
        }
    }

    /// Keeps a frame's verdict.
    pub fn set(&self, frame: usize, code: Code) {
        let before = code_of(self.codes[frame].swap(byte_of(code), Ordering::Relaxed));
        self.answered.fetch_add(1, Ordering::Relaxed);
        if code.is_kept() && before.is_some_and(Code::is_accepted) {
            self.kept_again.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Answers so far, to frames sent again too.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Frames that were accepted, sent again, and then answered as new: the server had lost them. MQTT answers a
    /// duplicate as it answers a new frame, so this is told for HTTP only.
    #[must_use]
    pub fn kept_again(&self) -> u64 {
        self.kept_again.load(Ordering::Relaxed)
    }

    /// A frame's verdict.
    #[must_use]
    pub fn get(&self, frame: usize) -> Option<Code> {
        code_of(self.codes[frame].load(Ordering::Relaxed))
    }

    /// Frames without a verdict that ends their life at the sender.
    pub fn unsettled(&self) -> impl Iterator<Item = usize> {
        (0..self.codes.len()).filter(|frame| self.get(*frame).is_none_or(Code::is_retry))
    }

    /// Frames by code.
    #[must_use]
    pub fn tally(&self) -> BTreeMap<Code, u64> {
        let mut counts = [0u64; 256];
        for byte in &self.codes {
            counts[usize::from(byte.load(Ordering::Relaxed))] += 1;
        }
        let coded = counts.iter().enumerate().filter(|(_, count)| **count > 0);
        coded.filter_map(|(byte, count)| Some((code_of(byte as u8)?, *count))).collect()
    }
}

/// When to send.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pace {
    /// Frames a second over all connections; as fast as the window allows if left out.
    pub rate: Option<f64>,
    /// Stop sending after so long; all frames if left out.
    pub limit: Option<Duration>,
}

/// One connection's part of a rate.
#[derive(Debug, Clone, Copy)]
struct Schedule {
    interval_ns: Option<f64>,
    offset_ns: f64,
}

impl Schedule {
    fn new(pace: Pace, connection: usize, connections: usize) -> Schedule {
        let interval_ns = pace.rate.map(|rate| connections as f64 * 1e9 / rate);
        let offset_ns = interval_ns.map_or(0.0, |interval| interval * connection as f64 / connections as f64);
        Schedule { interval_ns, offset_ns }
    }

    /// When the frame after `sent` others is due, since the start; `None` is at once.
    fn due_ns(&self, sent: u64) -> Option<u64> {
        let due = self.interval_ns? * sent as f64 + self.offset_ns;
        Some((due as u64).next_multiple_of(TICK_NS))
    }
}

/// What one thread measured.
#[derive(Debug, Default)]
pub struct Lap {
    /// From sent, or due, to answered.
    pub times: Histogram,
    /// Frames sent, repeated ones counted again.
    pub sent: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Requests that were repeated.
    pub retries: u64,
    /// Why it ended early.
    pub problem: Option<String>,
    /// When the last answer came.
    pub last: Option<Instant>,
}

impl Lap {
    fn add(&mut self, other: &Lap) {
        self.times.add(&other.times);
        self.sent += other.sent;
        self.bytes += other.bytes;
        self.retries += other.retries;
        self.last = self.last.max(other.last);
        if self.problem.is_none() {
            self.problem.clone_from(&other.problem);
        }
    }
}

/// Topic of each device.
fn topics(corpus: &Corpus) -> Vec<Vec<u8>> {
    let topic = |device: usize| {
        let id = corpus.keys[device].device.public().short_id();
        format!("v1/d/{id}/frames").into_bytes()
    };
    (0..corpus.keys.len()).map(topic).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    // Guarantee: every code is kept as itself, and only frames whose life goes on are sent again.
    #[test]
    fn verdicts_are_kept() {
        let verdicts = Verdicts::new(Code::ALL.len() + 1);
        for (frame, code) in Code::ALL.into_iter().enumerate() {
            verdicts.set(frame, code);
            assert_eq!(verdicts.get(frame), Some(code));
        }
        let retried = Code::ALL.into_iter().filter(|code| code.is_retry()).count();
        assert_eq!(verdicts.unsettled().count(), retried + 1);
        assert!(verdicts.tally().values().all(|count| *count == 1));
        assert_eq!(verdicts.tally().len(), Code::ALL.len());
    }

    // Guarantee: all connections together keep the rate, in ticks, none of them first.
    #[test]
    fn a_rate_is_shared() {
        let pace = Pace { rate: Some(10_000.0), limit: None };
        let due = |connection: usize| {
            let schedule = Schedule::new(pace, connection, 4);
            (0..2_500).filter(|sent| schedule.due_ns(*sent).is_some_and(|due| due <= 500_000_000)).count()
        };
        let total: usize = (0..4).map(due).sum();
        assert!((4_990..=5_010).contains(&total), "{total}");
        assert_eq!(Schedule::new(Pace::default(), 0, 4).due_ns(7), None);
    }
}
