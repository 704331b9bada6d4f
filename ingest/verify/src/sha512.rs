//! SHA-512 (FIPS 180-4) of several messages side by side, one to a lane.
//!
//! Messages come as padded blocks of big-endian words; lanes may have different numbers of blocks. It is tested against
//! the `sha2` crate at every length around the edges of blocks.

use crate::isa::{Isa, LANES_MAX};

/// A block: 128 bytes as sixteen big-endian words.
pub(crate) type Block = [u64; 16];

/// First 64 bits of the fractional parts of the square roots of the first eight primes.
const START: [u64; 8] = [
    0x6a09_e667_f3bc_c908,
    0xbb67_ae85_84ca_a73b,
    0x3c6e_f372_fe94_f82b,
    0xa54f_f53a_5f1d_36f1,
    0x510e_527f_ade6_82d1,
    0x9b05_688c_2b3e_6c1f,
    0x1f83_d9ab_fb41_bd6b,
    0x5be0_cd19_137e_2179,
];

/// First 64 bits of the fractional parts of the cube roots of the first eighty primes.
const ROUND: [u64; 80] = [
    0x428a_2f98_d728_ae22,
    0x7137_4491_23ef_65cd,
    0xb5c0_fbcf_ec4d_3b2f,
    0xe9b5_dba5_8189_dbbc,
    0x3956_c25b_f348_b538,
    0x59f1_11f1_b605_d019,
    0x923f_82a4_af19_4f9b,
    0xab1c_5ed5_da6d_8118,
    0xd807_aa98_a303_0242,
    0x1283_5b01_4570_6fbe,
    0x2431_85be_4ee4_b28c,
    0x550c_7dc3_d5ff_b4e2,
    0x72be_5d74_f27b_896f,
    0x80de_b1fe_3b16_96b1,
    0x9bdc_06a7_25c7_1235,
    0xc19b_f174_cf69_2694,
    0xe49b_69c1_9ef1_4ad2,
    0xefbe_4786_384f_25e3,
    0x0fc1_9dc6_8b8c_d5b5,
    0x240c_a1cc_77ac_9c65,
    0x2de9_2c6f_592b_0275,
    0x4a74_84aa_6ea6_e483,
    0x5cb0_a9dc_bd41_fbd4,
    0x76f9_88da_8311_53b5,
    0x983e_5152_ee66_dfab,
    0xa831_c66d_2db4_3210,
    0xb003_27c8_98fb_213f,
    0xbf59_7fc7_beef_0ee4,
    0xc6e0_0bf3_3da8_8fc2,
    0xd5a7_9147_930a_a725,
    0x06ca_6351_e003_826f,
    0x1429_2967_0a0e_6e70,
    0x27b7_0a85_46d2_2ffc,
    0x2e1b_2138_5c26_c926,
    0x4d2c_6dfc_5ac4_2aed,
    0x5338_0d13_9d95_b3df,
    0x650a_7354_8baf_63de,
    0x766a_0abb_3c77_b2a8,
    0x81c2_c92e_47ed_aee6,
    0x9272_2c85_1482_353b,
    0xa2bf_e8a1_4cf1_0364,
    0xa81a_664b_bc42_3001,
    0xc24b_8b70_d0f8_9791,
    0xc76c_51a3_0654_be30,
    0xd192_e819_d6ef_5218,
    0xd699_0624_5565_a910,
    0xf40e_3585_5771_202a,
    0x106a_a070_32bb_d1b8,
    0x19a4_c116_b8d2_d0c8,
    0x1e37_6c08_5141_ab53,
    0x2748_774c_df8e_eb99,
    0x34b0_bcb5_e19b_48a8,
    0x391c_0cb3_c5c9_5a63,
    0x4ed8_aa4a_e341_8acb,
    0x5b9c_ca4f_7763_e373,
    0x682e_6ff3_d6b2_b8a3,
    0x748f_82ee_5def_b2fc,
    0x78a5_636f_4317_2f60,
    0x84c8_7814_a1f0_ab72,
    0x8cc7_0208_1a64_39ec,
    0x90be_fffa_2363_1e28,
    0xa450_6ceb_de82_bde9,
    0xbef9_a3f7_b2c6_7915,
    0xc671_78f2_e372_532b,
    0xca27_3ece_ea26_619c,
    0xd186_b8c7_21c0_c207,
    0xeada_7dd6_cde0_eb1e,
    0xf57d_4f7f_ee6e_d178,
    0x06f0_67aa_7217_6fba,
    0x0a63_7dc5_a2c8_98a6,
    0x113f_9804_bef9_0dae,
    0x1b71_0b35_131c_471b,
    0x28db_77f5_2304_7d84,
    0x32ca_ab7b_40c7_2493,
    0x3c9e_be0a_15c9_bebc,
    0x431d_67c4_9c10_0d4c,
    0x4cc5_d4be_cb3e_42b6,
    0x597f_299c_fc65_7e2a,
    0x5fcb_6fab_3ad6_faec,
    0x6c44_198c_4a47_5817,
];

/// Appends a message, its end mark and its length in bits as blocks; gives their number. Parts are joined.
pub(crate) fn pad(blocks: &mut Vec<Block>, parts: &[&[u8]]) -> usize {
    let (first, mut length) = (blocks.len(), 0_usize);
    let mut block = [0_u8; 128];
    for part in parts {
        let mut rest = *part;
        while !rest.is_empty() {
            let place = length % 128;
            let (now, later) = rest.split_at(rest.len().min(128 - place));
            block[place..place + now.len()].copy_from_slice(now);
            (rest, length) = (later, length + now.len());
            if length.is_multiple_of(128) {
                blocks.push(words(&block));
            }
        }
    }
    let place = length % 128;
    block[place] = 0x80;
    block[place + 1..].fill(0);
    if place >= 112 {
        blocks.push(words(&block));
        block.fill(0);
    }
    block[112..].copy_from_slice(&(8 * length as u128).to_be_bytes());
    blocks.push(words(&block));
    blocks.len() - first
}

