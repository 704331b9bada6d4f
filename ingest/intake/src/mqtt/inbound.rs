//! Packets of both protocol versions as one enum, decoded by rumqttc's codec behind `guard.rs`.
//!
//! What the codec accepts and MQTT does not is refused here: connect flags, topics that are not UTF-8, properties
//! that run over their length, empty filter lists.

use bytes::{Bytes, BytesMut};
use rumqttc::mqttbytes::{QoS as QoS4, v4};
use rumqttc::v5::mqttbytes::QoS as QoS5;
use rumqttc::v5::mqttbytes::v5::{self, RetainForwardRule};

use super::end::End;
use super::guard::{Kind, remaining_length};

/// Protocol version of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// MQTT 3.1.1, protocol level 4.
    V4,
    /// MQTT 5, protocol level 5.
    V5,
}

impl Version {
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::V4 => "3.1.1",
            Self::V5 => "5",
        }
    }
}

/// A packet from a client.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Inbound {
    Connect(Box<Hello>),
    Publish(Publish),
    PubAck {
        pkid: u16,
    },
    Subscribe {
        pkid: u16,
        filters: Vec<Filter>,
        has_id: bool,
    },
    Unsubscribe {
        pkid: u16,
        filters: Vec<String>,
    },
    PingReq,
    /// v5: with the session expiry that replaces the one of `CONNECT`.
    Disconnect {
        session_expiry_s: Option<u32>,
    },
}

/// `CONNECT`, as far as it matters here.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) version: Version,
    pub(crate) client_id: String,
    pub(crate) clean: bool,
    /// Seconds that the session may outlive the connection; 3.1.1 without clean session asks for ever.
    pub(crate) session_expiry_s: u32,
    pub(crate) keep_alive_s: u16,
    pub(crate) username: Option<String>,
    pub(crate) password: Option<String>,
    pub(crate) has_will: bool,
    pub(crate) wants_auth_exchange: bool,
    /// v5: whether reasons may be told in `PUBACK` and `SUBACK`.
    pub(crate) reasons_wanted: bool,
    /// v5: most bytes of a packet to this client.
    pub(crate) packet_bytes_max: Option<u32>,
    /// v5: most QoS 1 messages to this client that may wait for its `PUBACK`.
    pub(crate) receive_max: u16,
}

/// `PUBLISH` of QoS 0 (`pkid` is `None`) or 1.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Publish {
    pub(crate) topic: String,
    pub(crate) pkid: Option<u16>,
    pub(crate) retain: bool,
    /// v5: stands for the topic from now on, or for the topic it was set to.
    pub(crate) alias: Option<u16>,
    pub(crate) payload: Bytes,
}

/// One filter of `SUBSCRIBE`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Filter {
    pub(crate) path: String,
    pub(crate) at_least_once: bool,
    /// Whether the latest verdict is wanted: always, only if the subscription is new, never.
    pub(crate) latest: Latest,
}

/// v5 retain handling; 3.1.1 is always `Always`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Latest {
    Always,
    IfNew,
    Never,
}

const BAD: End = End::Malformed("packet body");

/// Decodes one whole packet. `version` is `None` until `CONNECT` has told it.
pub(crate) fn decode(
    kind: Kind,
    header: usize,
    packet: BytesMut,
    version: Option<Version>,
) -> Result<Inbound, End> {
    let body = packet.get(header..).unwrap_or_default();
    match (kind, version) {
        (Kind::PingReq, _) if body.is_empty() => Ok(Inbound::PingReq),
        (Kind::PingReq, _) => Err(BAD),
        (Kind::Disconnect, Some(Version::V5)) if body.len() > 1 => disconnect_v5(packet),
        // The will does not exist, so the reason of a v5 DISCONNECT changes nothing.
        (Kind::Disconnect, _) => Ok(Inbound::Disconnect { session_expiry_s: None }),
        (Kind::Connect, _) => match sniff(body)? {
            Version::V4 => connect_v4(packet),
            Version::V5 => connect_v5(packet),
        },
        (_, Some(Version::V4)) => packet_v4(packet),
        (_, Some(Version::V5)) => packet_v5(packet, header),
        (_, None) => Err(End::Protocol("CONNECT comes first")),
    }
}

