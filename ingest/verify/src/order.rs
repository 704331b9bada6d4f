//! 512-bit numbers modulo the group's order L = 2^252 + 27742317777372353535851937790883648493, several side by side.
//!
//! Limbs of 21 bits with signs. As 2^252 = -c modulo L, limb i from 12 up is worth `FOLD` times itself in the six limbs from
//! i - 12 on. The order of folds and carries is that of the reference implementation of Ed25519 (Bernstein et al. 2011).

use crate::isa::Isa;

/// -c in limbs: what 2^252 is worth.
const FOLD: [i32; 6] = [666_643, 470_296, 654_183, -997_805, 136_657, -683_901];
/// L as little-endian words.
pub(crate) const ORDER: [u64; 4] = [0x5812_631a_5cf5_d3ed, 0x14de_f9de_a2f7_9cd6, 0, 0x1000_0000_0000_0000];

/// Whether a number is below L: the one spelling of s that counts.
pub(crate) fn is_below_order(number: &[u64; 4]) -> bool {
    for (word, order) in number.iter().zip(&ORDER).rev() {
        if word != order {
            return word < order;
        }
    }
    false
}

/// A SHA-512 state, which encodes a number little-endian in bytes, modulo L: four little-endian words below L.
#[inline(always)]
pub(crate) fn reduce<I: Isa>(isa: I, state: [I::V; 8]) -> [I::V; 4] {
    let mut words = state;
    for word in &mut words {
        *word = isa.swap_bytes(*word);
    }
    let mut limbs = unpack(isa, words);
    // Limbs from 18 up: 21 bits, the last 29. A fold adds less than 6 * 2^29 * 2^20 to a limb.
    fold(isa, &mut limbs, 18, 24);
    carry_rounded(isa, &mut limbs, [6, 8, 10, 12, 14, 16]);
    carry_rounded(isa, &mut limbs, [7, 9, 11, 13, 15]);
    // Limbs 12 to 16 are within 2^20 of zero but for what they were handed, 17 below 2^31.
    fold(isa, &mut limbs, 12, 18);
    carry_rounded(isa, &mut limbs, [0, 2, 4, 6, 8, 10]);
    carry_rounded(isa, &mut limbs, [1, 3, 5, 7, 9, 11]);
    fold(isa, &mut limbs, 12, 13);
    carry_down(isa, &mut limbs, 12);
    // The number is within one L of the range; the last fold brings it there.
    fold(isa, &mut limbs, 12, 13);
    carry_down(isa, &mut limbs, 11);
    pack(isa, &limbs)
}

#[inline(always)]
fn unpack<I: Isa>(isa: I, words: [I::V; 8]) -> [I::V; 24] {
    let mask = isa.splat((1 << 21) - 1);
    let cut = |word: I::V| isa.and(word, mask);
    let w = words;
    // Limb i starts at bit 21 i.
    [
        cut(w[0]),
        cut(isa.shr::<21>(w[0])),
        cut(isa.shr::<42>(w[0])),
        cut(isa.or(isa.shr::<63>(w[0]), isa.shl::<1>(w[1]))),
        cut(isa.shr::<20>(w[1])),
        cut(isa.shr::<41>(w[1])),
        cut(isa.or(isa.shr::<62>(w[1]), isa.shl::<2>(w[2]))),
        cut(isa.shr::<19>(w[2])),
        cut(isa.shr::<40>(w[2])),
        cut(isa.or(isa.shr::<61>(w[2]), isa.shl::<3>(w[3]))),
        cut(isa.shr::<18>(w[3])),
        cut(isa.shr::<39>(w[3])),
        cut(isa.or(isa.shr::<60>(w[3]), isa.shl::<4>(w[4]))),
        cut(isa.shr::<17>(w[4])),
        cut(isa.shr::<38>(w[4])),
        cut(isa.or(isa.shr::<59>(w[4]), isa.shl::<5>(w[5]))),
        cut(isa.shr::<16>(w[5])),
        cut(isa.shr::<37>(w[5])),
        cut(isa.or(isa.shr::<58>(w[5]), isa.shl::<6>(w[6]))),
        cut(isa.shr::<15>(w[6])),
        cut(isa.shr::<36>(w[6])),
        cut(isa.or(isa.shr::<57>(w[6]), isa.shl::<7>(w[7]))),
        cut(isa.shr::<14>(w[7])),
        isa.shr::<35>(w[7]),
    ]
}

/// Replaces limbs `from .. end` by what they are worth twelve limbs down; each must fit 32 bits with its sign.
#[inline(always)]
fn fold<I: Isa>(isa: I, limbs: &mut [I::V; 24], from: usize, end: usize) {
    for at in from..end {
        debug_assert!(fits(isa, limbs[at], 31));
        for (index, worth) in FOLD.iter().enumerate() {
            let product = isa.mul_i32(limbs[at], isa.splat(i64::from(*worth).cast_unsigned()));
            limbs[at - 12 + index] = isa.add(limbs[at - 12 + index], product);
        }
        limbs[at] = isa.splat(0);
    }
}

