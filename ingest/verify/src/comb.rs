//! Fixed-base combs: a number times a known point, by additions of table entries and few doublings (Lim, Lee 1994).
//!
//! A number below 2^253 is cut into windows of `width` bits with signed digits. Every `gap`-th window has a table of
//! 1 .. 2^(width-1) times its power of the point; the windows between share it, `width` doublings apart. More memory,
//! fewer doublings.
//!
//! | shape | tables x entries | bytes | doublings |
//! |---|---|---|---|
//! | [`SMALL`], a device seen for the first time | 4 x 8 | 4 KB | 60 |
//! | [`LARGE`], an active device | 13 x 16 | 26 KB | 15 |
//! | [`HOT`], a busy one, where there is room to spare | 22 x 32 | 88 KB | 6 |
//! | [`BASE`], the base point, one for all | 24 x 1,024 | 3.1 MB | 0 |

use crate::point::{Entry, Point, entries};

/// How a comb is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    width: u32,
    gap: usize,
    windows: usize,
    /// Half of each window.
    lift: [u64; 5],
}

pub(crate) const SMALL: Shape = Shape::new(4, 16);
pub(crate) const LARGE: Shape = Shape::new(5, 4);
pub(crate) const HOT: Shape = Shape::new(6, 2);
pub(crate) const BASE: Shape = Shape::new(11, 1);

impl Shape {
    /// As many windows as 254 bits need: a number has 253, and a digit sign.
    const fn new(width: u32, gap: usize) -> Shape {
        let (windows, mut lift, mut window) = (254_u32.div_ceil(width) as usize, [0; 5], 0);
        while window < windows {
            let bit = window * width as usize + width as usize - 1;
            lift[bit / 64] |= 1 << (bit % 64);
            window += 1;
        }
        Shape { width, gap, windows, lift }
    }

    /// Half of each window, as words.
    pub(crate) const fn lift(&self) -> &[u64; 5] {
        &self.lift
    }

    const fn entries_per_table(&self) -> usize {
        1 << (self.width - 1)
    }

    const fn tables(&self) -> usize {
        self.windows.div_ceil(self.gap)
    }

    pub(crate) const fn width(&self) -> u32 {
        self.width
    }

    /// Which entry is the first of a table.
    pub(crate) const fn first(&self, table: usize) -> usize {
        table * self.entries_per_table()
    }

    /// Windows that share a table.
    pub(crate) const fn gap(&self) -> usize {
        self.gap
    }

    pub(crate) const fn windows(&self) -> usize {
        self.windows
    }

    /// Memory of a table of this shape.
    pub(crate) const fn bytes(&self) -> usize {
        self.tables() * self.entries_per_table() * size_of::<Entry>()
    }
}

/// Multiples of one point.
#[derive(Debug)]
pub(crate) struct Table {
    shape: Shape,
    entries: Box<[Entry]>,
}

/// A number in signed digits of a shape, each from -2^(width-1) to 2^(width-1) - 1.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Digits {
    /// The number and half of each window.
    lifted: [u64; 6],
    width: u32,
}

impl Digits {
    /// Digits of a number below 2^253, in little-endian words.
    ///
    /// Half a window is added everywhere first and taken from each digit again: so no carry runs from one to the next.
    #[inline(always)]
    pub(crate) fn new(number: &[u64; 4], shape: Shape) -> Digits {
        debug_assert!(number[3] < 1 << 61);
        let mut lifted = [0_u64; 6];
        let mut carry = false;
        for (index, lift) in shape.lift.iter().enumerate() {
            let word = number.get(index).copied().unwrap_or(0);
            let (sum, first) = word.overflowing_add(*lift);
            let (sum, second) = sum.overflowing_add(u64::from(carry));
            (lifted[index], carry) = (sum, first || second);
        }
        Digits { lifted, width: shape.width }
    }

    /// The digit of a window.
    #[inline(always)]
    pub(crate) fn at(&self, window: usize) -> i32 {
        let bit = window * self.width as usize;
        let (word, shift) = (bit / 64, bit % 64);
        // The part above: shifted in two steps, so that a shift of 64 is no special case.
        let bits = self.lifted[word] >> shift | (self.lifted[word + 1] << 1) << (63 - shift);
        (bits & ((1 << self.width) - 1)) as i32 - (1 << (self.width - 1))
    }
}