/// Name, level and flags of `CONNECT`, before the codec.
fn sniff(body: &[u8]) -> Result<Version, End> {
    let (name, rest) = match body {
        [0, 4, b'M', b'Q', b'T', b'T', rest @ ..] => ("MQTT", rest),
        [0, 6, b'M', b'Q', b'I', b's', b'd', b'p', rest @ ..] => ("MQIsdp", rest),
        _ => return Err(End::NotMqtt),
    };
    let [level, flags, ..] = rest else { return Err(End::NotMqtt) };
    let version = match (name, level) {
        ("MQTT", 4) => Version::V4,
        ("MQTT", 5) => Version::V5,
        _ => return Err(End::Version { level: *level }),
    };
    if flags & 1 != 0 {
        return Err(End::Malformed("reserved connect flag"));
    }
    if version == Version::V4 && flags & 0b1100_0000 == 0b0100_0000 {
        return Err(End::Malformed("password without user name"));
    }
    Ok(version)
}

fn connect_v4(mut packet: BytesMut) -> Result<Inbound, End> {
    let all = packet.len();
    let Ok(v4::Packet::Connect(connect)) = v4::Packet::read(&mut packet, all) else { return Err(BAD) };
    let (username, password) = match connect.login {
        Some(login) => (some(login.username), some(login.password)),
        None => (None, None),
    };
    Ok(Inbound::Connect(Box::new(Hello {
        version: Version::V4,
        client_id: connect.client_id,
        clean: connect.clean_session,
        session_expiry_s: if connect.clean_session { 0 } else { u32::MAX },
        keep_alive_s: connect.keep_alive,
        username,
        password,
        has_will: connect.last_will.is_some(),
        wants_auth_exchange: false,
        reasons_wanted: false,
        packet_bytes_max: None,
        receive_max: u16::MAX,
    })))
}

fn connect_v5(mut packet: BytesMut) -> Result<Inbound, End> {
    let Ok(v5::Packet::Connect(connect, will, login)) = v5::Packet::read(&mut packet, None) else {
        return Err(BAD);
    };
    let properties = connect.properties.unwrap_or_default();
    if properties.receive_maximum == Some(0) || properties.max_packet_size == Some(0) {
        return Err(End::Protocol("a maximum of 0"));
    }
    let (username, password) = match login {
        Some(login) => (some(login.username), some(login.password)),
        None => (None, None),
    };
    Ok(Inbound::Connect(Box::new(Hello {
        version: Version::V5,
        client_id: connect.client_id,
        clean: connect.clean_start,
        session_expiry_s: properties.session_expiry_interval.unwrap_or_default(),
        keep_alive_s: connect.keep_alive,
        username,
        password,
        has_will: will.is_some(),
        wants_auth_exchange: properties.authentication_method.is_some(),
        reasons_wanted: properties.request_problem_info != Some(0),
        packet_bytes_max: properties.max_packet_size,
        receive_max: properties.receive_maximum.unwrap_or(u16::MAX),
    })))
}

