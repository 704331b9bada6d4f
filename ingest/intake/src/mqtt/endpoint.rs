//! Accepting MQTT connections: limits, TLS, client ids, orderly shutdown.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use schemas_identity::Did;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::connection::Connection;
use super::hub::Hub;
use super::lease::Lease;
use super::options::MqttOptions;
use super::sessions::Sessions;
use crate::admission::{Admission, Allowed, Door};
use crate::room::Room;
use crate::tls::ClientTls;

/// Pause after a failed accept (no file descriptors left), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Between two looks for sessions that have expired; until then they only hold memory.
const PURGE_EVERY: Duration = Duration::from_secs(30);
/// Time beyond the drain timeout for farewells and late verdicts, before what is left is aborted.
const ABORT_GRACE: Duration = Duration::from_secs(5);

/// What a client brings to say who it is.
#[derive(Debug, Clone, Copy)]
pub struct Credentials<'a> {
    /// The user name.
    pub username: Option<&'a str>,
    /// The password.
    pub password: Option<&'a [u8]>,
    /// Whose certificate the TLS connection was opened with; its key was proven in the handshake.
    pub certificate: Option<&'a Did>,
}

/// A client that may connect.
#[derive(Debug, Clone)]
pub struct Admittance {
    /// For which devices it may publish and listen.
    pub allowed: Allowed,
    /// Who it is, one spelling each; `None` for anybody. Sessions belong to an identity and a client id.
    pub identity: Option<String>,
    /// How long it may stay.
    pub lease: Lease,
}

/// Who may connect, and for which devices.
pub trait Gatekeeper: Send + Sync {
    /// Judges what a client brings. Called on the connection's task: it must not block.
    ///
    /// # Errors
    /// If the client is not to be admitted; it is told "not authorised" and nothing more.
    #[expect(clippy::result_unit_err, reason = "a refused client must not learn why")]
    fn admit(&self, credentials: &Credentials<'_>) -> Result<Admittance, ()>;
}

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) admission: Admission,
    pub(crate) gatekeeper: Arc<dyn Gatekeeper>,
    pub(crate) options: MqttOptions,
    pub(crate) hub: Hub,
    pub(crate) room: Arc<Room>,
    pub(crate) sessions: Sessions,
    /// Before the number of a connection, the id of a client that brings none; differs at each start, so that nobody
    /// comes back to a stranger's.
    pub(crate) assigned_prefix: String,
    addresses: Mutex<HashMap<IpAddr, usize>>,
    next_id: AtomicU64,
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
            sessions: Sessions::new(options.session_expiry_s_max, options.sessions_max),
            assigned_prefix: format!("vitalog-{:x}", (options.clock)()),
            admission,
            gatekeeper,
            options,
            addresses: Mutex::default(),
            next_id: AtomicU64::new(1),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Serves a listener until `stop`. Then nothing more is accepted or read; what was taken is acknowledged, v5
    /// clients are told "shutting down", and the call returns when all are gone, at the latest after the drain
    /// timeout and a short grace.
    pub async fn serve(&self, listener: TcpListener, tls: Option<ClientTls>, stop: CancellationToken) {
        let mut connections = JoinSet::new();
        let mut purge = tokio::time::interval(PURGE_EVERY);
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
                _ = purge.tick() => self.shared.sessions.purge(&self.shared.hub, Instant::now()),
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
        tls: Option<ClientTls>,
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
        let (shared, stop) = (Arc::clone(&self.shared), stop.clone());
        // Two tasks, not one with two arms: a TLS connection is larger, and plaintext ones must not pay for it.
        match tls {
            None => connections.spawn(async move {
                run(shared, stream, (peer, None), stop).await;
                drop(place);
            }),
            Some(tls) => connections.spawn(async move {
                match timeout(shared.options.connect_timeout, tls.accept(stream)).await {
                    Ok(Ok((stream, certificate))) => run(shared, stream, (peer, certificate), stop).await,
                    Ok(Err(_)) | Err(_) => shared.options.metrics.refused(Door::Mqtt, "tls"),
                }
                drop(place);
            }),
        };
    }
}

async fn run<S>(
    shared: Arc<Shared>,
    stream: S,
    (peer, certificate): (SocketAddr, Option<Did>),
    stop: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Send,
{
    let id = shared.next_id.fetch_add(1, Ordering::Relaxed);
    Connection::new(shared, stream, (id, peer, certificate), stop).run().await;
}
