//! Eight lanes: AVX-512, with IFMA (Ice Lake, Zen 4 and later) or without (Skylake-SP, Cascade Lake), where doubles multiply.
//! One intrinsic per operation and nothing else; what it means is tested against [`super::model`].
#![expect(unsafe_code, reason = "intrinsics, called where the CPU was asked first")]

use std::arch::x86_64::*;

use super::fused::{self, BOTH, Fused, HIGH};
use super::{Isa, LANES_MAX, Multiply, Program};

/// Exists only where the CPU has AVX-512 F, BW, DQ and VL; with `WITH_IFMA` only where it has that too.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx512<const WITH_IFMA: bool>(());

/// Without 52-bit multiply-add.
pub(crate) type Avx512F = Avx512<false>;
/// With it.
pub(crate) type Avx512Ifma = Avx512<true>;

impl Avx512F {
    /// The machine, if this is one.
    pub(crate) fn here() -> Option<Avx512F> {
        let has_all = std::arch::is_x86_feature_detected!("avx512f")
            && std::arch::is_x86_feature_detected!("avx512bw")
            && std::arch::is_x86_feature_detected!("avx512dq")
            && std::arch::is_x86_feature_detected!("avx512vl");
        has_all.then_some(Avx512(()))
    }

    /// Runs a program as AVX-512 code: what is inlined into it becomes instructions instead of calls.
    #[inline(always)]
    pub(crate) fn run<P: Program<Avx512F>>(self, program: P) -> P::Output {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
        fn inner<P: Program<Avx512F>>(machine: Avx512F, program: P) -> P::Output {
            program.run(machine)
        }
        // SAFETY: `self` exists only where the CPU has all four.
        unsafe { inner(self, program) }
    }
}

impl Avx512Ifma {
    /// The machine, if this is one.
    pub(crate) fn here() -> Option<Avx512Ifma> {
        let has_all = Avx512F::here().is_some() && std::arch::is_x86_feature_detected!("avx512ifma");
        has_all.then_some(Avx512(()))
    }

    /// As [`Avx512F::run`], with IFMA.
    #[inline(always)]
    pub(crate) fn run<P: Program<Avx512Ifma>>(self, program: P) -> P::Output {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512ifma")]
        fn inner<P: Program<Avx512Ifma>>(machine: Avx512Ifma, program: P) -> P::Output {
            program.run(machine)
        }
        // SAFETY: `self` exists only where the CPU has all five.
        unsafe { inner(self, program) }
    }
}

/// An intrinsic of a machine that is there, without pointers.
macro_rules! on {
    ($call:expr) => {
        // SAFETY: `self` exists only where the CPU has the instruction; the intrinsic takes and gives values alone.
        unsafe { $call }
    };
}

#[inline(always)]
fn load<const WITH_IFMA: bool>(_: Avx512<WITH_IFMA>, words: &[u64; 8]) -> __m512i {
    // SAFETY: the machine's value exists only where the CPU has AVX-512; the reference covers the 64 bytes read.
    unsafe { _mm512_loadu_si512(words.as_ptr().cast()) }
}

impl<const WITH_IFMA: bool> Isa for Avx512<WITH_IFMA> {
    const LANES: usize = 8;
    type V = __m512i;

