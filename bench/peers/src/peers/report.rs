//! A run's folder: `peers.csv` with every figure, `peers.md` with the tables and where they were taken.

use std::fmt::Write as _;
use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::{Loss, Measured, Peer, Row};
use crate::corpus::Head;
use crate::machine::Machine;

const READING: &str = "\
Everybody got the same signed frames from the same generator on the same cores: 4 MQTT connections with 100 publishes each
on the way, or 4 HTTP connections with bodies of 500 frames. `acknowledged` is what the sender was told at: of the chains, by
the broker, which has the frame in memory; of vitalog, when it is verified and synced to the disk. `stored` is up to the
answer of the store for the last frame; of vitalog, up to sealed Parquet and the log entry, without
the wait of a last batch that is not full.
The chains verify no signature, keep none, and know no duplicates; their bridge and the DuckDB consumer write raw integers in
batches of 500 and acknowledge after the store's answer. CPU is of all processes but the generator. `lost` are frames that
were acknowledged before a kill -9 of all processes and cannot be read back after a restart; what was found may hold frames
that were not acknowledged, so a chain may have lost more. `store` are those that the store had answered for: the rest was in
the broker, persistent as Debian configures it, which saves every half hour. Bytes of vitalog are all files; in brackets without the signed
frames themselves, which the others do not have.
";

const HEADER: &str = "\
| peer | acknowledged frames/s | readings/s | p50 ms | p99 ms | stored frames/s | readings/s | CPU s per million readings | bytes per reading | lost of acknowledged after kill -9 | load |
|---|--:|--:|--:|--:|--:|--:|---|--:|--:|---|";

/// A folder that holds no older run of this kind.
pub struct Report {
    folder: PathBuf,
    raw: csv::Writer<File>,
    summary: String,
}

impl Report {
    /// Makes the folder.
    ///
    /// # Errors
    /// When it cannot be written or holds an older run.
    pub fn create(folder: &Path, machine: &Machine, date: &str, command: &str) -> Result<Report> {
        let raw = folder.join("peers.csv");
        ensure!(!raw.exists(), "{} holds an older run, which stays: choose another --out", folder.display());
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let mut raw = csv::Writer::from_path(&raw).with_context(|| raw.display().to_string())?;
        raw.write_record(["kind", "peer", "figure", "value"])?;
        let (cpu, cores, version) = (&machine.cpu, machine.cores, env!("CARGO_PKG_VERSION"));
        let summary =
            format!("# Peers, {date}\n\n{cpu}, {cores} cores; vitalog {version}\n\n`{command}`\n\n{READING}");
        Ok(Report { folder: folder.to_owned(), raw, summary })
    }

    /// Begins the table of a corpus; returns its head.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn begin(&mut self, head: &Head, frame_bytes: usize) -> Result<String> {
        let text = format!(
            "\n## Frames {}: {} readings, {frame_bytes} bytes, {} devices, {} frames at most\n\n{HEADER}\n",
            head.kind.name().to_ascii_uppercase(),
            head.kind.readings(),
            head.devices,
            head.total()
        );
        self.keep(&text)?;
        Ok(text)
    }

    /// Writes a peer's figures to both files, so that an interrupted run keeps what it has; returns its line.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn add(&mut self, head: &Head, peer: Peer, measured: &Measured) -> Result<String> {
        let text = match measured {
            Ok(row) => {
                for (figure, value) in records(row) {
                    self.raw.write_record([head.kind.name(), row.peer, &figure, &value])?;
                }
                line(row)
            }
            Err(problem) => {
                self.raw.write_record([head.kind.name(), peer.name(), "not measured", problem])?;
                format!("| {} | {} |\n", peer.name(), problem.replace(['|', '\n'], " "))
            }
        };
        self.raw.flush()?;
        self.keep(&text)?;
        Ok(text)
    }

    fn keep(&mut self, text: &str) -> Result<()> {
        self.summary.push_str(text);
        let path = self.folder.join("peers.md");
        std::fs::write(&path, &self.summary).with_context(|| format!("cannot write {}", path.display()))
    }
}

/// Every figure by name.
fn records(row: &Row) -> Vec<(String, String)> {
    let figures = &row.figures;
    let mut records = vec![
        ("load average".to_owned(), row.load_average.clone()),
        ("frames".to_owned(), figures.frames.to_string()),
        ("readings".to_owned(), figures.readings.to_string()),
        ("acknowledged seconds".to_owned(), format!("{:.6}", figures.seconds)),
        ("acknowledged frames/s".to_owned(), format!("{:.1}", figures.frames_per_s)),
        ("acknowledged p50 ms".to_owned(), format!("{:.4}", figures.times.p50_ms)),
        ("acknowledged p99 ms".to_owned(), format!("{:.4}", figures.times.p99_ms)),
        ("acknowledged max ms".to_owned(), format!("{:.4}", figures.times.max_ms)),
        ("stored frames/s".to_owned(), format!("{:.1}", row.through_frames_per_s)),
        ("bytes per reading".to_owned(), format!("{:.4}", row.bytes_per_reading.0)),
        ("generator CPU s".to_owned(), format!("{:.2}", figures.generator.cpu_s)),
    ];
    if let Some(bytes) = row.bytes_per_reading.1 {
        records.push(("bytes per reading without evidence".to_owned(), format!("{bytes:.4}")));
    }
    for (name, cpu) in &row.cpu_s_per_million_readings {
        records.push((format!("{name} CPU s per million readings"), format!("{cpu:.4}")));
    }
    for (name, mib) in &row.peak_mib {
        records.push((format!("{name} peak MiB"), format!("{mib:.0}")));
    }
    if let Some(Loss { acknowledged, written, found, lost, doubled }) = row.loss {
        for (name, count) in
            [("acknowledged", acknowledged), ("found", found), ("lost", lost), ("doubled", doubled)]
        {
            records.push((format!("kill: {name}"), count.to_string()));
        }
        records.extend(written.map(|count| ("kill: answered by the store".to_owned(), count.to_string())));
    }
    records
}

