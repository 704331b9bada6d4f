//! Hostile signatures on real frames, through whatever `backend` gives. Each is one that some library accepts.

use curve25519_dalek::constants::{ED25519_BASEPOINT_TABLE, EIGHT_TORSION};
use curve25519_dalek::edwards::EdwardsPoint;
use curve25519_dalek::scalar::{Scalar, clamp_integer};
use schemas_frame::encode::seal;
use schemas_frame::{Alg, Frame, FrameBuilder, OutSeries, OutValues, Scale, verify_all};
use schemas_identity::{BootId, PublicKey, SecretKey};
use sha2::{Digest, Sha512};

use super::{Kind, Options, Watched, backend, select, start};

const SEED: [u8; 32] = [42; 32];
/// The group's order, little-endian.
pub(crate) const ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

/// splitmix64.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

fn key() -> SecretKey {
    SecretKey::from_seed(&SEED)
}

fn builder(seq: u64) -> FrameBuilder {
    let values = OutValues::U8(vec![61, 62, 63]);
    let out = OutSeries {
        signal: 1,
        offset_us: 0,
        period_us: 1_000_000,
        scale: Scale::ONE,
        values,
        deltas: None,
        quality: None,
    };
    FrameBuilder::new(BootId([3; 8]), seq, [0; 16], Some(1_767_225_600_000_000), 5).series(out)
}

/// A frame with a signature of the attacker's making.
fn frame(seq: u64, sign: impl FnOnce(&[u8]) -> [u8; 64]) -> Vec<u8> {
    seal(Alg::EdDsa, key().public().short_id(), &builder(seq).payload(), sign)
}

fn verdicts(frames: &[Vec<u8>], public: PublicKey) -> Vec<bool> {
    let jobs = frames.iter().map(|bytes| (Frame::parse(bytes).unwrap(), public)).collect();
    verify_all(&*backend(), jobs).iter().map(Result::is_ok).collect()
}

/// The secret scalar: an attacker who owns an enrolled device has it.
fn secret() -> Scalar {
    let digest = Sha512::digest(SEED);
    let mut half = [0; 32];
    half.copy_from_slice(&digest[..32]);
    Scalar::from_bytes_mod_order(clamp_integer(half))
}

fn challenge(commitment: &[u8; 32], message: &[u8]) -> Scalar {
    let mut hasher = Sha512::new();
    hasher.update(commitment);
    hasher.update(key().public().as_bytes());
    hasher.update(message);
    Scalar::from_bytes_mod_order_wide(&hasher.finalize().into())
}

/// Signs with a nonce point of choice, written as given: R = rB + offset.
fn sign_with(nonce: Scalar, offset: EdwardsPoint, encoding: Option<[u8; 32]>, message: &[u8]) -> [u8; 64] {
    let point = &nonce * ED25519_BASEPOINT_TABLE + offset;
    let commitment = encoding.unwrap_or_else(|| point.compress().to_bytes());
    let s = nonce + challenge(&commitment, message) * secret();
    join(&commitment, &s.to_bytes())
}

fn join(commitment: &[u8; 32], s: &[u8; 32]) -> [u8; 64] {
    let mut signature = [0; 64];
    signature[..32].copy_from_slice(commitment);
    signature[32..].copy_from_slice(s);
    signature
}

/// s + L: the same number modulo the order, other bytes.
fn add_order(mut signature: [u8; 64]) -> [u8; 64] {
    let mut carry = 0_u16;
    for (byte, order) in signature[32..].iter_mut().zip(ORDER) {
        carry += u16::from(*byte) + u16::from(order);
        *byte = carry.to_le_bytes()[0];
        carry >>= 8;
    }
    assert_eq!(carry, 0);
    signature
}

fn hostile() -> Vec<(String, Vec<u8>)> {
    let nonce = Scalar::from(0x1234_5678_9abc_u64);
    let zero = EIGHT_TORSION[0];
    let mut all = vec![
        ("zeros".into(), frame(0, |_| [0; 64])),
        ("ones".into(), frame(0, |_| [0xff; 64])),
        ("s + L".into(), frame(0, |message| add_order(key().sign(message)))),
        ("R identity".into(), frame(0, |message| sign_with(Scalar::ZERO, zero, None, message))),
        ("other message".into(), frame(0, |_| key().sign(b"other"))),
        ("other key".into(), frame(0, |message| SecretKey::from_seed(&[1; 32]).sign(message))),
        ("halves swapped".into(), frame(0, |message| swap(key().sign(message)))),
        ("payload without its Sig_structure".into(), frame(0, |_| key().sign(&builder(0).payload()))),
    ];
    for (index, torsion) in EIGHT_TORSION.iter().enumerate().skip(1) {
        let torsioned = frame(0, |message| sign_with(nonce, *torsion, None, message));
        all.push((format!("R + torsion {index}"), torsioned));
        let small = frame(0, |message| sign_with(Scalar::ZERO, *torsion, None, message));
        all.push((format!("R = torsion {index}"), small));
    }
    // The identity's other spellings: y = 1 + p, and the sign bit set on x = 0.
    let mut plus_p = [0xff; 32];
    (plus_p[0], plus_p[31]) = (0xee, 0x7f);
    let mut negative = [0; 32];
    (negative[0], negative[31]) = (1, 0x80);
    for (name, encoding) in [("1 + p", plus_p), ("-0", negative)] {
        let bytes = frame(0, |message| sign_with(Scalar::ZERO, zero, Some(encoding), message));
        all.push((format!("R spelt {name}"), bytes));
    }
    all
}

