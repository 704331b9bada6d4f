//! The journal: what is committed but perhaps not yet durable in tiles.
//!
//! ```text
//! magic  "vitalog-tlog-journal-v1\n"
//! block  the checkpoint of the size the journal starts from
//! block  one per commit: first index u64, count u32, checkpoint, entries
//!
//! block  = length u32, CRC-32C of the payload u32, payload        (all numbers little-endian)
//! text   = length u16, bytes
//! ```
//!
//! A block is written and synced before the next one begins, so only the last can be torn. What it is not: the log; that is
//! tiles and checkpoint, for whose last part this stands in.

use std::fs::File;

use schemas_evidence::LedgerError;
use schemas_evidence::ledger::APPEND_ENTRIES_MAX;

use crate::disk::{Disk, corrupt};

/// File name.
pub(crate) const JOURNAL: &str = ".journal";

const MAGIC: &[u8] = b"vitalog-tlog-journal-v1\n";
const HEAD_BYTES: usize = 8;

/// One commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Commit {
    /// Index of its first entry.
    pub(crate) first: u64,
    /// The head that covers its last entry.
    pub(crate) checkpoint: String,
    /// The entries.
    pub(crate) entries: Vec<String>,
}

/// What a journal says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Replay {
    /// The head the journal starts from: tiles are durable up to its size.
    pub(crate) base: String,
    /// The commits since, in order.
    pub(crate) commits: Vec<Commit>,
    /// Length of the part that holds; what follows is a torn block.
    pub(crate) sound_bytes: u64,
    /// Bytes after it.
    pub(crate) torn_bytes: u64,
}

/// The journal, open for appending.
pub(crate) struct Journal {
    disk: Disk,
    file: File,
    bytes: u64,
}

impl Journal {
    /// Starts a new journal in place of the old one. Everything below `base` must be durable.
    pub(crate) fn start(disk: &Disk, base: &str) -> Result<Journal, LedgerError> {
        let mut bytes = MAGIC.to_vec();
        push_block(&mut bytes, base.as_bytes());
        disk.replace_durably(JOURNAL, &bytes)?;
        Ok(Journal { disk: disk.clone(), file: disk.append_handle(JOURNAL)?, bytes: bytes.len() as u64 })
    }

    /// Goes on with the journal that is there, whose sound part is `bytes` long.
    pub(crate) fn reopen(disk: &Disk, bytes: u64) -> Result<Journal, LedgerError> {
        Ok(Journal { disk: disk.clone(), file: disk.append_handle(JOURNAL)?, bytes })
    }

    /// Commits: durable when it returns.
    pub(crate) fn append(&mut self, commit: &Commit) -> Result<(), LedgerError> {
        let mut block = Vec::new();
        push_block(&mut block, &encode(commit));
        self.disk.append_durably(JOURNAL, &mut self.file, &block)?;
        self.bytes += block.len() as u64;
        Ok(())
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }
}

fn push_block(to: &mut Vec<u8>, payload: &[u8]) {
    // A commit is bounded by APPEND_ENTRIES_MAX entries below 1 KiB, so the length fits.
    to.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    to.extend_from_slice(&crc32c::crc32c(payload).to_le_bytes());
    to.extend_from_slice(payload);
}

fn push_text(to: &mut Vec<u8>, text: &str) {
    to.extend_from_slice(&(text.len() as u16).to_le_bytes());
    to.extend_from_slice(text.as_bytes());
}

fn encode(commit: &Commit) -> Vec<u8> {
    let mut payload = commit.first.to_le_bytes().to_vec();
    payload.extend_from_slice(&(commit.entries.len() as u32).to_le_bytes());
    push_text(&mut payload, &commit.checkpoint);
    for entry in &commit.entries {
        push_text(&mut payload, entry);
    }
    payload
}

fn decode(payload: &[u8]) -> Option<Commit> {
    let (first, rest) = payload.split_first_chunk::<8>()?;
    let (count, mut rest) = rest.split_first_chunk::<4>()?;
    let checkpoint = take_text(&mut rest)?;
    let mut entries = Vec::new();
    for _ in 0..u32::from_le_bytes(*count) {
        entries.push(take_text(&mut rest)?);
    }
    rest.is_empty().then(|| Commit { first: u64::from_le_bytes(*first), checkpoint, entries })
}

