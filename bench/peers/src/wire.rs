//! The few MQTT 5 packets that a publisher and a bridge need, by hand: a codec that allocates costs more than all the rest here.
//! What is read of a server's packets is their first bytes; what is not needed is skipped by its length.

use anyhow::{Result, bail, ensure};
use schemas_frame::Code;

/// Remaining length has at most four bytes.
const LENGTH_BYTES_MAX: usize = 4;
/// Largest packet taken from a server: an acknowledgement, or a delivered frame.
const PACKET_BYTES_MAX: usize = 1 << 20;
/// A server that does not say takes this many unacknowledged publishes.
const RECEIVE_MAX_DEFAULT: u16 = u16::MAX;
const PROPERTY_RECEIVE_MAX: u8 = 0x21;
const PROPERTY_REASON: u8 = 0x1f;
const PROPERTY_SESSION_EXPIRY: u8 = 0x11;

/// Appends a remaining length or property length.
fn length(out: &mut Vec<u8>, mut value: usize) {
    loop {
        let digit = (value % 128) as u8;
        value /= 128;
        if value == 0 {
            out.push(digit);
            return;
        }
        out.push(digit | 0x80);
    }
}

fn text(out: &mut Vec<u8>, text: &[u8]) {
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(text);
}

/// Appends `CONNECT`, clean start, without a login.
pub fn connect(out: &mut Vec<u8>, client_id: &str, keep_alive_s: u16) {
    connect_with(out, client_id, keep_alive_s, 0x02, &[]);
}

/// Appends `CONNECT` for a session that outlives the connection, with a bound on what the server may send unanswered.
pub fn connect_durable(out: &mut Vec<u8>, client_id: &str, receive_max: u16) {
    let mut properties = vec![PROPERTY_SESSION_EXPIRY, 0xff, 0xff, 0xff, 0xff, PROPERTY_RECEIVE_MAX];
    properties.extend_from_slice(&receive_max.to_be_bytes());
    connect_with(out, client_id, 0, 0, &properties);
}

fn connect_with(out: &mut Vec<u8>, client_id: &str, keep_alive_s: u16, flags: u8, properties: &[u8]) {
    let mut body = Vec::with_capacity(32);
    text(&mut body, b"MQTT");
    body.extend_from_slice(&[5, flags]);
    body.extend_from_slice(&keep_alive_s.to_be_bytes());
    length(&mut body, properties.len());
    body.extend_from_slice(properties);
    text(&mut body, client_id.as_bytes());
    out.push(0x10);
    length(out, body.len());
    out.extend_from_slice(&body);
}

/// Appends `SUBSCRIBE` to one filter, QoS 1.
pub fn subscribe(out: &mut Vec<u8>, filter: &[u8]) {
    out.push(0x82);
    length(out, 2 + 1 + 2 + filter.len() + 1);
    out.extend_from_slice(&[0, 1, 0]);
    text(out, filter);
    out.push(1);
}

/// Appends `PUBACK`, success.
pub fn acknowledge(out: &mut Vec<u8>, packet: u16) {
    out.extend_from_slice(&[0x40, 2]);
    out.extend_from_slice(&packet.to_be_bytes());
}

/// Appends `PUBLISH`, QoS 1.
pub fn publish(out: &mut Vec<u8>, topic: &[u8], packet: u16, payload: &[u8]) {
    out.push(0x32);
    length(out, 2 + topic.len() + 3 + payload.len());
    text(out, topic);
    out.extend_from_slice(&packet.to_be_bytes());
    out.push(0);
    out.extend_from_slice(payload);
}

/// Appends `DISCONNECT`.
pub fn disconnect(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0xe0, 0]);
}

/// What a server says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard<'b> {
    /// Connected; so many publishes may wait for their answers.
    Connected {
        /// Receive maximum.
        receive_max: u16,
    },
    /// A publish is answered.
    Answered {
        /// Packet identifier.
        packet: u16,
        /// What the answer stands for.
        code: Code,
    },
    /// A filter is subscribed to.
    Subscribed,
    /// A message, QoS 1.
    Delivered {
        /// Packet identifier.
        packet: u16,
        /// The message.
        payload: &'b [u8],
    },
    /// Something that nobody here has a use for.
    Other,
}

/// Takes the first whole packet of a buffer and its length; `None` if there is none yet.
///
/// # Errors
/// When the server refuses, closes, or says what is no MQTT.
pub fn hear(buffer: &[u8]) -> Result<Option<(Heard<'_>, usize)>> {
    let Some((kind, after)) = buffer.split_first() else { return Ok(None) };
    let Some((remaining, digits)) = read_length(after)? else { return Ok(None) };
    ensure!(remaining <= PACKET_BYTES_MAX, "a packet of {remaining} bytes");
    let total = 1 + digits + remaining;
    let Some(body) = buffer.get(1 + digits..total) else { return Ok(None) };
    let heard = match kind {
        0x20 => connected(body)?,
        0x40 => answered(body)?,
        0x30..=0x3f => delivered(*kind, body)?,
        0x90 => {
            ensure!(body.last().is_some_and(|code| *code < 0x80), "not subscribed");
            Heard::Subscribed
        }
        0xe0 => bail!("the server closed with reason {:#04x}", body.first().copied().unwrap_or(0)),
        _ => Heard::Other,
    };
    Ok(Some((heard, total)))
}

