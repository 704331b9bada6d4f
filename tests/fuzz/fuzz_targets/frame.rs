//! Any bytes at all: a frame or an error, never a crash; a frame's columns are its samples.
#![no_main]

use libfuzzer_sys::fuzz_target;
use schemas_frame::{Frame, next_frame_len};

fuzz_target!(|bytes: &[u8]| {
    let _ = next_frame_len(bytes);
    let Ok(frame) = Frame::parse(bytes) else { return };
    assert_eq!(frame.series().count(), frame.series_len());
    let mut message = Vec::new();
    frame.signed_message(&mut message);
    for series in frame.series() {
        let mut ts = Vec::new();
        series.extend_ts_us(0, &mut ts);
        assert!(series.samples(0).map(|(ts_us, _, _)| ts_us).eq(ts));
    }
});