fn some(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

fn packet_v4(mut packet: BytesMut) -> Result<Inbound, End> {
    let all = packet.len();
    match v4::Packet::read(&mut packet, all).map_err(|_| BAD)? {
        v4::Packet::Publish(publish) => Ok(Inbound::Publish(Publish {
            pkid: (publish.qos == QoS4::AtLeastOnce).then_some(publish.pkid),
            topic: publish.topic,
            retain: publish.retain,
            alias: None,
            payload: publish.payload,
        })),
        v4::Packet::PubAck(ack) => Ok(Inbound::PubAck { pkid: ack.pkid }),
        v4::Packet::Subscribe(subscribe) => {
            let filters = subscribe.filters.into_iter().map(|filter| Filter {
                at_least_once: filter.qos != QoS4::AtMostOnce,
                path: filter.path,
                latest: Latest::Always,
            });
            Ok(Inbound::Subscribe { pkid: id(subscribe.pkid)?, filters: filters.collect(), has_id: false })
        }
        v4::Packet::Unsubscribe(unsubscribe) if !unsubscribe.topics.is_empty() => {
            Ok(Inbound::Unsubscribe { pkid: id(unsubscribe.pkid)?, filters: unsubscribe.topics })
        }
        _ => Err(BAD),
    }
}

fn packet_v5(mut packet: BytesMut, header: usize) -> Result<Inbound, End> {
    let body = packet.get(header..).unwrap_or_default();
    let first = packet.first().copied().unwrap_or_default();
    let payload_len = match first >> 4 {
        3 => after_properties(body, publish_properties_at(body, first)?)?,
        8 | 10 => after_properties(body, 2)?,
        _ => 0,
    };
    match v5::Packet::read(&mut packet, None).map_err(|_| BAD)? {
        v5::Packet::Publish(publish) => publish_v5(publish, payload_len),
        v5::Packet::PubAck(ack) => Ok(Inbound::PubAck { pkid: ack.pkid }),
        v5::Packet::Subscribe(subscribe) => {
            let filters_len: usize = subscribe.filters.iter().map(|filter| filter.path.len() + 3).sum();
            if filters_len != payload_len {
                return Err(BAD);
            }
            let has_id = subscribe.properties.is_some_and(|properties| properties.id.is_some());
            let filters = subscribe.filters.into_iter().map(|filter| Filter {
                at_least_once: filter.qos != QoS5::AtMostOnce,
                latest: match filter.retain_forward_rule {
                    RetainForwardRule::OnEverySubscribe => Latest::Always,
                    RetainForwardRule::OnNewSubscribe => Latest::IfNew,
                    RetainForwardRule::Never => Latest::Never,
                },
                path: filter.path,
            });
            Ok(Inbound::Subscribe { pkid: id(subscribe.pkid)?, filters: filters.collect(), has_id })
        }
        v5::Packet::Unsubscribe(unsubscribe) => {
            let filters_len: usize = unsubscribe.filters.iter().map(|filter| filter.len() + 2).sum();
            if filters_len != payload_len || unsubscribe.filters.is_empty() {
                return Err(BAD);
            }
            Ok(Inbound::Unsubscribe { pkid: id(unsubscribe.pkid)?, filters: unsubscribe.filters })
        }
        _ => Err(BAD),
    }
}

fn publish_v5(publish: v5::Publish, payload_len: usize) -> Result<Inbound, End> {
    if publish.payload.len() != payload_len {
        return Err(BAD);
    }
    let Ok(topic) = String::from_utf8(publish.topic.to_vec()) else { return Err(BAD) };
    Ok(Inbound::Publish(Publish {
        topic,
        pkid: (publish.qos == QoS5::AtLeastOnce).then_some(publish.pkid),
        retain: publish.retain,
        alias: publish.properties.and_then(|properties| properties.topic_alias),
        payload: publish.payload,
    }))
}

/// `DISCONNECT` with properties; the codec reads them but not the short forms.
fn disconnect_v5(mut packet: BytesMut) -> Result<Inbound, End> {
    match v5::Packet::read(&mut packet, None).map_err(|_| BAD)? {
        v5::Packet::Disconnect(disconnect) => {
            let expiry = disconnect.properties.and_then(|properties| properties.session_expiry_interval);
            Ok(Inbound::Disconnect { session_expiry_s: expiry })
        }
        _ => Err(BAD),
    }
}

fn id(pkid: u16) -> Result<u16, End> {
    if pkid == 0 {
        return Err(End::Malformed("packet id 0"));
    }
    Ok(pkid)
}

/// Most bytes of properties in one packet. They mean nothing here, and a list of them costs ten times its bytes.
const PROPERTIES_BYTES_MAX: usize = 4 * 1024;

/// Where the properties of a v5 `PUBLISH` begin: after the topic and, for QoS 1, the packet id.
fn publish_properties_at(body: &[u8], first: u8) -> Result<usize, End> {
    let [high, low, ..] = body else { return Err(BAD) };
    let topic_len = usize::from(u16::from_be_bytes([*high, *low]));
    let pkid_len = if first & 0b0110 == 0 { 0 } else { 2 };
    Ok(2 + topic_len + pkid_len)
}

/// How many bytes follow the properties that begin at `at`, by their announced length.
fn after_properties(body: &[u8], at: usize) -> Result<usize, End> {
    let rest = body.get(at..).ok_or(BAD)?;
    let Some((length_bytes, properties)) = remaining_length(rest)? else { return Err(BAD) };
    if properties > PROPERTIES_BYTES_MAX {
        return Err(End::TooLarge);
    }
    rest.len().checked_sub(length_bytes + properties).ok_or(BAD)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::guard::{Framing, frame};

    fn read(bytes: &[u8], version: Option<Version>) -> Result<Inbound, End> {
        match frame(bytes, version.is_some(), 1_000)? {
            Framing::Whole { kind, header, total } => decode(kind, header, bytes[..total].into(), version),
            Framing::Incomplete { .. } => panic!("not a whole packet: {bytes:?}"),
        }
    }

    fn connect(name: &[u8], level: u8, flags: u8, rest: &[u8]) -> Vec<u8> {
        let body = [&[0, name.len() as u8][..], name, &[level, flags, 0, 60], rest].concat();
        [&[0x10, body.len() as u8][..], &body].concat()
    }

    /// Both versions are recognised by their level; other levels and names are told apart from noise.
    #[test]
    fn versions_are_sniffed() {
        let Ok(Inbound::Connect(four)) = read(&connect(b"MQTT", 4, 2, &[0, 1, b'a']), None) else { panic!() };
        assert_eq!((four.version, four.clean, four.keep_alive_s), (Version::V4, true, 60));
        let Ok(Inbound::Connect(five)) = read(&connect(b"MQTT", 5, 2, &[0, 0, 1, b'a']), None) else {
            panic!()
        };
        assert_eq!((five.version, five.client_id.as_str()), (Version::V5, "a"));
        assert_eq!(read(&connect(b"MQTT", 6, 2, &[0, 0]), None), Err(End::Version { level: 6 }));
        assert_eq!(read(&connect(b"MQIsdp", 3, 2, &[0, 0]), None), Err(End::Version { level: 3 }));
        assert_eq!(read(&connect(b"HTTP", 4, 2, &[0, 0]), None), Err(End::NotMqtt));
    }

    /// Flags that MQTT forbids in CONNECT are refused though the codec takes them.
    #[test]
    fn connect_flags() {
        assert!(read(&connect(b"MQTT", 4, 3, &[0, 1, b'a']), None).is_err());
        assert!(read(&connect(b"MQTT", 4, 0b0100_0010, &[0, 1, b'a', 0, 1, b'p']), None).is_err());
        let Ok(Inbound::Connect(hello)) =
            read(&connect(b"MQTT", 5, 0b0100_0010, &[0, 0, 0, 0, 1, b'p']), None)
        else {
            panic!()
        };
        assert_eq!(hello.password.as_deref(), Some("p"));
    }

    /// Properties that announce less than they hold do not eat into the payload.
    #[test]
    fn properties_keep_to_their_length() {
        // Topic "t", properties of announced length 1 whose one property has 2 bytes.
        let overrun = [0x30, 7, 0, 1, b't', 1, 0x01, 0x00, b'x'];
        assert!(read(&overrun, Some(Version::V5)).is_err());
        let exact = [0x30, 7, 0, 1, b't', 2, 0x01, 0x00, b'x'];
        let Ok(Inbound::Publish(publish)) = read(&exact, Some(Version::V5)) else { panic!() };
        assert_eq!(publish.payload, Bytes::from_static(b"x"));
    }

    /// v5 DISCONNECT is legal with 0 and 1 bytes, which the codec alone refuses.
    #[test]
    fn short_disconnects() {
        for bytes in [&[0xe0, 0][..], &[0xe0, 1, 0], &[0xe0, 2, 4, 0]] {
            let plain = Inbound::Disconnect { session_expiry_s: None };
            assert_eq!(read(bytes, Some(Version::V5)), Ok(plain));
        }
        let expiring = [0xe0, 7, 0, 5, 0x11, 0, 0, 1, 0];
        let told = Inbound::Disconnect { session_expiry_s: Some(256) };
        assert_eq!(read(&expiring, Some(Version::V5)), Ok(told));
    }

    /// Packet id 0, empty filter lists and topics that are no text are malformed in both versions.
    #[test]
    fn ids_filters_and_topics() {
        for version in [Version::V4, Version::V5] {
            let properties: &[u8] = if version == Version::V5 { &[0] } else { &[] };
            let packet = |first: u8, id: u8, rest: &[u8]| {
                let body = [&[0, id][..], properties, rest].concat();
                [&[first, body.len() as u8][..], &body].concat()
            };
            assert!(read(&packet(0x82, 0, &[0, 1, b'a', 0]), Some(version)).is_err());
            assert!(read(&packet(0x82, 1, &[]), Some(version)).is_err());
            assert!(read(&packet(0xa2, 1, &[]), Some(version)).is_err());
            assert!(read(&packet(0x82, 1, &[0, 1, b'a', 1]), Some(version)).is_ok());
            assert!(read(&packet(0xa2, 1, &[0, 1, b'a']), Some(version)).is_ok());
            assert!(read(&[0x30, 4, 0, 1, 0xff, 0], Some(version)).is_err());
        }
    }
}
