//! Byte by byte: what goes over the wire in both versions.

use bytes::Bytes;
use schemas_frame::Code;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::admission::{Drain, Submission};
use crate::testing::{Judge, all_ok, frame, pipeline, reply_to};

pub(super) const CONNECT_V4: &[u8] = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01a";
pub(super) const CONNECT_V5: &[u8] = b"\x10\x0e\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x01a";
const PING: &[u8] = &[0xc0, 0];

/// A client that reads and writes packets as bytes.
pub(super) struct Raw {
    pub(super) stream: TcpStream,
}

impl Raw {
    pub(super) async fn connect(server: &Server, connect: &[u8]) -> Self {
        let mut raw = Raw { stream: TcpStream::connect(server.addr).await.unwrap() };
        raw.send(connect).await;
        let connack = raw.packet().await.unwrap();
        assert_eq!(connack[0], 0x20);
        assert_eq!(connack[3], 0, "refused: {connack:?}");
        raw
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// The next packet; `None` when the server has closed.
    pub(super) async fn packet(&mut self) -> Option<Vec<u8>> {
        let read = async {
            let mut packet = vec![self.stream.read_u8().await.ok()?];
            let (mut len, mut shift) = (0, 0);
            loop {
                let byte = self.stream.read_u8().await.ok()?;
                packet.push(byte);
                len |= usize::from(byte & 0x7f) << shift;
                shift += 7;
                if byte & 0x80 == 0 {
                    break;
                }
            }
            let mut body = vec![0; len];
            self.stream.read_exact(&mut body).await.ok()?;
            packet.extend(body);
            Some(packet)
        };
        tokio::time::timeout(Duration::from_secs(10), read).await.expect("a packet or the end within 10 s")
    }

    /// Nothing comes for a while.
    pub(super) async fn silent(&mut self) {
        let read = tokio::time::timeout(Duration::from_millis(50), self.stream.read_u8()).await;
        assert!(read.is_err(), "{read:?}");
    }
}

pub(super) fn publish(version: Version, device: u8, pkid: Option<u16>, payload: &[u8]) -> Vec<u8> {
    publish_to(version, &format!("v1/d/{}/frames", device_id(device)), pkid, payload)
}

use super::super::inbound::Version;

fn publish_to(version: Version, topic: &str, pkid: Option<u16>, payload: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend((topic.len() as u16).to_be_bytes());
    body.extend(topic.as_bytes());
    body.extend(pkid.map(u16::to_be_bytes).into_iter().flatten());
    body.extend((version == Version::V5).then_some(0));
    body.extend(payload);
    packet(if pkid.is_some() { 0x32 } else { 0x30 }, &body)
}

pub(super) fn subscribe(version: Version, device: u8, qos: u8) -> Vec<u8> {
    let topic = format!("v1/d/{}/verdict", device_id(device));
    let mut body = vec![0, 77];
    body.extend((version == Version::V5).then_some(0));
    body.extend((topic.len() as u16).to_be_bytes());
    body.extend(topic.as_bytes());
    body.push(qos);
    packet(0x82, &body)
}

pub(super) fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![first];
    let mut len = body.len();
    loop {
        let more = len >= 128;
        packet.push((len % 128) as u8 | if more { 0x80 } else { 0 });
        len /= 128;
        if !more {
            break;
        }
    }
    packet.extend(body);
    packet
}

/// The JSON of a verdict message.
pub(super) fn message(packet: &[u8], version: Version, has_pkid: bool) -> serde_json::Value {
    assert_eq!(packet[0] & 0xf0, 0x30, "{packet:?}");
    let header = if packet[1] & 0x80 == 0 { 2 } else { 3 };
    let topic_len = usize::from(u16::from_be_bytes([packet[header], packet[header + 1]]));
    let at = header + 2 + topic_len + if has_pkid { 2 } else { 0 } + usize::from(version == Version::V5);
    serde_json::from_slice(&packet[at..]).unwrap()
}

async fn take(inbox: Inbox) -> (Inbox, Vec<Submission>) {
    let mut inbox = inbox;
    let mut got = Vec::new();
    inbox.recv_many(&mut got, Drain::default()).await;
    (inbox, got)
}

/// v5 clients are told at once what is not available.
#[tokio::test]
async fn connack_tells_the_limits() {
    let (admission, _inbox) = queue();
    let server = start(options(), admission, None).await;
    let mut raw = Raw { stream: TcpStream::connect(server.addr).await.unwrap() };
    raw.send(CONNECT_V5).await;
    let connack = raw.packet().await.unwrap();
    let properties = &connack[5..];
    for expected in [
        &[17, 0, 0, 0, 0][..], // session expiry 0
        &[33, 2, 0],           // receive maximum 512
        &[36, 1],              // maximum QoS 1
        &[37, 0],              // retain unavailable
        &[39, 0, 16, 0, 0],    // maximum packet size 1 MiB
        &[34, 1, 0],           // topic alias maximum 256
        &[40, 0],              // wildcards unavailable
        &[41, 0],              // subscription identifiers unavailable
        &[42, 0],              // shared subscriptions unavailable
    ] {
        assert!(
            properties.windows(expected.len()).any(|window| window == expected),
            "{expected:?} in {connack:?}"
        );
    }
    raw.send(PING).await;
    assert_eq!(raw.packet().await.unwrap(), [0xd0, 0]);
}

