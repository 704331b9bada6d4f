//! Devices that behave and misbehave: gaps, late frames, second boots, broken chains, clocks that are wrong, values out
//! of range, unknown signals, large frames, two frames under one number, keys nobody enrolled, bytes that are no frame.
//!
//! Signatures are chance: the simulated verifier takes all of them but those that begin with [`FORGED`].

use bytes::Bytes;
use schemas_frame::{Alg, Frame, FrameBuilder, Job, OutSeries, OutValues, Scale, Verifier, seal};
use schemas_identity::statement::{Body, Enrol, Maker, Statement, proof_of_possession, sign};
use schemas_identity::{BootId, Register, SecretKey, ShortId};

use super::dice::Dice;

/// Enrolled devices; one more sends without being enrolled.
pub(super) const DEVICES: usize = 3;
/// First byte of a signature that does not verify.
const FORGED: u8 = 0xee;
/// Samples of a large frame, at most.
const LARGE_SAMPLES: usize = 2_500;
const ORIGIN: &str = "example.org/log";

/// Takes every signature but forged ones.
pub(super) struct TrustingVerifier;

impl Verifier for TrustingVerifier {
    fn name(&self) -> &'static str {
        "trusting"
    }

    fn verify(&self, jobs: &[Job<'_, '_>], verdicts: &mut Vec<bool>) {
        verdicts.clear();
        verdicts.extend(jobs.iter().map(|job| job.frame.signature()[0] != FORGED));
    }
}

fn key(seed: usize) -> SecretKey {
    SecretKey::from_seed(&[seed as u8; 32])
}

/// The devices, enrolled in the order of their numbers.
pub(super) fn register() -> Register {
    let (operator, maker) = (key(200), key(201));
    let mut register = Register::new(ORIGIN, vec![operator.public().did()]);
    let party = maker.public().did();
    let mut apply = |body: &Body, by: &SecretKey, index: u64| {
        let compact = sign(body, ORIGIN, 0, [0; 16], by);
        register.apply(&Statement::parse(&compact, ORIGIN).unwrap(), index).unwrap();
    };
    apply(&Body::Maker(Maker { party, title: String::new(), from: None, to: None }), &operator, 0);
    for device in 0..DEVICES {
        let secret = key(device);
        let pop = proof_of_possession(ORIGIN, &party, &secret);
        let device_key = secret.public().did();
        let enrol = Enrol { device_key, model: "M".into(), signals: vec![], pop };
        apply(&Body::Enrol(enrol), &maker, 1 + device as u64);
    }
    register
}

/// What a frame is, as its sender knows.
#[derive(Debug, Clone)]
pub(super) struct Made {
    pub(super) bytes: Bytes,
    /// Device number, boot and sequence number, if it is a genuine frame of an enrolled device.
    pub(super) key: Option<(u32, [u8; 8], u64)>,
}

/// One device.
struct Device {
    number: usize,
    kid: ShortId,
    boot: BootId,
    seq: u64,
    prev: [u8; 16],
    mono_us: u64,
}

pub(super) struct Senders {
    devices: Vec<Device>,
}

impl Senders {
    pub(super) fn new(dice: &mut Dice) -> Senders {
        let devices = (0..=DEVICES).map(|number| Device {
            number,
            kid: key(number).public().short_id(),
            boot: BootId(dice.bytes()),
            seq: 0,
            prev: [0; 16],
            mono_us: 1_000_000,
        });
        Senders { devices: devices.collect() }
    }

    /// The next frames of one device, `count` at most.
    pub(super) fn make(&mut self, dice: &mut Dice, now_us: i64, count: usize) -> Vec<Made> {
        let pick = if dice.one_in(40) { DEVICES } else { dice.below(DEVICES) };
        let device = &mut self.devices[pick];
        (0..count).map(|_| device.make(dice, now_us)).collect()
    }

    /// Another frame under the number of a given one.
    pub(super) fn contradict(&self, dice: &mut Dice, made: &Made) -> Option<Made> {
        made.key?;
        let frame = Frame::parse(&made.bytes).unwrap();
        let mut builder = FrameBuilder::copy_of(&frame);
        builder.mono_us += 1 + dice.below(1_000) as u64;
        Some(Made { bytes: sealed(frame.kid(), &builder, signature(dice)), key: made.key })
    }
}

fn signature(dice: &mut Dice) -> [u8; 64] {
    let mut signature: [u8; 64] = dice.bytes();
    signature[0] &= 0x7f;
    signature
}

fn sealed(kid: ShortId, builder: &FrameBuilder, signature: [u8; 64]) -> Bytes {
    let bytes = seal(Alg::EdDsa, kid, &builder.payload(), |_| signature);
    Bytes::from(bytes)
}

impl Device {
    fn make(&mut self, dice: &mut Dice, now_us: i64) -> Made {
        if dice.one_in(25) {
            (self.boot, self.seq, self.mono_us) = (BootId(dice.bytes()), 0, 1_000_000);
            if dice.one_in(2) {
                self.prev = [0; 16];
            }
        }
        if dice.one_in(15) {
            self.seq += 1 + dice.below(3) as u64;
        }
        let wall_us = match dice.below(12) {
            0 => None,
            1 => Some(12_345),
            2 => Some(now_us + 3_600_000_000),
            _ => Some(now_us),
        };
        let prev = if dice.one_in(20) { dice.bytes() } else { self.prev };
        let mut builder = FrameBuilder::new(self.boot, self.seq, prev, wall_us, self.mono_us);
        for _ in 0..=dice.below(2) {
            builder = builder.series(series(dice));
        }
        self.seq += 1;
        self.mono_us += 10_000_000;
        let mut signature = signature(dice);
        let is_forged = dice.one_in(50);
        if is_forged {
            signature[0] = FORGED;
        }
        let mut bytes = sealed(self.kid, &builder, signature);
        self.prev = Frame::parse(&bytes).unwrap().digest16();
        let is_garbled = dice.one_in(60);
        if is_garbled {
            bytes = bytes.slice(..bytes.len() - 1);
        }
        let is_genuine = !is_forged && !is_garbled && self.number < DEVICES;
        let key = is_genuine.then_some((self.number as u32, self.boot.0, builder.seq));
        Made { bytes, key }
    }
}

fn series(dice: &mut Dice) -> OutSeries {
    let waves = match dice.below(30) {
        0 => 1 + dice.below(LARGE_SAMPLES),
        1..=5 => 1 + dice.below(60),
        _ => 0,
    };
    let raws: Vec<i64> = match waves {
        0 => (0..1 + dice.below(5)).map(|_| dice.below(240) as i64).collect(),
        _ => (0..waves).map(|at| (at as i64 * 7) % 120 - 60).collect(),
    };
    let signal = match (waves, dice.below(12)) {
        (0, 0) => 9_999,
        (0, 1..=3) => 2,
        (0, _) => 1,
        _ => 14,
    };
    OutSeries {
        signal,
        offset_us: 0,
        period_us: 31_250,
        scale: Scale { num: 1, den: 1 + dice.below(64) as u32 },
        values: OutValues::narrowest(&raws).unwrap(),
        deltas: None,
        quality: None,
    }
}
