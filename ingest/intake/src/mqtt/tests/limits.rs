//! Limits, pressure, silence, slowness, shutdown.

use schemas_frame::Code;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::super::inbound::Version;
use super::raw::{CONNECT_V4, CONNECT_V5, Raw, message, publish, rename, subscribe};
use super::*;
use crate::admission::Drain;
use crate::testing::{Judge, all_ok, frame, pipeline, reply_to};

/// Under pressure nothing is acknowledged and nothing is lost; with room again everything is acknowledged.
#[tokio::test]
async fn pressure_withholds_and_recovers() {
    let (admission, mut inbox) = Admission::new(AdmissionOptions { frames_max: 1, bytes_max: u64::MAX });
    let server = start(options(), admission, None).await;
    let mut raw = Raw::connect(&server, CONNECT_V4).await;
    for pkid in 1..=5 {
        raw.send(&publish(Version::V4, 1, Some(pkid), &frame(1, u64::from(pkid)))).await;
    }
    raw.silent().await;
    server.wait_for("pressure", &["mqtt"], 1).await;
    for pkid in 1..=5 {
        let mut got = Vec::new();
        assert_eq!(inbox.recv_many(&mut got, Drain::default()).await, 1);
        let submission = got.remove(0);
        let reply = reply_to(&submission, &all_ok());
        submission.reply.send(reply);
        assert_eq!(raw.packet().await.unwrap(), [0x40, 2, 0, pkid]);
    }
}

/// A pipeline that answers "later" is asked again; the PUBACK waits for the final word.
#[tokio::test]
async fn retry_after_is_not_acknowledged() {
    let (admission, inbox) = queue();
    let tries = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let seen = Arc::clone(&tries);
    let judge: Judge = Arc::new(move |_| match seen.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
        0..3 => Code::RetryAfter,
        _ => Code::Ok,
    });
    pipeline(inbox, judge);
    let server = start(options(), admission, None).await;
    let mut raw = Raw::connect(&server, CONNECT_V5).await;
    raw.send(&publish(Version::V5, 1, Some(1), &frame(1, 0))).await;
    assert_eq!(raw.packet().await.unwrap(), [0x40, 2, 0, 1]);
    assert_eq!(tries.load(std::sync::atomic::Ordering::SeqCst), 4);
}

/// Patience under pressure ends with "quota exceeded", and what was not taken is counted.
#[tokio::test]
async fn pressure_ends_some_time() {
    let (admission, _inbox) = Admission::new(AdmissionOptions { frames_max: 1, bytes_max: u64::MAX });
    let mut options = options();
    options.pressure_patience = Duration::from_millis(100);
    let server = start(options, admission, None).await;
    let mut raw = Raw::connect(&server, CONNECT_V5).await;
    for pkid in 1..=2 {
        raw.send(&publish(Version::V5, 1, Some(pkid), &frame(1, u64::from(pkid)))).await;
    }
    assert_eq!(raw.packet().await.unwrap()[2], 0x97);
    server.wait_for("disconnects", &["pressure"], 1).await;
    server.wait_for("frames", &["mqtt", "RETRY_AFTER"], 2).await;
}

/// Shutdown acknowledges what is outstanding, says so to v5 clients, and ends within its deadline.
#[tokio::test]
async fn shutdown_acknowledges_first() {
    let (admission, mut inbox) = queue();
    let server = start(options(), admission, None).await;
    let mut raw = Raw::connect(&server, CONNECT_V5).await;
    let mut idle = Raw::connect(&server, &rename(CONNECT_V4)).await;
    raw.send(&publish(Version::V5, 1, Some(1), &frame(1, 0))).await;
    let mut got = Vec::new();
    inbox.recv_many(&mut got, Drain::default()).await;
    server.stop.cancel();
    assert_eq!(idle.packet().await, None);
    raw.silent().await;
    let submission = got.remove(0);
    let reply = reply_to(&submission, &all_ok());
    submission.reply.send(reply);
    assert_eq!(raw.packet().await.unwrap(), [0x40, 2, 0, 1]);
    assert_eq!(raw.packet().await.unwrap()[2], 0x8b);
    assert_eq!(raw.packet().await, None);
    drop((raw, idle));
    server.served.await.unwrap();
}

/// A pipeline that never answers does not hold the shutdown for ever.
#[tokio::test]
async fn shutdown_has_a_deadline() {
    let (admission, _inbox) = queue();
    let mut options = options();
    options.drain_timeout = Duration::from_millis(50);
    options.pressure_patience = Duration::from_millis(50);
    let server = start(options, admission, None).await;
    let mut raw = Raw::connect(&server, CONNECT_V5).await;
    raw.send(&publish(Version::V5, 1, Some(1), &frame(1, 0))).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    server.stop.cancel();
    assert_eq!(raw.packet().await.unwrap()[2], 0x8b);
    drop(raw);
    server.served.await.unwrap();
}

