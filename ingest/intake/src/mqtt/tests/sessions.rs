//! Sessions over real sockets: what survives a reconnect, in both versions.

use tokio::net::TcpStream;

use super::super::inbound::Version;
use super::raw::{CONNECT_V4, CONNECT_V5, Raw, message, publish, rename, subscribe};
use super::*;
use crate::testing::{all_ok, frame, pipeline};

/// CONNECT without clean start; v5 asks for an expiry of 256 s.
fn returning(version: Version) -> Vec<u8> {
    match version {
        Version::V4 => {
            let mut connect = CONNECT_V4.to_vec();
            connect[9] = 0;
            connect
        }
        Version::V5 => b"\x10\x13\x00\x04MQTT\x05\x00\x00\x3c\x05\x11\x00\x00\x01\x00\x00\x01a".to_vec(),
    }
}

async fn connect(server: &Server, connect: &[u8]) -> (Raw, bool) {
    let mut raw = Raw { stream: TcpStream::connect(server.addr).await.unwrap() };
    raw.send(connect).await;
    let connack = raw.packet().await.unwrap();
    assert_eq!(connack[3], 0, "refused: {connack:?}");
    (raw, connack[2] == 1)
}

/// A subscriber that drops off gets what happened meanwhile when it is back, without subscribing again; a clean start
/// forgets it. Session present is 1 exactly when there is one.
#[tokio::test]
async fn a_subscription_survives_a_reconnect() {
    for version in [Version::V4, Version::V5] {
        let (admission, inbox) = queue();
        pipeline(inbox, all_ok());
        let server = start(options(), admission, None).await;
        let (mut raw, present) = connect(&server, &returning(version)).await;
        assert!(!present);
        raw.send(&subscribe(version, 1, 1)).await;
        raw.packet().await.unwrap();
        drop(raw);
        server.wait_for("disconnects", &["io"], 1).await;
        let mut device = Raw::connect(&server, &rename(CONNECT_V5)).await;
        for seq in 3..6 {
            device.send(&publish(Version::V5, 1, Some(1), &frame(1, seq))).await;
            device.packet().await.unwrap();
        }
        let (mut raw, present) = connect(&server, &returning(version)).await;
        assert!(present);
        let told = raw.packet().await.unwrap();
        assert_eq!(message(&told, version, true)["acked_to"]["seq"], 5, "merged into one");
        // Not acknowledged, so it is said again.
        drop(raw);
        server.wait_for("disconnects", &["io"], 2).await;
        let (mut raw, present) = connect(&server, &returning(version)).await;
        assert!(present);
        assert_eq!(message(&raw.packet().await.unwrap(), version, true)["acked_to"]["seq"], 5);
        drop(raw);
        let clean = if version == Version::V4 { CONNECT_V4 } else { CONNECT_V5 };
        assert!(!connect(&server, clean).await.1);
        assert!(!connect(&server, &returning(version)).await.1, "and it is gone for good");
    }
}

/// The expiry is limited by the server's own, which is what CONNACK says.
#[tokio::test]
async fn the_expiry_is_limited_and_told() {
    let (admission, _inbox) = queue();
    let mut options = options();
    options.session_expiry_s_max = 100;
    options.sessions_max = 1;
    let server = start(options, admission, None).await;
    let mut raw = Raw { stream: TcpStream::connect(server.addr).await.unwrap() };
    raw.send(&returning(Version::V5)).await;
    let connack = raw.packet().await.unwrap();
    assert!(connack.windows(5).any(|window| window == [17, 0, 0, 0, 100]), "{connack:?}");
    let mut second = Raw { stream: TcpStream::connect(server.addr).await.unwrap() };
    second.send(&rename(&returning(Version::V5))).await;
    let connack = second.packet().await.unwrap();
    assert!(connack.windows(5).any(|window| window == [17, 0, 0, 0, 0]), "no room left: {connack:?}");
}
