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

#[cfg(test)]
mod tests {
    use schemas_evidence::{BatchManifest, SetBatch, set_id};

    use super::*;

    fn batch(at: u64) -> Arc<SealedBatch> {
        let manifest = BatchManifest {
            v: 1,
            batch: format!("{at:032x}"),
            frames: at + 1,
            root: [0; 32],
            wal_from: at,
            wal_to: at + 1,
            from_us: 0,
            to_us: 0,
            files: Vec::new(),
            ranges: Vec::new(),
        };
        Arc::new(SealedBatch { manifest, entry_index: at })
    }

    fn manifest(held: &Held, places: Range<usize>) -> SetManifest {
        let batches: Vec<SetBatch> = held.batches[places.clone()]
            .iter()
            .map(|batch| SetBatch { batch: batch.manifest.batch.clone(), frames: batch.manifest.frames })
            .collect();
        let set = set_id(batches.iter().map(|batch| batch.batch.as_str()));
        let replaces = held.units_of(places).iter().map(|unit| unit.id.to_owned()).collect();
        SetManifest { v: 1, set, batches, replaces, files: Vec::new() }
    }

    // Guarantee: a set takes the place of whole neighbours that it names, and of nothing else; leaves run on.
    #[test]
    fn a_set_takes_the_place_of_whole_neighbours() {
        let mut held = Held { batches: Arc::new((0..6).map(batch).collect()), ..Held::default() };
        held.sets = Arc::new(held.place(manifest(&held, 2..4), 6).unwrap().sets);
        assert_eq!(held.units().iter().map(Unit::range).collect::<Vec<_>>(), [0..1, 1..2, 2..4, 4..5, 5..6]);
        assert_eq!(held.home(3).map(|home| home.leaves), Some(3..7));
        // A part of a set at either end.
        assert!(held.place(manifest(&held, 1..3), 7).is_none());
        assert!(held.place(manifest(&held, 3..5), 7).is_none());
        let good = manifest(&held, 1..5);
        let check = |change: &dyn Fn(&mut SetManifest)| {
            let mut bad = good.clone();
            change(&mut bad);
            assert!(held.place(bad, 7).is_none());
        };
        check(&|bad| bad.batches.swap(1, 2));
        check(&|bad| bad.batches[1].frames += 1);
        check(&|bad| bad.batches[0].batch = format!("{:032x}", 9));
        check(&|bad| bad.replaces.swap(0, 1));
        check(&|bad| bad.replaces.truncate(2));
        let placed = held.place(good, 7).unwrap();
        assert_eq!((placed.set.range(), placed.sets.len()), (1..5, 1));
        assert_eq!(placed.set.leaves_of_first(4), Some(2 + 3 + 4 + 5));
    }
}
