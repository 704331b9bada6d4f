//! The stores that a bridge writes to: VictoriaMetrics and InfluxDB 1, as their makers document them for one machine.
//!
//! Values are written as the raw integers of the frames, in batches, without the signatures: that is in their favour.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use schemas_frame::{Frame, Values};
use serde_json::Value;

use crate::daemon::{Daemon, find, free_address};
use crate::shape::Kind;

/// Data base of InfluxDB.
const DATABASE: &str = "vitalog";
const ANSWER_SECONDS: u64 = 120;
/// Largest answer read: a count's export.
const ANSWER_BYTES_MAX: u64 = 4 << 30;
/// InfluxDB writes its files after this idle time; waited for before they are counted.
const COLD_SECONDS: u64 = 3;
const COLD_MAX: Duration = Duration::from_secs(30);

/// Which store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kindred {
    /// VictoriaMetrics.
    Victoria,
    /// InfluxDB 1.
    Influx,
}

/// A store's door.
#[derive(Debug, Clone)]
pub struct Store {
    kindred: Kindred,
    agent: ureq::Agent,
    address: SocketAddr,
}

impl Kindred {
    /// Its program, if it is installed.
    #[must_use]
    pub fn program(self) -> Option<PathBuf> {
        match self {
            Kindred::Victoria => find("victoria-metrics").or_else(|| find("victoria-metrics-prod")),
            Kindred::Influx => find("influxd"),
        }
    }

    /// Starts it on a folder, at an address.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start(self, folder: &Path, address: SocketAddr) -> Result<Daemon> {
        let program = self.program().context("not installed")?;
        let mut command = Command::new(program);
        match self {
            Kindred::Victoria => {
                command.arg(format!("-storageDataPath={}", folder.join("victoria").display()));
                command.args([&format!("-httpListenAddr={address}"), "-retentionPeriod=100y"]);
            }
            Kindred::Influx => {
                let file = folder.join("influxdb.conf");
                std::fs::write(&file, influx_configuration(folder, address)?)?;
                command.arg("-config").arg(file);
            }
        }
        let mut daemon = Daemon::start(command, &folder.join("store.log"))?;
        daemon.wait_listening(address)?;
        Ok(daemon)
    }

    /// Bytes of its files, after its end.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn bytes(self, folder: &Path) -> Result<u64> {
        match self {
            Kindred::Victoria => folder_bytes(&folder.join("victoria"), ""),
            Kindred::Influx => folder_bytes(&folder.join("influx/data"), ".tsm"),
        }
    }
}

fn influx_configuration(folder: &Path, address: SocketAddr) -> Result<String> {
    let (rpc, root) = (free_address()?, folder.join("influx"));
    let root = root.display();
    Ok(format!(
        "reporting-disabled = true\nbind-address = \"{rpc}\"\n[meta]\n  dir = \"{root}/meta\"\n[data]\n  dir = \"{root}/data\"\n  \
         wal-dir = \"{root}/wal\"\n  index-version = \"tsi1\"\n  wal-fsync-delay = \"0s\"\n  max-concurrent-compactions = 2\n  \
         cache-snapshot-write-cold-duration = \"{COLD_SECONDS}s\"\n  compact-full-write-cold-duration = \"{COLD_SECONDS}s\"\n  \
         query-log-enabled = false\n[http]\n  bind-address = \"{address}\"\n  log-enabled = false\n  max-body-size = 0\n\
         [monitor]\n  store-enabled = false\n[logging]\n  level = \"warn\"\n"
    ))
}

/// Bytes of all files below a folder whose names end so.
fn folder_bytes(folder: &Path, ending: &str) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            bytes += folder_bytes(&entry.path(), ending)?;
        } else if entry.file_name().to_string_lossy().ends_with(ending) {
            bytes += entry.metadata()?.len();
        }
    }
    Ok(bytes)
}

fn raws(values: &Values<'_>) -> Vec<i16> {
    match values {
        Values::I16(values) => values.iter().map(|bytes| i16::from_le_bytes(*bytes)).collect(),
        _ => Vec::new(),
    }
}

/// Appends a frame in a store's own words.
///
/// # Errors
/// When the bytes are no frame of ours.
pub fn write_frame(kindred: Kindred, kind: Kind, bytes: &[u8], out: &mut String) -> Result<()> {
    let frame = Frame::parse(bytes)?;
    let start_us = frame.wall_us().context("a frame without a clock")?;
    let device = frame.kid();
    let series: Vec<Vec<i16>> = frame.series().map(|series| raws(&series.values)).collect();
    ensure!(series.iter().all(|values| values.len() == kind.samples()), "a frame of another kind");
    match kindred {
        Kindred::Victoria => {
            for (name, values) in kind.fields().iter().zip(&series) {
                write!(out, "{{\"metric\":{{\"__name__\":\"{name}\",\"device\":\"{device}\"}},\"values\":[")?;
                list(out, values.iter().map(|value| i64::from(*value)))?;
                out.push_str("],\"timestamps\":[");
                let times =
                    (0..kind.samples() as i64).map(|at| (start_us + at * kind.period_us() as i64) / 1_000);
                list(out, times)?;
                out.push_str("]}\n");
            }
        }
        Kindred::Influx => {
            for at in 0..kind.samples() {
                write!(out, "frames,device={device} ")?;
                for (number, (name, values)) in kind.fields().iter().zip(&series).enumerate() {
                    let comma = if number > 0 { "," } else { "" };
                    write!(out, "{comma}{name}={}i", values[at])?;
                }
                writeln!(out, " {}", start_us + (at as u64 * kind.period_us()).cast_signed())?;
            }
        }
    }
    Ok(())
}

