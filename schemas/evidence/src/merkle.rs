//! Merkle trees in the shape of RFC 6962 (largest power of two on the left), generic over the hash.
//!
//! Two hashes are in use: `Blake3Frames` for the frames of a batch, `Sha256Rfc6962` for the log. The index maths
//! (which ranges of leaves make up a proof) is kept apart from hashing, so that a log with its hashes in
//! tiles and a batch with its leaves in memory share it. Subtrees are those of draft-ietf-plants-merkle-tree-certs,
//! section 4; a consistency proof is the subtree proof that starts at zero.
//!
//! What it is not: storage. Nothing here keeps a tree.

use std::convert::Infallible;

use sha2::{Digest, Sha256};
use thiserror::Error;

/// A 32-byte hash: BLAKE3 or SHA-256, by context.
pub type Hash32 = [u8; 32];

/// Longest proof that can belong to a tree with fewer than 2^63 leaves.
pub const PATH_MAX: usize = 64;

/// BLAKE3 key of a frame's leaf: `derive_key("vitalog 2026 frame leaf v1", "")`.
pub const LEAF_KEY: Hash32 = [
    0x33, 0x39, 0x57, 0x1a, 0x2c, 0x91, 0x6a, 0x2d, 0x57, 0x70, 0xec, 0x0b, 0xdc, 0x3b, 0xac, 0x3f, 0xb7,
    0x49, 0x09, 0x90, 0x88, 0x15, 0xcb, 0x78, 0x72, 0x53, 0x23, 0x61, 0x61, 0x8f, 0x86, 0x7c,
];

/// BLAKE3 key of an inner node: `derive_key("vitalog 2026 tree node v1", "")`.
pub const NODE_KEY: Hash32 = [
    0xf3, 0xf9, 0x8a, 0x88, 0xc9, 0x73, 0xe8, 0xd7, 0x69, 0x2d, 0xe7, 0x3d, 0x34, 0xa3, 0xe0, 0x9c, 0x57,
    0x66, 0xd1, 0x7c, 0x36, 0xb1, 0xbf, 0xba, 0x3a, 0x14, 0x3a, 0xd9, 0xc2, 0x36, 0x0a, 0xab,
];

/// How a tree hashes its leaves and nodes.
pub trait TreeHash {
    /// Hash of one leaf's bytes.
    fn leaf(data: &[u8]) -> Hash32;
    /// Hash of a node with these two children.
    fn node(left: &Hash32, right: &Hash32) -> Hash32;
    /// Root of the tree without leaves.
    fn empty() -> Hash32;
}

/// The batch tree: BLAKE3 keyed with [`LEAF_KEY`] and [`NODE_KEY`].
#[derive(Debug, Clone, Copy)]
pub struct Blake3Frames;

impl TreeHash for Blake3Frames {
    fn leaf(data: &[u8]) -> Hash32 {
        *blake3::keyed_hash(&LEAF_KEY, data).as_bytes()
    }

    fn node(left: &Hash32, right: &Hash32) -> Hash32 {
        let mut both = [0u8; 64];
        both[..32].copy_from_slice(left);
        both[32..].copy_from_slice(right);
        *blake3::keyed_hash(&NODE_KEY, &both).as_bytes()
    }

    /// The node hash of nothing at all. A batch is never empty; this only makes the function total.
    fn empty() -> Hash32 {
        *blake3::keyed_hash(&NODE_KEY, b"").as_bytes()
    }
}

/// Hashes a batch's frames and its tree, many at once if it can. Whatever it does, leaves and root are those of
/// [`Blake3Frames`], which is the reference.
pub trait FrameHasher: Send + Sync + std::fmt::Debug {
    /// [`frame_leaf`] of each, in order.
    fn leaves(&self, frames: &[&[u8]]) -> Vec<Hash32>;
    /// [`root`] of these leaves.
    fn root(&self, leaves: &[Hash32]) -> Hash32;
    /// Plain BLAKE3 of each, in order; the first 16 bytes are what the next frame names as `prev`.
    fn digests(&self, frames: &[&[u8]]) -> Vec<Hash32>;
}

impl FrameHasher for Blake3Frames {
    fn leaves(&self, frames: &[&[u8]]) -> Vec<Hash32> {
        frames.iter().map(|frame| frame_leaf(frame)).collect()
    }

