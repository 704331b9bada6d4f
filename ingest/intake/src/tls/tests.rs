//! TLS with certificates made on the spot.

use std::io::Write;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;

use super::*;

/// A self-signed certificate for `localhost`, its files, and a client that trusts only it.
pub(crate) struct Identity {
    _folder: tempfile::TempDir,
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) connector: TlsConnector,
}

pub(crate) fn identity() -> Identity {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Identity { _folder: folder, cert, key, connector: TlsConnector::from(Arc::new(config)) }
}

pub(crate) async fn connect(
    identity: &Identity,
    addr: SocketAddr,
) -> tokio_rustls::client::TlsStream<TcpStream> {
    let tcp = TcpStream::connect(addr).await.unwrap();
    identity.connector.connect(ServerName::try_from("localhost").unwrap(), tcp).await.unwrap()
}

/// Loopback may be plaintext, in any of its spellings; everything else needs TLS.
#[test]
fn plaintext_stays_on_loopback() {
    for good in ["127.0.0.1:80", "127.9.9.9:80", "[::1]:80", "[::ffff:127.0.0.1]:80"] {
        assert!(require_tls(good.parse().unwrap()).is_ok(), "{good}");
    }
    for bad in ["0.0.0.0:80", "[::]:80", "192.0.2.1:80", "10.0.0.1:80"] {
        assert!(require_tls(bad.parse().unwrap()).is_err(), "{bad}");
    }
}

/// Files that hold nothing usable are named in the error.
#[test]
fn bad_files_are_errors() {
    let good = identity();
    let mut empty = tempfile::NamedTempFile::new().unwrap();
    empty.write_all(b"nothing\n").unwrap();
    let failed = server_config(empty.path(), &good.key, &[]).unwrap_err();
    assert!(matches!(failed, TlsError::NoCertificate { .. }), "{failed}");
    assert!(matches!(server_config(&good.cert, empty.path(), &[]), Err(TlsError::Key { .. })));
    assert!(matches!(server_config(Path::new("/none"), &good.key, &[]), Err(TlsError::Certificates { .. })));
    let other = identity();
    assert!(matches!(server_config(&good.cert, &other.key, &[]), Err(TlsError::Refused(_))));
}

/// A client that never shakes hands does not keep the next one out, and the sender's address arrives.
#[tokio::test]
async fn a_silent_client_blocks_nobody() {
    let identity = identity();
    let config = server_config(&identity.cert, &identity.key, &[b"http/1.1"]).unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = tcp.local_addr().unwrap();
    let listener = TlsListener::new(tcp, config, Duration::from_secs(30));
    let app = axum::Router::new().route(
        "/",
        axum::routing::get(|info: axum::extract::ConnectInfo<Peer>| async move { info.0.0.ip().to_string() }),
    );
    tokio::spawn(async move {
        axum::serve(listener, app.into_make_service_with_connect_info::<Peer>()).await.unwrap();
    });
    let _silent = TcpStream::connect(addr).await.unwrap();
    let mut noise = TcpStream::connect(addr).await.unwrap();
    noise.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut stream = connect(&identity, addr).await;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("127.0.0.1"), "{answer}");
}

/// A handshake that takes too long is dropped.
#[tokio::test]
async fn a_silent_client_is_dropped() {
    let identity = identity();
    let config = server_config(&identity.cert, &identity.key, &[]).unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = tcp.local_addr().unwrap();
    let mut listener = TlsListener::new(tcp, config, Duration::from_millis(20));
    tokio::spawn(async move { listener.accept().await });
    let mut silent = TcpStream::connect(addr).await.unwrap();
    assert_eq!(silent.read(&mut [0; 8]).await.unwrap(), 0);
}
