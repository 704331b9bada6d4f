//! The two topics: `v1/d/{short id}/frames` for devices, `v1/d/{short id}/verdict` for subscribers.

use schemas_identity::ShortId;

/// The device of a frames topic; `None` for any other text, wildcards and other spellings of an id included.
pub(crate) fn frames_device(topic: &str) -> Option<ShortId> {
    device(topic, "/frames")
}

/// The device of a verdict topic; `None` for any other text.
pub(crate) fn verdict_device(filter: &str) -> Option<ShortId> {
    device(filter, "/verdict")
}

/// The topic on which a device's verdicts are published.
pub(crate) fn verdict_topic(device: &ShortId) -> String {
    format!("v1/d/{device}/verdict")
}

fn device(topic: &str, suffix: &str) -> Option<ShortId> {
    let id = topic.strip_prefix("v1/d/")?.strip_suffix(suffix)?;
    // One device, one topic: an upper-case spelling would be a second name.
    let is_only_spelling = !id.bytes().any(|byte| byte.is_ascii_uppercase());
    id.parse().ok().filter(|_| is_only_spelling)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Only the exact lower-case topic of a device is one.
    #[test]
    fn only_exact_topics() {
        let id = ShortId([0xab, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(frames_device("v1/d/ab01020304050607/frames"), Some(id));
        assert_eq!(verdict_device(&verdict_topic(&id)), Some(id));
        for wrong in [
            "",
            "v1/d//frames",
            "v1/d/+/frames",
            "v1/d/AB01020304050607/frames",
            "v1/d/ab01020304050607/frames/",
            "/v1/d/ab01020304050607/frames",
            "v1/d/ab01020304050607/verdict",
            "v1/d/ab010203040506070/frames",
            "v1/d/frames",
        ] {
            assert_eq!(frames_device(wrong), None, "{wrong}");
        }
    }
}
