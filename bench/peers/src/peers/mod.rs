//! vitalog and others on the same frames, in the same run: rates, CPU, bytes, and what a kill -9 takes after it was
//! acknowledged. Whoever is not installed is said to be absent; nothing is downloaded.
//!
//! | file | holds |
//! |---|---|
//! | [`broker`] | Mosquitto |
//! | [`store`] | VictoriaMetrics, InfluxDB 1 |
//! | [`bridge`] | the process between those two |
//! | `duckdb.py` | the consumer that writes to DuckDB |
//! | [`chain`] | the three as one |
//! | [`report`] | `peers.csv` and `peers.md` |
//!
//! The chains verify no signature, keep none, and know no duplicates; their values are raw integers. That is in their favour.

pub mod bridge;
pub mod broker;
pub mod chain;
pub mod report;
pub mod store;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use schemas_frame::Code;

use self::chain::{Place, Sink};
use self::store::Kindred;
use crate::corpus::Corpus;
use crate::crash::stored;
use crate::load::figures::{self, Figures, Watched};
use crate::load::http::{self, HttpLoad};
use crate::load::mqtt::{self, MqttLoad};
use crate::load::{Lap, Pace, Verdicts};
use crate::machine::load_average;
use crate::server::Server;

/// Connections of every load.
const CONNECTIONS: usize = 4;
/// Publishes of a connection without an answer.
const WINDOW: u16 = 100;
/// Frames of an HTTP body.
const BODY_FRAMES: usize = 500;
/// Longest wait for a chain to write what its broker took.
const DRAIN_MAX: Duration = Duration::from_secs(300);
/// Load before a kill.
const KILL_AFTER: Duration = Duration::from_secs(5);

/// Who is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// vitalog over MQTT.
    VitalogMqtt,
    /// vitalog over HTTP.
    VitalogHttp,
    /// Somebody else.
    Other(Sink),
}

/// All of them, in the order of the report.
pub const ALL: [Peer; 5] = [
    Peer::VitalogMqtt,
    Peer::VitalogHttp,
    Peer::Other(Sink::Bridged(Kindred::Victoria)),
    Peer::Other(Sink::Bridged(Kindred::Influx)),
    Peer::Other(Sink::DuckDb),
];

impl Peer {
    /// Name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Peer::VitalogMqtt => "vitalog, MQTT",
            Peer::VitalogHttp => "vitalog, HTTP",
            Peer::Other(sink) => sink.name(),
        }
    }
}

/// What a kill -9 of all processes took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loss {
    /// Frames acknowledged before.
    pub acknowledged: u64,
    /// Frames that the store behind a broker had answered for before, as far as its consumer could tell.
    pub written: Option<u64>,
    /// Frames that can be read back after a restart, whether acknowledged or not.
    pub found: u64,
    /// Acknowledged and gone; for stores that cannot tell which, at least so many.
    pub lost: u64,
    /// Frames stored twice.
    pub doubled: u64,
}

