//! `bench-peers`: makes frames, sends them, reports. Data goes to stdout, talk to stderr.
#![forbid(unsafe_code)]

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bench_peers::corpus::{self, Corpus, Head};
use bench_peers::load::figures::{self, Figures, Watched};
use bench_peers::load::http::{self, HttpLoad};
use bench_peers::load::mqtt::{self, MqttLoad};
use bench_peers::load::{Pace, Verdicts};
use bench_peers::machine::Machine;
use bench_peers::peers::report::Report;
use bench_peers::peers::store::Kindred;
use bench_peers::peers::{self, bridge};
use bench_peers::shape::Kind;
use bench_peers::station::Station;
use bench_peers::{crash, idle, server};
use clap::{Args, Parser, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};

/// Loads the intake, and others beside it.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Sign frames into a folder, on all cores
    #[command(after_help = "Example: bench-peers make --kind a --devices 64 --frames 10000 --out /tmp/a")]
    Make(MakeArguments),
    /// Send a folder's frames to a running `vitalog serve --dev`
    #[command(
        after_help = "Example: bench-peers load --url http://127.0.0.1:8080 --mqtt 127.0.0.1:1883 --dir /tmp/a --via mqtt"
    )]
    Load(LoadArguments),
    /// Open connections that say nothing, and report what they cost the server
    #[command(after_help = "Example: bench-peers idle --mqtt 127.0.0.1:1883 --pid 4711 --connections 9000")]
    Idle(IdleArguments),
    /// Kill the server with SIGKILL under load, again and again: nothing acknowledged is lost, nothing is stored twice
    #[command(after_help = "Example: bench-peers crash --rounds 30 --server target/release/vitalog")]
    Crash(CrashArguments),
    /// vitalog beside whoever is on the PATH, on the same frames: rates, CPU, bytes, losses
    ///
    /// Peers: mosquitto, victoria-metrics, influxd; and for DuckDB a Python with duckdb, paho-mqtt and numpy
    /// (VITALOG_PYTHON says which). Whoever is absent is said to be. Everything runs on loopback ports and in a temporary
    /// folder, and ends with this command.
    #[command(after_help = "Example: bench-peers run --server target/release/vitalog --seconds 20")]
    Run(RunArguments),
    /// The bridge of `run`, a process of its own
    #[command(hide = true)]
    Bridge(BridgeArguments),
}

