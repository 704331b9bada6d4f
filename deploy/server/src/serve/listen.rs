//! The HTTP accept loop: what axum's own `serve` leaves open is bounded here. It knows no routes.
//!
//! | limit | value | beyond it |
//! |---|---|---|
//! | connections (`intake.http_connections_max`) | 4,096 | the next one waits in the kernel's queue |
//! | time for a request's headers ([`HEADERS_WITHIN`]) | 30 s | closed |
//! | header bytes of HTTP/2 ([`HEADER_BYTES_MAX`]) | 64 KiB | refused |
//! | silence of an HTTP/2 peer ([`PING_EVERY`]) | pinged each 20 s | closed when no answer comes |

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use axum::response::Response;
use axum::serve::Listener;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use ingest_intake::tls::Peer;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service;

/// Longest between the start of a request and the end of its headers; an idle connection lives as long.
pub(crate) const HEADERS_WITHIN: Duration = Duration::from_secs(30);
const HEADER_BYTES_MAX: u32 = 64 << 10;
const STREAMS_MAX: u32 = 128;
const PING_EVERY: Duration = Duration::from_secs(20);

fn connection_builder(headers_within: Duration) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(headers_within);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(HEADER_BYTES_MAX)
        .max_concurrent_streams(STREAMS_MAX)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_EVERY);
    builder
}

/// One connection's routes: each request carries its sender's address, in the type that either side knows.
#[derive(Clone)]
struct Routes {
    app: Router,
    peer: Peer,
    /// Set by the first request.
    has_asked: Arc<AtomicBool>,
}

impl hyper::service::Service<hyper::Request<hyper::body::Incoming>> for Routes {
    type Response = Response;
    type Error = Infallible;
    type Future = <Router as Service<Request>>::Future;

    fn call(&self, request: hyper::Request<hyper::body::Incoming>) -> Self::Future {
        self.has_asked.store(true, Ordering::Relaxed);
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(self.peer));
        // The query side does not know the intake's type.
        request.extensions_mut().insert(ConnectInfo(self.peer.0));
        self.app.clone().call(request)
    }
}

/// Serves until `stop`, then lets requests under way end.
pub(crate) async fn serve<L>(
    mut listener: L,
    app: Router,
    connections_max: usize,
    headers_within: Duration,
    stop: CancellationToken,
) where
    L: Listener<Addr = std::net::SocketAddr>,
{
    let builder = Arc::new(connection_builder(headers_within));
    let slots = Arc::new(Semaphore::new(connections_max));
    let connections = TaskTracker::new();
    loop {
        let next = async {
            let slot = slots.clone().acquire_owned().await;
            (slot, listener.accept().await)
        };
        let (slot, (stream, address)) = tokio::select! {
            () = stop.cancelled() => break,
            next = next => next,
        };
        let has_asked = Arc::new(AtomicBool::new(false));
        let routes = Routes { app: app.clone(), peer: Peer(address), has_asked: has_asked.clone() };
        let (builder, stop) = (builder.clone(), stop.clone());
        connections.spawn(async move {
            let _slot = slot;
            let connection = builder.serve_connection(TokioIo::new(stream), routes);
            tokio::pin!(connection);
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = never_asked(&has_asked, headers_within) => return,
                () = stop.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "connection ended");
            }
        });
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

/// Ends when a peer has asked nothing for so long: hyper's own timer starts only once it knows the protocol.
async fn never_asked(has_asked: &AtomicBool, headers_within: Duration) {
    tokio::time::sleep(headers_within).await;
    if has_asked.load(Ordering::Relaxed) {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    async fn start(
        connections_max: usize,
    ) -> (std::net::SocketAddr, CancellationToken, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = Router::new()
            .route("/", get(|ConnectInfo(Peer(peer)): ConnectInfo<Peer>| async move { peer.to_string() }));
        let stop = CancellationToken::new();
        let serving = serve(listener, app, connections_max, Duration::from_millis(300), stop.clone());
        (address, stop, tokio::spawn(serving))
    }

    async fn ask(stream: &mut TcpStream) -> String {
        stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    // A peer that never ends its headers, or sends none, is cut off; the only slot is then free for the next one.
    #[tokio::test]
    async fn slow_headers_do_not_hold_the_door() {
        let (address, _stop, _serving) = start(1).await;
        for opening in ["", "GET / HTTP/1.1\r\nhost: a\r\nx-slow: "] {
            let mut slow = TcpStream::connect(address).await.unwrap();
            slow.write_all(opening.as_bytes()).await.unwrap();
            let mut next = TcpStream::connect(address).await.unwrap();
            let own = next.local_addr().unwrap().to_string();
            let answer =
                tokio::time::timeout(Duration::from_secs(5), ask(&mut next)).await.expect("a free slot");
            assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with(&own), "{opening:?}: {answer}");
        }
    }

    // Stopping ends idle connections and the loop.
    #[tokio::test]
    async fn stopping_ends_it() {
        let (address, stop, serving) = start(8).await;
        let idle = TcpStream::connect(address).await.unwrap();
        stop.cancel();
        tokio::time::timeout(Duration::from_secs(5), serving).await.expect("ends").unwrap();
        drop(idle);
        assert!(TcpStream::connect(address).await.is_err());
    }
}