fn swap(mut signature: [u8; 64]) -> [u8; 64] {
    signature.rotate_left(32);
    signature
}

// The hand-made signer makes good signatures: what the hostile ones lack is only what each is named after.
#[test]
fn an_honest_nonce_verifies() {
    let nonce = Scalar::from(0x1234_5678_9abc_u64);
    let by_hand = frame(0, |message| sign_with(nonce, EIGHT_TORSION[0], None, message));
    let by_library = builder(0).sign(&key()).unwrap();
    assert_eq!(verdicts(&[by_hand, by_library], key().public()), [true, true]);
}

// G1: every hostile signature is refused, alone and between good frames, wherever it stands, and never spoils a neighbour.
#[test]
fn hostile_signatures_are_refused_in_any_company() {
    let good: Vec<Vec<u8>> = (1..5).map(|seq| builder(seq).sign(&key()).unwrap()).collect();
    let hostile = hostile();
    for (name, bytes) in &hostile {
        assert_eq!(verdicts(std::slice::from_ref(bytes), key().public()), [false], "{name}");
        for place in 0..=good.len() {
            let mut batch = good.clone();
            batch.insert(place, bytes.clone());
            let mut expected = vec![true; good.len()];
            expected.insert(place, false);
            assert_eq!(verdicts(&batch, key().public()), expected, "{name} at {place}");
        }
    }
    let all: Vec<Vec<u8>> = hostile.into_iter().map(|(_, bytes)| bytes).collect();
    assert!(verdicts(&all, key().public()).iter().all(|verdict| !verdict));
}

// No single bit of a signed frame can be changed: it is then no frame, or its signature is bad.
#[test]
fn every_bit_is_signed() {
    let bytes = builder(0).sign(&key()).unwrap();
    let mut frames = Vec::new();
    for bit in 0..bytes.len() * 8 {
        let mut bad = bytes.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        if Frame::parse(&bad).is_ok() {
            frames.push(bad);
        }
    }
    assert!(frames.len() > 512, "{}", frames.len());
    assert!(verdicts(&frames, key().public()).iter().all(|verdict| !verdict));
}

// A frame verifies under its own key and under no other; nothing to do is done without a verdict.
#[test]
fn only_under_its_own_key() {
    let bytes = builder(0).sign(&key()).unwrap();
    assert_eq!(verdicts(std::slice::from_ref(&bytes), SecretKey::from_seed(&[9; 32]).public()), [false]);
    assert!(verdicts(&[], key().public()).is_empty());
}

// The environment's choice is followed where this CPU can; a wrong one is named and taken as auto.
#[test]
fn choices_are_followed() {
    let chosen = |choice| select(choice, Options::default()).1;
    assert_eq!(chosen(Some("reference")).backend, "reference");
    let best = Kind::all().last().unwrap().name();
    assert_eq!((chosen(None).backend, chosen(Some("auto")).backend), (best, best));
    for kind in Kind::all() {
        assert_eq!(chosen(Some(kind.name())).backend, kind.name());
    }
    let wrong = chosen(Some("cmob"));
    assert!(wrong.backend == best && wrong.why.contains("cmob"), "{wrong:?}");
}

// A backend that fails its self-test is passed over and named; if all fail the reference is left.
#[test]
fn failed_backends_are_named() {
    let kinds = [Kind::ModelOfAvx2, Kind::Scalar].to_vec();
    let all_but =
        |bad: Kind| move |kind| if kind == bad { None } else { Watched::new(kind, Options::default()) };
    let (watched, selection) = start(kinds.clone(), String::new(), all_but(Kind::Scalar));
    assert!(watched.is_some());
    assert_eq!((selection.backend, selection.failed), ("model of avx2", vec!["comb"]));
    let (watched, selection) = start(kinds.clone(), String::new(), all_but(Kind::ModelOfAvx2));
    assert!(watched.is_some() && selection.failed.is_empty());
    let (watched, selection) = start(kinds, String::new(), |_| None);
    assert!(watched.is_none());
    assert_eq!((selection.backend, selection.failed), ("reference", vec!["comb", "model of avx2"]));
}
