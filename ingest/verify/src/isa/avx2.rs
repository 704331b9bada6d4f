//! Four lanes: AVX2 with FMA (Haswell, Zen and later). One intrinsic per operation and nothing else; what it means is tested against [`super::model`].
#![expect(unsafe_code, reason = "intrinsics, called where the CPU was asked first")]

use std::arch::x86_64::*;

use super::fused::{self, BOTH, Fused, HIGH, LOW};
use super::{Isa, Isa32, LANES_MAX, Multiply, Program, ROWS};

/// Exists only where the CPU has AVX2 and FMA.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx2(());

impl Avx2 {
    /// The machine, if this is one.
    pub(crate) fn here() -> Option<Avx2> {
        let has_all =
            std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma");
        has_all.then_some(Avx2(()))
    }

    /// Runs a program as AVX2 code: what is inlined into it becomes instructions instead of calls.
    #[inline(always)]
    pub(crate) fn run<P: Program<Avx2>>(self, program: P) -> P::Output {
        #[target_feature(enable = "avx2,fma")]
        fn inner<P: Program<Avx2>>(machine: Avx2, program: P) -> P::Output {
            program.run(machine)
        }
        // SAFETY: `self` exists only where the CPU has AVX2 and FMA.
        unsafe { inner(self, program) }
    }
}

/// An intrinsic of a machine that is there, without pointers.
macro_rules! on {
    ($call:expr) => {
        // SAFETY: `self` exists only where the CPU has AVX2; the intrinsic takes and gives values alone.
        unsafe { $call }
    };
}

/// Four words in memory, any alignment.
#[inline(always)]
fn load(_: Avx2, words: &[u64; 4]) -> __m256i {
    // SAFETY: the machine's value exists only where the CPU has AVX2; the reference covers the 32 bytes read.
    unsafe { _mm256_loadu_si256(words.as_ptr().cast()) }
}

#[inline(always)]
fn quad(words: &[u64; 8], half: usize) -> &[u64; 4] {
    let (low, high) = words.split_at(4);
    let part = if half == 0 { low } else { high };
    part.first_chunk().unwrap_or(&[0; 4])
}

impl Isa for Avx2 {
    const LANES: usize = 4;
    type V = __m256i;