/// PUBACK is withheld until the pipeline has answered, and many publishes wait at a time.
#[tokio::test]
async fn puback_means_decided() {
    for (version, connect) in [(Version::V4, CONNECT_V4), (Version::V5, CONNECT_V5)] {
        let (admission, inbox) = queue();
        let server = start(options(), admission, None).await;
        let mut raw = Raw::connect(&server, connect).await;
        for pkid in 1..=20 {
            raw.send(&publish(version, 1, Some(pkid), &frame(1, u64::from(pkid)))).await;
        }
        let (mut inbox, mut got) = take(inbox).await;
        while got.len() < 20 {
            inbox.recv_many(&mut got, Drain::default()).await;
        }
        assert!(got.iter().all(|submission| submission.via.topic_device == Some(device_id(1))));
        raw.silent().await;
        // Answered backwards, acknowledged in order of arrival.
        for submission in got.into_iter().rev() {
            let reply = reply_to(&submission, &all_ok());
            submission.reply.send(reply);
        }
        for pkid in 1..=20 {
            assert_eq!(raw.packet().await.unwrap(), [0x40, 2, 0, pkid]);
        }
    }
}

/// v5 tells the reason in PUBACK; 3.1.1 acknowledges and the verdict topic tells.
#[tokio::test]
async fn refusals_are_told() {
    let judge: Judge = Arc::new(|frame| match frame.seq() {
        1 => Code::SigBad,
        2 => Code::Equivocation,
        _ => Code::Dup,
    });
    for (version, connect) in [(Version::V4, CONNECT_V4), (Version::V5, CONNECT_V5)] {
        let (admission, inbox) = queue();
        pipeline(inbox, Arc::clone(&judge));
        let server = start(options(), admission, None).await;
        let mut raw = Raw::connect(&server, connect).await;
        let mut listener = Raw::connect(&server, &rename(connect)).await;
        listener.send(&subscribe(version, 1, 0)).await;
        assert_eq!(listener.packet().await.unwrap().last(), Some(&0));
        let cases: [(&[u8], u8, &str); 5] = [
            (&frame(1, 1), 0x87, "SIG_BAD"),
            (&frame(1, 2), 0x83, "EQUIVOCATION"),
            (&frame(2, 0), 0x83, "TOPIC_MISMATCH"),
            (b"\xff", 0x99, "DECODE"),
            (&frame(1, 9), 0, "DUP"),
        ];
        for (payload, reason, code) in cases {
            raw.send(&publish(version, 1, Some(5), payload)).await;
            let ack = raw.packet().await.unwrap();
            match (version, reason) {
                (Version::V5, 1..) => assert_eq!(ack[4], reason, "{code}"),
                _ => assert_eq!(ack, [0x40, 2, 0, 5]),
            }
            let told = message(&listener.packet().await.unwrap(), version, false);
            assert_eq!(told["exceptions"][0]["code"], code, "{told}");
            assert_eq!(told["server_time"], 42);
        }
    }
}

/// The same CONNECT with another client id.
pub(super) fn rename(connect: &[u8]) -> Vec<u8> {
    let mut other = connect.to_vec();
    *other.last_mut().unwrap() = b'b';
    other
}

/// Verdicts go to every listener of the device, of either version, at the QoS it asked for; latecomers get the last.
#[tokio::test]
async fn verdicts_reach_listeners() {
    let (admission, inbox) = queue();
    pipeline(inbox, all_ok());
    let server = start(options(), admission, None).await;
    let mut device = Raw::connect(&server, CONNECT_V4).await;
    let mut early = Raw::connect(&server, &rename(CONNECT_V5)).await;
    early.send(&subscribe(Version::V5, 1, 1)).await;
    assert_eq!(early.packet().await.unwrap(), [0x90, 4, 0, 77, 0, 1]);
    device.send(&publish(Version::V4, 1, None, &frame(1, 3))).await;
    let told = early.packet().await.unwrap();
    assert_eq!(told[0], 0x32, "QoS 1, not retained");
    let json = message(&told, Version::V5, true);
    let acked = serde_json::json!({"boot": "0707070707070707", "seq": 3});
    assert_eq!(json, serde_json::json!({"acked_to": acked, "gaps": [], "exceptions": [], "server_time": 42}));

    device.send(&subscribe(Version::V4, 1, 0)).await;
    assert_eq!(device.packet().await.unwrap(), [0x90, 3, 0, 77, 0]);
    let late = message(&device.packet().await.unwrap(), Version::V4, false);
    assert_eq!(late["acked_to"]["seq"], 3);
}

