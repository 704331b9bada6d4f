//! The whole station of the write path on one core: a frame's bytes in; its verdict, its leaf and its rows in Arrow columns
//! out. Without what waits for others: no network, no disk, no log.

use std::fmt::Write as _;
use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use ingest_lake::Admitted;
use ingest_verify::hashes::SideBySide;
use ingest_verify::{Kind, Watched};
use schemas_evidence::FrameHasher;
use schemas_evidence::merkle::Blake3Frames;
use schemas_frame::{
    Code, Frame, FrameBuilder, OutSeries, OutValues, Reference, Scale, Verifier, verify_all,
};
use schemas_identity::{BootId, PublicKey, SecretKey};

use crate::machine::Machine;
use crate::peer;

/// Readings per frame that are measured.
pub const READINGS: [usize; 4] = [1, 10, 60, 300];
/// Devices that send, and frames of each.
const DEVICES: usize = 1_024;
const FRAMES_EACH: u64 = 4;
/// Frames that come together.
const GROUP: usize = 1_024;
/// Most samples of one series: longer ones are waveforms, one row each, which costs less.
const SERIES_SAMPLES: usize = 30;
const T0_US: i64 = 1_767_225_600_000_000;

/// A frame with the key of its device.
struct Arrival {
    device: u32,
    key: PublicKey,
    bytes: Bytes,
}

/// Who verifies, and who hashes.
struct Station {
    name: String,
    verifier: Box<dyn Verifier>,
    hasher: Box<dyn FrameHasher>,
}

/// Seconds of each step, and what came out.
#[derive(Debug, Clone, Copy, Default)]
pub struct Spent {
    /// Parsing, verifying, hashing leaves and tree, making columns.
    pub steps: [f64; 4],
    /// Frames accepted.
    pub frames: usize,
    /// Rows made.
    pub rows: usize,
}

const STEPS: [&str; 4] = ["parse", "verify", "hash", "columns"];

impl Spent {
    fn total(&self) -> f64 {
        self.steps.iter().sum()
    }
}

fn stations() -> Vec<Station> {
    let mut stations = Vec::new();
    for kind in Kind::all() {
        if let Some(watched) = Watched::new(kind, peer::options()) {
            let name = format!("vitalog-{}", kind.name());
            stations.push(Station { name, verifier: Box::new(watched), hasher: Box::new(SideBySide) });
        }
    }
    let (verifier, hasher) = (Box::new(Reference), Box::new(Blake3Frames));
    stations.push(Station { name: "vitalog-reference".to_owned(), verifier, hasher });
    stations
}

fn arrivals(readings: usize) -> Result<Vec<Arrival>> {
    let mut arrivals = Vec::with_capacity(DEVICES * FRAMES_EACH as usize);
    for seq in 0..FRAMES_EACH {
        for device in 0..DEVICES as u32 {
            let secret = SecretKey::from_seed(blake3::hash(&device.to_le_bytes()).as_bytes());
            let mono_us = seq * 60_000_000;
            let mut builder = FrameBuilder::new(BootId([7; 8]), seq, [0; 16], Some(T0_US), mono_us);
            for (part, first) in (0..readings).step_by(SERIES_SAMPLES).enumerate() {
                let samples = (readings - first).min(SERIES_SAMPLES);
                let raw =
                    (0..samples).map(|at| 600 + (at as u64 * 13 + u64::from(device) + seq) as u16 % 300);
                builder = builder.series(OutSeries {
                    signal: part as u32 + 1,
                    offset_us: 0,
                    period_us: 1_000_000,
                    scale: Scale { num: 1, den: 10 },
                    values: OutValues::U16(raw.collect()),
                    deltas: None,
                    quality: None,
                });
            }
            let bytes = builder.sign(&secret).context("a frame that the encoder refuses")?.into();
            arrivals.push(Arrival { device, key: secret.public(), bytes });
        }
    }
    Ok(arrivals)
}

