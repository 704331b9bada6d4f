//! Any bytes at all as the manifest of an answer: refused, or read; what is read writes back as the same manifest, and its
//! check says at most what the fixed good manifest says.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use schemas_evidence::answer::sample::manifest;
use schemas_evidence::answer::{AnswerManifest, Checking};
use schemas_evidence::conformance::sample::policy;

static GOOD: LazyLock<AnswerManifest> = LazyLock::new(|| manifest().expect("the sample"));

fuzz_target!(|bytes: &[u8]| {
    let Ok(read) = AnswerManifest::parse(bytes) else { return };
    let again = serde_json::to_vec(&read).expect("what was read is JSON");
    assert_eq!(AnswerManifest::parse(&again).expect("reads back"), read);
    if let Ok(checked) = Checking::run(bytes, &policy(), None, None).result {
        // Nobody but the log's key can say anything else. The statement may be left out.
        assert_eq!(checked.manifest.to_text(), GOOD.to_text());
    }
});
