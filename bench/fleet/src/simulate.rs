//! A seeded fleet: the same seed gives the same keys, readings and faults. Plausible numbers, nobody's body.

use std::str::FromStr;

use schemas_frame::{Frame, FrameBuilder, OutSeries, OutValues, Scale};
use schemas_identity::{BootId, SecretKey};

use crate::FleetError;

/// Chance of each chosen fault per frame, in 1,000.
const FAULT_PER_MILLE: u64 = 50;
/// Seconds of readings in a frame.
const FRAME_SECONDS: i64 = 10;
/// Rounds a device is silent when it goes offline.
const OFFLINE_ROUNDS: u64 = 5;
/// A clock this far behind is before 2000 and one this far ahead is after arrival: both are told from old recordings.
const DECADES_US: i64 = 40 * 365 * 86_400 * 1_000_000;

/// Something that goes wrong on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fault {
    /// A frame is never sent.
    Gap,
    /// A frame is sent twice.
    Dup,
    /// An old frame is sent again.
    Replay,
    /// One bit changes on the way.
    Bitflip,
    /// The wall clock is decades off.
    Clock,
    /// Frames come all at once, out of order.
    Burst,
    /// The device is silent, then sends its backlog.
    Offline,
}

impl FromStr for Fault {
    type Err = String;
    fn from_str(text: &str) -> Result<Fault, String> {
        Ok(match text {
            "gap" => Fault::Gap,
            "dup" => Fault::Dup,
            "replay" => Fault::Replay,
            "bitflip" => Fault::Bitflip,
            "clock" => Fault::Clock,
            "burst" => Fault::Burst,
            "offline" => Fault::Offline,
            _ => {
                return Err(format!("`{text}`: faults are gap, dup, replay, bitflip, clock, burst, offline"));
            }
        })
    }
}

/// splitmix64: small, seeded, good enough for weather.
#[derive(Debug, Clone)]
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.roll() % limit.max(1)
    }

    fn around(&mut self, middle: i64, spread: i64) -> i64 {
        middle + self.below(2 * spread as u64 + 1) as i64 - spread
    }
}

/// Of so many frames of a backlog one comes twice.
const TWICE_ONE_IN: u64 = 20;

/// Puts frames in a random order that the seed gives, and some of them in twice.
pub fn shuffle_backlog(frames: &mut Vec<Vec<u8>>, seed: u64) {
    let mut dice = Dice(seed);
    for at in 0..frames.len() {
        if dice.below(TWICE_ONE_IN) == 0 {
            frames.push(frames[at].clone());
        }
    }
    for at in (1..frames.len()).rev() {
        frames.swap(at, dice.below(at as u64 + 1) as usize);
    }
}

/// One simulated device.
#[derive(Debug)]
pub struct Device {
    /// Its key.
    pub key: SecretKey,
    /// Its wearer's key.
    pub subject: SecretKey,
    boot: BootId,
    seq: u64,
    prev: [u8; 16],
    pulse: i64,
    backlog: Vec<Vec<u8>>,
    silent_rounds: u64,
    last: Vec<u8>,
}

/// The fleet.
#[derive(Debug)]
pub struct Fleet {
    devices: Vec<Device>,
    faults: Vec<Fault>,
    dice: Dice,
    start_us: i64,
    round: i64,
}

impl Fleet {
    /// A fleet of a seed; its first readings are taken at `start_us` (microseconds since 1970).
    pub fn new(devices: u32, seed: u64, faults: &[Fault], start_us: i64) -> Fleet {
        let device = |index: u32| {
            let secret = |use_: &str| {
                let mut hasher = blake3::Hasher::new_derive_key("vitalog 2026 simulated key v1");
                hasher.update(&seed.to_be_bytes()).update(&index.to_be_bytes()).update(use_.as_bytes());
                *hasher.finalize().as_bytes()
            };
            // A fleet that starts at another moment sends other frames, so it is another boot.
            let mut boot = [0u8; 8];
            boot.copy_from_slice(&secret(&format!("boot {start_us}"))[..8]);
            Device {
                key: SecretKey::from_seed(&secret("device")),
                subject: SecretKey::from_seed(&secret("subject")),
                boot: BootId(boot),
                seq: 0,
                prev: [0; 16],
                pulse: 60 + i64::from(index % 30),
                backlog: Vec::new(),
                silent_rounds: 0,
                last: Vec::new(),
            }
        };
        Fleet {
            devices: (0..devices).map(device).collect(),
            faults: faults.to_vec(),
            dice: Dice(seed),
            start_us,
            round: 0,
        }
    }

    /// The devices.
    pub fn devices(&self) -> &[Device] {
        &self.devices
    }

