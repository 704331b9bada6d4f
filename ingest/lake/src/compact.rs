//! Compaction: the files of neighbouring batches become those of one set, and sets become larger sets.
//!
//! Committed as a batch is: files, directory, manifest, then one entry of the log. Before that entry the new files are
//! leftovers, after it the old ones are; at no instant is a row there twice or not at all. A set is read back and checked
//! against its batches' roots before it is committed, because afterwards the old files go.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use schemas_evidence::{Entry, FileKind, FileRef, SetBatch, SetManifest, set_id};
use schemas_signals::columns;

use crate::check::{Claim, Pause};
use crate::files::{self, TableWriter};
use crate::merge::{Input, append, merge};
use crate::open::set_manifest_name;
use crate::retire::{Queue, Retired};
use crate::sets::{Placed, SealedSet, Unit};
use crate::{Lake, LakeError};

/// Neighbours of about one size that become one set.
pub const FAN_IN: usize = 16;
/// Bytes of files of a set, about: half of it and it is full.
pub const SET_BYTES_MAX: u64 = 128 << 20;
/// Frames of a set.
pub const SET_FRAMES_MAX: u64 = 1 << 20;
/// How long replaced files stay.
pub const KEEP: Duration = Duration::from_secs(600);
/// Log entries read at a time while an entry is looked for.
const ENTRIES_PER_READ: u64 = 4_096;

/// What compaction does.
#[derive(Debug, Clone)]
pub struct Compaction {
    /// Whether anybody should call [`Lake::compact`] at all.
    pub is_on: bool,
    /// See [`FAN_IN`]; at least 2. Memory and open files grow with it.
    pub fan_in: usize,
    /// See [`SET_BYTES_MAX`].
    pub bytes_max: u64,
    /// See [`SET_FRAMES_MAX`].
    pub frames_max: u64,
    /// See [`KEEP`]. Whoever holds a view keeps its files longer.
    pub keep: Duration,
}

impl Default for Compaction {
    fn default() -> Compaction {
        Compaction {
            is_on: true,
            fan_in: FAN_IN,
            bytes_max: SET_BYTES_MAX,
            frames_max: SET_FRAMES_MAX,
            keep: KEEP,
        }
    }
}

impl Compaction {
    /// Whether a set or batch is left as it is for ever.
    fn is_full(&self, unit: &Unit<'_>) -> bool {
        unit.bytes() >= self.bytes_max / 2 || unit.frames >= self.frames_max / 2
    }

    /// How often batches were put together to make it.
    fn level(&self, unit: &Unit<'_>) -> u32 {
        unit.range().len().max(1).ilog(self.fan_in.max(2))
    }

