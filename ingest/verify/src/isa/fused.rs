//! Products of 51-bit limbs by fused multiply-add of doubles, for machines without 52-bit multiply-add: after Emmart, Zheng
//! and Weems, "Faster modular exponentiation using double precision floating point arithmetic on the GPU" (2018), but with
//! the rounding that every CPU starts with.
//!
//! For whole a, b with ab < 2^103, `above` = ab + 2^103 rounded lies in the binade of 2^103, where neighbours are 2^51 apart: it
//! is 2^103 + H * 2^51 with ab = H * 2^51 + L, |L| <= 2^50. Then 2^103 + 3 * 2^51 - above = (3 - H) * 2^51 is exact, and so is
//! `below` = ab + that = L + 3 * 2^51, in the binade of 2^52, where neighbours are 1 apart. The bits of the two doubles, as
//! whole numbers, are HIGH + H and LOW + 2^51 + L: they are summed as they are, and what they have too much is taken off
//! where the sums start.

use super::Isa;

/// Bits of 2^52, of 2^103 and of 2^103 + 3 * 2^51.
pub(crate) const LOW: u64 = (1023 + 52) << 52;
pub(crate) const HIGH: u64 = (1023 + 103) << 52;
pub(crate) const BOTH: u64 = HIGH + 3;
/// What a low part has too much: its exponent, and the 2^51 that keep it positive.
const LOW_OFFSET: u64 = LOW + (1 << 51);
/// 128 p in limbs: what sums start from, so that low parts below zero leave none below zero.
const BIAS: [u64; 5] = {
    let limb = (1 << 51) - 1;
    [(limb - 18) << 7, limb << 7, limb << 7, limb << 7, limb << 7]
};

/// A machine that multiplies and adds doubles with one rounding, to nearest.
pub(crate) trait Fused: Isa {
    /// A double in each lane.
    type F: Copy;

    /// Of whole numbers below 2^52.
    fn float(self, a: Self::V) -> Self::F;
    /// The bits of `below` and `above`.
    fn parts(self, a: Self::F, b: Self::F) -> [Self::V; 2];
    /// The same two, of which the compiler believes that the factor depends on the sum. Left alone it computes the parts of
    /// all products before it adds any, and has no registers for them.
    fn after(self, factor: Self::F, sum: Self::V) -> (Self::F, Self::V);
}

/// Where columns start: `low[k]` low parts and `low[k - 1]` high ones will be added to column k.
const fn starts(low: [u64; 10], halves: u64) -> [u64; 10] {
    let (mut starts, mut k) = ([0; 10], 0);
    while k < 10 {
        let high = if k == 0 { 0 } else { low[k - 1] };
        let excess = LOW_OFFSET.wrapping_mul(low[k]).wrapping_add(HIGH.wrapping_mul(high));
        let bias = if k < 5 { BIAS[k] } else { 0 };
        starts[k] = (bias / halves).wrapping_sub(excess);
        k += 1;
    }
    starts
}

const PRODUCT: [u64; 10] = starts([1, 2, 3, 4, 5, 4, 3, 2, 1, 0], 1);

/// Ten columns, see [`super::Multiply`].
#[inline(always)]
pub(crate) fn product<I: Fused>(isa: I, a: &[I::V; 5], b: &[I::V; 5]) -> [I::V; 10] {
    let b = [isa.float(b[0]), isa.float(b[1]), isa.float(b[2]), isa.float(b[3]), isa.float(b[4])];
    let mut columns = [isa.splat(0); 10];
    for (column, start) in columns.iter_mut().zip(PRODUCT) {
        *column = isa.splat(start);
    }
    // Written out, or the compiler keeps a loop, and with it the columns in memory.
    row(isa, &mut columns, a, &b, 0);
    row(isa, &mut columns, a, &b, 1);
    row(isa, &mut columns, a, &b, 2);
    row(isa, &mut columns, a, &b, 3);
    row(isa, &mut columns, a, &b, 4);
    columns
}

/// Limb `i` of a with all of b.
#[inline(always)]
fn row<I: Fused>(isa: I, columns: &mut [I::V; 10], a: &[I::V; 5], b: &[I::F; 5], i: usize) {
    let mut a = isa.float(a[i]);
    for j in 0..5 {
        let [low, high] = isa.parts(a, b[j]);
        columns[i + j] = isa.add(columns[i + j], low);
        (a, columns[i + j + 1]) = isa.after(a, isa.add(columns[i + j + 1], high));
    }
}

/// Pairs of different limbs, which are doubled; then each limb with itself.
const PAIRS: [u64; 10] = starts([0, 1, 1, 2, 2, 2, 1, 1, 0, 0], 2);
const SELVES: [u64; 10] = {
    let (all, mut k) = (starts([1, 0, 1, 0, 1, 0, 1, 0, 1, 0], 1), 0);
    let mut selves = [0; 10];
    while k < 10 {
        // The bias came with the pairs.
        selves[k] = all[k].wrapping_sub(if k < 5 { BIAS[k] } else { 0 });
        k += 1;
    }
    selves
};

/// Ten columns, see [`super::Multiply`].
#[inline(always)]
pub(crate) fn square<I: Fused>(isa: I, a: &[I::V; 5]) -> [I::V; 10] {
    let mut a = [isa.float(a[0]), isa.float(a[1]), isa.float(a[2]), isa.float(a[3]), isa.float(a[4])];
    let mut columns = [isa.splat(0); 10];
    for (k, column) in columns.iter_mut().enumerate() {
        // Half of what each limb with itself has too much is taken off here, before doubling.
        *column = isa.splat(PAIRS[k].wrapping_add(halved(SELVES[k])));
    }
    for i in 0..5 {
        for j in i + 1..5 {
            let [low, high] = isa.parts(a[i], a[j]);
            columns[i + j] = isa.add(columns[i + j], low);
            (a[i], columns[i + j + 1]) = isa.after(a[i], isa.add(columns[i + j + 1], high));
        }
    }
    for column in &mut columns {
        *column = isa.add(*column, *column);
    }
    for i in 0..5 {
        let [low, high] = isa.parts(a[i], a[i]);
        columns[2 * i] = isa.add(columns[2 * i], low);
        columns[2 * i + 1] = isa.add(columns[2 * i + 1], high);
    }
    columns
}

/// Half of an even number; its double is the number again, modulo 2^64.
const fn halved(number: u64) -> u64 {
    assert!(number.is_multiple_of(2));
    number / 2
}
