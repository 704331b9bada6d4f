//! The comb backend against the reference: public vectors, forged and mutated signatures, every place in every group.

use std::path::PathBuf;

use curve25519_dalek::constants::EIGHT_TORSION;
use curve25519_dalek::edwards::CompressedEdwardsY;
use schemas_identity::SecretKey;
use serde_json::Value;

use super::*;
use crate::tests::{Dice, ORDER};

/// A signature case; the verdict is the reference's.
#[derive(Debug, Clone)]
struct Case {
    key: PublicKey,
    message: Vec<u8>,
    signature: [u8; 64],
}

impl Case {
    fn signed(&self) -> Signed<'_> {
        Signed { key: &self.key, message: &self.message, signature: &self.signature }
    }

    fn word(&self) -> bool {
        self.key.verify(&self.message, &self.signature)
    }
}

/// Nothing re-checked, so that what is tested is the comb.
const ALONE: Options = Options {
    table_bytes_max: TABLE_BYTES_MAX_DEFAULT,
    large_after: 8,
    hot_after: 8,
    sample_one_in: 0,
    rechecks_per_second: 0,
};

fn verdicts(watched: &Watched, cases: &[Case]) -> Vec<bool> {
    let signed: Vec<Signed<'_>> = cases.iter().map(Case::signed).collect();
    let mut verdicts = Vec::new();
    watched.verify_each(&signed, &mut verdicts);
    verdicts
}

fn assert_agrees(watched: &Watched, cases: &[Case]) {
    let expected: Vec<bool> = cases.iter().map(Case::word).collect();
    for (index, verdict) in verdicts(watched, cases).into_iter().enumerate() {
        assert_eq!(verdict, expected[index], "{:?}", cases[index]);
    }
}

fn key(seed: u64) -> SecretKey {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    SecretKey::from_seed(&bytes)
}

fn good(seed: u64, length: usize) -> Case {
    let message: Vec<u8> = (0..length).map(|at| (at as u64).wrapping_mul(seed + 7) as u8).collect();
    let secret = key(seed);
    Case { key: secret.public(), signature: secret.sign(&message), message }
}

/// Cases of a file of public vectors whose key passes the key rule; lengths other than 64 bytes are no signature of ours.
fn load(path: &str, groups: bool, names: [&str; 3]) -> Vec<Case> {
    let root = std::env::var_os("VITALOG_SHARED")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared"), PathBuf::from);
    let Ok(text) = std::fs::read_to_string(root.join("vectors/ed25519").join(path)) else {
        eprintln!("skipped: {path} is not beside this clone (VITALOG_SHARED)");
        return Vec::new();
    };
    let file: Value = serde_json::from_str(&text).unwrap();
    let list = |value: &Value| value.as_array().unwrap().clone();
    let mut tests: Vec<(Value, Value)> = Vec::new();
    if groups {
        for group in list(&file["testGroups"]) {
            tests.extend(
                list(&group["tests"]).into_iter().map(|test| (group["publicKey"]["pk"].clone(), test)),
            );
        }
    } else {
        tests.extend(list(&file).into_iter().map(|test| (test[names[0]].clone(), test)));
    }
    let mut cases = Vec::new();
    for (key, test) in tests {
        let decode = |value: &Value, is_text: bool| {
            let text = value.as_str().unwrap();
            if is_text { text.as_bytes().to_vec() } else { hex::decode(text).unwrap() }
        };
        let Ok(key) = PublicKey::admit(&decode(&key, false)) else { continue };
        let Ok(signature) = decode(&test[names[2]], false).try_into() else { continue };
        let message = decode(&test[names[1]], path.starts_with("cctv"));
        cases.push(Case { key, message, signature });
    }
    cases
}

fn public_vectors() -> Vec<Case> {
    let mut cases = load("wycheproof_ed25519_test.json", true, ["", "msg", "sig"]);
    cases.extend(load("cctv_ed25519vectors.json", false, ["key", "msg", "sig"]));
    cases.extend(load("speccheck_cases.json", false, ["pub_key", "message", "signature"]));
    cases
}

