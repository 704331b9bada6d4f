//! BLAKE3 of frames and of tree nodes, eight at a time where the CPU can: the same hashes as [`Blake3Frames`], which is the
//! readable reference, and as `blake3::hash`. It keeps no tree and knows no proof.
//!
//! What it computes goes into the log for good, so the lanes pass a self-test before their first use, or are not used.

use std::sync::LazyLock;

use schemas_evidence::Hash32;
use schemas_evidence::merkle::{Blake3Frames, FrameHasher, LEAF_KEY, NODE_KEY, TreeHash};

use crate::blake3x8::{self, CHUNK_BYTES};
#[cfg(target_arch = "x86_64")]
use crate::isa::avx2::Avx2;
use crate::isa::{Isa32, Program, ROWS};

/// Hashes side by side, in the lanes of this CPU if it has them.
#[derive(Debug, Clone, Copy, Default)]
pub struct SideBySide;

impl SideBySide {
    /// Whether this process hashes in lanes: the CPU has them, they passed their self-test, nobody asked for portable code.
    #[must_use]
    pub fn uses_lanes() -> bool {
        *HAS_LANES
    }
}

impl FrameHasher for SideBySide {
    fn leaves(&self, frames: &[&[u8]]) -> Vec<Hash32> {
        each(Some(&LEAF_KEY), frames)
    }

    /// Level by level; a node without a sibling goes up as it is, which is the shape of RFC 6962.
    fn root(&self, leaves: &[Hash32]) -> Hash32 {
        let mut level = leaves.to_vec();
        while level.len() > 1 {
            let (pairs, alone) = level.as_chunks::<2>();
            let children: Vec<&[u8]> = pairs.iter().map(|pair| pair.as_flattened()).collect();
            let mut above = each(Some(&NODE_KEY), &children);
            above.extend_from_slice(alone);
            level = above;
        }
        level.first().copied().unwrap_or_else(Blake3Frames::empty)
    }

    fn digests(&self, frames: &[&[u8]]) -> Vec<Hash32> {
        each(None, frames)
    }
}

fn one(key: Option<&[u8; 32]>, message: &[u8]) -> Hash32 {
    match key {
        Some(key) => *blake3::keyed_hash(key, message).as_bytes(),
        None => *blake3::hash(message).as_bytes(),
    }
}

/// Short messages in eights, those of like length beside each other; long ones and a last single one by themselves.
fn each(key: Option<&[u8; 32]>, messages: &[&[u8]]) -> Vec<Hash32> {
    let mut hashes = vec![[0; 32]; messages.len()];
    let mut short: Vec<usize> = (0..messages.len()).filter(|at| messages[*at].len() <= CHUNK_BYTES).collect();
    short.sort_by_key(|at| messages[*at].len().div_ceil(64));
    for part in short.chunks(ROWS) {
        let mut rows: [&[u8]; ROWS] = [&[]; ROWS];
        for (row, at) in rows.iter_mut().zip(part) {
            *row = messages[*at];
        }
        let found = if part.len() > 1 && *HAS_LANES { eight(key, &rows) } else { None };
        for (lane, at) in part.iter().enumerate() {
            hashes[*at] = match &found {
                Some(found) => found[lane],
                None => one(key, messages[*at]),
            };
        }
    }
    for (hash, message) in hashes.iter_mut().zip(messages) {
        if message.len() > CHUNK_BYTES {
            *hash = one(key, message);
        }
    }
    hashes
}

/// [`blake3x8::hash`] as a program of a machine.
struct Eight<'a> {
    key: Option<&'a [u8; 32]>,
    messages: &'a [&'a [u8]; ROWS],
}

impl<I: Isa32> Program<I> for Eight<'_> {
    type Output = [Hash32; ROWS];

    #[inline(always)]
    fn run(self, machine: I) -> [Hash32; ROWS] {
        blake3x8::hash(machine, self.key, self.messages)
    }
}

