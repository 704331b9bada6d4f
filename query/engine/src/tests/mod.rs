//! Tests of the engine as a whole, on files whose hidden rows lie in the same row group and the same batch as
//! the visible ones.

mod attacks;
mod fixture;
mod oracle;
mod people;
mod stream;

use std::sync::Arc;
use std::time::Duration;

use people::World;
use query_audit::{Audit, Completion};

/// An empty audit.
fn audit() -> Arc<Audit> {
    Arc::default()
}

impl World {
    /// Completions recorded so far.
    fn completions(&self) -> Vec<Completion> {
        self.audit.done.lock().unwrap().clone()
    }

    /// The completion with that number, waited for.
    async fn completion_after(&self, number: usize) -> Completion {
        for _ in 0..500 {
            if let Some(done) = self.completions().get(number - 1) {
                return done.clone();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("no completion {number}");
    }
}
