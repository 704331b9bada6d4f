//! Questions in turns, and the table of medians.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use query_audit::Audit;
use query_engine::{Engine, FileKind, Options, RunOptions, Tables};
use schemas_evidence::Ledger;
use tokio::runtime::Runtime;

use crate::lake::{Recording, Stored};
use crate::peer::Peer;
use crate::population::{NOW_US, ORIGIN, Population, device, key};
use crate::questions::{self, Question};

/// Threads of every side.
const THREADS: usize = 2;

/// The engine with all that belongs to it.
pub(crate) struct Ours {
    pub(crate) engine: Arc<Engine>,
    pub(crate) population: Arc<Population>,
    pub(crate) runtime: Runtime,
    audit_dir: std::path::PathBuf,
}

/// What one query took.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Took {
    /// Making the warrant.
    pub(crate) warrant_s: f64,
    /// From then until the intent is durable and rows may come.
    pub(crate) start_s: f64,
    /// From then to the end of the stream, the completion's record included.
    pub(crate) rest_s: f64,
    /// Rows of the answer.
    pub(crate) rows: u64,
}

impl Ours {
    /// Everything opened; the audit starts empty.
    pub(crate) fn start(
        dir: &Path,
        stored: Stored,
        population: Population,
        options: Options,
    ) -> Result<Ours> {
        let audit_dir = dir.join(format!("audit-{}", std::process::id()));
        let log = ingest_tlog::FileLog::open(
            &audit_dir.join("log"),
            ORIGIN,
            key("log", 1),
            ingest_tlog::Options::default(),
        )?;
        let ledger: Arc<dyn Ledger> = Arc::new(log);
        let audit = Audit::open(audit_dir.join("records"), ledger)?;
        let options = Options { clock: Arc::new(|| NOW_US), partitions: THREADS, ..options };
        let tables: Arc<dyn Tables> = Arc::new(stored);
        let engine = Engine::new(options, tables, Arc::clone(&population.consents), Arc::new(audit))?;
        let runtime = Runtime::new()?;
        Ok(Ours { engine: Arc::new(engine), population: Arc::new(population), runtime, audit_dir })
    }

    /// One query of a cohort's asker, to its end.
    pub(crate) async fn ask(
        engine: &Engine,
        population: &Population,
        cohort: u32,
        sql: &str,
    ) -> Result<Took> {
        let start = Instant::now();
        let warrant = population.warrant(cohort)?;
        let warrant_s = start.elapsed().as_secs_f64();
        let mut running = engine.run(warrant, sql, RunOptions::default()).await?;
        let started_s = start.elapsed().as_secs_f64();
        let mut rows = 0;
        while let Some(batch) = running.next().await {
            rows += batch?.num_rows() as u64;
        }
        let rest_s = start.elapsed().as_secs_f64() - started_s;
        Ok(Took { warrant_s, start_s: started_s - warrant_s, rest_s, rows })
    }

    fn once(&self, cohort: u32, sql: &str) -> Result<Took> {
        self.runtime.block_on(Self::ask(&self.engine, &self.population, cohort, sql))
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.audit_dir);
    }
}

fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds.get(seconds.len() / 2).copied().unwrap_or(f64::NAN)
}

/// A row of the table: who, and the seconds of each round.
struct Side {
    name: String,
    seconds: Vec<f64>,
    note: String,
}

