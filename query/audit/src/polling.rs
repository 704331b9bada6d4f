//! One record for a client that asks the same again and again: an intent that says until when it may be repeated, and one
//! completion with everything summed.
//!
//! ```text
//! first request --> intent "may be repeated until T", durable and logged --> rows
//! the same again before T, within its scope, consent unchanged          --> rows
//! T, or anything else: another scope, changed consent, an error         --> one completion: repeats, rows of each person
//! ```
//!
//! Nothing is weaker than without it. Every request is still decided anew; this only says whether the record that covers it
//! is there already. A request is covered if recipient, token, purpose, study and the text to the last character are the
//! same, the same people are in scope and withheld, each within the signals and times of the intent, and nothing the
//! intent's permission rests on has changed. Counts are exact; until the completion, and for ever if it never comes, the
//! record reads "assume that all was read". A repeat that never ends keeps the completion from being written.
//! What it is not: a clock or a thread. Whoever serves calls [`Audit::end_polls`] now and then.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use schemas_identity::Did;

use crate::audit::{Audit, Receipt};
use crate::entry::{Completion, Intent, Outcome, Scope, Voucher};
use crate::error::AuditError;

/// Longest time that one record covers repeats, in microseconds: 15 minutes.
pub const WINDOW_US: i64 = 15 * 60 * 1_000_000;
/// Most windows open at once; a client beyond gets a record for each request, as everybody who does not poll.
pub const WINDOWS_MAX: usize = 4_096;
/// Most people in scope or withheld of one window; beyond, as above.
pub const WINDOW_SUBJECTS_MAX: usize = 10_000;

/// Whether nothing has changed that the first request's permission rests on.
pub type Unchanged = Arc<dyn Fn() -> bool + Send + Sync>;

/// Who asks what: requests that differ in any of it never share a record.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    recipient: Did,
    voucher: Option<Voucher>,
    token_id: String,
    purpose: String,
    study: Option<String>,
    sql: String,
}

/// Windows that may still be joined.
#[derive(Default)]
pub(crate) struct Polls {
    open: Mutex<HashMap<Key, Arc<Window>>>,
}

/// One intent and its repeats.
pub(crate) struct Window {
    first: Receipt,
    scope: BTreeMap<Did, Scope>,
    withheld: BTreeSet<Did>,
    until_us: i64,
    unchanged: Unchanged,
    sums: Mutex<Sums>,
}

/// What the repeats add up to.
#[derive(Default)]
struct Sums {
    running: u64,
    repeats: u64,
    rows: BTreeMap<Did, u64>,
    result_rows: u64,
    bytes: u64,
    ended_us: i64,
    /// The worst so far; nothing is `Released`.
    failed: Option<Outcome>,
    is_closed: bool,
    is_written: bool,
}

/// One repeat's part in a window.
pub(crate) struct Share {
    window: Arc<Window>,
    is_counted: AtomicBool,
}

impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Share").field("until_us", &self.window.until_us).finish_non_exhaustive()
    }
}

impl Key {
    fn of(intent: &Intent) -> Key {
        Key {
            recipient: intent.recipient,
            voucher: intent.voucher.clone(),
            token_id: intent.token_id.clone(),
            purpose: intent.purpose.clone(),
            study: intent.study.clone(),
            sql: intent.sql.clone(),
        }
    }
}

impl Window {
    /// Whether the intent on record covers this one.
    fn covers(&self, intent: &Intent) -> bool {
        let is_within = |scope: &Scope| match self.scope.get(&scope.subject) {
            Some(whole) => {
                scope.signals.minus(whole.signals).is_empty()
                    && scope.from_us >= whole.from_us
                    && scope.to_us <= whole.to_us
            }
            None => false,
        };
        // Somebody who is no longer in scope has a right to an end of the record.
        intent.scope.len() == self.scope.len()
            && intent.scope.iter().all(is_within)
            && intent.withheld.len() == self.withheld.len()
            && intent.withheld.iter().all(|subject| self.withheld.contains(subject))
    }

    /// Whether it may still be repeated.
    fn is_alive(&self, now_us: i64) -> bool {
        now_us < self.until_us && (self.unchanged)()
    }

    /// Counts a repeat in, unless the window was closed meanwhile.
    fn join(self: &Arc<Window>) -> Option<Receipt> {
        let mut sums = self.sums.lock();
        if sums.is_closed {
            return None;
        }
        sums.running += 1;
        let share = Share { window: Arc::clone(self), is_counted: AtomicBool::new(false) };
        Some(self.first.shared(share))
    }