/// One peer's figures.
#[derive(Debug, Clone)]
pub struct Row {
    /// Who.
    pub peer: &'static str,
    /// Load averages at its start.
    pub load_average: String,
    /// To the acknowledgement.
    pub figures: Figures,
    /// Frames a second until they are stored for good.
    pub through_frames_per_s: f64,
    /// CPU seconds per million readings, by process, the generator left out.
    pub cpu_s_per_million_readings: Vec<(&'static str, f64)>,
    /// Most memory, MiB, by process.
    pub peak_mib: Vec<(&'static str, f64)>,
    /// Bytes stored per reading: all files, and without the evidence where that is apart.
    pub bytes_per_reading: (f64, Option<f64>),
    /// What a kill took.
    pub loss: Option<Loss>,
}

/// What to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// vitalog's program.
    pub server: PathBuf,
    /// Longest time of sending.
    pub seconds: Duration,
    /// Kill everything once more, and count.
    pub with_kill: bool,
    /// Where to work; each peer gets a folder in it.
    pub folder: PathBuf,
}

/// A peer measured, or why it was not.
pub type Measured = std::result::Result<Row, String>;

/// Runs one peer.
pub fn measure(peer: Peer, corpus: &Corpus, options: &Options) -> Measured {
    if let Peer::Other(sink) = peer
        && let Some(missing) = sink.missing(&options.folder)
    {
        return Err(format!("absent: {missing}"));
    }
    let folder = |use_: &str| {
        let name: String = peer.name().chars().filter(char::is_ascii_alphanumeric).collect();
        options.folder.join(format!("{name}-{}-{use_}", corpus.head.kind.name()))
    };
    let (calm, killed) = (folder("calm"), folder("killed"));
    let run = || -> Result<Row> {
        let mut row = match peer {
            Peer::Other(sink) => measure_chain(sink, corpus, options, &calm)?,
            _ => measure_vitalog(peer, corpus, options, &calm)?,
        };
        // Gigabytes of no further use.
        std::fs::remove_dir_all(&calm)?;
        if options.with_kill {
            row.loss = Some(match peer {
                Peer::Other(sink) => kill_chain(sink, corpus, &killed).context("after the kill")?,
                _ => kill_vitalog(peer, corpus, options, &killed).context("after the kill")?,
            });
            std::fs::remove_dir_all(&killed)?;
        }
        Ok(row)
    };
    run().map_err(|error| format!("failed: {error:#}"))
}

fn publish(corpus: &Corpus, address: SocketAddr, pace: Pace, verdicts: &Verdicts) -> Result<Lap> {
    let lanes = corpus.deal(CONNECTIONS, 0..corpus.len());
    let load = MqttLoad { address, connections: CONNECTIONS, window: WINDOW, threads: 1, pace };
    mqtt::run(corpus, &load, &lanes, verdicts)
}

fn send_vitalog(
    peer: Peer,
    corpus: &Corpus,
    doors: (SocketAddr, SocketAddr),
    pace: Pace,
    verdicts: &Verdicts,
) -> Result<Lap> {
    if peer == Peer::VitalogMqtt {
        return publish(corpus, doors.1, pace, verdicts);
    }
    let lanes = corpus.deal(CONNECTIONS, 0..corpus.len());
    http::run(corpus, &HttpLoad { address: doors.0, body_frames: BODY_FRAMES, pace }, &lanes, verdicts)
}

/// Processes under watch, and the generator.
struct Watch {
    load_average: String,
    started: Instant,
    own: Watched,
    others: Vec<(&'static str, Watched)>,
}

impl Watch {
    fn start(processes: &[(&'static str, u32)]) -> Result<Watch> {
        let watched = |pid: u32| Watched::start(pid).with_context(|| format!("no process {pid}"));
        let mut others = Vec::new();
        for (name, pid) in processes {
            others.push((*name, watched(*pid)?));
        }
        let load_average = load_average();
        Ok(Watch { load_average, own: watched(std::process::id())?, others, started: Instant::now() })
    }

    fn figures(&self, corpus: &Corpus, lap: &Lap, verdicts: &Verdicts) -> Result<Figures> {
        let readings = corpus.head.kind.readings();
        let generator = self.own.cost(lap.times.total(), lap.times.total() * readings).context("no /proc")?;
        let figures = Figures::new(lap, verdicts, self.started, readings, generator);
        ensure!(figures.problem.is_none(), "the load ended early: {:?}", figures.problem);
        ensure!(
            figures.codes.keys().all(|code| *code == Code::Ok),
            "not all were taken: {:?}",
            figures.codes
        );
        Ok(figures)
    }

    fn row(&self, peer: &'static str, figures: Figures, through_frames_per_s: f64) -> Row {
        let cost = |watched: &Watched| watched.cost(figures.frames, figures.readings);
        let mut cpu = Vec::new();
        let mut peak_mib = Vec::new();
        for (name, watched) in &self.others {
            if let Some(cost) = cost(watched) {
                cpu.push((*name, cost.cpu_s_per_million_readings));
                peak_mib.push((*name, cost.peak_mib));
            }
        }
        Row {
            peer,
            load_average: self.load_average.clone(),
            figures,
            through_frames_per_s,
            cpu_s_per_million_readings: cpu,
            peak_mib,
            bytes_per_reading: (0.0, None),
            loss: None,
        }
    }
}

fn measure_chain(sink: Sink, corpus: &Corpus, options: &Options, folder: &Path) -> Result<Row> {
    let place = Place::new(sink, corpus, folder)?;
    let mut chain = place.start()?;
    let watch = Watch::start(&chain.processes())?;
    let verdicts = Verdicts::new(corpus.len());
    let pace = Pace { rate: None, limit: Some(options.seconds) };
    let lap = publish(corpus, place.broker(), pace, &verdicts)?;
    let figures = watch.figures(corpus, &lap, &verdicts)?;
    let is_whole = chain.wait_written(figures.frames, DRAIN_MAX)?;
    ensure!(is_whole, "only {} of {} frames are written", chain.written(), figures.frames);
    let through = figures.frames as f64 / watch.started.elapsed().as_secs_f64();
    let readings = figures.readings;
    let mut row = watch.row(sink.name(), figures, through);
    // Whoever cannot be counted when nothing was killed cannot be accused of losing something afterwards.
    let (found, doubled) = chain.stop()?;
    let sent = row.figures.frames;
    ensure!((found, doubled) == (sent, 0), "{found} of {sent} frames are found, {doubled} of them twice");
    row.bytes_per_reading.0 = place.bytes()? as f64 / readings as f64;
    Ok(row)
}

fn measure_vitalog(peer: Peer, corpus: &Corpus, options: &Options, folder: &Path) -> Result<Row> {
    std::fs::create_dir_all(folder)?;
    let server = Server::start(&options.server, folder, &[])?;
    server.station.enrol(&corpus.keys)?;
    let watch = Watch::start(&[("vitalog", server.daemon.pid())])?;
    let verdicts = Verdicts::new(corpus.len());
    let pace = Pace { rate: None, limit: Some(options.seconds) };
    let lap = send_vitalog(peer, corpus, (server.http, server.mqtt), pace, &verdicts)?;
    let mut figures = watch.figures(corpus, &lap, &verdicts)?;
    figures.sealed_at(watch.started, figures::wait_sealed(&server.station, figures.frames, watch.started)?);
    let through = figures.sealed.map_or(0.0, |sealed| sealed.frames_per_s);
    let mut row = watch.row(peer.name(), figures, through);
    server.daemon.stop().context("the server's shutdown")?;
    let (frames, readings) = (row.figures.frames, row.figures.readings);
    let stored = figures::stored(&Server::data(folder), frames, readings)?;
    row.bytes_per_reading = (stored.per_reading, Some(stored.readings_only_per_reading));
    row.figures.stored = Some(stored);
    Ok(row)
}

/// Sends, calls `kill` in the middle, and gives the verdicts that came before.
fn until_killed(
    corpus: &Corpus,
    send: impl FnOnce(&Verdicts) -> Result<Lap> + Send,
    kill: impl FnOnce() -> Result<()>,
) -> Result<Verdicts> {
    let verdicts = Verdicts::new(corpus.len());
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| send(&verdicts));
        let since = Instant::now();
        // Half of the frames at most, so that the kill comes under load.
        while since.elapsed() < KILL_AFTER && verdicts.answered() < corpus.len() as u64 / 2 {
            std::thread::sleep(Duration::from_millis(1));
        }
        kill()?;
        match sender.join() {
            Ok(lap) => ensure!(lap?.problem.is_some(), "the load ended before the kill"),
            Err(_) => anyhow::bail!("the sender panicked"),
        }
        Ok(())
    })?;
    Ok(verdicts)
}

fn accepted(verdicts: &Verdicts) -> u64 {
    verdicts.tally().iter().filter(|(code, _)| code.is_accepted()).map(|(_, count)| count).sum()
}

fn kill_chain(sink: Sink, corpus: &Corpus, folder: &Path) -> Result<Loss> {
    let place = Place::new(sink, corpus, folder)?;
    let chain = place.start()?;
    let send = |verdicts: &Verdicts| publish(corpus, place.broker(), Pace::default(), verdicts);
    let mut written = None;
    let verdicts = until_killed(corpus, send, || {
        written = Some(chain.written());
        chain.kill()
    })?;
    let acknowledged = accepted(&verdicts);
    let (found, doubled) = place.start().context("the restart")?.count(DRAIN_MAX)?;
    Ok(Loss { acknowledged, written, found, lost: acknowledged.saturating_sub(found), doubled })
}

fn kill_vitalog(peer: Peer, corpus: &Corpus, options: &Options, folder: &Path) -> Result<Loss> {
    std::fs::create_dir_all(folder)?;
    let server = Server::start(&options.server, folder, &[])?;
    server.station.enrol(&corpus.keys)?;
    let doors = (server.http, server.mqtt);
    let send = |verdicts: &Verdicts| send_vitalog(peer, corpus, doors, Pace::default(), verdicts);
    let verdicts = until_killed(corpus, send, || server.daemon.kill())?;
    let server = Server::start(&options.server, folder, &[]).context("the restart")?;
    figures::wait_sealed(&server.station, 0, Instant::now())?;
    server.daemon.stop()?;
    let found = stored::read(&Server::data(folder).join("lake"))?;
    let judged = stored::judge(corpus, &verdicts, &found);
    Ok(Loss {
        acknowledged: accepted(&verdicts),
        written: None,
        found: found.frames.len() as u64,
        lost: judged.lost,
        doubled: judged.doubled,
    })
}
