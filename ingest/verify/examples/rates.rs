//! Signatures per second of the comb and of `verify_strict` in the same run, interleaved, one thread.
//! Not a statement about a server: only verification, messages and tables warm.
//!
//! `cargo run --release -p ingest-verify --example rates [backend ..]`

use std::time::Instant;

use ingest_verify::watch::Signed;
use ingest_verify::{Kind, Options, Watched};
use schemas_identity::{PublicKey, SecretKey};

const ROUNDS: usize = 7;
const JOBS: usize = 4_096;

struct Job {
    key: PublicKey,
    message: Vec<u8>,
    signature: [u8; 64],
}

fn jobs(devices: usize, bytes: usize, bad_per_mille: usize) -> Vec<Job> {
    let keys: Vec<SecretKey> = (0..devices as u64)
        .map(|device| {
            let mut seed = [7; 32];
            seed[..8].copy_from_slice(&device.to_le_bytes());
            SecretKey::from_seed(&seed)
        })
        .collect();
    let job = |index: usize| {
        let key = &keys[(index * 7_919) % devices];
        let mut message = vec![0x5a; bytes];
        message[..8].copy_from_slice(&(index as u64).to_le_bytes());
        let mut signature = key.sign(&message);
        if index * 7 % 1_000 < bad_per_mille {
            signature[40] ^= 1;
        }
        Job { key: key.public(), message, signature }
    };
    (0..JOBS.max(devices)).map(job).collect()
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

/// Rates in turns, so that whatever else the machine does meets all alike; the last is `verify_strict`.
fn measure(backends: &[Watched], signed: &[Signed<'_>]) -> Vec<f64> {
    let mut rates = vec![Vec::new(); backends.len() + 1];
    let mut verdicts = Vec::new();
    for backend in backends {
        // Long enough for every key to have the largest table that there is room for.
        for _ in 0..66 {
            backend.verify_each(signed, &mut verdicts);
        }
    }
    for _ in 0..ROUNDS {
        for (backend, rates) in backends.iter().zip(&mut rates) {
            let start = Instant::now();
            backend.verify_each(signed, &mut verdicts);
            rates.push(signed.len() as f64 / start.elapsed().as_secs_f64());
        }
        let start = Instant::now();
        let part = &signed[..signed.len().min(2_048)];
        let good = part.iter().filter(|job| job.key.verify(job.message, job.signature)).count();
        rates[backends.len()].push(part.len() as f64 / start.elapsed().as_secs_f64());
        assert_eq!(good, verdicts[..part.len()].iter().filter(|verdict| **verdict).count());
    }
    rates.into_iter().map(median).collect()
}

#[expect(clippy::print_stdout, reason = "an example prints its figures")]
fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let is_wanted = |kind: &Kind| wanted.is_empty() || wanted.iter().any(|name| name == kind.name());
    let kinds: Vec<Kind> = Kind::all().into_iter().filter(is_wanted).collect();
    let names: Vec<&str> = kinds.iter().map(|kind| kind.name()).collect();
    println!(
        "devices bytes bad% | {} verify_strict, each /s | fastest to verify_strict | tables",
        names.join(" ")
    );
    let options = Options { table_bytes_max: 1 << 30, hot_after: 32, ..Options::default() };
    for (devices, bytes, bad) in [
        (64, 100, 0),
        (1_024, 100, 0),
        (1_024, 100, 100),
        (1_024, 300, 0),
        (1_024, 1_024, 0),
        (16_384, 100, 0),
    ] {
        let backends: Vec<Watched> = kinds.iter().filter_map(|kind| Watched::new(*kind, options)).collect();
        let jobs = jobs(devices, bytes, bad);
        let signed: Vec<Signed<'_>> = jobs
            .iter()
            .map(|job| Signed { key: &job.key, message: &job.message, signature: &job.signature })
            .collect();
        let rates = measure(&backends, &signed);
        let ratio = rates[rates.len() - 2] / rates[rates.len() - 1];
        let tables = backends[0].stats().tables;
        let rates: Vec<String> = rates.iter().map(|rate| format!("{rate:8.0}")).collect();
        println!(
            "{devices:7} {bytes:5} {:4.1} | {} | {ratio:5.1} | {} hot, {} large, {} small, {} MiB",
            bad as f64 / 10.0,
            rates.join(" "),
            tables.hot,
            tables.large,
            tables.small,
            tables.bytes >> 20,
        );
    }
}
