//! `vitalog replay` and `vitalog simulate`: recordings and a seeded fleet, sent as a device would send them.
//! Not the senders: those are `bench-fleet`'s; here is who sends what, through which door, and how fast.

use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use bench_fleet::e4::{self, Recording};
use bench_fleet::keys::{Keyring, Person};
use bench_fleet::mqtt::{MqttSendOptions, MqttSender};
use bench_fleet::send::{HttpSender, SendOptions, Tally};
use bench_fleet::simulate::{Fault, Fleet, shuffle_backlog};
use bench_fleet::table::{self, Map};
use clap::{Args, Subcommand, ValueEnum};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use schemas_frame::Frame;
use schemas_identity::{SecretKey, ShortId};
use serde_json::json;

use super::{ClientOptions, devices, key, say, say_json};
use crate::Exit;
use crate::client::{Server, now_us};

/// Frames of a paced fleet are sent this often at most, so that a high rate needs no timer per frame.
const PACE: Duration = Duration::from_millis(100);

#[derive(Debug, Subcommand)]
pub(crate) enum ReplayCommand {
    /// Empatica E4 folders: one recording, or a folder of them.
    #[command(
        after_help = "Examples:\n  vitalog replay e4 ./recordings --keys ./keys\n  vitalog replay e4 ./S01 --keys ./keys --via mqtt --realtime"
    )]
    E4 {
        /// The folder.
        directory: PathBuf,
        #[command(flatten)]
        options: ReplayOptions,
    },
    /// A comma-separated table of readings, one row a moment of one person, columns named by a map.
    #[command(
        after_help = "Example: vitalog replay csv blood_pressure.csv --map map.toml --keys ./keys\n\nmap.toml:\n  person = \"user_code\"\n  time = \"measurement_datetime\"\n  time_format = \"%Y-%m-%d %H:%M:%S\"   # or \"unix\"\n  utc_offset = \"+02:00\"                # of times without a zone; UTC if left out\n  [[column]]\n  name = \"systolic\"\n  signal = \"blood_pressure_systolic\"\n  [[column]]\n  name = \"spo2_fraction\"\n  signal = \"spo2\"\n  unit = [100, 1]                      # one as written is 100 of the signal's unit\n  [[column]]\n  name = \"rr_data\"\n  signal = \"rr_interval\"\n  list = \",\"                           # intervals in ms, one after the other"
    )]
    Csv {
        /// The table.
        file: PathBuf,
        /// What its columns mean (TOML).
        #[arg(long)]
        map: PathBuf,
        #[command(flatten)]
        options: ReplayOptions,
    },
}

#[derive(Debug, Args)]
pub(crate) struct ReplayOptions {
    /// Keys are kept here and used again, so that a second run sends the same bytes.
    #[arg(long)]
    keys: Option<PathBuf>,
    #[command(flatten)]
    door: Door,
    /// As slowly as they were recorded, all people at once: a frame leaves when its last reading was taken.
    #[arg(long)]
    realtime: bool,
    /// Each person's frames in a random order that this seed gives, one in twenty of them twice: a backlog as phones and
    /// gateways bring it.
    #[arg(long, conflicts_with = "realtime")]
    shuffle: Option<u64>,
    /// Seconds of readings in a frame, 5 to 60.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(5..=60))]
    seconds: u32,
    /// The maker's private key; the development maker's if left out.
    #[arg(long)]
    maker_key: Option<PathBuf>,
    #[command(flatten)]
    client: ClientOptions,
}

#[derive(Debug, Args)]
#[command(after_help = "Example: vitalog simulate --devices 10 --rate 5 --faults gap,dup,bitflip --seed 7")]
pub(crate) struct SimulateArguments {
    /// Devices of the fleet.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    devices: u32,
    /// Frames per second of the whole fleet; as fast as they are taken if left out.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// Frames of each device, ten seconds of readings each.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..))]
    frames: u32,
    /// Faults: gap, dup, replay, bitflip, clock, burst, offline.
    #[arg(long, value_delimiter = ',')]
    faults: Vec<Fault>,
    /// The same seed gives the same keys, readings and faults.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// When the first reading was taken (RFC 3339); such that the last is of now if left out. The same seed and start
    /// give the same bytes.
    #[arg(long)]
    start: Option<String>,
    /// The maker's private key; the development maker's if left out.
    #[arg(long)]
    maker_key: Option<PathBuf>,
    #[command(flatten)]
    door: Door,
    #[command(flatten)]
    client: ClientOptions,
}

