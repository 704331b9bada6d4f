//! The publisher's side of the Eclipse Paho interoperability suite (paho.mqtt.testing, `client_test.py` for 3.1.1 and
//! `client_test5.py` for 5), case by case in our own words, against an endpoint that is not a broker.
//!
//! | case of the suite | here |
//! |---|---|
//! | test_basic | [`basic`] |
//! | test_zero_length_clientid, test_assigned_clientid | [`client_ids`] |
//! | test_will_message, test_will_delay | [`a_will_is_taken_and_ignored`] |
//! | test_overlapping_subscriptions | [`one_filter_twice_is_one_message`] |
//! | test_unsubscribe | [`unsubscribing_ends_the_messages`] |
//! | test_subscribe_failure, test_dollar_topics, test_shared_subscriptions | [`subscriptions_that_are_refused`] |
//! | test_subscribe_options | [`subscribe_options`] |
//! | test_subscribe_identifiers | [`subscription_identifiers_are_refused`] |
//! | test_session_expiry | [`sessions_expire`] |
//! | test_offline_message_queueing, test_redelivery_on_reconnect | `sessions::a_subscription_survives_a_reconnect` |
//! | test_keepalive | `limits::silence_is_ended` |
//! | test_server_keep_alive | [`the_servers_keep_alive`] |
//! | test_flow_control1 | [`the_clients_receive_maximum`] |
//! | test_flow_control2 | [`the_servers_receive_maximum`] |
//! | test_maximum_packet_size | [`maximum_packet_sizes`] |
//! | test_client_topic_alias | [`aliases_of_the_client`] |
//! | test_server_topic_alias, test_request_response | [`what_a_client_offers_is_not_used`] |
//! | test_payload_format, test_publication_expiry, test_user_properties | [`properties_of_a_publish_change_nothing`] |
//! | (redelivery by the client) | [`a_repeated_publish_is_answered_again`] |
//!
//! Out of scope, because nothing is passed from one client to another here: delivery at QoS 2 (told as maximum QoS 1,
//! a QoS 2 publish ends the connection), retained messages (told as unavailable), wildcards, fan-out of a client's own
//! messages, delivery of wills. Who needs them keeps a broker, and the bridge.

use schemas_frame::Code;
use tokio::net::TcpStream;

use super::super::inbound::Version;
use super::raw::{CONNECT_V4, CONNECT_V5, Raw, message, packet, publish, rename, subscribe};
use super::*;
use crate::testing::{Judge, all_ok, frame, pipeline};

const BOTH: [(Version, &[u8]); 2] = [(Version::V4, CONNECT_V4), (Version::V5, CONNECT_V5)];

async fn server() -> Server {
    server_with(options(), all_ok()).await
}

async fn server_with(options: MqttOptions, judge: Judge) -> Server {
    let (admission, inbox) = queue();
    pipeline(inbox, judge);
    start(options, admission, None).await
}

/// A v5 CONNECT with properties.
fn connect5(id: &str, clean: bool, keep_alive_s: u16, properties: &[u8]) -> Vec<u8> {
    let mut body = b"\x00\x04MQTT\x05".to_vec();
    body.push(if clean { 2 } else { 0 });
    body.extend(keep_alive_s.to_be_bytes());
    body.push(properties.len() as u8);
    body.extend(properties);
    body.extend([0, id.len() as u8]);
    body.extend(id.bytes());
    packet(0x10, &body)
}

fn connect4(id: &str, clean: bool) -> Vec<u8> {
    let mut body = b"\x00\x04MQTT\x04".to_vec();
    body.extend([if clean { 2 } else { 0 }, 0, 60, 0, id.len() as u8]);
    body.extend(id.bytes());
    packet(0x10, &body)
}

/// A v5 publish at QoS 1 with properties.
fn publish5(topic: &str, pkid: u16, properties: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut body = (topic.len() as u16).to_be_bytes().to_vec();
    body.extend(topic.bytes());
    body.extend(pkid.to_be_bytes());
    body.push(properties.len() as u8);
    body.extend(properties);
    body.extend(payload);
    packet(0x32, &body)
}

/// SUBSCRIBE (or UNSUBSCRIBE, without options) to several filters.
fn filters(first: u8, version: Version, properties: &[u8], filters: &[(&str, Option<u8>)]) -> Vec<u8> {
    let mut body = vec![0, 9];
    if version == Version::V5 {
        body.push(properties.len() as u8);
        body.extend(properties);
    }
    for (filter, option) in filters {
        body.extend((filter.len() as u16).to_be_bytes());
        body.extend(filter.bytes());
        body.extend(option);
    }
    packet(first, &body)
}