    /// The completion, once the window is closed and nothing runs; only once.
    fn finish(&self, sums: &mut Sums) -> Option<(u64, Completion)> {
        if !sums.is_closed || sums.running > 0 || sums.is_written {
            return None;
        }
        sums.is_written = true;
        let completion = Completion {
            outcome: sums.failed.unwrap_or(Outcome::Released),
            rows: std::mem::take(&mut sums.rows),
            result_rows: sums.result_rows,
            bytes: sums.bytes,
            ended_us: sums.ended_us,
        };
        Some((sums.repeats, completion))
    }
}

impl Sums {
    fn add(&mut self, completion: Completion) {
        self.running = self.running.saturating_sub(1);
        self.repeats += 1;
        for (subject, rows) in completion.rows {
            let sum = self.rows.entry(subject).or_insert(0);
            *sum = sum.saturating_add(rows);
        }
        self.result_rows = self.result_rows.saturating_add(completion.result_rows);
        self.bytes = self.bytes.saturating_add(completion.bytes);
        self.ended_us = self.ended_us.max(completion.ended_us);
        if completion.outcome != Outcome::Released {
            // What did not end well ends the window: the next request is a record of its own.
            self.failed = Some(completion.outcome);
            self.is_closed = true;
        }
    }
}

impl Audit {
    /// As [`Audit::intent`], for a client that says it will ask the same again: it may be covered by the intent of an
    /// earlier request. `until_us` is when the permission ends by time; `unchanged` watches the rest of it.
    ///
    /// Blocks for the disk only if a new record is needed.
    pub fn poll(&self, intent: Intent, until_us: i64, unchanged: Unchanged) -> Result<Receipt, AuditError> {
        let key = Key::of(&intent);
        let known = self.polls.open.lock().get(&key).cloned();
        if let Some(window) = known {
            let joined =
                (window.is_alive(intent.started_us) && window.covers(&intent)).then(|| window.join());
            if let Some(receipt) = joined.flatten() {
                return Ok(receipt);
            }
            self.close(&key, &window);
        }
        let people = intent.scope.len().max(intent.withheld.len());
        if people > WINDOW_SUBJECTS_MAX || self.polls.open.lock().len() >= WINDOWS_MAX {
            return self.intent(intent);
        }
        let until_us = intent.started_us.saturating_add(WINDOW_US).min(until_us);
        let scope = intent.scope.iter().map(|scope| (scope.subject, *scope)).collect();
        let withheld = intent.withheld.iter().copied().collect();
        let first = self.intend(intent, Some(until_us))?;
        let window = Arc::new(Window { first, scope, withheld, until_us, unchanged, sums: Mutex::default() });
        let Some(receipt) = window.join() else { return Err(AuditError::Poisoned) };
        let replaced = self.polls.open.lock().insert(key, window);
        if let Some(replaced) = replaced {
            self.end(&replaced);
        }
        Ok(receipt)
    }

    /// Writes the completions of windows that are over: their time has come, or consent has changed. `now_us` is
    /// microseconds since 1970 UTC. Cheap where there is nothing to do; blocks for the disk otherwise.
    pub fn end_polls(&self, now_us: i64) {
        self.end_all(|window| !window.is_alive(now_us));
    }

    /// The same for all windows, whatever their time: before the process ends.
    pub fn end_all_polls(&self) {
        self.end_all(|_| true);
    }

    fn end_all(&self, is_over: impl Fn(&Window) -> bool) {
        let mut over = Vec::new();
        self.polls.open.lock().retain(|_, window| {
            let is_over = is_over(window);
            if is_over {
                over.push(Arc::clone(window));
            }
            !is_over
        });
        over.iter().for_each(|window| self.end(window));
    }

    /// Counts one repeat; writes the completion if it was the last of a closed window.
    pub(crate) fn complete_share(&self, share: &Share, completion: Completion) -> Result<u64, AuditError> {
        if share.is_counted.swap(true, Ordering::SeqCst) {
            return Err(AuditError::AlreadyComplete);
        }
        let window = &share.window;
        let finished = {
            let mut sums = window.sums.lock();
            sums.add(completion);
            window.finish(&mut sums)
        };
        match finished {
            Some((repeats, completion)) => self.write_completion(&window.first, completion, Some(repeats)),
            None => Ok(window.first.log_index()),
        }
    }

    fn close(&self, key: &Key, window: &Arc<Window>) {
        let mut open = self.polls.open.lock();
        if open.get(key).is_some_and(|known| Arc::ptr_eq(known, window)) {
            open.remove(key);
        }
        drop(open);
        self.end(window);
    }

    /// Closes a window. What still runs in it writes the completion when it ends.
    fn end(&self, window: &Window) {
        let finished = {
            let mut sums = window.sums.lock();
            sums.is_closed = true;
            window.finish(&mut sums)
        };
        if let Some((repeats, completion)) = finished
            && let Err(error) = self.write_completion(&window.first, completion, Some(repeats))
        {
            tracing::error!(%error, "the completion of a polling client was not recorded");
        }
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        self.end_all_polls();
    }
}

#[cfg(test)]
mod tests;
