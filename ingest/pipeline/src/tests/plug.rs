//! The plug of the simulated machine. Every disk operation of the write-ahead log, the lake and the ledger takes one
//! step here, so that the process can die in any of them; from then on nothing reaches the disk.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

/// What runs in the middle of another thread's work.
pub(super) type Work = Box<dyn FnOnce() + Send>;

/// A handle; clones share it.
#[derive(Clone, Default)]
pub(super) struct Plug(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    steps: u64,
    crash_at: Option<u64>,
    is_down: bool,
    is_full: bool,
    lake_syncs_to_fail: u32,
    /// Called at the moment of death.
    at_death: Option<Arc<dyn Fn() + Send + Sync>>,
    interrupt: Option<(u64, Work)>,
}

impl std::fmt::Debug for Plug {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Plug")
    }
}

/// What becomes of an operation.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    Done,
    /// The process dies in the middle of it.
    Dies,
    /// It died before.
    Dead,
}

pub(super) fn dead() -> io::Error {
    io::Error::other("simulated crash")
}

impl Plug {
    pub(super) fn at_death(&self, call: Arc<dyn Fn() + Send + Sync>) {
        self.0.lock().at_death = Some(call);
    }

    pub(super) fn step(&self) -> Step {
        let mut state = self.0.lock();
        if state.is_down {
            return Step::Dead;
        }
        state.steps += 1;
        if state.crash_at != Some(state.steps) {
            return Step::Done;
        }
        drop(state);
        self.die();
        Step::Dies
    }

    pub(super) fn die(&self) {
        let mut state = self.0.lock();
        state.is_down = true;
        let call = state.at_death.clone();
        drop(state);
        if let Some(call) = call {
            call();
        }
    }

    pub(super) fn is_down(&self) -> bool {
        self.0.lock().is_down
    }

    /// Dies in the `steps`-th operation from now; 1 is the next.
    pub(super) fn die_in(&self, steps: u64) {
        let mut state = self.0.lock();
        state.crash_at = Some(state.steps + steps);
    }

    pub(super) fn revive(&self) {
        let mut state = self.0.lock();
        state.is_down = false;
        state.crash_at = None;
        state.lake_syncs_to_fail = 0;
        state.interrupt = None;
    }

    pub(super) fn set_full(&self, is_full: bool) {
        self.0.lock().is_full = is_full;
    }

    pub(super) fn is_full(&self) -> bool {
        self.0.lock().is_full
    }

    pub(super) fn fail_lake_syncs(&self, count: u32) {
        self.0.lock().lake_syncs_to_fail = count;
    }

    /// Whether a sync of the lake fails now.
    pub(super) fn lake_sync_fails(&self) -> bool {
        let mut state = self.0.lock();
        let fails = state.lake_syncs_to_fail > 0;
        state.lake_syncs_to_fail = state.lake_syncs_to_fail.saturating_sub(1);
        fails
    }

    /// Runs the work before the `changes`-th change of the sealing thread from now.
    pub(super) fn interrupt(&self, changes: u64, work: Work) {
        self.0.lock().interrupt = Some((changes, work));
    }

    /// The sealing thread is about to change something: other threads may run first.
    pub(super) fn let_others_run(&self) {
        let mut state = self.0.lock();
        let Some((left, work)) = state.interrupt.take() else { return };
        if left > 0 {
            state.interrupt = Some((left - 1, work));
            return;
        }
        drop(state);
        work();
    }

    /// The work that was never run.
    pub(super) fn uninterrupted(&self) -> Option<Work> {
        self.0.lock().interrupt.take().map(|(_, work)| work)
    }
}
