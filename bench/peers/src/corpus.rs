//! Frames signed beforehand, in a file, so that a run measures who takes them and not who signs them.
//!
//! ```text
//! frames.bin    "vitalogF" | version u32 | kind u32 | devices u32 | frames per device u32 | seed u64 | start us i64
//!               then, round by round, one frame of every device in turn: length u32 | frame
//! devices.json  [{"device": short id, "device_pem": .., "subject_pem": ..}, ..] in the same order
//! ```
//!
//! Integers are little-endian. The same arguments give the same bytes; more frames of the same seed begin with the same.
//! The keys are made from the seed, so they are nobody's secret and of no use elsewhere.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use schemas_frame::{Frame, FrameBuilder};
use schemas_identity::{BootId, SecretKey};
use serde_json::{Value, json};

use crate::shape::{Kind, Sensors};

const MAGIC: &[u8; 8] = b"vitalogF";
const VERSION: u32 = 1;
const HEAD_BYTES: usize = 40;
/// Most devices of a corpus.
pub const DEVICES_MAX: u32 = 65_536;
/// Most frames of a device: its clock must not pass today's.
pub const FRAMES_MAX: u32 = 1_000_000;
/// Longest frame there may be, as the format says.
const FRAME_BYTES_MAX: u32 = 64 << 10;
/// Rounds that are signed before they are written.
const ROUNDS_AT_ONCE: u32 = 64;
/// First reading: 2025-01-01T00:00:00Z. Old recordings are not a bad clock, and a fixed start gives the same bytes.
const START_US: i64 = 1_735_689_600_000_000;

/// What a corpus holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Kind of every frame.
    pub kind: Kind,
    /// Devices.
    pub devices: u32,
    /// Frames of each device.
    pub frames: u32,
    /// Keys and values come from it.
    pub seed: u64,
    /// Moment of the first readings.
    pub start_us: i64,
}

/// Keys of a device and of its wearer.
#[derive(Debug)]
pub struct Keys {
    /// The device's.
    pub device: SecretKey,
    /// The wearer's.
    pub subject: SecretKey,
}

/// A corpus in memory.
#[derive(Debug)]
pub struct Corpus {
    /// What it holds.
    pub head: Head,
    /// Keys of the devices.
    pub keys: Vec<Keys>,
    bytes: Vec<u8>,
    /// Where frames begin in `bytes`, and one end more.
    starts: Vec<u64>,
}

impl Head {
    /// A corpus to be made.
    ///
    /// # Errors
    /// When it exceeds a bound.
    pub fn new(kind: Kind, devices: u32, frames: u32, seed: u64) -> Result<Head> {
        ensure!((1..=DEVICES_MAX).contains(&devices), "1 to {DEVICES_MAX} devices");
        ensure!((1..=FRAMES_MAX).contains(&frames), "1 to {FRAMES_MAX} frames of each device");
        Ok(Head { kind, devices, frames, seed, start_us: START_US })
    }

    /// Frames of all devices.
    #[must_use]
    pub fn total(&self) -> usize {
        self.devices as usize * self.frames as usize
    }

    fn secret(&self, device: u32, purpose: &str) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key("vitalog 2026 bench peers key v1");
        hasher.update(&self.seed.to_le_bytes()).update(&device.to_le_bytes()).update(purpose.as_bytes());
        *hasher.finalize().as_bytes()
    }

    fn keys(&self, device: u32) -> Keys {
        Keys {
            device: SecretKey::from_seed(&self.secret(device, "device")),
            subject: SecretKey::from_seed(&self.secret(device, "subject")),
        }
    }

    /// The one boot of a device; another kind is another boot, or its frames would be equivocations.
    #[must_use]
    pub fn boot(&self, device: u32) -> BootId {
        let mut boot = [0u8; 8];
        boot.copy_from_slice(&self.secret(device, &format!("boot {}", self.kind.name()))[..8]);
        BootId(boot)
    }

    fn to_bytes(self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        for number in [VERSION, self.kind as u32, self.devices, self.frames] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&self.seed.to_le_bytes());
        out.extend_from_slice(&self.start_us.to_le_bytes());
        out
    }

    fn parse(bytes: &[u8]) -> Option<Head> {
        let mut reader = bytes.strip_prefix(MAGIC)?;
        let mut take = |length: usize| {
            let (part, rest) = reader.split_at_checked(length)?;
            reader = rest;
            let mut wide = [0u8; 8];
            wide[..length].copy_from_slice(part);
            Some(u64::from_le_bytes(wide))
        };
        let (version, kind) = (take(4)?, take(4)?);
        let kind = [Kind::A, Kind::B].into_iter().find(|one| *one as u64 == kind)?;
        let (devices, frames, seed) = (take(4)? as u32, take(4)? as u32, take(8)?);
        let head = Head { start_us: take(8)?.cast_signed(), ..Head::new(kind, devices, frames, seed).ok()? };
        (version == u64::from(VERSION)).then_some(head)
    }
}