/// For debug builds: whether each lane is within +-2^bits.
#[inline(always)]
fn fits<I: Isa>(isa: I, limb: I::V, bits: u32) -> bool {
    isa.store(limb)[..I::LANES].iter().all(|value| value.cast_signed().unsigned_abs() <= 1 << bits)
}

/// floor(value / 2^21) for values within +-2^62: AVX2 has no arithmetic shift of 64 bits.
#[inline(always)]
fn shift_down<I: Isa>(isa: I, value: I::V) -> I::V {
    debug_assert!(fits(isa, value, 62));
    let raised = isa.shr::<21>(isa.add(value, isa.splat(1 << 62)));
    isa.sub(raised, isa.splat(1 << 41))
}

/// Leaves each of these limbs within +-2^20, and hands the rest up.
#[inline(always)]
fn carry_rounded<I: Isa, const N: usize>(isa: I, limbs: &mut [I::V; 24], places: [usize; N]) {
    for at in places {
        let over = shift_down(isa, isa.add(limbs[at], isa.splat(1 << 20)));
        limbs[at + 1] = isa.add(limbs[at + 1], over);
        limbs[at] = isa.sub(limbs[at], isa.shl::<21>(over));
    }
}

/// Leaves limbs 0 to `end - 1` within 0 .. 2^21, and hands the rest up.
#[inline(always)]
fn carry_down<I: Isa>(isa: I, limbs: &mut [I::V; 24], end: usize) {
    for at in 0..end {
        let over = shift_down(isa, limbs[at]);
        limbs[at + 1] = isa.add(limbs[at + 1], over);
        limbs[at] = isa.sub(limbs[at], isa.shl::<21>(over));
    }
}

#[inline(always)]
fn pack<I: Isa>(isa: I, s: &[I::V; 24]) -> [I::V; 4] {
    let join = |a, b, c, d| isa.or(isa.or(a, b), isa.or(c, d));
    [
        join(s[0], isa.shl::<21>(s[1]), isa.shl::<42>(s[2]), isa.shl::<63>(s[3])),
        join(isa.shr::<1>(s[3]), isa.shl::<20>(s[4]), isa.shl::<41>(s[5]), isa.shl::<62>(s[6])),
        join(isa.shr::<2>(s[6]), isa.shl::<19>(s[7]), isa.shl::<40>(s[8]), isa.shl::<61>(s[9])),
        join(isa.shr::<3>(s[9]), isa.shl::<18>(s[10]), isa.shl::<39>(s[11]), isa.splat(0)),
    ]
}

#[cfg(test)]
mod tests {
    use curve25519_dalek::scalar::Scalar;

    use super::*;
    use crate::isa::model::Model;

    fn bytes(words: &[u64]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// All numbers at once: 0, the largest, L and its neighbours at several heights, and random ones.
    fn numbers() -> Vec<[u64; 8]> {
        let mut numbers = vec![[0; 8], [u64::MAX; 8], [0, 0, 0, u64::MAX, 0, 0, 0, u64::MAX]];
        for height in 0..5 {
            for change in [-1, 0, 1] {
                let mut number = [0; 8];
                number[height..height + 4].copy_from_slice(&ORDER);
                number[height] = number[height].wrapping_add_signed(change);
                numbers.push(number);
            }
        }
        let mut word = 1_u64;
        numbers.extend((0..4_000).map(|_| {
            std::array::from_fn(|_| {
                word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                word ^ word >> 29
            })
        }));
        numbers
    }

    // Numbers of 512 bits reduce to what curve25519-dalek reduces them to, and so below L.
    #[test]
    fn reduces_as_dalek() {
        for number in numbers() {
            let state = number.map(|word| [word.swap_bytes(); 8]);
            let reduced = reduce(Model::<8>, state).map(|word| word[5]);
            let wide: [u8; 64] = bytes(&number).try_into().unwrap();
            assert_eq!(bytes(&reduced), Scalar::from_bytes_mod_order_wide(&wide).to_bytes(), "{number:x?}");
            assert!(is_below_order(&reduced));
        }
    }

    // s counts only below L: L - 1 does, L does not, as curve25519-dalek says.
    #[test]
    fn the_order_is_the_bound() {
        for number in numbers() {
            let number: [u64; 4] = std::array::from_fn(|index| number[index]);
            let encoding: [u8; 32] = bytes(&number).try_into().unwrap();
            let is_canonical = bool::from(Scalar::from_canonical_bytes(encoding).is_some());
            assert_eq!(is_below_order(&number), is_canonical, "{number:x?}");
        }
    }
}