    #[inline(always)]
    fn splat(self, value: u64) -> __m256i {
        on!(_mm256_set1_epi64x(value.cast_signed()))
    }
    #[inline(always)]
    fn load(self, values: &[u64; LANES_MAX]) -> __m256i {
        load(self, quad(values, 0))
    }
    #[inline(always)]
    fn store(self, vector: __m256i) -> [u64; LANES_MAX] {
        let mut values = [0; LANES_MAX];
        // SAFETY: the CPU has AVX2; 32 of the array's 64 bytes are written.
        unsafe { _mm256_storeu_si256(values.as_mut_ptr().cast(), vector) };
        values
    }
    #[inline(always)]
    fn columns(self, rows: &[&[u64; 8]; LANES_MAX]) -> [__m256i; 8] {
        let mut columns = [self.splat(0); 8];
        for half in 0..2 {
            let (a, b) = (load(self, quad(rows[0], half)), load(self, quad(rows[1], half)));
            let (c, d) = (load(self, quad(rows[2], half)), load(self, quad(rows[3], half)));
            let (ab_even, ab_odd) = on!((_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b)));
            let (cd_even, cd_odd) = on!((_mm256_unpacklo_epi64(c, d), _mm256_unpackhi_epi64(c, d)));
            columns[4 * half] = on!(_mm256_permute2x128_si256::<0x20>(ab_even, cd_even));
            columns[4 * half + 1] = on!(_mm256_permute2x128_si256::<0x20>(ab_odd, cd_odd));
            columns[4 * half + 2] = on!(_mm256_permute2x128_si256::<0x31>(ab_even, cd_even));
            columns[4 * half + 3] = on!(_mm256_permute2x128_si256::<0x31>(ab_odd, cd_odd));
        }
        columns
    }
    #[inline(always)]
    fn mask(self, bits: u8) -> __m256i {
        let lanes = on!(_mm256_set_epi64x(8, 4, 2, 1));
        on!(_mm256_cmpeq_epi64(_mm256_and_si256(self.splat(u64::from(bits)), lanes), lanes))
    }
    #[inline(always)]
    fn add(self, a: __m256i, b: __m256i) -> __m256i {
        on!(_mm256_add_epi64(a, b))
    }
    #[inline(always)]
    fn sub(self, a: __m256i, b: __m256i) -> __m256i {
        on!(_mm256_sub_epi64(a, b))
    }
    #[inline(always)]
    fn and(self, a: __m256i, b: __m256i) -> __m256i {
        on!(_mm256_and_si256(a, b))
    }
    #[inline(always)]
    fn or(self, a: __m256i, b: __m256i) -> __m256i {
        on!(_mm256_or_si256(a, b))
    }
    #[inline(always)]
    fn xor(self, a: __m256i, b: __m256i) -> __m256i {
        on!(_mm256_xor_si256(a, b))
    }
    #[inline(always)]
    fn shl<const BITS: i32>(self, a: __m256i) -> __m256i {
        on!(_mm256_slli_epi64::<BITS>(a))
    }
    #[inline(always)]
    fn shr<const BITS: i32>(self, a: __m256i) -> __m256i {
        on!(_mm256_srli_epi64::<BITS>(a))
    }
    #[inline(always)]
    fn shl_by(self, a: __m256i, bits: u32) -> __m256i {
        on!(_mm256_sll_epi64(a, _mm_cvtsi32_si128(bits.cast_signed())))
    }
    #[inline(always)]
    fn shr_by(self, a: __m256i, bits: u32) -> __m256i {
        on!(_mm256_srl_epi64(a, _mm_cvtsi32_si128(bits.cast_signed())))
    }
    #[inline(always)]
    fn swap_bytes(self, a: __m256i) -> __m256i {
        let order = on!(_mm256_set_epi64x(
            0x0809_0a0b_0c0d_0e0f,
            0x0001_0203_0405_0607,
            0x0809_0a0b_0c0d_0e0f,
            0x0001_0203_0405_0607
        ));
        on!(_mm256_shuffle_epi8(a, order))
    }
    #[inline(always)]
    fn mul_u32(self, a: __m256i, b: __m256i) -> __m256i {
        on!(_mm256_mul_epu32(a, b))
    }
    #[inline(always)]
    fn mul_i32(self, a: __m256i, b: __m256i) -> __m256i {
        on!(_mm256_mul_epi32(a, b))
    }
    #[inline(always)]
    fn prefetch(self, lines: &[[u64; 8]; 2]) {
        for line in lines {
            // SAFETY: a prefetch reads nothing and never faults; SSE is part of x86-64.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
        }
    }
}

/// Eight words in memory, any alignment.
#[inline(always)]
fn load32(_: Avx2, words: &[u32; 8]) -> __m256i {
    // SAFETY: the machine's value exists only where the CPU has AVX2; the reference covers the 32 bytes read.
    unsafe { _mm256_loadu_si256(words.as_ptr().cast()) }
}

/// Eight rows of eight words: exchanges of neighbours, of pairs, of fours.
#[inline(always)]
fn turn(machine: Avx2, rows: &[[u32; 16]; ROWS], half: usize) -> [__m256i; 8] {
    let mut r = [machine.splat(0); 8];
    for (vector, row) in r.iter_mut().zip(rows) {
        if let ([low, high], []) = row.as_chunks::<8>() {
            *vector = load32(machine, if half == 0 { low } else { high });
        }
    }
    let mut pairs = [r[0]; 8];
    for index in [0, 2, 4, 6] {
        pairs[index] = on!(_mm256_unpacklo_epi32(r[index], r[index + 1]));
        pairs[index + 1] = on!(_mm256_unpackhi_epi32(r[index], r[index + 1]));
    }
    let mut fours = [r[0]; 8];
    for index in [0, 4] {
        for high in [0, 1] {
            let (a, b) = (pairs[index + high], pairs[index + 2 + high]);
            fours[index + 2 * high] = on!(_mm256_unpacklo_epi64(a, b));
            fours[index + 2 * high + 1] = on!(_mm256_unpackhi_epi64(a, b));
        }
    }
    let mut columns = [r[0]; 8];
    for index in 0..4 {
        columns[index] = on!(_mm256_permute2x128_si256::<0x20>(fours[index], fours[index + 4]));
        columns[index + 4] = on!(_mm256_permute2x128_si256::<0x31>(fours[index], fours[index + 4]));
    }
    columns
}

