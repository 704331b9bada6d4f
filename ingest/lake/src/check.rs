//! Whether files hold what their batches' roots stand for: every frame is made again, every root computed again, and the rows
//! that follow from the frames are compared with those that are stored. For the audit, and for a set before it is used.
//!
//! Done in chunks of neighbouring devices over all batches, because that is how rows lie in a file; the frames of a chunk
//! are whole blocks of each batch, since a frame may need the one before it in its block.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use schemas_evidence::{BatchManifest, Blake3Frames, FileKind, FileRef, Hash32, frame_leaf, merkle};
use schemas_signals::columns;

use crate::find::block_roots;
use crate::frames::BLOCK_LEAVES;
use crate::layout::{Layout, Take};
use crate::stored::Stored;
use crate::{LakeError, bounds};

/// Most leaves whose frames and rows are held in memory at a time; a multiple of a block.
const LEAVES_AT_ONCE: u32 = 16_384;
/// Memory meant for their rows, for frames of the average size.
const ROWS_BYTES_AT_ONCE: u64 = 12 << 20;
/// A row of a sample in memory.
const SCALAR_ROW_BYTES: u64 = 48;
/// How much larger a waveform is in memory than in its file, about: half a byte of a sample becomes eight.
const WAVE_DECODED_PER_ENCODED: u64 = 16;

/// What the files of a batch, or of a set, must hold.
pub(crate) struct Claim<'a> {
    pub(crate) directory: &'a Path,
    pub(crate) id: &'a str,
    pub(crate) files: &'a [FileRef],
    /// One, or those of the set in order.
    pub(crate) batches: Vec<&'a BatchManifest>,
}

/// What is called between parts of the work; an error ends it.
pub(crate) type Pause<'a> = dyn Fn() -> Result<(), LakeError> + 'a;

impl Claim<'_> {
    /// What does not fit, in words.
    ///
    /// # Errors
    /// Only those of `pause`.
    pub(crate) fn problem(&self, pause: &Pause<'_>) -> Result<Option<String>, LakeError> {
        match self.check(pause) {
            Ok(()) => Ok(None),
            Err(Failure::Problem(problem)) => Ok(Some(problem)),
            Err(Failure::Error(LakeError::Stopped)) => Err(LakeError::Stopped),
            Err(Failure::Error(error)) => Ok(Some(error.to_string())),
        }
    }

    fn check(&self, pause: &Pause<'_>) -> Result<(), Failure> {
        for file in self.files {
            if let Some(problem) = bounds::problem(self.directory, file, pause)? {
                return Err(Failure::Problem(format!("{}: {problem}", file.name)));
            }
        }
        let stored = Stored::new(self.directory, self.id, self.files)?;
        let starts = self.starts().ok_or("more frames than a set can have")?;
        let total = starts.last().copied().unwrap_or(0);
        let devices = stored.devices(0..total)?;
        if devices.len() != total as usize {
            return Err("there are fewer frames than in the log".into());
        }
        let mut leaves: Vec<Hash32> = vec![[0; 32]; total as usize];
        let mut seen = Seen::default();
        for chunk in chunks(&devices, &starts, self.leaves_at_once(total)) {
            pause()?;
            check_chunk(&stored, &chunk, &mut leaves, &mut seen)?;
        }
        let rows_of = |kind| self.files.iter().find(|file| file.kind == kind).map_or(0, |file| file.rows);
        let expected = (rows_of(FileKind::Scalar), rows_of(FileKind::Wave), rows_of(FileKind::Frames));
        if (seen.scalar, seen.wave, u64::from(total)) != expected {
            return Err("there are rows that belong to no frame".into());
        }
        for (batch, bounds) in self.batches.iter().zip(starts.windows(2)) {
            let range = bounds[0]..bounds[1];
            let leaves = leaves.get(range.start as usize..range.end as usize).unwrap_or_default();
            let blocks = block_roots(&Blake3Frames, leaves);
            if merkle::root::<Blake3Frames>(&blocks) != batch.root {
                return Err(self.about(batch, "the stored frames do not give the root in the log"));
            }
            if stored.block_roots(range)? != blocks {
                return Err(self.about(batch, "the stored roots of blocks are not those of the frames"));
            }
        }
        Ok(())
    }

    /// Whole blocks whose rows take about [`ROWS_BYTES_AT_ONCE`].
    fn leaves_at_once(&self, total: u32) -> u32 {
        let row_bytes = |file: &FileRef| match file.kind {
            FileKind::Scalar => file.rows.saturating_mul(SCALAR_ROW_BYTES),
            FileKind::Wave => file.bytes.saturating_mul(WAVE_DECODED_PER_ENCODED),
            FileKind::Frames => 0,
        };
        let bytes: u64 = self.files.iter().map(row_bytes).sum();
        let leaf_bytes = (bytes / u64::from(total.max(1))).max(1);
        let leaves = u32::try_from(ROWS_BYTES_AT_ONCE / leaf_bytes).unwrap_or(LEAVES_AT_ONCE);
        leaves.clamp(BLOCK_LEAVES as u32, LEAVES_AT_ONCE).next_multiple_of(BLOCK_LEAVES as u32)
    }

    /// Where the leaves of each batch begin, and their number; `None` if that is more than leaf numbers can say.
    fn starts(&self) -> Option<Vec<u32>> {
        let mut starts = vec![0u32];
        for batch in &self.batches {
            starts.push(starts.last()?.checked_add(u32::try_from(batch.frames).ok()?)?);
        }
        Some(starts)
    }

    fn about(&self, batch: &BatchManifest, problem: &str) -> Failure {
        match batch.batch == self.id {
            true => problem.into(),
            false => Failure::Problem(format!("batch {}: {problem}", batch.batch)),
        }
    }
}

