//! Any bytes at all as a quarantine segment: records or an end; what is read writes back as the very same bytes.
#![no_main]

use ingest_quarantine::Records;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut records = Records::new(bytes);
    let mut again = Vec::new();
    for (offset, record) in records.by_ref() {
        assert_eq!(offset, again.len());
        record.encode(&mut again);
    }
    assert_eq!(again, bytes[..records.position()]);
});