fn frames_topic(device: u8) -> String {
    format!("v1/d/{}/frames", device_id(device))
}

fn verdict_topic(device: u8) -> String {
    format!("v1/d/{}/verdict", device_id(device))
}

/// Connects and returns the CONNACK too.
async fn connack(server: &Server, connect: &[u8]) -> (Raw, Vec<u8>) {
    let mut raw = Raw { stream: TcpStream::connect(server.addr).await.unwrap() };
    raw.send(connect).await;
    let connack = raw.packet().await.unwrap();
    (raw, connack)
}

/// Sends, and expects a v5 DISCONNECT of this reason and then the end.
async fn cut(raw: &mut Raw, bytes: &[u8], reason: u8) {
    raw.send(bytes).await;
    let told = raw.packet().await.unwrap();
    assert_eq!((told[0], told[2]), (0xe0, reason), "{told:?}");
    assert_eq!(raw.packet().await, None);
}

/// Connect, subscribe, publish at QoS 0 and 1, disconnect, and again. A second CONNECT, and QoS 2, end the connection.
#[tokio::test]
async fn basic() {
    let server = server().await;
    for (version, connect) in BOTH {
        for _ in 0..2 {
            let mut raw = Raw::connect(&server, connect).await;
            raw.send(&subscribe(version, 1, 2)).await;
            assert_eq!(raw.packet().await.unwrap().last(), Some(&1), "QoS 2 is granted as 1");
            raw.send(&publish(version, 2, None, &frame(2, 0))).await;
            raw.send(&publish(version, 2, Some(3), &frame(2, 1))).await;
            assert_eq!(raw.packet().await.unwrap()[..4], [0x40, 2, 0, 3]);
            raw.send(&[0xe0, 0]).await;
            assert_eq!(raw.packet().await, None);
        }
        let mut twice = Raw::connect(&server, connect).await;
        let mut exactly_once = Raw::connect(&server, &rename(connect)).await;
        let mut qos2 = publish(version, 1, Some(1), &frame(1, 0));
        qos2[0] = 0x34;
        match version {
            Version::V4 => {
                for (raw, bytes) in [(&mut twice, connect), (&mut exactly_once, &qos2)] {
                    raw.send(bytes).await;
                    assert_eq!(raw.packet().await, None);
                }
            }
            Version::V5 => {
                cut(&mut twice, connect, 0x82).await;
                cut(&mut exactly_once, &qos2, 0x9b).await;
            }
        }
    }
    server.wait_for("frames", &["mqtt", "OK"], 8).await;
}

/// 3.1.1 without an id needs a clean session; v5 gets an id, each its own, and may come back with it.
#[tokio::test]
async fn client_ids() {
    let server = server().await;
    assert_eq!(connack(&server, &connect4("", true)).await.1, [0x20, 2, 0, 0]);
    let (mut refused, answer) = connack(&server, &connect4("", false)).await;
    assert_eq!(answer, [0x20, 2, 0, 2]);
    assert_eq!(refused.packet().await, None);
    let mut assigned = Vec::new();
    for _ in 0..2 {
        let (_, answer) = connack(&server, &connect5("", false, 60, &[17, 0, 0, 0, 60])).await;
        let at = answer.windows(9).position(|window| window[0] == 18 && &window[3..] == b"vitalo").unwrap();
        let len = usize::from(answer[at + 2]);
        assigned.push(String::from_utf8(answer[at + 3..at + 3 + len].to_vec()).unwrap());
    }
    assert_ne!(assigned[0], assigned[1]);
    let (_, answer) = connack(&server, &connect5(&assigned[0], false, 60, &[17, 0, 0, 0, 60])).await;
    assert_eq!(answer[2], 1, "session present");
}

/// A will is counted and never published, in both versions, with its delay or without.
#[tokio::test]
async fn a_will_is_taken_and_ignored() {
    let server = server().await;
    let mut listener = Raw::connect(&server, CONNECT_V5).await;
    listener.send(&subscribe(Version::V5, 1, 1)).await;
    listener.packet().await.unwrap();
    for version in [4, 5] {
        let mut body = b"\x00\x04MQTT".to_vec();
        body.extend([version, 0b0000_1110, 0, 60]);
        body.extend((version == 5).then_some(0));
        body.extend([0, 1, b'w']);
        if version == 5 {
            body.extend([5, 24, 0, 0, 0, 0]);
        }
        let topic = verdict_topic(1);
        body.extend([0, topic.len() as u8]);
        body.extend(topic.bytes());
        body.extend([0, 1, b'x']);
        let (raw, answer) = connack(&server, &packet(0x10, &body)).await;
        assert_eq!(answer[3], 0);
        drop(raw);
    }
    server.wait_for("disconnects", &["io"], 2).await;
    listener.silent().await;
    assert_eq!(server.metrics.wills_ignored.get(), 2);
}

