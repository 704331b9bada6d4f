//! From [`Frame`] to [`VerifiedFrame`]: the only way to hold one is that its signature verified.
//!
//! The rule itself lives in `schemas_identity::PublicKey::verify`; [`Reference`] applies it one frame at a time and
//! is the oracle for every faster [`Verifier`].

use std::ops::Deref;

use schemas_identity::PublicKey;

use crate::parse::Frame;

/// One signature to check.
#[derive(Debug, Clone, Copy)]
pub struct Job<'j, 'a> {
    /// The enrolled key that the frame's kid names.
    pub key: &'j PublicKey,
    /// The frame.
    pub frame: &'j Frame<'a>,
}

/// Checks signatures in batches; a verdict never depends on its neighbours in the batch.
pub trait Verifier: Send + Sync {
    /// Short name for metrics and logs.
    fn name(&self) -> &'static str;

    /// Clears `verdicts` and writes one bool per job, in order: does the signature verify under the key.
    fn verify(&self, jobs: &[Job<'_, '_>], verdicts: &mut Vec<bool>);
}

/// The readable reference: `enrolled-strict`, one frame after the other.
#[derive(Debug, Clone, Copy, Default)]
pub struct Reference;

impl Verifier for Reference {
    fn name(&self) -> &'static str {
        "reference"
    }

    fn verify(&self, jobs: &[Job<'_, '_>], verdicts: &mut Vec<bool>) {
        verdicts.clear();
        let mut message = Vec::new();
        for job in jobs {
            job.frame.signed_message(&mut message);
            verdicts.push(job.key.verify(&message, job.frame.signature()));
        }
    }
}

/// A frame whose signature verified under [`VerifiedFrame::key`]. Made only by [`verify_all`].
#[derive(Debug, Clone, Copy)]
pub struct VerifiedFrame<'a> {
    frame: Frame<'a>,
    key: PublicKey,
}

impl<'a> VerifiedFrame<'a> {
    /// The key it verified under.
    pub fn key(&self) -> &PublicKey {
        &self.key
    }

    /// The frame, with the lifetime of its bytes.
    pub fn frame(&self) -> &Frame<'a> {
        &self.frame
    }
}

impl<'a> Deref for VerifiedFrame<'a> {
    type Target = Frame<'a>;

    fn deref(&self) -> &Frame<'a> {
        &self.frame
    }
}

/// Verifies each frame under the key beside it; `Err` gives back a frame whose signature did not verify.
///
/// A verifier that answers for fewer jobs than it was given has verified none of the missing ones.
pub fn verify_all<'a>(
    verifier: &dyn Verifier,
    frames: Vec<(Frame<'a>, PublicKey)>,
) -> Vec<Result<VerifiedFrame<'a>, Frame<'a>>> {
    let jobs: Vec<Job<'_, 'a>> = frames.iter().map(|(frame, key)| Job { key, frame }).collect();
    let mut verdicts = Vec::with_capacity(jobs.len());
    verifier.verify(&jobs, &mut verdicts);
    let mut results = Vec::with_capacity(frames.len());
    for (index, (frame, key)) in frames.iter().enumerate() {
        let verified = verdicts.get(index).copied() == Some(true);
        results.push(if verified { Ok(VerifiedFrame { frame: *frame, key: *key }) } else { Err(*frame) });
    }
    results
}
