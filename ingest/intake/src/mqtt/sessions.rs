//! The sessions: who is connected under which name, and what outlives a connection.
//!
//! What it is: a bounded table. A session is a name, its subscriptions and the verdicts that wait for it; a client that
//! asked for an expiry finds them again when it comes back in time. Frames are no part of it: a publish without a
//! `PUBACK` is the device's to send again, and the answer is `DUP`.
//!
//! What it is not: durable. After a restart every client is told `session present` 0.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use schemas_identity::ShortId;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::hub::{ConnectionId, Hub, ListenerId};
use super::session::Asked;
use super::verdict::Outbox;

/// Identity (empty if anonymous) and client id: who takes over whose session. Nobody takes over a stranger's.
pub(crate) type ClientKey = (Option<String>, String);

/// What a session has beside its connection.
#[derive(Debug)]
pub(crate) struct Kept {
    listener: ListenerId,
    pub(crate) outbox: Arc<Outbox>,
    /// Devices listened to; true: at QoS 1.
    subscriptions: Mutex<HashMap<ShortId, bool>>,
}

impl Kept {
    fn new(listener: ListenerId) -> Arc<Self> {
        Arc::new(Self { listener, outbox: Arc::default(), subscriptions: Mutex::default() })
    }

    /// For a connection that has not been admitted: nothing listens through it.
    pub(crate) fn nobodys() -> Arc<Self> {
        Self::new(0)
    }

    pub(crate) fn subscribe(&self, hub: &Hub, device: ShortId, at_least_once: bool, send_latest: bool) {
        self.subscriptions.lock().insert(device, at_least_once);
        hub.subscribe(device, self.listener, &self.outbox, send_latest);
    }

    pub(crate) fn unsubscribe(&self, hub: &Hub, device: &ShortId) {
        self.subscriptions.lock().remove(device);
        hub.unsubscribe(device, self.listener);
    }

    fn end(&self, hub: &Hub) {
        for device in std::mem::take(&mut *self.subscriptions.lock()).into_keys() {
            hub.unsubscribe(&device, self.listener);
        }
    }
}

/// Who has a session at the moment.
#[derive(Debug)]
enum Holder {
    Connected(ConnectionId, CancellationToken),
    Away { until: Instant },
}

#[derive(Debug)]
struct Entry {
    kept: Arc<Kept>,
    holder: Holder,
    /// Counted against the bound.
    outlives: bool,
}

/// A session as opened for a connection.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) kept: Arc<Kept>,
    /// The subscriptions, if the session was there before.
    pub(crate) resumed: Option<HashMap<ShortId, bool>>,
    pub(crate) expiry_s: u32,
}

/// All sessions of an endpoint.
#[derive(Debug)]
pub(crate) struct Sessions {
    expiry_s_max: u32,
    sessions_max: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    entries: HashMap<ClientKey, Entry>,
    outliving: usize,
    next_listener: ListenerId,
}

impl Sessions {
    pub(crate) fn new(expiry_s_max: u32, sessions_max: usize) -> Self {
        Self { expiry_s_max, sessions_max, state: Mutex::default() }
    }

    /// Opens or resumes the session of `client` for connection `id`. A connection that still has it is ended.
    pub(crate) fn open(
        &self,
        client: ClientKey,
        asked: &Asked,
        (id, end): (ConnectionId, CancellationToken),
        (hub, now): (&Hub, Instant),
    ) -> Opened {
        let mut state = self.state.lock();
        let before = state.remove(&client);
        if let Some(Entry { holder: Holder::Connected(_, older), .. }) = &before {
            older.cancel();
        }
        let expired = |holder: &Holder| matches!(holder, Holder::Away { until } if *until <= now);
        let kept = match before {
            Some(entry) if !asked.clean && entry.outlives && !expired(&entry.holder) => Some(entry.kept),
            Some(entry) => {
                entry.kept.end(hub);
                None
            }
            None => None,
        };
        let resumed = kept.as_ref().map(|kept| kept.subscriptions.lock().clone());
        let kept = kept.unwrap_or_else(|| {
            state.next_listener += 1;
            Kept::new(state.next_listener)
        });
        let has_room = state.outliving < self.sessions_max;
        let expiry_s = if has_room { asked.session_expiry_s.min(self.expiry_s_max) } else { 0 };
        let holder = Holder::Connected(id, end);
        state.insert(client, Entry { kept: Arc::clone(&kept), holder, outlives: expiry_s > 0 });
        Opened { kept, resumed, expiry_s }
    }

    /// Connection `id` has gone; its session stays for `expiry_s`, unless somebody else has taken it up.
    pub(crate) fn leave(
        &self,
        client: &ClientKey,
        kept: &Arc<Kept>,
        (id, expiry_s): (ConnectionId, u32),
        (hub, now): (&Hub, Instant),
    ) {
        let mut state = self.state.lock();
        let Some(entry) = state.entries.get_mut(client).filter(|entry| Arc::ptr_eq(&entry.kept, kept)) else {
            // Discarded while this connection was still ending; it may have subscribed since.
            kept.end(hub);
            return;
        };
        match &entry.holder {
            Holder::Connected(current, _) if *current == id => {}
            _ => return,
        }
        if expiry_s > 0 && entry.outlives {
            entry.holder = Holder::Away { until: now + Duration::from_secs(u64::from(expiry_s)) };
            return;
        }
        state.remove(client);
        kept.end(hub);
    }