/// One question, in turns, after one round that warms everything and is not counted.
fn compare(question: &Question, cohorts: &[u32], ours: &Ours, peer: &mut Peer, rounds: usize) -> Result<()> {
    let mut sides: Vec<Side> = Vec::new();
    let mut add = |at: usize, round: usize, name: String, seconds: f64, note: String| {
        if sides.len() <= at {
            sides.push(Side { name, seconds: Vec::new(), note });
        } else if round > 0 {
            sides[at].seconds.push(seconds);
            sides[at].note = note;
        }
    };
    for round in 0..=rounds {
        let mut at = 0;
        let mut expected = None;
        let peers = [("datafusion", question.datafusion.as_ref()), ("duckdb", Some(&question.duckdb))];
        for (name, sql) in peers {
            let Some(sql) = sql else { continue };
            let (seconds, rows) = peer.ask(name, sql)?;
            ensure!(*expected.get_or_insert(rows) == rows, "{name} gave {rows} rows: {sql}");
            add(at, round, name.to_owned(), seconds, String::new());
            at += 1;
        }
        for cohort in cohorts {
            let took = ours.once(*cohort, &question.ours)?;
            let is_all = cohort == cohorts.last().context("a cohort")?;
            ensure!(!is_all || expected == Some(took.rows), "{} rows: {}", took.rows, question.ours);
            let [warrant, start, rest] =
                [took.warrant_s, took.start_s, took.rest_s].map(|seconds| seconds * 1e3);
            let note =
                format!("warrant {warrant:.1}, plan and intent {start:.1}, rows and completion {rest:.1}");
            let whole_s = took.warrant_s + took.start_s + took.rest_s;
            add(at, round, format!("vitalog, {cohort}"), whole_s, note);
            at += 1;
        }
    }
    print(question.name, &sides);
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the report")]
fn print(name: &str, sides: &[Side]) {
    let first = sides.first().map_or(f64::NAN, |side| median(side.seconds.clone()));
    for side in sides {
        let (middle, low) =
            (median(side.seconds.clone()), side.seconds.iter().copied().fold(f64::MAX, f64::min));
        println!(
            "| {name} | {} | {:.1} | {:.1} | {:.2} | {} |",
            side.name,
            middle * 1e3,
            low * 1e3,
            middle / first,
            side.note
        );
    }
}

#[expect(clippy::print_stdout, reason = "the report")]
fn head(peer: &Peer, stored: (u64, u64), people: u32) {
    println!(
        "{} scalar and {} wave rows, {people} people, {THREADS} threads each, {}",
        stored.0, stored.1, peer.versions
    );
    println!(
        "| question | who | ms, median | ms, least | of the first | last round, ms |\n|---|---|--:|--:|--:|---|"
    );
}

/// Population aggregates and one day, by size of the cohort that consented.
pub(crate) fn cost(dir: &Path, people: u32, rounds: usize, python: &Path) -> Result<()> {
    let stored = Stored::open(dir, Recording::Days, people)?;
    let (scalar, rows) = stored.files(FileKind::Scalar);
    let cohorts = [10, 1_000.min(people), people];
    let population = Population::new(people, &cohorts)?;
    let mut peer = Peer::start(python, &scalar, &[], THREADS)?;
    let ours = Ours::start(dir, stored, population, Options::default())?;
    head(&peer, (rows, 0), people);
    for question in questions::population() {
        compare(&question, &cohorts, &ours, &mut peer, rounds)?;
    }
    let number = people / 2;
    let day = questions::day(number, &device(number).to_string());
    compare(&day, &[people], &ours, &mut peer, rounds)
}

/// The aggregates over all people, round after round.
#[expect(clippy::print_stdout, reason = "the report")]
pub(crate) fn alone(dir: &Path, people: u32, rounds: usize) -> Result<()> {
    let stored = Stored::open(dir, Recording::Days, people)?;
    let population = Population::new(people, &[people])?;
    let ours = Ours::start(dir, stored, population, Options::default())?;
    for question in questions::population() {
        for _ in 0..rounds {
            let took = ours.once(people, &question.ours)?;
            let [start, rest] = [took.start_s, took.rest_s].map(|seconds| seconds * 1e3);
            println!("{}: plan and intent {start:.1} ms, rows and completion {rest:.1} ms", question.name);
        }
    }
    Ok(())
}

/// The four questions on dense recordings.
pub(crate) fn dense(dir: &Path, rounds: usize, python: &Path) -> Result<()> {
    let people = 100;
    let stored = Stored::open(dir, Recording::Dense, people)?;
    let ((scalar, scalar_rows), (wave, wave_rows)) =
        (stored.files(FileKind::Scalar), stored.files(FileKind::Wave));
    let population = Population::new(people, &[people])?;
    let mut peer = Peer::start(python, &scalar, &wave, THREADS)?;
    let ours = Ours::start(dir, stored, population, Options::default())?;
    head(&peer, (scalar_rows, wave_rows), people);
    for question in questions::dense(7, &device(7).to_string()) {
        compare(&question, &[people], &ours, &mut peer, rounds)?;
    }
    Ok(())
}