/// Why a check ended early.
enum Failure {
    Problem(String),
    Error(LakeError),
}

impl From<&str> for Failure {
    fn from(problem: &str) -> Failure {
        Failure::Problem(problem.to_owned())
    }
}

impl From<LakeError> for Failure {
    fn from(error: LakeError) -> Failure {
        Failure::Error(error)
    }
}

impl From<arrow::error::ArrowError> for Failure {
    fn from(error: arrow::error::ArrowError) -> Failure {
        Failure::Error(error.into())
    }
}

/// Rows that were found to follow from frames.
#[derive(Default)]
struct Seen {
    scalar: u64,
    wave: u64,
}

/// Ranges of leaves that cover all, each at most `at_once` leaves, a multiple of a block: devices in order, over all batches.
fn chunks(devices: &[u32], starts: &[u32], at_once: u32) -> Vec<Vec<Range<u32>>> {
    let mut counts: BTreeMap<u32, u32> = BTreeMap::new();
    for device in devices {
        *counts.entry(*device).or_default() += 1;
    }
    let mut next: Vec<u32> = starts.to_vec();
    let mut chunks = Vec::new();
    let mut gathered = 0;
    let last = counts.keys().next_back().copied();
    for (device, count) in counts {
        gathered += count;
        if gathered >= at_once || Some(device) == last {
            gathered = 0;
            let parts = starts.windows(2).zip(&mut next).map(|(bounds, next)| {
                let part = *next..part_end(devices, bounds[0], *next..bounds[1], device);
                *next = part.end;
                part
            });
            split(parts.filter(|part| !part.is_empty()).collect(), at_once, &mut chunks);
        }
    }
    chunks
}

/// Where the leaves of a batch up to this device end, whole blocks of the batch taken.
fn part_end(devices: &[u32], batch: u32, rest: Range<u32>, device: u32) -> u32 {
    let leaves = devices.get(rest.start as usize..rest.end as usize).unwrap_or_default();
    // Sorted by device, unless something was changed; then the end only lies elsewhere. The last device takes all.
    let reached = rest.start + leaves.partition_point(|found| *found <= device) as u32;
    (batch + (reached - batch).next_multiple_of(BLOCK_LEAVES as u32)).min(rest.end)
}

/// Cuts a chunk that is too large.
fn split(parts: Vec<Range<u32>>, at_once: u32, chunks: &mut Vec<Vec<Range<u32>>>) {
    let (mut chunk, mut room) = (Vec::new(), at_once);
    for mut part in parts {
        while !part.is_empty() {
            // Whole blocks, except at the end of a batch.
            let taken = part.start..part.end.min(part.start + room);
            room -= taken.end - taken.start;
            room -= room % BLOCK_LEAVES as u32;
            part.start = taken.end;
            chunk.push(taken);
            if room == 0 {
                chunks.push(std::mem::take(&mut chunk));
                room = at_once;
            }
        }
    }
    if !chunk.is_empty() {
        chunks.push(chunk);
    }
}