fn list(out: &mut String, values: impl Iterator<Item = i64>) -> Result<()> {
    for (number, value) in values.enumerate() {
        let comma = if number > 0 { "," } else { "" };
        write!(out, "{comma}{value}")?;
    }
    Ok(())
}

impl Store {
    /// A store that listens there.
    #[must_use]
    pub fn new(kindred: Kindred, address: SocketAddr) -> Store {
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(ANSWER_SECONDS)))
            .http_status_as_error(false)
            .build()
            .into();
        Store { kindred, agent, address }
    }

    fn answer(response: ureq::http::Response<ureq::Body>) -> Result<String> {
        let status = response.status();
        let text = response.into_body().into_with_config().limit(ANSWER_BYTES_MAX).read_to_string()?;
        ensure!(status.is_success(), "the store answered {status}: {text}");
        Ok(text)
    }

    /// Makes it ready for [`Store::write`].
    ///
    /// # Errors
    /// When it refuses.
    pub fn prepare(&self) -> Result<()> {
        if self.kindred == Kindred::Influx {
            let url = format!("http://{}/query?q=CREATE%20DATABASE%20{DATABASE}", self.address);
            Store::answer(self.agent.post(url).send_empty()?)?;
        }
        Ok(())
    }

    /// Writes a batch in its own words; returns when it has answered.
    ///
    /// # Errors
    /// When it refuses.
    pub fn write(&self, batch: &str) -> Result<()> {
        let url = match self.kindred {
            Kindred::Victoria => format!("http://{}/api/v1/import", self.address),
            Kindred::Influx => format!("http://{}/write?db={DATABASE}&precision=u", self.address),
        };
        Store::answer(self.agent.post(url).send(batch)?)?;
        Ok(())
    }

    /// Frames that can be read back: distinct moments of the first series of all devices, and how many came twice.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn count(&self, kind: Kind) -> Result<(u64, u64)> {
        let field = kind.fields().first().context("a kind without series")?;
        let samples = kind.samples() as u64;
        match self.kindred {
            Kindred::Victoria => {
                let flush = format!("http://{}/internal/force_flush", self.address);
                Store::answer(self.agent.get(flush).call()?)?;
                let url = format!("http://{}/api/v1/export?match%5B%5D={field}&start=0", self.address);
                let (distinct, all) = exported(&Store::answer(self.agent.get(url).call()?)?)?;
                Ok((distinct / samples, (all - distinct) / samples))
            }
            Kindred::Influx => {
                let query = format!("SELECT%20count({field})%20FROM%20frames");
                let url = format!("http://{}/query?db={DATABASE}&q={query}", self.address);
                let answer: Value = serde_json::from_str(&Store::answer(self.agent.get(url).call()?)?)?;
                let count = answer["results"][0]["series"][0]["values"][0][1].as_u64().unwrap_or(0);
                // A point of the same tags and time overwrites the first.
                Ok((count / samples, 0))
            }
        }
    }

    /// Waits until it has written what it holds in memory, as far as it does so by itself.
    pub fn settle(&self, folder: &Path) {
        if self.kindred == Kindred::Influx {
            let since = Instant::now();
            let wal = folder.join("influx/wal");
            sleep(Duration::from_secs(COLD_SECONDS));
            while folder_bytes(&wal, ".wal").unwrap_or(0) > 0 && since.elapsed() < COLD_MAX {
                sleep(Duration::from_millis(200));
            }
        }
    }
}

/// Distinct moments, and all, of an export.
fn exported(text: &str) -> Result<(u64, u64)> {
    let (mut seen, mut all) = (HashSet::new(), 0);
    for line in text.lines() {
        let series: Value = serde_json::from_str(line)?;
        let Some(times) = series["timestamps"].as_array() else { bail!("an export without timestamps") };
        let device = series["metric"]["device"].as_str().unwrap_or_default().to_owned();
        for time in times {
            all += 1;
            seen.insert((device.clone(), time.as_i64().unwrap_or(0)));
        }
    }
    Ok((seen.len() as u64, all))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus::{Corpus, Head, make};

    // Guarantee: every reading of a frame is in the words that a store gets, at its moment.
    #[test]
    fn frames_become_lines() {
        let folder = tempfile::tempdir().unwrap();
        make(&Head::new(Kind::A, 1, 1, 1).unwrap(), folder.path(), &|_| {}).unwrap();
        let corpus = Corpus::open(folder.path()).unwrap();
        let (mut victoria, mut influx) = (String::new(), String::new());
        write_frame(Kindred::Victoria, Kind::A, corpus.frame(0), &mut victoria).unwrap();
        write_frame(Kindred::Influx, Kind::A, corpus.frame(0), &mut influx).unwrap();
        let start_ms = corpus.head.start_us / 1_000;
        assert_eq!((victoria.lines().count(), influx.lines().count()), (5, 10));
        let line: Value = serde_json::from_str(victoria.lines().next().unwrap()).unwrap();
        assert_eq!(line["timestamps"][1].as_i64(), Some(start_ms + 1_000));
        let first = format!("heart_rate={}i", line["values"][0]);
        assert!(influx.lines().next().unwrap().contains(&first), "{influx}");
        assert!(influx.lines().nth(1).unwrap().ends_with(&format!(" {}", (start_ms + 1_000) * 1_000)));
        assert_eq!(exported(&format!("{line}\n{line}\n")).unwrap(), (10, 20));
        assert!(write_frame(Kindred::Influx, Kind::B, corpus.frame(0), &mut influx).is_err());
    }
}