fn words(bytes: &[u8; 128]) -> Block {
    let mut words = [0; 16];
    for (word, part) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *word = u64::from_be_bytes(*part);
    }
    words
}

/// The digest of each lane's message, as eight words.
#[inline(always)]
pub(crate) fn hash<I: Isa>(isa: I, messages: &[&[Block]; LANES_MAX]) -> [I::V; 8] {
    let mut state = [isa.splat(0); 8];
    for (word, start) in state.iter_mut().zip(START) {
        *word = isa.splat(start);
    }
    let longest = messages.iter().map(|blocks| blocks.len()).max().unwrap_or(0);
    for at in 0..longest {
        // A lane whose message has ended hashes its last block again, and the result is dropped.
        let mut rows = [&[0; 16]; LANES_MAX];
        let mut running = 0;
        for (lane, blocks) in messages.iter().enumerate() {
            if let Some(block) = blocks.get(at).or(blocks.last()) {
                rows[lane] = block;
                running |= u8::from(at < blocks.len()) << lane;
            }
        }
        let next = compress(isa, &state, &rows);
        let mask = isa.mask(running);
        for (word, next) in state.iter_mut().zip(next) {
            *word = isa.choose(mask, next, *word);
        }
    }
    state
}

macro_rules! each_of_sixteen {
    ($at:ident => $call:expr) => {
        each_of_sixteen!($at => $call; 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)
    };
    ($at:ident => $call:expr; $($value:literal)*) => {
        $({ let $at = $value; $call; })*
    };
}

/// FIPS 180-4 section 6.4.2.
#[inline(always)]
fn compress<I: Isa>(isa: I, state: &[I::V; 8], rows: &[&Block; LANES_MAX]) -> [I::V; 8] {
    let mut halves = [[&[0; 8]; LANES_MAX]; 2];
    for (lane, row) in rows.iter().enumerate() {
        if let ([low, high], []) = row.as_chunks::<8>() {
            (halves[0][lane], halves[1][lane]) = (low, high);
        }
    }
    let (low, high) = (isa.columns(&halves[0]), isa.columns(&halves[1]));
    let mut schedule = [low[0]; 16];
    for index in 0..8 {
        (schedule[index], schedule[index + 8]) = (low[index], high[index]);
    }
    let mut s = *state;
    for first in (0..80).step_by(16) {
        let keys = &ROUND[first..first + 16];
        // Written out: in a loop of this size the compiler would keep the state in memory.
        each_of_sixteen!(at => round(isa, &mut s, &mut schedule, keys, at));
    }
    let mut sum = s;
    for (word, before) in sum.iter_mut().zip(state) {
        *word = isa.add(*word, *before);
    }
    sum
}

/// One round, and the schedule's word of sixteen rounds on in this one's place.
#[inline(always)]
fn round<I: Isa>(isa: I, s: &mut [I::V; 8], schedule: &mut [I::V; 16], keys: &[u64], at: usize) {
    let word = schedule[at];
    let big1 = isa.xor3(isa.rotate::<14, 50>(s[4]), isa.rotate::<18, 46>(s[4]), isa.rotate::<41, 23>(s[4]));
    let big0 = isa.xor3(isa.rotate::<28, 36>(s[0]), isa.rotate::<34, 30>(s[0]), isa.rotate::<39, 25>(s[0]));
    let keyed = isa.add(isa.add(s[7], word), isa.splat(keys[at]));
    let t1 = isa.add(isa.add(keyed, big1), isa.choose(s[4], s[5], s[6]));
    let t2 = isa.add(big0, isa.majority(s[0], s[1], s[2]));
    *s = [isa.add(t1, t2), s[0], s[1], s[2], isa.add(s[3], t1), s[4], s[5], s[6]];
    let (w1, w9, w14) = (schedule[(at + 1) % 16], schedule[(at + 9) % 16], schedule[(at + 14) % 16]);
    let small0 = isa.xor3(isa.rotate::<1, 63>(w1), isa.rotate::<8, 56>(w1), isa.shr::<7>(w1));
    let small1 = isa.xor3(isa.rotate::<19, 45>(w14), isa.rotate::<61, 3>(w14), isa.shr::<6>(w14));
    schedule[at] = isa.add(isa.add(word, small0), isa.add(w9, small1));
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha512};

    use super::*;
    use crate::isa::model::Model;

    // Messages of every length up to three blocks, beside others of other lengths, hash as the `sha2` crate says.
    #[test]
    fn lanes_hash_as_sha2() {
        let text: Vec<u8> = (0..400_u32).map(|at| (at * 7 + 3) as u8).collect();
        for length in 0..384 {
            let lengths: [usize; LANES_MAX] = std::array::from_fn(|lane| (length + 97 * lane) % 385);
            let mut blocks = Vec::new();
            let counts = lengths.map(|length| {
                let (start, cut) = (blocks.len(), length / 3);
                let count = pad(&mut blocks, &[&text[..cut], &text[cut..length]]);
                (start, count)
            });
            let messages = counts.map(|(start, count)| &blocks[start..start + count]);
            let state = hash(Model::<8>, &messages);
            for (lane, length) in lengths.into_iter().enumerate() {
                let digest: Vec<u8> = state.iter().flat_map(|word| word[lane].to_be_bytes()).collect();
                assert_eq!(digest, Sha512::digest(&text[..length]).to_vec(), "{length} bytes");
            }
        }
    }
}
