//! BLAKE3 of up to eight short messages side by side, one to a 32-bit lane (O'Connor, Aumasson, Neves, Wilcox-O'Hearn 2021).
//!
//! A message of at most 1,024 bytes is one chunk, whose blocks must follow each other: a single one leaves vector units idle,
//! eight at once fill them. Longer messages are the `blake3` crate's, which fills the units by itself.

use crate::isa::{Isa32, ROWS};

/// Longest message for the lanes: one chunk.
pub(crate) const CHUNK_BYTES: usize = 1_024;
const BLOCK_BYTES: usize = 64;
const CHUNK_START: u32 = 1;
const CHUNK_END: u32 = 2;
const ROOT: u32 = 8;
const KEYED_HASH: u32 = 16;

/// The first words of the fractional parts of square roots of primes, as in SHA-256.
const IV: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// Which message word each round takes where: the same permutation again and again.
const SCHEDULE: [[usize; 16]; 7] = {
    let step = [2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8];
    let (mut schedule, mut round) = ([[0; 16]; 7], 0);
    while round < 7 {
        let mut place = 0;
        while place < 16 {
            schedule[round][place] = if round == 0 { place } else { schedule[round - 1][step[place]] };
            place += 1;
        }
        round += 1;
    }
    schedule
};

/// Hashes of eight messages of at most [`CHUNK_BYTES`], keyed or not; longer ones give nothing useful.
#[inline(always)]
pub(crate) fn hash<I: Isa32>(isa: I, key: Option<&[u8; 32]>, messages: &[&[u8]; ROWS]) -> [[u8; 32]; ROWS] {
    let (start, base) = match key {
        Some(key) => (words(key), KEYED_HASH),
        None => (IV, 0),
    };
    let mut state = [isa.splat32(0); 8];
    for (word, start) in state.iter_mut().zip(start) {
        *word = isa.splat32(start);
    }
    let count = |message: &[u8]| message.len().div_ceil(BLOCK_BYTES).max(1);
    let longest = messages.iter().map(|message| count(message)).max().unwrap_or(1);
    for at in 0..longest {
        let (mut rows, mut lengths, mut flags) = ([[0_u32; 16]; ROWS], [0; ROWS], [base; ROWS]);
        let mut running = 0_u8;
        for (lane, message) in messages.iter().enumerate() {
            let rest = message.get(at * BLOCK_BYTES..).unwrap_or_default();
            let block = &rest[..rest.len().min(BLOCK_BYTES)];
            fill(&mut rows[lane], block);
            lengths[lane] = block.len() as u32;
            flags[lane] |= if at == 0 { CHUNK_START } else { 0 };
            flags[lane] |= if at + 1 == count(message) { CHUNK_END | ROOT } else { 0 };
            running |= u8::from(at < count(message)) << lane;
        }
        let block = isa.columns32(&rows);
        let next = compress(isa, &state, &block, isa.load32(&lengths), isa.load32(&flags));
        let mask = isa.mask32(running);
        for (word, next) in state.iter_mut().zip(next) {
            *word = isa.choose32(mask, next, *word);
        }
    }
    let mut hashes = [[0; 32]; ROWS];
    for (index, word) in state.into_iter().enumerate() {
        for (hash, value) in hashes.iter_mut().zip(isa.store32(word)) {
            hash[4 * index..4 * index + 4].copy_from_slice(&value.to_le_bytes());
        }
    }
    hashes
}

fn words(bytes: &[u8; 32]) -> [u32; 8] {
    let mut words = [0; 8];
    for (word, part) in words.iter_mut().zip(bytes.as_chunks::<4>().0) {
        *word = u32::from_le_bytes(*part);
    }
    words
}

/// A block's bytes as words; what is missing stays zero.
#[inline(always)]
fn fill(row: &mut [u32; 16], block: &[u8]) {
    let (whole, rest) = block.as_chunks::<4>();
    for (word, part) in row.iter_mut().zip(whole) {
        *word = u32::from_le_bytes(*part);
    }
    if let Some(word) = row.get_mut(whole.len()) {
        *word = rest.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte));
    }
}

