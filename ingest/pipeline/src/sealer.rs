//! When to seal: enough frames, enough bytes, or the oldest one waited long enough; and once more at the end.

use std::time::{Duration, Instant};

use ingest_lake::Lake;

use crate::{Clock, Metrics, Options, Shared};

/// How often the rule is looked at.
const TICK: Duration = Duration::from_millis(50);
/// After a failed seal (a full disk, for instance).
const RETRY: Duration = Duration::from_secs(1);

pub(crate) fn run(options: &Options, lake: &Lake, metrics: &Metrics, clock: &Clock, shared: &Shared) {
    while !shared.is_stopping() {
        std::thread::sleep(TICK);
        if is_due(options, lake, metrics, clock) && !seal(lake, metrics, clock, shared) {
            std::thread::sleep(RETRY);
        }
    }
    // What is left is in the write-ahead log; sealing it now only saves the next start its replay.
    seal(lake, metrics, clock, shared);
}

fn is_due(options: &Options, lake: &Lake, metrics: &Metrics, clock: &Clock) -> bool {
    let (frames, bytes, since_us) = lake.waiting();
    metrics.tail(frames, bytes);
    let Some(since_us) = since_us else { return lake.is_retry_due() };
    let waited_us = clock().saturating_sub(since_us);
    let is_old = waited_us >= i64::try_from(options.seal_after.as_micros()).unwrap_or(i64::MAX);
    frames >= options.seal_frames || bytes >= options.seal_bytes || is_old || lake.is_retry_due()
}

fn seal(lake: &Lake, metrics: &Metrics, clock: &Clock, shared: &Shared) -> bool {
    let (_, _, since_us) = lake.waiting();
    let started = Instant::now();
    match lake.seal() {
        Ok(None) => true,
        Ok(Some(sealed)) => {
            let manifest = &sealed.batch.manifest;
            tracing::info!(
                batch = manifest.batch,
                frames = manifest.frames,
                bytes = sealed.bytes,
                entry = sealed.batch.entry_index,
                "batch sealed"
            );
            metrics.sealed(started.elapsed());
            if let Some(age_us) = since_us.and_then(|since_us| u64::try_from(clock() - since_us).ok()) {
                metrics.sealed_age(Duration::from_micros(age_us));
            }
            true
        }
        Err(error) => {
            metrics.seal_failed();
            if !error.is_recoverable() {
                // Frames are still taken until the tail is full, but only a restart lets them out of it.
                shared.fail();
            }
            tracing::error!(%error, recoverable = error.is_recoverable(), "seal failed; frames stay in the tail");
            false
        }
    }
}
