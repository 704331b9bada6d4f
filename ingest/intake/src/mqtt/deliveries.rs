//! The publishes of one connection (of a device, or to a broker) that are not answered yet, in order of arrival.
//!
//! All that came together are offered to the queue together, so many are decided at a time; answers are taken from the front only, so
//! acknowledgements keep the order. A publish that finds the queue full stays here, unpromised, and is offered again.

use std::collections::VecDeque;

use bytes::Bytes;
use schemas_frame::{Code, Verdict};
use schemas_identity::ShortId;
use tokio::sync::oneshot::{self, error::TryRecvError};

use crate::admission::{Admission, Door, Reply, Via};
use crate::cut::Cut;
use crate::metrics::Metrics;

/// The pipeline is gone; nothing was promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gone;

/// A publish whose frames are all decided and durable.
#[derive(Debug)]
pub(crate) struct Settled {
    pub(crate) device: ShortId,
    pub(crate) verdicts: Vec<Verdict>,
    pub(crate) reply: Reply,
}

#[derive(Debug)]
struct Delivery {
    device: ShortId,
    cut: Cut,
    via: Via,
    progress: Progress,
}

#[derive(Debug)]
enum Progress {
    /// Nothing to offer: every frame was refused at the door.
    Decided,
    /// To be offered with those that came with it.
    Fresh,
    Waiting(oneshot::Receiver<Reply>),
    /// The queue was full.
    Blocked,
}

#[derive(Debug, Default)]
pub(crate) struct Deliveries {
    queue: VecDeque<Delivery>,
    /// How many of the queue are blocked: asked for each packet, so not counted each time.
    blocked: usize,
    /// How many at the end of the queue are fresh.
    fresh: usize,
}

impl Deliveries {
    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether a publish waits for room in the queue.
    pub(crate) fn is_blocked(&self) -> bool {
        self.blocked > 0
    }

    /// Whether the front can no longer be answered without another offer.
    pub(crate) fn is_stuck(&self) -> bool {
        let waits = |delivery: &Delivery| matches!(delivery.progress, Progress::Blocked | Progress::Fresh);
        self.queue.front().is_none_or(waits)
    }

    /// Takes a publish over, to be offered by [`Deliveries::flush`].
    pub(crate) fn take_later(&mut self, via: Via, device: ShortId, cut: Cut) {
        // Only an unbroken run at the end is offered together.
        let progress = match cut.frames.is_empty() {
            true if self.fresh == 0 => Progress::Decided,
            _ => Progress::Fresh,
        };
        self.fresh += usize::from(matches!(progress, Progress::Fresh));
        self.queue.push_back(Delivery { device, cut, via, progress });
    }

    /// Offers what was taken since the last call, in order and in one go. False if the queue was full for some.
    pub(crate) fn flush(&mut self, admission: &Admission) -> Result<bool, Gone> {
        let first = self.queue.len().saturating_sub(std::mem::take(&mut self.fresh));
        if first == self.queue.len() {
            return Ok(true);
        }
        // Never past one that is blocked: offers keep the order of arrival.
        let may_offer = !self.is_blocked();
        let fresh = self.queue.range_mut(first..);
        let offers = fresh.filter(|delivery| may_offer && !delivery.cut.frames.is_empty());
        let offers = offers.map(|delivery| (delivery.cut.frames.clone(), delivery.via.clone())).collect();
        let mut receivers = admission.offer_many(offers).map_err(|_| Gone)?.into_iter();
        let blocked_before = self.blocked;
        for delivery in self.queue.range_mut(first..) {
            if delivery.cut.frames.is_empty() {
                delivery.progress = Progress::Decided;
                continue;
            }
            delivery.progress = match receivers.next() {
                Some(receiver) => Progress::Waiting(receiver),
                None => Progress::Blocked,
            };
            self.blocked += usize::from(matches!(delivery.progress, Progress::Blocked));
        }
        Ok(self.blocked == blocked_before)
    }

