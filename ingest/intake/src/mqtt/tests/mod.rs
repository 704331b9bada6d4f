//! The endpoint over real sockets, against a pipeline that answers as told.

mod clients;
mod hostile;
mod leases;
mod limits;
mod paho;
mod raw;
mod sessions;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use schemas_identity::ShortId;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::admission::{Admission, AdmissionOptions, Allowed, Inbox};
use crate::metrics::Metrics;
use crate::testing::device_id;
use crate::tls::ClientTls;

/// Admits all without a name; `device-1` with password `token` for device 1 only; a certificate for its own device;
/// nobody else.
struct Names;

impl Gatekeeper for Names {
    fn admit(&self, credentials: &Credentials<'_>) -> Result<Admittance, ()> {
        if let Some(certified) = credentials.certificate {
            return Ok(only(certified.key().short_id()));
        }
        match (credentials.username, credentials.password) {
            (None, None) => Ok(Admittance { allowed: Allowed::All, identity: None, lease: Lease::FOREVER }),
            (Some("device-1"), Some(b"token")) => Ok(only(device_id(1))),
            _ => Err(()),
        }
    }
}

/// A client that is one device.
fn only(device: ShortId) -> Admittance {
    let allowed = Allowed::Only(Arc::new([device].into_iter().collect()));
    Admittance { allowed, identity: Some(device.to_string()), lease: Lease::FOREVER }
}

/// A running endpoint.
struct Server {
    addr: SocketAddr,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
    served: JoinHandle<()>,
}

impl Server {
    fn count(&self, metric: &str, labels: &[&str]) -> u64 {
        self.metrics.count(&format!("vitalog_intake_{metric}_total"), labels)
    }

    /// Waits until a counter has reached `least`.
    async fn wait_for(&self, metric: &str, labels: &[&str], least: u64) {
        for _ in 0..500 {
            if self.count(metric, labels) >= least {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{metric} {labels:?} stayed at {}", self.count(metric, labels));
    }
}

fn options() -> MqttOptions {
    let mut options = MqttOptions::new(Arc::new(Metrics::new().unwrap()));
    options.clock = Arc::new(|| 42);
    options
}

async fn start(options: MqttOptions, admission: Admission, tls: Option<ClientTls>) -> Server {
    start_with(Arc::new(Names), options, admission, tls).await
}

async fn start_with(
    gatekeeper: Arc<dyn Gatekeeper>,
    options: MqttOptions,
    admission: Admission,
    tls: Option<ClientTls>,
) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (metrics, stop) = (Arc::clone(&options.metrics), CancellationToken::new());
    let endpoint = Endpoint::new(admission, gatekeeper, options);
    let stopping = stop.clone();
    let served = tokio::spawn(async move { endpoint.serve(listener, tls, stopping).await });
    Server { addr, metrics, stop, served }
}

fn queue() -> (Admission, Inbox) {
    Admission::new(AdmissionOptions::default())
}
