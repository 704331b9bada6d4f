//! Comma-separated tables of readings, one row a moment of one person, read as a map says: no code for a new source.
//! Empty cells are no readings. It guesses nothing: no unit, no zone and no signal that the map does not name.
//!
//! ```toml
//! person = "user_code"                  # column; or name = "P1" for a table of one person
//! time = "measurement_datetime"         # column
//! time_format = "%Y-%m-%d %H:%M:%S"     # strftime, or "unix" for seconds since 1970
//! utc_offset = "+00:00"                 # of times that are written without a zone
//!
//! [[column]]
//! name = "systolic"
//! signal = "blood_pressure_systolic"
//!
//! [[column]]
//! name = "spo2_fraction"
//! signal = "spo2"
//! unit = [100, 1]                       # one unit as written is worth 100/1 of the signal's
//!
//! [[column]]
//! name = "rr_data"
//! signal = "rr_interval"
//! list = ","                            # intervals in ms, each starting where the one before ended
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::{Offset, TimeZone};
use schemas_frame::Scale;
use schemas_signals::Registry;
use serde::Deserialize;

use crate::FleetError;
use crate::decimal::Decimal;
use crate::stream::{Column, Recording, Times};

/// Largest table and largest map that are read.
const FILE_BYTES_MAX: u64 = 256 << 20;
const MAP_BYTES_MAX: u64 = 64 << 10;
/// Largest part of a unit.
const UNIT_MAX: u32 = 1_000_000;

/// Which column means what.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Map {
    person: Option<String>,
    name: Option<String>,
    time: String,
    time_format: String,
    #[serde(default)]
    utc_offset: Option<String>,
    #[serde(rename = "column")]
    columns: Vec<MapColumn>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct MapColumn {
    name: String,
    signal: String,
    #[serde(default)]
    unit: Option<(u32, u32)>,
    #[serde(default)]
    list: Option<String>,
}

/// A map's column, found in the table and in the registry.
struct Place<'m> {
    index: usize,
    signal: u32,
    unit: Option<Scale>,
    list: Option<&'m str>,
}

impl Map {
    /// Reads a map.
    ///
    /// # Errors
    /// When it cannot be read, has unknown keys, or contradicts itself.
    pub fn load(path: &Path) -> Result<Map, FleetError> {
        let problem = |problem: String| FleetError::Map { path: path.to_owned(), problem };
        let io = |source| FleetError::Io { path: path.to_owned(), source };
        if fs::metadata(path).map_err(io)?.len() > MAP_BYTES_MAX {
            return Err(problem(format!("larger than {MAP_BYTES_MAX} bytes")));
        }
        let map: Map = toml::from_str(&fs::read_to_string(path).map_err(io)?)
            .map_err(|error| problem(error.to_string().trim_end().to_owned()))?;
        if map.person.is_some() == map.name.is_some() {
            return Err(problem("give `person` (a column) or `name` (for a table of one person)".to_owned()));
        }
        for column in &map.columns {
            if Registry::builtin().by_name(&column.signal).is_none() {
                return Err(problem(format!("`{}` is no signal of the registry", column.signal)));
            }
            if column
                .unit
                .is_some_and(|(num, den)| ![num, den].iter().all(|part| (1..=UNIT_MAX).contains(part)))
            {
                return Err(problem(format!("unit of `{}`: two numbers from 1 to {UNIT_MAX}", column.name)));
            }
            if column.list.as_ref().is_some_and(String::is_empty) {
                return Err(problem(format!("list of `{}`: give the separator", column.name)));
            }
        }
        map.offset().map_err(problem)?;
        Ok(map)
    }

    fn offset(&self) -> Result<TimeZone, String> {
        let Some(text) = &self.utc_offset else { return Ok(TimeZone::UTC) };
        let parsed = || {
            let (sign, rest) = match text.split_at_checked(1)? {
                ("+", rest) => (1, rest),
                ("-", rest) => (-1, rest),
                _ => return None,
            };
            let (hours, minutes) = rest.split_once(':')?;
            let (hours, minutes): (i32, i32) = (hours.parse().ok()?, minutes.parse().ok()?);
            let seconds = sign * (hours * 3_600 + minutes * 60);
            ((0..24).contains(&hours) && (0..60).contains(&minutes))
                .then(|| Offset::from_seconds(seconds).ok())?
        };
        let wrong = || format!("utc_offset `{text}`: written like +05:30");
        Ok(TimeZone::fixed(parsed().ok_or_else(wrong)?))
    }

