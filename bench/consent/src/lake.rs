//! The recordings: real frames through the real lake, sealed in sixteen batches and compacted into one set, so that files
//! are what a deployment has. Frames are signed, but nobody verifies here: it is reading that is measured.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use ingest_lake::{Admitted, Compaction, FAN_IN, Lake, Options};
use ingest_tlog::FileLog;
use ingest_verify::hashes::SideBySide;
use query_engine::{FileKind, LakeFile, Tables, TablesError, View};
use schemas_frame::{Code, FrameBuilder, OutSeries, OutValues, Scale};
use schemas_identity::{BootId, DeviceNumber, ShortId};

use crate::population::{ORIGIN, T0_US, device, key};
use crate::progress;

const MINUTE_US: i64 = 60_000_000;
const SECOND_US: i64 = 1_000_000;
/// Samples of a scalar series: longer ones become waveforms.
const SERIES: usize = 20;

/// What a lake holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Recording {
    /// Each person's day: four frames, five signals of ten samples each, one every half hour.
    Days,
    /// A hundred people's heart rate each second of a day; acceleration of twenty, 50 Hz in three axes for an hour.
    Dense,
}

impl Recording {
    fn name(self) -> &'static str {
        match self {
            Recording::Days => "days",
            Recording::Dense => "dense",
        }
    }
}

/// A lake that is only read.
pub(crate) struct Stored {
    view: Arc<View>,
    _lake: Lake,
}

impl Tables for Stored {
    fn view(&self, as_of: Option<u64>) -> Result<Arc<View>, TablesError> {
        match as_of {
            None => Ok(Arc::clone(&self.view)),
            Some(size) => Err(TablesError::NoSnapshot(size)),
        }
    }
}

impl Stored {
    /// The lake in a folder, made if it is not there yet.
    pub(crate) fn open(dir: &Path, recording: Recording, people: u32) -> Result<Stored> {
        let dir = dir.join(format!("{}-{people}", recording.name()));
        let log = FileLog::open(&dir.join("log"), ORIGIN, key("log", 0), ingest_tlog::Options::default())?;
        let options = Options {
            hasher: Arc::new(SideBySide),
            tail_bytes_max: 1 << 30,
            compaction: Compaction { frames_max: 4 << 20, bytes_max: 1 << 30, ..Compaction::default() },
            ..Options::new(dir.join("lake"))
        };
        let lake = Lake::open(options, Arc::new(log))?;
        if lake.view().parts().is_empty() {
            match recording {
                Recording::Days => fill(&lake, frames_of_days(people))?,
                Recording::Dense => fill(&lake, dense_frames())?,
            }
        }
        let view = view_of(&lake, people)?;
        Ok(Stored { view: Arc::new(view), _lake: lake })
    }

    /// Files of one kind, and rows in them.
    pub(crate) fn files(&self, kind: FileKind) -> (Vec<PathBuf>, u64) {
        let of_kind = || self.view.files.iter().filter(|file| file.kind == kind);
        (of_kind().map(|file| file.path.clone()).collect(), of_kind().map(|file| file.rows).sum())
    }
}

/// Frames to make: device, its t0 and what to say.
type Planned = (u32, u64, i64, Vec<OutSeries>);

fn frames_of_days(people: u32) -> (u64, Box<dyn Iterator<Item = Planned>>) {
    let frames = (0..4_u64).flat_map(move |seq| {
        (0..people).map(move |person| {
            let signals = [1_u32, 2, 3, 5, 6];
            let series = signals.map(|signal| scalar(signal, person, seq, 10, 30 * MINUTE_US));
            (person, seq, T0_US + seq as i64 * 6 * 60 * MINUTE_US, series.to_vec())
        })
    });
    (u64::from(people) * 4, Box::new(frames))
}