    fn root(&self, leaves: &[Hash32]) -> Hash32 {
        root::<Blake3Frames>(leaves)
    }

    fn digests(&self, frames: &[&[u8]]) -> Vec<Hash32> {
        frames.iter().map(|frame| *blake3::hash(frame).as_bytes()).collect()
    }
}

/// The log tree: SHA-256 with the prefixes of RFC 6962, section 2.1.
#[derive(Debug, Clone, Copy)]
pub struct Sha256Rfc6962;

impl TreeHash for Sha256Rfc6962 {
    fn leaf(data: &[u8]) -> Hash32 {
        Sha256::new().chain_update([0u8]).chain_update(data).finalize().into()
    }

    fn node(left: &Hash32, right: &Hash32) -> Hash32 {
        Sha256::new().chain_update([1u8]).chain_update(left).chain_update(right).finalize().into()
    }

    fn empty() -> Hash32 {
        Sha256::digest(b"").into()
    }
}

/// The leaf of a frame: BLAKE3 over its bytes exactly as received.
pub fn frame_leaf(frame: &[u8]) -> Hash32 {
    Blake3Frames::leaf(frame)
}

/// Why a proof does not hold, or cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ProofError {
    /// The leaf lies outside the tree.
    #[error("leaf {index} is outside a tree of {size}")]
    Index {
        /// Index asked for.
        index: u64,
        /// Leaves in the tree.
        size: u64,
    },
    /// `start..end` is not a subtree of a tree of `size` leaves.
    #[error("{start}..{end} is not a subtree of a tree of {size}")]
    Range {
        /// First leaf.
        start: u64,
        /// One past the last leaf.
        end: u64,
        /// Leaves in the tree.
        size: u64,
    },
    /// The path has another number of hashes than the position demands.
    #[error("a path of {got} hashes cannot belong to this position")]
    Length {
        /// Hashes in the path.
        got: usize,
    },
    /// The recomputed smaller root is not the one claimed.
    #[error("the path does not lead to the older root")]
    OldRoot,
    /// The recomputed root is not the one claimed.
    #[error("the path does not lead to the root")]
    Root,
}

/// A half-open range of leaves whose root is one hash of a proof.
pub type LeafRange = (u64, u64);

/// Largest power of two smaller than `size`; `size` must be at least 2.
fn split(size: u64) -> u64 {
    1u64 << (63 - (size - 1).leading_zeros())
}

/// The ranges whose roots make up the inclusion proof of `index` in a tree of `size`, leaf's sibling first.
pub fn inclusion_ranges(index: u64, size: u64) -> Result<Vec<LeafRange>, ProofError> {
    if index >= size {
        return Err(ProofError::Index { index, size });
    }
    let (mut low, mut high) = (0, size);
    let mut ranges = Vec::new();
    while high - low > 1 {
        let middle = low + split(high - low);
        if index < middle {
            ranges.push((middle, high));
            high = middle;
        } else {
            ranges.push((low, middle));
            low = middle;
        }
    }
    ranges.reverse();
    Ok(ranges)
}

/// True if `start..end` is a subtree: it starts on a multiple of the power of two that its length rounds up to.
pub fn is_subtree(start: u64, end: u64) -> bool {
    let Some(length) = end.checked_sub(start) else { return false };
    match length.checked_next_power_of_two() {
        Some(width) => start.is_multiple_of(width),
        None => start == 0,
    }
}

/// The ranges whose roots show that the subtree `start..end` belongs to the tree of `size` leaves.
pub fn subtree_ranges(start: u64, end: u64, size: u64) -> Result<Vec<LeafRange>, ProofError> {
    if start >= end || end > size || !is_subtree(start, end) {
        return Err(ProofError::Range { start, end, size });
    }
    let (mut low, mut high) = (0, size);
    let mut first = start;
    let mut known = true;
    let mut ranges = Vec::new();
    while !(low == first && high == end) {
        let middle = low + split(high - low);
        if end <= middle {
            ranges.push((middle, high));
            high = middle;
        } else {
            ranges.push((low, middle));
            if first < middle {
                // The subtree crosses the split, so only its right part goes on, and its root is not the given one.
                first = middle;
                known = false;
            }
            low = middle;
        }
    }
    if !known {
        ranges.push((low, high));
    }
    ranges.reverse();
    Ok(ranges)
}