fn line(row: &Row) -> String {
    let figures = &row.figures;
    let readings_per_frame = figures.readings as f64 / figures.frames.max(1) as f64;
    let total: f64 = row.cpu_s_per_million_readings.iter().map(|(_, cpu)| cpu).sum();
    let mut cpu = format!("{total:.2}");
    if row.cpu_s_per_million_readings.len() > 1 {
        let parts = row.cpu_s_per_million_readings.iter().map(|(name, cpu)| format!("{name} {cpu:.2}"));
        let _ = write!(cpu, " ({})", parts.collect::<Vec<_>>().join(", "));
    }
    let bytes = match row.bytes_per_reading {
        (all, Some(without)) => format!("{all:.2} ({without:.2})"),
        (all, None) => format!("{all:.2}"),
    };
    let lost = row.loss.map_or_else(
        || "-".to_owned(),
        |loss| {
            let mut text = format!("{} of {}", loss.lost, loss.acknowledged);
            if let Some(written) = loss.written {
                let _ = write!(text, "; store {} of {written}", written.saturating_sub(loss.found));
            }
            if loss.doubled > 0 {
                let _ = write!(text, "; {} twice", loss.doubled);
            }
            text
        },
    );
    format!(
        "| {} | {:.0} | {:.2} M | {:.2} | {:.2} | {:.0} | {:.2} M | {cpu} | {bytes} | {lost} | {} |\n",
        row.peer,
        figures.frames_per_s,
        figures.readings_per_s / 1e6,
        figures.times.p50_ms,
        figures.times.p99_ms,
        row.through_frames_per_s,
        row.through_frames_per_s * readings_per_frame / 1e6,
        row.load_average,
    )
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::load::figures::Cost;
    use crate::load::{Lap, Verdicts};
    use crate::shape::Kind;

    fn row() -> Row {
        let mut lap = Lap::default();
        lap.times.record(2_000_000, 1_000);
        let started = Instant::now();
        lap.last = Some(started + std::time::Duration::from_secs(1));
        let cost = Cost {
            cpu_s: 1.0,
            cpu_s_per_million_frames: 1.0,
            cpu_s_per_million_readings: 1.0,
            peak_mib: 1.0,
        };
        Row {
            peer: "vitalog, MQTT",
            load_average: "0.10 0.20 0.30".to_owned(),
            figures: crate::load::figures::Figures::new(&lap, &Verdicts::new(0), started, 50, cost),
            through_frames_per_s: 500.0,
            cpu_s_per_million_readings: vec![("broker", 1.0), ("store", 0.5)],
            peak_mib: vec![("broker", 7.0)],
            bytes_per_reading: (2.0, Some(0.5)),
            loss: Some(Loss { acknowledged: 10, written: Some(9), found: 8, lost: 2, doubled: 0 }),
        }
    }

    // Scenario: a run of one peer and an absent one, then another run into the same folder. Guarantee: both are kept, the
    // second run is refused.
    #[test]
    fn a_run_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let machine = Machine { cpu: "cpu".to_owned(), cores: 2 };
        let head = Head::new(Kind::A, 2, 3, 1).unwrap();
        let mut report = Report::create(folder.path(), &machine, "2026-01-02", "bench-peers run").unwrap();
        report.begin(&head, 321).unwrap();
        report.add(&head, Peer::VitalogMqtt, &Ok(row())).unwrap();
        report.add(&head, Peer::VitalogHttp, &Err("absent: no | such\nprogram".to_owned())).unwrap();
        let summary = std::fs::read_to_string(folder.path().join("peers.md")).unwrap();
        assert!(summary.contains("| vitalog, MQTT | 1000 | 0.05 M | 2.00 | 2.00 | 500 | 0.03 M | 1.50 (broker 1.00, store 0.50) | 2.00 (0.50) | 2 of 10; store 1 of 9 |"), "{summary}");
        assert!(summary.ends_with("| vitalog, HTTP | absent: no   such program |\n"), "{summary}");
        let raw = std::fs::read_to_string(folder.path().join("peers.csv")).unwrap();
        assert!(raw.contains("a,\"vitalog, MQTT\",kill: lost,2\n"), "{raw}");
        assert!(Report::create(folder.path(), &machine, "2026-01-02", "").is_err());
    }
}