impl Isa32 for Avx2 {
    type W = __m256i;

    #[inline(always)]
    fn splat32(self, value: u32) -> __m256i {
        on!(_mm256_set1_epi32(value.cast_signed()))
    }
    #[inline(always)]
    fn load32(self, values: &[u32; ROWS]) -> __m256i {
        load32(self, values)
    }
    #[inline(always)]
    fn store32(self, vector: __m256i) -> [u32; ROWS] {
        let mut values = [0; ROWS];
        // SAFETY: the CPU has AVX2; the array's 32 bytes are written.
        unsafe { _mm256_storeu_si256(values.as_mut_ptr().cast(), vector) };
        values
    }
    #[inline(always)]
    fn columns32(self, rows: &[[u32; 16]; ROWS]) -> [__m256i; 16] {
        let (low, high) = (turn(self, rows, 0), turn(self, rows, 1));
        let mut columns = [low[0]; 16];
        for index in 0..8 {
            (columns[index], columns[index + 8]) = (low[index], high[index]);
        }
        columns
    }
    #[inline(always)]
    fn mask32(self, bits: u8) -> __m256i {
        let lanes = on!(_mm256_set_epi32(128, 64, 32, 16, 8, 4, 2, 1));
        on!(_mm256_cmpeq_epi32(_mm256_and_si256(self.splat32(u32::from(bits)), lanes), lanes))
    }
    #[inline(always)]
    fn add32(self, a: __m256i, b: __m256i) -> __m256i {
        on!(_mm256_add_epi32(a, b))
    }
    #[inline(always)]
    fn xor32(self, a: __m256i, b: __m256i) -> __m256i {
        on!(_mm256_xor_si256(a, b))
    }
    #[inline(always)]
    fn choose32(self, mask: __m256i, yes: __m256i, no: __m256i) -> __m256i {
        on!(_mm256_blendv_epi8(no, yes, mask))
    }
    #[inline(always)]
    fn rotate32<const RIGHT: i32, const LEFT: i32>(self, a: __m256i) -> __m256i {
        on!(_mm256_or_si256(_mm256_srli_epi32::<RIGHT>(a), _mm256_slli_epi32::<LEFT>(a)))
    }
}

impl Multiply for Avx2 {
    #[inline(always)]
    fn product(self, a: &[__m256i; 5], b: &[__m256i; 5]) -> [__m256i; 10] {
        fused::product(self, a, b)
    }
    #[inline(always)]
    fn square(self, a: &[__m256i; 5]) -> [__m256i; 10] {
        fused::square(self, a)
    }
}

impl Fused for Avx2 {
    type F = __m256d;

    #[inline(always)]
    fn float(self, a: __m256i) -> __m256d {
        let two_52 = self.splat(LOW);
        on!(_mm256_sub_pd(_mm256_castsi256_pd(_mm256_or_si256(a, two_52)), _mm256_castsi256_pd(two_52)))
    }
    #[inline(always)]
    fn parts(self, a: __m256d, b: __m256d) -> [__m256i; 2] {
        let (high, low) =
            (on!(_mm256_castsi256_pd(self.splat(HIGH))), on!(_mm256_castsi256_pd(self.splat(BOTH))));
        let above = on!(_mm256_fmadd_pd(a, b, high));
        let below = on!(_mm256_fmadd_pd(a, b, _mm256_sub_pd(low, above)));
        on!([_mm256_castpd_si256(below), _mm256_castpd_si256(above)])
    }
    #[inline(always)]
    fn after(self, factor: __m256d, sum: __m256i) -> (__m256d, __m256i) {
        on!(after(factor, sum))
    }
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn after(mut factor: __m256d, mut sum: __m256i) -> (__m256d, __m256i) {
    // SAFETY: no instruction at all; both registers keep their values.
    unsafe {
        std::arch::asm!("/* {0} {1} */", inout(ymm_reg) factor, inout(ymm_reg) sum,
            options(pure, nomem, nostack, preserves_flags));
    }
    (factor, sum)
}
