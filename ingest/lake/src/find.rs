//! From (device, boot, sequence number) to the signed bytes and their place in the tree.
//!
//! What was looked up stays at hand: a device that sends an old backlog again asks for its frames one after the other.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, UInt32Type};
use bytes::Bytes;
use schemas_evidence::{Blake3Frames, DeviceRange, FrameHasher, Hash32, frame_leaf, merkle};

use crate::frames::BLOCK_LEAVES;
use crate::sets::{Held, Home};
use crate::stored::Stored;
use crate::view::SealedBatch;
use crate::{Admitted, FrameKey, Lake, LakeError};

/// Batches whose keys stay in memory (20 bytes a frame).
const BATCHES_KNOWN_MAX: usize = 8;
/// Blocks whose frames stay in memory (at most [`BLOCK_LEAVES`] frames each).
const BLOCKS_KNOWN_MAX: usize = 16;

/// Where a frame is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In the tail: durable, not yet in a batch.
    Tail,
    /// In a batch that the log knows.
    Batch {
        /// The batch.
        id: String,
        /// Its leaf.
        leaf: u32,
        /// Place of the batch's entry in the log.
        entry_index: u64,
    },
}

/// A stored frame.
#[derive(Debug, Clone)]
pub struct StoredFrame {
    /// Bytes as received.
    pub frame: Bytes,
    /// Where it is.
    pub place: Place,
}

type Block = Arc<Vec<Admitted>>;

/// What recent look-ups read, oldest first.
#[derive(Default)]
pub(crate) struct Recent {
    keys: VecDeque<(String, RecordBatch)>,
    blocks: VecDeque<((String, u32), Block)>,
}

fn remember<K, V>(known: &mut VecDeque<(K, V)>, key: K, value: V, most: usize) {
    if known.len() >= most {
        known.pop_front();
    }
    known.push_back((key, value));
}

impl Lake {
    /// The frame a device sent under this boot and sequence number.
    ///
    /// # Errors
    /// If files cannot be read, or do not hold what their manifest says.
    pub fn find(&self, device: u32, boot: [u8; 8], seq: u64) -> Result<Option<StoredFrame>, LakeError> {
        let (tail, held) = self.standing();
        for admitted in tail.iter().flat_map(|chunk| chunk.frames()) {
            if admitted.device == device && crate::key_of(admitted)? == (device, boot, seq) {
                return Ok(Some(StoredFrame { frame: admitted.frame.clone(), place: Place::Tail }));
            }
        }
        for (batch, place) in held.batches.iter().zip(0..held.batches.len()).rev() {
            if !holds(&batch.manifest.ranges, device, boot, seq) {
                continue;
            }
            let home = home(&held, place)?;
            let Some(leaf) = self.leaf_of(batch, &home, (device, boot, seq))? else { continue };
            let block = self.block(batch, &home, leaf)?;
            let Some(admitted) = block.get(leaf as usize % BLOCK_LEAVES) else { continue };
            let id = batch.manifest.batch.clone();
            let place = Place::Batch { id, leaf, entry_index: batch.entry_index };
            return Ok(Some(StoredFrame { frame: admitted.frame.clone(), place }));
        }
        Ok(None)
    }

    /// Siblings from a leaf to its batch's root, and the batch's size. Reads one block of frames.
    ///
    /// # Errors
    /// As [`Lake::find`].
    pub fn inclusion(&self, batch: &str, leaf: u32) -> Result<Option<(u64, Vec<Hash32>)>, LakeError> {
        let (_, held) = self.standing();
        let mut batches = held.batches.iter().zip(0..);
        let Some((batch, place)) = batches.find(|(candidate, _)| candidate.manifest.batch == batch) else {
            return Ok(None);
        };
        let home = home(&held, place)?;
        let problem = "fewer frames than its ranges say";
        let wrong = |_| LakeError::Stored { file: batch.manifest.batch.clone(), problem };
        let leaves: Vec<Hash32> =
            self.block(batch, &home, leaf)?.iter().map(|admitted| frame_leaf(&admitted.frame)).collect();
        let (block, within) = (leaf as usize / BLOCK_LEAVES, leaf as usize % BLOCK_LEAVES);
        let mut path = merkle::inclusion_path::<Blake3Frames>(&leaves, within as u64).map_err(wrong)?;
        // Blocks are subtrees, so the path goes on over their roots.
        let roots = Stored::new(self.directory(), home.id, home.files)?.block_roots(home.leaves.clone())?;
        path.extend(merkle::inclusion_path::<Blake3Frames>(&roots, block as u64).map_err(wrong)?);
        Ok(Some((batch.manifest.frames, path)))
    }

