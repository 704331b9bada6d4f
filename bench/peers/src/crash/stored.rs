//! What the lake's files hold, read with nothing but Parquet: every frame's boot and number, and how many readings.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result};
use arrow::array::{Array, AsArray};
use arrow::datatypes::{ArrowPrimitiveType, Int64Type};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use schemas_frame::Code;

use crate::corpus::Corpus;
use crate::load::Verdicts;

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stored {
    /// How often each frame is there, by boot and number; a boot is of one device.
    pub frames: HashMap<([u8; 8], u64), u32>,
    /// Readings in all tables.
    pub readings: u64,
}

/// Against what was sent and acknowledged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Judged {
    /// Acknowledged and not there.
    pub lost: u64,
    /// There more than once.
    pub doubled: u64,
    /// There and never sent.
    pub strange: u64,
}

fn columns(path: &Path, names: &[&str]) -> Result<ParquetRecordBatchReader> {
    let file = File::open(path).with_context(|| path.display().to_string())?;
    let builder =
        ParquetRecordBatchReaderBuilder::try_new(file).with_context(|| path.display().to_string())?;
    let mask = ProjectionMask::columns(builder.parquet_schema(), names.iter().copied());
    Ok(builder.with_projection(mask).build()?)
}

fn rows(path: &Path) -> Result<u64> {
    let file = File::open(path).with_context(|| path.display().to_string())?;
    let builder =
        ParquetRecordBatchReaderBuilder::try_new(file).with_context(|| path.display().to_string())?;
    Ok(builder.metadata().file_metadata().num_rows().cast_unsigned())
}

impl Stored {
    fn add_frames(&mut self, path: &Path) -> Result<()> {
        for batch in columns(path, &["boot", "seq"])? {
            let batch = batch?;
            let boots = batch.column_by_name("boot").context("no boot")?;
            let boots = boots.as_fixed_size_binary_opt().context("boots are no bytes")?;
            let seqs = batch.column_by_name("seq").context("no seq")?.as_primitive_opt::<Int64Type>();
            let seqs = seqs.with_context(|| format!("numbers are not {}", Int64Type::DATA_TYPE))?;
            for row in 0..batch.num_rows() {
                let boot = boots.value(row).try_into().context("a boot of another length")?;
                *self.frames.entry((boot, seqs.value(row).cast_unsigned())).or_default() += 1;
            }
        }
        Ok(())
    }

    fn add_waves(&mut self, path: &Path) -> Result<()> {
        for batch in columns(path, &["raw.list.item"])? {
            let batch = batch?;
            let raw = batch.column_by_name("raw").context("no raw")?;
            let raw = raw.as_list_opt::<i32>().context("waves are no lists")?;
            self.readings += raw.iter().flatten().map(|wave| wave.len() as u64).sum::<u64>();
        }
        Ok(())
    }
}

/// Reads a lake's folder while no server has it.
///
/// # Errors
/// When a file is not what it should be.
pub fn read(lake: &Path) -> Result<Stored> {
    let mut stored = Stored::default();
    let replaced = replaced(lake)?;
    for entry in std::fs::read_dir(lake).with_context(|| lake.display().to_string())? {
        let path = entry?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if name.split('.').next().is_some_and(|id| replaced.contains(id)) {
            continue;
        }
        match name.strip_suffix(".parquet").and_then(|name| name.rsplit('.').next()) {
            Some("frames") => stored.add_frames(&path)?,
            Some("scalar") => stored.readings += rows(&path)?,
            Some("wave") => stored.add_waves(&path)?,
            _ => {}
        }
    }
    Ok(stored)
}

/// Batches and sets whose files a set has taken the place of; they stay for a while for readers that still use them.
fn replaced(lake: &Path) -> Result<HashSet<String>> {
    let mut replaced = HashSet::new();
    for entry in std::fs::read_dir(lake).with_context(|| lake.display().to_string())? {
        let path = entry?.path();
        if !path.to_string_lossy().ends_with(".compact.json") {
            continue;
        }
        let manifest: serde_json::Value = serde_json::from_slice(&std::fs::read(&path)?)?;
        let ids = manifest["replaces"].as_array().into_iter().flatten().filter_map(|id| id.as_str());
        replaced.extend(ids.map(str::to_owned));
    }
    Ok(replaced)
}

/// Compares what is there with what was sent.
#[must_use]
pub fn judge(corpus: &Corpus, verdicts: &Verdicts, stored: &Stored) -> Judged {
    let mut judged = Judged::default();
    let mut known = 0;
    for index in 0..corpus.len() {
        let boot = corpus.head.boot(corpus.device(index) as u32);
        let times = stored.frames.get(&(boot.0, corpus.seq(index))).copied().unwrap_or(0);
        let is_acknowledged = verdicts.get(index).is_some_and(Code::is_accepted);
        judged.lost += u64::from(is_acknowledged && times == 0);
        judged.doubled += u64::from(times > 1);
        known += u64::from(times > 0);
    }
    judged.strange = stored.frames.len() as u64 - known;
    judged
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus::{Head, make};
    use crate::shape::Kind;

    // Guarantee: the judge is not blind: a frame that is missing, doubled or unknown is counted as that.
    #[test]
    fn the_judge_sees() {
        let folder = tempfile::tempdir().unwrap();
        make(&Head::new(Kind::A, 2, 3, 1).unwrap(), folder.path(), &|_| {}).unwrap();
        let corpus = Corpus::open(folder.path()).unwrap();
        let verdicts = Verdicts::new(corpus.len());
        let mut stored = Stored::default();
        for index in 0..corpus.len() {
            verdicts.set(index, Code::Ok);
            stored.frames.insert((corpus.head.boot(corpus.device(index) as u32).0, corpus.seq(index)), 1);
        }
        assert_eq!(judge(&corpus, &verdicts, &stored), Judged::default());
        let boot = corpus.head.boot(1).0;
        stored.frames.insert((boot, 2), 2);
        stored.frames.remove(&(boot, 0));
        stored.frames.insert((boot, 99), 1);
        let judged = judge(&corpus, &verdicts, &stored);
        assert_eq!((judged.lost, judged.doubled, judged.strange), (1, 1, 1));
        // Unanswered frames owe nothing.
        let verdicts = Verdicts::new(corpus.len());
        assert_eq!(judge(&corpus, &verdicts, &stored).lost, 0);
    }
}
