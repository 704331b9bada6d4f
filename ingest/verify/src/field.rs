//! Numbers modulo p = 2^255 - 19 in five limbs of 51 bits. Not constant time: verification handles nothing secret.
//!
//! Two bounds carry every operation. A *tight* number has limbs below 2^51 + 2^13; products give tight numbers. A *loose*
//! one has limbs below 2^54; products take loose numbers. Sums and differences of tight numbers are loose, so nothing
//! between two products is ever carried. Each function says what it takes and gives; debug builds assert it.

/// 2^51 - 1.
const MASK: u64 = (1 << 51) - 1;
/// Limbs of a tight number are below this.
const TIGHT: u64 = (1 << 51) + (1 << 13);
/// Limbs of a loose number are below this.
const LOOSE: u64 = 1 << 54;
/// 4p in limbs, each at least 2^53 - 76 and so above every tight limb.
const FOUR_P: [u64; 5] = [(1 << 53) - 76, (1 << 53) - 4, (1 << 53) - 4, (1 << 53) - 4, (1 << 53) - 4];

/// A number modulo p; the sum of `limb[i] * 2^(51 i)`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fe(pub(crate) [u64; 5]);

/// d of the curve -x^2 + y^2 = 1 + d x^2 y^2 (RFC 8032 section 5.1), and 2d.
pub(crate) const D: Fe = Fe([
    0x0003_4dca_1359_78a3,
    0x0001_a828_3b15_6ebd,
    0x0005_e7a2_6001_c029,
    0x0007_39c6_63a0_3cbb,
    0x0005_2036_cee2_b6ff,
]);
/// A square root of -1: 2^((p-1)/4).
pub(crate) const SQRT_M1: Fe = Fe([
    0x0006_1b27_4a0e_a0b0,
    0x0000_d5a5_fc8f_189d,
    0x0007_ef5e_9cbd_0c60,
    0x0007_8595_a680_4c9e,
    0x0002_b832_4804_fc1d,
]);

fn wide(a: u64, b: u64) -> u128 {
    u128::from(a) * u128::from(b)
}

impl Fe {
    pub(crate) const ZERO: Fe = Fe([0; 5]);
    pub(crate) const ONE: Fe = Fe([1, 0, 0, 0, 0]);

    /// Tight, from limbs of up to 64 bits.
    pub(crate) fn from_limbs(limbs: [u64; 5]) -> Fe {
        carry(limbs.map(u128::from))
    }

    fn is_tight(&self) -> bool {
        self.0.iter().all(|limb| *limb < TIGHT)
    }

    fn is_loose(&self) -> bool {
        self.0.iter().all(|limb| *limb < LOOSE)
    }