/// One device that signs.
struct Signer {
    key: SecretKey,
    boot: BootId,
    sensors: Sensors,
    prev: [u8; 16],
}

impl Signer {
    fn new(head: &Head, device: u32) -> Signer {
        let mut seed = [0u8; 8];
        seed.copy_from_slice(&head.secret(device, "sensors")[..8]);
        let sensors = Sensors::new(head.kind, u64::from_le_bytes(seed));
        Signer { key: head.keys(device).device, boot: head.boot(device), sensors, prev: [0; 16] }
    }

    fn next(&mut self, head: &Head, seq: u64, out: &mut Vec<u8>) -> Result<()> {
        let mono_us = seq * head.kind.frame_us();
        let wall_us = head.start_us + mono_us.cast_signed();
        let mut builder = FrameBuilder::new(self.boot, seq, self.prev, Some(wall_us), mono_us);
        builder.series = self.sensors.measure();
        let bytes = builder.sign(&self.key)?;
        self.prev = Frame::parse(&bytes).context("a frame of our own making")?.digest16();
        out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        out.extend_from_slice(&bytes);
        Ok(())
    }
}

/// Records of some rounds of some devices, a blob a round.
fn sign_rounds(head: &Head, signers: &mut [Signer], rounds: std::ops::Range<u32>) -> Result<Vec<Vec<u8>>> {
    let mut blobs = Vec::with_capacity(rounds.len());
    for round in rounds {
        let mut blob = Vec::new();
        for signer in signers.iter_mut() {
            signer.next(head, u64::from(round), &mut blob)?;
        }
        blobs.push(blob);
    }
    Ok(blobs)
}

/// Signs a corpus into a folder, on all cores; `progress` is told how many more frames are written.
///
/// # Errors
/// When the folder cannot be written.
pub fn make(head: &Head, folder: &Path, progress: &dyn Fn(u64)) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let path = folder.join("frames.bin");
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    let mut file = BufWriter::with_capacity(1 << 20, file);
    file.write_all(&head.to_bytes())?;
    let mut signers: Vec<Signer> = (0..head.devices).map(|device| Signer::new(head, device)).collect();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let share = signers.len().div_ceil(threads);
    let mut round = 0;
    while round < head.frames {
        let rounds = round..(round + ROUNDS_AT_ONCE).min(head.frames);
        let blobs = std::thread::scope(|scope| {
            let start = |part| {
                let rounds = rounds.clone();
                scope.spawn(move || sign_rounds(head, part, rounds))
            };
            let threads: Vec<_> = signers.chunks_mut(share).map(start).collect();
            let join = |thread: std::thread::ScopedJoinHandle<'_, Result<Vec<Vec<u8>>>>| match thread.join() {
                Ok(blobs) => blobs,
                Err(_) => bail!("a signing thread panicked"),
            };
            threads.into_iter().map(join).collect::<Result<Vec<_>>>()
        })?;
        for at in 0..rounds.len() {
            for part in &blobs {
                file.write_all(&part[at])?;
            }
        }
        progress(rounds.len() as u64 * u64::from(head.devices));
        round = rounds.end;
    }
    file.flush()?;
    write_keys(head, &folder.join("devices.json"))
}

fn write_keys(head: &Head, path: &Path) -> Result<()> {
    let devices: Vec<Value> = (0..head.devices)
        .map(|device| {
            let keys = head.keys(device);
            json!({
                "device": keys.device.public().short_id(),
                "device_pem": keys.device.to_pem().as_str(),
                "subject_pem": keys.subject.to_pem().as_str(),
            })
        })
        .collect();
    fs::write(path, Value::Array(devices).to_string())
        .with_context(|| format!("cannot write {}", path.display()))
}

