//! Whatever bytes come, nothing panics, the connection ends or waits, and the endpoint goes on serving.

use bytes::BytesMut;
use proptest::collection::vec;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::super::fuzz;
use super::super::guard::{Framing, frame as framing};
use super::super::inbound::{Version, decode};
use super::raw::{CONNECT_V4, CONNECT_V5, Raw, publish, subscribe};
use super::*;
use crate::testing::{all_ok, frame, pipeline};

/// Feeds a stream whole and in pieces, decided at once and late.
fn feed(stream: &[u8]) {
    for control in [0xf8, 0x00, 0x01, 0x06] {
        fuzz::feed(&[&[control], stream].concat());
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

/// Writes the plausible streams where the fuzzer begins (tests/fuzz/corpus/mqtt), if VITALOG_CORPUS names the folder.
#[test]
fn the_corpus_is_written() {
    let Some(folder) = std::env::var_os("VITALOG_CORPUS") else { return };
    for (version, name) in [(Version::V4, "v4"), (Version::V5, "v5")] {
        for control in [0_u8, 1, 6, 0xf8] {
            let path = std::path::Path::new(&folder).join(format!("{name}-{control:02x}"));
            std::fs::write(path, [&[control][..], &stream(version)].concat()).unwrap();
        }
    }
    // What the streams do not have: an alias, an expiry, a will, credentials, a long DISCONNECT.
    let connect = b"\x10\x2b\x00\x04MQTT\x05\xc6\x00\x3c\x0b\x11\x00\x00\x01\x00\x21\x00\x02\x22\x00\x04\x00\x01a\x00\x00\x01t\x00\x01w\x00\x01u\x00\x01p".to_vec();
    let mut connect = connect;
    connect[1] = (connect.len() - 2) as u8;
    let topic = format!("v1/d/{}/frames", device_id(1));
    let mut body = [&[0, topic.len() as u8][..], topic.as_bytes(), &[0, 1, 3, 35, 0, 1]].concat();
    body.extend(frame(1, 0).iter());
    let aliased = [&[0x32, (body.len() % 128) as u8 | 0x80, (body.len() / 128) as u8], &body[..]].concat();
    let again = [0x32, 8, 0, 0, 0, 2, 3, 35, 0, 1];
    let bye = [0xe0, 7, 0, 5, 17, 0, 0, 0, 1];
    let rich = [&[0xf8][..], &connect, &aliased, &again, &bye].concat();
    assert_eq!(fuzz::feed(&rich).packets, 4);
    std::fs::write(std::path::Path::new(&folder).join("v5-rich"), rich).unwrap();
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
        let run = fuzz::feed(&[&[0][..], &stream(version)].concat());
        assert_eq!((run.packets, run.taken), (8, 2));
        assert!(run.answered > 100, "{run:?}");
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
