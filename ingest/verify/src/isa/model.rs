//! A machine of `N` lanes in plain Rust: what each operation means. For tests, which run the lane code on it everywhere.

use super::fused::{self, BOTH, Fused, HIGH, LOW};
use super::{Isa, Isa32, LANES_MAX, Multiply, ROWS};

#[derive(Debug, Clone, Copy)]
pub(crate) struct Model<const N: usize>;

type V = [u64; LANES_MAX];

const MASK52: u64 = (1 << 52) - 1;

fn zip(a: V, b: V, combine: impl Fn(u64, u64) -> u64) -> V {
    std::array::from_fn(|lane| combine(a[lane], b[lane]))
}

fn wide52(a: u64, b: u64) -> u128 {
    u128::from(a & MASK52) * u128::from(b & MASK52)
}

impl<const N: usize> Isa for Model<N> {
    const LANES: usize = N;
    type V = V;

    fn splat(self, value: u64) -> V {
        std::array::from_fn(|lane| if lane < N { value } else { 0 })
    }
    fn load(self, values: &V) -> V {
        std::array::from_fn(|lane| if lane < N { values[lane] } else { 0 })
    }
    fn store(self, vector: V) -> V {
        self.load(&vector)
    }
    fn columns(self, rows: &[&[u64; 8]; LANES_MAX]) -> [V; 8] {
        std::array::from_fn(|word| self.load(&rows.map(|row| row[word])))
    }
    fn mask(self, bits: u8) -> V {
        std::array::from_fn(|lane| if lane < N && bits >> lane & 1 == 1 { u64::MAX } else { 0 })
    }
    fn add(self, a: V, b: V) -> V {
        zip(a, b, u64::wrapping_add)
    }
    fn sub(self, a: V, b: V) -> V {
        zip(a, b, u64::wrapping_sub)
    }
    fn and(self, a: V, b: V) -> V {
        zip(a, b, |a, b| a & b)
    }
    fn or(self, a: V, b: V) -> V {
        zip(a, b, |a, b| a | b)
    }
    fn xor(self, a: V, b: V) -> V {
        zip(a, b, |a, b| a ^ b)
    }
    fn shl<const BITS: i32>(self, a: V) -> V {
        a.map(|value| value << BITS)
    }
    fn shr<const BITS: i32>(self, a: V) -> V {
        a.map(|value| value >> BITS)
    }
    fn shl_by(self, a: V, bits: u32) -> V {
        a.map(|value| value.checked_shl(bits).unwrap_or(0))
    }
    fn shr_by(self, a: V, bits: u32) -> V {
        a.map(|value| value.checked_shr(bits).unwrap_or(0))
    }
    fn swap_bytes(self, a: V) -> V {
        a.map(u64::swap_bytes)
    }
    fn mul_u32(self, a: V, b: V) -> V {
        zip(a, b, |a, b| u64::from(a as u32) * u64::from(b as u32))
    }
    fn mul_i32(self, a: V, b: V) -> V {
        zip(a, b, |a, b| (i64::from(a as i32) * i64::from(b as i32)).cast_unsigned())
    }
    fn prefetch(self, _: &[[u64; 8]; 2]) {}
}

/// Four lanes multiply as AVX2 does, by doubles; eight as AVX-512 does.
impl<const N: usize> Multiply for Model<N> {
    fn product(self, a: &[V; 5], b: &[V; 5]) -> [V; 10] {
        if N == 4 {
            return fused::product(self, a, b);
        }
        let mut columns = [[0; LANES_MAX]; 10];
        for i in 0..5 {
            for j in 0..5 {
                let low = zip(a[i], b[j], |a, b| wide52(a, b) as u64 & MASK52);
                let high = zip(a[i], b[j], |a, b| (wide52(a, b) >> 52) as u64 * 2);
                columns[i + j] = self.add(columns[i + j], low);
                columns[i + j + 1] = self.add(columns[i + j + 1], high);
            }
        }
        columns
    }
    fn square(self, a: &[V; 5]) -> [V; 10] {
        if N == 4 { fused::square(self, a) } else { self.product(a, a) }
    }
}

impl<const N: usize> Fused for Model<N> {
    type F = [f64; LANES_MAX];

    fn float(self, a: V) -> Self::F {
        a.map(|value| f64::from_bits(value | LOW) - f64::from_bits(LOW))
    }
    fn parts(self, a: Self::F, b: Self::F) -> [V; 2] {
        let above: Self::F = std::array::from_fn(|lane| a[lane].mul_add(b[lane], f64::from_bits(HIGH)));
        let below = |lane: usize| a[lane].mul_add(b[lane], f64::from_bits(BOTH) - above[lane]);
        [std::array::from_fn(|lane| below(lane).to_bits()), above.map(f64::to_bits)]
    }
    fn after(self, factor: Self::F, sum: V) -> (Self::F, V) {
        (factor, sum)
    }
}

impl<const N: usize> Isa32 for Model<N> {
    type W = [u32; ROWS];

    fn splat32(self, value: u32) -> Self::W {
        [value; ROWS]
    }
    fn load32(self, values: &[u32; ROWS]) -> Self::W {
        *values
    }
    fn store32(self, vector: Self::W) -> [u32; ROWS] {
        vector
    }
    fn columns32(self, rows: &[[u32; 16]; ROWS]) -> [Self::W; 16] {
        std::array::from_fn(|word| std::array::from_fn(|row| rows[row][word]))
    }
    fn mask32(self, bits: u8) -> Self::W {
        std::array::from_fn(|lane| if bits >> lane & 1 == 1 { u32::MAX } else { 0 })
    }
    fn add32(self, a: Self::W, b: Self::W) -> Self::W {
        std::array::from_fn(|lane| a[lane].wrapping_add(b[lane]))
    }
    fn xor32(self, a: Self::W, b: Self::W) -> Self::W {
        std::array::from_fn(|lane| a[lane] ^ b[lane])
    }
    fn choose32(self, mask: Self::W, yes: Self::W, no: Self::W) -> Self::W {
        std::array::from_fn(|lane| (yes[lane] & mask[lane]) | (no[lane] & !mask[lane]))
    }
    fn rotate32<const RIGHT: i32, const LEFT: i32>(self, a: Self::W) -> Self::W {
        a.map(|word| word.rotate_right(RIGHT.cast_unsigned()))
    }
}
