//! A broker, a consumer and a store, as people put them together, started and ended as one.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use schemas_frame::{Frame, Values};
use serde_json::json;

use super::broker;
use super::store::{Kindred, Store};
use crate::corpus::Corpus;
use crate::daemon::{Daemon, free_address};
use crate::shape::Kind;

/// The consumer that writes to DuckDB.
const DUCKDB_PY: &str = include_str!("duckdb.py");
/// What a consumer has written before it is subscribed.
const NOT_YET: u64 = u64::MAX;
/// Longest wait for a consumer's subscription.
const SUBSCRIBE_MAX: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(10);
/// Nothing more written for so long, after a restart, means that nothing more is there.
const QUIET: Duration = Duration::from_secs(4);

/// Where a chain ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sink {
    /// A store behind our bridge.
    Bridged(Kindred),
    /// DuckDB behind a Python consumer.
    DuckDb,
}

/// A running chain.
#[derive(Debug)]
pub struct Chain {
    place: Place,
    broker: Daemon,
    consumer: Daemon,
    store: Option<Daemon>,
    written: Arc<AtomicU64>,
}

/// Folder and addresses: a restart uses the same.
#[derive(Debug, Clone)]
pub struct Place {
    sink: Sink,
    kind: Kind,
    folder: PathBuf,
    layout: String,
    broker: SocketAddr,
    store: SocketAddr,
}

/// The Python that is used.
fn python() -> String {
    std::env::var("VITALOG_PYTHON").unwrap_or_else(|_| "python3".to_owned())
}

fn script(folder: &Path) -> Result<PathBuf> {
    let script = folder.join("duckdb_consumer.py");
    std::fs::write(&script, DUCKDB_PY)?;
    Ok(script)
}

impl Sink {
    /// Name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Sink::Bridged(Kindred::Victoria) => "mosquitto, bridge, VictoriaMetrics",
            Sink::Bridged(Kindred::Influx) => "mosquitto, bridge, InfluxDB 1",
            Sink::DuckDb => "mosquitto, paho, DuckDB",
        }
    }

    /// What is missing to run it, if something is.
    #[must_use]
    pub fn missing(self, folder: &Path) -> Option<String> {
        if broker::program().is_none() {
            return Some("mosquitto is not on the PATH".to_owned());
        }
        match self {
            Sink::Bridged(kindred) => {
                let name = if kindred == Kindred::Victoria { "victoria-metrics" } else { "influxd" };
                kindred.program().is_none().then(|| format!("{name} is not on the PATH"))
            }
            Sink::DuckDb => {
                let version = script(folder)
                    .ok()
                    .and_then(|script| Command::new(python()).arg(script).arg("version").output().ok());
                let has = version.is_some_and(|output| output.status.success());
                (!has).then(|| format!("{} (VITALOG_PYTHON) lacks duckdb, paho-mqtt or numpy", python()))
            }
        }
    }
}

/// Where the series begin, counted from a frame's end: the same in every frame of a corpus.
fn layout(corpus: &Corpus) -> Result<String> {
    let bytes = corpus.frame(0);
    let frame = Frame::parse(bytes)?;
    let mut from_end = Vec::new();
    for series in frame.series() {
        let Values::I16(values) = series.values else { bail!("values of another width") };
        let at = values.as_ptr() as usize - bytes.as_ptr() as usize;
        from_end.push(bytes.len() - at);
    }
    let kind = corpus.head.kind;
    Ok(json!({
        "columns": kind.fields(), "samples": kind.samples(), "period_us": kind.period_us(), "from_end": from_end,
    })
    .to_string())
}

impl Place {
    /// A place for a chain in a folder of its own.
    ///
    /// # Errors
    /// When there is no port or folder.
    pub fn new(sink: Sink, corpus: &Corpus, folder: &Path) -> Result<Place> {
        std::fs::create_dir_all(folder)?;
        let (broker, store) = (free_address()?, free_address()?);
        let layout = layout(corpus)?;
        Ok(Place { sink, kind: corpus.head.kind, folder: folder.to_owned(), layout, broker, store })
    }

    /// Where to publish.
    #[must_use]
    pub fn broker(&self) -> SocketAddr {
        self.broker
    }

    fn database(&self) -> PathBuf {
        self.folder.join("frames.duckdb")
    }

    fn consumer(&self) -> Result<Command> {
        let (host, port) = (self.broker.ip().to_string(), self.broker.port().to_string());
        if let Sink::Bridged(kindred) = self.sink {
            let mut command = Command::new(std::env::current_exe()?);
            let kindred = if kindred == Kindred::Victoria { "victoria" } else { "influx" };
            command.args(["bridge", "--broker", &self.broker.to_string(), "--kindred", kindred]);
            command.args(["--store", &self.store.to_string(), "--kind", self.kind.name()]);
            return Ok(command);
        }
        let mut command = Command::new(python());
        command.arg(script(&self.folder)?).args(["consume", &host, &port]);
        command.arg(self.database()).arg(&self.layout);
        Ok(command)
    }

