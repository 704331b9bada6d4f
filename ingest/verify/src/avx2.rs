//! Four signatures at once in the four 64-bit lanes of AVX2: the same combs, the same formulas, ten limbs of 26 and 25 bits.
//! Nothing here decides a verdict; it gives points, and [`crate::fast`] compares.
//!
//! Limb `i` has 26 bits if `i` is even, 25 if odd, so a 51-bit limb of a table entry is two limbs here. *Tight*: even limbs
//! at most 2^26, odd ones at most 2^25 + 2^17; products are tight. Even limbs rule the bounds below, odd ones are half.
//! A product f * g needs even limbs of f below 2^28.4 and of g below 2^27.7: 19 g then fits 32 bits, and a column of at most
//! 124.5 f g stays below 2^63 for every pair used here, the largest being 2.5 * 2^27 and 1.5 * 2^27.
#![expect(
    unsafe_code,
    reason = "the one call from code that does not know the CPU into code that needs AVX2"
)]

use std::arch::x86_64::*;

use crate::comb::{Digits, Table};
use crate::field::Fe;
use crate::point::{Entry, Point};

/// Signatures at once.
pub(crate) const LANES: usize = 4;

/// Whether this CPU can.
pub(crate) fn is_here() -> bool {
    std::arch::is_x86_feature_detected!("avx2")
}

/// What is multiplied in one lane: key's table and number, both of one shape in all lanes, and the base point's number.
pub(crate) struct Lane<'t> {
    pub(crate) table: &'t Table,
    pub(crate) digits: Digits,
    pub(crate) base_digits: Digits,
}

