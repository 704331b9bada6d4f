//! A provider's keys and how fresh they are.
//!
//! ```text
//! keep, each second --> due? --> source --> document --> KeySet --> in use, good as of now
//!                        ^         '-- failed: what was in use stays; tried again after 5, 10, 20 ... seconds
//!    unknown kid: wanted, at most once a minute
//! use --> good within `stale_max`? the set : nothing at all
//! ```
//!
//! A file is read each time and parsed when it changed. A provider that cannot be reached is not a reason to stop serving,
//! and keys that could not be confirmed for too long are not a reason to go on: both ends are bounded.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use thiserror::Error;

use crate::jwk::{KeySet, KeySetError};
use crate::metrics::Metrics;
use crate::source::{Source, SourceError};

/// Least seconds between two fetches that an unknown `kid` asked for.
pub const WANTED_EVERY_S: i64 = 60;
/// Seconds until the first try after a failure; twice as many after each further one, up to the refresh interval.
const RETRY_FIRST_S: i64 = 5;
const RETRY_DOUBLINGS_MAX: u32 = 12;

/// Keys that could not be had or used.
#[derive(Debug, Error)]
pub enum KeysError {
    /// They could not be had.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// What was there is no usable set of keys.
    #[error("the document of keys: {0}")]
    Document(#[from] KeySetError),
}

/// A set and when it was last seen to be the provider's.
#[derive(Debug)]
struct Good {
    set: Arc<KeySet>,
    at_s: i64,
}

#[derive(Debug, Default)]
struct Schedule {
    next_s: i64,
    tried_s: i64,
    wanted_s: i64,
    failures: u32,
    /// The document in use, to see whether a file changed.
    document: Vec<u8>,
}

/// Keys of one provider.
#[derive(Debug)]
pub(crate) struct Keys {
    source: Source,
    refresh_s: i64,
    stale_max_s: i64,
    good: ArcSwapOption<Good>,
    wanted: AtomicBool,
    /// Held while fetching, so that there is one fetch at a time.
    schedule: Mutex<Schedule>,
    metrics: Metrics,
}

impl Keys {
    pub(crate) fn new(source: Source, refresh_s: i64, stale_max_s: i64, metrics: Metrics) -> Keys {
        let schedule =
            Schedule { next_s: i64::MIN, tried_s: i64::MIN, wanted_s: i64::MIN, ..Schedule::default() };
        Keys {
            source,
            refresh_s,
            stale_max_s,
            good: ArcSwapOption::empty(),
            wanted: AtomicBool::new(false),
            schedule: Mutex::new(schedule),
            metrics,
        }
    }

    /// The set in use, unless there is none or it is too old to be trusted.
    pub(crate) fn current(&self, now_s: i64) -> Option<Arc<KeySet>> {
        let good = self.good.load();
        let good = good.as_ref()?;
        (now_s.saturating_sub(good.at_s) < self.stale_max_s).then(|| Arc::clone(&good.set))
    }

    /// A token names a key that is not there: it may be a new one.
    pub(crate) fn want(&self) {
        self.wanted.store(true, Ordering::Relaxed);
    }

    /// Brings the keys up to date if it is time to.
    pub(crate) fn keep(&self, now_s: i64) -> Result<(), KeysError> {
        let mut schedule = self.schedule.lock();
        if !self.is_due(&mut schedule, now_s) {
            return Ok(());
        }
        schedule.tried_s = now_s;
        match self.fetch(&mut schedule, now_s) {
            Ok(()) => {
                schedule.failures = 0;
                schedule.next_s = now_s.saturating_add(self.refresh_s);
                self.metrics.fetch("ok");
                Ok(())
            }
            Err(error) => {
                let wait_s = RETRY_FIRST_S << schedule.failures.min(RETRY_DOUBLINGS_MAX);
                schedule.failures = schedule.failures.saturating_add(1);
                schedule.next_s = now_s.saturating_add(wait_s.min(self.refresh_s));
                self.metrics.fetch("failed");
                Err(error)
            }
        }
    }

    fn is_due(&self, schedule: &mut Schedule, now_s: i64) -> bool {
        // A clock that was set back must not stop fetching for as long as it was ahead.
        if now_s >= schedule.next_s || now_s < schedule.tried_s || self.source.is_cheap() {
            self.wanted.store(false, Ordering::Relaxed);
            return true;
        }
        let may_want = now_s.saturating_sub(schedule.wanted_s) >= WANTED_EVERY_S;
        let is_wanted = may_want && self.wanted.swap(false, Ordering::Relaxed);
        if is_wanted {
            schedule.wanted_s = now_s;
        }
        is_wanted
    }

    fn fetch(&self, schedule: &mut Schedule, now_s: i64) -> Result<(), KeysError> {
        let document = self.source.read()?;
        let known = self.good.load_full().filter(|_| document == schedule.document);
        let set = match known {
            Some(good) => Arc::clone(&good.set),
            None => {
                let set = KeySet::parse(&document)?;
                tracing::info!(keys = set.len(), left_out = set.left_out(), "keys of an identity provider");
                Arc::new(set)
            }
        };
        schedule.document = document;
        self.good.store(Some(Arc::new(Good { set, at_s: now_s })));
        Ok(())
    }
}
