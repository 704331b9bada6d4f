//! `bench-hot verify`: all peers in one run, a table on stdout, raw and summary in a folder. Progress goes to stderr.
#![forbid(unsafe_code)]

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use bench_hot::case;
use bench_hot::machine::Machine;
use bench_hot::measure::{self, Effort};
use bench_hot::report::Report;
use bench_hot::station;
use clap::{Parser, Subcommand};

/// As in the server: it keeps freed pages, where the system's gives them back and has them zeroed again.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures the hot paths beside their peers.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Measure,
}

#[derive(Debug, Subcommand)]
enum Measure {
    /// Signature verification: our backends, ed25519-dalek, ring, aws-lc-rs, ed25519-zebra
    ///
    /// Every peer verifies the same signatures in turns; the median and the fastest round are reported, and how many
    /// times faster than ed25519-dalek's verify_strict and ring that is. From the base case (1,024 devices, 100 B,
    /// 1,024 per call, none bad, one thread) one thing is varied at a time: signatures per call, bytes, bad ones,
    /// threads, devices.
    ///
    /// Takes about 10 minutes and 4 GB of memory (tables of 65,536 devices); build with --release.
    Verify {
        /// Folder for raw.csv and summary.md; one that holds an older run is refused [default:
        /// bench/results/DATE-CPU below the current folder]
        #[arg(long, value_name = "FOLDER")]
        out: Option<PathBuf>,
        /// A minute instead: fewer and shorter rounds, one case of each kind, 1,024 devices only
        #[arg(long)]
        quick: bool,
    },
    /// The whole station: frame bytes in; verdict, leaf, Arrow columns out, at 1, 10, 60 and 300 readings per frame
    ///
    /// One thread, no network and no disk. Takes about a minute; build with --release.
    Station {
        /// Folder for station.md; one that holds an older run is refused [default: as for `verify`]
        #[arg(long, value_name = "FOLDER")]
        out: Option<PathBuf>,
    },
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Measure::Verify { out, quick } => verify(out, quick),
        Measure::Station { out } => station(out),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Where a run's files go, the machine, the date.
fn place(out: Option<PathBuf>) -> (PathBuf, Machine, String) {
    let machine = Machine::here();
    let date = jiff::Timestamp::now().strftime("%Y-%m-%d").to_string();
    let folder = out.unwrap_or_else(|| Path::new("bench/results").join(format!("{date}-{}", machine.slug())));
    if cfg!(debug_assertions) {
        eprintln!("warning: built without --release, so these figures mean nothing");
    }
    (folder, machine, date)
}

fn station(out: Option<PathBuf>) -> Result<()> {
    let (folder, machine, date) = place(out);
    let text = station::report(&folder, &machine, &date, 15)?;
    writeln!(io::stdout(), "{text}")?;
    eprintln!("kept in {}", folder.display());
    Ok(())
}

fn verify(out: Option<PathBuf>, is_quick: bool) -> Result<()> {
    let (folder, machine, date) = place(out);
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let command = format!("cargo run --release -p bench-hot -- {}", arguments.join(" "));
    let mut report = Report::create(&folder, &machine, &date, &command)?;
    let effort = if is_quick { Effort::QUICK } else { Effort::FULL };
    for case in case::all(is_quick) {
        let samples = measure::run(case, effort, &mut |text| eprintln!("{text}"))?;
        let table = report.add(case, &samples, &measure::figures(&samples)?)?;
        writeln!(io::stdout(), "{table}")?;
    }
    eprintln!("kept in {}", folder.display());
    Ok(())
}