impl Corpus {
    /// Reads a folder that [`make`] wrote, whole.
    ///
    /// # Errors
    /// When it cannot be read or is not what the header says.
    pub fn open(folder: &Path) -> Result<Corpus> {
        let path = folder.join("frames.bin");
        let what = || format!("{} (bench-peers make writes it)", path.display());
        let bytes = fs::read(&path).with_context(what)?;
        let head = bytes.get(..HEAD_BYTES).and_then(Head::parse);
        let head = head.with_context(|| format!("{} is no corpus of this version", path.display()))?;
        let mut starts = Vec::with_capacity(head.total() + 1);
        let mut at = HEAD_BYTES;
        for _ in 0..head.total() {
            let Some(length) = bytes.get(at..).and_then(<[u8]>::first_chunk::<4>) else { break };
            let length = u32::from_le_bytes(*length);
            ensure!(length <= FRAME_BYTES_MAX, "{}: a frame of {length} bytes", path.display());
            starts.push(at as u64 + 4);
            at += 4 + length as usize;
        }
        let is_whole = starts.len() == head.total() && at == bytes.len();
        ensure!(is_whole, "{} is cut off or has something behind it", path.display());
        starts.push(at as u64 + 4);
        let keys = (0..head.devices).map(|device| head.keys(device)).collect();
        Ok(Corpus { head, keys, bytes, starts })
    }

    /// Frames in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.starts.len() - 1
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes of a frame.
    ///
    /// # Panics
    /// When there is none of that number.
    #[must_use]
    pub fn frame(&self, index: usize) -> &[u8] {
        // Between two frames stand the four bytes of the second one's length.
        &self.bytes[self.starts[index] as usize..self.starts[index + 1] as usize - 4]
    }

    /// Which device a frame is of.
    #[must_use]
    pub fn device(&self, index: usize) -> usize {
        index % self.head.devices as usize
    }

    /// A frame's sequence number.
    #[must_use]
    pub fn seq(&self, index: usize) -> u64 {
        (index / self.head.devices as usize) as u64
    }

    /// Deals frames to connections: a device's frames stay on one connection and in order, or the server would see gaps.
    #[must_use]
    pub fn deal(&self, connections: usize, frames: impl Iterator<Item = usize>) -> Vec<Vec<u32>> {
        let mut lanes = vec![Vec::new(); connections];
        for index in frames {
            lanes[self.device(index) % connections].push(index as u32);
        }
        lanes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Guarantee: what is read is what was made: signed, chained, in turn, not overlapping; a cut file is refused.
    #[test]
    fn made_and_read() {
        let folder = tempfile::tempdir().unwrap();
        for kind in [Kind::A, Kind::B] {
            let head = Head::new(kind, 3, 70, 9).unwrap();
            make(&head, folder.path(), &|_| {}).unwrap();
            let corpus = Corpus::open(folder.path()).unwrap();
            assert_eq!((corpus.head, corpus.len()), (head, 210));
            let mut prev = [[0u8; 16]; 3];
            for index in 0..corpus.len() {
                let frame = Frame::parse(corpus.frame(index)).unwrap();
                let device = corpus.device(index);
                let mut message = Vec::new();
                frame.signed_message(&mut message);
                assert!(corpus.keys[device].device.public().verify(&message, frame.signature()));
                assert_eq!((frame.seq(), frame.boot()), (corpus.seq(index), head.boot(device as u32)));
                assert_eq!(frame.prev(), prev[device]);
                prev[device] = frame.digest16();
                let wall_us = head.start_us + (frame.seq() * kind.frame_us()).cast_signed();
                assert_eq!(frame.wall_us(), Some(wall_us));
            }
            let path = folder.path().join("frames.bin");
            let bytes = fs::read(&path).unwrap();
            fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
            assert!(Corpus::open(folder.path()).is_err());
        }
    }

    // Guarantee: a device never changes its connection, and nothing is lost or doubled on the way to the lanes.
    #[test]
    fn lanes_keep_devices() {
        let folder = tempfile::tempdir().unwrap();
        make(&Head::new(Kind::A, 5, 4, 1).unwrap(), folder.path(), &|_| {}).unwrap();
        let corpus = Corpus::open(folder.path()).unwrap();
        let lanes = corpus.deal(2, 0..corpus.len());
        assert_eq!(lanes.iter().map(Vec::len).sum::<usize>(), 20);
        for (lane, frames) in lanes.iter().enumerate() {
            assert!(frames.is_sorted());
            assert!(frames.iter().all(|index| corpus.device(*index as usize) % 2 == lane));
        }
    }
}