/// Which of the server's doors frames go through.
#[derive(Debug, Clone, Args)]
pub(crate) struct Door {
    /// The door.
    #[arg(long, value_enum, default_value_t = Via::Http)]
    via: Via,
    /// The MQTT door, HOST:PORT, without TLS.
    #[arg(long, env = "VITALOG_MQTT_URL", default_value = "127.0.0.1:1883")]
    mqtt: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Via {
    Http,
    Mqtt,
}

/// A sender through one of the doors.
enum Carrier {
    Http(HttpSender),
    Mqtt(MqttSender),
}

impl Door {
    /// A sender for frames of one device that has this key, or of all devices of a maker that has it.
    fn carrier(&self, server: &Server, key: &SecretKey) -> anyhow::Result<Carrier> {
        if self.via == Via::Http {
            let (tls, options) = (server.tls()?, SendOptions::default());
            return Ok(Carrier::Http(HttpSender::with_tls(&server.url, tls, options)));
        }
        let mut options = MqttSendOptions::default();
        options.client_id = format!("{}-{}", options.client_id, key.public().short_id());
        options.login = Some((key.public().did().to_string(), server.login(key)?));
        Ok(Carrier::Mqtt(MqttSender::new(&self.mqtt, options)))
    }
}

impl Carrier {
    fn send(&self, frames: &[Vec<u8>], progress: &mut dyn FnMut(u64)) -> anyhow::Result<Tally> {
        Ok(match self {
            Carrier::Http(sender) => sender.send(frames, progress)?,
            Carrier::Mqtt(sender) => sender.send(frames, progress)?,
        })
    }
}

fn maker(path: Option<&PathBuf>) -> anyhow::Result<SecretKey> {
    match path {
        Some(path) => key::read(path),
        None => Ok(crate::serve::dev_maker()),
    }
}

fn bar(length: usize, message: &str) -> ProgressBar {
    let bar = ProgressBar::new(length as u64).with_message(message.to_owned());
    if let Ok(style) = ProgressStyle::with_template("{msg} {bar:30} {pos}/{len} frames, {eta} left") {
        bar.set_style(style);
    }
    bar
}

fn register(
    client: &ClientOptions,
    device: &SecretKey,
    subject: &SecretKey,
    maker: &SecretKey,
    model: &str,
) -> anyhow::Result<ShortId> {
    let name = device.public().short_id();
    devices::enrol_device(&client.server, device, maker, model)?;
    devices::bind_device(&client.server, name, subject, device, None, None)?;
    Ok(name)
}

/// What was sent, and how long it took.
struct Sent {
    people: usize,
    values: u64,
    tally: Tally,
    started: Instant,
}

fn summary(client: &ClientOptions, sent: &Sent) -> anyhow::Result<Exit> {
    let (seconds, tally) = (sent.started.elapsed().as_secs_f64(), &sent.tally);
    if client.json {
        say_json(&json!({
            "people": sent.people, "frames": tally.frames, "values": sent.values, "bytes": tally.bytes,
            "seconds": seconds, "retries": tally.retries, "codes": tally.by_code,
        }));
    } else {
        let rate = sent.values as f64 / seconds.max(1e-9);
        let codes: Vec<String> =
            tally.by_code.iter().map(|(code, count)| format!("{code} {count}")).collect();
        say(format!(
            "{} people, {} frames, {} values, {} bytes in {seconds:.1} s ({rate:.0} values/s)",
            sent.people, tally.frames, sent.values, tally.bytes
        ));
        say(format!("verdicts: {}; requests repeated: {}", codes.join(", "), tally.retries));
    }
    Ok(if tally.refused() == 0 { Exit::Done } else { Exit::Refused })
}

pub(crate) fn run(command: &ReplayCommand) -> anyhow::Result<Exit> {
    let (recordings, arguments, model) = match command {
        ReplayCommand::E4 { directory, options } => (e4::load_all(directory)?, options, "E4"),
        ReplayCommand::Csv { file, map, options } => {
            (table::load_all(file, &Map::load(map)?)?, options, "table")
        }
    };
    ensure!(!recordings.is_empty(), "there is no reading in it");
    let client = &arguments.client;
    let maker = maker(arguments.maker_key.as_ref())?;
    let mut keyring = Keyring::open(arguments.keys.as_deref())?;
    let mut streams: Vec<(&Recording, Person, Carrier)> = Vec::new();
    for recording in &recordings {
        let person = keyring.person(&recording.name, arguments.seconds)?;
        register(client, &person.device, &person.subject, &maker, model)?;
        let carrier = arguments.door.carrier(&client.server, &person.device)?;
        streams.push((recording, person, carrier));
    }
    let values = recordings.iter().map(Recording::values).sum();
    let mut sent =
        Sent { people: recordings.len(), values, tally: Tally::default(), started: Instant::now() };
    if arguments.realtime {
        sent.tally = as_recorded(&streams, arguments.seconds)?;
        return summary(client, &sent);
    }
    for (recording, person, carrier) in &streams {
        let mut frames = recording.frames(&person.device, person.boot, arguments.seconds)?;
        if let Some(seed) = arguments.shuffle {
            shuffle_backlog(&mut frames, seed);
        }
        let bar = bar(frames.len(), &recording.name);
        sent.tally.add(&carrier.send(&frames, &mut |done| bar.inc(done))?);
        bar.finish_and_clear();
    }
    summary(client, &sent)
}

/// Everybody's frames, each when its last reading was taken, counted from the start of that person's recording.
fn as_recorded(streams: &[(&Recording, Person, Carrier)], seconds: u32) -> anyhow::Result<Tally> {
    let bars = MultiProgress::new();
    let started = Instant::now();
    let one = |recording: &Recording, person: &Person, carrier: &Carrier| -> anyhow::Result<Tally> {
        let frames = recording.frames(&person.device, person.boot, seconds)?;
        let bar = bars.add(bar(frames.len(), &recording.name));
        let mut tally = Tally::default();
        for frame in &frames {
            let due = due(frame, recording.start_us(), seconds)?;
            sleep(due.saturating_sub(started.elapsed()));
            tally.add(&carrier.send(std::slice::from_ref(frame), &mut |done| bar.inc(done))?);
        }
        bar.finish_and_clear();
        Ok(tally)
    };
    let tallies = std::thread::scope(|scope| {
        let start = |(recording, person, carrier): &(&Recording, Person, Carrier)| -> anyhow::Result<Tally> {
            one(recording, person, carrier).with_context(|| recording.name.clone())
        };
        let threads: Vec<_> = streams.iter().map(|stream| scope.spawn(move || start(stream))).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, anyhow::Result<Tally>>| match thread.join() {
            Ok(tally) => tally,
            Err(_) => bail!("a sender panicked"),
        };
        threads.into_iter().map(join).collect::<anyhow::Result<Vec<Tally>>>()
    })?;
    let mut total = Tally::default();
    for tally in &tallies {
        total.add(tally);
    }
    Ok(total)
}

/// When a frame leaves a device that records live, counted from the start of its recording.
fn due(frame: &[u8], start_us: i64, seconds: u32) -> anyhow::Result<Duration> {
    let frame = Frame::parse(frame).context("a frame of our own making")?;
    let after_us = frame.wall_us().map_or(0, |wall_us| wall_us - start_us);
    Ok(Duration::from_micros(u64::try_from(after_us).unwrap_or(0)) + Duration::from_secs(seconds.into()))
}

pub(crate) fn simulate(arguments: &SimulateArguments) -> anyhow::Result<Exit> {
    let client = &arguments.client;
    let start_us = match devices::moment(arguments.start.as_ref())? {
        Some(start_us) => start_us,
        None => now_us() - i64::from(arguments.frames) * 10_000_000,
    };
    let mut fleet = Fleet::new(arguments.devices, arguments.seed, &arguments.faults, start_us);
    let maker = maker(arguments.maker_key.as_ref())?;
    for device in fleet.devices() {
        register(client, &device.key, &device.subject, &maker, "simulated")?;
    }
    let carrier = arguments.door.carrier(&client.server, &maker)?;
    let bar = bar(arguments.frames as usize, "rounds");
    let mut sent =
        Sent { people: fleet.devices().len(), values: 0, tally: Tally::default(), started: Instant::now() };
    for _ in 0..arguments.frames {
        let frames = fleet.next_round()?;
        for bytes in &frames {
            if let Ok(frame) = Frame::parse(bytes) {
                sent.values += frame.series().map(|series| series.len() as u64).sum::<u64>();
            }
        }
        for part in frames.chunks(part_of(arguments.rate, frames.len())) {
            sent.tally.add(&carrier.send(part, &mut |_| {})?);
            if let Some(rate) = arguments.rate {
                let due = Duration::from_secs_f64(sent.tally.frames as f64 / f64::from(rate));
                sleep(due.saturating_sub(sent.started.elapsed()));
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    let exit = summary(client, &sent)?;
    // Refusals are what some faults ask for.
    Ok(if arguments.faults.is_empty() { exit } else { Exit::Done })
}

/// Frames sent at once: what the rate allows in a tick of [`PACE`], or all.
fn part_of(rate: Option<u32>, frames: usize) -> usize {
    let tick = |rate: u32| (f64::from(rate) * PACE.as_secs_f64()) as usize;
    rate.map_or(frames, tick).clamp(1, frames.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    // A live device sends a frame when it is full: nothing leaves before its readings were taken.
    #[test]
    fn frames_leave_when_they_are_full() {
        let mut fleet = Fleet::new(1, 1, &[], 1_700_000_000_000_000);
        for round in 1..4 {
            let frame = fleet.next_round().unwrap().remove(0);
            assert_eq!(due(&frame, 1_700_000_000_000_000, 10).unwrap(), Duration::from_secs(round * 10));
        }
    }

    #[test]
    fn a_rate_is_kept_in_ticks() {
        let cases = [
            (None, 500, 500),
            (Some(1), 500, 1),
            (Some(1_000), 500, 100),
            (Some(1_000_000), 5, 5),
            (None, 0, 1),
        ];
        for (rate, frames, part) in cases {
            assert_eq!(part_of(rate, frames), part, "{rate:?} {frames}");
        }
    }
}
