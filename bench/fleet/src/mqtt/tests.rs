//! A scripted server on loopback: acknowledges, refuses, breaks off in the middle.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use rumqttc::v5::mqttbytes::v5::{
    ConnAck, ConnectReturnCode, PubAckProperties, Publish, SubAck, SubscribeReasonCode,
};
use schemas_frame::hostile;
use schemas_identity::SecretKey;

use super::*;

type Buffer = bytes::BytesMut;

fn next(stream: &mut TcpStream, buffer: &mut Buffer) -> Option<Packet> {
    loop {
        if let Ok(packet) = Packet::read(buffer, None) {
            return Some(packet);
        }
        let mut chunk = [0; 4096];
        match stream.read(&mut chunk) {
            Ok(0) | Err(_) => return None,
            Ok(len) => buffer.extend_from_slice(&chunk[..len]),
        }
    }
}

fn reply(stream: &mut TcpStream, packet: &Packet) {
    let mut out = Buffer::new();
    packet.write(&mut out, None).unwrap();
    let _ = stream.write_all(&out);
}

fn connack(code: ConnectReturnCode) -> Packet {
    Packet::ConnAck(ConnAck { session_present: false, code, properties: None })
}

/// Serves connections; `answer(payload)` gives the PUBACK reason and a verdict exception, or `None` to break off.
fn serve(
    connections: usize,
    mut answer: impl FnMut(&[u8]) -> Option<(PubAckReason, Option<Code>)> + Send + 'static,
) -> (u16, std::thread::JoinHandle<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = std::thread::spawn(move || {
        let mut published = 0;
        for _ in 0..connections {
            let (mut stream, _) = listener.accept().unwrap();
            let mut buffer = Buffer::new();
            while let Some(packet) = next(&mut stream, &mut buffer) {
                match packet {
                    Packet::Connect(..) => reply(&mut stream, &connack(ConnectReturnCode::Success)),
                    Packet::Subscribe(subscribe) => {
                        let return_codes = vec![SubscribeReasonCode::Success(QoS::AtMostOnce)];
                        let ack = SubAck { pkid: subscribe.pkid, return_codes, properties: None };
                        reply(&mut stream, &Packet::SubAck(ack));
                    }
                    Packet::Publish(publish) => {
                        published += 1;
                        let Some((reason, code)) = answer(&publish.payload) else { break };
                        acknowledge(&mut stream, &publish, reason, code);
                    }
                    Packet::Disconnect(_) => break,
                    _ => {}
                }
            }
        }
        published
    });
    (port, serving)
}

fn acknowledge(stream: &mut TcpStream, publish: &Publish, reason: PubAckReason, code: Option<Code>) {
    let refused = code.filter(|code| !code.is_accepted());
    let properties = refused.map(|code| PubAckProperties {
        reason_string: Some(format!("{code}: a hint")),
        user_properties: Vec::new(),
    });
    reply(stream, &Packet::PubAck(PubAck { pkid: publish.pkid, reason, properties }));
    let (Some(code), Ok(frame)) = (code, Frame::parse(&publish.payload)) else { return };
    let exception = serde_json::json!({"boot": frame.boot(), "seq": frame.seq(), "code": code});
    let message =
        serde_json::json!({"acked_to": null, "gaps": [], "exceptions": [exception], "server_time": 1});
    let topic = format!("v1/d/{}/verdict", frame.kid());
    reply(stream, &Packet::Publish(Publish::new(topic, QoS::AtMostOnce, message.to_string(), None)));
}

fn frames(count: u64) -> Vec<Vec<u8>> {
    let key = SecretKey::from_seed(&[3; 32]);
    (0..count).map(|seq| hostile::sample(&key, seq)).collect()
}

fn sender(port: u16) -> MqttSender {
    let options = MqttSendOptions { patience: Duration::from_secs(20), ..MqttSendOptions::default() };
    MqttSender::new(&format!("127.0.0.1:{port}"), options)
}

/// Each code is counted once: refusals by the PUBACK's reason, accepted ones as the verdict topic refines them.
#[test]
fn codes_are_counted() {
    let (port, serving) = serve(1, |payload| {
        let seq = Frame::parse(payload).unwrap().seq();
        Some(match seq % 4 {
            0 => (PubAckReason::NotAuthorized, Some(Code::SigBad)),
            1 => (PubAckReason::Success, Some(Code::Dup)),
            2 => (PubAckReason::ImplementationSpecificError, Some(Code::Equivocation)),
            _ => (PubAckReason::Success, None),
        })
    });
    let mut told = 0;
    let tally = sender(port).send(&frames(100), &mut |more| told += more).unwrap();
    let count = |code| tally.of(code);
    assert_eq!([Code::SigBad, Code::Dup, Code::Equivocation, Code::Ok].map(count), [25; 4]);
    assert_eq!((tally.frames, tally.refused(), told, serving.join().unwrap()), (100, 50, 100, 100));
}

/// A connection that breaks before the PUBACK costs a resend, never a frame.
#[test]
fn unanswered_frames_are_sent_again() {
    let mut seen = 0;
    let (port, serving) = serve(3, move |_| {
        seen += 1;
        (seen != 10 && seen != 30).then_some((PubAckReason::Success, None))
    });
    let tally = sender(port).send(&frames(100), &mut |_| {}).unwrap();
    assert_eq!((tally.frames, tally.of(Code::Ok), tally.retries), (100, 100, 2));
    // A reset may swallow PUBACKs on the way, so more than the two unanswered frames can come again.
    assert!((102..=102 + 2 * WINDOW).contains(&serving.join().unwrap()));
}

/// A server that does not admit the client is not asked again.
#[test]
fn a_refused_login_ends_it() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        next(&mut stream, &mut Buffer::new());
        reply(&mut stream, &connack(ConnectReturnCode::NotAuthorized));
    });
    let error = sender(port).send(&frames(1), &mut |_| {}).unwrap_err();
    assert!(matches!(error, SendError::NotAdmitted { .. }), "{error}");
}

/// Addresses with and without scheme and port.
#[test]
fn addresses() {
    for (address, host, port) in [
        ("127.0.0.1:1884", "127.0.0.1", 1884),
        ("mqtt://localhost/", "localhost", 1883),
        ("mqtt://[::1]:1885", "::1", 1885),
    ] {
        let sender = MqttSender::new(address, MqttSendOptions::default());
        assert_eq!((sender.host.as_str(), sender.port), (host, port), "{address}");
    }
}