    /// Takes tight, gives loose: limbs below 2 * (2^51 + 2^13) < 2^53.
    #[inline(always)]
    pub(crate) fn add(&self, other: &Fe) -> Fe {
        debug_assert!(self.is_tight() && other.is_tight());
        let (a, b) = (&self.0, &other.0);
        Fe([a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3], a[4] + b[4]])
    }

    /// Takes loose limbs below 7/4 * 2^52 and a tight number, gives loose: a + 4p - b stays below 7 * 2^50 + 2^53 < 2^54
    /// and does not borrow, as each limb of 4p is above every tight limb.
    #[inline(always)]
    pub(crate) fn sub(&self, other: &Fe) -> Fe {
        debug_assert!(self.0.iter().all(|limb| *limb < 7 << 50) && other.is_tight());
        let (a, b) = (&self.0, &other.0);
        let mut limbs = [0; 5];
        for index in 0..5 {
            limbs[index] = a[index] + FOUR_P[index] - b[index];
        }
        Fe(limbs)
    }

    /// Takes loose, gives loose if the sum is: for one loose operand whose room the caller has argued.
    #[inline(always)]
    pub(crate) fn add_loose(&self, other: &Fe) -> Fe {
        let (a, b) = (&self.0, &other.0);
        let sum = Fe([a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3], a[4] + b[4]]);
        debug_assert!(sum.is_loose());
        sum
    }

    /// Takes tight, gives tight.
    pub(crate) fn neg(&self) -> Fe {
        carry(Fe::ZERO.sub(self).0.map(u128::from))
    }

    /// Takes loose, gives tight. With limbs below 2^54 a column is at most 2^108 * (1 + 4 * 19) < 2^115, the last column,
    /// which has no factor 19, below 5 * 2^108.
    #[inline(always)]
    pub(crate) fn mul(&self, other: &Fe) -> Fe {
        debug_assert!(self.is_loose() && other.is_loose());
        let (a, b) = (&self.0, &other.0);
        // 19 * 2^54 < 2^59.
        let (b1, b2, b3, b4) = (b[1] * 19, b[2] * 19, b[3] * 19, b[4] * 19);
        carry([
            wide(a[0], b[0]) + wide(a[4], b1) + wide(a[1], b4) + wide(a[3], b2) + wide(a[2], b3),
            wide(a[1], b[0]) + wide(a[0], b[1]) + wide(a[4], b2) + wide(a[2], b4) + wide(a[3], b3),
            wide(a[2], b[0]) + wide(a[0], b[2]) + wide(a[1], b[1]) + wide(a[4], b3) + wide(a[3], b4),
            wide(a[3], b[0]) + wide(a[0], b[3]) + wide(a[2], b[1]) + wide(a[1], b[2]) + wide(a[4], b4),
            wide(a[4], b[0]) + wide(a[0], b[4]) + wide(a[3], b[1]) + wide(a[1], b[3]) + wide(a[2], b[2]),
        ])
    }

    /// Takes loose, gives tight; as [`Fe::mul`] with the cross terms shared. 2 * 2^54 and 19 * 2^54 fit 64 bits.
    #[inline(always)]
    pub(crate) fn square(&self) -> Fe {
        debug_assert!(self.is_loose());
        let a = &self.0;
        let (a0, a1) = (a[0] * 2, a[1] * 2);
        let (a3, a4) = (a[3] * 19, a[4] * 19);
        carry([
            wide(a[0], a[0]) + 2 * (wide(a[1], a4) + wide(a[2], a3)),
            wide(a[3], a3) + wide(a0, a[1]) + 2 * wide(a[2], a4),
            wide(a[1], a[1]) + wide(a0, a[2]) + 2 * wide(a[4], a3),
            wide(a[4], a4) + wide(a0, a[3]) + wide(a1, a[2]),
            wide(a[2], a[2]) + wide(a0, a[4]) + wide(a1, a[3]),
        ])
    }

    fn square_times(&self, times: u32) -> Fe {
        let mut result = self.square();
        for _ in 1..times {
            result = result.square();
        }
        result
    }

    /// x^(2^250 - 1) and x^11: what the two exponentiations share.
    fn ladder(&self) -> (Fe, Fe) {
        let x2 = self.square();
        let x9 = self.mul(&x2.square_times(2));
        let x11 = x9.mul(&x2);
        let e5 = x9.mul(&x11.square());
        let e10 = e5.square_times(5).mul(&e5);
        let e20 = e10.square_times(10).mul(&e10);
        let e40 = e20.square_times(20).mul(&e20);
        let e50 = e40.square_times(10).mul(&e10);
        let e100 = e50.square_times(50).mul(&e50);
        let e200 = e100.square_times(100).mul(&e100);
        (e200.square_times(50).mul(&e50), x11)
    }

    /// 1/x as x^(p - 2); 0 for 0.
    pub(crate) fn invert(&self) -> Fe {
        let (e250, x11) = self.ladder();
        e250.square_times(5).mul(&x11)
    }

    /// x^((p - 5) / 8), for square roots (RFC 8032 section 5.1.3).
    pub(crate) fn pow_p58(&self) -> Fe {
        let (e250, _) = self.ladder();
        e250.square_times(2).mul(self)
    }

    /// The one encoding below p, little-endian. Takes tight.
    pub(crate) fn to_bytes(self) -> [u8; 32] {
        debug_assert!(self.is_tight());
        let mut limbs = carry(self.0.map(u128::from)).0;
        // The value is below 2^255 + 2^64 < 2p; adding 19 carries out of bit 255 exactly if it is p or more.
        let mut over = (limbs[0] + 19) >> 51;
        for limb in &limbs[1..] {
            over = (limb + over) >> 51;
        }
        limbs[0] += 19 * over;
        for index in 0..4 {
            limbs[index + 1] += limbs[index] >> 51;
            limbs[index] &= MASK;
        }
        limbs[4] &= MASK;
        let words = [
            limbs[0] | limbs[1] << 51,
            limbs[1] >> 13 | limbs[2] << 38,
            limbs[2] >> 26 | limbs[3] << 25,
            limbs[3] >> 39 | limbs[4] << 12,
        ];
        let mut bytes = [0; 32];
        for (part, word) in bytes.chunks_exact_mut(8).zip(words) {
            part.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// The low 255 bits, little-endian; gives tight. Values of p and above are taken and mean what they are modulo p.
    pub(crate) fn from_bytes(bytes: &[u8; 32]) -> Fe {
        let word = |index: usize| {
            let mut part = [0; 8];
            part.copy_from_slice(&bytes[8 * index..8 * index + 8]);
            u64::from_le_bytes(part)
        };
        let (w0, w1, w2, w3) = (word(0), word(1), word(2), word(3));
        Fe([
            w0 & MASK,
            (w0 >> 51 | w1 << 13) & MASK,
            (w1 >> 38 | w2 << 26) & MASK,
            (w2 >> 25 | w3 << 39) & MASK,
            w3 >> 12 & MASK,
        ])
    }

    /// Whether the canonical value is odd: the sign of an x coordinate.
    pub(crate) fn is_odd(&self) -> bool {
        self.to_bytes()[0] & 1 == 1
    }

    pub(crate) fn is_zero(&self) -> bool {
        self.to_bytes() == [0; 32]
    }
}

/// One pass over the columns. With columns below 2^115 and the last below 2^111 each carry fits 64 bits, 19 times the last
/// one too (5 * 2^108 / 2^51 * 19 < 2^64); what remains in limb 1 is below 2^51 + 2^13, in the others below 2^51.
#[inline(always)]
fn carry(mut columns: [u128; 5]) -> Fe {
    let mut limbs = [0; 5];
    for index in 0..4 {
        columns[index + 1] += columns[index] >> 51;
        limbs[index] = columns[index] as u64 & MASK;
    }
    limbs[4] = columns[4] as u64 & MASK;
    limbs[0] += (columns[4] >> 51) as u64 * 19;
    limbs[1] += limbs[0] >> 51;
    limbs[0] &= MASK;
    let result = Fe(limbs);
    debug_assert!(result.is_tight());
    result
}

/// All inverses for the price of one and three products each (Montgomery); zeros stay zero and spoil nobody.
/// `scratch` is as long as `numbers`, or longer.
pub(crate) fn invert_all(numbers: &mut [Fe], scratch: &mut [Fe]) {
    debug_assert!(scratch.len() >= numbers.len());
    let mut product = Fe::ONE;
    for (number, before) in numbers.iter().zip(scratch.iter_mut()) {
        *before = product;
        if !number.is_zero() {
            product = product.mul(number);
        }
    }
    let mut inverse = product.invert();
    let count = numbers.len();
    for (number, before) in numbers.iter_mut().zip(&scratch[..count]).rev() {
        if !number.is_zero() {
            let own = inverse.mul(before);
            inverse = inverse.mul(number);
            *number = own;
        }
    }
}

#[cfg(test)]
mod tests;
