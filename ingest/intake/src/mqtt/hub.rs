//! Who listens to which device, and the latest verdict of each device.
//!
//! Verdicts go to the outboxes of all sessions subscribed to the device; a client is never waited for. The
//! latest verdicts are kept for those who subscribe later, bounded, and forgotten at restart.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use schemas_identity::ShortId;

use super::verdict::{Outbox, Standing};
use crate::metrics::Metrics;
use crate::recent::Recent;

/// Number of a connection, unique in this process.
pub(crate) type ConnectionId = u64;
/// Number of a session, unique in this process.
pub(crate) type ListenerId = u64;

#[derive(Debug)]
pub(crate) struct Hub {
    metrics: Arc<Metrics>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    listeners: HashMap<ShortId, Vec<(ListenerId, Arc<Outbox>)>>,
    latest: Recent<ShortId, Standing>,
}

impl Hub {
    pub(crate) fn new(latest_max: usize, metrics: Arc<Metrics>) -> Self {
        let state = State { listeners: HashMap::new(), latest: Recent::new(latest_max) };
        Self { metrics, state: Mutex::new(state) }
    }

    /// Hands a device's verdict to all who listen, and remembers it.
    pub(crate) fn publish(&self, device: ShortId, mut standing: Standing) {
        let mut state = self.state.lock();
        let latest = state.latest.touch(&device, Standing::default);
        standing.not_before(latest);
        latest.clone_from(&standing);
        for (_, outbox) in state.listeners.get(&device).into_iter().flatten() {
            let pushed = outbox.push(device, standing.clone());
            if pushed.merged {
                self.metrics.verdicts_merged.inc();
            }
            self.metrics.exceptions_dropped.inc_by(pushed.exceptions_dropped as u64);
        }
    }

    /// Adds a listener; with `send_latest` the latest verdict goes to its outbox at once.
    pub(crate) fn subscribe(
        &self,
        device: ShortId,
        listener: ListenerId,
        outbox: &Arc<Outbox>,
        send_latest: bool,
    ) {
        let mut state = self.state.lock();
        let listeners = state.listeners.entry(device).or_default();
        if !listeners.iter().any(|(id, _)| *id == listener) {
            listeners.push((listener, Arc::clone(outbox)));
        }
        if let Some(latest) = state.latest.get(&device).filter(|_| send_latest) {
            outbox.push(device, latest.clone());
        }
    }

    /// Removes a listener.
    pub(crate) fn unsubscribe(&self, device: &ShortId, listener: ListenerId) {
        let mut state = self.state.lock();
        let Some(listeners) = state.listeners.get_mut(device) else { return };
        listeners.retain(|(id, _)| *id != listener);
        if listeners.is_empty() {
            state.listeners.remove(device);
        }
    }

    /// Devices that somebody listens to.
    #[cfg(test)]
    pub(crate) fn listeners(&self) -> usize {
        self.state.lock().listeners.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hub() -> Hub {
        Hub::new(16, Arc::new(Metrics::new().unwrap()))
    }

    /// Every listener of the device gets the verdict once, others none, and who left none.
    #[test]
    fn verdicts_reach_the_devices_listeners() {
        let hub = hub();
        let (device, other) = (ShortId([1; 8]), ShortId([2; 8]));
        let (one, two) = (Arc::new(Outbox::default()), Arc::new(Outbox::default()));
        hub.subscribe(device, 1, &one, false);
        hub.subscribe(device, 1, &one, false);
        hub.subscribe(other, 2, &two, false);
        hub.publish(device, Standing::default());
        assert!(one.pop().is_some() && one.pop().is_none() && two.pop().is_none());
        hub.unsubscribe(&device, 1);
        hub.publish(device, Standing::default());
        assert!(one.pop().is_none());
        assert_eq!(hub.state.lock().listeners.len(), 1, "no empty list stays behind");
    }

    /// Who comes later gets the latest verdict, if wanted.
    #[test]
    fn latecomers_get_the_latest() {
        let hub = hub();
        let device = ShortId([1; 8]);
        let standing = Standing { server_time_us: 7, ..Standing::default() };
        hub.publish(device, standing.clone());
        let outbox = Arc::new(Outbox::default());
        hub.subscribe(device, 1, &outbox, false);
        assert!(outbox.pop().is_none());
        hub.subscribe(device, 1, &outbox, true);
        assert_eq!(outbox.pop(), Some((device, standing)));
    }
}