    /// Forgets what has expired; the work is in proportion to the sessions there are.
    pub(crate) fn purge(&self, hub: &Hub, now: Instant) {
        let mut state = self.state.lock();
        let mut expired = Vec::new();
        for (client, entry) in &state.entries {
            if matches!(entry.holder, Holder::Away { until } if until <= now) {
                expired.push(client.clone());
            }
        }
        for client in expired {
            if let Some(entry) = state.remove(&client) {
                entry.kept.end(hub);
            }
        }
    }
}

impl State {
    fn insert(&mut self, client: ClientKey, entry: Entry) {
        self.outliving += usize::from(entry.outlives);
        self.entries.insert(client, entry);
    }

    fn remove(&mut self, client: &ClientKey) -> Option<Entry> {
        let entry = self.entries.remove(client)?;
        self.outliving -= usize::from(entry.outlives);
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;
    use crate::mqtt::verdict::Standing;

    const DEVICE: ShortId = ShortId([1; 8]);

    fn hub() -> Hub {
        Hub::new(16, Arc::new(Metrics::new().unwrap()))
    }

    fn asked(clean: bool, session_expiry_s: u32) -> Asked {
        Asked { client_id: "w".into(), username: None, password: None, clean, session_expiry_s }
    }

    fn client(name: &str) -> ClientKey {
        (None, name.into())
    }

    /// A table, its listeners, and a moment to count from.
    struct Table(Sessions, Hub, Instant);

    impl Table {
        fn new(expiry_s_max: u32, sessions_max: usize) -> Self {
            Self(Sessions::new(expiry_s_max, sessions_max), hub(), Instant::now())
        }

        fn open(
            &self,
            id: ConnectionId,
            name: &str,
            asked: &Asked,
            at_s: u64,
        ) -> (Opened, CancellationToken) {
            let (end, now) = (CancellationToken::new(), self.2 + Duration::from_secs(at_s));
            (self.0.open(client(name), asked, (id, end.clone()), (&self.1, now)), end)
        }

        fn leave(&self, id: ConnectionId, name: &str, opened: &Opened, expiry_s: u32, at_s: u64) {
            let now = self.2 + Duration::from_secs(at_s);
            self.0.leave(&client(name), &opened.kept, (id, expiry_s), (&self.1, now));
        }

        fn purge(&self, at_s: u64) {
            self.0.purge(&self.1, self.2 + Duration::from_secs(at_s));
        }
    }

    /// A session outlives its connection for its expiry and not longer, and collects verdicts meanwhile.
    #[test]
    fn a_session_waits_for_its_client() {
        let table = Table::new(100, 10);
        let (first, _) = table.open(1, "w", &asked(false, 1_000), 0);
        assert!(first.resumed.is_none());
        assert_eq!(first.expiry_s, 100, "limited");
        first.kept.subscribe(&table.1, DEVICE, true, false);
        table.leave(1, "w", &first, 100, 0);
        table.1.publish(DEVICE, Standing::default());
        table.purge(99);
        let (second, _) = table.open(2, "w", &asked(false, 50), 99);
        assert_eq!(second.resumed, Some([(DEVICE, true)].into()));
        assert!(second.kept.outbox.pop().is_some());
        table.leave(2, "w", &second, 50, 100);
        let (third, _) = table.open(3, "w", &asked(false, 50), 150);
        assert!(third.resumed.is_none(), "expired, though not yet purged");
        assert_eq!(table.1.listeners(), 0, "nothing listens for an expired session");
    }

    /// Clean start discards what was kept, also from under a connection that is still ending.
    #[test]
    fn clean_start_discards() {
        let table = Table::new(100, 10);
        let (first, ended) = table.open(1, "w", &asked(false, 50), 0);
        first.kept.subscribe(&table.1, DEVICE, true, false);
        let (second, _) = table.open(2, "w", &asked(true, 50), 0);
        assert!(ended.is_cancelled() && second.resumed.is_none());
        first.kept.subscribe(&table.1, DEVICE, true, false);
        table.leave(1, "w", &first, 50, 0);
        assert_eq!(table.1.listeners(), 0);
    }

    /// Taking over a live connection takes over its subscriptions, and the older one's end leaves them alone.
    #[test]
    fn taking_over_keeps_the_subscriptions() {
        let table = Table::new(100, 10);
        let (first, ended) = table.open(1, "w", &asked(false, 50), 0);
        first.kept.subscribe(&table.1, DEVICE, false, false);
        let (second, _) = table.open(2, "w", &asked(false, 50), 0);
        assert!(ended.is_cancelled());
        assert_eq!(second.resumed, Some([(DEVICE, false)].into()));
        table.leave(1, "w", &first, 50, 0);
        assert_eq!(table.1.listeners(), 1);
        table.leave(2, "w", &second, 0, 0);
        assert_eq!(table.1.listeners(), 0, "an expiry of 0 at the end ends it");
    }

    /// Sessions that outlive connections are bounded, and who finds no room is told an expiry of 0.
    #[test]
    fn sessions_are_bounded() {
        let table = Table::new(100, 2);
        let grant = |name: &str, id, at_s| {
            let (opened, _) = table.open(id, name, &asked(false, 50), at_s);
            table.leave(id, name, &opened, opened.expiry_s, at_s);
            opened.expiry_s
        };
        assert_eq!([grant("a", 1, 0), grant("b", 2, 0), grant("c", 3, 0)], [50, 50, 0]);
        assert_eq!(grant("a", 4, 0), 50, "its own place is not counted twice");
        table.purge(50);
        assert_eq!(grant("c", 5, 50), 50);
        assert_eq!(table.0.state.lock().entries.len(), 1);
    }
}