// G1: on every public vector whose key may enrol, the verdict is that of verify_strict, with tables of every size.
#[test]
fn public_vectors_agree() {
    for kind in Kind::all() {
        let cases = public_vectors();
        let watched = Watched::new(kind, ALONE).unwrap();
        for _ in 0..40 {
            assert_agrees(&watched, &cases);
        }
        let stats = watched.stats();
        assert_eq!(
            (stats.without_table, stats.rechecked, stats.sampled),
            (0, 0, 0),
            "the comb decided alone"
        );
        assert!(cases.is_empty() || stats.tables.hot > 0, "{stats:?}");
    }
}

// G1: a verdict does not depend on its place in a group or on how full the group is.
#[test]
fn places_and_fills_agree() {
    for kind in Kind::all() {
        let watched = Watched::new(kind, ALONE).unwrap();
        for fill in (1..=16).chain([63, 64, 65, 127, 128, 129]) {
            // In large groups: the ends and some places between.
            for bad in (0..fill).filter(|bad| fill <= 16 || bad % 31 == 0 || bad + 1 == fill) {
                let mut cases: Vec<Case> = (0..fill).map(|at| good(at as u64 % 5, 100)).collect();
                cases[bad].signature[bad % 64] ^= 1 << (bad % 8);
                let expected: Vec<bool> = (0..fill).map(|at| at != bad).collect();
                assert_eq!(verdicts(&watched, &cases), expected, "{bad} of {fill}");
            }
        }
        assert!(verdicts(&watched, &[]).is_empty());
    }
}

fn add_order(signature: &mut [u8; 64]) {
    let mut carry = 0_u16;
    for (byte, order) in signature[32..].iter_mut().zip(ORDER) {
        carry += u16::from(*byte) + u16::from(order);
        *byte = carry.to_le_bytes()[0];
        carry >>= 8;
    }
}

/// A good signature, or one of the ways to spoil it.
fn mutated(dice: &mut Dice) -> Case {
    // Lengths around SHA-512's block boundaries: 64 bytes of R and A stand before the message.
    const LENGTHS: [usize; 12] = [0, 1, 47, 48, 63, 64, 100, 111, 175, 176, 300, 1_024];
    let mut case = good(dice.below(40), LENGTHS[dice.below(12) as usize]);
    match dice.below(12) {
        0 => case.signature[dice.below(32) as usize] ^= 1 << dice.below(8),
        1 => case.signature[32 + dice.below(32) as usize] ^= 1 << dice.below(8),
        2 => case.key = key(dice.below(40)).public(),
        3 if !case.message.is_empty() => {
            let at = dice.below(case.message.len() as u64) as usize;
            case.message[at] ^= 1 << dice.below(8);
        }
        4 => add_order(&mut case.signature),
        5 => {
            let torsion = EIGHT_TORSION[dice.below(8) as usize].compress().to_bytes();
            case.signature[..32].copy_from_slice(&torsion);
        }
        6 => {
            let r = CompressedEdwardsY(case.signature[..32].try_into().unwrap()).decompress().unwrap();
            let torsioned = (r + EIGHT_TORSION[1 + dice.below(7) as usize]).compress().to_bytes();
            case.signature[..32].copy_from_slice(&torsioned);
        }
        7 => case.signature[32..].fill(dice.below(2) as u8 * 0xff),
        8 => case.message.push(0),
        9 => case.signature[31] ^= 0x80,
        _ => {}
    }
    case
}

