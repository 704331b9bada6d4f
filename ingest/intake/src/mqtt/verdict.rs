//! The verdict message, and how messages that wait for a slow subscriber merge.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use parking_lot::Mutex;
use schemas_frame::{Code, DeviceReport, Verdict};
use schemas_identity::{BootId, ShortId};
use serde::Serialize;
use tokio::sync::Notify;

use super::outbound::Ack;

/// Most exceptions in one message; the oldest of a merged message go first, and are counted.
pub(crate) const EXCEPTIONS_MAX: usize = 64;
/// Most gaps in one message: the first ones, which are the ones to fill first.
const GAPS_MAX: usize = 256;

/// Where a device stands, as its subscribers are told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) acked_to: Option<(BootId, u64)>,
    pub(crate) gaps: Vec<(u64, u64)>,
    pub(crate) exceptions: VecDeque<Exception>,
    pub(crate) server_time_us: i64,
}

/// A frame whose verdict is not `OK`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Exception {
    boot: Option<BootId>,
    seq: Option<u64>,
    code: Code,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

#[derive(Serialize)]
struct Message<'a> {
    acked_to: Option<AckedTo>,
    gaps: Vec<[u64; 2]>,
    exceptions: &'a VecDeque<Exception>,
    server_time: i64,
}

#[derive(Serialize)]
struct AckedTo {
    boot: BootId,
    seq: u64,
}

impl Standing {
    /// What one publish of `device` came to. `report` is the pipeline's, if it had something to say.
    pub(crate) fn of(report: Option<&DeviceReport>, verdicts: &[Verdict], server_time_us: i64) -> Self {
        let mut standing = Standing { server_time_us, ..Standing::default() };
        if let Some(report) = report {
            standing.acked_to = report.acked_to;
            standing.gaps = report.gaps.iter().take(GAPS_MAX).copied().collect();
        }
        for verdict in verdicts.iter().filter(|verdict| verdict.code != Code::Ok).take(EXCEPTIONS_MAX) {
            standing.exceptions.push_back(Exception {
                boot: verdict.boot,
                seq: verdict.seq,
                code: verdict.code,
                hint: verdict.hint.clone(),
            });
        }
        standing
    }

    /// Takes `acked_to` and `gaps` from an earlier standing if this one says nothing newer about the same boot:
    /// verdicts of several connections may cross.
    pub(crate) fn not_before(&mut self, earlier: &Standing) {
        let older = match (self.acked_to, earlier.acked_to) {
            (None, _) => true,
            (Some((boot, seq)), Some((earlier_boot, earlier_seq))) => {
                boot == earlier_boot && seq < earlier_seq
            }
            (Some(_), None) => false,
        };
        if older {
            self.acked_to = earlier.acked_to;
            self.gaps.clone_from(&earlier.gaps);
        }
    }

    /// Puts the exceptions of a message that was not sent before this one's. Returns how many no longer fitted.
    fn absorb(&mut self, unsent: Standing) -> usize {
        let mut exceptions = unsent.exceptions;
        exceptions.extend(self.exceptions.drain(..));
        let dropped = exceptions.len().saturating_sub(EXCEPTIONS_MAX);
        exceptions.drain(..dropped);
        self.exceptions = exceptions;
        dropped
    }

    /// The JSON of the contract.
    pub(crate) fn message(&self) -> Bytes {
        let message = Message {
            acked_to: self.acked_to.map(|(boot, seq)| AckedTo { boot, seq }),
            gaps: self.gaps.iter().map(|(from, to)| [*from, *to]).collect(),
            exceptions: &self.exceptions,
            server_time: self.server_time_us,
        };
        // Numbers, hex and strings always serialise.
        serde_json::to_vec(&message).map(Bytes::from).unwrap_or_default()
    }
}

/// The `PUBACK` reason of a publish: that of its first refused frame.
pub(crate) fn ack_of(verdicts: &[Verdict]) -> (Ack, Option<String>) {
    let Some(refused) = verdicts.iter().find(|verdict| !verdict.code.is_accepted()) else {
        return (Ack::Accepted, None);
    };
    let ack = match refused.code {
        Code::Decode => Ack::Format,
        Code::SigBad | Code::KeyUnknown | Code::KeyRevoked => Ack::NotAuthorized,
        _ => Ack::Refused,
    };
    let hint = match &refused.hint {
        Some(hint) => format!("{}: {hint}", refused.code),
        None => refused.code.to_string(),
    };
    (ack, Some(hint))
}

/// What became of a push into an [`Outbox`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pushed {
    pub(crate) merged: bool,
    pub(crate) exceptions_dropped: usize,
}

/// Verdicts waiting for one subscriber: at most one per device, so bounded by its subscriptions.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    waiting: Mutex<Waiting>,
    /// Woken when something is pushed.
    pub(crate) ready: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    order: VecDeque<ShortId>,
    standings: HashMap<ShortId, Standing>,
}

