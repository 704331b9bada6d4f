//! Packets to a client, encoded by rumqttc's codec in the client's version.

use bytes::{Bytes, BytesMut};
use rumqttc::mqttbytes::{QoS as QoS4, v4};
use rumqttc::v5::mqttbytes::QoS as QoS5;
use rumqttc::v5::mqttbytes::v5;

use super::inbound::Version;

/// A packet to a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outbound {
    ConnAck(Box<Welcome>),
    ConnRefused(Refusal),
    PubAck { pkid: u16, ack: Ack, hint: Option<String> },
    SubAck { pkid: u16, codes: Vec<SubCode> },
    UnsubAck { pkid: u16, existed: Vec<bool> },
    PingResp,
    Publish { topic: String, pkid: Option<u16>, payload: Bytes },
    Disconnect { code: v5::DisconnectReasonCode, hint: &'static str },
}

/// What an accepted client is told (v5; 3.1.1 has words for the session alone).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Welcome {
    /// In both versions.
    pub(crate) session_present: bool,
    pub(crate) session_expiry_s: u32,
    pub(crate) topic_alias_max: u16,
    pub(crate) receive_max: u16,
    pub(crate) packet_bytes_max: u32,
    pub(crate) keep_alive_s: Option<u16>,
    pub(crate) assigned_client_id: Option<String>,
}

/// Why `CONNECT` is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    Version,
    ClientId,
    Credentials,
    AuthMethod,
    Protocol,
}

/// The reason of a `PUBACK`, as in the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ack {
    /// 0x00: every frame is accepted.
    Accepted,
    /// 0x99: not a frame.
    Format,
    /// 0x87: signature or key, or a device of somebody else.
    NotAuthorized,
    /// 0x90: no such topic.
    Topic,
    /// 0x83: any other refusal.
    Refused,
}

/// The answer to one filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SubCode {
    AtMostOnce,
    AtLeastOnce,
    NotAuthorized,
    Wildcard,
    Shared,
    Quota,
}

/// Appends the packet to `out`. False if it has no form in this version or exceeds the client's own maximum, and
/// then nothing was appended.
pub(crate) fn encode(
    packet: &Outbound,
    version: Version,
    bytes_max: Option<u32>,
    out: &mut BytesMut,
) -> bool {
    let before = out.len();
    let written = match version {
        Version::V4 => v4_packet(packet).is_some_and(|packet| packet.write(out, usize::MAX).is_ok()),
        Version::V5 => v5_packet(packet).write(out, bytes_max).is_ok(),
    };
    if !written {
        out.truncate(before);
    }
    written
}

fn v4_packet(packet: &Outbound) -> Option<v4::Packet> {
    Some(match packet {
        Outbound::ConnAck(welcome) => {
            let code = v4::ConnectReturnCode::Success;
            v4::Packet::ConnAck(v4::ConnAck::new(code, welcome.session_present))
        }
        Outbound::ConnRefused(refusal) => {
            let code = match refusal {
                Refusal::Version => v4::ConnectReturnCode::RefusedProtocolVersion,
                Refusal::ClientId => v4::ConnectReturnCode::BadClientId,
                Refusal::Credentials | Refusal::AuthMethod => v4::ConnectReturnCode::NotAuthorized,
                Refusal::Protocol => return None,
            };
            v4::Packet::ConnAck(v4::ConnAck::new(code, false))
        }
        Outbound::PubAck { pkid, .. } => v4::Packet::PubAck(v4::PubAck::new(*pkid)),
        Outbound::SubAck { pkid, codes } => {
            let codes = codes.iter().map(|code| match code {
                SubCode::AtMostOnce => v4::SubscribeReasonCode::Success(QoS4::AtMostOnce),
                SubCode::AtLeastOnce => v4::SubscribeReasonCode::Success(QoS4::AtLeastOnce),
                _ => v4::SubscribeReasonCode::Failure,
            });
            v4::Packet::SubAck(v4::SubAck::new(*pkid, codes.collect()))
        }
        Outbound::UnsubAck { pkid, .. } => v4::Packet::UnsubAck(v4::UnsubAck::new(*pkid)),
        Outbound::PingResp => v4::Packet::PingResp,
        Outbound::Publish { topic, pkid, payload } => {
            let qos = if pkid.is_some() { QoS4::AtLeastOnce } else { QoS4::AtMostOnce };
            let mut publish = v4::Publish::from_bytes(topic, qos, payload.clone());
            publish.pkid = pkid.unwrap_or_default();
            v4::Packet::Publish(publish)
        }
        Outbound::Disconnect { .. } => return None,
    })
}

