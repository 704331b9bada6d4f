//! The catalogue's entries and how to find them. Checked as a whole when first used: two signals never share an id or
//! a name, and no name is a class.

use std::collections::HashMap;
use std::sync::LazyLock;

use serde::Deserialize;

use crate::{CLASS_WAVEFORM, SIGNAL_IDS_MAX, SignalSet};

/// The catalogue's files, compiled in.
const CATALOGUE: [&str; 4] = [
    include_str!("../catalogue/vitals.toml"),
    include_str!("../catalogue/activity.toml"),
    include_str!("../catalogue/waveform.toml"),
    include_str!("../catalogue/surroundings.toml"),
];

/// Names everything: `*` in a grant.
const WILDCARD: &str = "*";

/// One thing that can be measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Signal {
    /// What frames and files carry, 1 to 255.
    pub id: u32,
    /// What SQL and grants carry.
    pub name: String,
    /// What people read.
    pub title: String,
    /// FHIR code system URI (`http://loinc.org`, `urn:iso:std:iso:11073:10101`) or `vitalog`.
    pub system: String,
    /// Code within `system`.
    pub code: String,
    /// UCUM unit.
    pub unit: String,
    /// `vitals`, `activity`, `sleep`, `waveform`, `environment` or `device`.
    pub class: String,
    /// Least plausible value, inclusive.
    pub range_min: f64,
    /// Greatest plausible value, inclusive.
    pub range_max: f64,
}

impl Signal {
    /// Whether a value is plausible. NaN and infinities are not.
    pub fn is_plausible(&self, value: f64) -> bool {
        (self.range_min..=self.range_max).contains(&value)
    }

    /// Whether regular series of this signal are stored as waves whatever their length.
    pub fn is_waveform(&self) -> bool {
        self.class == CLASS_WAVEFORM
    }
}

/// Why a catalogue is refused.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// A file is not TOML of the expected shape.
    #[error("catalogue file {file} does not read")]
    Toml {
        /// Position of the file in the list given.
        file: usize,
        /// What the TOML reader says.
        source: toml::de::Error,
    },
    /// An id is 0, too great, or used twice.
    #[error("signal id {id} ({name}) is taken or outside 1 to 255")]
    Id {
        /// The id.
        id: u32,
        /// Its entry's name.
        name: String,
    },
    /// A name is used twice, names a class, or is not lower-case snake case.
    #[error("signal name {name:?} is taken, is a class, or is not lower-case snake case")]
    Name {
        /// The name.
        name: String,
    },
    /// A range is empty or not finite.
    #[error("signal {name:?} has no range: {min} to {max}")]
    Range {
        /// The entry's name.
        name: String,
        /// Least value.
        min: f64,
        /// Greatest value.
        max: f64,
    },
}

/// All known signals, in the order of their ids.
#[derive(Debug)]
pub struct Registry {
    signals: Vec<Signal>,
    by_id: Vec<Option<usize>>,
    by_name: HashMap<String, usize>,
    by_class: HashMap<String, SignalSet>,
}

