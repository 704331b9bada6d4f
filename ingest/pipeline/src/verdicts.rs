//! What senders are told: a verdict about a frame, with a hint that says what to do next.

use schemas_frame::{Code, Frame, Verdict};

/// Under pressure, or when the disk fails.
pub(crate) const RETRY_HINT: &str = "the server is busy or its disk is full: send the same frame again later";

/// A verdict without flags, with the code's hint.
pub(crate) fn about(frame: &Frame<'_>, code: Code) -> Verdict {
    Verdict {
        device: Some(frame.kid()),
        boot: Some(frame.boot()),
        seq: Some(frame.seq()),
        code,
        flags: 0,
        hint: hint_of(code),
    }
}

pub(crate) fn hint_of(code: Code) -> Option<String> {
    let text = match code {
        Code::KeyUnknown => "no device with this kid is enrolled",
        Code::KeyRevoked => "this key is revoked: rotate it with the maker",
        Code::SigBad => "the signature does not verify under the enrolled key",
        Code::Equivocation => {
            "another frame has this device, boot and seq: use a new boot id after losing state"
        }
        Code::SeqOld => "this seq was given up or erased",
        Code::NotBound => "nobody wears this device at that time: bind it; the frame is kept",
        Code::RetryAfter => RETRY_HINT,
        _ => return None,
    };
    Some(text.to_owned())
}