/// What `mutations_agree` is to do, from the environment.
fn wanted(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

// G1: over thousands of good and spoilt signatures the comb and verify_strict give the same verdict, with tables of every
// size. VITALOG_DIFFERENTIAL_CASES and _SEED ask for more, VITALOG_DIFFERENTIAL_KIND for one backend.
#[test]
fn mutations_agree() {
    let only = std::env::var("VITALOG_DIFFERENTIAL_KIND").ok();
    let count = wanted("VITALOG_DIFFERENTIAL_CASES", 20_000);
    let seed = wanted("VITALOG_DIFFERENTIAL_SEED", 1);
    for kind in Kind::all().into_iter().filter(|kind| only.as_ref().is_none_or(|only| only == kind.name())) {
        let (mut left, mut dice, mut accepted, mut tables) = (count, Dice(seed), 0, Tables::default());
        while left > 0 {
            // Anew each time: so that small and large tables are met as often as hot ones.
            let options = Options { large_after: 150, hot_after: 150, ..ALONE };
            let watched = Watched::new(kind, options).unwrap();
            let mut part = left.min(20_000);
            left -= part;
            while part > 0 {
                let fill = (1 + dice.below(130)).min(part);
                let cases: Vec<Case> = (0..fill).map(|_| mutated(&mut dice)).collect();
                let expected: Vec<bool> = cases.iter().map(Case::word).collect();
                for (index, verdict) in verdicts(&watched, &cases).into_iter().enumerate() {
                    assert_eq!(verdict, expected[index], "{:?} of seed {seed}: {:?}", kind, cases[index]);
                }
                accepted += expected.iter().filter(|verdict| **verdict).count() as u64;
                part -= fill;
            }
            tables = watched.stats().tables;
        }
        eprintln!("{}: {count} cases from seed {seed}, {accepted} accepted, 0 disagreements", kind.name());
        assert!(accepted > 0 && accepted < count && (count < 20_000 || tables.hot > 0), "{tables:?}");
    }
}

// A key without room for a table is verified all the same, by the reference.
#[test]
fn no_room_is_no_refusal() {
    for kind in Kind::all() {
        let mut cases: Vec<Case> = (0..20).map(|seed| good(seed, 10)).collect();
        cases[7].signature[0] ^= 1;
        for bytes_max in [0, 16 << 10] {
            let watched = Watched::new(kind, Options { table_bytes_max: bytes_max, ..ALONE }).unwrap();
            assert_agrees(&watched, &cases);
            let stats = watched.stats();
            assert!(stats.without_table > 0 && stats.tables.bytes <= bytes_max as u64, "{stats:?}");
        }
    }
}

// Sampling and re-checks are counted and bounded; a skipped re-check leaves the verdict as it is.
#[test]
fn the_watch_counts() {
    for kind in Kind::all() {
        let options = Options { sample_one_in: 10, rechecks_per_second: 5, ..ALONE };
        let watched = Watched::new(kind, options).unwrap();
        let mut cases: Vec<Case> = (0..120).map(|seed| good(seed % 3, 10)).collect();
        for case in &mut cases[100..] {
            case.signature[40] ^= 1;
        }
        assert_agrees(&watched, &cases);
        let stats = watched.stats();
        assert_eq!((stats.checked, stats.sampled, stats.rechecked, stats.skipped), (120, 10, 5, 15));
        assert_eq!((stats.disagreements, stats.has_fallen_back), (0, false));
    }
}

// A backend that computes wrongly is found by the watch, overruled, and never asked again.
#[test]
fn a_broken_backend_is_overruled() {
    for kind in Kind::all() {
        let options = Options { rechecks_per_second: 1_000, ..ALONE };
        let watched = Watched::new(kind, options).unwrap();
        watched.0.comb.lock().comb.break_it();
        let cases: Vec<Case> = (0..10).map(|seed| good(seed, 10)).collect();
        assert_eq!(verdicts(&watched, &cases), [true; 10]);
        let stats = watched.stats();
        assert!(stats.has_fallen_back && stats.disagreements > 0, "{stats:?}");
        assert_eq!(Verifier::name(&watched), "reference");
        assert_eq!(verdicts(&watched, &cases), [true; 10]);
        assert_eq!(watched.stats().disagreements, stats.disagreements, "the reference decides alone");
    }
}