#[derive(Debug, Args)]
struct RunArguments {
    /// Longest time of sending, for each peer
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Devices
    #[arg(long, default_value_t = 128)]
    devices: u32,
    /// Frames A of each device; 0 leaves them out
    #[arg(long, default_value_t = 8_000)]
    frames_a: u32,
    /// Frames B of each device; 0 leaves them out
    #[arg(long, default_value_t = 1_000)]
    frames_b: u32,
    /// The server's program [default: the one beside this one, or on the PATH]
    #[arg(long)]
    server: Option<PathBuf>,
    /// Nothing is killed
    #[arg(long)]
    no_kill: bool,
    /// Only peers whose name contains this
    #[arg(long)]
    only: Option<String>,
    /// Folder for peers.csv and peers.md [default: bench/results/DATE-CPU below the current folder]
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct BridgeArguments {
    #[arg(long)]
    broker: SocketAddr,
    #[arg(long, value_enum)]
    kindred: Kindred,
    #[arg(long)]
    store: SocketAddr,
    #[arg(long, value_enum)]
    kind: Kind,
}

#[derive(Debug, Args)]
struct CrashArguments {
    /// Kills
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rounds: u32,
    /// Begin no round after so many seconds; the checks are made all the same
    #[arg(long)]
    seconds: Option<u64>,
    /// Everything that is drawn comes from it; another one each time if left out
    #[arg(long)]
    seed: Option<u64>,
    /// Kind of frames
    #[arg(long, value_enum, default_value_t = Kind::A)]
    kind: Kind,
    /// The server's program [default: the one beside this one, or on the PATH]
    #[arg(long)]
    server: Option<PathBuf>,
    /// Figures as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct IdleArguments {
    /// The server's MQTT door
    #[arg(long, default_value = "127.0.0.1:1883")]
    mqtt: SocketAddr,
    /// Connections; they come from as many loopback addresses as a limit per address asks for
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    connections: u32,
    /// Process to watch: the server
    #[arg(long)]
    pid: u32,
    /// Seconds to hold them
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Figures as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct MakeArguments {
    /// Kind of frame
    #[arg(long, value_enum)]
    kind: Kind,
    /// Devices
    #[arg(long, default_value_t = 64)]
    devices: u32,
    /// Frames of each device
    #[arg(long, default_value_t = 10_000)]
    frames: u32,
    /// Folder for frames.bin and devices.json
    #[arg(long)]
    out: PathBuf,
    /// The same seed gives the same bytes
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Via {
    Mqtt,
    Http,
}

#[derive(Debug, Args)]
struct LoadArguments {
    /// The server's HTTP door
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    url: String,
    /// The server's MQTT door
    #[arg(long, default_value = "127.0.0.1:1883")]
    mqtt: SocketAddr,
    /// Folder that `make` wrote
    #[arg(long)]
    dir: PathBuf,
    /// The door
    #[arg(long, value_enum, default_value_t = Via::Mqtt)]
    via: Via,
    /// Connections; no more than there are devices
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    connections: u32,
    /// MQTT: publishes of a connection without an answer; 1 is stop and wait
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..))]
    window: u16,
    /// MQTT: threads that share the connections
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    threads: u32,
    /// HTTP: frames of a body
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=16_384))]
    body_frames: u32,
    /// Frames a second over all connections; times count from when a frame was due
    #[arg(long)]
    rate: Option<f64>,
    /// Stop after so many seconds
    #[arg(long)]
    seconds: Option<f64>,
    /// Process to watch: the server
    #[arg(long)]
    pid: Option<u32>,
    /// Then wait until every frame is in a sealed batch
    #[arg(long)]
    sealed: bool,
    /// The server's data directory: its files are counted, which implies --sealed
    #[arg(long)]
    data: Option<PathBuf>,
    /// The devices are enrolled already
    #[arg(long)]
    enrolled: bool,
    /// Figures as JSON
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Make(arguments) => make(&arguments),
        Command::Load(arguments) => load(&arguments),
        Command::Idle(arguments) => idle(&arguments),
        Command::Crash(arguments) => crash(&arguments),
        Command::Run(arguments) => run(&arguments),
        Command::Bridge(arguments) => {
            let BridgeArguments { broker, kindred, store, kind } = arguments;
            bridge::run(&bridge::Options { broker, kindred, store, kind })
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn make(arguments: &MakeArguments) -> Result<()> {
    let head = Head::new(arguments.kind, arguments.devices, arguments.frames, arguments.seed)?;
    let bar = ProgressBar::new(head.total() as u64).with_message("signing");
    if let Ok(style) =
        ProgressStyle::with_template("{msg} {bar:30} {pos}/{len} frames, {per_sec}, {eta} left")
    {
        bar.set_style(style);
    }
    corpus::make(&head, &arguments.out, &|done| bar.inc(done))?;
    bar.finish_and_clear();
    eprintln!("{} frames of {} devices in {}", head.total(), head.devices, arguments.out.display());
    Ok(())
}

fn load(arguments: &LoadArguments) -> Result<()> {
    if cfg!(debug_assertions) {
        eprintln!("warning: built without --release, so these figures mean nothing");
    }
    let corpus = Corpus::open(&arguments.dir)?;
    let connections = arguments.connections as usize;
    let devices = corpus.keys.len();
    ensure!(connections <= devices, "{connections} connections for {devices} devices: a device has one");
    let station = Station::new(&arguments.url);
    if !arguments.enrolled {
        let since = Instant::now();
        station.enrol(&corpus.keys)?;
        eprintln!("{devices} devices enrolled and bound in {:.1} s", since.elapsed().as_secs_f64());
    }
    let lanes = corpus.deal(connections, 0..corpus.len());
    let verdicts = Verdicts::new(corpus.len());
    let server = match arguments.pid {
        Some(pid) => Some(Watched::start(pid).with_context(|| format!("no process {pid}"))?),
        None => None,
    };
    let own = Watched::start(std::process::id()).context("no /proc")?;
    let pace = Pace { rate: arguments.rate, limit: arguments.seconds.map(Duration::from_secs_f64) };
    let started = Instant::now();
    let lap = match arguments.via {
        Via::Mqtt => {
            let (address, window, threads) = (arguments.mqtt, arguments.window, arguments.threads as usize);
            mqtt::run(&corpus, &MqttLoad { address, connections, window, threads, pace }, &lanes, &verdicts)?
        }
        Via::Http => {
            let address = station.address().parse().context("--url must be http://IP:PORT")?;
            let body_frames = arguments.body_frames as usize;
            http::run(&corpus, &HttpLoad { address, body_frames, pace }, &lanes, &verdicts)?
        }
    };
    let readings_of_frame = corpus.head.kind.readings();
    let (frames, readings) = (lap.times.total(), lap.times.total() * readings_of_frame);
    let generator = own.cost(frames, readings).context("no /proc")?;
    let mut figures = Figures::new(&lap, &verdicts, started, readings_of_frame, generator);
    if arguments.sealed || arguments.data.is_some() {
        figures.sealed_at(started, figures::wait_sealed(&station, frames, started)?);
    }
    figures.server = server.and_then(|server| server.cost(frames, readings));
    if let Some(data) = &arguments.data {
        figures.stored = Some(figures::stored(data, frames, readings)?);
    }
    let text = if arguments.json { serde_json::to_string(&figures)? + "\n" } else { figures.table() };
    io::stdout().write_all(text.as_bytes())?;
    ensure!(figures.problem.is_none(), "the run ended early");
    Ok(())
}

fn idle(arguments: &IdleArguments) -> Result<()> {
    let hold = Duration::from_secs(arguments.seconds);
    let figures = idle::run(arguments.mqtt, arguments.connections as usize, arguments.pid, hold)?;
    let text = if arguments.json { serde_json::to_string(&figures)? + "\n" } else { figures.table() };
    io::stdout().write_all(text.as_bytes())?;
    Ok(())
}

fn crash(arguments: &CrashArguments) -> Result<()> {
    let seed = arguments.seed.unwrap_or_else(|| jiff::Timestamp::now().as_nanosecond() as u64);
    let server = server::program(arguments.server.as_deref())?;
    let (rounds, kind, folder) = (arguments.rounds, arguments.kind, std::env::temp_dir());
    eprintln!("seed {seed}");
    let at_most = arguments.seconds.map_or(Duration::MAX, Duration::from_secs);
    let options = crash::Options { server, rounds, at_most, seed, kind, folder };
    let since = Instant::now();
    let outcome = crash::run_in_temporary(&options, &mut |text| eprintln!("{text}"))?;
    let text = if arguments.json { serde_json::to_string(&outcome)? } else { outcome.to_string() };
    writeln!(io::stdout(), "{text}")?;
    eprintln!("{:.0} s; audit found nothing", since.elapsed().as_secs_f64());
    Ok(())
}

fn run(arguments: &RunArguments) -> Result<()> {
    let server = server::program(arguments.server.as_deref())?;
    let machine = Machine::here();
    let date = jiff::Timestamp::now().strftime("%Y-%m-%d").to_string();
    let out = arguments.out.clone();
    let out = out.unwrap_or_else(|| PathBuf::from(format!("bench/results/{date}-{}", machine.slug())));
    let RunArguments { seconds, devices, frames_a, frames_b, .. } = arguments;
    // Paths of this machine say nothing about the run.
    let command = format!(
        "cargo run --release -p bench-peers -- run --seconds {seconds} --devices {devices} --frames-a {frames_a} --frames-b {frames_b}"
    );
    let mut report = Report::create(&out, &machine, &date, &command)?;
    let folder = tempfile::Builder::new().prefix("vitalog-peers-").tempdir()?;
    let options = peers::Options {
        server,
        seconds: Duration::from_secs(arguments.seconds),
        with_kill: !arguments.no_kill,
        folder: folder.path().to_owned(),
    };
    for (kind, frames) in [(Kind::A, arguments.frames_a), (Kind::B, arguments.frames_b)] {
        if frames == 0 {
            continue;
        }
        let head = Head::new(kind, arguments.devices, frames, 1)?;
        eprintln!("signing {} frames {}", head.total(), kind.name());
        corpus::make(&head, folder.path(), &|_| {})?;
        let corpus = Corpus::open(folder.path())?;
        write!(io::stdout(), "{}", report.begin(&head, corpus.frame(corpus.len() - 1).len())?)?;
        let is_wanted = |name: &str| arguments.only.as_ref().is_none_or(|only| name.contains(only.as_str()));
        for peer in peers::ALL.into_iter().filter(|peer| is_wanted(peer.name())) {
            eprintln!("{}", peer.name());
            let measured = peers::measure(peer, &corpus, &options);
            write!(io::stdout(), "{}", report.add(&head, peer, &measured)?)?;
        }
    }
    eprintln!("kept in {}", out.display());
    Ok(())
}
