//! Who may read next: a scan takes a turn for each step, and as many turns are out as there are cores. The query that
//! has read least so far goes first, so a short one does not wait for a hundred long ones; every eighth turn goes to
//! whoever has waited longest, so a long one does not wait for ever.
//!
//! The line is as long as there are scans under way: admission bounds the queries, the gate their tables, the settings
//! their partitions. Steps of queries that were given up stay in it until their turn and are then skipped.
//!
//! Everything a query works on comes out of its scans, so who may read is who may work. What it is not: a bound on
//! memory or on the number of queries (`memory`, admission), or a scheduler of operators that work long on few rows
//! (`bounded`).

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// One turn in so many goes to who has waited longest.
const OLDEST_EVERY: u64 = 8;
/// Queries whose time differs by less than a doubling of this are alike and take turns in order.
const ALIKE: Duration = Duration::from_millis(4);

/// How long a query has read so far.
#[derive(Debug, Default)]
pub(crate) struct Spent(AtomicU64);

impl Spent {
    /// Adds a step's time.
    pub(crate) fn add(&self, time: Duration) {
        self.0.fetch_add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Its place in line, lowest first.
    fn class(&self) -> u32 {
        let alike = u64::try_from(ALIKE.as_micros()).unwrap_or(1).max(1);
        (self.0.load(Ordering::Relaxed) / alike).checked_ilog2().map_or(0, |class| class + 1)
    }
}

/// A step of a scan. It says itself whether anybody still wants it.
type Job = Box<dyn FnOnce() + Send>;

/// The line.
pub(crate) struct Turns {
    line: Mutex<Line>,
}

struct Line {
    free: usize,
    given: u64,
    came: u64,
    /// By class, then by arrival.
    waiting: BTreeMap<(u32, u64), Job>,
}

/// A turn; dropping it gives it to the next.
struct Turn {
    turns: Arc<Turns>,
    handle: Handle,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.turns.pass_on(&self.handle);
    }
}

impl Turns {
    /// A line for so many at once, at least one.
    pub(crate) fn new(at_once: usize) -> Arc<Self> {
        let line = Line { free: at_once.max(1), given: 0, came: 0, waiting: BTreeMap::new() };
        Arc::new(Self { line: Mutex::new(line) })
    }

    /// Runs a step when its turn has come: here and now if nobody waits, which spares two changes of thread for each
    /// batch, and else on a blocking thread. What is handed over then is the work, not the turn: a plan may stop asking
    /// one of its scans while it waits for another, and a turn it does not pick up would be nobody's.
    ///
    /// To be called on threads of which there are more than turns. Nothing comes back if the step panicked or the
    /// runtime ends.
    pub(crate) async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        spent: &Arc<Spent>,
        step: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        // Whoever polls a scan in a loop lets others in between, too.
        tokio::task::coop::consume_budget().await;
        let used = Arc::clone(spent);
        let timed = move || {
            let start = Instant::now();
            let made = step();
            used.add(start.elapsed());
            made
        };
        let handle = Handle::current();
        if let Some(_turn) = self.free_turn(&handle) {
            return catch_unwind(AssertUnwindSafe(timed)).ok();
        }
        let (sender, receiver) = oneshot::channel();
        let job = Box::new(move || {
            if !sender.is_closed() {
                let _ = sender.send(timed());
            }
        });
        self.enter(spent.class(), job, &handle);
        receiver.await.ok()
    }

    /// A turn that nobody has to wait for.
    fn free_turn(self: &Arc<Self>, handle: &Handle) -> Option<Turn> {
        let mut line = self.line.lock();
        line.free = line.free.checked_sub(1)?;
        Some(Turn { turns: Arc::clone(self), handle: handle.clone() })
    }

    fn enter(self: &Arc<Self>, class: u32, job: Job, handle: &Handle) {
        let mut line = self.line.lock();
        if line.free == 0 {
            line.came += 1;
            let place = (class, line.came);
            line.waiting.insert(place, job);
            return;
        }
        line.free -= 1;
        drop(line);
        self.start(job, handle);
    }

    fn start(self: &Arc<Self>, job: Job, handle: &Handle) {
        let turn = Turn { turns: Arc::clone(self), handle: handle.clone() };
        // The turn is passed on however the job ends; also if the runtime drops it unrun.
        handle.spawn_blocking(move || {
            let _turn = turn;
            job();
        });
    }

    fn pass_on(self: &Arc<Self>, handle: &Handle) {
        let mut line = self.line.lock();
        let Some(next) = line.next() else {
            line.free += 1;
            return;
        };
        drop(line);
        self.start(next, handle);
    }
}