/// The ranges whose roots make up the consistency proof from `old` to `new` leaves. `old` must not be zero.
pub fn consistency_ranges(old: u64, new: u64) -> Result<Vec<LeafRange>, ProofError> {
    subtree_ranges(0, old, new)
}

/// Root of the leaves `range` of a bigger tree, from the hashes of perfect subtrees.
///
/// `perfect(level, index)` gives the root of leaves `index << level .. (index + 1) << level`. The range must be one that
/// a proof names (it starts on a multiple of a power of two that is not below its length).
pub fn range_root<H: TreeHash, E>(
    range: LeafRange,
    perfect: &mut impl FnMut(u8, u64) -> Result<Hash32, E>,
) -> Result<Hash32, E> {
    let (start, end) = range;
    let mut parts = Vec::new();
    let mut at = start;
    while at < end {
        let level = (end - at).ilog2() as u8;
        parts.push(perfect(level, at >> level)?);
        at += 1u64 << level;
    }
    let Some(mut root) = parts.pop() else { return Ok(H::empty()) };
    while let Some(left) = parts.pop() {
        root = H::node(&left, &root);
    }
    Ok(root)
}

/// Root of the tree over these leaf hashes.
pub fn root<H: TreeHash>(leaves: &[Hash32]) -> Hash32 {
    let Ok(root) = range_root::<H, Infallible>((0, leaves.len() as u64), &mut |level, index| {
        let start = (index as usize) << level;
        Ok(perfect_root::<H>(&leaves[start..start + (1usize << level)]))
    });
    root
}

/// Root of a power-of-two number of leaves, level by level.
fn perfect_root<H: TreeHash>(leaves: &[Hash32]) -> Hash32 {
    if let [only] = leaves {
        return *only;
    }
    let mut row: Vec<Hash32> = leaves.chunks_exact(2).map(|pair| H::node(&pair[0], &pair[1])).collect();
    while row.len() > 1 {
        let half = row.len() / 2;
        for i in 0..half {
            row[i] = H::node(&row[2 * i], &row[2 * i + 1]);
        }
        row.truncate(half);
    }
    row.first().copied().unwrap_or_else(H::empty)
}

fn roots_of<H: TreeHash>(leaves: &[Hash32], ranges: Vec<LeafRange>) -> Vec<Hash32> {
    ranges.into_iter().map(|(start, end)| root::<H>(&leaves[start as usize..end as usize])).collect()
}

/// The inclusion proof of leaf `index`, leaf's sibling first.
pub fn inclusion_path<H: TreeHash>(leaves: &[Hash32], index: u64) -> Result<Vec<Hash32>, ProofError> {
    Ok(roots_of::<H>(leaves, inclusion_ranges(index, leaves.len() as u64)?))
}

/// The proof that the tree of the first `old` leaves is a prefix of the tree of all of them.
pub fn consistency_path<H: TreeHash>(leaves: &[Hash32], old: u64) -> Result<Vec<Hash32>, ProofError> {
    subtree_path::<H>(leaves, 0, old)
}

/// The proof that the subtree over `start..end` belongs to the tree over all leaves.
pub fn subtree_path<H: TreeHash>(leaves: &[Hash32], start: u64, end: u64) -> Result<Vec<Hash32>, ProofError> {
    Ok(roots_of::<H>(leaves, subtree_ranges(start, end, leaves.len() as u64)?))
}

/// The root a path leads to from `leaf` at `index` (RFC 9162, section 2.1.3.2).
pub fn root_from_path<H: TreeHash>(
    leaf: &Hash32,
    index: u64,
    size: u64,
    path: &[Hash32],
) -> Result<Hash32, ProofError> {
    if index >= size {
        return Err(ProofError::Index { index, size });
    }
    let wrong_length = ProofError::Length { got: path.len() };
    let (mut node, mut last) = (index, size - 1);
    let mut hash = *leaf;
    for sibling in path {
        if last == 0 {
            return Err(wrong_length);
        }
        if node & 1 == 1 || node == last {
            hash = H::node(sibling, &hash);
            while node & 1 == 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            hash = H::node(&hash, sibling);
        }
        node >>= 1;
        last >>= 1;
    }
    if last != 0 {
        return Err(wrong_length);
    }
    Ok(hash)
}