/// A QoS 0 publish followed by an end is still decided, counted and told.
#[tokio::test]
async fn what_was_taken_is_decided_after_the_client_left() {
    let (admission, mut inbox) = queue();
    let server = start(options(), admission, None).await;
    let mut listener = Raw::connect(&server, &rename(CONNECT_V4)).await;
    listener.send(&subscribe(Version::V4, 1, 0)).await;
    listener.packet().await.unwrap();
    let mut raw = Raw::connect(&server, CONNECT_V4).await;
    raw.send(&[publish(Version::V4, 1, None, &frame(1, 5)), vec![0xe0, 0]].concat()).await;
    assert_eq!(raw.packet().await, None);
    let mut got = Vec::new();
    inbox.recv_many(&mut got, Drain::default()).await;
    let submission = got.remove(0);
    let reply = reply_to(&submission, &all_ok());
    submission.reply.send(reply);
    let told = message(&listener.packet().await.unwrap(), Version::V4, false);
    assert_eq!(told["acked_to"]["seq"], 5);
    server.wait_for("disconnects", &["client"], 1).await;
}

/// Silence before CONNECT and after it is ended; a client that pings stays.
#[tokio::test]
async fn silence_is_ended() {
    let (admission, _inbox) = queue();
    let mut options = options();
    options.connect_timeout = Duration::from_millis(100);
    let server = start(options, admission, None).await;
    let mut silent = TcpStream::connect(server.addr).await.unwrap();
    assert_eq!(silent.read(&mut [0; 8]).await.unwrap(), 0);
    server.wait_for("connections_refused", &["mqtt", "connect_timeout"], 1).await;

    let mut one_second = CONNECT_V5.to_vec();
    one_second[11] = 1;
    let started = std::time::Instant::now();
    let mut raw = Raw::connect(&server, &one_second).await;
    tokio::time::sleep(Duration::from_millis(800)).await;
    raw.send(&[0xc0, 0]).await;
    assert_eq!(raw.packet().await.unwrap(), [0xd0, 0]);
    assert_eq!(raw.packet().await.unwrap()[2], 0x8d);
    let lived = started.elapsed();
    assert!(lived > Duration::from_millis(2_200) && lived < Duration::from_secs(6), "{lived:?}");
}

/// Connections are bounded over all and per address, and places come back.
#[tokio::test]
async fn connections_are_bounded() {
    let (admission, _inbox) = queue();
    let mut options = options();
    options.connections_per_address_max = 2;
    let server = start(options, admission, None).await;
    let first = Raw::connect(&server, CONNECT_V4).await;
    let _second = Raw::connect(&server, &rename(CONNECT_V4)).await;
    let mut third = TcpStream::connect(server.addr).await.unwrap();
    assert_eq!(third.read(&mut [0; 8]).await.unwrap_or(0), 0);
    server.wait_for("connections_refused", &["mqtt", "address"], 1).await;
    drop(first);
    server.wait_for("disconnects", &["io"], 1).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    Raw::connect(&server, CONNECT_V4).await;
    assert_eq!(server.metrics.connections_open.get(), 2);
}

/// Packets over the limit end the connection when they are announced; large ones within it need room.
#[tokio::test]
async fn packets_are_bounded() {
    let (admission, inbox) = queue();
    pipeline(inbox, all_ok());
    let mut options = options();
    options.arriving_bytes_max = 200_000;
    options.packet_timeout = Duration::from_millis(300);
    let server = start(options, admission, None).await;
    let mut raw = Raw::connect(&server, CONNECT_V5).await;
    raw.send(&[0x32, 0xff, 0xff, 0xff, 0x7f]).await;
    assert_eq!(raw.packet().await.unwrap()[2], 0x95);

    // One holds the room and never sends; the other waits, and gets it when the first is cut.
    let mut holder = Raw::connect(&server, CONNECT_V5).await;
    holder.send(&[0x32, 0xf0, 0xa2, 0x04]).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut waiting = Raw::connect(&server, &rename(CONNECT_V5)).await;
    let frames: Vec<_> = (0..700).map(|seq| frame(1, seq)).collect();
    let large = publish(Version::V5, 1, Some(1), &frames.concat());
    assert!(large.len() > 100_000, "{}", large.len());
    let (mut reader, mut writer) = waiting.stream.split();
    let ((), ack) = tokio::join!(async { writer.write_all(&large).await.unwrap() }, async {
        let mut ack = [0; 4];
        reader.read_exact(&mut ack).await.unwrap();
        ack
    });
    assert_eq!(ack, [0x40, 2, 0, 1]);
    server.wait_for("disconnects", &["packet_timeout"], 1).await;
}

/// A subscriber that does not read gets merged verdicts, costs bounded memory, and is cut in the end.
#[tokio::test]
async fn a_slow_subscriber_is_merged_and_cut() {
    let (admission, inbox) = queue();
    let judge: Judge = Arc::new(|_| Code::SigBad);
    pipeline(inbox, judge);
    let mut options = options();
    options.write_timeout = Duration::from_millis(300);
    let server = start(options, admission, None).await;
    let mut slow = Raw::connect(&server, CONNECT_V4).await;
    slow.send(&subscribe(Version::V4, 1, 0)).await;
    slow.packet().await.unwrap();
    let mut device = Raw::connect(&server, &rename(CONNECT_V4)).await;
    let payload = frame(1, 0).repeat(60);
    for round in 0..10_000 {
        device.send(&publish(Version::V4, 1, Some(1), &payload)).await;
        device.packet().await.unwrap();
        if server.count("disconnects", &["slow"]) == 1 {
            assert!(server.metrics.verdicts_merged.get() > 0);
            return;
        }
        assert!(round < 9_999, "never cut, {} merged", server.metrics.verdicts_merged.get());
    }
}
