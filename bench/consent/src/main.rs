//! What consent costs: the engine with a warrant, an audit record before the first row and a completion after the last,
//! beside DataFusion and DuckDB without any of it, on the same Parquet files, in turns.
//!
//! It measures the engine in process, with the real index of statements, the real audit on disk and real files of the lake.
//! It is not a load test of the doors, and its people are invented.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};

mod cost;
mod lake;
mod peer;
mod population;
mod progress;
mod questions;
mod revoke;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(about, long_about = None)]
struct Arguments {
    /// Where lakes are kept between runs.
    #[arg(long, global = true, default_value = "target/bench-consent")]
    dir: PathBuf,
    /// People, each with a device and two hundred readings.
    #[arg(long, global = true, default_value_t = 100_000)]
    people: u32,
    /// Rounds; figures are medians.
    #[arg(long, global = true, default_value_t = 5)]
    rounds: usize,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Aggregates over all readings and one person's day, with consent of 10, 1,000 and all people.
    ///
    /// Example: bench-consent cost --python venv/bin/python
    Cost {
        /// A Python with datafusion, duckdb and pyarrow.
        #[arg(long, default_value = "python3")]
        python: PathBuf,
    },
    /// The four questions that peers were compared with before anything was built, on 19 million dense readings.
    Dense {
        /// A Python with datafusion, duckdb and pyarrow.
        #[arg(long, default_value = "python3")]
        python: PathBuf,
    },
    /// The aggregates over all people again and again without a peer, for a profiler.
    ///
    /// Example: bench-consent --rounds 50 alone & sleep 120; perf record -p $! -- sleep 20
    Alone,
    /// From a revocation to the empty answer, beside many queries that run all the time.
    Revoke {
        /// Queries running beside.
        #[arg(long, default_value_t = 100)]
        beside: usize,
        /// People whom the queries beside may see.
        #[arg(long, default_value_t = 10_000)]
        cohort: u32,
        /// Revocations measured.
        #[arg(long, default_value_t = 200)]
        times: u32,
    },
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let Arguments { dir, people, rounds, command } = arguments;
    std::fs::create_dir_all(&dir)?;
    match command {
        Command::Cost { python } => cost::cost(&dir, people, rounds, &python),
        Command::Dense { python } => cost::dense(&dir, rounds, &python),
        Command::Alone => cost::alone(&dir, people, rounds),
        Command::Revoke { beside, cohort, times } => revoke::revoke(&dir, people, cohort, beside, times),
    }
}