impl Line {
    fn next(&mut self) -> Option<Job> {
        self.given += 1;
        let is_for_oldest = self.given.is_multiple_of(OLDEST_EVERY);
        let place = match is_for_oldest {
            true => self.waiting.keys().min_by_key(|(_, came)| *came).copied(),
            false => self.waiting.keys().next().copied(),
        };
        self.waiting.remove(&place?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spent(millis: u64) -> Arc<Spent> {
        let spent = Arc::new(Spent::default());
        spent.add(Duration::from_millis(millis));
        spent
    }

    /// Takes the only turn until the sender says something or goes.
    fn hold(turns: &Arc<Turns>) -> std::sync::mpsc::Sender<()> {
        let (release, held) = std::sync::mpsc::channel();
        let wait = move || {
            let _ = held.recv();
        };
        turns.enter(0, Box::new(wait), &Handle::current());
        release
    }

    async fn wait_for(turns: &Turns, waiting: usize) {
        while turns.line.lock().waiting.len() != waiting {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Who came last but has read least goes first; among alike, who came first; and the one who has read most is not
    /// passed over for ever.
    #[tokio::test]
    async fn the_least_served_first_and_nobody_never() {
        let turns = Turns::new(1);
        let release = hold(&turns);
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut waiting = Vec::new();
        let asked = std::iter::once(("long", 60_000)).chain((0..20).map(|_| ("short", 0)));
        for (index, (name, millis)) in asked.enumerate() {
            let (line, order) = (Arc::clone(&turns), Arc::clone(&order));
            waiting.push(tokio::spawn(async move {
                line.run(&spent(millis), move || order.lock().push((name, index))).await
            }));
            wait_for(&turns, index + 1).await;
        }
        drop(release);
        for task in waiting {
            task.await.unwrap().unwrap();
        }
        let order = order.lock().clone();
        let place = order.iter().position(|(name, _)| *name == "long").unwrap();
        assert!((1..8).contains(&place), "{order:?}");
        let shorts: Vec<usize> =
            order.iter().filter(|(name, _)| *name == "short").map(|(_, index)| *index).collect();
        assert!(shorts.is_sorted(), "{order:?}");
    }

    /// A step that runs where it is polled gives its turn back, also if it panics, and then gives nothing.
    #[tokio::test]
    async fn a_step_here_and_now_keeps_no_turn() {
        let turns = Turns::new(1);
        let here = std::thread::current().id();
        for _ in 0..2 {
            let ran = turns.run(&spent(0), || std::thread::current().id()).await;
            assert_eq!(ran, Some(here), "on the thread that asks");
            let panicked =
                turns.run(&spent(0), || assert!(std::hint::black_box(false), "a planned panic")).await;
            assert!(panicked.is_none());
            assert_eq!(turns.line.lock().free, 1);
        }
    }

    /// A step nobody waits for any more is not run, one that panics or is not polled keeps no turn, and all come back.
    #[tokio::test]
    async fn turns_are_not_lost() {
        let turns = Turns::new(1);
        let release = hold(&turns);
        let ran = Arc::new(Mutex::new(Vec::new()));
        let step = |name: &'static str| {
            let ran = Arc::clone(&ran);
            move || ran.lock().push(name)
        };
        let (least, some) = (spent(0), spent(50));
        let mut unpolled = Box::pin(turns.run(&least, step("unpolled")));
        assert!(futures::poll!(unpolled.as_mut()).is_pending());
        let mut left = Box::pin(turns.run(&least, step("left")));
        assert!(futures::poll!(left.as_mut()).is_pending());
        let panics = Box::pin(turns.run(&least, || assert!(std::hint::black_box(false), "a planned panic")));
        let last = Box::pin(turns.run(&some, step("last")));
        drop((left, release));
        let (none, done) = futures::join!(panics, last);
        assert!(none.is_none() && done.is_some());
        assert_eq!(*ran.lock(), ["unpolled", "last"]);
        while turns.line.lock().free < 1 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}
