//! Any bytes at all from an MQTT client, in both versions, whole or in pieces: answers or an end, never a crash; nothing
//! is offered that the identity may not publish, and no packet exceeds the client's own maximum.
#![no_main]

use ingest_intake::mqtt::fuzz::feed;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let run = feed(bytes);
    assert!(run.taken <= run.packets);
});
