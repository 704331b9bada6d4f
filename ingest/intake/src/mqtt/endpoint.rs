//! Accepting MQTT connections: limits, TLS, client ids, orderly shutdown.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::connection::Connection;
use super::hub::{ConnectionId, Hub};
use super::options::MqttOptions;
use crate::admission::{Admission, Allowed, Door};
use crate::room::Room;

/// Pause after a failed accept (no file descriptors left), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Time beyond the drain timeout for farewells and late verdicts, before what is left is aborted.
const ABORT_GRACE: Duration = Duration::from_secs(5);

/// Who may connect, and for which devices.
pub trait Gatekeeper: Send + Sync {
    /// Judges a user name and password. Called on the connection's task: it must not block.
    ///
    /// # Errors
    /// If the client is not to be admitted; it is told "not authorised" and nothing more.
    #[expect(clippy::result_unit_err, reason = "a refused client must not learn why")]
    fn admit(&self, username: Option<&str>, password: Option<&[u8]>) -> Result<Allowed, ()>;
}

/// User name (empty if none) and client id: who takes over whose connection. Nobody takes over a stranger's.
pub(crate) type ClientKey = (Option<String>, String);

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) admission: Admission,
    pub(crate) gatekeeper: Arc<dyn Gatekeeper>,
    pub(crate) options: MqttOptions,
    pub(crate) hub: Hub,
    pub(crate) room: Arc<Room>,
    clients: Mutex<HashMap<ClientKey, (ConnectionId, CancellationToken)>>,
    addresses: Mutex<HashMap<IpAddr, usize>>,
    next_id: AtomicU64,
}

impl Shared {
    /// Registers a client; an older connection of the same client is ended.
    pub(crate) fn take_over(&self, client: ClientKey, id: ConnectionId, end: CancellationToken) {
        if let Some((_, older)) = self.clients.lock().insert(client, (id, end)) {
            older.cancel();
        }
    }

    /// Forgets a client, unless a newer connection has its place.
    pub(crate) fn forget(&self, client: &ClientKey, id: ConnectionId) {
        let mut clients = self.clients.lock();
        if clients.get(client).is_some_and(|(current, _)| *current == id) {
            clients.remove(client);
        }
    }
}

/// A place among the connections; given back on drop.
struct Place {
    shared: Arc<Shared>,
    address: IpAddr,
}

impl Place {
    /// Takes a place, or names the limit that forbids it.
    fn take(shared: &Arc<Shared>, address: IpAddr) -> Result<Self, &'static str> {
        let options = &shared.options;
        let mut addresses = shared.addresses.lock();
        let open = options.metrics.connections_open.get();
        if usize::try_from(open).unwrap_or_default() >= options.connections_max {
            return Err("global");
        }
        let here = addresses.entry(address).or_default();
        if *here >= options.connections_per_address_max.max(1) {
            return Err("address");
        }
        *here += 1;
        options.metrics.connections_open.inc();
        Ok(Self { shared: Arc::clone(shared), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut addresses = self.shared.addresses.lock();
        self.shared.options.metrics.connections_open.dec();
        if let Some(here) = addresses.get_mut(&self.address) {
            *here -= 1;
            if *here == 0 {
                addresses.remove(&self.address);
            }
        }
    }
}

/// The MQTT door. One endpoint may serve several listeners; they share all limits and all subscribers.
pub struct Endpoint {
    shared: Arc<Shared>,
}

impl Endpoint {
    /// An endpoint that offers to `admission` and asks `gatekeeper`.
    pub fn new(admission: Admission, gatekeeper: Arc<dyn Gatekeeper>, options: MqttOptions) -> Self {
        let shared = Shared {
            hub: Hub::new(options.latest_max, Arc::clone(&options.metrics)),
            room: Room::new(options.arriving_bytes_max),
            admission,
            gatekeeper,
            options,
            clients: Mutex::default(),
            addresses: Mutex::default(),
            next_id: AtomicU64::new(1),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Serves a listener until `stop`. Then nothing more is accepted or read; what was taken is acknowledged, v5
    /// clients are told "shutting down", and the call returns when all are gone, at the latest after the drain
    /// timeout and a short grace.
    pub async fn serve(&self, listener: TcpListener, tls: Option<TlsAcceptor>, stop: CancellationToken) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => self.begin(&mut connections, stream, peer, tls.clone(), &stop),
                    Err(error) => {
                        tracing::warn!(%error, "accept failed");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(_ended) = connections.join_next() => {}
            }
        }
        drop(listener);
        let patience = self.shared.options.drain_timeout + ABORT_GRACE;
        let drained = timeout(patience, async { while connections.join_next().await.is_some() {} }).await;
        if drained.is_err() {
            tracing::warn!(left = connections.len(), "MQTT connections aborted at shutdown");
            connections.shutdown().await;
        }
    }

    fn begin(
        &self,
        connections: &mut JoinSet<()>,
        stream: TcpStream,
        peer: SocketAddr,
        tls: Option<TlsAcceptor>,
        stop: &CancellationToken,
    ) {
        let place = match Place::take(&self.shared, peer.ip().to_canonical()) {
            Ok(place) => place,
            Err(limit) => {
                self.shared.options.metrics.refused(Door::Mqtt, limit);
                return;
            }
        };
        // Acknowledgements are small and awaited: they must not sit in the kernel.
        if stream.set_nodelay(true).is_err() {
            return;
        }
        let shared = Arc::clone(&self.shared);
        let stop = stop.clone();
        connections.spawn(async move {
            match tls {
                None => run(shared, stream, peer, stop).await,
                Some(acceptor) => {
                    let handshake = timeout(shared.options.connect_timeout, acceptor.accept(stream));
                    match handshake.await {
                        Ok(Ok(stream)) => run(shared, stream, peer, stop).await,
                        Ok(Err(_)) | Err(_) => shared.options.metrics.refused(Door::Mqtt, "tls"),
                    }
                }
            }
            drop(place);
        });
    }
}

async fn run<S>(shared: Arc<Shared>, stream: S, peer: SocketAddr, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Send,
{
    let id = shared.next_id.fetch_add(1, Ordering::Relaxed);
    Connection::new(shared, stream, (id, peer), stop).run().await;
}