/// Checks that `leaf` is leaf `index` of the tree of `size` leaves with this root.
pub fn verify_inclusion<H: TreeHash>(
    leaf: &Hash32,
    index: u64,
    size: u64,
    path: &[Hash32],
    root: &Hash32,
) -> Result<(), ProofError> {
    if root_from_path::<H>(leaf, index, size, path)? == *root { Ok(()) } else { Err(ProofError::Root) }
}

/// Checks that `leaf` is leaf `index` (counted in the whole tree) of the subtree `start..end` with this root.
pub fn verify_subtree_inclusion<H: TreeHash>(
    leaf: &Hash32,
    index: u64,
    (start, end): LeafRange,
    path: &[Hash32],
    root: &Hash32,
) -> Result<(), ProofError> {
    if start >= end || !is_subtree(start, end) {
        return Err(ProofError::Range { start, end, size: end });
    }
    let size = end - start;
    let Some(within) = index.checked_sub(start) else { return Err(ProofError::Index { index, size: end }) };
    verify_inclusion::<H>(leaf, within, size, path, root)
}

/// Checks that the tree of `new` leaves with `new_root` extends the tree of `old` leaves with `old_root`.
///
/// From an empty tree there is nothing to check, and saying "consistent" would mean nothing: `old` = 0 is refused.
pub fn verify_consistency<H: TreeHash>(
    old: u64,
    new: u64,
    path: &[Hash32],
    old_root: &Hash32,
    new_root: &Hash32,
) -> Result<(), ProofError> {
    if old == 0 {
        return Err(ProofError::Range { start: 0, end: 0, size: new });
    }
    verify_subtree_consistency::<H>((0, old), new, path, old_root, new_root)
}

/// Checks that the subtree `start..end` with `part_root` belongs to the tree of `size` leaves with `whole_root`.
pub fn verify_subtree_consistency<H: TreeHash>(
    (start, end): LeafRange,
    size: u64,
    path: &[Hash32],
    part_root: &Hash32,
    whole_root: &Hash32,
) -> Result<(), ProofError> {
    if end < start || end > size || !is_subtree(start, end) {
        return Err(ProofError::Range { start, end, size });
    }
    let wrong_length = ProofError::Length { got: path.len() };
    if start == end {
        // The empty subtree is part of every tree; all there is to check is that it is the empty one.
        if !path.is_empty() {
            return Err(wrong_length);
        }
        return if *part_root == H::empty() { Ok(()) } else { Err(ProofError::OldRoot) };
    }
    let mut walk = Walk { first: start, part: end - 1, last: size - 1 };
    while walk.first != walk.part && (walk.part == walk.last || walk.part & 1 == 1) {
        walk.up();
    }
    let mut siblings = path.iter();
    let (mut old, mut new) = (*part_root, *part_root);
    if walk.first != walk.part {
        let seed = siblings.next().ok_or(wrong_length)?;
        (old, new) = (*seed, *seed);
    }
    for sibling in siblings {
        if walk.last == 0 {
            return Err(wrong_length);
        }
        if walk.part & 1 == 1 || walk.part == walk.last {
            if walk.first < walk.part {
                old = H::node(sibling, &old);
            }
            new = H::node(sibling, &new);
            while walk.part & 1 == 0 {
                walk.up();
            }
        } else {
            new = H::node(&new, sibling);
        }
        walk.up();
    }
    if walk.last != 0 {
        return Err(wrong_length);
    }
    if old != *part_root {
        return Err(ProofError::OldRoot);
    }
    if new == *whole_root { Ok(()) } else { Err(ProofError::Root) }
}

/// Positions of the subtree's first leaf, its last leaf and the tree's last leaf, one level up at a time.
struct Walk {
    first: u64,
    part: u64,
    last: u64,
}

impl Walk {
    fn up(&mut self) {
        self.first >>= 1;
        self.part >>= 1;
        self.last >>= 1;
    }
}

#[cfg(test)]
mod tests;