fn read_length(bytes: &[u8]) -> Result<Option<(usize, usize)>> {
    let mut value = 0;
    for (at, byte) in bytes.iter().take(LENGTH_BYTES_MAX).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Ok(Some((value, at + 1)));
        }
    }
    ensure!(bytes.len() < LENGTH_BYTES_MAX, "a length of more than {LENGTH_BYTES_MAX} bytes");
    Ok(None)
}

fn connected(body: &[u8]) -> Result<Heard<'_>> {
    let code = body.get(1).copied().unwrap_or(0xff);
    ensure!(code == 0, "not admitted, reason {code:#04x}");
    let mut receive_max = RECEIVE_MAX_DEFAULT;
    let mut properties = properties(body.get(2..).unwrap_or_default())?;
    while let Some((id, value)) = next_property(&mut properties)? {
        if id == PROPERTY_RECEIVE_MAX && value.len() == 2 {
            receive_max = u16::from_be_bytes([value[0], value[1]]);
        }
    }
    Ok(Heard::Connected { receive_max })
}

fn answered(body: &[u8]) -> Result<Heard<'_>> {
    let [high, low, rest @ ..] = body else { bail!("an acknowledgement without a packet identifier") };
    let packet = u16::from_be_bytes([*high, *low]);
    let Some((reason, rest)) = rest.split_first() else {
        return Ok(Heard::Answered { packet, code: Code::Ok });
    };
    // 0x10: taken, and nobody subscribes.
    if matches!(reason, 0x00 | 0x10) {
        return Ok(Heard::Answered { packet, code: Code::Ok });
    }
    let mut named = None;
    let mut properties = properties(rest)?;
    while let Some((id, value)) = next_property(&mut properties)? {
        if id == PROPERTY_REASON {
            let words = String::from_utf8_lossy(value);
            named = words.split(':').next().and_then(|code| code.parse().ok());
        }
    }
    let code = match (named, reason) {
        (Some(code), _) => code,
        (None, 0x99) => Code::Decode,
        (None, 0x90) => Code::TopicMismatch,
        (None, 0x87) => Code::SigBad,
        (None, 0x97) => Code::RetryAfter,
        (None, reason) => bail!("an acknowledgement with reason {reason:#04x} that names no code"),
    };
    Ok(Heard::Answered { packet, code })
}

fn delivered(kind: u8, body: &[u8]) -> Result<Heard<'_>> {
    if kind & 0x06 != 0x02 {
        return Ok(Heard::Other);
    }
    let topic = body.first_chunk::<2>().map_or(0, |bytes| usize::from(u16::from_be_bytes(*bytes)));
    let Some([high, low, rest @ ..]) = body.get(2 + topic..) else { bail!("a message is cut off") };
    let Some((length, digits)) = read_length(rest)? else { bail!("properties without a length") };
    let Some(payload) = rest.get(digits + length..) else { bail!("properties are cut off") };
    Ok(Heard::Delivered { packet: u16::from_be_bytes([*high, *low]), payload })
}

/// The properties that a part of a packet begins with; none if it is empty.
fn properties(bytes: &[u8]) -> Result<&[u8]> {
    if bytes.is_empty() {
        return Ok(bytes);
    }
    let Some((value, digits)) = read_length(bytes)? else { bail!("properties without a length") };
    let Some(properties) = bytes.get(digits..digits + value) else { bail!("properties are cut off") };
    Ok(properties)
}