    /// Takes a publish over and offers its frames. False if the queue was full.
    pub(crate) fn take(
        &mut self,
        admission: &Admission,
        via: Via,
        device: ShortId,
        cut: Cut,
    ) -> Result<bool, Gone> {
        let progress = if cut.frames.is_empty() { Progress::Decided } else { Progress::Blocked };
        // Never past one that is blocked: offers keep the order of arrival.
        let may_offer = !self.is_blocked();
        let mut delivery = Delivery { device, cut, via, progress };
        if may_offer {
            delivery.offer(admission)?;
        }
        let taken = !matches!(delivery.progress, Progress::Blocked);
        self.blocked += usize::from(!taken);
        self.queue.push_back(delivery);
        Ok(taken)
    }

    /// Offers what was blocked again, in order, until the queue is full again.
    pub(crate) fn retry(&mut self, admission: &Admission) -> Result<(), Gone> {
        for delivery in &mut self.queue {
            if matches!(delivery.progress, Progress::Blocked) {
                delivery.offer(admission)?;
                if matches!(delivery.progress, Progress::Blocked) {
                    break;
                }
                self.blocked = self.blocked.saturating_sub(1);
            }
        }
        Ok(())
    }

    /// Waits for the front's answer; for ever if there is none to come. Nothing is lost when the wait is given up.
    pub(crate) async fn answer(&mut self) -> Result<Reply, Gone> {
        match self.queue.front_mut().map(|delivery| &mut delivery.progress) {
            Some(Progress::Decided) => Ok(Reply::default()),
            Some(Progress::Waiting(receiver)) => receiver.await.map_err(|_| Gone),
            Some(Progress::Blocked | Progress::Fresh) | None => std::future::pending().await,
        }
    }

    /// The front's answer if it is there already.
    pub(crate) fn answer_now(&mut self) -> Option<Result<Reply, Gone>> {
        match self.queue.front_mut().map(|delivery| &mut delivery.progress)? {
            Progress::Decided => Some(Ok(Reply::default())),
            Progress::Waiting(receiver) => match receiver.try_recv() {
                Ok(reply) => Some(Ok(reply)),
                Err(TryRecvError::Empty) => None,
                Err(TryRecvError::Closed) => Some(Err(Gone)),
            },
            Progress::Blocked | Progress::Fresh => None,
        }
    }

    /// Completes the front with its answer. `None` if the pipeline took nothing of some frame: then the whole publish
    /// is offered again later (what was stored will come back as `DUP`).
    pub(crate) fn settle(&mut self, reply: Reply) -> Result<Option<Settled>, Gone> {
        let Some(front) = self.queue.front_mut() else { return Ok(None) };
        let verdicts = front.cut.complete(&reply);
        if verdicts.iter().any(|verdict| verdict.code == Code::Closed) {
            return Err(Gone);
        }
        if verdicts.iter().any(|verdict| verdict.code.is_retry()) {
            front.progress = Progress::Blocked;
            self.blocked += 1;
            return Ok(None);
        }
        let device = front.device;
        self.queue.pop_front();
        Ok(Some(Settled { device, verdicts, reply }))
    }

    /// Gives up what is left, and counts its frames as not taken.
    pub(crate) fn abandon(&mut self, door: Door, metrics: &Metrics) {
        let nothing = Reply::default();
        (self.blocked, self.fresh) = (0, 0);
        for delivery in self.queue.drain(..) {
            metrics.verdicts(door, &delivery.cut.complete(&nothing));
        }
    }
}