/// The same filter twice is one subscription of the later QoS.
#[tokio::test]
async fn one_filter_twice_is_one_message() {
    let server = server().await;
    for (version, connect) in BOTH {
        let mut raw = Raw::connect(&server, connect).await;
        let topic = verdict_topic(1);
        raw.send(&filters(0x82, version, &[], &[(&topic, Some(0)), (&topic, Some(1))])).await;
        assert!(raw.packet().await.unwrap().ends_with(&[0, 1]));
        // What was said before this connection, if anything.
        while let Ok(Some(_)) = tokio::time::timeout(Duration::from_millis(50), raw.packet()).await {}
        raw.send(&publish(version, 1, None, &frame(1, 0))).await;
        assert_eq!(raw.packet().await.unwrap()[0], 0x32, "once, at QoS 1");
        raw.silent().await;
    }
}

/// After UNSUBSCRIBE nothing comes; v5 is told which filters there were.
#[tokio::test]
async fn unsubscribing_ends_the_messages() {
    let server = server().await;
    for (version, connect) in BOTH {
        let mut raw = Raw::connect(&server, connect).await;
        raw.send(&subscribe(version, 1, 0)).await;
        raw.packet().await.unwrap();
        while let Ok(Some(_)) = tokio::time::timeout(Duration::from_millis(50), raw.packet()).await {}
        let topic = verdict_topic(1);
        raw.send(&filters(0xa2, version, &[], &[(&topic, None), ("never/subscribed", None)])).await;
        let answer = raw.packet().await.unwrap();
        match version {
            Version::V4 => assert_eq!(answer, [0xb0, 2, 0, 9]),
            Version::V5 => assert_eq!(answer, [0xb0, 5, 0, 9, 0, 0, 0x11]),
        }
        raw.send(&publish(version, 1, Some(1), &frame(1, 0))).await;
        assert_eq!(raw.packet().await.unwrap()[0], 0x40);
        raw.silent().await;
    }
}

/// Wildcards, `$` topics, shared subscriptions and other people's topics are refused one by one; the rest is granted.
#[tokio::test]
async fn subscriptions_that_are_refused() {
    let server = server().await;
    let (mine, shared) = (verdict_topic(1), format!("$share/g/{}", verdict_topic(1)));
    let wanted = [
        ("#", Some(1), 0xa2),
        ("v1/d/+/verdict", Some(1), 0xa2),
        ("$SYS/#", Some(0), 0xa2),
        ("$SYS/broker/load", Some(0), 0x87),
        (&shared, Some(1), 0x9e),
        ("test/nosubscribe", Some(2), 0x87),
        (&mine, Some(1), 1),
    ];
    for (version, connect) in BOTH {
        let mut raw = Raw::connect(&server, connect).await;
        let asked: Vec<(&str, Option<u8>)> = wanted.iter().map(|(filter, qos, _)| (*filter, *qos)).collect();
        raw.send(&filters(0x82, version, &[], &asked)).await;
        let answer = raw.packet().await.unwrap();
        let expected: Vec<u8> = wanted
            .iter()
            .map(|(_, _, code)| if version == Version::V4 && *code > 2 { 0x80 } else { *code })
            .collect();
        assert!(answer.ends_with(&expected), "{answer:?}");
    }
}

/// Retain handling decides about the latest verdict; no-local and retain-as-published have nothing to change.
#[tokio::test]
async fn subscribe_options() {
    let server = server().await;
    let mut raw = Raw::connect(&server, CONNECT_V5).await;
    raw.send(&publish(Version::V5, 1, Some(1), &frame(1, 7))).await;
    raw.packet().await.unwrap();
    let topic = verdict_topic(1);
    let (no_local, as_published, if_new, never) = (0b100, 0b1000, 0b01_0000, 0b10_0000);
    for (option, latest) in [(never, false), (if_new, false), (no_local | as_published, true)] {
        raw.send(&filters(0x82, Version::V5, &[], &[(&topic, Some(option))])).await;
        assert_eq!(raw.packet().await.unwrap().last(), Some(&0));
        match latest {
            false => raw.silent().await,
            true => {
                let told = raw.packet().await.unwrap();
                assert_eq!(told[0], 0x30, "not retained");
                assert_eq!(message(&told, Version::V5, false)["acked_to"]["seq"], 7);
            }
        }
    }
}