    fn leaf_of(
        &self,
        batch: &SealedBatch,
        home: &Home<'_>,
        wanted: FrameKey,
    ) -> Result<Option<u32>, LakeError> {
        let id = &batch.manifest.batch;
        let known =
            self.recent.lock().keys.iter().find(|(known, _)| known == id).map(|(_, keys)| keys.clone());
        let keys = match known {
            Some(keys) => keys,
            None => {
                let keys = Stored::new(self.directory(), home.id, home.files)?.keys(home.leaves.clone())?;
                remember(&mut self.recent.lock().keys, id.clone(), keys.clone(), BATCHES_KNOWN_MAX);
                keys
            }
        };
        search(&keys, wanted).ok_or_else(|| LakeError::Stored {
            file: id.clone(),
            problem: "a column of its frames is missing or of another type",
        })
    }

    fn block(&self, batch: &SealedBatch, home: &Home<'_>, leaf: u32) -> Result<Block, LakeError> {
        let leaves = block_of(leaf, batch.manifest.frames);
        let key = (batch.manifest.batch.clone(), leaves.start);
        let known =
            self.recent.lock().blocks.iter().find(|(known, _)| *known == key).map(|(_, block)| block.clone());
        if let Some(block) = known {
            return Ok(block);
        }
        let stored = Stored::new(self.directory(), home.id, home.files)?;
        // Blocks are counted from the batch's own first leaf, wherever that is in its files.
        let start = home.leaves.start;
        let leaves = start + leaves.start..start + leaves.end;
        let block = Arc::new(stored.frames(std::slice::from_ref(&leaves))?);
        remember(&mut self.recent.lock().blocks, key, block.clone(), BLOCKS_KNOWN_MAX);
        Ok(block)
    }
}

fn home(held: &Held, place: usize) -> Result<Home<'_>, LakeError> {
    let problem = "no file has its frames";
    held.home(place).ok_or_else(|| LakeError::Stored { file: "a batch".into(), problem })
}

/// The leaves of a leaf's block.
fn block_of(leaf: u32, frames: u64) -> Range<u32> {
    let start = leaf - leaf % BLOCK_LEAVES as u32;
    start..(start + BLOCK_LEAVES as u32).min(u32::try_from(frames).unwrap_or(u32::MAX))
}

/// Whether a run of a batch covers the number. Runs are sorted, as [`Lake::seal`] writes them.
fn holds(ranges: &[DeviceRange], device: u32, boot: [u8; 8], seq: u64) -> bool {
    let after =
        ranges.partition_point(|range| (range.device, range.boot, range.first) <= (device, boot, seq));
    let range = after.checked_sub(1).and_then(|index| ranges.get(index));
    range.is_some_and(|range| (range.device, range.boot) == (device, boot) && seq <= range.last)
}

/// The leaf with this key, if there is one; `None` outside if the columns are others.
#[expect(clippy::option_option, reason = "missing columns and a missing row are two things")]
fn search(keys: &RecordBatch, wanted: FrameKey) -> Option<Option<u32>> {
    let devices = keys.column_by_name("device")?.as_primitive_opt::<UInt32Type>()?;
    let boots = keys.column_by_name("boot")?.as_fixed_size_binary_opt()?;
    let seqs = keys.column_by_name("seq")?.as_primitive_opt::<Int64Type>()?;
    let key = |row: usize| (devices.value(row), boots.value(row), seqs.value(row).cast_unsigned());
    let wanted = (wanted.0, wanted.1.as_slice(), wanted.2);
    let (mut low, mut high) = (0, keys.num_rows());
    while low < high {
        let middle = low + (high - low) / 2;
        if key(middle) < wanted { low = middle + 1 } else { high = middle }
    }
    Some((low < keys.num_rows() && key(low) == wanted).then_some(low as u32))
}

/// Root over the roots of blocks: the same as over all leaves.
pub(crate) fn block_roots(hasher: &dyn FrameHasher, leaves: &[Hash32]) -> Vec<Hash32> {
    leaves.chunks(BLOCK_LEAVES).map(|block| hasher.root(block)).collect()
}
