//! The consent side of the fixture.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use query_audit::Audit;
use query_consents::{Consents, Warrant};
use schemas_consent::spans::Span;
use schemas_identity::{DeviceNumber, Did};
use schemas_signals::Registry;

use super::fixture::{HIDDEN, PEOPLE, ROWS, SECOND, T0};

/// Who asks, and what they were allowed.
pub(crate) struct World {
    pub consents: Arc<Consents>,
    pub audit: Arc<Audit>,
    spans: Vec<Span>,
    ok: Arc<AtomicBool>,
}

impl World {
    /// The fixture's grants.
    pub(crate) fn new() -> Self {
        let spans = (0..PEOPLE)
            .filter(|device| !HIDDEN.contains(device))
            .map(|device| Span {
                device: DeviceNumber(device),
                signals: Registry::builtin().everything(),
                from_us: i64::MIN,
                to_us: if device == 0 { T0 + ROWS / 2 * SECOND } else { i64::MAX },
                subject: person(device),
            })
            .collect();
        Self {
            consents: Arc::new(Consents),
            audit: Arc::default(),
            spans,
            ok: Arc::new(AtomicBool::new(true)),
        }
    }

    /// A world in which nobody granted anything.
    pub(crate) fn without_grants() -> Self {
        Self { spans: Vec::new(), ..Self::new() }
    }

    pub(crate) fn warrant(&self) -> Warrant {
        Warrant { p: person(200), spans: self.spans.clone(), ok: Arc::clone(&self.ok) }
    }

    /// Completions recorded so far.
    pub(crate) fn completions(&self) -> Vec<query_audit::Completion> {
        self.audit.done.lock().unwrap().clone()
    }

    /// The completion with that number, waited for.
    pub(crate) async fn completion_after(&self, number: usize) -> query_audit::Completion {
        for _ in 0..500 {
            if let Some(done) = self.completions().get(number - 1) {
                return done.clone();
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("no completion {number}");
    }

    /// Person 1 changes their mind.
    pub(crate) fn revoke(&self) {
        self.ok.store(false, Ordering::SeqCst);
    }
}

/// The wearer of a device.
pub(crate) fn person(number: u32) -> Did {
    Did([number as u8; 32])
}