/// Told as unavailable, so using one ends the connection.
#[tokio::test]
async fn subscription_identifiers_are_refused() {
    let server = server().await;
    let mut raw = Raw::connect(&server, CONNECT_V5).await;
    let with_id = filters(0x82, Version::V5, &[11, 5], &[(&verdict_topic(1), Some(0))]);
    cut(&mut raw, &with_id, 0xa1).await;
}

/// A session is there within its expiry and gone after it; DISCONNECT may end it at once.
#[tokio::test]
async fn sessions_expire() {
    let server = server().await;
    let one_second = connect5("s", false, 60, &[17, 0, 0, 0, 1]);
    let present = async || {
        let (mut raw, answer) = connack(&server, &one_second).await;
        raw.send(&[0xe0, 0]).await;
        assert_eq!(raw.packet().await, None);
        answer[2] == 1
    };
    assert!(!present().await);
    assert!(present().await);
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    assert!(!present().await);
    let (mut raw, answer) = connack(&server, &one_second).await;
    assert_eq!(answer[2], 1);
    raw.send(&[0xe0, 7, 0, 5, 17, 0, 0, 0, 0]).await;
    assert_eq!(raw.packet().await, None);
    assert!(!present().await);
}

/// The keep-alive is imposed only where the client asks for none or for too long a one.
#[tokio::test]
async fn the_servers_keep_alive() {
    let server = server().await;
    for (asked, told) in [(60, None), (0, Some(3_600_u16)), (4_000, Some(3_600))] {
        let (_, answer) = connack(&server, &connect5("k", true, asked, &[])).await;
        let expected = told.map(|told| [&[19][..], &told.to_be_bytes()].concat());
        let found = answer.windows(3).find(|window| window[0] == 19 && window[1] == 0x0e);
        assert_eq!(found.map(<[u8]>::to_vec), expected, "{asked}");
    }
}

/// No more unacknowledged verdicts than the client can take; each PUBACK lets the next one through.
#[tokio::test]
async fn the_clients_receive_maximum() {
    let server = server().await;
    let (mut raw, _) = connack(&server, &connect5("r", true, 60, &[33, 0, 2])).await;
    let topics = [verdict_topic(1), verdict_topic(2), verdict_topic(3)];
    let wanted: Vec<(&str, Option<u8>)> = topics.iter().map(|topic| (topic.as_str(), Some(1))).collect();
    raw.send(&filters(0x82, Version::V5, &[], &wanted)).await;
    raw.packet().await.unwrap();
    let mut device = Raw::connect(&server, CONNECT_V5).await;
    for number in 1..=3 {
        device.send(&publish(Version::V5, number, Some(1), &frame(number, 0))).await;
        device.packet().await.unwrap();
    }
    let (first, _second) = (raw.packet().await.unwrap(), raw.packet().await.unwrap());
    raw.silent().await;
    let at =
        4 + usize::from(first[3 + usize::from(first[1] & 0x80 != 0)]) + usize::from(first[1] & 0x80 != 0);
    raw.send(&[0x40, 2, first[at], first[at + 1]]).await;
    assert_eq!(raw.packet().await.unwrap()[0], 0x32);
    raw.silent().await;
}

/// More unacknowledged publishes than CONNACK allows end the connection.
#[tokio::test]
async fn the_servers_receive_maximum() {
    let (admission, _nobody_answers) = queue();
    let mut options = options();
    options.receive_max = 3;
    let server = start(options, admission, None).await;
    let (mut raw, answer) = connack(&server, CONNECT_V5).await;
    assert!(answer.windows(3).any(|window| window == [33, 0, 3]));
    for pkid in 1..=3 {
        raw.send(&publish(Version::V5, 1, Some(pkid), &frame(1, u64::from(pkid)))).await;
    }
    raw.silent().await;
    cut(&mut raw, &publish(Version::V5, 1, Some(4), &frame(1, 4)), 0x93).await;
}

/// The client's maximum shortens what it is told; ours ends who exceeds it.
#[tokio::test]
async fn maximum_packet_sizes() {
    let mut options = options();
    options.packet_bytes_max = 2_000;
    let server = server_with(options, Arc::new(|_| Code::Dup)).await;
    let (mut raw, answer) = connack(&server, &connect5("m", true, 60, &[39, 0, 0, 0, 200])).await;
    assert!(answer.windows(5).any(|window| window == [39, 0, 0, 7, 0xd0]));
    raw.send(&subscribe(Version::V5, 1, 0)).await;
    raw.packet().await.unwrap();
    let many: Vec<u8> = (0..8).flat_map(|seq| frame(1, seq)).collect();
    raw.send(&publish(Version::V5, 1, Some(1), &many)).await;
    let (one, two) = (raw.packet().await.unwrap(), raw.packet().await.unwrap());
    let told = if one[0] == 0x30 { one } else { two };
    assert!(told.len() <= 200);
    let json = message(&told, Version::V5, false);
    assert_eq!((&json["acked_to"]["seq"], &json["exceptions"]), (&7.into(), &serde_json::json!([])));
    cut(&mut raw, &publish(Version::V5, 1, Some(2), &[0; 2_000]), 0x95).await;
}

