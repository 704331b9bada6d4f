//! Clients that others wrote: mosquitto's command line (skipped aloud where it is missing) and rumqttc; and TLS.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use rumqttc::v5::mqttbytes::v5::{Packet, PubAckReason};
use schemas_frame::Code;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::super::inbound::Version;
use super::raw::{CONNECT_V5, publish};
use super::*;
use crate::testing::{Judge, all_ok, frame, pipeline, secret};
use crate::tls::ClientTls;
use crate::tls::tests::{connect as tls_connect, identity};

fn have(program: &str) -> bool {
    let found =
        Command::new(program).arg("--help").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !found {
        eprintln!("skipped: {program} is not installed (Debian package mosquitto-clients)");
    }
    found
}

async fn run(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn mosquitto(program: &str, port: &str, version: &str, topic: &str) -> Command {
    let mut command = Command::new(program);
    command.args(["-h", "127.0.0.1", "-p", port, "-V", version, "-q", "1", "-t", topic]);
    command
}

fn acked_seq(output: &Output) -> u64 {
    let message: serde_json::Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    message["acked_to"]["seq"].as_u64().unwrap()
}

/// mosquitto_pub delivers a frame file in both versions; mosquitto_sub sees the verdict, started before or after.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mosquitto_clients_deliver_and_see_the_verdict() {
    if !have("mosquitto_pub") || !have("mosquitto_sub") {
        return;
    }
    let (admission, inbox) = queue();
    pipeline(inbox, all_ok());
    let server = start(options(), admission, None).await;
    let port = server.addr.port().to_string();
    for (device, version, label) in [(1, "mqttv311", "3.1.1"), (2, "mqttv5", "5")] {
        let verdicts = format!("v1/d/{}/verdict", device_id(device));
        let subscriber = || {
            let mut command = mosquitto("mosquitto_sub", &port, version, &verdicts);
            command.args(["-W", "10", "-C", "1"]);
            command
        };
        let early = tokio::spawn(run(subscriber()));
        server.wait_for("connections", &[label], 1).await;

        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&frame(device, 4)).unwrap();
        let topic = format!("v1/d/{}/frames", device_id(device));
        let mut publisher = mosquitto("mosquitto_pub", &port, version, &topic);
        publisher.arg("-f").arg(file.path());
        let published = run(publisher).await;
        assert!(published.status.success(), "{published:?}");
        server.wait_for("frames", &["mqtt", "OK"], u64::from(device)).await;

        assert_eq!(acked_seq(&early.await.unwrap()), 4, "{version}, subscribed before");
        assert_eq!(acked_seq(&run(subscriber()).await), 4, "{version}, subscribed after");
    }
}

