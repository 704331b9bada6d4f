//! One body or payload becomes frames to offer and verdicts that are known already.
//!
//! What it is: the step both doors share. A body is one frame or a CBOR sequence (RFC 8742) of frames. What needs no
//! key is decided here: bytes that are no frame (`DECODE`), too long ones (`TOO_BIG`), frames of another device than
//! the topic names (`TOPIC_MISMATCH`). Everything else goes to the pipeline, whose verdicts are then put in place.
//!
//! What it is not: it does not judge signatures, keys, sequence numbers or clocks.

use bytes::Bytes;
use schemas_frame::{Code, DecodeError, FRAME_BYTES_MAX, Frame, Verdict, next_frame_len};
use schemas_identity::ShortId;

use crate::admission::Reply;

/// A cut body.
#[derive(Debug)]
pub(crate) struct Cut {
    /// The frames to offer, in order.
    pub(crate) frames: Vec<Bytes>,
    /// The devices of those frames, in order.
    pub(crate) devices: Vec<ShortId>,
    /// One place per frame of the body: a verdict, or `None` where the pipeline's next verdict belongs.
    places: Vec<Option<Verdict>>,
}

/// The body holds more frames than one body may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("more than {frames_max} frames in one body")]
pub(crate) struct TooManyFrames {
    pub(crate) frames_max: usize,
}

impl Cut {
    /// A body that is refused as a whole.
    pub(crate) fn refused(code: Code, hint: String) -> Self {
        let places = vec![Some(refused(code, hint))];
        Cut { frames: Vec::new(), devices: Vec::new(), places }
    }

    /// Puts the pipeline's verdicts where they belong and returns all, in the order of the body. A missing verdict
    /// (which would be a fault of the pipeline) reads as "send again": nothing is promised that was not answered.
    pub(crate) fn complete(&self, reply: &Reply) -> Vec<Verdict> {
        let mut answered = reply.verdicts.iter();
        let mut verdicts = Vec::with_capacity(self.places.len());
        for place in &self.places {
            verdicts.push(match place {
                Some(decided) => decided.clone(),
                None => answered.next().cloned().unwrap_or_else(undecided),
            });
        }
        verdicts
    }

    /// How often each device occurs among the frames to offer.
    pub(crate) fn frames_by_device(&self) -> Vec<(ShortId, usize)> {
        let mut devices = self.devices.clone();
        devices.sort_unstable();
        let mut counts: Vec<(ShortId, usize)> = Vec::new();
        for device in devices {
            match counts.last_mut() {
                Some((last, count)) if *last == device => *count += 1,
                _ => counts.push((device, 1)),
            }
        }
        counts
    }
}

/// Cuts `body`. A byte that breaks the sequence ends it with `DECODE` at that place; frames before it stand.
/// `topic` is the device that the topic names, if there is a topic.
pub(crate) fn cut(body: &Bytes, topic: Option<ShortId>, frames_max: usize) -> Result<Cut, TooManyFrames> {
    let mut cut = Cut { frames: Vec::new(), devices: Vec::new(), places: Vec::new() };
    let mut rest = body.clone();
    if rest.is_empty() {
        cut.places.push(Some(refused(Code::Decode, "empty body: expected a frame".to_owned())));
    }
    // The usual body is one frame, and then it need not be measured before it is parsed.
    if let Ok(frame) = Frame::parse(body) {
        cut.offer(body, &frame, topic);
        return Ok(cut);
    }
    while !rest.is_empty() {
        if cut.places.len() >= frames_max {
            return Err(TooManyFrames { frames_max });
        }
        let len = match next_frame_len(&rest) {
            Ok(len) if len > 0 && len <= rest.len() => len,
            Ok(_) => rest.len(),
            Err(error) => {
                cut.places.push(Some(broken(&error)));
                break;
            }
        };
        cut.place(rest.split_to(len), topic);
    }
    Ok(cut)
}

impl Cut {
    fn place(&mut self, bytes: Bytes, topic: Option<ShortId>) {
        if bytes.len() > FRAME_BYTES_MAX {
            let hint = format!("{} bytes, the limit is {FRAME_BYTES_MAX}", bytes.len());
            self.places.push(Some(refused(Code::TooBig, hint)));
            return;
        }
        match Frame::parse(&bytes) {
            Ok(frame) => self.offer(&bytes, &frame, topic),
            Err(error) => self.places.push(Some(broken(&error))),
        }
    }