impl Registry {
    /// The registry compiled into this build.
    pub fn builtin() -> &'static Registry {
        static BUILTIN: LazyLock<Registry> = LazyLock::new(|| match Registry::from_toml(&CATALOGUE) {
            Ok(registry) => registry,
            // The catalogue is part of the build and a test loads it, so this cannot be reached by input.
            Err(error) => unreachable!("the compiled-in catalogue is broken: {error}"),
        });
        &BUILTIN
    }

    /// A registry from catalogue files.
    ///
    /// # Errors
    /// When a file does not read, or ids, names or ranges break the rules; see [`CatalogueError`].
    pub fn from_toml(files: &[&str]) -> Result<Registry, CatalogueError> {
        let mut signals = Vec::new();
        for (file, text) in files.iter().enumerate() {
            let read: File = toml::from_str(text).map_err(|source| CatalogueError::Toml { file, source })?;
            signals.extend(read.signal.into_iter().map(Signal::from));
        }
        signals.sort_by_key(|signal| signal.id);
        let mut registry = Registry {
            signals: Vec::new(),
            by_id: vec![None; SIGNAL_IDS_MAX as usize],
            by_name: HashMap::new(),
            by_class: HashMap::new(),
        };
        for signal in signals {
            registry.add(signal)?;
        }
        for signal in &registry.signals {
            if registry.by_class.contains_key(&signal.name) {
                return Err(CatalogueError::Name { name: signal.name.clone() });
            }
        }
        Ok(registry)
    }

    /// The signal with this id.
    pub fn by_id(&self, id: u32) -> Option<&Signal> {
        let index = (*self.by_id.get(id as usize)?)?;
        self.signals.get(index)
    }

    /// The signal with this name, exactly.
    pub fn by_name(&self, name: &str) -> Option<&Signal> {
        self.signals.get(*self.by_name.get(name)?)
    }

    /// Every signal, in the order of ids.
    pub fn all(&self) -> &[Signal] {
        &self.signals
    }

    /// The set of every signal.
    pub fn everything(&self) -> SignalSet {
        self.signals.iter().map(|signal| signal.id).collect()
    }

    /// The signals that a name, a class or `*` means; empty for anything else. `*` is every signal of this build:
    /// what a later build adds is not in the set.
    pub fn resolve(&self, text: &str) -> SignalSet {
        if text == WILDCARD {
            return self.everything();
        }
        if let Some(signal) = self.by_name(text) {
            return SignalSet::of(signal.id);
        }
        self.by_class.get(text).copied().unwrap_or_default()
    }

    fn add(&mut self, signal: Signal) -> Result<(), CatalogueError> {
        let name = signal.name.clone();
        let index = self.signals.len();
        match self.by_id.get_mut(signal.id as usize) {
            Some(free @ None) if signal.id > 0 => *free = Some(index),
            _ => return Err(CatalogueError::Id { id: signal.id, name }),
        }
        let snake = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if name.is_empty() || !name.chars().all(snake) || self.by_name.insert(name.clone(), index).is_some() {
            return Err(CatalogueError::Name { name });
        }
        let (min, max) = (signal.range_min, signal.range_max);
        if !min.is_finite() || !max.is_finite() || min >= max {
            return Err(CatalogueError::Range { name, min, max });
        }
        self.by_class.entry(signal.class.clone()).or_default().insert(signal.id);
        self.signals.push(signal);
        Ok(())
    }
}

/// A catalogue file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    signal: Vec<Entry>,
}

/// An entry as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    id: u32,
    name: String,
    title: String,
    system: String,
    code: String,
    unit: String,
    class: String,
    range: [f64; 2],
}