impl Outbox {
    /// Queues a verdict; one that still waits for the same device is merged into it.
    pub(crate) fn push(&self, device: ShortId, mut standing: Standing) -> Pushed {
        let mut waiting = self.waiting.lock();
        let pushed = match waiting.standings.remove(&device) {
            Some(unsent) => {
                standing.not_before(&unsent);
                Pushed { merged: true, exceptions_dropped: standing.absorb(unsent) }
            }
            None => {
                waiting.order.push_back(device);
                Pushed { merged: false, exceptions_dropped: 0 }
            }
        };
        waiting.standings.insert(device, standing);
        drop(waiting);
        self.ready.notify_one();
        pushed
    }

    /// Puts back a verdict that was sent and not acknowledged, before what has come since.
    pub(crate) fn push_back_unsent(&self, device: ShortId, unsent: Standing) {
        let mut waiting = self.waiting.lock();
        match waiting.standings.get_mut(&device) {
            Some(newer) => {
                newer.not_before(&unsent);
                newer.absorb(unsent);
            }
            None => {
                waiting.order.push_back(device);
                waiting.standings.insert(device, unsent);
            }
        }
        drop(waiting);
        self.ready.notify_one();
    }

    /// Devices whose verdict waits.
    pub(crate) fn len(&self) -> usize {
        self.waiting.lock().order.len()
    }

    /// The device whose verdict has waited longest, with its verdict.
    pub(crate) fn pop(&self) -> Option<(ShortId, Standing)> {
        let mut waiting = self.waiting.lock();
        let device = waiting.order.pop_front()?;
        let standing = waiting.standings.remove(&device)?;
        Some((device, standing))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOT: BootId = BootId([7; 8]);

    fn verdict(seq: u64, code: Code) -> Verdict {
        Verdict { device: None, boot: Some(BOOT), seq: Some(seq), code, flags: 0, hint: None }
    }

    fn report(seq: u64) -> DeviceReport {
        DeviceReport { device: ShortId([1; 8]), acked_to: Some((BOOT, seq)), gaps: vec![(3, 5)] }
    }

    /// The message has the names and shapes of the contract.
    #[test]
    fn the_message_is_the_contracts() {
        let standing = Standing::of(Some(&report(9)), &[verdict(8, Code::Ok), verdict(9, Code::Range)], 42);
        let json: serde_json::Value = serde_json::from_slice(&standing.message()).unwrap();
        let expected = serde_json::json!({
            "acked_to": {"boot": "0707070707070707", "seq": 9},
            "gaps": [[3, 5]],
            "exceptions": [{"boot": "0707070707070707", "seq": 9, "code": "RANGE"}],
            "server_time": 42
        });
        assert_eq!(json, expected);
        let nothing: serde_json::Value = serde_json::from_slice(&Standing::default().message()).unwrap();
        assert_eq!(nothing["acked_to"], serde_json::Value::Null);
    }

    /// PUBACK reasons follow the first refused frame; kept and repeated frames are no refusal.
    #[test]
    fn puback_follows_the_first_refusal() {
        let cases = [
            (vec![Code::Ok, Code::Dup, Code::Range, Code::NotBound], Ack::Accepted),
            (vec![Code::Ok, Code::Decode, Code::SigBad], Ack::Format),
            (vec![Code::SigBad, Code::Decode], Ack::NotAuthorized),
            (vec![Code::KeyRevoked], Ack::NotAuthorized),
            (vec![Code::Equivocation], Ack::Refused),
            (vec![Code::TooBig], Ack::Refused),
        ];
        for (codes, ack) in cases {
            let verdicts: Vec<Verdict> = codes.into_iter().map(|code| verdict(0, code)).collect();
            assert_eq!(ack_of(&verdicts).0, ack);
        }
    }

    /// A slow subscriber gets the newest position and the exceptions of all, in order, within the bound.
    #[test]
    fn waiting_verdicts_merge_within_bounds() {
        let outbox = Outbox::default();
        let device = ShortId([1; 8]);
        for seq in 0..1_000 {
            outbox.push(device, Standing::of(Some(&report(seq)), &[verdict(seq, Code::SigBad)], 0));
        }
        let (_, standing) = outbox.pop().unwrap();
        assert_eq!(standing.acked_to, Some((BOOT, 999)));
        let seqs: Vec<u64> = standing.exceptions.iter().filter_map(|exception| exception.seq).collect();
        assert_eq!(seqs, (1_000 - EXCEPTIONS_MAX as u64..1_000).collect::<Vec<_>>());
        assert!(outbox.pop().is_none());
    }

    /// A position never steps back within a boot, and a refusal without a report keeps the last one.
    #[test]
    fn positions_do_not_step_back() {
        let earlier = Standing::of(Some(&report(9)), &[], 0);
        for later in [Standing::of(Some(&report(8)), &[], 1), Standing::of(None, &[], 1)] {
            let mut merged = later;
            merged.not_before(&earlier);
            assert_eq!(merged.acked_to, Some((BOOT, 9)));
        }
        let other_boot = DeviceReport { acked_to: Some((BootId([8; 8]), 0)), ..report(0) };
        let mut fresh = Standing::of(Some(&other_boot), &[], 1);
        fresh.not_before(&earlier);
        assert_eq!(fresh.acked_to, Some((BootId([8; 8]), 0)));
    }
}
