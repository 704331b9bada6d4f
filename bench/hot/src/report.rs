//! A run's folder: `raw.csv` with every turn, `summary.md` with the figures and where they were taken.

use std::fmt::Write as _;
use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::case::Case;
use crate::machine::Machine;
use crate::measure::{Figures, Sample};
use crate::peer::{RING, STRICT, is_whole_call};

const COLUMNS: [&str; 12] = [
    "axis",
    "devices",
    "message_bytes",
    "bad_per_mille",
    "per_call",
    "threads",
    "peer",
    "round",
    "thread",
    "signatures",
    "seconds",
    "cpu_seconds",
];
const READING: &str = "\
Every peer verifies the same signatures, in turns within each round. A signature's time is a turn's wall time divided by
its signatures, all threads together; rate and ratios come from the median round. `vitalog-*` run as in the product: one
accepted signature in 1,000 is verified again, and up to 2,000 refused ones per second. Keys' tables and parsed keys are
made before. `*-whole-call` has one verdict for a call: with bad signatures it comes early and judges nobody, and what a
caller must do then is not counted, so such a row has no rate. `on CPU` is the share of its turns in which the peer ran:
much below 100 % others used the machine, and its times are too long.
";

const HEADER: &str = "\
| peer                     | median ns |    min ns | on CPU | per second | x strict | x ring |
|--------------------------|----------:|----------:|-------:|-----------:|---------:|-------:|";

/// A folder that did not exist before: old runs stay.
pub struct Report {
    folder: PathBuf,
    raw: csv::Writer<File>,
    summary: String,
}

impl Report {
    /// Makes the folder.
    pub fn create(folder: &Path, machine: &Machine, date: &str, command: &str) -> Result<Report> {
        let raw = folder.join("raw.csv");
        ensure!(!raw.exists(), "{} holds an older run, which stays: choose another --out", folder.display());
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let mut raw =
            csv::Writer::from_path(&raw).with_context(|| format!("cannot write {}", raw.display()))?;
        raw.write_record(COLUMNS)?;
        let Machine { cpu, cores, flags, rustc } = machine;
        let summary = format!(
            "# Verification, {date}\n\n{cpu}, {cores} cores, {}; {rustc}; vitalog {}\n\n`{command}`\n\n{READING}",
            flags.join(" "),
            env!("CARGO_PKG_VERSION"),
        );
        Ok(Report { folder: folder.to_owned(), raw, summary })
    }

    /// Writes a case to both files, so that an interrupted run keeps what it has, and returns its table.
    pub fn add(&mut self, case: Case, samples: &[Sample], figures: &[Figures]) -> Result<String> {
        for sample in samples {
            let numbers = [
                case.shape.devices,
                case.shape.message_bytes,
                case.shape.bad_per_mille,
                case.per_call,
                case.threads,
            ];
            let mut record = vec![case.axis.to_owned()];
            record.extend(numbers.map(|number| number.to_string()));
            record.push(sample.peer.clone());
            record.extend([sample.round, sample.thread, sample.signatures].map(|number| number.to_string()));
            record.push(format!("{:.6}", sample.seconds));
            record.push(sample.cpu_seconds.map_or_else(String::new, |seconds| format!("{seconds:.6}")));
            self.raw.write_record(record)?;
        }
        self.raw.flush()?;
        let text = table(case, figures);
        let _ = write!(self.summary, "\n{text}");
        let path = self.folder.join("summary.md");
        std::fs::write(&path, &self.summary).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(text)
    }
}

/// Markdown that is also readable as it stands.
fn table(case: Case, figures: &[Figures]) -> String {
    let mut text = format!("## {}: {case}\n\n{HEADER}\n", case.axis);
    let median_of = |name| figures.iter().find(|one| one.peer == name).map_or(f64::NAN, |one| one.median_ns);
    for Figures { peer, median_ns, min_ns, on_cpu } in figures {
        let on_cpu = on_cpu.map_or_else(|| "?".to_owned(), |share| format!("{:.0} %", share * 100.0));
        let _ = write!(text, "| {peer:24} | {median_ns:9.0} | {min_ns:9.0} | {on_cpu:>6} |");
        let _ = if case.shape.bad_per_mille > 0 && is_whole_call(peer) {
            // It has judged nobody, so there is nothing to compare.
            writeln!(text, " {:>10} | {:>8} | {:>6} |", "-", "-", "-")
        } else {
            let (strict, ring) = (median_of(STRICT) / median_ns, median_of(RING) / median_ns);
            writeln!(text, " {:10.0} | {strict:8.2} | {ring:6.2} |", 1e9 / median_ns)
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::BASE;
    use crate::workload::Shape;

    // Scenario: bad signatures. Guarantee: a verdict about the whole call is never counted as a rate of verdicts.
    #[test]
    fn no_rate_without_verdicts() {
        let figures = ["ours", "batch-whole-call"].map(|peer| Figures {
            peer: peer.to_owned(),
            median_ns: 1_000.0,
            min_ns: 900.0,
            on_cpu: None,
        });
        let bad = Case { shape: Shape { bad_per_mille: 1, ..BASE.shape }, ..BASE };
        for (case, rates) in [(BASE, 2), (bad, 1)] {
            assert_eq!(table(case, &figures).matches("1000000").count(), rates, "{case}");
        }
    }

    // Scenario: a run of one case, then another into the same folder. Guarantee: both files hold it, the second is refused.
    #[test]
    fn a_run_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("2026-01-02-cpu");
        let machine =
            Machine { cpu: "cpu".to_owned(), cores: 2, flags: vec!["avx2"], rustc: "rustc 1".to_owned() };
        let mut report = Report::create(&folder, &machine, "2026-01-02", "bench-hot verify").unwrap();
        let sample = Sample {
            peer: RING.to_owned(),
            round: 0,
            thread: 1,
            signatures: 64,
            seconds: 0.25,
            cpu_seconds: None,
        };
        let of = |peer: &str, median_ns| Figures {
            peer: peer.to_owned(),
            median_ns,
            min_ns: 900.0,
            on_cpu: Some(0.5),
        };
        let figures = [of("ours", 1_000.0), of(STRICT, 4_000.0), of(RING, 5_000.0)];
        let table = report.add(BASE, &[sample], &figures).unwrap();
        assert!(
            table.contains("|      1000 |       900 |   50 % |    1000000 |     4.00 |   5.00 |"),
            "{table}"
        );
        let summary = std::fs::read_to_string(folder.join("summary.md")).unwrap();
        assert!(summary.contains("cpu, 2 cores, avx2; rustc 1;") && summary.ends_with(&table), "{summary}");
        let raw = std::fs::read_to_string(folder.join("raw.csv")).unwrap();
        assert_eq!(raw.lines().nth(1), Some("base,1024,100,0,1024,1,ring,0,1,64,0.250000,"));
        assert!(Report::create(&folder, &machine, "2026-01-02", "").is_err());
    }
}