/// See [`SideBySide::uses_lanes`].
static HAS_LANES: LazyLock<bool> = LazyLock::new(|| {
    let choice = std::env::var(crate::VARIABLE).ok();
    !matches!(choice.as_deref(), Some("comb" | "reference")) && passes_self_test(eight)
});

/// Messages around blocks and chunks, in every lane, keyed and not, against the `blake3` crate.
fn passes_self_test(eight: impl Fn(Option<&[u8; 32]>, &[&[u8]; ROWS]) -> Option<[Hash32; ROWS]>) -> bool {
    let text: Vec<u8> = (0..=u8::MAX).cycle().take(CHUNK_BYTES).collect();
    let lengths = [0, 1, 63, 64, 65, 300, CHUNK_BYTES - 1, CHUNK_BYTES];
    (0..ROWS).all(|turn| {
        let mut messages: [&[u8]; ROWS] = [&[]; ROWS];
        for (lane, message) in messages.iter_mut().enumerate() {
            *message = &text[..lengths[(lane + turn) % ROWS]];
        }
        [None, Some(&LEAF_KEY)].into_iter().all(|key| {
            eight(key, &messages).is_some_and(|hashes| hashes == messages.map(|message| one(key, message)))
        })
    })
}

/// `None` where the CPU has no lanes for it.
fn eight(key: Option<&[u8; 32]>, messages: &[&[u8]; ROWS]) -> Option<[Hash32; ROWS]> {
    #[cfg(target_arch = "x86_64")]
    return Avx2::here().map(|machine| machine.run(Eight { key, messages }));
    #[cfg(not(target_arch = "x86_64"))]
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Messages of all kinds of lengths, around blocks and chunks.
    fn messages() -> Vec<Vec<u8>> {
        let lengths = (0..200).chain([255, 256, 257, 1_023, 1_024, 1_025, 3_000, 64 << 10]);
        lengths.map(|length| (0..length).map(|at: u32| (at * 11 + length) as u8).collect()).collect()
    }

    // Leaves and digests are the reference's at every length and however many come together.
    #[test]
    fn hashes_are_the_reference_s() {
        let messages = messages();
        for count in (0..20).chain([messages.len()]) {
            let part: Vec<&[u8]> = messages.iter().rev().take(count).map(Vec::as_slice).collect();
            assert_eq!(SideBySide.leaves(&part), Blake3Frames.leaves(&part));
            let digests: Vec<Hash32> = part.iter().map(|message| *blake3::hash(message).as_bytes()).collect();
            assert_eq!(SideBySide.digests(&part), digests);
        }
    }

    // Lanes that go wrong in one bit of one hash, or are not there, are found out before they are used.
    #[test]
    fn wrong_lanes_are_not_used() {
        let honest = |key: Option<&[u8; 32]>, messages: &[&[u8]; ROWS]| {
            Some(messages.map(|message| one(key, message)))
        };
        assert!(passes_self_test(honest) && !passes_self_test(|_, _| None));
        for lane in 0..ROWS {
            let broken = |key: Option<&[u8; 32]>, messages: &[&[u8]; ROWS]| {
                let mut hashes = honest(key, messages)?;
                hashes[lane][31] ^= u8::from(messages[lane].len() == CHUNK_BYTES && key.is_some());
                Some(hashes)
            };
            assert!(!passes_self_test(broken), "lane {lane}");
        }
    }

    // Roots are the reference's for every size of tree, so proofs made from either hold against the other.
    #[test]
    fn roots_are_the_reference_s() {
        let leaves: Vec<Hash32> =
            (0..1_030_u32).map(|at| *blake3::hash(&at.to_le_bytes()).as_bytes()).collect();
        for size in (0..70).chain([127, 128, 129, 1_023, 1_024, 1_030]) {
            assert_eq!(SideBySide.root(&leaves[..size]), Blake3Frames.root(&leaves[..size]), "{size}");
        }
    }
}
