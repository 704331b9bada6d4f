//! A run's figures, as a table to read and as JSON to keep.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use schemas_frame::Code;
use serde::Serialize;

use super::{Lap, Verdicts};
use crate::process::Usage;
use crate::station::Station;

/// Looks at the tail this often until all is sealed.
const LOOK: Duration = Duration::from_millis(20);
/// Longest wait for that.
const SEAL_MAX: Duration = Duration::from_secs(300);

/// Times to an acknowledgement, milliseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Times {
    /// Half of the frames.
    pub p50_ms: f64,
    /// 99 of 100.
    pub p99_ms: f64,
    /// All.
    pub max_ms: f64,
}

/// What a process cost in a run.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Cost {
    /// CPU seconds, program and system.
    pub cpu_s: f64,
    /// Per million frames answered.
    pub cpu_s_per_million_frames: f64,
    /// Per million readings in them.
    pub cpu_s_per_million_readings: f64,
    /// Most memory it ever held.
    pub peak_mib: f64,
}

/// Through to sealed files.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Sealed {
    /// Frames sealed at the moment that gives the highest rate: what comes after it is a last batch waiting for its clock.
    pub frames: u64,
    /// From the first frame to that moment.
    pub seconds: f64,
    /// Frames a second over that time.
    pub frames_per_s: f64,
    /// Readings a second.
    pub readings_per_s: f64,
}

/// Bytes of the lake's files.
#[derive(Debug, Clone, Serialize)]
pub struct Stored {
    /// By kind of file.
    pub bytes: BTreeMap<String, u64>,
    /// Of all kinds, per reading sent.
    pub per_reading: f64,
    /// Without the frames themselves, which are the evidence.
    pub readings_only_per_reading: f64,
    /// The frames, per frame.
    pub evidence_per_frame: f64,
}

/// One run.
#[derive(Debug, Clone, Serialize)]
pub struct Figures {
    /// Frames answered.
    pub frames: u64,
    /// Readings in them.
    pub readings: u64,
    /// Their bytes.
    pub bytes: u64,
    /// From the first frame to the last answer.
    pub seconds: f64,
    /// Frames a second.
    pub frames_per_s: f64,
    /// Readings a second.
    pub readings_per_s: f64,
    /// Times to an acknowledgement.
    pub times: Times,
    /// Frames by verdict.
    pub codes: BTreeMap<Code, u64>,
    /// Requests that were repeated.
    pub retries: u64,
    /// This process.
    pub generator: Cost,
    /// The server.
    pub server: Option<Cost>,
    /// Through to sealed files.
    pub sealed: Option<Sealed>,
    /// Bytes of the lake's files.
    pub stored: Option<Stored>,
    /// Why it ended early.
    pub problem: Option<String>,
}

/// Two looks at a process.
#[derive(Debug, Clone, Copy)]
pub struct Watched {
    pid: u32,
    before: Usage,
}

impl Watched {
    /// The first look; `None` if there is no such process.
    #[must_use]
    pub fn start(pid: u32) -> Option<Watched> {
        Some(Watched { pid, before: Usage::of(pid)? })
    }

    /// CPU seconds and the most memory since.
    #[must_use]
    pub fn cost(&self, frames: u64, readings: u64) -> Option<Cost> {
        let now = Usage::of(self.pid)?;
        let cpu_s = now.cpu_since(&self.before);
        let per_million = |count: u64| cpu_s * 1e6 / count.max(1) as f64;
        Some(Cost {
            cpu_s,
            cpu_s_per_million_frames: per_million(frames),
            cpu_s_per_million_readings: per_million(readings),
            peak_mib: now.peak_bytes as f64 / f64::from(1 << 20),
        })
    }
}

/// Waits until no frame waits for a batch. How many were sealed, and when, at the look at which most had been sealed per
/// second: a last batch that is not full waits for its clock, which says nothing about speed.
///
/// # Errors
/// When that takes too long or the server does not answer.
pub fn wait_sealed(station: &Station, frames: u64, started: Instant) -> Result<(u64, Instant)> {
    let since = Instant::now();
    let (mut best, mut best_rate) = ((0, since), 0.0);
    loop {
        let tail = station.metric("vitalog_pipeline_tail_frames")?;
        let now = Instant::now();
        let sealed = frames.saturating_sub(tail as u64);
        let rate = sealed as f64 / now.duration_since(started).as_secs_f64().max(1e-9);
        if rate > best_rate {
            (best, best_rate) = ((sealed, now), rate);
        }
        if tail <= 0.0 {
            return Ok(best);
        }
        ensure!(since.elapsed() < SEAL_MAX, "frames are not sealed after {} s", SEAL_MAX.as_secs());
        std::thread::sleep(LOOK);
    }
}

/// Bytes of the files of a data directory's lake.
///
/// # Errors
/// When it cannot be read.
pub fn stored(data: &Path, frames: u64, readings: u64) -> Result<Stored> {
    let mut bytes = BTreeMap::new();
    for entry in std::fs::read_dir(data.join("lake"))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(kind) = name.strip_suffix(".parquet").and_then(|name| name.rsplit('.').next()) else {
            continue;
        };
        *bytes.entry(kind.to_owned()).or_default() += entry.metadata()?.len();
    }
    let all: u64 = bytes.values().sum();
    let evidence = bytes.get("frames").copied().unwrap_or(0);
    let per = |part: u64, count: u64| part as f64 / count.max(1) as f64;
    Ok(Stored {
        per_reading: per(all, readings),
        readings_only_per_reading: per(all - evidence, readings),
        evidence_per_frame: per(evidence, frames),
        bytes,
    })
}

