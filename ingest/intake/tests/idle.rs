//! What idle connections cost. A process of its own, because it measures the memory of the process.

#![expect(clippy::unwrap_used, reason = "a panic in a test is its message")]

use std::net::SocketAddr;
use std::sync::Arc;

use ingest_intake::mqtt::{Admittance, Credentials, Endpoint, Gatekeeper, Lease, MqttOptions};
use ingest_intake::{Admission, AdmissionOptions, Allowed, Metrics};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

struct Everybody;

impl Gatekeeper for Everybody {
    fn admit(&self, _credentials: &Credentials<'_>) -> Result<Admittance, ()> {
        Ok(Admittance { allowed: Allowed::All, identity: None, lease: Lease::FOREVER })
    }
}

/// Resident memory of this process in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1_024
}

async fn packet(stream: &mut TcpStream) -> Vec<u8> {
    let mut header = [0; 2];
    stream.read_exact(&mut header).await.unwrap();
    let mut body = vec![0; usize::from(header[1])];
    stream.read_exact(&mut body).await.unwrap();
    body
}

/// Connects with a session that may outlive the connection, subscribes, and publishes 4 KiB that are no frame.
async fn device(addr: SocketAddr, number: u32) -> TcpStream {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let mut connect = b"\x10\x1a\x00\x04MQTT\x05\x02\x00\x3c\x05\x11\x00\x00\x01\x00\x00\x08".to_vec();
    connect.extend(format!("{number:08}").bytes());
    stream.write_all(&connect).await.unwrap();
    assert_eq!(packet(&mut stream).await[1], 0, "admitted");
    let mut subscribe = b"\x82\x23\x00\x01\x00\x00\x1d".to_vec();
    subscribe.extend(format!("v1/d/{number:016x}/verdict\x01").bytes());
    stream.write_all(&subscribe).await.unwrap();
    assert_eq!(packet(&mut stream).await.last(), Some(&1), "granted");
    let mut publish = b"\x32\xa0\x20\x00\x1c".to_vec();
    publish.extend(format!("v1/d/{number:016x}/frames").bytes());
    publish.extend([0, 7, 0]);
    publish.resize(3 + 0x1020, 0xff);
    stream.write_all(&publish).await.unwrap();
    // A PUBACK with its reason and a verdict message, in whichever order.
    let (one, two) = (packet(&mut stream).await, packet(&mut stream).await);
    assert!(one.starts_with(&[0, 7]) || two.starts_with(&[0, 7]), "acknowledged");
    stream
}

/// An idle connection that has subscribed and published costs at most 20 KiB of this process, its client's side
/// included, so 10,000 of them stay far below 512 MB.
#[tokio::test]
async fn idle_connections_are_cheap() {
    const CONNECTIONS: u32 = 2_000;
    const BYTES_MAX: u64 = 20 * 1_024;
    let (admission, _inbox) = Admission::new(AdmissionOptions::default());
    let endpoint =
        Endpoint::new(admission, Arc::new(Everybody), MqttOptions::new(Arc::new(Metrics::new().unwrap())));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let stopping = stop.clone();
    let served = tokio::spawn(async move { endpoint.serve(listener, None, stopping).await });
    let mut open = Vec::new();
    let mut before = 0;
    for number in 0..CONNECTIONS + 100 {
        // The first ones warm up whatever is shared.
        if number == 100 {
            before = resident();
        }
        open.push(device(addr, number).await);
    }
    let each = resident().saturating_sub(before) / u64::from(CONNECTIONS);
    eprintln!("{each} bytes per idle connection, both ends");
    assert!(each <= BYTES_MAX, "{each} bytes per idle connection");
    drop(open);
    stop.cancel();
    served.await.unwrap();
}