impl Table {
    /// The table of a point.
    pub(crate) fn new(point: &Point, shape: Shape) -> Table {
        let mut bases = vec![*point];
        while bases.len() < shape.tables() {
            let last = bases[bases.len() - 1];
            bases.push((0..shape.width as usize * shape.gap).fold(last, |base, _| base.double()));
        }
        let mut points = Vec::with_capacity(shape.tables() * shape.entries_per_table());
        for (base, step) in bases.iter().zip(&entries(&bases)) {
            let mut multiple = *base;
            points.push(multiple);
            for _ in 1..shape.entries_per_table() {
                multiple = multiple.add(step, false);
                points.push(multiple);
            }
        }
        Table { shape, entries: entries(&points).into_boxed_slice() }
    }

    pub(crate) fn shape(&self) -> Shape {
        self.shape
    }

    /// Adds the number times the point to `sum`, doubling only between the rounds of windows.
    ///
    /// With doublings the start must be neutral: what it holds would be doubled too.
    #[inline(always)]
    pub(crate) fn accumulate(&self, digits: &Digits, mut sum: Point) -> Point {
        let Shape { width, gap, windows, .. } = self.shape;
        for residue in (0..gap).rev() {
            if residue + 1 < gap {
                for _ in 0..width {
                    sum = sum.double();
                }
            }
            for (table, window) in (residue..windows).step_by(gap).enumerate() {
                let (entry, is_negative) = self.entry(digits, table, window);
                sum = sum.add(entry, is_negative);
            }
        }
        sum
    }

    /// What a window adds from its table, and whether it is subtracted; a digit of 0 adds the neutral point. The table's
    /// number is window / gap, which loops know without the division.
    #[inline(always)]
    fn entry<'t>(&'t self, digits: &Digits, table: usize, window: usize) -> (&'t Entry, bool) {
        debug_assert_eq!(table, window / self.shape.gap);
        let digit = digits.at(window);
        let entry = match digit.unsigned_abs() as usize {
            0 => &Entry::NEUTRAL,
            size => &self.entries[self.shape.first(table) + size - 1],
        };
        (entry, digit < 0)
    }

    /// The entry of a number, the neutral one past the end.
    #[inline(always)]
    pub(crate) fn pick(&self, number: u64) -> &Entry {
        self.entries.get(number as usize).unwrap_or(&Entry::NEUTRAL)
    }
}

#[cfg(test)]
mod tests {
    use curve25519_dalek::constants::{ED25519_BASEPOINT_POINT, ED25519_BASEPOINT_TABLE};
    use curve25519_dalek::scalar::Scalar;

    use super::*;

    fn words(bytes: &[u8; 32]) -> [u64; 4] {
        std::array::from_fn(|index| u64::from_le_bytes(*bytes[8 * index..].first_chunk().unwrap()))
    }

    // Every shape gives the multiples that curve25519-dalek gives, at the edges of the digits too.
    #[test]
    fn multiples_agree_with_dalek() {
        let one = ED25519_BASEPOINT_POINT.compress().to_bytes();
        let base = Point::decompress(&one).unwrap();
        let mut numbers =
            vec![Scalar::ZERO, Scalar::ONE, -Scalar::ONE, Scalar::from(8_u64), Scalar::from(16_u64)];
        numbers.extend(
            [0x88, 0x80, 0x7f, 0x10, 0x08, 0xff].map(|byte| Scalar::from_bytes_mod_order([byte; 32])),
        );
        numbers.extend((1..40_u64).map(|seed| Scalar::from(seed).invert()));
        for shape in [SMALL, LARGE, HOT, BASE] {
            let table = Table::new(&base, shape);
            for number in &numbers {
                let digits = Digits::new(&words(&number.to_bytes()), shape);
                let product = table.accumulate(&digits, Point::NEUTRAL);
                let expected = (number * ED25519_BASEPOINT_TABLE).compress().to_bytes();
                assert_eq!(product.compress(&product.z.invert()), expected, "{shape:?} {number:?}");
            }
        }
    }

    // Digits are within half a window and sum up to the number.
    #[test]
    fn digits_sum_up() {
        for byte in 0..=255_u8 {
            let mut number = [byte; 32];
            number[31] &= 0x0f;
            for shape in [SMALL, LARGE, HOT, BASE] {
                let digits = Digits::new(&words(&number), shape);
                let mut sum = Scalar::ZERO;
                for digit in (0..shape.windows).rev().map(|window| digits.at(window)) {
                    assert!(digit.unsigned_abs() <= 1 << (shape.width - 1));
                    sum *= Scalar::from(1_u64 << shape.width);
                    let size = Scalar::from(u64::from(digit.unsigned_abs()));
                    sum += if digit < 0 { -size } else { size };
                }
                assert_eq!(sum, Scalar::from_bytes_mod_order(number), "{shape:?} {byte}");
            }
        }
    }
}