impl Figures {
    /// What a lap says so far; costs and files are added by whoever can see them.
    #[must_use]
    pub fn new(
        lap: &Lap,
        verdicts: &Verdicts,
        started: Instant,
        readings_of_frame: u64,
        generator: Cost,
    ) -> Figures {
        let frames = lap.times.total();
        let seconds = lap.last.map_or(0.0, |last| last.duration_since(started).as_secs_f64());
        let per_s = |count: u64| count as f64 / seconds.max(1e-9);
        let readings = frames * readings_of_frame;
        let ms = |ns: u64| ns as f64 / 1e6;
        Figures {
            frames,
            readings,
            bytes: lap.bytes,
            seconds,
            frames_per_s: per_s(frames),
            readings_per_s: per_s(readings),
            times: Times {
                p50_ms: ms(lap.times.quantile_ns(0.5)),
                p99_ms: ms(lap.times.quantile_ns(0.99)),
                max_ms: ms(lap.times.max_ns()),
            },
            codes: verdicts.tally(),
            retries: lap.retries,
            generator,
            server: None,
            sealed: None,
            stored: None,
            problem: lap.problem.clone(),
        }
    }

    /// Adds what was sealed, and when.
    pub fn sealed_at(&mut self, started: Instant, sealed: (u64, Instant)) {
        let readings_of_frame = self.readings / self.frames.max(1);
        let (frames, seconds) = (sealed.0, sealed.1.duration_since(started).as_secs_f64());
        let per_s = |count: u64| count as f64 / seconds.max(1e-9);
        let (frames_per_s, readings_per_s) = (per_s(frames), per_s(frames * readings_of_frame));
        self.sealed = Some(Sealed { frames, seconds, frames_per_s, readings_per_s });
    }

    /// A table to read.
    #[must_use]
    pub fn table(&self) -> String {
        let mut rows = vec![
            (
                "frames",
                format!("{} in {:.2} s, {:.1} MB", self.frames, self.seconds, self.bytes as f64 / 1e6),
            ),
            ("frames/s", format!("{:.0}", self.frames_per_s)),
            ("readings/s", format!("{:.0}", self.readings_per_s)),
            ("acknowledged", {
                let Times { p50_ms, p99_ms, max_ms } = self.times;
                format!("p50 {p50_ms:.3} ms, p99 {p99_ms:.3} ms, max {max_ms:.1} ms")
            }),
        ];
        let codes: Vec<String> = self.codes.iter().map(|(code, count)| format!("{code} {count}")).collect();
        rows.push(("verdicts", format!("{}; repeated requests {}", codes.join(", "), self.retries)));
        let cost = |cost: &Cost| {
            format!(
                "{:.2} CPU s, {:.2} per million frames, {:.3} per million readings, peak {:.0} MiB",
                cost.cpu_s, cost.cpu_s_per_million_frames, cost.cpu_s_per_million_readings, cost.peak_mib
            )
        };
        rows.push(("generator", cost(&self.generator)));
        rows.extend(self.server.as_ref().map(|server| ("server", cost(server))));
        if let Some(Sealed { frames, seconds, frames_per_s, readings_per_s }) = self.sealed {
            let text = format!(
                "{frames_per_s:.0} frames/s, {readings_per_s:.0} readings/s ({frames} in {seconds:.2} s)"
            );
            rows.push(("to sealed files", text));
        }
        if let Some(stored) = &self.stored {
            let kinds: Vec<String> =
                stored.bytes.iter().map(|(kind, bytes)| format!("{kind} {bytes}")).collect();
            rows.push((
                "stored",
                format!(
                    "{:.3} B/reading, {:.3} without evidence, evidence {:.1} B/frame ({})",
                    stored.per_reading,
                    stored.readings_only_per_reading,
                    stored.evidence_per_frame,
                    kinds.join(", ")
                ),
            ));
        }
        rows.extend(self.problem.as_ref().map(|problem| ("ended early", problem.clone())));
        rows.iter().map(|(name, value)| format!("{name:16} {value}\n")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Guarantee: files are counted by the kind in their names, and the evidence apart.
    #[test]
    fn files_are_counted() {
        let data = tempfile::tempdir().unwrap();
        let lake = data.path().join("lake");
        std::fs::create_dir(&lake).unwrap();
        for (name, bytes) in [
            ("1.scalar.parquet", 100),
            ("2.scalar.parquet", 50),
            ("1.frames.parquet", 250),
            ("1.manifest.json", 9),
        ] {
            std::fs::write(lake.join(name), vec![0; bytes]).unwrap();
        }
        let stored = stored(data.path(), 10, 500).unwrap();
        assert_eq!((stored.bytes["scalar"], stored.bytes["frames"], stored.bytes.len()), (150, 250, 2));
        assert_eq!((stored.per_reading, stored.readings_only_per_reading), (0.8, 0.3));
        assert_eq!(stored.evidence_per_frame, 25.0);
    }
}