    #[inline(always)]
    fn splat(self, value: u64) -> __m512i {
        on!(_mm512_set1_epi64(value.cast_signed()))
    }
    #[inline(always)]
    fn load(self, values: &[u64; LANES_MAX]) -> __m512i {
        load(self, values)
    }
    #[inline(always)]
    fn store(self, vector: __m512i) -> [u64; LANES_MAX] {
        let mut values = [0; LANES_MAX];
        // SAFETY: the CPU has AVX-512; the array's 64 bytes are written.
        unsafe { _mm512_storeu_si512(values.as_mut_ptr().cast(), vector) };
        values
    }
    /// Three rounds of exchanges: of neighbours, of pairs, of fours.
    #[inline(always)]
    fn columns(self, rows: &[&[u64; 8]; LANES_MAX]) -> [__m512i; 8] {
        let mut pairs = [self.splat(0); 8];
        for index in [0, 2, 4, 6] {
            let (a, b) = (load(self, rows[index]), load(self, rows[index + 1]));
            pairs[index] = on!(_mm512_unpacklo_epi64(a, b));
            pairs[index + 1] = on!(_mm512_unpackhi_epi64(a, b));
        }
        // Quarters of 128 bits: column c of rows 0 to 3 and of rows 4 to 7 stand in quarters c / 2.
        let mut columns = [self.splat(0); 8];
        for odd in 0..2 {
            let (a, b, c, d) = (pairs[odd], pairs[2 + odd], pairs[4 + odd], pairs[6 + odd]);
            let (ab_low, cd_low) =
                on!((_mm512_shuffle_i64x2::<0x44>(a, b), _mm512_shuffle_i64x2::<0x44>(c, d)));
            let (ab_high, cd_high) =
                on!((_mm512_shuffle_i64x2::<0xee>(a, b), _mm512_shuffle_i64x2::<0xee>(c, d)));
            columns[odd] = on!(_mm512_shuffle_i64x2::<0x88>(ab_low, cd_low));
            columns[2 + odd] = on!(_mm512_shuffle_i64x2::<0xdd>(ab_low, cd_low));
            columns[4 + odd] = on!(_mm512_shuffle_i64x2::<0x88>(ab_high, cd_high));
            columns[6 + odd] = on!(_mm512_shuffle_i64x2::<0xdd>(ab_high, cd_high));
        }
        columns
    }
    #[inline(always)]
    fn mask(self, bits: u8) -> __m512i {
        on!(_mm512_movm_epi64(bits))
    }
    #[inline(always)]
    fn add(self, a: __m512i, b: __m512i) -> __m512i {
        on!(_mm512_add_epi64(a, b))
    }
    #[inline(always)]
    fn sub(self, a: __m512i, b: __m512i) -> __m512i {
        on!(_mm512_sub_epi64(a, b))
    }
    #[inline(always)]
    fn and(self, a: __m512i, b: __m512i) -> __m512i {
        on!(_mm512_and_si512(a, b))
    }
    #[inline(always)]
    fn or(self, a: __m512i, b: __m512i) -> __m512i {
        on!(_mm512_or_si512(a, b))
    }
    #[inline(always)]
    fn xor(self, a: __m512i, b: __m512i) -> __m512i {
        on!(_mm512_xor_si512(a, b))
    }
    #[inline(always)]
    fn xor3(self, a: __m512i, b: __m512i, c: __m512i) -> __m512i {
        on!(_mm512_ternarylogic_epi64::<0x96>(a, b, c))
    }
    #[inline(always)]
    fn choose(self, mask: __m512i, yes: __m512i, no: __m512i) -> __m512i {
        on!(_mm512_ternarylogic_epi64::<0xca>(mask, yes, no))
    }
    #[inline(always)]
    fn majority(self, a: __m512i, b: __m512i, c: __m512i) -> __m512i {
        on!(_mm512_ternarylogic_epi64::<0xe8>(a, b, c))
    }
    #[inline(always)]
    fn shl<const BITS: i32>(self, a: __m512i) -> __m512i {
        // The intrinsic's parameter is unsigned where its AVX2 sister's is not.
        on!(_mm512_sll_epi64(a, _mm_cvtsi32_si128(BITS)))
    }
    #[inline(always)]
    fn shr<const BITS: i32>(self, a: __m512i) -> __m512i {
        on!(_mm512_srl_epi64(a, _mm_cvtsi32_si128(BITS)))
    }
    #[inline(always)]
    fn shl_by(self, a: __m512i, bits: u32) -> __m512i {
        on!(_mm512_sll_epi64(a, _mm_cvtsi32_si128(bits.cast_signed())))
    }
    #[inline(always)]
    fn shr_by(self, a: __m512i, bits: u32) -> __m512i {
        on!(_mm512_srl_epi64(a, _mm_cvtsi32_si128(bits.cast_signed())))
    }
    #[inline(always)]
    fn rotate<const RIGHT: i32, const LEFT: i32>(self, a: __m512i) -> __m512i {
        on!(_mm512_ror_epi64::<RIGHT>(a))
    }
    #[inline(always)]
    fn swap_bytes(self, a: __m512i) -> __m512i {
        let order = on!(_mm512_set4_epi64(
            0x0809_0a0b_0c0d_0e0f,
            0x0001_0203_0405_0607,
            0x0809_0a0b_0c0d_0e0f,
            0x0001_0203_0405_0607
        ));
        on!(_mm512_shuffle_epi8(a, order))
    }
    #[inline(always)]
    fn mul_u32(self, a: __m512i, b: __m512i) -> __m512i {
        on!(_mm512_mul_epu32(a, b))
    }
    #[inline(always)]
    fn mul_i32(self, a: __m512i, b: __m512i) -> __m512i {
        on!(_mm512_mul_epi32(a, b))
    }
    #[inline(always)]
    fn prefetch(self, lines: &[[u64; 8]; 2]) {
        for line in lines {
            // SAFETY: a prefetch reads nothing and never faults; SSE is part of x86-64.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
        }
    }
}