fn take_text(from: &mut &[u8]) -> Option<String> {
    let (length, rest) = from.split_first_chunk::<2>()?;
    let (text, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
    *from = rest;
    String::from_utf8(text.to_vec()).ok()
}

/// A block at the start of `bytes` whose checksum holds: its payload, and what follows. Zeros are no block.
fn block(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<HEAD_BYTES>()?;
    let [l0, l1, l2, l3, c0, c1, c2, c3] = *head;
    let length = u32::from_le_bytes([l0, l1, l2, l3]);
    let (payload, rest) = rest.split_at_checked(length as usize)?;
    let sound = length > 0 && crc32c::crc32c(payload) == u32::from_le_bytes([c0, c1, c2, c3]);
    sound.then_some((payload, rest))
}

/// Reads a whole journal. A torn last block is cut off; anything else that does not hold is a contradiction.
pub(crate) fn read(bytes: &[u8]) -> Result<Replay, LedgerError> {
    let broken = |problem: &str| corrupt(JOURNAL, problem);
    let rest = bytes.strip_prefix(MAGIC).ok_or_else(|| broken("does not begin as a journal"))?;
    let (base, mut rest) = block(rest).ok_or_else(|| broken("its first block does not hold"))?;
    let base = String::from_utf8(base.to_vec()).map_err(|_| broken("its first block is not text"))?;
    let mut commits = Vec::new();
    while let Some((payload, after)) = block(rest) {
        commits.push(decode(payload).ok_or_else(|| broken("a block holds no commit"))?);
        rest = after;
    }
    if later_commit(rest) {
        return Err(broken("a block in the middle does not hold"));
    }
    let sound_bytes = (bytes.len() - rest.len()) as u64;
    Ok(Replay { base, commits, sound_bytes, torn_bytes: rest.len() as u64 })
}

/// True if a sound commit follows somewhere in what should be at most one torn block.
fn later_commit(tail: &[u8]) -> bool {
    (1..tail.len()).any(|at| {
        let Some(here) = tail.get(at..) else { return false };
        // The count of entries rules out nearly every position before anything is hashed.
        let count = here.get(HEAD_BYTES + 8..).and_then(|rest| rest.first_chunk::<4>());
        let possible =
            count.is_some_and(|count| (1..=APPEND_ENTRIES_MAX as u32).contains(&u32::from_le_bytes(*count)));
        possible && block(here).is_some_and(|(payload, _)| decode(payload).is_some())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commits() -> Vec<Commit> {
        let commit = |first, count: u64| Commit {
            first,
            checkpoint: format!("head of {}", first + count),
            entries: (0..count).map(|n| format!("entry {}", first + n)).collect(),
        };
        vec![commit(7, 1), commit(8, 3), commit(11, 2)]
    }

    fn bytes() -> (Vec<u8>, Vec<usize>) {
        let mut bytes = MAGIC.to_vec();
        push_block(&mut bytes, b"base");
        let mut ends = vec![bytes.len()];
        for commit in commits() {
            push_block(&mut bytes, &encode(&commit));
            ends.push(bytes.len());
        }
        (bytes, ends)
    }

    #[test]
    fn a_journal_cut_anywhere_keeps_exactly_the_whole_blocks_before_the_cut() {
        let (bytes, ends) = bytes();
        for cut in ends[0]..=bytes.len() {
            let replay = read(&bytes[..cut]).unwrap();
            let whole = ends.iter().filter(|end| **end <= cut).count() - 1;
            assert_eq!(replay.commits, commits()[..whole], "cut at {cut}");
            assert_eq!(replay.sound_bytes as usize, ends[whole]);
        }
        assert!(read(&bytes[..ends[0] - 1]).is_err());
    }

    #[test]
    fn damage_before_the_last_block_is_a_contradiction_and_in_the_last_block_a_torn_tail() {
        let (bytes, ends) = bytes();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 0x10;
            let replay = read(&changed);
            if at < ends[2] {
                assert!(replay.is_err(), "byte {at}");
            } else {
                assert_eq!(replay.unwrap().commits, commits()[..2], "byte {at}");
            }
        }
    }

    #[test]
    fn a_long_hostile_tail_is_read_in_time() {
        let (mut bytes, _) = bytes();
        // A file that was lengthened but not filled ends in zeros, which look like empty blocks with a right checksum.
        bytes.extend(std::iter::repeat_n(0u8, 4 << 20));
        assert_eq!(read(&bytes).unwrap().commits, commits());
        let (mut bytes, ends) = self::bytes();
        bytes.extend((0..1u32 << 20).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()));
        assert_eq!(read(&bytes).unwrap().sound_bytes as usize, ends[3]);
    }
}