/// rumqttc 3.1.1: hundreds of publishes in flight, all acknowledged, the verdict topic ends at the last frame.
#[tokio::test]
async fn rumqttc_v4_pipelines() {
    const FRAMES: u64 = 300;
    let (admission, inbox) = queue();
    pipeline(inbox, all_ok());
    let server = start(options(), admission, None).await;
    let mut client_options = rumqttc::MqttOptions::new("watch", "127.0.0.1", server.addr.port());
    client_options.set_inflight(100);
    let (client, mut events) = rumqttc::AsyncClient::new(client_options, 10);
    tokio::spawn(async move {
        let qos = rumqttc::QoS::AtLeastOnce;
        client.subscribe(format!("v1/d/{}/verdict", device_id(1)), qos).await.unwrap();
        for seq in 0..FRAMES {
            let topic = format!("v1/d/{}/frames", device_id(1));
            client.publish(topic, qos, false, frame(1, seq)).await.unwrap();
        }
        std::future::pending::<()>().await;
    });
    let (mut acked, mut told) = (0, 0);
    let poll = async {
        while acked < FRAMES || told < FRAMES - 1 {
            match events.poll().await.unwrap() {
                rumqttc::Event::Incoming(rumqttc::Packet::PubAck(_)) => acked += 1,
                rumqttc::Event::Incoming(rumqttc::Packet::Publish(message)) => {
                    let json: serde_json::Value = serde_json::from_slice(&message.payload).unwrap();
                    told = json["acked_to"]["seq"].as_u64().unwrap();
                }
                _ => {}
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), poll).await.unwrap();
    assert_eq!(server.count("frames", &["mqtt", "OK"]), FRAMES);
}

/// rumqttc 5 reads our CONNACK and the reason of a refused frame.
#[tokio::test]
async fn rumqttc_v5_reads_reasons() {
    let (admission, inbox) = queue();
    let judge: Judge = Arc::new(|frame| if frame.seq() == 1 { Code::SigBad } else { Code::Ok });
    pipeline(inbox, judge);
    let server = start(options(), admission, None).await;
    let client_options = rumqttc::v5::MqttOptions::new("watch", "127.0.0.1", server.addr.port());
    let (client, mut events) = rumqttc::v5::AsyncClient::new(client_options, 10);
    let topic = format!("v1/d/{}/frames", device_id(1));
    for payload in [frame(1, 0), frame(1, 1), bytes::Bytes::from_static(b"\xff")] {
        let qos = rumqttc::v5::mqttbytes::QoS::AtLeastOnce;
        client.publish(&topic, qos, false, payload).await.unwrap();
    }
    let mut acks = Vec::new();
    while acks.len() < 3 {
        let event = tokio::time::timeout(Duration::from_secs(20), events.poll()).await.unwrap().unwrap();
        match event {
            rumqttc::v5::Event::Incoming(Packet::PubAck(ack)) => acks.push(ack),
            rumqttc::v5::Event::Incoming(Packet::ConnAck(connack)) => {
                let properties = connack.properties.unwrap();
                assert_eq!((properties.max_qos, properties.receive_max), (Some(1), Some(512)));
            }
            _ => {}
        }
    }
    let reasons: Vec<PubAckReason> = acks.iter().map(|ack| ack.reason).collect();
    let expected = [PubAckReason::Success, PubAckReason::NotAuthorized, PubAckReason::PayloadFormatInvalid];
    assert_eq!(reasons, expected);
    let told = acks[1].properties.as_ref().and_then(|properties| properties.reason_string.as_deref());
    assert_eq!(told, Some("SIG_BAD: signature does not verify"));
}

/// The endpoint over TLS; a client that speaks plaintext to it is counted and dropped.
#[tokio::test]
async fn tls_carries_the_same() {
    let identity = identity();
    let tls = ClientTls::new(&identity.cert, &identity.key, &[], None).unwrap();
    let (admission, inbox) = queue();
    pipeline(inbox, all_ok());
    let server = start(options(), admission, Some(tls)).await;
    let mut stream = tls_connect(&identity, server.addr).await;
    stream
        .write_all(&[CONNECT_V5.to_vec(), publish(Version::V5, 1, Some(9), &frame(1, 0))].concat())
        .await
        .unwrap();
    let mut answer = vec![0; 2];
    stream.read_exact(&mut answer).await.unwrap();
    let mut connack = vec![0; usize::from(answer[1])];
    stream.read_exact(&mut connack).await.unwrap();
    let mut ack = [0; 4];
    stream.read_exact(&mut ack).await.unwrap();
    assert_eq!(ack, [0x40, 2, 0, 9]);

    let mut plain = tokio::net::TcpStream::connect(server.addr).await.unwrap();
    plain.write_all(CONNECT_V5).await.unwrap();
    server.wait_for("connections_refused", &["mqtt", "tls"], 1).await;
}

/// A device that shows a certificate of its own key speaks for itself, without a token, and for nobody else.
#[tokio::test]
async fn a_certificate_binds_to_its_device() {
    let identity = identity();
    let tls = ClientTls::new(&identity.cert, &identity.key, &[], None).unwrap();
    let (admission, inbox) = queue();
    pipeline(inbox, all_ok());
    let server = start(options(), admission, Some(tls)).await;
    let key = rcgen::KeyPair::from_pem_and_sign_algo(&secret(1).to_pem(), &rcgen::PKCS_ED25519).unwrap();
    let made = rcgen::CertificateParams::new(Vec::new()).unwrap().self_signed(&key).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (cert_file, key_file) = (folder.path().join("device.pem"), folder.path().join("device.key"));
    std::fs::write(&cert_file, made.pem()).unwrap();
    std::fs::write(&key_file, key.serialize_pem()).unwrap();
    let shown = Some((cert_file.as_path(), key_file.as_path()));
    let config = crate::tls::client_config(&identity.cert, shown).unwrap();
    let tcp = tokio::net::TcpStream::connect(server.addr).await.unwrap();
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    let mut stream = tokio_rustls::TlsConnector::from(config).connect(name, tcp).await.unwrap();
    let mine = publish(Version::V5, 1, Some(9), &frame(1, 0));
    let other = publish(Version::V5, 2, Some(10), &frame(2, 0));
    stream.write_all(&[CONNECT_V5.to_vec(), mine, other].concat()).await.unwrap();
    let mut header = [0; 2];
    stream.read_exact(&mut header).await.unwrap();
    let mut connack = vec![0; usize::from(header[1])];
    stream.read_exact(&mut connack).await.unwrap();
    let mut acks = [0; 10];
    stream.read_exact(&mut acks).await.unwrap();
    assert_eq!(acks, [0x40, 2, 0, 9, 0x40, 4, 0, 10, 0x87, 0]);
}