fn v5_packet(packet: &Outbound) -> v5::Packet {
    match packet {
        Outbound::ConnAck(welcome) => v5::Packet::ConnAck(v5::ConnAck {
            session_present: welcome.session_present,
            code: v5::ConnectReturnCode::Success,
            properties: Some(capabilities(welcome)),
        }),
        Outbound::ConnRefused(refusal) => {
            let code = match refusal {
                Refusal::Version => v5::ConnectReturnCode::UnsupportedProtocolVersion,
                Refusal::ClientId => v5::ConnectReturnCode::ClientIdentifierNotValid,
                Refusal::Credentials => v5::ConnectReturnCode::NotAuthorized,
                Refusal::AuthMethod => v5::ConnectReturnCode::BadAuthenticationMethod,
                Refusal::Protocol => v5::ConnectReturnCode::ProtocolError,
            };
            v5::Packet::ConnAck(v5::ConnAck { session_present: false, code, properties: None })
        }
        Outbound::PubAck { pkid, ack, hint } => {
            let reason = match ack {
                Ack::Accepted => v5::PubAckReason::Success,
                Ack::Format => v5::PubAckReason::PayloadFormatInvalid,
                Ack::NotAuthorized => v5::PubAckReason::NotAuthorized,
                Ack::Topic => v5::PubAckReason::TopicNameInvalid,
                Ack::Refused => v5::PubAckReason::ImplementationSpecificError,
            };
            let properties = hint.as_ref().map(|hint| v5::PubAckProperties {
                reason_string: Some(hint.clone()),
                user_properties: Vec::new(),
            });
            v5::Packet::PubAck(v5::PubAck { pkid: *pkid, reason, properties })
        }
        Outbound::SubAck { pkid, codes } => {
            let return_codes = codes.iter().map(|code| sub_code_v5(*code)).collect();
            v5::Packet::SubAck(v5::SubAck { pkid: *pkid, return_codes, properties: None })
        }
        Outbound::UnsubAck { pkid, existed } => {
            let reasons = existed.iter().map(|existed| match existed {
                true => v5::UnsubAckReason::Success,
                false => v5::UnsubAckReason::NoSubscriptionExisted,
            });
            v5::Packet::UnsubAck(v5::UnsubAck { pkid: *pkid, reasons: reasons.collect(), properties: None })
        }
        Outbound::PingResp => v5::Packet::PingResp(v5::PingResp),
        Outbound::Publish { topic, pkid, payload } => {
            let qos = if pkid.is_some() { QoS5::AtLeastOnce } else { QoS5::AtMostOnce };
            let mut publish = v5::Publish::new(topic, qos, payload.clone(), None);
            publish.pkid = pkid.unwrap_or_default();
            v5::Packet::Publish(publish)
        }
        Outbound::Disconnect { code, hint } => v5::Packet::Disconnect(v5::Disconnect {
            reason_code: *code,
            // Without a property the codec writes one byte more than it announces.
            properties: Some(v5::DisconnectProperties {
                session_expiry_interval: None,
                reason_string: Some((*hint).to_owned()),
                user_properties: Vec::new(),
                server_reference: None,
            }),
        }),
    }
}

fn sub_code_v5(code: SubCode) -> v5::SubscribeReasonCode {
    match code {
        SubCode::AtMostOnce => v5::SubscribeReasonCode::Success(QoS5::AtMostOnce),
        SubCode::AtLeastOnce => v5::SubscribeReasonCode::Success(QoS5::AtLeastOnce),
        SubCode::NotAuthorized => v5::SubscribeReasonCode::NotAuthorized,
        SubCode::Wildcard => v5::SubscribeReasonCode::WildcardSubscriptionsNotSupported,
        SubCode::Shared => v5::SubscribeReasonCode::SharedSubscriptionsNotSupported,
        SubCode::Quota => v5::SubscribeReasonCode::QuotaExceeded,
    }
}

fn capabilities(welcome: &Welcome) -> v5::ConnAckProperties {
    v5::ConnAckProperties {
        session_expiry_interval: Some(welcome.session_expiry_s),
        receive_max: Some(welcome.receive_max),
        max_qos: Some(1),
        retain_available: Some(0),
        max_packet_size: Some(welcome.packet_bytes_max),
        assigned_client_identifier: welcome.assigned_client_id.clone(),
        topic_alias_max: Some(welcome.topic_alias_max),
        reason_string: None,
        user_properties: Vec::new(),
        wildcard_subscription_available: Some(0),
        subscription_identifiers_available: Some(0),
        shared_subscription_available: Some(0),
        server_keep_alive: welcome.keep_alive_s,
        response_information: None,
        server_reference: None,
        authentication_method: None,
        authentication_data: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(packet: &Outbound, version: Version) -> Vec<u8> {
        let mut out = BytesMut::new();
        encode(packet, version, None, &mut out);
        out.to_vec()
    }

    /// The announced length of a v5 DISCONNECT is its real one (the codec errs without properties).
    #[test]
    fn disconnect_is_as_long_as_it_says() {
        let packet = Outbound::Disconnect { code: v5::DisconnectReasonCode::QuotaExceeded, hint: "full" };
        let out = bytes(&packet, Version::V5);
        assert_eq!(usize::from(out[1]), out.len() - 2);
        assert_eq!(out[..3], [0xe0, 9, 0x97]);
        assert!(bytes(&packet, Version::V4).is_empty());
    }

    /// The reasons of the contract are the bytes of the contract; 3.1.1 acknowledges without a reason.
    #[test]
    fn puback_reasons() {
        for (ack, byte) in
            [(Ack::Format, 0x99), (Ack::NotAuthorized, 0x87), (Ack::Refused, 0x83), (Ack::Topic, 0x90)]
        {
            let packet = Outbound::PubAck { pkid: 7, ack, hint: None };
            assert_eq!(bytes(&packet, Version::V5), [0x40, 4, 0, 7, byte, 0]);
            assert_eq!(bytes(&packet, Version::V4), [0x40, 2, 0, 7]);
        }
        let accepted = Outbound::PubAck { pkid: 7, ack: Ack::Accepted, hint: None };
        assert_eq!(bytes(&accepted, Version::V5), [0x40, 2, 0, 7]);
    }

    /// A packet over the client's own maximum is not sent, nor half of it.
    #[test]
    fn the_clients_maximum_holds() {
        let packet = Outbound::Publish { topic: "t".into(), pkid: None, payload: Bytes::from(vec![0; 100]) };
        let mut out = BytesMut::new();
        assert!(!encode(&packet, Version::V5, Some(50), &mut out));
        assert!(out.is_empty());
        assert!(encode(&packet, Version::V5, Some(200), &mut out));
    }
}
