//! What is checked before the codec sees a byte: packet type, flags, length.
//!
//! rumqttc's codec was written for clients that trust their broker. Read for 0.25.1, it does not panic on bytes within
//! a whole packet, but it leaves to others:
//! - fixed-header flags (not checked, except v5 `DISCONNECT`), so they are checked here;
//! - "insufficient bytes" from *inside* a packet, after the packet was taken off the buffer: whole packets only are
//!   handed over, so any error is a malformed packet;
//! - bounds: a list of user properties of 5 bytes each costs 48 each, so packets that carry lists are small here;
//! - properties that run over their announced length into the payload: `inbound.rs` compares lengths afterwards;
//! - v5 `DISCONNECT` of 0 and 1 bytes (refused by the codec, legal in MQTT): read in `inbound.rs` without it.

use super::end::End;

/// Most bytes of `CONNECT`: client id, user name, a token, a will that is ignored anyway.
const CONNECT_BYTES_MAX: usize = 16 * 1024;
/// Most bytes of `SUBSCRIBE` and `UNSUBSCRIBE`: over a thousand of our topics.
const SUBSCRIBE_BYTES_MAX: usize = 64 * 1024;
/// Most bytes of every other packet: an id, a reason, a phrase.
const SMALL_BYTES_MAX: usize = 4 * 1024;
/// Remaining length has at most four bytes.
const LENGTH_BYTES_MAX: usize = 4;

/// Packet types that a client may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Connect,
    Publish,
    PubAck,
    Subscribe,
    Unsubscribe,
    PingReq,
    Disconnect,
}

/// What the buffer begins with.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// Not a whole packet yet; `total` is its length once the header tells.
    Incomplete { total: Option<usize> },
    /// A whole packet of `total` bytes, of which the first `header` are its fixed header.
    Whole { kind: Kind, header: usize, total: usize },
}

/// Looks at the fixed header. `connected`: whether `CONNECT` has been accepted.
///
/// Errors end the connection: a type out of place, wrong flags, or a length over the bound.
pub(crate) fn frame(buffer: &[u8], connected: bool, publish_bytes_max: usize) -> Result<Framing, End> {
    let Some((first, after)) = buffer.split_first() else {
        return Ok(Framing::Incomplete { total: None });
    };
    let kind = kind(*first)?;
    if connected == (kind == Kind::Connect) {
        return Err(End::Protocol("CONNECT comes first and once"));
    }
    let Some((length_bytes, remaining)) = remaining_length(after)? else {
        return Ok(Framing::Incomplete { total: None });
    };
    let max = match kind {
        Kind::Connect => CONNECT_BYTES_MAX,
        Kind::Publish => publish_bytes_max,
        Kind::Subscribe | Kind::Unsubscribe => SUBSCRIBE_BYTES_MAX,
        Kind::PubAck | Kind::PingReq | Kind::Disconnect => SMALL_BYTES_MAX,
    };
    if remaining > max {
        return Err(End::TooLarge);
    }
    let header = 1 + length_bytes;
    let total = header + remaining;
    if buffer.len() < total {
        return Ok(Framing::Incomplete { total: Some(total) });
    }
    Ok(Framing::Whole { kind, header, total })
}

fn kind(first: u8) -> Result<Kind, End> {
    let (kind, flags_wanted) = match first >> 4 {
        1 => (Kind::Connect, 0),
        3 => return publish(first),
        4 => (Kind::PubAck, 0),
        5..=7 => return Err(End::Protocol("a packet of QoS 2")),
        8 => (Kind::Subscribe, 2),
        10 => (Kind::Unsubscribe, 2),
        12 => (Kind::PingReq, 0),
        14 => (Kind::Disconnect, 0),
        2 | 9 | 11 | 13 => return Err(End::Protocol("a packet that only servers send")),
        15 => return Err(End::Protocol("no authentication exchange was begun")),
        _ => return Err(End::Malformed("packet type 0")),
    };
    if first & 0x0f != flags_wanted {
        return Err(End::Malformed("flags of the fixed header"));
    }
    Ok(kind)
}

fn publish(first: u8) -> Result<Kind, End> {
    match (first >> 1) & 0b11 {
        0 if first & 0b1000 != 0 => Err(End::Malformed("DUP with QoS 0")),
        0 | 1 => Ok(Kind::Publish),
        2 => Err(End::QosUnsupported),
        _ => Err(End::Malformed("QoS 3")),
    }
}

/// Number of bytes and value of a variable byte integer; `None` if it is not whole yet.
pub(crate) fn remaining_length(bytes: &[u8]) -> Result<Option<(usize, usize)>, End> {
    let mut value = 0;
    for (index, byte) in bytes.iter().take(LENGTH_BYTES_MAX).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(Some((index + 1, value)));
        }
    }
    match bytes.len() < LENGTH_BYTES_MAX {
        true => Ok(None),
        false => Err(End::Malformed("variable byte integer")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 1_000;

    /// Each first packet and each flag out of place ends the connection before more is read.
    #[test]
    fn types_and_flags() {
        for (first, connected) in [
            (0x00, false), // type 0
            (0x30, false), // PUBLISH before CONNECT
            (0x10, true),  // second CONNECT
            (0x11, false), // CONNECT with flags
            (0x36, true),  // QoS 3
            (0x34, true),  // QoS 2
            (0x38, true),  // DUP with QoS 0
            (0x80, true),  // SUBSCRIBE without its flag
            (0xa0, true),  // UNSUBSCRIBE without its flag
            (0x62, true),  // PUBREL
            (0x20, true),  // CONNACK
            (0xd0, true),  // PINGRESP
            (0xf0, true),  // AUTH
            (0xe1, true),  // DISCONNECT with flags
        ] {
            assert!(frame(&[first], connected, MAX).is_err(), "{first:#x}");
        }
        for (first, connected) in [(0x10, false), (0x30, true), (0x3b, true), (0x82, true), (0xc0, true)] {
            assert_eq!(frame(&[first], connected, MAX).unwrap(), Framing::Incomplete { total: None });
        }
    }

    /// A length over the bound is refused as soon as it is announced, not when it has arrived.
    #[test]
    fn lengths_are_bounded_when_announced() {
        assert_eq!(
            frame(&[0x30, 0xe8, 0x07], true, MAX).unwrap(),
            Framing::Incomplete { total: Some(1_003) }
        );
        assert_eq!(frame(&[0x30, 0xe9, 0x07], true, MAX).unwrap_err(), End::TooLarge);
        assert_eq!(frame(&[0x10, 0xff, 0xff, 0x7f], false, MAX).unwrap_err(), End::TooLarge);
        assert!(matches!(frame(&[0x30, 0xff, 0xff, 0xff, 0xff], true, MAX), Err(End::Malformed(_))));
        assert_eq!(frame(&[0x30, 0xff, 0xff], true, MAX).unwrap(), Framing::Incomplete { total: None });
    }

    /// Whole packets are told with their header's length.
    #[test]
    fn whole_packets() {
        let ping = Framing::Whole { kind: Kind::PingReq, header: 2, total: 2 };
        assert_eq!(frame(&[0xc0, 0x00, 0xc0], true, MAX).unwrap(), ping);
    }
}
