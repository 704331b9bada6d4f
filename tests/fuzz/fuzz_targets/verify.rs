//! Every backend against `verify_strict` on what the fuzzer makes of good signatures. A difference is a crash.
//!
//! Input: one record after the other. Key (1 byte), message length (1), where to change (1), what to change it by (1),
//! which part (1: message, R, s, all of R and s from the bytes that follow), then those bytes if any.
#![no_main]

use std::sync::LazyLock;

use ingest_verify::watch::Signed;
use ingest_verify::{Kind, Options, Watched};
use libfuzzer_sys::fuzz_target;
use schemas_identity::{PublicKey, SecretKey};

/// Records of one input: more than a group's lanes, fewer than make it slow.
const RECORDS_MAX: usize = 24;
/// Tables soon grow, nothing is re-checked: the backends stand alone.
const ALONE: Options = Options {
    table_bytes_max: 16 << 20,
    large_after: 40,
    hot_after: 40,
    sample_one_in: 0,
    rechecks_per_second: 0,
};

static KEYS: LazyLock<Vec<SecretKey>> =
    LazyLock::new(|| (0..16).map(|seed| SecretKey::from_seed(&[seed; 32])).collect());
static BACKENDS: LazyLock<Vec<Watched>> =
    LazyLock::new(|| Kind::all().into_iter().filter_map(|kind| Watched::new(kind, ALONE)).collect());

struct Case {
    key: PublicKey,
    message: Vec<u8>,
    signature: [u8; 64],
}

fn cases(mut bytes: &[u8]) -> Vec<Case> {
    let mut cases = Vec::new();
    while let [key, length, at, by, part, rest @ ..] = bytes {
        if cases.len() == RECORDS_MAX {
            break;
        }
        bytes = rest;
        let secret = &KEYS[usize::from(*key) % KEYS.len()];
        let mut message = vec![*key; usize::from(*length) * 2];
        let mut signature = secret.sign(&message);
        match part % 4 {
            0 if !message.is_empty() => {
                let place = usize::from(*at) % message.len();
                message[place] ^= by;
            }
            0 => {}
            1 => signature[usize::from(*at) % 32] ^= by,
            2 => signature[32 + usize::from(*at) % 32] ^= by,
            _ => {
                let count = rest.len().min(64);
                signature[..count].copy_from_slice(&rest[..count]);
                bytes = &rest[count..];
            }
        }
        cases.push(Case { key: secret.public(), message, signature });
    }
    cases
}

fuzz_target!(|bytes: &[u8]| {
    let cases = cases(bytes);
    let signed: Vec<Signed<'_>> = cases
        .iter()
        .map(|case| Signed { key: &case.key, message: &case.message, signature: &case.signature })
        .collect();
    let expected: Vec<bool> =
        cases.iter().map(|case| case.key.verify(&case.message, &case.signature)).collect();
    let mut verdicts = Vec::new();
    for backend in BACKENDS.iter() {
        backend.verify_each(&signed, &mut verdicts);
        assert_eq!(verdicts, expected, "{backend:?}");
    }
});
