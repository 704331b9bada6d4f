//! `vitalog replay` and `vitalog simulate`: recordings and a seeded fleet, sent as a device would send them.

use std::path::PathBuf;
use std::time::Instant;

use bench_fleet::e4;
use bench_fleet::keys::{Keyring, Person};
use bench_fleet::send::{HttpSender, SendOptions, Tally};
use bench_fleet::simulate::{Fault, Fleet};
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use schemas_identity::SecretKey;
use serde_json::json;

use super::{ClientOptions, devices, key, say, say_json};
use crate::Exit;
use crate::client::now_us;

#[derive(Debug, Subcommand)]
pub(crate) enum ReplayCommand {
    /// Empatica E4 folders: one recording, or a folder of them.
    E4 {
        /// The folder.
        directory: PathBuf,
        /// Keys are kept here and used again, so that a second run sends the same bytes.
        #[arg(long)]
        keys: Option<PathBuf>,
        /// Door to send through; MQTT is not built into the replayer yet.
        #[arg(long, default_value = "http", value_parser = ["http"])]
        via: String,
        /// Seconds of readings in a frame, 5 to 60.
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(5..=60))]
        seconds: u32,
        /// The maker's private key; the development maker's if left out.
        #[arg(long)]
        maker_key: Option<PathBuf>,
        #[command(flatten)]
        client: ClientOptions,
    },
}

#[derive(Debug, Args)]
pub(crate) struct SimulateArguments {
    /// Devices of the fleet.
    #[arg(long, default_value_t = 10)]
    devices: u32,
    /// Frames of each device.
    #[arg(long, default_value_t = 6)]
    rate: u32,
    /// Faults: gap, dup, replay, bitflip, clock, burst, offline.
    #[arg(long, value_delimiter = ',')]
    faults: Vec<Fault>,
    /// The same seed gives the same keys, readings and faults.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The maker's private key; the development maker's if left out.
    #[arg(long)]
    maker_key: Option<PathBuf>,
    #[command(flatten)]
    client: ClientOptions,
}

fn maker(path: Option<&PathBuf>) -> anyhow::Result<SecretKey> {
    match path {
        Some(path) => key::read(path),
        None => Ok(crate::serve::dev_maker()),
    }
}

fn bar(length: u64) -> ProgressBar {
    let bar = ProgressBar::new(length);
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
) -> anyhow::Result<()> {
    devices::enrol_device(&client.server, device, maker, model)?;
    devices::bind_device(&client.server, device.public().short_id(), subject, device, None, None)?;
    Ok(())
}

fn summary(
    client: &ClientOptions,
    people: usize,
    values: u64,
    tally: &Tally,
    started: Instant,
) -> anyhow::Result<Exit> {
    let seconds = started.elapsed().as_secs_f64();
    if client.json {
        say_json(&json!({
            "people": people, "frames": tally.frames, "values": values, "bytes": tally.bytes, "seconds": seconds,
            "retries": tally.retries, "codes": tally.by_code,
        }));
    } else {
        let rate = values as f64 / seconds.max(1e-9);
        let codes: Vec<String> =
            tally.by_code.iter().map(|(code, count)| format!("{code} {count}")).collect();
        say(format!(
            "{people} people, {} frames, {values} values, {} bytes in {seconds:.1} s ({rate:.0} values/s)",
            tally.frames, tally.bytes
        ));
        say(format!("verdicts: {}; requests repeated: {}", codes.join(", "), tally.retries));
    }
    Ok(if tally.refused() == 0 { Exit::Done } else { Exit::Refused })
}

pub(crate) fn run(command: &ReplayCommand) -> anyhow::Result<Exit> {
    let ReplayCommand::E4 { directory, keys, via: _, seconds, maker_key, client } = command;
    let recordings = e4::load_all(directory)?;
    let maker = maker(maker_key.as_ref())?;
    let mut keyring = Keyring::open(keys.as_deref())?;
    let mut people: Vec<Person> = Vec::new();
    for recording in &recordings {
        let person = keyring.person(&recording.name)?;
        register(client, &person.device, &person.subject, &maker, "E4")?;
        people.push(person);
    }
    let started = Instant::now();
    let sender = HttpSender::new(&client.server.url, SendOptions::default());
    let (mut total, mut values) = (Tally::default(), 0);
    for (recording, person) in recordings.iter().zip(&people) {
        let frames = recording.frames(&person.device, person.boot, *seconds)?;
        values += recording.values();
        let bar = bar(frames.len() as u64).with_message(recording.name.clone());
        let tally = sender.send(&frames, &mut |done| bar.inc(done))?;
        bar.finish_and_clear();
        total.add(&tally);
    }
    summary(client, people.len(), values, &total, started)
}

pub(crate) fn simulate(arguments: &SimulateArguments) -> anyhow::Result<Exit> {
    let client = &arguments.client;
    let span_us = i64::from(arguments.rate) * 10_000_000;
    let mut fleet = Fleet::new(arguments.devices, arguments.seed, &arguments.faults, now_us() - span_us);
    let maker = maker(arguments.maker_key.as_ref())?;
    for device in fleet.devices() {
        register(client, &device.key, &device.subject, &maker, "simulated")?;
    }
    let started = Instant::now();
    let sender = HttpSender::new(&client.server.url, SendOptions::default());
    let bar = bar(u64::from(arguments.rate)).with_message("rounds");
    let (mut total, mut values) = (Tally::default(), 0);
    for _ in 0..arguments.rate {
        let frames = fleet.next_round()?;
        for bytes in &frames {
            if let Ok(frame) = schemas_frame::Frame::parse(bytes) {
                values += frame.series().map(|series| series.len() as u64).sum::<u64>();
            }
        }
        total.add(&sender.send(&frames, &mut |_| {})?);
        bar.inc(1);
    }
    bar.finish_and_clear();
    let exit = summary(client, fleet.devices().len(), values, &total, started)?;
    // Refusals are what some faults ask for.
    Ok(if arguments.faults.is_empty() { exit } else { Exit::Done })
}
