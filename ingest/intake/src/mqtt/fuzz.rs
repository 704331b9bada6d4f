//! Bytes from anybody through framing, codec, session and back, as a connection does it but without a socket. For the
//! fuzzer (feature `fuzz`) and the property tests; not part of the product.

use std::collections::HashMap;

use bytes::BytesMut;
use schemas_identity::ShortId;

use super::end::End;
use super::guard::{Framing, frame};
use super::inbound::{Version, decode};
use super::outbound::{Ack, encode};
use super::session::{Action, Admitted, Limits, Session};
use super::verdict::Standing;
use crate::admission::Allowed;

const LIMITS: Limits = Limits {
    packet_bytes_max: 4_096,
    receive_max: 8,
    subscriptions_max: 8,
    keep_alive_s_max: 60,
    topic_alias_max: 4,
};

/// What a run came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Whole packets read.
    pub packets: usize,
    /// Publishes offered for a decision.
    pub taken: usize,
    /// Bytes that would have gone to the client.
    pub answered: usize,
}

struct Run {
    session: Session,
    outcome: Outcome,
    undecided: usize,
    subscribed: HashMap<ShortId, bool>,
    /// Decide each publish at once, or all at the end.
    is_prompt: bool,
    allowed: Allowed,
}

/// Feeds `bytes` in pieces as the first byte tells: bit 0 decides late, bit 1 allows no device, bit 2 resumes a session,
/// the others are the size of a piece.
pub fn feed(bytes: &[u8]) -> Outcome {
    let Some((control, stream)) = bytes.split_first() else { return Outcome::default() };
    let allowed = if control & 2 == 0 { Allowed::All } else { Allowed::Only(std::sync::Arc::default()) };
    let mut run = Run {
        session: Session::new(LIMITS, "assigned".into()),
        outcome: Outcome::default(),
        undecided: 0,
        subscribed: HashMap::new(),
        is_prompt: control & 1 == 0,
        allowed,
    };
    if control & 4 != 0 {
        run.subscribed.insert(ShortId([1; 8]), true);
    }
    let mut buffer = BytesMut::new();
    for piece in stream.chunks(usize::from(control >> 3) * 8 + 1) {
        buffer.extend_from_slice(piece);
        if run.read(&mut buffer).is_err() {
            break;
        }
    }
    let _ended = run.finish();
    run.outcome
}

impl Run {
    fn read(&mut self, buffer: &mut BytesMut) -> Result<(), End> {
        while let Framing::Whole { kind, header, total } =
            frame(buffer, self.session.greeted(), LIMITS.packet_bytes_max as usize)?
        {
            assert!(total > 0 && header <= total && total <= buffer.len(), "progress within the buffer");
            let packet = decode(kind, header, buffer.split_to(total), self.session.version())?;
            self.outcome.packets += 1;
            let actions = self.session.on(packet);
            self.perform(actions)?;
        }
        Ok(())
    }

    fn perform(&mut self, actions: Vec<Action>) -> Result<(), End> {
        for action in actions {
            match action {
                Action::Authenticate(asked) => {
                    let resumed = (!asked.clean).then(|| self.subscribed.clone());
                    let answer = Admitted { allowed: self.allowed.clone(), resumed, session_expiry_s: 9 };
                    let actions = self.session.admitted(Ok(answer));
                    self.perform(actions)?;
                }
                Action::Take { device, payload } => {
                    self.outcome.taken += 1;
                    self.undecided += 1;
                    assert!(self.allowed.permits(&device), "only allowed devices are offered");
                    let cut = crate::cut::cut(&payload, Some(device), 64);
                    assert!(cut.is_ok() || payload.len() >= 64);
                    if self.is_prompt {
                        self.decide()?;
                    }
                }
                Action::Send(packet) => self.send(&packet),
                Action::Subscribe { device, at_least_once, .. } => {
                    self.subscribed.insert(device, at_least_once);
                    self.tell(device);
                }
                Action::Unsubscribe { device } => {
                    self.subscribed.remove(&device);
                }
                Action::WillIgnored => {}
                Action::End(end) => return Err(end),
            }
        }
        Ok(())
    }

    fn decide(&mut self) -> Result<(), End> {
        self.undecided -= 1;
        let actions = self.session.decided(Ack::Refused, Some("SIG_BAD".to_owned()));
        self.perform(actions)
    }

    fn tell(&mut self, device: ShortId) {
        while self.session.may_send_verdict() {
            let Some(packet) = self.session.verdict(device, Standing::default()) else { return };
            self.send(&packet);
            if matches!(packet, super::outbound::Outbound::Publish { pkid: None, .. }) {
                return;
            }
        }
    }

    fn send(&mut self, packet: &super::outbound::Outbound) {
        let mut out = BytesMut::new();
        let version = self.session.version().unwrap_or(Version::V4);
        let bytes_max = self.session.packet_bytes_max();
        if encode(packet, version, bytes_max, &mut out) {
            assert!(bytes_max.is_none_or(|max| out.len() <= max as usize), "the client's maximum holds");
        } else {
            assert!(out.is_empty(), "nothing or all of a packet");
        }
        self.outcome.answered += out.len();
    }

    fn finish(&mut self) -> Result<(), End> {
        while self.undecided > 0 {
            self.decide()?;
        }
        for device in self.subscribed.keys().copied().collect::<Vec<_>>() {
            self.tell(device);
        }
        let _unacknowledged = self.session.take_unacked();
        Ok(())
    }
}
