//! The engine's own threads: some that plan, with deep stacks, and some that evaluate. Started with it, ended and waited
//! for with it. It knows nothing of queries.
//!
//! Threads are joined, not detached: glibc's `pthread_detach` reads a thread's memory once more after the thread may have
//! freed it (bug 19951). Stacks as large as these are unmapped at once, so that read ended the process now and then, just
//! when it stopped. Only what still works after [`ENDS_WITHIN`] is let go, and that does not end just then.

use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};

/// Stack of the threads that plan; the gate's depth bound is what keeps plans far below it.
const PLAN_STACK_BYTES: usize = 64 * 1024 * 1024;
/// Stack of the threads that evaluate expressions.
const QUERY_STACK_BYTES: usize = 16 * 1024 * 1024;
/// Most threads blocked on files.
const BLOCKING_THREADS_MAX: usize = 64;
/// How long a thread that plans stays when it has nothing to do. They are at most as many as queries, and if there were
/// none and the system could start none, a plan would wait in line with its permit.
const PLANNERS_STAY: Duration = Duration::from_secs(365 * 24 * 3600);
/// Longest wait for the threads of either kind at the end: a step that works long on few rows looks out for nothing.
const ENDS_WITHIN: Duration = Duration::from_secs(5);

/// Threads of one engine. Dropped, they end: tasks at their next wait, blocking steps when they are done.
pub(crate) struct Threads {
    evaluating: Handle,
    planning: Handle,
    /// Never sent on: its end is the sign to stop.
    stop: Option<Sender<()>>,
    keeper: Option<JoinHandle<()>>,
}

impl Threads {
    /// `evaluate` threads that evaluate; at most `plans_max` that plan, one now and others when needed.
    pub(crate) fn start(evaluate: usize, plans_max: usize) -> io::Result<Self> {
        let evaluating = Builder::new_multi_thread()
            .worker_threads(evaluate.max(1))
            .thread_stack_size(QUERY_STACK_BYTES)
            .max_blocking_threads(BLOCKING_THREADS_MAX)
            .thread_name("query")
            .enable_time()
            .build()?;
        let planning = Builder::new_current_thread()
            .thread_stack_size(PLAN_STACK_BYTES)
            .max_blocking_threads(plans_max.max(1))
            .thread_keep_alive(PLANNERS_STAY)
            .thread_name("plan")
            .build()?;
        // The first one.
        planning.spawn_blocking(|| ());
        let handles = (evaluating.handle().clone(), planning.handle().clone());
        let (stop, stopped) = channel();
        let keeper = std::thread::Builder::new()
            .name("query-keeper".to_owned())
            .spawn(move || keep(&stopped, [planning, evaluating]))?;
        Ok(Self { evaluating: handles.0, planning: handles.1, stop: Some(stop), keeper: Some(keeper) })
    }

    /// Where queries run.
    pub(crate) fn evaluating(&self) -> &Handle {
        &self.evaluating
    }

    /// Where queries are planned: only for what blocks.
    pub(crate) fn planning(&self) -> &Handle {
        &self.planning
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        drop(self.stop.take());
        if self.keeper.take().is_some_and(|keeper| keeper.join().is_err()) {
            tracing::error!("the keeper of the query threads panicked: some may be left");
        }
    }
}

/// Holds the runtimes on a thread that may wait for theirs; whoever drops an engine may be a task that may not.
fn keep(stopped: &Receiver<()>, runtimes: [Runtime; 2]) {
    let _no_sender = stopped.recv();
    for runtime in runtimes {
        runtime.shutdown_timeout(ENDS_WITHIN);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Guarantee: what works when an engine is dropped is waited for, also by a task that may not block.
    #[tokio::test]
    async fn ends_when_its_threads_have() {
        let threads = Threads::start(2, 2).unwrap();
        let (done, begun) = (Arc::new(AtomicUsize::new(0)), Arc::new(std::sync::Barrier::new(3)));
        for handle in [threads.planning(), threads.evaluating()] {
            let (done, begun) = (done.clone(), begun.clone());
            handle.spawn_blocking(move || {
                begun.wait();
                std::thread::sleep(Duration::from_millis(200));
                done.fetch_add(1, Ordering::SeqCst);
            });
        }
        begun.wait();
        drop(threads);
        assert_eq!(done.load(Ordering::SeqCst), 2);
    }

    /// Guarantee: dropped on one of its own threads it does not wait for itself for ever.
    #[test]
    fn may_be_dropped_from_within() {
        let threads = Threads::start(1, 1).unwrap();
        let evaluating = threads.evaluating().clone();
        let (ended, wait) = channel();
        evaluating.spawn(async move {
            drop(threads);
            let _ = ended.send(());
        });
        wait.recv_timeout(4 * ENDS_WITHIN).expect("it ends");
    }
}
