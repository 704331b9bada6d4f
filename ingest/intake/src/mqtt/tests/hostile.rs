//! Whatever bytes come, nothing panics, the connection ends or waits, and the endpoint goes on serving.

use bytes::BytesMut;
use proptest::collection::vec;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::super::guard::{Framing, frame as framing};
use super::super::inbound::{Version, decode};
use super::super::session::{Action, Admitted, Limits, Session};
use super::raw::{CONNECT_V4, CONNECT_V5, Raw, publish, subscribe};
use super::*;
use crate::testing::{all_ok, frame, pipeline};

const LIMITS: Limits = Limits {
    packet_bytes_max: 4_096,
    receive_max: 8,
    subscriptions_max: 8,
    keep_alive_s_max: 60,
    topic_alias_max: 4,
};

/// Feeds bytes through guard, codec and session as the connection does, deciding each publish at once.
fn feed(bytes: &[u8]) {
    let mut buffer = BytesMut::from(bytes);
    let mut session = Session::new(LIMITS, "x".into());
    while let Ok(Framing::Whole { kind, header, total }) = framing(&buffer, session.greeted(), 4_096) {
        assert!(total > 0, "progress");
        let packet = buffer.split_to(total);
        let Ok(packet) = decode(kind, header, packet, session.version()) else { return };
        let mut actions = session.on(packet);
        while let Some(action) = actions.pop() {
            match action {
                Action::Authenticate(_) => {
                    let allowed = Allowed::All;
                    let answer = Admitted { allowed, resumed: None, session_expiry_s: 9 };
                    actions.extend(session.admitted(Ok(answer)));
                }
                Action::Take { device, payload } => {
                    let cut = crate::cut::cut(&payload, Some(device), 64);
                    assert!(cut.is_ok() || payload.len() >= 64);
                    actions.extend(session.decided(super::super::outbound::Ack::Accepted, None));
                }
                Action::Send(packet) => {
                    let version = session.version().unwrap_or(Version::V4);
                    super::super::outbound::encode(&packet, version, Some(64), &mut BytesMut::new());
                }
                Action::End(_) => return,
                _ => {}
            }
        }
    }
}

/// A plausible stream: CONNECT, then the packets clients send, in both versions.
fn stream(version: Version) -> Vec<u8> {
    let connect = if version == Version::V4 { CONNECT_V4 } else { CONNECT_V5 };
    let mut bytes = connect.to_vec();
    bytes.extend(subscribe(version, 1, 1));
    bytes.extend(publish(version, 1, Some(1), &frame(1, 0)));
    bytes.extend(publish(version, 1, None, &frame(1, 1)));
    bytes.extend([0x40, 2, 0, 1, 0xc0, 0]);
    bytes.extend(unsubscribe(version));
    bytes.extend([0xe0, 0]);
    bytes
}

fn unsubscribe(version: Version) -> Vec<u8> {
    let mut packet = subscribe(version, 1, 0);
    packet.pop();
    packet[0] = 0xa2;
    packet[1] -= 1;
    packet
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Random bytes behind a valid or invalid CONNECT.
    #[test]
    fn random_bytes_never_panic(noise in vec(any::<u8>(), 0..300), start in 0..3usize) {
        let connect = [&b""[..], CONNECT_V4, CONNECT_V5][start];
        feed(&[connect, &noise].concat());
    }

    /// A plausible stream with some bytes changed, cut or doubled.
    #[test]
    fn mutated_packets_never_panic(
        five: bool,
        edits in vec((any::<prop::sample::Index>(), any::<u8>(), 0..3u8), 1..6),
    ) {
        let mut bytes = stream(if five { Version::V5 } else { Version::V4 });
        for (at, byte, edit) in edits {
            let at = at.index(bytes.len());
            match edit {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => { bytes.remove(at); }
            }
        }
        feed(&bytes);
    }

    /// Packets of every type with a right length and a random body reach the codec itself.
    #[test]
    fn random_bodies_never_panic(five: bool, first: u8, body in vec(any::<u8>(), 0..120)) {
        let connect = if five { CONNECT_V5 } else { CONNECT_V4 };
        feed(&[connect, &[first, body.len() as u8], &body].concat());
        feed(&[&[0x10, body.len() as u8], &body[..]].concat());
    }
}

/// The plausible streams are plausible: unmutated they run to their DISCONNECT.
#[test]
fn the_corpus_is_valid() {
    for version in [Version::V4, Version::V5] {
        let mut bytes = BytesMut::from(&stream(version)[..]);
        let mut packets = 0;
        while let Framing::Whole { kind, header, total } = framing(&bytes, packets > 0, 4_096).unwrap() {
            let known = (packets > 0).then_some(version);
            decode(kind, header, bytes.split_to(total), known).unwrap();
            packets += 1;
        }
        assert_eq!((packets, bytes.len()), (8, 0));
    }
}

/// Over real sockets: after many hostile connections the endpoint serves the next good one, and no place is lost.
#[tokio::test]
async fn the_endpoint_survives_hostile_connections() {
    let (admission, inbox) = queue();
    pipeline(inbox, all_ok());
    let server = start(options(), admission, None).await;
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    for round in 0..200_u32 {
        let mut bytes = stream(if round % 2 == 0 { Version::V4 } else { Version::V5 });
        for _ in 0..3 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let at = (seed >> 33) as usize % bytes.len();
            bytes[at] = (seed >> 24) as u8;
        }
        let mut stream = TcpStream::connect(server.addr).await.unwrap();
        // The server may close in the middle: that is its right.
        let _sent = stream.write_all(&bytes).await;
        let _done = stream.shutdown().await;
        let mut waste = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut waste)).await;
        assert!(ended.is_ok(), "the connection did not end");
    }
    let mut raw = Raw::connect(&server, CONNECT_V5).await;
    raw.send(&publish(Version::V5, 1, Some(1), &frame(1, 0))).await;
    assert_eq!(raw.packet().await.unwrap(), [0x40, 2, 0, 1]);
    for _ in 0..200 {
        if server.metrics.connections_open.get() == 1 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{} places lost", server.metrics.connections_open.get() - 1);
}
