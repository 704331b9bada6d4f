//! Tests of the engine as a whole, on files whose hidden rows lie in the same row group and the same batch as
//! the visible ones.

mod attacks;
mod dependencies;
mod differential;
pub(crate) mod fixture;
mod forms;
mod grouped;
mod hostile;
mod oracle;
mod past;
pub(crate) mod people;
mod rules;
mod stream;

use std::sync::Arc;
use std::time::Duration;

use people::{World, person};
use query_audit::Audit;
use query_audit::report::{Access, Page, Seen};
use schemas_evidence::MemoryLedger;
use tempfile::TempDir;

/// An empty audit in a folder of its own.
fn audit() -> (Arc<Audit>, TempDir) {
    let dir = TempDir::new().unwrap();
    let audit = Audit::open(dir.path().to_owned(), Arc::new(MemoryLedger::new("test.example/log"))).unwrap();
    (Arc::new(audit), dir)
}

impl World {
    /// What somebody may read of accesses to them so far.
    fn accesses(&self, number: u32) -> Vec<Access> {
        self.audit.report(&person(number), Page::default()).unwrap().accesses
    }

    /// How the access with that number to person 1 ended, waited for.
    async fn ending(&self, number: usize) -> Seen {
        for _ in 0..500 {
            match self.accesses(1).get(number - 1) {
                Some(access) if access.outcome != Seen::AssumeAllWasRead => return access.outcome,
                _ => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
        panic!("no completion {number}");
    }
}