    /// The oldest neighbours that should become one set.
    fn choose(&self, units: &[Unit<'_>]) -> Option<Range<usize>> {
        let mut from = 0;
        while let Some(first) = units.get(from) {
            let level = self.level(first);
            let alike = |unit: &&Unit<'_>| !self.is_full(unit) && self.level(unit) == level;
            let run = units.iter().skip(from).take_while(alike).count();
            if run >= self.fan_in.max(2) {
                let within = self.within_limits(&units[from..from + run]);
                if within >= 2 {
                    return Some(from..from + within);
                }
            }
            from += run.max(1);
        }
        None
    }

    /// How many of these fit into one set. No two that are not full exceed it, and if it ends before [`FAN_IN`] the set is full:
    /// so work always ends.
    fn within_limits(&self, run: &[Unit<'_>]) -> usize {
        let (mut bytes, mut frames, mut count) = (0, 0, 0);
        for unit in run.iter().take(self.fan_in.max(2)) {
            bytes += unit.bytes();
            frames += unit.frames;
            if bytes > self.bytes_max || frames > self.frames_max {
                break;
            }
            count += 1;
        }
        count
    }
}

/// A compaction that is now in the log.
#[derive(Debug, Clone)]
pub struct Compacted {
    /// The set.
    pub set: Arc<SealedSet>,
    /// Files it replaces.
    pub files_in: u64,
    /// Bytes of those.
    pub bytes_in: u64,
    /// Bytes of its own files.
    pub bytes_out: u64,
}

/// A set whose files and manifest are durable, and whose entry may be in the log or not.
pub(crate) struct Prepared {
    pub(crate) manifest: SetManifest,
    entry: Entry,
    /// Size of the log before its entry was first offered.
    log_from: u64,
}

/// What compactions leave for each other.
#[derive(Default)]
pub(crate) struct Compacting {
    /// Its entry was offered to the log, which answered with an error: it must not be offered twice.
    doubtful: Option<Prepared>,
    /// Replaced files.
    pub(crate) retired: Queue,
}

/// Asked between slices: false = give up. May sleep, so that others come first.
pub type Pace<'a> = dyn Fn() -> bool + 'a;

impl Lake {
    /// Makes one set of the oldest neighbours that should become one; `None` if there are none, or `pace` said no. After
    /// an error everything is as it was, and the call may be repeated.
    ///
    /// # Errors
    /// If files cannot be read or written, or the log does not take the entry.
    pub fn compact(&self, now_us: i64, pace: &Pace<'_>) -> Result<Option<Compacted>, LakeError> {
        let mut compacting = self.compacting.lock();
        let prepared = match compacting.doubtful.take() {
            Some(prepared) => prepared,
            None => match self.prepare(pace) {
                Ok(Some(prepared)) => prepared,
                Ok(None) | Err(LakeError::Stopped) => return Ok(None),
                Err(error) => return Err(error),
            },
        };
        match self.commit(&prepared) {
            Ok(entry_index) => self.adopt(prepared, entry_index, now_us, &mut compacting).map(Some),
            Err(error) => {
                // The entry may be there after a restart, so the files must be, too.
                compacting.doubtful = Some(prepared);
                Err(error)
            }
        }
    }

    /// Writes and checks the files of the next set and its manifest: durable, and not yet true.
    pub(crate) fn prepare(&self, pace: &Pace<'_>) -> Result<Option<Prepared>, LakeError> {
        let (_, held) = self.standing();
        let units = held.units();
        let Some(chosen) = self.options.compaction.choose(&units) else { return Ok(None) };
        let units = units.get(chosen).unwrap_or_default();
        let range = units.first().map_or(0, |unit| unit.range().start)
            ..units.last().map_or(0, |unit| unit.range().end);
        let batches = held.batches.get(range).unwrap_or_default();
        let batches: Vec<_> = batches.iter().map(|batch| &batch.manifest).collect();
        let set = set_id(batches.iter().map(|batch| batch.batch.as_str()));
        let pause = || if pace() { Ok(()) } else { Err(LakeError::Stopped) };
        let written = self.write_set(&set, units, &pause).and_then(|files| {
            let claim = Claim { directory: self.directory(), id: &set, files: &files, batches };
            if let Some(problem) = claim.problem(&pause)? {
                return Err(LakeError::Mismade { set: set.clone(), problem });
            }
            let named = claim
                .batches
                .iter()
                .map(|batch| SetBatch { batch: batch.batch.clone(), frames: batch.frames });
            let batches = named.collect();
            let replaces = units.iter().map(|unit| unit.id.to_owned()).collect();
            self.write_set_manifest(SetManifest { v: 1, set: set.clone(), batches, replaces, files })
        });
        if written.is_err() {
            self.sweep_set(&set);
        }
        written.map(Some)
    }

    fn write_set(&self, set: &str, units: &[Unit<'_>], pause: &Pause<'_>) -> Result<Vec<FileRef>, LakeError> {
        let mut files = Vec::with_capacity(3);
        for kind in [FileKind::Scalar, FileKind::Wave, FileKind::Frames] {
            let schema = match kind {
                FileKind::Scalar => columns::stored_scalar_schema(),
                FileKind::Wave => columns::stored_wave_schema(),
                FileKind::Frames => columns::frames_schema(),
            };
            let inputs = self.inputs(kind, units);
            let mut table = TableWriter::create(&self.disk(), set, kind, schema.clone())?;
            let mut take = |rows| {
                pause()?;
                table.write(&rows)
            };
            match kind {
                FileKind::Frames => append(&inputs, &schema, &mut take)?,
                _ => merge(&inputs, &schema, &mut take)?,
            }
            files.extend(table.finish()?);
        }
        Ok(files)
    }

    /// Files of one kind, each with the number of leaves before its own.
    fn inputs(&self, kind: FileKind, units: &[Unit<'_>]) -> Vec<Input> {
        let (mut inputs, mut offset) = (Vec::with_capacity(units.len()), 0u32);
        for unit in units {
            if let Some(file) = unit.files.iter().find(|file| file.kind == kind) {
                inputs.push(Input { path: self.directory().join(&file.name), offset });
            }
            // The manifest's rule refuses a set with more leaves than that.
            offset = offset.saturating_add(u32::try_from(unit.frames).unwrap_or(u32::MAX));
        }
        inputs
    }

    fn write_set_manifest(&self, manifest: SetManifest) -> Result<Prepared, LakeError> {
        let wrong = |source| LakeError::Manifest { batch: manifest.set.clone(), source };
        let bytes = manifest.to_bytes().map_err(wrong)?;
        let digest = blake3::hash(&bytes);
        let disk = self.disk();
        files::write_bytes(&disk, &set_manifest_name(digest.as_bytes()), &bytes)?;
        disk.sync_dir()?;
        let entry = Entry::Compact { manifest: *digest.as_bytes() };
        Ok(Prepared { manifest, entry, log_from: self.ledger.size() })
    }

    /// Gives the space of a failed attempt back; what cannot be removed now is swept at the next open.
    fn sweep_set(&self, set: &str) {
        let disk = self.disk();
        for name in disk.names().unwrap_or_default() {
            if name.starts_with(set) {
                let _ = disk.remove(&name);
            }
        }
    }

    /// Appends the entry, unless an earlier attempt that was answered with an error did.
    pub(crate) fn commit(&self, prepared: &Prepared) -> Result<u64, LakeError> {
        let (mut from, size) = (prepared.log_from, self.ledger.size());
        let text = prepared.entry.to_text();
        while from < size {
            let to = size.min(from + ENTRIES_PER_READ);
            let known = self.ledger.entries(from, to)?;
            if let Some((_, index)) = known.iter().zip(from..).find(|(known, _)| **known == text) {
                return Ok(index);
            }
            from = to;
        }
        Ok(self.ledger.append(std::slice::from_ref(&prepared.entry))?.first().copied().unwrap_or(0))
    }

    /// Shows the set to all views from now on.
    fn adopt(
        &self,
        prepared: Prepared,
        entry_index: u64,
        now_us: i64,
        compacting: &mut Compacting,
    ) -> Result<Compacted, LakeError> {
        let mut state = self.state.lock();
        let id = prepared.manifest.set.clone();
        let problem = "it is not made of batches that are neighbours in the log";
        let wrong = || LakeError::SetContradiction { index: entry_index, set: id, problem };
        // Only batches were added meanwhile.
        let Placed { set, sets, replaced } =
            state.held.place(prepared.manifest, entry_index).ok_or_else(wrong)?;
        let before = std::mem::replace(&mut state.held.sets, Arc::new(sets));
        drop(state);
        let compacted = Compacted {
            files_in: replaced.len() as u64,
            bytes_in: replaced.iter().map(|file| file.bytes).sum(),
            bytes_out: set.manifest.files.iter().map(|file| file.bytes).sum(),
            set: set.clone(),
        };
        let readers = Arc::downgrade(&before);
        compacting.retired.push_back(Retired { readers, since_us: now_us, set, files: replaced });
        Ok(compacted)
    }

    /// What compaction may do, and whether it should.
    pub fn compaction(&self) -> &Compaction {
        &self.options.compaction
    }
}