fn dense_frames() -> (u64, Box<dyn Iterator<Item = Planned>>) {
    let beats = 86_400 / SERIES as u64;
    let heart = (0..beats).flat_map(|seq| {
        (0..100).map(move |person| {
            let series = vec![scalar(1, person, seq, SERIES, SECOND_US)];
            (person, seq, T0_US + seq as i64 * SERIES as i64 * SECOND_US, series)
        })
    });
    let moves = (0..3_600_u64).flat_map(move |second| {
        (0..20).map(move |person| {
            let series = [14_u32, 15, 16].map(|signal| wave(signal, person, second));
            (person, beats + second, T0_US + second as i64 * SECOND_US, series.to_vec())
        })
    });
    (beats * 100 + 3_600 * 20, Box::new(heart.chain(moves)))
}

/// A number that looks like noise and is always the same.
fn noise(person: u32, seq: u64, sample: usize) -> u64 {
    let mixed = (u64::from(person) << 40) ^ (seq << 12) ^ sample as u64;
    mixed.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40
}

fn scalar(signal: u32, person: u32, seq: u64, samples: usize, period_us: i64) -> OutSeries {
    let level = 60 + u64::from(person) % 30;
    let values = (0..samples).map(|sample| (level + noise(person, seq, sample) % 12) as u16);
    series(signal, OutValues::U16(values.collect()), 1, period_us as u64)
}

fn wave(signal: u32, person: u32, second: u64) -> OutSeries {
    let values = (0..50).map(|sample| (noise(person, second, sample) % 400) as i16 - 200);
    series(signal, OutValues::I16(values.collect()), 64, 20_000)
}

fn series(signal: u32, values: OutValues, den: u32, period_us: u64) -> OutSeries {
    let scale = Scale { num: 1, den };
    OutSeries { signal, offset_us: 0, period_us, scale, values, deltas: None, quality: None }
}

fn fill(lake: &Lake, (count, frames): (u64, Box<dyn Iterator<Item = Planned>>)) -> Result<()> {
    let bar = progress::bar("frames", count);
    let per_batch = usize::try_from(count)?.div_ceil(FAN_IN);
    let mut waiting = Vec::with_capacity(per_batch);
    let mut keys: Vec<Option<schemas_identity::SecretKey>> = Vec::new();
    for (position, (person, seq, t0_us, series)) in frames.enumerate() {
        let index = person as usize;
        if keys.len() <= index {
            keys.resize_with(index + 1, || None);
        }
        let secret = keys[index].get_or_insert_with(|| key("device", person));
        let mono_us = u64::try_from(t0_us - T0_US)?;
        let mut builder = FrameBuilder::new(BootId([7; 8]), seq, [0; 16], Some(t0_us), mono_us);
        for one in series {
            builder = builder.series(one);
        }
        let frame = builder.sign(secret).context("a frame that the encoder refuses")?.into();
        let received_us = t0_us + MINUTE_US;
        let position = position as u64;
        let admitted =
            Admitted { position, device: person, t0_us, received_us, flags: 0, code: Code::Ok, frame };
        waiting.push(admitted);
        bar.inc(1);
        if waiting.len() == per_batch {
            lake.push(std::mem::take(&mut waiting));
            lake.seal()?;
        }
    }
    lake.push(waiting);
    lake.seal()?;
    while lake.compact(T0_US, &|| true)?.is_some() {}
    bar.finish_and_clear();
    ensure!(lake.view().parts().len() == 1, "the batches did not become one set");
    Ok(())
}

fn view_of(lake: &Lake, people: u32) -> Result<View> {
    let view = lake.view();
    let names: Vec<ShortId> = (0..people).map(device).collect();
    let numbers: HashMap<ShortId, DeviceNumber> =
        names.iter().copied().zip((0..).map(DeviceNumber)).collect();
    let files = view
        .parts()
        .iter()
        .flat_map(|part| LakeFile::of_part(lake.directory(), part.files, part.leaf_limit))
        .collect();
    Ok(View {
        log_size: view.log_size,
        files,
        sources: Default::default(),
        tail_scalar: Vec::new(),
        tail_wave: Vec::new(),
        numbers: Arc::new(move |id| numbers.get(&id).copied()),
        devices: Arc::new(move |number| names.get(number.0 as usize).copied()),
        keep: None,
    })
}