/// The next property and its value, the length of a text taken off.
fn next_property<'b>(rest: &mut &'b [u8]) -> Result<Option<(u8, &'b [u8])>> {
    let Some((id, after)) = rest.split_first() else { return Ok(None) };
    let sized = |at: usize| {
        let length = after.get(at..at + 2).map(|bytes| usize::from(u16::from_be_bytes([bytes[0], bytes[1]])));
        length.map(|length| (at + 2, length))
    };
    let found = match id {
        0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28 | 0x29 | 0x2a => Some((0, 1)),
        0x13 | 0x21 | 0x22 | 0x23 => Some((0, 2)),
        0x02 | 0x11 | 0x18 | 0x27 => Some((0, 4)),
        0x03 | 0x08 | 0x09 | 0x12 | 0x15 | 0x16 | 0x1a | 0x1c | 0x1f => sized(0),
        // A name and a value; only the whole matters.
        0x26 => sized(0).and_then(|(at, length)| sized(at + length)).map(|(at, length)| (0, at + length)),
        _ => bail!("an unknown property {id:#04x}"),
    };
    let Some((value, end)) = found.and_then(|(at, length)| Some((after.get(at..at + length)?, at + length)))
    else {
        bail!("a property is cut off");
    };
    *rest = &after[end..];
    Ok(Some((*id, value)))
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use rumqttc::v5::mqttbytes::QoS;
    use rumqttc::v5::mqttbytes::v5::{Packet, PubAck, PubAckProperties, PubAckReason};

    use super::*;

    fn encoded(packet: &Packet) -> Vec<u8> {
        let mut out = BytesMut::new();
        packet.write(&mut out, None).unwrap();
        out.to_vec()
    }

    // Guarantee: another codec reads what we write, for lengths of one to three bytes.
    #[test]
    fn a_codec_reads_us() {
        for bytes in [0, 1, 90, 100, 16_000, 17_000, 60_000] {
            let (mut out, payload) = (Vec::new(), vec![7u8; bytes]);
            publish(&mut out, b"v1/d/0011223344556677/frames", 513, &payload);
            let mut buffer = BytesMut::from(&out[..]);
            let Packet::Publish(read) = Packet::read(&mut buffer, None).unwrap() else { panic!() };
            assert_eq!((read.qos, read.pkid, read.payload.len()), (QoS::AtLeastOnce, 513, bytes));
            assert_eq!(read.topic, "v1/d/0011223344556677/frames");
            assert!(buffer.is_empty());
        }
        let mut out = Vec::new();
        subscribe(&mut out, b"v1/d/+/frames");
        let Packet::Subscribe(read) = Packet::read(&mut BytesMut::from(&out[..]), None).unwrap() else {
            panic!()
        };
        assert_eq!((read.filters[0].path.as_str(), read.filters[0].qos), ("v1/d/+/frames", QoS::AtLeastOnce));
        let mut out = Vec::new();
        connect_durable(&mut out, "bridge", 2_000);
        let Packet::Connect(read, ..) = Packet::read(&mut BytesMut::from(&out[..]), None).unwrap() else {
            panic!()
        };
        let properties = read.properties.unwrap();
        assert_eq!((read.clean_start, properties.receive_maximum), (false, Some(2_000)));
        assert_eq!(properties.session_expiry_interval, Some(u32::MAX));
        let mut out = Vec::new();
        connect(&mut out, "load-1", 60);
        let Packet::Connect(read, _, login) = Packet::read(&mut BytesMut::from(&out[..]), None).unwrap()
        else {
            panic!()
        };
        assert_eq!((read.client_id.as_str(), read.keep_alive, read.clean_start), ("load-1", 60, true));
        assert!(login.is_none());
    }

    // Guarantee: what another codec writes is heard, and never before it is whole.
    #[test]
    fn a_server_is_heard() {
        let refused = PubAck {
            pkid: 9,
            reason: PubAckReason::ImplementationSpecificError,
            properties: Some(PubAckProperties {
                reason_string: Some("SEQ_OLD: too late".into()),
                user_properties: vec![("a".into(), "b".into())],
            }),
        };
        let welcome = [
            &[0x20, 34, 0, 0, 31, 0x11, 0, 0, 0, 0, 0x21, 2, 0, 0x24, 1, 0x27, 0, 16, 0, 0][..],
            &[0x12, 0, 1, b'x', 0x22, 0, 0, 0x26, 0, 1, b'a', 0, 1, b'b', 0x25, 0],
        ]
        .concat();
        let mut message = Vec::new();
        publish(&mut message, b"v1/d/1/frames", 77, b"frame");
        let plain = PubAck { pkid: 9, reason: PubAckReason::Success, properties: None };
        let cases = [
            (encoded(&Packet::PubAck(refused)), Heard::Answered { packet: 9, code: Code::SeqOld }),
            (encoded(&Packet::PubAck(plain)), Heard::Answered { packet: 9, code: Code::Ok }),
            (welcome, Heard::Connected { receive_max: 512 }),
            (vec![0x90, 4, 0, 1, 0, 1], Heard::Subscribed),
            (message, Heard::Delivered { packet: 77, payload: b"frame" }),
        ];
        for (mut bytes, expected) in cases {
            let total = bytes.len();
            for cut in 0..total {
                assert_eq!(hear(&bytes[..cut]).unwrap(), None);
            }
            bytes.push(0xff);
            assert_eq!(hear(&bytes).unwrap(), Some((expected, total)));
        }
    }

    // Guarantee: refusals and nonsense end a connection instead of being counted.
    #[test]
    fn refusals_are_errors() {
        let bad: [&[u8]; 8] = [
            &[0x90, 4, 0, 1, 0, 0x87],
            &[0x32, 4, 0, 9, b'a', b'b'],
            &[0x20, 3, 0, 0x87, 0],
            &[0xe0, 1, 0x97],
            &[0x40, 1, 0],
            &[0x40, 3, 0, 1, 0x80],
            &[0x40, 0xff, 0xff, 0xff, 0xff],
            &[0x40, 6, 0, 1, 0x83, 2, 0x7f, 0],
        ];
        for bytes in bad {
            assert!(hear(bytes).is_err(), "{bytes:?}");
        }
        assert_eq!(
            hear(&[0x40, 4, 0, 1, 0x10, 0]).unwrap(),
            Some((Heard::Answered { packet: 1, code: Code::Ok }, 6))
        );
    }
}
