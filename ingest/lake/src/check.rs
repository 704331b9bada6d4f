//! Whether files hold what their batches' roots stand for: every frame is made again, every root computed again, and the rows
//! that follow from the frames are compared with those that are stored. For the audit, and for a set before it is used.
//!
//! Done in chunks of neighbouring devices over all batches, because that is how rows lie in a file; the frames of a chunk
//! are whole blocks of each batch, since a frame may need the one before it in its block.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use schemas_evidence::{BatchManifest, Blake3Frames, FileKind, FileRef, Hash32, frame_leaf, merkle};
use schemas_signals::columns;

use crate::find::block_roots;
use crate::frames::BLOCK_LEAVES;
use crate::layout::Layout;
use crate::stored::Stored;
use crate::{Admitted, LakeError};

/// Leaves whose frames and rows are held in memory at a time; a multiple of a block.
const LEAVES_AT_ONCE: u32 = 16_384;

/// What the files of a batch, or of a set, must hold.
pub(crate) struct Claim<'a> {
    pub(crate) directory: &'a Path,
    pub(crate) id: &'a str,
    pub(crate) files: &'a [FileRef],
    /// One, or those of the set in order.
    pub(crate) batches: Vec<&'a BatchManifest>,
}

/// What is called between chunks; an error ends the work.
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
        let stored = Stored::new(self.directory, self.id, self.files)?;
        let starts = self.starts().ok_or("more frames than a set can have")?;
        let total = starts.last().copied().unwrap_or(0);
        let devices = stored.devices(0..total)?;
        if devices.len() != total as usize {
            return Err("there are fewer frames than in the log".into());
        }
        let mut leaves: Vec<Hash32> = vec![[0; 32]; total as usize];
        let mut seen = Seen::default();
        for chunk in chunks(&devices, &starts) {
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

/// Ranges of leaves that cover all, each at most [`LEAVES_AT_ONCE`] leaves: devices in order, over all batches.
fn chunks(devices: &[u32], starts: &[u32]) -> Vec<Vec<Range<u32>>> {
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
        if gathered >= LEAVES_AT_ONCE || Some(device) == last {
            gathered = 0;
            let parts = starts.windows(2).zip(&mut next).map(|(bounds, next)| {
                let part = *next..part_end(devices, bounds[0], *next..bounds[1], device);
                *next = part.end;
                part
            });
            split(parts.filter(|part| !part.is_empty()).collect(), &mut chunks);
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
fn split(parts: Vec<Range<u32>>, chunks: &mut Vec<Vec<Range<u32>>>) {
    let (mut chunk, mut room) = (Vec::new(), LEAVES_AT_ONCE);
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
                room = LEAVES_AT_ONCE;
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
    let frames = stored.frames(parts)?;
    let numbers: Vec<u32> = parts.iter().cloned().flatten().collect();
    if frames.len() != numbers.len() {
        return Err("there are fewer frames than in the log".into());
    }
    for (admitted, number) in frames.iter().zip(&numbers) {
        if let Some(leaf) = leaves.get_mut(*number as usize) {
            *leaf = frame_leaf(&admitted.frame);
        }
    }
    check_rows(stored, &frames, numbers, parts, seen)
}

fn check_rows(
    stored: &Stored,
    frames: &[Admitted],
    numbers: Vec<u32>,
    parts: &[Range<u32>],
    seen: &mut Seen,
) -> Result<(), Failure> {
    let least = frames.iter().map(|admitted| admitted.device).min().unwrap_or(0);
    let most = frames.iter().map(|admitted| admitted.device).max().unwrap_or(0);
    let layout = Layout::numbered(frames.iter(), numbers)?;
    if !layout.is_in_order(parts) {
        return Err("the stored frames are not in the order of their devices, boots and numbers".into());
    }
    for kind in [FileKind::Scalar, FileKind::Wave] {
        let mut slices = Vec::new();
        let mut take = |rows| {
            slices.push(rows);
            Ok(())
        };
        let schema = match kind {
            FileKind::Scalar => {
                layout.scalar_slices(&mut take)?;
                columns::stored_scalar_schema()
            }
            _ => {
                layout.wave_slices(&mut take)?;
                columns::stored_wave_schema()
            }
        };
        let derived = concat_batches(&schema, &slices)?;
        let found = match stored.rows(kind, parts, (least, most))? {
            Some(found) => found.with_schema(schema)?,
            None => RecordBatch::new_empty(schema),
        };
        if found != derived {
            return Err(Failure::Problem(format!(
                "the stored {kind:?} rows are not those of the stored frames"
            )));
        }
        match kind {
            FileKind::Scalar => seen.scalar += found.num_rows() as u64,
            _ => seen.wave += found.num_rows() as u64,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    // Guarantee: chunks cover each leaf once, are bounded, and begin where a block of their batch does.
    #[test]
    fn chunks_cover_every_leaf_once() {
        let check = |batches: &[Vec<u32>]| {
            let devices: Vec<u32> = batches.iter().flatten().copied().collect();
            let mut starts = vec![0u32];
            for batch in batches {
                starts.push(starts.last().unwrap() + batch.len() as u32);
            }
            let mut seen = vec![0; devices.len()];
            for chunk in chunks(&devices, &starts) {
                assert!(chunk.iter().map(|part| part.len()).sum::<usize>() <= LEAVES_AT_ONCE as usize);
                assert!(chunk.windows(2).all(|pair| pair[0].end <= pair[1].start));
                for part in chunk {
                    let batch = starts[starts.partition_point(|start| *start <= part.start) - 1];
                    assert!((part.start - batch).is_multiple_of(BLOCK_LEAVES as u32), "{part:?}");
                    part.for_each(|leaf| seen[leaf as usize] += 1);
                }
            }
            assert!(seen.iter().all(|times| *times == 1));
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