/// A sequence in one publish is one acknowledgement and one verdict message.
#[tokio::test]
async fn a_sequence_in_one_publish() {
    let (admission, inbox) = queue();
    pipeline(inbox, all_ok());
    let server = start(options(), admission, None).await;
    let mut raw = Raw::connect(&server, CONNECT_V4).await;
    raw.send(&subscribe(Version::V4, 1, 0)).await;
    raw.packet().await.unwrap();
    let frames: Vec<Bytes> = (0..100).map(|seq| frame(1, seq)).collect();
    raw.send(&publish(Version::V4, 1, Some(1), &frames.concat())).await;
    assert_eq!(raw.packet().await.unwrap(), [0x40, 2, 0, 1]);
    assert_eq!(message(&raw.packet().await.unwrap(), Version::V4, false)["acked_to"]["seq"], 99);
    assert_eq!(server.count("frames", &["mqtt", "OK"]), 100);
}

/// Who is not admitted is told in CONNACK, in the words of the version; a device stays with its own topics.
#[tokio::test]
async fn identities_are_bound_to_their_devices() {
    let (admission, inbox) = queue();
    pipeline(inbox, all_ok());
    let server = start(options(), admission, None).await;
    let login = |version: u8, password: &str| {
        let mut body = b"\x00\x04MQTT".to_vec();
        body.extend([version, 0b1100_0010, 0, 60]);
        body.extend((version == 5).then_some(0));
        for text in ["watch", "device-1", password] {
            body.extend([0, text.len() as u8]);
            body.extend(text.as_bytes());
        }
        packet(0x10, &body)
    };
    for (version, answer) in [(4, [0x20, 2, 0, 5].to_vec()), (5, [0x20, 3, 0, 0x87, 0].to_vec())] {
        let mut raw = Raw { stream: TcpStream::connect(server.addr).await.unwrap() };
        raw.send(&login(version, "wrong")).await;
        assert_eq!(raw.packet().await.unwrap(), answer);
        assert_eq!(raw.packet().await, None);
    }
    server.wait_for("connections_refused", &["mqtt", "credentials"], 2).await;

    let mut raw = Raw::connect(&server, &login(5, "token")).await;
    raw.send(&publish(Version::V5, 1, Some(1), &frame(1, 0))).await;
    assert_eq!(raw.packet().await.unwrap(), [0x40, 2, 0, 1]);
    raw.send(&publish(Version::V5, 2, Some(2), &frame(2, 0))).await;
    assert_eq!(raw.packet().await.unwrap(), [0x40, 4, 0, 2, 0x87, 0]);
    raw.send(&subscribe(Version::V5, 2, 0)).await;
    assert_eq!(raw.packet().await.unwrap(), [0x90, 4, 0, 77, 0, 0x87]);
}

/// A second connection of the same client ends the first, which is told so.
#[tokio::test]
async fn the_same_client_takes_over() {
    let (admission, _inbox) = queue();
    let server = start(options(), admission, None).await;
    let mut first = Raw::connect(&server, CONNECT_V5).await;
    let mut second = Raw::connect(&server, CONNECT_V5).await;
    assert_eq!(first.packet().await.unwrap()[2], 0x8e);
    assert_eq!(first.packet().await, None);
    second.send(PING).await;
    assert_eq!(second.packet().await.unwrap(), [0xd0, 0]);
}

/// The same client id under two identities is two clients.
#[tokio::test]
async fn nobody_takes_over_a_strangers_connection() {
    let (admission, _inbox) = queue();
    let server = start(options(), admission, None).await;
    let mut anybody = Raw::connect(&server, CONNECT_V4).await;
    let login = b"\x10\x1e\x00\x04MQTT\x04\xc2\x00\x3c\x00\x01a\x00\x08device-1\x00\x05token";
    let mut device = Raw::connect(&server, login).await;
    for raw in [&mut anybody, &mut device] {
        raw.send(PING).await;
        assert_eq!(raw.packet().await.unwrap(), [0xd0, 0]);
    }
}

/// Other protocol versions are refused in words their clients understand.
#[tokio::test]
async fn other_versions_are_refused() {
    let (admission, _inbox) = queue();
    let server = start(options(), admission, None).await;
    let cases: [(&[u8], &[u8]); 2] = [
        (b"\x10\x0f\x00\x06MQIsdp\x03\x02\x00\x3c\x00\x01a", &[0x20, 2, 0, 1]),
        (b"\x10\x0d\x00\x04MQTT\x06\x02\x00\x3c\x00\x01a", &[0x20, 3, 0, 0x84, 0]),
    ];
    for (connect, answer) in cases {
        let mut raw = Raw { stream: TcpStream::connect(server.addr).await.unwrap() };
        raw.send(connect).await;
        assert_eq!(raw.packet().await.unwrap(), answer);
        assert_eq!(raw.packet().await, None);
    }
}
