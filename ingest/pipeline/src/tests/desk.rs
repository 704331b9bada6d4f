//! The senders' side: what was sent, what was answered, and what follows from an answer. Every contradiction between two
//! answers is a problem, and so is an answer that no frame of this kind may get.

use std::collections::{BTreeMap, BTreeSet};

use ingest_intake::Reply;
use schemas_frame::{Code, Verdict};
use tokio::sync::oneshot::Receiver;
use tokio::sync::oneshot::error::TryRecvError;

use super::fleet::Made;

/// Device, boot, sequence number.
pub(super) type Key = (u32, [u8; 8], u64);

/// A submission that has no answer yet.
struct Waiting {
    answer: Receiver<Reply>,
    frames: Vec<usize>,
}

#[derive(Default)]
pub(super) struct Desk {
    /// Every frame ever made; others speak of it by its place.
    pub(super) sent: Vec<Made>,
    waiting: Vec<Waiting>,
    /// To be sent (again).
    pub(super) todo: BTreeSet<usize>,
    /// Frames whose senders may forget them.
    pub(super) promised: BTreeMap<Key, usize>,
    /// Frames said to contradict another.
    pub(super) contradicted: BTreeSet<usize>,
    pub(super) problems: Vec<String>,
    /// All answers in order, in short: two runs of a seed must give the same.
    pub(super) trace: u64,
    pub(super) answers: u64,
}

impl Desk {
    pub(super) fn add(&mut self, made: Made) -> usize {
        self.sent.push(made);
        self.sent.len() - 1
    }

    pub(super) fn wait(&mut self, answer: Receiver<Reply>, frames: Vec<usize>) {
        self.waiting.push(Waiting { answer, frames });
    }

    pub(super) fn waits(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Reads the answers that were given.
    pub(super) fn harvest(&mut self) {
        for mut one in std::mem::take(&mut self.waiting) {
            match one.answer.try_recv() {
                Ok(reply) => self.read(&one.frames, &reply),
                Err(TryRecvError::Empty) => self.waiting.push(one),
                Err(TryRecvError::Closed) => self.problems.push("dropped without an answer".into()),
            }
        }
    }

    /// The process is gone: what it said before counts, the rest will be sent again.
    pub(super) fn hang_up(&mut self) {
        self.harvest();
        for one in std::mem::take(&mut self.waiting) {
            self.todo.extend(one.frames);
        }
    }

    fn read(&mut self, frames: &[usize], reply: &Reply) {
        if frames.len() != reply.verdicts.len() {
            self.problems.push(format!("{} verdicts for {} frames", reply.verdicts.len(), frames.len()));
        }
        for (frame, verdict) in frames.iter().zip(&reply.verdicts) {
            self.trace = self.trace.wrapping_mul(31).wrapping_add(*frame as u64 * 32 + verdict.code as u64);
            self.answers += 1;
            if let Err(problem) = self.answered(*frame, verdict) {
                self.problems.push(format!("frame {frame} answered {}: {problem}", verdict.code));
            }
        }
    }

    fn answered(&mut self, frame: usize, verdict: &Verdict) -> Result<(), &'static str> {
        self.todo.remove(&frame);
        let Some(key) = self.sent[frame].key else {
            return match verdict.code {
                Code::Decode | Code::SigBad | Code::KeyUnknown => Ok(()),
                _ => Err("it is not genuine"),
            };
        };
        let promised = self.promised.get(&key).copied();
        match verdict.code {
            code if code.is_accepted() => {
                if promised.is_some_and(|known| self.sent[known].bytes != self.sent[frame].bytes) {
                    return Err("another frame was accepted under its number");
                }
                if code.is_kept() && promised.is_some() {
                    return Err("it was accepted before");
                }
                if self.contradicted.contains(&frame) {
                    return Err("it was refused for good before");
                }
                self.promised.insert(key, frame);
            }
            Code::Equivocation => {
                if promised.is_some_and(|known| self.sent[known].bytes == self.sent[frame].bytes) {
                    return Err("it was accepted before");
                }
                self.contradicted.insert(frame);
            }
            // For good as far as its sender is concerned. Where little memory is left for a device, one that is sent all
            // the same may be taken later: what was given up below the runs is forgotten with its boot.
            Code::SeqOld => {
                if promised.is_some() {
                    return Err("something was accepted under its number");
                }
            }
            Code::RetryAfter => {
                self.todo.insert(frame);
            }
            _ => return Err("nobody sends such frames here"),
        }
        Ok(())
    }
}