/// One group through the station; what comes out is dropped.
fn pass(station: &Station, group: &[Arrival], spent: &mut Spent) -> Result<()> {
    let mut at = [Instant::now(); 5];
    let mut candidates = Vec::with_capacity(group.len());
    for arrival in group {
        candidates.push((Frame::parse(&arrival.bytes)?, arrival.key));
    }
    at[1] = Instant::now();
    let verified = verify_all(station.verifier.as_ref(), candidates);
    at[2] = Instant::now();
    let bytes: Vec<&[u8]> = group.iter().map(|arrival| arrival.bytes.as_ref()).collect();
    black_box(station.hasher.root(&station.hasher.leaves(&bytes)));
    at[3] = Instant::now();
    let mut admitted = Vec::with_capacity(group.len());
    for (arrival, _) in group.iter().zip(&verified).filter(|(_, verdict)| verdict.is_ok()) {
        admitted.push(Admitted {
            position: 0,
            device: arrival.device,
            t0_us: T0_US,
            received_us: T0_US,
            flags: 0,
            code: Code::Ok,
            frame: arrival.bytes.clone(),
        });
    }
    let rows = black_box(ingest_lake::rows(&admitted, 0)?);
    at[4] = Instant::now();
    for (step, seconds) in spent.steps.iter_mut().enumerate() {
        *seconds += (at[step + 1] - at[step]).as_secs_f64();
    }
    spent.frames += admitted.len();
    spent.rows += rows.scalar.num_rows();
    Ok(())
}

/// The fastest of some rounds of each station, in turns; fails if a frame is not accepted or a row is missing.
fn measure(readings: usize, rounds: usize) -> Result<Vec<(String, Spent)>> {
    let (arrivals, stations) = (arrivals(readings)?, stations());
    let mut best: Vec<(String, Spent)> = Vec::new();
    for station in &stations {
        // Until every device has its largest table.
        let passes = if station.name.ends_with("reference") { 1 } else { 6 };
        for _ in 0..passes {
            run(station, &arrivals, readings)?;
        }
        best.push((station.name.clone(), Spent::default()));
    }
    for _ in 0..rounds {
        for (station, (_, best)) in stations.iter().zip(&mut best) {
            let spent = run(station, &arrivals, readings)?;
            if best.frames == 0 || spent.total() < best.total() {
                *best = spent;
            }
        }
    }
    Ok(best)
}

fn run(station: &Station, arrivals: &[Arrival], readings: usize) -> Result<Spent> {
    let mut spent = Spent::default();
    for group in arrivals.chunks(GROUP) {
        pass(station, group, &mut spent)?;
    }
    ensure!(spent.frames == arrivals.len(), "{} refused good frames", station.name);
    ensure!(spent.rows == arrivals.len() * readings, "{} rows of {readings} readings", spent.rows);
    Ok(spent)
}

/// Measures every size; gives the report, and writes it to `station.md` in the folder.
pub fn report(folder: &Path, machine: &Machine, date: &str, rounds: usize) -> Result<String> {
    let path = folder.join("station.md");
    ensure!(!path.exists(), "{} is of an older run, which stays: choose another --out", path.display());
    let Machine { cpu, cores, flags, rustc } = machine;
    let mut text = format!(
        "# Whole station, {date}\n\n{cpu}, {cores} cores, {}; {rustc}\n\nFrame bytes in; verdict, leaf and root, Arrow \
         columns out. One thread, {DEVICES} devices, {GROUP} frames at a time, fastest of {rounds} rounds in turns.\n\n\
         | readings/frame | station | frames/s | readings/s | {} |\n|---:|---|---:|---:|---:|---:|---:|---:|\n",
        flags.join(" "),
        STEPS.map(|step| format!("{step} us")).join(" | ")
    );
    for readings in READINGS {
        eprintln!("station: {readings} readings per frame");
        for (name, spent) in measure(readings, rounds)? {
            let per_second = spent.frames as f64 / spent.total();
            let steps = spent.steps.map(|seconds| format!("{:.2}", seconds * 1e6 / spent.frames as f64));
            let _ = writeln!(
                text,
                "| {readings} | {name} | {per_second:.0} | {:.0} | {} |",
                per_second * readings as f64,
                steps.join(" | ")
            );
        }
    }
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    std::fs::write(&path, &text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Guarantee: every frame comes out as as many rows as it has readings, in every station.
    #[test]
    fn every_reading_comes_out() {
        for station in stations() {
            let all = arrivals(70).unwrap();
            let spent = run(&station, &all[..40], 70).unwrap();
            assert_eq!((spent.frames, spent.rows), (40, 2_800));
        }
    }
}