/// For each lane its number times its table's point, plus its other number times the base table's point.
///
/// All tables must be of one shape. `None` on a CPU without AVX2.
pub(crate) fn multiply(lanes: &[Lane<'_>; LANES], base: &Table) -> Option<[Point; LANES]> {
    // SAFETY: AVX2 was just found on this CPU.
    is_here().then(|| unsafe { sum(lanes, base) })
}

#[derive(Clone, Copy)]
struct Fe4([__m256i; 10]);

struct Point4 {
    x: Fe4,
    y: Fe4,
    z: Fe4,
    t: Fe4,
}

#[inline]
#[target_feature(enable = "avx2")]
fn splat(value: u64) -> __m256i {
    _mm256_set1_epi64x(value.cast_signed())
}

#[inline]
#[target_feature(enable = "avx2")]
fn small(value: u64) -> Fe4 {
    let mut limbs = [splat(0); 10];
    limbs[0] = splat(value);
    Fe4(limbs)
}

/// Sum limb by limb; the caller argues the bound.
#[inline]
#[target_feature(enable = "avx2")]
fn add(a: &Fe4, b: &Fe4) -> Fe4 {
    let mut sum = *a;
    for index in 0..10 {
        sum.0[index] = _mm256_add_epi64(a.0[index], b.0[index]);
    }
    sum
}

/// a + 2p - b for tight b: at most a + 2^27. Limbs of 2p are 2^27 - 38, 2^26 - 2, 2^27 - 2, ...: none borrows.
#[inline]
#[target_feature(enable = "avx2")]
fn sub(a: &Fe4, b: &Fe4) -> Fe4 {
    let (first, even, odd) = (splat((1 << 27) - 38), splat((1 << 27) - 2), splat((1 << 26) - 2));
    let mut difference = *a;
    for index in 0..10 {
        let two_p = match index {
            0 => first,
            index if index % 2 == 0 => even,
            _ => odd,
        };
        difference.0[index] = _mm256_sub_epi64(_mm256_add_epi64(a.0[index], two_p), b.0[index]);
    }
    difference
}

/// Largest even limbs of the operands of a product; odd ones are half, and a bit for what tight ones may have on top.
const F_MAX: u64 = 5 << 26;
const G_MAX: u64 = 3 << 26;
const ODD_SLACK: u64 = 1 << 20;

/// For debug builds: whether every lane's limbs are within a bound.
#[target_feature(enable = "avx2")]
fn is_within(number: &Fe4, even_max: u64) -> bool {
    (0..10).all(|index| {
        let max = if index % 2 == 0 { even_max } else { even_max / 2 + ODD_SLACK };
        let above = _mm256_cmpgt_epi64(number.0[index], splat(max));
        _mm256_testz_si256(above, above) == 1
    })
}

/// The product, tight. Bounds of f and g: see the top.
#[inline]
#[target_feature(enable = "avx2")]
fn mul(f: &Fe4, g: &Fe4) -> Fe4 {
    debug_assert!(is_within(f, F_MAX) && is_within(g, G_MAX));
    let nineteen = splat(19);
    let (f, g) = (&f.0, &g.0);
    // g9 .. g0, 19 g9 .. 19 g1: the factors of column k for f0 .. f9 are ten neighbours from 9 - k on.
    let mut row = [splat(0); 19];
    for index in 0..10 {
        row[index] = g[9 - index];
    }
    for index in 10..19 {
        row[index] = _mm256_mul_epu32(g[19 - index], nineteen);
    }
    // In even columns two odd limbs meet, whose weights are half a bit short each: once doubled.
    let mut f2 = *f;
    for index in [1, 3, 5, 7, 9] {
        f2[index] = _mm256_add_epi64(f[index], f[index]);
    }
    // Ten sums in registers; each limb of f meets ten neighbours of the row, which are read as they are used.
    let mut columns = [splat(0); 10];
    for (index, (single, doubled)) in f.iter().zip(&f2).enumerate() {
        for (k, sum) in columns.iter_mut().enumerate() {
            let factor = if k % 2 == 0 { doubled } else { single };
            *sum = _mm256_add_epi64(*sum, _mm256_mul_epu32(*factor, row[9 - k + index]));
        }
    }
    carry(columns)
}

/// Moves what is above limb `FROM`'s bits to the next one.
#[inline]
#[target_feature(enable = "avx2")]
fn carry_from<const FROM: usize, const BITS: i32>(limbs: &mut [__m256i; 10]) {
    limbs[FROM + 1] = _mm256_add_epi64(limbs[FROM + 1], _mm256_srli_epi64::<BITS>(limbs[FROM]));
    limbs[FROM] = _mm256_and_si256(limbs[FROM], splat((1 << BITS) - 1));
}

/// Takes columns below 2^63, gives tight. Two chains run side by side; limb 9 carries at most 2^38.1, 19 times that leaves
/// limb 0 below 2^42.4, and so limb 1 at most 2^25 + 2^16.4; limb 5 gets at most 2^13 on top.
#[inline]
#[target_feature(enable = "avx2")]
fn carry(mut limbs: [__m256i; 10]) -> Fe4 {
    carry_from::<0, 26>(&mut limbs);
    carry_from::<4, 26>(&mut limbs);
    carry_from::<1, 25>(&mut limbs);
    carry_from::<5, 25>(&mut limbs);
    carry_from::<2, 26>(&mut limbs);
    carry_from::<6, 26>(&mut limbs);
    carry_from::<3, 25>(&mut limbs);
    carry_from::<7, 25>(&mut limbs);
    carry_from::<4, 26>(&mut limbs);
    carry_from::<8, 26>(&mut limbs);
    let over = _mm256_srli_epi64::<25>(limbs[9]);
    limbs[9] = _mm256_and_si256(limbs[9], splat((1 << 25) - 1));
    // 19 = 16 + 2 + 1: the carry may have more than the 32 bits that a product takes.
    let twice = _mm256_add_epi64(_mm256_slli_epi64::<1>(over), over);
    let nineteen = _mm256_add_epi64(_mm256_slli_epi64::<4>(over), twice);
    limbs[0] = _mm256_add_epi64(limbs[0], nineteen);
    carry_from::<0, 26>(&mut limbs);
    Fe4(limbs)
}

/// As [`crate::point::Point::double`].
#[inline]
#[target_feature(enable = "avx2")]
fn double(p: &Point4) -> Point4 {
    let (a, b, zz) = (mul(&p.x, &p.x), mul(&p.y, &p.y), mul(&p.z, &p.z));
    let xy = add(&p.x, &p.y);
    // c, h: 2^27. g: 1.5 * 2^27. f: 2.5 * 2^27. e would be 2^28 and is wanted on both sides, so it is carried.
    let (c, h, g) = (add(&zz, &zz), add(&a, &b), sub(&a, &b));
    let e = carry(sub(&h, &mul(&xy, &xy)).0);
    let f = add(&g, &c);
    Point4 { x: mul(&f, &e), y: mul(&g, &h), z: mul(&f, &g), t: mul(&e, &h) }
}

/// What all lanes add at once.
#[derive(Clone, Copy)]
struct Step<'t> {
    entries: [&'t Entry; LANES],
    negative: [bool; LANES],
}

impl Step<'_> {
    const NEUTRAL: Step<'static> = Step { entries: [&Entry::NEUTRAL; LANES], negative: [false; LANES] };
}

