//! What the tests of this crate share: devices, frames, a pipeline that answers as told.

use std::sync::Arc;
use std::thread::JoinHandle;

use bytes::Bytes;
use schemas_frame::{Code, DeviceReport, Frame, FrameBuilder, OutSeries, OutValues, Scale, Verdict};
use schemas_identity::{BootId, SecretKey, ShortId};

use crate::admission::{Drain, Inbox, Reply, Submission};

pub(crate) const BOOT: BootId = BootId([7; 8]);

pub(crate) fn secret(device: u8) -> SecretKey {
    SecretKey::from_seed(&[device; 32])
}

pub(crate) fn device_id(device: u8) -> ShortId {
    secret(device).public().short_id()
}

/// A well-formed, signed frame of one heart rate.
pub(crate) fn frame(device: u8, seq: u64) -> Bytes {
    let series = OutSeries {
        signal: 1,
        offset_us: 0,
        period_us: 1_000_000,
        scale: Scale::ONE,
        values: OutValues::U8(vec![60, 61, 62]),
        deltas: None,
        quality: None,
    };
    let builder =
        FrameBuilder::new(BOOT, seq, [0; 16], Some(1_700_000_000_000_000), 5_000_000).series(series);
    Bytes::from(builder.sign(&secret(device)).unwrap())
}

pub(crate) fn verdict(code: Code) -> Verdict {
    Verdict { device: None, boot: None, seq: None, code, flags: 0, hint: None }
}

/// What a fake pipeline says to one frame.
pub(crate) type Judge = Arc<dyn Fn(&Frame<'_>) -> Code + Send + Sync>;

pub(crate) fn all_ok() -> Judge {
    Arc::new(|_| Code::Ok)
}

/// The answer of a fake pipeline: a verdict per frame, a report per device.
pub(crate) fn reply_to(submission: &Submission, judge: &Judge) -> Reply {
    let mut reply = Reply::default();
    for bytes in &submission.frames {
        let frame = Frame::parse(bytes).unwrap();
        let code = judge(&frame);
        let (device, boot, seq) = (frame.kid(), frame.boot(), frame.seq());
        reply.verdicts.push(Verdict {
            device: Some(device),
            boot: Some(boot),
            seq: Some(seq),
            code,
            flags: 0,
            hint: (code == Code::SigBad).then(|| "signature does not verify".to_owned()),
        });
        if code.is_accepted() {
            reply.reports.retain(|report: &DeviceReport| report.device != device);
            reply.reports.push(DeviceReport { device, acked_to: Some((boot, seq)), gaps: Vec::new() });
        }
    }
    reply
}

/// A plain thread that answers every submission; it ends with the last door.
pub(crate) fn pipeline(mut inbox: Inbox, judge: Judge) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut got = Vec::new();
        while inbox.blocking_recv_many(&mut got, Drain::default()) > 0 {
            for submission in got.drain(..) {
                let reply = reply_to(&submission, &judge);
                submission.reply.send(reply);
            }
        }
    })
}