/// 52-bit multiply-add gives a product's low 52 bits and its high ones: a high part belongs one column up, and counts twice,
/// as 52 is one more than 51.
impl Multiply for Avx512Ifma {
    #[inline(always)]
    fn product(self, a: &[__m512i; 5], b: &[__m512i; 5]) -> [__m512i; 10] {
        let (mut low, mut high) = ([self.splat(0); 9], [self.splat(0); 9]);
        for i in 0..5 {
            for j in 0..5 {
                low[i + j] = on!(_mm512_madd52lo_epu64(low[i + j], a[i], b[j]));
                high[i + j] = on!(_mm512_madd52hi_epu64(high[i + j], a[i], b[j]));
            }
        }
        join(self, &low, &high)
    }

    /// Pairs of different limbs once, then doubled.
    #[inline(always)]
    fn square(self, a: &[__m512i; 5]) -> [__m512i; 10] {
        let (mut low, mut high) = ([self.splat(0); 9], [self.splat(0); 9]);
        for i in 0..5 {
            for j in i + 1..5 {
                low[i + j] = on!(_mm512_madd52lo_epu64(low[i + j], a[i], a[j]));
                high[i + j] = on!(_mm512_madd52hi_epu64(high[i + j], a[i], a[j]));
            }
        }
        for column in 0..9 {
            low[column] = self.shl::<1>(low[column]);
            high[column] = self.shl::<1>(high[column]);
        }
        for i in 0..5 {
            low[2 * i] = on!(_mm512_madd52lo_epu64(low[2 * i], a[i], a[i]));
            high[2 * i] = on!(_mm512_madd52hi_epu64(high[2 * i], a[i], a[i]));
        }
        join(self, &low, &high)
    }
}

#[inline(always)]
fn join(machine: Avx512Ifma, low: &[__m512i; 9], high: &[__m512i; 9]) -> [__m512i; 10] {
    let mut columns = [low[0]; 10];
    for column in 1..9 {
        columns[column] = machine.add(low[column], machine.shl::<1>(high[column - 1]));
    }
    columns[9] = machine.shl::<1>(high[8]);
    columns
}

impl Multiply for Avx512F {
    #[inline(always)]
    fn product(self, a: &[__m512i; 5], b: &[__m512i; 5]) -> [__m512i; 10] {
        fused::product(self, a, b)
    }
    #[inline(always)]
    fn square(self, a: &[__m512i; 5]) -> [__m512i; 10] {
        fused::square(self, a)
    }
}

impl Fused for Avx512F {
    type F = __m512d;

    #[inline(always)]
    fn float(self, a: __m512i) -> __m512d {
        on!(_mm512_cvtepu64_pd(a))
    }
    #[inline(always)]
    fn parts(self, a: __m512d, b: __m512d) -> [__m512i; 2] {
        let (high, low) =
            (on!(_mm512_castsi512_pd(self.splat(HIGH))), on!(_mm512_castsi512_pd(self.splat(BOTH))));
        let above = on!(_mm512_fmadd_pd(a, b, high));
        let below = on!(_mm512_fmadd_pd(a, b, _mm512_sub_pd(low, above)));
        on!([_mm512_castpd_si512(below), _mm512_castpd_si512(above)])
    }
    #[inline(always)]
    fn after(self, factor: __m512d, sum: __m512i) -> (__m512d, __m512i) {
        on!(after(factor, sum))
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn after(mut factor: __m512d, mut sum: __m512i) -> (__m512d, __m512i) {
    // SAFETY: no instruction at all; both registers keep their values.
    unsafe {
        std::arch::asm!("/* {0} {1} */", inout(zmm_reg) factor, inout(zmm_reg) sum,
            options(pure, nomem, nostack, preserves_flags));
    }
    (factor, sum)
}
