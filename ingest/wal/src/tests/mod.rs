//! Tests of the log as a whole: against a model on a disk that fails, and on real files.

mod crash;
mod damage;
mod files;

use crate::format::Record;

/// A record whose every field follows from its frame, so that nothing can be mixed up unnoticed.
pub(super) fn record(frame: &[u8]) -> Record<'_> {
    let sum = frame.iter().fold(frame.len() as u32, |sum, byte| sum.wrapping_mul(31) ^ u32::from(*byte));
    Record {
        received_us: i64::from(sum) << 20,
        device: sum,
        t0_us: -i64::from(sum),
        flags: sum.rotate_left(7),
        code: sum as u8,
        frame,
    }
}

/// Whether what came back is the record of its own frame.
pub(super) fn is_whole(found: &crate::Recovered) -> bool {
    let expected = record(&found.frame);
    (found.received_us, found.device, found.t0_us, found.flags, found.code)
        == (expected.received_us, expected.device, expected.t0_us, expected.flags, expected.code)
}