    fn offer(&mut self, bytes: &Bytes, frame: &Frame<'_>, topic: Option<ShortId>) {
        let kid = frame.kid();
        if let Some(device) = topic
            && device != kid
        {
            let verdict = Verdict {
                device: Some(kid),
                boot: Some(frame.boot()),
                seq: Some(frame.seq()),
                code: Code::TopicMismatch,
                flags: 0,
                hint: Some(format!("the topic names {device}, the frame is of {kid}")),
            };
            self.places.push(Some(verdict));
            return;
        }
        self.places.push(None);
        self.devices.push(kid);
        self.frames.push(bytes.clone());
    }
}

fn broken(error: &DecodeError) -> Verdict {
    refused(error.code(), error.hint())
}

fn refused(code: Code, hint: String) -> Verdict {
    Verdict { device: None, boot: None, seq: None, code, flags: 0, hint: Some(hint) }
}

fn undecided() -> Verdict {
    refused(Code::RetryAfter, "no verdict was given, send again".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{device_id, frame, secret};

    fn codes(cut: &Cut) -> Vec<Option<Code>> {
        cut.places.iter().map(|place| place.as_ref().map(|verdict| verdict.code)).collect()
    }

    /// A sequence is cut at frame borders, and each frame keeps its own bytes.
    #[test]
    fn a_sequence_becomes_its_frames() {
        let (one, two) = (frame(1, 0), frame(2, 7));
        let body = Bytes::from([one.as_ref(), two.as_ref()].concat());
        let cut = cut(&body, None, 10).unwrap();
        assert_eq!(cut.frames, [one, two]);
        assert_eq!(cut.devices, [device_id(1), device_id(2)]);
        assert_eq!(codes(&cut), [None, None]);
    }

    /// A byte that breaks the sequence ends it there; what came before is still decided.
    #[test]
    fn a_broken_byte_ends_the_sequence() {
        let body = Bytes::from([frame(1, 0).as_ref(), &[0xff, 0x00], frame(1, 1).as_ref()].concat());
        let cut = cut(&body, None, 10).unwrap();
        assert_eq!(codes(&cut), [None, Some(Code::Decode)]);
    }

    /// A truncated last frame is DECODE at its place, an empty body at place 0.
    #[test]
    fn truncation_and_emptiness_are_decode() {
        let whole = frame(1, 0);
        let short = whole.slice(..whole.len() - 1);
        assert_eq!(codes(&cut(&short, None, 10).unwrap()), [Some(Code::Decode)]);
        assert_eq!(codes(&cut(&Bytes::new(), None, 10).unwrap()), [Some(Code::Decode)]);
    }

    /// Well-formed CBOR that is no frame is refused at its place and the sequence goes on.
    #[test]
    fn a_foreign_item_does_not_end_the_sequence() {
        let body = Bytes::from([&[0x01][..], frame(1, 0).as_ref()].concat());
        let cut = cut(&body, None, 10).unwrap();
        assert_eq!(codes(&cut), [Some(Code::Decode), None]);
        let reply = Reply { verdicts: vec![refused(Code::Ok, String::new())], reports: Vec::new() };
        let verdicts = cut.complete(&reply);
        assert_eq!([verdicts[0].code, verdicts[1].code], [Code::Decode, Code::Ok]);
    }

    /// A frame over the limit is TOO_BIG at its place; frames around it stand.
    #[test]
    fn a_long_frame_is_too_big() {
        let mut long = vec![0x5a, 0x00, 0x01, 0x11, 0x70];
        long.resize(5 + 70_000, 0);
        let body = Bytes::from([frame(1, 0).as_ref(), &long, frame(1, 1).as_ref()].concat());
        let cut = cut(&body, None, 10).unwrap();
        assert_eq!(codes(&cut), [None, Some(Code::TooBig), None]);
    }

    /// The topic binds: a frame of another device is never offered.
    #[test]
    fn the_topic_must_name_the_frames_device() {
        let body = Bytes::from([frame(1, 0).as_ref(), frame(2, 0).as_ref()].concat());
        let cut = cut(&body, Some(device_id(1)), 10).unwrap();
        assert_eq!(codes(&cut), [None, Some(Code::TopicMismatch)]);
        assert_eq!(cut.frames.len(), 1);
    }

    /// The number of frames in a body is bounded.
    #[test]
    fn too_many_frames_are_refused() {
        let body = Bytes::from(vec![0x01; 11]);
        assert_eq!(cut(&body, None, 10).unwrap_err(), TooManyFrames { frames_max: 10 });
        assert!(cut(&body, None, 11).is_ok());
    }

    /// A pipeline that answers too little promises nothing.
    #[test]
    fn missing_verdicts_read_as_send_again() {
        let cut = cut(&frame(1, 0), None, 10).unwrap();
        assert_eq!(cut.complete(&Reply::default())[0].code, Code::RetryAfter);
        assert_eq!(cut.frames_by_device(), [(secret(1).public().short_id(), 1)]);
    }
}