    /// A cell's moment, microseconds since 1970. A format without a time of day means midnight.
    fn moment_us(&self, text: &str, zone: &TimeZone) -> Option<i64> {
        if self.time_format == "unix" {
            let seconds = Decimal::parse(text)?;
            let digits = u32::try_from(6usize.checked_sub(seconds.digits)?).ok()?;
            return seconds.mantissa.checked_mul(10i64.checked_pow(digits)?);
        }
        let format = self.time_format.as_str();
        let local = match DateTime::strptime(format, text) {
            Ok(local) => local,
            Err(_) => Date::strptime(format, text).ok()?.to_datetime(Time::midnight()),
        };
        let zoned = zone.to_ambiguous_timestamp(local).unambiguous().ok()?;
        Some(zoned.as_microsecond())
    }
}

/// One person's samples of one signal while they are collected.
type Samples = Vec<(i64, Decimal)>;

/// Every person of a table, by name.
///
/// # Errors
/// When the table or the map cannot be read, a column is missing, or a cell is not what the map says; the line is named.
pub fn load_all(path: &Path, map: &Map) -> Result<Vec<Recording>, FleetError> {
    let io = |source| FleetError::Io { path: path.to_owned(), source };
    let wrong = |line: usize, problem| FleetError::Recording { path: path.to_owned(), line, problem };
    if fs::metadata(path).map_err(io)?.len() > FILE_BYTES_MAX {
        return Err(wrong(1, "the file is too large"));
    }
    let mut reader =
        csv::Reader::from_path(path).map_err(|_| wrong(1, "not a comma-separated table in UTF-8"))?;
    let header = reader.headers().map_err(|_| wrong(1, "no header line"))?.clone();
    let find = |name: &str| header.iter().position(|column| column == name);
    let missing = || wrong(1, "a column that the map names is not in the header");
    let person_at = match &map.person {
        Some(name) => Some(find(name).ok_or_else(missing)?),
        None => None,
    };
    let time_at = find(&map.time).ok_or_else(missing)?;
    let mut places = Vec::new();
    for column in &map.columns {
        let signal = Registry::builtin().by_name(&column.signal).ok_or_else(missing)?.id;
        let unit = column.unit.map(|(num, den)| Scale { num, den });
        let index = find(&column.name).ok_or_else(missing)?;
        places.push(Place { index, signal, unit, list: column.list.as_deref() });
    }
    let zone = map.offset().map_err(|problem| FleetError::Map { path: path.to_owned(), problem })?;
    let mut people: BTreeMap<String, Vec<Samples>> = BTreeMap::new();
    let mut row = csv::StringRecord::new();
    while reader.read_record(&mut row).map_err(|_| wrong(0, "a row breaks the table's form"))? {
        let line = row.position().map_or(0, |position| position.line() as usize);
        let name = person_at.map_or(map.name.as_deref(), |at| row.get(at)).unwrap_or_default();
        if name.is_empty() {
            return Err(wrong(line, "a row of nobody"));
        }
        let time_us = row.get(time_at).and_then(|text| map.moment_us(text.trim(), &zone));
        let time_us = time_us.ok_or_else(|| wrong(line, "the time is not written in time_format"))?;
        let samples = people.entry(name.to_owned()).or_insert_with(|| vec![Vec::new(); places.len()]);
        for (place, samples) in places.iter().zip(samples) {
            let cell = row.get(place.index).unwrap_or_default().trim();
            collect(cell, place, time_us, samples).ok_or_else(|| wrong(line, "a cell is no number"))?;
        }
    }
    Ok(people.into_iter().filter_map(|(name, samples)| recording(name, &places, samples)).collect())
}

fn collect(cell: &str, place: &Place<'_>, time_us: i64, samples: &mut Samples) -> Option<()> {
    let Some(separator) = place.list else {
        if !cell.is_empty() {
            samples.push((time_us, Decimal::parse(cell)?));
        }
        return Some(());
    };
    let mut at_us = time_us;
    for text in cell.split(separator).map(str::trim).filter(|text| !text.is_empty()) {
        let interval_ms = Decimal::parse(text)?;
        samples.push((at_us, interval_ms));
        at_us = at_us.checked_add((interval_ms.value() * 1_000.0).round() as i64)?;
    }
    Some(())
}

/// A person's columns in order of time; a person without a reading is none.
fn recording(name: String, places: &[Place<'_>], people: Vec<Samples>) -> Option<Recording> {
    let mut columns = Vec::new();
    for (place, mut samples) in places.iter().zip(people) {
        if samples.is_empty() {
            continue;
        }
        samples.sort_by_key(|(time_us, _)| *time_us);
        let (times, values) = samples.into_iter().unzip();
        columns.push(Column {
            signal: place.signal,
            times: Times::Irregular(times),
            values,
            scale: place.unit,
        });
    }
    (!columns.is_empty()).then_some(Recording { name, columns })
}

#[cfg(test)]
mod tests;
