//! Empatica E4 folders: `ACC BVP EDA HR IBI TEMP .csv`, each with its own start time and rate in its first two lines.
//! The files are read as their `info.txt` describes them; nothing is resampled, smoothed or left out.

use std::fs;
use std::path::{Path, PathBuf};

use schemas_frame::Scale;

use crate::FleetError;
use crate::decimal::Decimal;
use crate::stream::{Column, Times};

pub use crate::stream::Recording;

/// Largest file that is read.
const FILE_BYTES_MAX: u64 = 256 << 20;
/// Columns of regular sensors: file, signals (one per comma-separated value), fixed scale.
const SENSORS: [(&str, &[u32], Option<Scale>); 5] = [
    ("ACC.csv", &[14, 15, 16], Some(Scale { num: 1, den: 64 })),
    ("BVP.csv", &[18], None),
    ("EDA.csv", &[17], None),
    ("HR.csv", &[1], None),
    ("TEMP.csv", &[5], None),
];
const SIGNAL_RR_INTERVAL: u32 = 10;
/// Seconds to milliseconds moves the point by three digits.
const MILLI_DIGITS: usize = 3;

/// Every recording of a folder: the folder itself, or the folders in it by name.
pub fn load_all(directory: &Path) -> Result<Vec<Recording>, FleetError> {
    if is_recording(directory) {
        return Ok(vec![Recording::load(directory)?]);
    }
    let io = |source| FleetError::Io { path: directory.to_owned(), source };
    let mut folders: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(directory).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if is_recording(&path) {
            folders.push(path);
        }
    }
    folders.sort();
    if folders.is_empty() {
        return Err(FleetError::NoRecording { path: directory.to_owned() });
    }
    folders.iter().map(|folder| Recording::load(folder)).collect()
}

fn is_recording(directory: &Path) -> bool {
    SENSORS.iter().any(|(file, _, _)| directory.join(file).is_file())
}

impl Recording {
    /// Reads one folder; sensors without a file are left out.
    pub fn load(directory: &Path) -> Result<Recording, FleetError> {
        let name = directory
            .file_name()
            .map_or_else(|| "recording".into(), |name| name.to_string_lossy().into_owned());
        let mut columns = Vec::new();
        for (file, signals, scale) in SENSORS {
            let path = directory.join(file);
            if path.is_file() {
                columns.extend(load_sensor(&path, signals, scale)?);
            }
        }
        let path = directory.join("IBI.csv");
        if path.is_file() {
            columns.extend(load_intervals(&path)?);
        }
        columns.retain(|column| !column.values.is_empty());
        if columns.is_empty() {
            return Err(FleetError::NoRecording { path: directory.to_owned() });
        }
        Ok(Recording { name, columns })
    }
}

struct Lines {
    path: PathBuf,
    text: String,
}

impl Lines {
    fn read(path: &Path) -> Result<Lines, FleetError> {
        let io = |source| FleetError::Io { path: path.to_owned(), source };
        if fs::metadata(path).map_err(io)?.len() > FILE_BYTES_MAX {
            return Err(FleetError::Recording {
                path: path.to_owned(),
                line: 1,
                problem: "the file is too large",
            });
        }
        Ok(Lines { path: path.to_owned(), text: fs::read_to_string(path).map_err(io)? })
    }

    fn wrong(&self, line: usize, problem: &'static str) -> FleetError {
        FleetError::Recording { path: self.path.clone(), line, problem }
    }

    /// First value of a header line.
    fn header(&self, line: usize, problem: &'static str) -> Result<Decimal, FleetError> {
        let text = self.text.lines().nth(line - 1).and_then(|text| text.split(',').next());
        text.and_then(Decimal::parse).ok_or_else(|| self.wrong(line, problem))
    }
}

/// A decimal number of seconds as microseconds, exactly.
fn micros(seconds: Decimal) -> Option<i64> {
    let digits = u32::try_from(6usize.checked_sub(seconds.digits)?).ok()?;
    seconds.mantissa.checked_mul(10i64.checked_pow(digits)?)
}

fn load_sensor(path: &Path, signals: &[u32], scale: Option<Scale>) -> Result<Vec<Column>, FleetError> {
    let lines = Lines::read(path)?;
    let start = "expected the start time in seconds since 1970";
    let start_us = micros(lines.header(1, start)?).ok_or_else(|| lines.wrong(1, start))?;
    let rate_text = "expected a rate that divides a second into whole microseconds";
    let rate = lines.header(2, rate_text)?;
    let is_whole = rate.digits == 0 && rate.mantissa > 0 && 1_000_000 % rate.mantissa == 0;
    let period_us =
        if is_whole { (1_000_000 / rate.mantissa) as u64 } else { return Err(lines.wrong(2, rate_text)) };
    let times = Times::Regular { start_us, period_us };
    let mut columns: Vec<Column> = signals
        .iter()
        .map(|signal| Column { signal: *signal, times: times.clone(), values: Vec::new(), scale })
        .collect();
    for (text, line) in lines.text.lines().skip(2).zip(3..) {
        let mut parts = text.split(',');
        for column in &mut columns {
            let value = parts.next().and_then(Decimal::parse);
            column.values.push(value.ok_or_else(|| lines.wrong(line, "expected one number per axis"))?);
        }
    }
    Ok(columns)
}

fn load_intervals(path: &Path) -> Result<Option<Column>, FleetError> {
    let lines = Lines::read(path)?;
    if lines.text.trim().is_empty() {
        return Ok(None);
    }
    let start = "expected the start time in seconds since 1970";
    let start_us = micros(lines.header(1, start)?).ok_or_else(|| lines.wrong(1, start))?;
    let (mut times, mut values) = (Vec::new(), Vec::new());
    for (text, line) in lines.text.lines().skip(1).zip(2..) {
        let wrong = || lines.wrong(line, "expected offset and duration in seconds");
        let (offset, duration) = text.split_once(',').ok_or_else(wrong)?;
        let offset_us = Decimal::parse(offset).and_then(micros).ok_or_else(wrong)?;
        times.push(start_us + offset_us);
        values.push(Decimal::parse(duration).and_then(milli).ok_or_else(wrong)?);
    }
    if !times.is_sorted() {
        return Err(lines.wrong(2, "beats are not in order"));
    }
    Ok(Some(Column { signal: SIGNAL_RR_INTERVAL, times: Times::Irregular(times), values, scale: None }))
}

/// The same number in thousandths of its unit.
fn milli(seconds: Decimal) -> Option<Decimal> {
    if seconds.digits >= MILLI_DIGITS {
        return Some(Decimal { digits: seconds.digits - MILLI_DIGITS, ..seconds });
    }
    let factor = 10i64.pow((MILLI_DIGITS - seconds.digits) as u32);
    Some(Decimal { mantissa: seconds.mantissa.checked_mul(factor)?, digits: 0, ..seconds })
}

#[cfg(test)]
mod tests;