fn check_chunk(
    stored: &Stored,
    parts: &[Range<u32>],
    leaves: &mut [Hash32],
    seen: &mut Seen,
) -> Result<(), Failure> {
    let read = stored.read(parts)?;
    let numbers: Vec<u32> = parts.iter().cloned().flatten().collect();
    if read.frames.len() != numbers.len() {
        return Err("there are fewer frames than in the log".into());
    }
    for (admitted, number) in read.frames.iter().zip(&numbers) {
        if let Some(leaf) = leaves.get_mut(*number as usize) {
            *leaf = frame_leaf(&admitted.frame);
        }
    }
    let layout = Layout::numbered(read.frames.iter(), numbers)?;
    if !layout.is_in_order(parts) {
        return Err("the stored frames are not in the order of their devices, boots and numbers".into());
    }
    let scalar = Expected::new(read.scalar, columns::stored_scalar_schema())?;
    seen.scalar += scalar.is_given(FileKind::Scalar, |take| layout.scalar_slices(take))?;
    let wave = Expected::new(read.wave, columns::stored_wave_schema())?;
    seen.wave += wave.is_given(FileKind::Wave, |take| layout.wave_slices(take))?;
    Ok(())
}

/// Stored rows of a chunk, which those of its frames must be.
struct Expected(RecordBatch);

impl Expected {
    fn new(rows: Option<RecordBatch>, schema: SchemaRef) -> Result<Expected, Failure> {
        Ok(Expected(match rows {
            Some(rows) => rows.with_schema(schema)?,
            None => RecordBatch::new_empty(schema),
        }))
    }

    /// Compares slice by slice. Gives the number of rows.
    fn is_given(
        &self,
        kind: FileKind,
        derive: impl FnOnce(&mut Take<'_>) -> Result<(), LakeError>,
    ) -> Result<u64, Failure> {
        let (mut at, mut is_same) = (0, true);
        derive(&mut |derived| {
            let count = derived.num_rows();
            is_same &= at + count <= self.0.num_rows() && self.0.slice(at, count) == derived;
            at = (at + count).min(self.0.num_rows());
            Ok(())
        })?;
        if !is_same || at < self.0.num_rows() {
            let problem = format!("the stored {kind:?} rows are not those of the stored frames");
            return Err(Failure::Problem(problem));
        }
        Ok(at as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Guarantee: chunks cover each leaf once, are bounded, and begin where a block of their batch does.
    #[test]
    fn chunks_cover_every_leaf_once() {
        let check_with = |batches: &[Vec<u32>], at_once: u32| {
            let devices: Vec<u32> = batches.iter().flatten().copied().collect();
            let mut starts = vec![0u32];
            for batch in batches {
                starts.push(starts.last().unwrap() + batch.len() as u32);
            }
            let mut seen = vec![0; devices.len()];
            for chunk in chunks(&devices, &starts, at_once) {
                assert!(chunk.iter().map(|part| part.len()).sum::<usize>() <= at_once as usize);
                assert!(chunk.windows(2).all(|pair| pair[0].end <= pair[1].start));
                for part in chunk {
                    let batch = starts[starts.partition_point(|start| *start <= part.start) - 1];
                    assert!((part.start - batch).is_multiple_of(BLOCK_LEAVES as u32), "{part:?}");
                    part.for_each(|leaf| seen[leaf as usize] += 1);
                }
            }
            assert!(seen.iter().all(|times| *times == 1));
        };
        let check = |batches: &[Vec<u32>]| {
            [64, 1_024, LEAVES_AT_ONCE].into_iter().for_each(|at_once| check_with(batches, at_once));
        };
        check(&[vec![7]]);
        check(&[vec![3; 40_000]]);
        check(&[(0..300).collect(), (0..300).collect(), vec![5; 100], vec![900; 65]]);
        check(&vec![(0..256).collect(); 300]);
        check(&[(0..60_000).collect(), (0..130).collect()]);
        // Out of order, as only meddling makes it.
        check(&[vec![9, 1, 9, 1], vec![1, 1]]);
    }
}