    fn count_file(&self) -> Result<(u64, u64)> {
        let samples = self.kind.samples().to_string();
        let output = Command::new(python())
            .arg(script(&self.folder)?)
            .arg("count")
            .arg(self.database())
            .arg(samples)
            .output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let numbers: Vec<u64> = text.split_whitespace().filter_map(|number| number.parse().ok()).collect();
        let [distinct, twice] = numbers[..] else {
            bail!("cannot count: {text}{}", String::from_utf8_lossy(&output.stderr));
        };
        Ok((distinct, twice))
    }

    /// Bytes stored, after the end.
    ///
    /// # Errors
    /// When the files cannot be read.
    pub fn bytes(&self) -> Result<u64> {
        match self.sink {
            Sink::Bridged(kindred) => kindred.bytes(&self.folder),
            Sink::DuckDb => {
                let wal = std::fs::metadata(self.database().with_extension("duckdb.wal"));
                Ok(std::fs::metadata(self.database())?.len() + wal.map_or(0, |wal| wal.len()))
            }
        }
    }

    /// Starts all parts and waits until the consumer is subscribed.
    ///
    /// # Errors
    /// When one does not come up.
    pub fn start(&self) -> Result<Chain> {
        let broker = broker::start(&self.folder, self.broker).context("mosquitto")?;
        let store = match self.sink {
            Sink::Bridged(kindred) => Some(kindred.start(&self.folder, self.store).context("the store")?),
            Sink::DuckDb => None,
        };
        let mut consumer = Daemon::start_piped(self.consumer()?, &self.folder.join("consumer.log"))?;
        let written = Arc::new(AtomicU64::new(NOT_YET));
        let (stdout, count) = (consumer.stdout().context("no stdout")?, written.clone());
        // Ends with the consumer.
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Ok(frames) = line.trim().parse() {
                    count.store(frames, Ordering::Relaxed);
                }
            }
        });
        let since = Instant::now();
        while written.load(Ordering::Relaxed) == NOT_YET {
            consumer.check().context("the consumer")?;
            ensure!(since.elapsed() < SUBSCRIBE_MAX, "the consumer is not subscribed");
            sleep(LOOK);
        }
        Ok(Chain { place: self.clone(), broker, consumer, store, written })
    }
}

impl Chain {
    /// Its processes, by name.
    #[must_use]
    pub fn processes(&self) -> Vec<(&'static str, u32)> {
        let mut processes = vec![("broker", self.broker.pid()), ("consumer", self.consumer.pid())];
        processes.extend(self.store.as_ref().map(|store| ("store", store.pid())));
        processes
    }

    /// Frames written so far.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Waits until so many are written; false if that takes too long.
    ///
    /// # Errors
    /// When the consumer ends.
    pub fn wait_written(&mut self, frames: u64, limit: Duration) -> Result<bool> {
        let since = Instant::now();
        while self.written() < frames {
            self.consumer.check().context("the consumer")?;
            if since.elapsed() > limit {
                return Ok(false);
            }
            sleep(LOOK);
        }
        Ok(true)
    }

    /// SIGKILL to all at once.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill(self) -> Result<()> {
        self.broker.kill()?;
        self.consumer.kill()?;
        self.store.map_or(Ok(()), Daemon::kill)
    }

    /// Waits until nothing more is written, then ends all parts and counts what can be read back: frames, and those there
    /// twice.
    ///
    /// # Errors
    /// When the store does not answer or does not end.
    pub fn count(mut self, limit: Duration) -> Result<(u64, u64)> {
        let since = Instant::now();
        let (mut last, mut changed) = (self.written(), Instant::now());
        while changed.elapsed() < QUIET && since.elapsed() < limit {
            self.consumer.check().context("the consumer")?;
            if self.written() != last {
                (last, changed) = (self.written(), Instant::now());
            }
            sleep(LOOK);
        }
        self.stop()
    }

    /// Ends all parts, the store having written what it writes by itself; frames that can be read back, and those there
    /// twice. A store that serves is asked before its end; DuckDB's file is opened after its consumer's.
    ///
    /// # Errors
    /// When the store does not answer or does not end.
    pub fn stop(self) -> Result<(u64, u64)> {
        let Sink::Bridged(kindred) = self.place.sink else {
            self.consumer.stop().context("the consumer")?;
            return self.place.count_file();
        };
        let store = Store::new(kindred, self.place.store);
        let counted = store.count(self.place.kind)?;
        store.settle(&self.place.folder);
        self.consumer.stop().context("the consumer")?;
        if let Some(store) = self.store {
            store.stop().context("the store")?;
        }
        Ok(counted)
    }
}
