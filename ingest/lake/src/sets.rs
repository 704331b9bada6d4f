//! Which files hold which batches. A *set* holds several batches, adjacent in the log, in the place of their own files;
//! later sets may take the place of sets. Leaf numbers of a set run on from batch to batch.

use std::ops::Range;
use std::sync::Arc;

use schemas_evidence::{FileRef, SetManifest};

use crate::view::SealedBatch;

/// A set that the log knows.
#[derive(Debug, Clone)]
pub struct SealedSet {
    /// What it consists of.
    pub manifest: SetManifest,
    /// Place of its entry in the log.
    pub entry_index: u64,
    /// Place of its first batch among all batches.
    first: usize,
    /// Where the leaves of each batch begin, and at the end the number of all.
    starts: Vec<u32>,
}

impl SealedSet {
    fn new(manifest: SetManifest, entry_index: u64, first: usize) -> SealedSet {
        let mut starts = Vec::with_capacity(manifest.batches.len() + 1);
        let mut start = 0u32;
        starts.push(start);
        for batch in &manifest.batches {
            // The manifest's own rule bounds the sum.
            start = start.saturating_add(u32::try_from(batch.frames).unwrap_or(u32::MAX));
            starts.push(start);
        }
        SealedSet { manifest, entry_index, first, starts }
    }

    /// Places of its batches among all batches.
    pub(crate) fn range(&self) -> Range<usize> {
        self.first..self.first + self.manifest.batches.len()
    }

    /// Where the leaves of its first `batches` batches end.
    pub(crate) fn leaves_of_first(&self, batches: usize) -> Option<u32> {
        self.starts.get(batches).copied()
    }
}

/// All batches, and the sets that hold the data of some of them. Cheap to clone; who holds it keeps the files it names.
#[derive(Debug, Clone, Default)]
pub(crate) struct Held {
    /// In log order.
    pub(crate) batches: Arc<Vec<Arc<SealedBatch>>>,
    /// In the order of their batches; they do not overlap.
    pub(crate) sets: Arc<Vec<Arc<SealedSet>>>,
}

/// Files with the data of one batch, or of a set of them.
#[derive(Clone, Copy)]
pub(crate) struct Unit<'a> {
    /// The set's id, or the batch's.
    pub(crate) id: &'a str,
    pub(crate) files: &'a [FileRef],
    /// Places of its batches.
    first: usize,
    batches: usize,
    pub(crate) frames: u64,
}

impl<'a> Unit<'a> {
    pub(crate) fn of_batch(batch: &'a SealedBatch, place: usize) -> Unit<'a> {
        let manifest = &batch.manifest;
        Unit {
            id: &manifest.batch,
            files: &manifest.files,
            first: place,
            batches: 1,
            frames: manifest.frames,
        }
    }

    pub(crate) fn of_set(set: &'a SealedSet) -> Unit<'a> {
        let manifest = &set.manifest;
        Unit {
            id: &manifest.set,
            files: &manifest.files,
            first: set.first,
            batches: manifest.batches.len(),
            frames: manifest.frames(),
        }
    }

    /// Places of its batches among all batches.
    pub(crate) fn range(&self) -> Range<usize> {
        self.first..self.first + self.batches
    }

    /// Bytes of its files.
    pub(crate) fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

/// Where the data of one batch is.
pub(crate) struct Home<'a> {
    pub(crate) id: &'a str,
    pub(crate) files: &'a [FileRef],
    /// Its leaves, as these files number them.
    pub(crate) leaves: Range<u32>,
}

/// What follows when a set takes its place.
pub(crate) struct Placed {
    pub(crate) set: Arc<SealedSet>,
    /// All sets from now on.
    pub(crate) sets: Vec<Arc<SealedSet>>,
    /// Files that nobody needs from now on.
    pub(crate) replaced: Vec<FileRef>,
}

impl Held {
    /// The set that holds the batch at this place.
    fn set_of(&self, place: usize) -> Option<&Arc<SealedSet>> {
        let after = self.sets.partition_point(|set| set.first <= place);
        let set = self.sets.get(after.checked_sub(1)?)?;
        set.range().contains(&place).then_some(set)
    }

    /// Where the data of the batch at this place is; `None` without such a batch.
    pub(crate) fn home(&self, place: usize) -> Option<Home<'_>> {
        let manifest = &self.batches.get(place)?.manifest;
        let Some(set) = self.set_of(place) else {
            let frames = u32::try_from(manifest.frames).unwrap_or(u32::MAX);
            return Some(Home { id: &manifest.batch, files: &manifest.files, leaves: 0..frames });
        };
        let within = place - set.first;
        let leaves = set.leaves_of_first(within)?..set.leaves_of_first(within + 1)?;
        Some(Home { id: &set.manifest.set, files: &set.manifest.files, leaves })
    }

    /// All data in log order: sets, and batches that are in none.
    pub(crate) fn units(&self) -> Vec<Unit<'_>> {
        self.units_of(0..self.batches.len())
    }

    /// The data of the batches at these places.
    fn units_of(&self, places: Range<usize>) -> Vec<Unit<'_>> {
        let mut units = Vec::new();
        let mut place = places.start;
        while place < places.end {
            let unit = match (self.set_of(place), self.batches.get(place)) {
                (Some(set), _) => Unit::of_set(set),
                (None, Some(batch)) => Unit::of_batch(batch, place),
                (None, None) => break,
            };
            place = unit.range().end;
            units.push(unit);
        }
        units
    }

    /// Puts a set in the place of what it replaces; `None` unless it holds whole neighbours of these, all they have.
    pub(crate) fn place(&self, manifest: SetManifest, entry_index: u64) -> Option<Placed> {
        let is_first = |batch: &Arc<SealedBatch>| {
            manifest.batches.first().is_some_and(|first| first.batch == batch.manifest.batch)
        };
        // New sets are made of new batches, so the end is the place to look.
        let first = self.batches.iter().rposition(is_first)?;
        let range = first..first + manifest.batches.len();
        let batches = self.batches.get(range.clone())?;
        let mut pairs = batches.iter().zip(&manifest.batches);
        let are_these = pairs.all(|(known, named)| {
            (&known.manifest.batch, known.manifest.frames) == (&named.batch, named.frames)
        });
        let units = self.units_of(range.clone());
        let reached = units.first().zip(units.last());
        let is_exact =
            reached.is_some_and(|(oldest, newest)| (oldest.range().start..newest.range().end) == range);
        if !are_these || !is_exact || !units.iter().map(|unit| unit.id).eq(manifest.replaces.iter()) {
            return None;
        }
        let replaced = units.iter().flat_map(|unit| unit.files).cloned().collect();
        let set = Arc::new(SealedSet::new(manifest, entry_index, first));
        let from = self.sets.partition_point(|known| known.first < range.start);
        let to = self.sets.partition_point(|known| known.first < range.end);
        let mut sets = self.sets.as_ref().clone();
        sets.splice(from..to, [set.clone()]);
        Some(Placed { set, sets, replaced })
    }
}