/// Asks for entries that will be needed soon: with many devices they come from memory.
#[inline]
#[target_feature(enable = "avx2")]
fn prefetch(step: &Step<'_>) {
    for entry in step.entries {
        let start = std::ptr::from_ref(entry).cast::<i8>();
        // An entry is two cache lines, aligned.
        // SAFETY: a prefetch reads nothing and never faults, and both addresses are within the entry.
        unsafe {
            _mm_prefetch::<_MM_HINT_T0>(start);
            _mm_prefetch::<_MM_HINT_T0>(start.add(64));
        }
    }
}

/// As [`crate::point::Point::add`]. f: 2^28, e and g: 1.5 * 2^27, h: 2^27.
#[inline]
#[target_feature(enable = "avx2")]
fn add_entries(p: &Point4, step: &Step<'_>) -> Point4 {
    let mut plus = step.entries.map(Entry::plus);
    let mut minus = step.entries.map(Entry::minus);
    let mut signs = [0; LANES];
    for lane in 0..LANES {
        // Subtracting a point is adding (-x, y): y + x and y - x change places, 2dxy its sign.
        if step.negative[lane] {
            (plus[lane], minus[lane], signs[lane]) = (minus[lane], plus[lane], u64::MAX);
        }
    }
    let t2d = split(&words(step.entries.map(Entry::t2d)));
    let t2d = select(&t2d, &sub(&small(0), &t2d), lanes_of(signs));
    let a = mul(&sub(&p.y, &p.x), &split(&words(minus)));
    let b = mul(&add(&p.y, &p.x), &split(&words(plus)));
    let c = mul(&p.t, &t2d);
    let d = add(&p.z, &p.z);
    let (e, h, f, g) = (sub(&b, &a), add(&b, &a), sub(&d, &c), add(&d, &c));
    Point4 { x: mul(&f, &e), y: mul(&g, &h), z: mul(&f, &g), t: mul(&e, &h) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn lanes_of(values: [u64; LANES]) -> __m256i {
    let [a, b, c, d] = values.map(u64::cast_signed);
    _mm256_set_epi64x(d, c, b, a)
}

/// The 51-bit limbs of four numbers, a vector each.
#[inline]
#[target_feature(enable = "avx2")]
fn words(numbers: [&Fe; LANES]) -> [__m256i; 5] {
    let mut words = [splat(0); 5];
    for (index, word) in words.iter_mut().enumerate() {
        *word = lanes_of(numbers.map(|number| number.0[index]));
    }
    words
}

/// Tight 51-bit limbs as tight limbs of 26 and 25 bits: 2^51 + 2^13 is 2^25 and a bit above bit 26.
#[inline]
#[target_feature(enable = "avx2")]
fn split(words: &[__m256i; 5]) -> Fe4 {
    let low = splat((1 << 26) - 1);
    let mut limbs = [low; 10];
    for index in 0..5 {
        limbs[2 * index] = _mm256_and_si256(words[index], low);
        limbs[2 * index + 1] = _mm256_srli_epi64::<26>(words[index]);
    }
    Fe4(limbs)
}

/// `b` in lanes of the mask, else `a`.
#[inline]
#[target_feature(enable = "avx2")]
fn select(a: &Fe4, b: &Fe4, mask: __m256i) -> Fe4 {
    let mut limbs = a.0;
    for (limb, other) in limbs.iter_mut().zip(&b.0) {
        *limb = _mm256_blendv_epi8(*limb, *other, mask);
    }
    Fe4(limbs)
}

/// One number of a lane, tight.
#[inline]
#[target_feature(enable = "avx2")]
fn lane(number: &Fe4, index: usize) -> Fe {
    let value = |limb: __m256i| {
        let values = [
            _mm256_extract_epi64::<0>(limb),
            _mm256_extract_epi64::<1>(limb),
            _mm256_extract_epi64::<2>(limb),
            _mm256_extract_epi64::<3>(limb),
        ];
        values[index].cast_unsigned()
    };
    let mut limbs = [0; 5];
    for (place, limb) in limbs.iter_mut().enumerate() {
        *limb = value(number.0[2 * place]) + (value(number.0[2 * place + 1]) << 26);
    }
    Fe::from_limbs(limbs)
}

/// Most steps of a sum: windows of the smallest shape and of the base point's.
const STEPS_MAX: usize = 64 + 64;
/// Steps between asking for entries and adding them.
const AHEAD: usize = 6;

/// All steps of a sum in order, and how many.
fn plan<'t>(lanes: &[Lane<'t>; LANES], base: &'t Table) -> ([Step<'t>; STEPS_MAX], usize) {
    let mut steps = [Step::NEUTRAL; STEPS_MAX];
    let mut count = 0;
    let shape = lanes[0].table.shape();
    for residue in (0..shape.gap()).rev() {
        for window in (residue..shape.windows()).step_by(shape.gap()) {
            for (index, lane) in lanes.iter().enumerate() {
                let step = &mut steps[count];
                (step.entries[index], step.negative[index]) = lane.table.entry(&lane.digits, window);
            }
            count += 1;
        }
    }
    for window in 0..base.shape().windows() {
        for (index, lane) in lanes.iter().enumerate() {
            let step = &mut steps[count];
            (step.entries[index], step.negative[index]) = base.entry(&lane.base_digits, window);
        }
        count += 1;
    }
    (steps, count)
}