#[inline(always)]
fn compress<I: Isa32>(isa: I, state: &[I::W; 8], m: &[I::W; 16], length: I::W, flags: I::W) -> [I::W; 8] {
    let s = state;
    let iv = |index: usize| isa.splat32(IV[index]);
    let zero = isa.splat32(0);
    let mut v = [
        s[0],
        s[1],
        s[2],
        s[3],
        s[4],
        s[5],
        s[6],
        s[7],
        iv(0),
        iv(1),
        iv(2),
        iv(3),
        zero,
        zero,
        length,
        flags,
    ];
    // Written out: in a loop the compiler would keep the sixteen words in memory.
    round(isa, &mut v, m, &SCHEDULE[0]);
    round(isa, &mut v, m, &SCHEDULE[1]);
    round(isa, &mut v, m, &SCHEDULE[2]);
    round(isa, &mut v, m, &SCHEDULE[3]);
    round(isa, &mut v, m, &SCHEDULE[4]);
    round(isa, &mut v, m, &SCHEDULE[5]);
    round(isa, &mut v, m, &SCHEDULE[6]);
    let mut next = *s;
    for (index, word) in next.iter_mut().enumerate() {
        *word = isa.xor32(v[index], v[index + 8]);
    }
    next
}

#[inline(always)]
fn round<I: Isa32>(isa: I, v: &mut [I::W; 16], m: &[I::W; 16], order: &[usize; 16]) {
    let pick = |place: usize| m[order[place]];
    mix(isa, v, [0, 4, 8, 12], [pick(0), pick(1)]);
    mix(isa, v, [1, 5, 9, 13], [pick(2), pick(3)]);
    mix(isa, v, [2, 6, 10, 14], [pick(4), pick(5)]);
    mix(isa, v, [3, 7, 11, 15], [pick(6), pick(7)]);
    mix(isa, v, [0, 5, 10, 15], [pick(8), pick(9)]);
    mix(isa, v, [1, 6, 11, 12], [pick(10), pick(11)]);
    mix(isa, v, [2, 7, 8, 13], [pick(12), pick(13)]);
    mix(isa, v, [3, 4, 9, 14], [pick(14), pick(15)]);
}

#[inline(always)]
fn mix<I: Isa32>(isa: I, v: &mut [I::W; 16], [a, b, c, d]: [usize; 4], [x, y]: [I::W; 2]) {
    v[a] = isa.add32(isa.add32(v[a], v[b]), x);
    v[d] = isa.rotate32::<16, 16>(isa.xor32(v[d], v[a]));
    v[c] = isa.add32(v[c], v[d]);
    v[b] = isa.rotate32::<12, 20>(isa.xor32(v[b], v[c]));
    v[a] = isa.add32(isa.add32(v[a], v[b]), y);
    v[d] = isa.rotate32::<8, 24>(isa.xor32(v[d], v[a]));
    v[c] = isa.add32(v[c], v[d]);
    v[b] = isa.rotate32::<7, 25>(isa.xor32(v[b], v[c]));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::model::Model;

    // Every length of a chunk, beside others of other lengths, hashes as the `blake3` crate says, keyed and not.
    #[test]
    fn lanes_hash_as_blake3() {
        let text: Vec<u8> = (0..CHUNK_BYTES as u32).map(|at| (at * 7 + at / 256) as u8).collect();
        let key: [u8; 32] = std::array::from_fn(|at| at as u8 * 5);
        for length in 0..=CHUNK_BYTES {
            let messages: [&[u8]; ROWS] =
                std::array::from_fn(|lane| &text[..(length + 331 * lane) % (CHUNK_BYTES + 1)]);
            let (plain, keyed) = (hash(Model::<4>, None, &messages), hash(Model::<4>, Some(&key), &messages));
            for (lane, message) in messages.into_iter().enumerate() {
                assert_eq!(plain[lane], *blake3::hash(message).as_bytes(), "{} bytes", message.len());
                assert_eq!(keyed[lane], *blake3::keyed_hash(&key, message).as_bytes());
            }
        }
    }
}