impl Delivery {
    fn offer(&mut self, admission: &Admission) -> Result<(), Gone> {
        let frames: Vec<Bytes> = self.cut.frames.clone();
        if frames.is_empty() {
            return Ok(());
        }
        match admission.offer(frames, self.via.clone()) {
            Ok(receiver) => self.progress = Progress::Waiting(receiver),
            Err(pressure) if pressure.closed => return Err(Gone),
            Err(_) => self.progress = Progress::Blocked,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::{AdmissionOptions, Allowed, Drain, Inbox, Submission};
    use crate::cut::cut;
    use crate::testing::{device_id, frame, verdict};

    fn take(deliveries: &mut Deliveries, admission: &Admission, seq: u64) -> Result<bool, Gone> {
        let via = Via { door: Door::Mqtt, peer: None, allowed: Allowed::All, topic_device: None };
        deliveries.take(admission, via, device_id(1), cut(&frame(1, seq), None, 8).unwrap())
    }

    fn drain(inbox: &mut Inbox) -> Vec<Submission> {
        let mut got = Vec::new();
        inbox.try_recv_many(&mut got, Drain::default());
        got
    }

    fn answer(submission: Submission, code: Code) {
        let verdicts = submission.frames.iter().map(|_| verdict(code)).collect();
        submission.reply.send(Reply { verdicts, reports: Vec::new() });
    }

    /// What finds the queue full is kept, later ones do not overtake it, and all go in order once there is room.
    #[test]
    fn blocked_publishes_keep_their_order() {
        let (admission, mut inbox) = Admission::new(AdmissionOptions { frames_max: 1, bytes_max: u64::MAX });
        let mut deliveries = Deliveries::default();
        assert_eq!(take(&mut deliveries, &admission, 0), Ok(true));
        assert_eq!(take(&mut deliveries, &admission, 1), Ok(false));
        assert_eq!(take(&mut deliveries, &admission, 2), Ok(false));
        for seq in 0..3 {
            let mut got = drain(&mut inbox);
            assert_eq!(got.len(), 1);
            assert_eq!(got[0].frames, [frame(1, seq)]);
            answer(got.remove(0), Code::Ok);
            let reply = deliveries.answer_now().unwrap().unwrap();
            assert!(deliveries.settle(reply).unwrap().is_some());
            deliveries.retry(&admission).unwrap();
        }
        assert_eq!(deliveries.len(), 0);
    }

    /// A publish does not overtake a blocked one, even if the queue has room again by then.
    #[test]
    fn nothing_overtakes_a_blocked_publish() {
        let (admission, mut inbox) = Admission::new(AdmissionOptions { frames_max: 1, bytes_max: u64::MAX });
        let mut deliveries = Deliveries::default();
        take(&mut deliveries, &admission, 0).unwrap();
        take(&mut deliveries, &admission, 1).unwrap();
        answer(drain(&mut inbox).remove(0), Code::Ok);
        assert_eq!(take(&mut deliveries, &admission, 2), Ok(false));
        assert!(drain(&mut inbox).is_empty());
        deliveries.retry(&admission).unwrap();
        assert_eq!(drain(&mut inbox)[0].frames, [frame(1, 1)]);
    }

    /// A frame that the pipeline did not take is offered again, not acknowledged.
    #[test]
    fn retry_after_is_offered_again() {
        let (admission, mut inbox) = Admission::new(AdmissionOptions::default());
        let mut deliveries = Deliveries::default();
        take(&mut deliveries, &admission, 0).unwrap();
        answer(drain(&mut inbox).remove(0), Code::RetryAfter);
        let reply = deliveries.answer_now().unwrap().unwrap();
        assert!(deliveries.settle(reply).unwrap().is_none());
        assert!(deliveries.is_blocked() && deliveries.is_stuck());
        deliveries.retry(&admission).unwrap();
        answer(drain(&mut inbox).remove(0), Code::Dup);
        let reply = deliveries.answer_now().unwrap().unwrap();
        assert_eq!(deliveries.settle(reply).unwrap().unwrap().verdicts[0].code, Code::Dup);
    }

    /// Without a pipeline nothing settles.
    #[test]
    fn a_gone_pipeline_settles_nothing() {
        let (admission, mut inbox) = Admission::new(AdmissionOptions::default());
        let mut deliveries = Deliveries::default();
        take(&mut deliveries, &admission, 0).unwrap();
        drop(drain(&mut inbox));
        assert_eq!(deliveries.answer_now().unwrap().unwrap_err(), Gone);
        drop(inbox);
        assert_eq!(take(&mut deliveries, &admission, 1), Err(Gone));
    }
}
