//! TLS for the doors: rustls (ring) from PEM files, and an axum listener whose handshakes never block accepting.
//!
//! What it is not: it makes no certificates. What may be reached without TLS is decided by [`require_tls`]: loopback
//! only. `clients.rs` asks clients for certificates and says who they are.

mod clients;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

pub use clients::ClientTls;

/// Most handshakes going on at a time in one listener; further connections are dropped at once.
const HANDSHAKES_MAX: usize = 512;
/// Pause after a failed accept (no file descriptors left), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why TLS could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate file has no readable certificate chain.
    #[error("no certificate chain in {path}: {error}", path = path.display())]
    Certificates {
        /// The file.
        path: PathBuf,
        /// What the PEM reader said.
        error: rustls::pki_types::pem::Error,
    },
    /// The certificate file holds no certificate at all.
    #[error("no certificate in {path}", path = path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// The key file has no readable private key.
    #[error("no private key in {path}: {error}", path = path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What the PEM reader said.
        error: rustls::pki_types::pem::Error,
    },
    /// Certificate and key do not fit together, or rustls refuses them.
    #[error("certificate and key are refused: {0}")]
    Refused(#[from] rustls::Error),
    /// An address that others can reach, without TLS.
    #[error("{addr} is not loopback: configure a certificate and key, or bind 127.0.0.1")]
    PlaintextOffLoopback {
        /// The address.
        addr: SocketAddr,
    },
}

/// Refuses an address that is served without TLS and is not loopback.
///
/// # Errors
/// [`TlsError::PlaintextOffLoopback`].
pub fn require_tls(addr: SocketAddr) -> Result<(), TlsError> {
    if addr.ip().to_canonical().is_loopback() {
        return Ok(());
    }
    Err(TlsError::PlaintextOffLoopback { addr })
}

/// A server configuration from a PEM certificate chain (leaf first) and a PEM private key.
/// `alpn` names the protocols offered, in order: `[b"h2", b"http/1.1"]` for HTTP, none for MQTT.
///
/// # Errors
/// If a file cannot be read, holds nothing usable, or the two do not fit together.
pub fn server_config(cert: &Path, key: &Path, alpn: &[&[u8]]) -> Result<Arc<ServerConfig>, TlsError> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(read_chain(cert)?, private_key(key)?)?;
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::new(config))
}

/// A client configuration that trusts the authorities of a PEM file, and shows a PEM chain and key where given.
///
/// # Errors
/// If a file cannot be read, holds nothing usable, or the parts do not fit together.
pub fn client_config(
    authorities: &Path,
    identity: Option<(&Path, &Path)>,
) -> Result<Arc<rustls::ClientConfig>, TlsError> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in read_chain(authorities)? {
        roots.add(certificate)?;
    }
    let config = rustls::ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    Ok(Arc::new(match identity {
        Some((cert, key)) => config.with_client_auth_cert(read_chain(cert)?, private_key(key)?)?,
        None => config.with_no_client_auth(),
    }))
}

/// The provider is named, not taken from the process: several may be compiled in, and none may be installed.
pub(crate) fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| TlsError::Key { path: path.to_path_buf(), error })
}

pub(crate) fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |error| TlsError::Certificates { path: path.to_path_buf(), error };
    let mut chain = Vec::new();
    for certificate in CertificateDer::pem_file_iter(path).map_err(failed)? {
        chain.push(certificate.map_err(failed)?);
    }
    if chain.is_empty() {
        return Err(TlsError::NoCertificate { path: path.to_path_buf() });
    }
    Ok(chain)
}

/// The address of an HTTP sender: `router.into_make_service_with_connect_info::<Peer>()` works with a plain
/// `TcpListener` and with [`TlsListener`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

impl Connected<IncomingStream<'_, TcpListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, TcpListener>) -> Self {
        Self(*stream.remote_addr())
    }
}

impl Connected<IncomingStream<'_, TlsListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, TlsListener>) -> Self {
        Self(*stream.remote_addr())
    }
}

/// An axum listener over TLS. Handshakes run beside each other, each with a deadline; a slow or hostile one holds up
/// nobody.
#[derive(Debug)]
pub struct TlsListener {
    tcp: TcpListener,
    tls: Acceptor,
    handshake_timeout: Duration,
    handshakes: JoinSet<Option<(TlsStream<TcpStream>, SocketAddr)>>,
}

/// `TlsAcceptor` has no `Debug`; this one shows nothing of the keys.
#[derive(Clone)]
struct Acceptor(TlsAcceptor);

impl std::fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TlsAcceptor")
    }
}

impl TlsListener {
    /// Speaks TLS on `tcp`. Handshakes longer than `handshake_timeout` are dropped; 10 s is a good value.
    pub fn new(tcp: TcpListener, config: Arc<ServerConfig>, handshake_timeout: Duration) -> Self {
        let tls = Acceptor(TlsAcceptor::from(config));
        Self { tcp, tls, handshake_timeout, handshakes: JoinSet::new() }
    }

    fn begin(&mut self, stream: TcpStream, addr: SocketAddr) {
        if self.handshakes.len() >= HANDSHAKES_MAX {
            tracing::debug!(%addr, "too many handshakes, connection dropped");
            return;
        }
        let acceptor = self.tls.0.clone();
        let patience = self.handshake_timeout;
        self.handshakes.spawn(async move {
            match tokio::time::timeout(patience, acceptor.accept(stream)).await {
                Ok(Ok(tls)) => Some((tls, addr)),
                Ok(Err(error)) => {
                    tracing::debug!(%addr, %error, "TLS handshake failed");
                    None
                }
                Err(_) => None,
            }
        });
    }
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            tokio::select! {
                accepted = self.tcp.accept() => match accepted {
                    Ok((stream, addr)) => self.begin(stream, addr),
                    Err(error) => {
                        tracing::warn!(%error, "accept failed");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(done) = self.handshakes.join_next() => {
                    if let Ok(Some(ready)) = done {
                        return ready;
                    }
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.tcp.local_addr()
    }
}

#[cfg(test)]
pub(crate) mod tests;