impl From<Entry> for Signal {
    fn from(entry: Entry) -> Signal {
        let [range_min, range_max] = entry.range;
        let Entry { id, name, title, system, code, unit, class, .. } = entry;
        Signal { id, name, title, system, code, unit, class, range_min, range_max }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ids, names, units and classes are those of the contract's table, all of them and no others.
    #[test]
    fn builtin_is_the_contract() {
        let table = "1 heart_rate /min vitals|2 spo2 % vitals|3 respiratory_rate /min vitals|\
            4 body_temperature Cel vitals|5 skin_temperature Cel vitals|6 steps {steps} activity|\
            7 sleep_stage {stage} sleep|8 hrv_sdnn ms vitals|9 hrv_rmssd ms vitals|10 rr_interval ms vitals|\
            11 glucose mg/dL vitals|12 blood_pressure_systolic mm[Hg] vitals|\
            13 blood_pressure_diastolic mm[Hg] vitals|14 acceleration_x [g] waveform|\
            15 acceleration_y [g] waveform|16 acceleration_z [g] waveform|17 eda uS waveform|\
            18 ppg {adc} waveform|19 ecg mV waveform|20 ambient_temperature Cel environment|\
            21 humidity % environment|22 battery % device";
        let line = |s: &Signal| format!("{} {} {} {}", s.id, s.name, s.unit, s.class);
        let lines: Vec<String> = Registry::builtin().all().iter().map(line).collect();
        assert_eq!(lines.join("|"), table);
    }

    /// Only confirmed public codes are claimed; the rest are the registry's own, and say so.
    #[test]
    fn codes_are_confirmed_or_local() {
        let public: Vec<(u32, &str)> = Registry::builtin()
            .all()
            .iter()
            .filter(|signal| signal.system != "vitalog")
            .map(|signal| (signal.id, signal.code.as_str()))
            .collect();
        let confirmed = [
            (1, "8867-4"),
            (2, "59408-5"),
            (3, "9279-1"),
            (4, "8310-5"),
            (6, "55423-8"),
            (8, "80404-7"),
            (11, "99504-3"),
            (12, "8480-6"),
            (13, "8462-4"),
            (19, "131328"),
        ];
        assert_eq!(public, confirmed);
        for signal in Registry::builtin().all().iter().filter(|signal| signal.system == "vitalog") {
            assert_eq!(signal.code, signal.name);
        }
    }

    /// A name, a class and `*` resolve to their signals; anything else to nothing, so a typo grants nothing.
    #[test]
    fn resolve() {
        let registry = Registry::builtin();
        let ids = |text: &str| registry.resolve(text).iter().collect::<Vec<_>>();
        assert_eq!(ids("eda"), [17]);
        assert_eq!(ids("waveform"), [14, 15, 16, 17, 18, 19]);
        assert_eq!(ids("*").len(), 22);
        assert_eq!(ids("Heart_Rate"), Vec::<u32>::new());
        assert_eq!(ids(""), Vec::<u32>::new());
        assert!(
            registry.by_id(0).is_none() && registry.by_id(23).is_none() && registry.by_id(u32::MAX).is_none()
        );
        assert_eq!(registry.by_name("ppg").map(|signal| signal.id), Some(18));
    }

    /// Plausibility is inclusive at both ends, and what is no number is never plausible.
    #[test]
    fn plausible() {
        let heart = Registry::builtin().by_id(1).unwrap();
        for (value, plausible) in [
            (20.0, true),
            (300.0, true),
            (19.99, false),
            (300.01, false),
            (f64::NAN, false),
            (f64::INFINITY, false),
        ] {
            assert_eq!(heart.is_plausible(value), plausible, "{value}");
        }
    }

    /// A broken catalogue is refused with the entry at fault.
    #[test]
    fn broken_catalogues() {
        let entry = |id: u32, name: &str, class: &str, range: &str| {
            format!(
                "[[signal]]\nid = {id}\nname = {name:?}\ntitle = \"t\"\nsystem = \"vitalog\"\ncode = \"c\"\n\
                 unit = \"1\"\nclass = {class:?}\nrange = {range}\n"
            )
        };
        let good = entry(1, "a", "k", "[0.0, 1.0]");
        assert!(Registry::from_toml(&[&good]).is_ok());
        let error = |text: &str| Registry::from_toml(&[&good, text]).unwrap_err();
        assert!(matches!(error(&entry(1, "b", "k", "[0.0, 1.0]")), CatalogueError::Id { id: 1, .. }));
        assert!(matches!(error(&entry(0, "b", "k", "[0.0, 1.0]")), CatalogueError::Id { id: 0, .. }));
        assert!(matches!(error(&entry(256, "b", "k", "[0.0, 1.0]")), CatalogueError::Id { id: 256, .. }));
        assert!(matches!(error(&entry(2, "a", "k", "[0.0, 1.0]")), CatalogueError::Name { .. }));
        assert!(matches!(error(&entry(2, "k", "j", "[0.0, 1.0]")), CatalogueError::Name { .. }));
        assert!(matches!(error(&entry(2, "B", "k", "[0.0, 1.0]")), CatalogueError::Name { .. }));
        assert!(matches!(error(&entry(2, "b", "k", "[1.0, 1.0]")), CatalogueError::Range { .. }));
        assert!(matches!(error(&entry(2, "b", "k", "[0.0, inf]")), CatalogueError::Range { .. }));
        assert!(matches!(error("[[signal]]\nid = 3\n"), CatalogueError::Toml { file: 1, .. }));
    }
}