    /// What arrives in the next ten seconds of device time, faults included.
    pub fn next_round(&mut self) -> Result<Vec<Vec<u8>>, FleetError> {
        let t0_us = self.start_us + self.round * FRAME_SECONDS * 1_000_000;
        let mono_us = (self.round * FRAME_SECONDS * 1_000_000) as u64;
        self.round += 1;
        let mut sent = Vec::new();
        for device in &mut self.devices {
            let hit =
                |dice: &mut Dice, fault| self.faults.contains(&fault) && dice.below(1_000) < FAULT_PER_MILLE;
            let wall_us = match hit(&mut self.dice, Fault::Clock) {
                true if self.dice.below(2) == 0 => t0_us - DECADES_US,
                true => t0_us + DECADES_US,
                false => t0_us,
            };
            let frame = device.measure(wall_us, mono_us, &mut self.dice)?;
            if device.silent_rounds == 0 && hit(&mut self.dice, Fault::Offline) {
                device.silent_rounds = OFFLINE_ROUNDS;
            }
            if hit(&mut self.dice, Fault::Gap) {
                continue;
            }
            device.backlog.push(frame);
            if device.silent_rounds > 0 {
                device.silent_rounds -= 1;
                continue;
            }
            let mut out = std::mem::take(&mut device.backlog);
            if hit(&mut self.dice, Fault::Burst) {
                out.reverse();
            }
            if hit(&mut self.dice, Fault::Dup) {
                out.extend(out.last().cloned());
            }
            if hit(&mut self.dice, Fault::Replay) && !device.last.is_empty() {
                out.push(device.last.clone());
            }
            device.last = out.last().cloned().unwrap_or_default();
            if hit(&mut self.dice, Fault::Bitflip) {
                flip(&mut out, &mut self.dice);
            }
            sent.extend(out);
        }
        Ok(sent)
    }
}

/// Damages a copy of the newest frame; the good one follows, as a resend would.
fn flip(frames: &mut Vec<Vec<u8>>, dice: &mut Dice) {
    let Some(good) = frames.last().cloned() else { return };
    let mut bad = good.clone();
    // The signature is the last 64 bytes: a flip there is well-formed and wrong.
    let at = bad.len() - 1 - dice.below(32) as usize - 32;
    bad[at] ^= 1 << dice.below(8);
    let end = frames.len() - 1;
    frames.insert(end, bad);
}

impl Device {
    fn measure(&mut self, wall_us: i64, mono_us: u64, dice: &mut Dice) -> Result<Vec<u8>, FleetError> {
        self.pulse = (self.pulse + dice.around(0, 2)).clamp(45, 170);
        let pulse: Vec<i64> = (0..FRAME_SECONDS).map(|_| dice.around(self.pulse, 1)).collect();
        let skin = dice.around(3_310, 15);
        let wave: Vec<i64> = (0..FRAME_SECONDS * 32).map(|_| dice.around(40, 12)).collect();
        let mut frame = FrameBuilder::new(self.boot, self.seq, self.prev, Some(wall_us), mono_us);
        let series = [
            (1, 1_000_000, Scale { num: 1, den: 1 }, pulse),
            (2, 5_000_000, Scale { num: 1, den: 10 }, vec![dice.around(972, 8), dice.around(972, 8)]),
            (5, 5_000_000, Scale { num: 1, den: 100 }, vec![skin, skin + dice.around(0, 2)]),
            (14, 31_250, Scale { num: 1, den: 64 }, wave),
        ];
        for (signal, period_us, scale, raws) in series {
            let Some(values) = OutValues::narrowest(&raws) else { continue };
            frame = frame.series(OutSeries {
                signal,
                offset_us: 0,
                period_us,
                scale,
                values,
                deltas: None,
                quality: None,
            });
        }
        let bytes = frame.sign(&self.key)?;
        self.prev = Frame::parse(&bytes).map_err(schemas_frame::EncodeError)?.digest16();
        self.seq += 1;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Guarantee: a shuffled backlog has every frame, about one in twenty of them twice, and the same order for a seed.
    #[test]
    fn a_backlog_loses_nothing() {
        let frames: Vec<Vec<u8>> = (0..2_000u16).map(|at| at.to_le_bytes().to_vec()).collect();
        let mut shuffled = frames.clone();
        shuffle_backlog(&mut shuffled, 5);
        assert!((2_050..2_150).contains(&shuffled.len()), "{}", shuffled.len());
        assert_ne!(shuffled[..2_000], frames[..]);
        let mut again = frames.clone();
        shuffle_backlog(&mut again, 5);
        assert_eq!(shuffled, again);
        shuffled.sort_by_key(|frame| u16::from_le_bytes([frame[0], frame[1]]));
        shuffled.dedup();
        assert_eq!(shuffled, frames);
    }

    /// Guarantee: a seed replays everything, faults included; without faults every frame is good and in order.
    #[test]
    fn seeds_replay() {
        let faults = [
            Fault::Gap,
            Fault::Dup,
            Fault::Bitflip,
            Fault::Clock,
            Fault::Burst,
            Fault::Offline,
            Fault::Replay,
        ];
        let run = |seed| {
            let mut fleet = Fleet::new(3, seed, &faults, 1_700_000_000_000_000);
            (0..50).flat_map(|_| fleet.next_round().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
        let mut fleet = Fleet::new(1, 7, &[], 1_700_000_000_000_000);
        for seq in 0..20 {
            let frames = fleet.next_round().unwrap();
            let frame = Frame::parse(&frames[0]).unwrap();
            let mut message = Vec::new();
            frame.signed_message(&mut message);
            assert_eq!((frames.len(), frame.seq()), (1, seq));
            assert!(fleet.devices()[0].key.public().verify(&message, frame.signature()));
        }
    }
}