#[target_feature(enable = "avx2")]
fn sum(lanes: &[Lane<'_>; LANES], base: &Table) -> [Point; LANES] {
    let shape = lanes[0].table.shape();
    debug_assert!(lanes.iter().all(|lane| lane.table.shape() == shape));
    let (steps, count) = plan(lanes, base);
    for step in &steps[..AHEAD] {
        prefetch(step);
    }
    let mut p = Point4 { x: small(0), y: small(1), z: small(1), t: small(0) };
    let mut next = 0;
    for residue in (0..shape.gap()).rev() {
        if residue + 1 < shape.gap() {
            for _ in 0..shape.width() {
                p = double(&p);
            }
        }
        // The base point's windows need no doublings: they come with the last round.
        let own = (residue..shape.windows()).step_by(shape.gap()).len();
        let end = if residue == 0 { count } else { next + own };
        for at in next..end {
            prefetch(&steps[(at + AHEAD).min(count - 1)]);
            p = add_entries(&p, &steps[at]);
        }
        next = end;
    }
    let mut points = [Point::NEUTRAL; LANES];
    for (index, point) in points.iter_mut().enumerate() {
        *point = Point::new(lane(&p.x, index), lane(&p.y, index), lane(&p.z, index), lane(&p.t, index));
    }
    points
}