/// An alias stands for its topic within the connection; 0, one over the maximum and one not set end it with 0x94.
#[tokio::test]
async fn aliases_of_the_client() {
    let server = server().await;
    let (mut raw, answer) = connack(&server, CONNECT_V5).await;
    assert!(answer.windows(3).any(|window| window == [34, 1, 0]));
    raw.send(&publish5(&frames_topic(1), 1, &[35, 1, 0], &frame(1, 0))).await;
    raw.send(&publish5("", 2, &[35, 1, 0], &frame(1, 1))).await;
    raw.send(&publish5(&frames_topic(2), 3, &[35, 1, 0], &frame(2, 0))).await;
    raw.send(&publish5("", 4, &[35, 1, 0], &frame(2, 1))).await;
    for pkid in 1..=4 {
        assert_eq!(raw.packet().await.unwrap(), [0x40, 2, 0, pkid]);
    }
    drop(raw);
    for (topic, alias) in [(frames_topic(1), [0, 0]), (frames_topic(1), [1, 1]), (String::new(), [1, 0])] {
        let mut raw = Raw::connect(&server, CONNECT_V5).await;
        cut(&mut raw, &publish5(&topic, 1, &[35, alias[0], alias[1]], &frame(1, 2)), 0x94).await;
    }
    server.wait_for("frames", &["mqtt", "OK"], 4).await;
    assert_eq!(server.count("frames", &["mqtt", "OK"]), 4);
}

/// A client that allows aliases and asks for response information gets neither, and is not turned away.
#[tokio::test]
async fn what_a_client_offers_is_not_used() {
    let server = server().await;
    let (mut raw, answer) = connack(&server, &connect5("o", true, 60, &[34, 0, 10, 25, 1])).await;
    assert_eq!(answer[3], 0);
    raw.send(&subscribe(Version::V5, 1, 0)).await;
    raw.packet().await.unwrap();
    for seq in 0..2 {
        raw.send(&publish(Version::V5, 1, None, &frame(1, seq))).await;
        let told = raw.packet().await.unwrap();
        let topic = verdict_topic(1);
        assert!(told.windows(topic.len()).any(|window| window == topic.as_bytes()), "{told:?}");
        assert_eq!(
            message(&told, Version::V5, false)["acked_to"]["seq"],
            seq,
            "with its topic, without properties"
        );
    }
}

/// Payload format, expiry, content type, response topic, correlation data and user properties are read and ignored.
#[tokio::test]
async fn properties_of_a_publish_change_nothing() {
    let server = server().await;
    let mut raw = Raw::connect(&server, CONNECT_V5).await;
    let properties =
        b"\x01\x00\x02\x00\x00\x00\x01\x03\x00\x01c\x08\x00\x01r\x09\x00\x01d\x26\x00\x01k\x00\x01v".to_vec();
    raw.send(&publish5(&frames_topic(1), 1, &properties, &frame(1, 0))).await;
    assert_eq!(raw.packet().await.unwrap(), [0x40, 2, 0, 1]);
}

/// A publish that is sent again (DUP) is decided again and acknowledged again.
#[tokio::test]
async fn a_repeated_publish_is_answered_again() {
    let seen = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let judge: Judge =
        Arc::new(
            move |_| {
                if seen.swap(true, std::sync::atomic::Ordering::SeqCst) { Code::Dup } else { Code::Ok }
            },
        );
    let server = server_with(options(), judge).await;
    for (version, connect) in BOTH {
        let mut raw = Raw::connect(&server, connect).await;
        let mut again = publish(version, 1, Some(1), &frame(1, 0));
        raw.send(&again).await;
        assert_eq!(raw.packet().await.unwrap()[..4], [0x40, 2, 0, 1]);
        again[0] |= 0b1000;
        raw.send(&again).await;
        assert_eq!(raw.packet().await.unwrap()[..4], [0x40, 2, 0, 1]);
    }
    assert_eq!(server.count("frames", &["mqtt", "OK"]), 1);
    assert_eq!(server.count("frames", &["mqtt", "DUP"]), 3);
}
