//! The present as consent, tokens and access records see it: it never goes back, and never lies before the newest access record
//! that the log commits to. A clock that was moved back would let grants and tokens live again that had ended.
//!
//! Not a source of time, and no judge of one that runs ahead: who sets the clock to next year has ended what ends before, and that
//! stays so once a record says it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// Microseconds UTC.
pub(crate) type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// The present in whole seconds, as tokens have it.
pub(crate) fn seconds(clock: &Clock) -> i64 {
    clock().div_euclid(1_000_000)
}

/// A clock that reads `source`, but never less than it showed before, nor than `newest_us`.
pub(crate) fn never_back(newest_us: i64, source: impl Fn() -> i64 + Send + Sync + 'static) -> Clock {
    let behind_us = newest_us.saturating_sub(source());
    if behind_us > 0 {
        tracing::error!(
            behind_seconds = behind_us / 1_000_000,
            "the clock is behind the newest access record: until it has caught up, consent and tokens are judged as of that record"
        );
    }
    let newest = AtomicI64::new(newest_us);
    Arc::new(move || {
        let now_us = source();
        newest.fetch_max(now_us, Ordering::SeqCst).max(now_us)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guarantee: a clock moved back, while the process runs or before it starts, ends nothing later than it had ended.
    #[test]
    fn a_clock_moved_back_is_not_believed() {
        let hand = Arc::new(AtomicI64::new(500));
        let source = Arc::clone(&hand);
        let clock = never_back(700, move || source.load(Ordering::SeqCst));
        let at = |us| {
            hand.store(us, Ordering::SeqCst);
            clock()
        };
        assert_eq!([at(500), at(700), at(900), at(100), at(901)], [700, 700, 900, 900, 901]);
    }
}
