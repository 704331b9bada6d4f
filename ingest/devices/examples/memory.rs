//! Memory and time of the sequence windows at a million devices, measured and not computed.
//!
//! `cargo run --release -p ingest-devices --example memory [devices]`
#![expect(clippy::print_stdout, reason = "its output is its purpose")]

use std::hint::black_box;

use ingest_devices::{Ask, Limits, Standing, Windows};
use schemas_identity::{BootId, DeviceNumber};

/// Frames judged between two commits.
const GROUP: u32 = 512;
const NOW_US: i64 = 1_772_323_200_000_000;

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or("VmRSS: 0 kB");
    line.split_whitespace().nth(1).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0) * 1024
}

fn digest(device: u32, seq: u64) -> [u8; 16] {
    let mut digest = [7; 16];
    digest[..4].copy_from_slice(&device.to_le_bytes());
    digest[8..].copy_from_slice(&seq.wrapping_add(1).to_le_bytes());
    digest
}

fn ask(device: u32, seq: u64) -> Ask {
    let prev = seq.checked_sub(1).map_or([0; 16], |seq| digest(device, seq));
    let (digest, boot) = (digest(device, seq), BootId(u64::from(device).to_le_bytes()));
    Ask { device: DeviceNumber(device), boot, seq, digest, prev, is_revoked: false }
}

/// Nanoseconds this thread has had the processor: other programs on the machine do not count.
fn cpu_ns() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split_whitespace().next().and_then(|ns| ns.parse().ok()).unwrap_or(0.0)
}

/// One frame of each device, device by device; gives nanoseconds per frame.
fn round(windows: &mut Windows, devices: std::ops::Range<u32>, seq: u64) -> f64 {
    let count = devices.len();
    let started = cpu_ns();
    for device in devices {
        let ask = ask(device, seq);
        let standing = windows.judge_and_reserve(black_box(&ask));
        assert!(matches!(standing, Standing::New(_)), "{standing:?}");
        let times = (Some(NOW_US + seq as i64), seq * 10_000_000);
        black_box(windows.place(ask.device, ask.boot, times, NOW_US));
        if device % GROUP == GROUP - 1 {
            windows.commit();
        }
    }
    windows.commit();
    (cpu_ns() - started) / count as f64
}

fn main() {
    let devices: u32 = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(1_000_000);
    let before = resident_bytes();
    let mut windows = Windows::new(Limits::default());
    windows.arrive(NOW_US);
    println!("| after | CPU ns per frame | resident bytes per device | counted per device | passes |");
    println!("|---|---|---|---|---|");
    for seq in 0..16 {
        let ns = round(&mut windows, 0..devices, seq);
        let resident = resident_bytes().saturating_sub(before) / u64::from(devices);
        let (bytes, passes) = windows.memory();
        let counted = bytes / devices as usize;
        println!("| frame {} of {devices} devices | {ns:.0} | {resident} | {counted} | {passes} |", seq + 1);
    }
    for (name, count) in [("100", 100), ("10,000", 10_000)] {
        let (started, rounds, first) = (cpu_ns(), 2_000_000 / count, devices + count);
        for seq in 0..rounds {
            round(&mut windows, first..first + count, u64::from(seq));
        }
        let ns = (cpu_ns() - started) / f64::from(rounds * count);
        println!("| {rounds} frames of {name} hot devices | {ns:.0} | | | |");
    }
    let mut ordinary = Windows::new(Limits { bytes_max: 145 * devices as usize, ..Limits::default() });
    let before = resident_bytes();
    (0..3).for_each(|seq| {
        round(&mut ordinary, 0..devices, seq);
    });
    let resident = resident_bytes().saturating_sub(before);
    println!("\nordinary state only: {} MB for {devices} devices", resident / 1_000_000);
    black_box(&windows);
}
