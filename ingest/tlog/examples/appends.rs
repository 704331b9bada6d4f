//! Prints how many appends a second the log takes, each durable before it returns, with 1 and with 16 threads.
//!
//! `cargo run --release -p ingest-tlog --example appends -- [DIR] [SECONDS]`. What it is not: a test; it asserts nothing.
#![expect(clippy::print_stdout, reason = "its output is its purpose")]

use std::error::Error;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ingest_tlog::{FileLog, Options};
use schemas_evidence::{Entry, Ledger};
use schemas_identity::SecretKey;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let dir = arguments.next().map_or_else(|| std::env::temp_dir().join("vitalog-appends"), PathBuf::from);
    let seconds = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(3);
    for threads in [1, 16] {
        let place = dir.join(format!("{threads}-{}", std::process::id()));
        let log =
            FileLog::open(&place, "bench.example/log", SecretKey::from_seed(&[1; 32]), Options::default())?;
        let slowest = AtomicU64::new(0);
        let begun = Instant::now();
        let end = begun + Duration::from_secs(seconds);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| append_until(&log, end, &slowest));
            }
        });
        let rate = log.size() as f64 / begun.elapsed().as_secs_f64();
        let slowest_ms = slowest.load(Ordering::Relaxed) as f64 / 1000.0;
        println!(
            "{threads:>2} threads: {rate:>9.0} appends/s, slowest {slowest_ms:.1} ms, {} entries",
            log.size()
        );
        drop(log);
        let begun = Instant::now();
        FileLog::open(&place, "bench.example/log", SecretKey::from_seed(&[1; 32]), Options::default())?;
        println!(
            "            opened again, all entries compared, in {:.0} ms",
            begun.elapsed().as_secs_f64() * 1e3
        );
        std::fs::remove_dir_all(&place)?;
    }
    Ok(())
}

fn append_until(log: &FileLog, end: Instant, slowest_us: &AtomicU64) {
    let mut n = 0u64;
    while Instant::now() < end {
        let mut commitment = [7; 32];
        commitment[..8].copy_from_slice(&n.to_be_bytes());
        n += 1;
        let begun = Instant::now();
        if log.append(&[Entry::Statement { commitment }]).is_err() {
            return;
        }
        slowest_us.fetch_max(begun.elapsed().as_micros() as u64, Ordering::Relaxed);
    }
}
