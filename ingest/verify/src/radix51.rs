//! Numbers modulo p in lanes, five limbs of 51 bits: the same on every machine but for [`Multiply`].
//!
//! Two bounds carry every operation. *Tight* limbs are at most [`LIMB_MAX`]: all that products take. *Wide* ones, columns of a
//! product with those from 5 on folded in, are at most [`WIDE`]; sums of three wide numbers, and [`BIAS`] for what is taken
//! off, stay below 2^63. [`Field::narrow`] brings wide ones back. Debug builds assert both.

use crate::isa::{COLUMN_MAX, Isa, LIMB_MAX, Multiply};

/// The field on a machine.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Field<I: Multiply>(pub(crate) I);

/// A number in each lane.
pub(crate) type Five<I> = [<I as Isa>::V; 5];

const MASK: u64 = (1 << 51) - 1;
/// A column, 19 times one, and what products may start from.
const WIDE: u64 = 20 * COLUMN_MAX + (1 << 58);
/// 2p and 1,024 p in limbs: from the one every tight limb can be taken, from the other every wide one.
const TWO_P: [u64; 5] = [(MASK - 18) << 1, MASK << 1, MASK << 1, MASK << 1, MASK << 1];
const BIAS: [u64; 5] = [(MASK - 18) << 10, MASK << 10, MASK << 10, MASK << 10, MASK << 10];
/// Largest sum that is narrowed.
const SUM: u64 = 3 * WIDE + BIAS[1];
const _: () = assert!(BIAS[0] > WIDE && TWO_P[0] > LIMB_MAX && SUM < 1 << 63);
/// What a narrowed limb may have on top: a carry, in limb 0 the last one 19 times.
const _: () = assert!(MASK + 19 * (SUM >> 51) <= LIMB_MAX);

impl<I: Multiply> Field<I> {
    fn is_within(self, number: &Five<I>, max: u64) -> bool {
        number.iter().all(|limb| self.0.is_within(*limb, max))
    }

    /// The same small number in all lanes.
    #[inline(always)]
    pub(crate) fn constant(self, value: u64) -> Five<I> {
        let zero = self.0.splat(0);
        [self.0.splat(value), zero, zero, zero, zero]
    }

    /// Limb by limb; the caller argues the bound.
    #[inline(always)]
    fn plus(self, a: &Five<I>, b: &Five<I>) -> Five<I> {
        let mut sum = *a;
        for index in 0..5 {
            sum[index] = self.0.add(a[index], b[index]);
        }
        sum
    }

    /// a + a multiple of p - b; the caller argues that no limb borrows.
    #[inline(always)]
    fn minus(self, a: &Five<I>, b: &Five<I>, multiple: &[u64; 5]) -> Five<I> {
        let mut difference = *a;
        for index in 0..5 {
            let plus = self.0.add(a[index], self.0.splat(multiple[index]));
            difference[index] = self.0.sub(plus, b[index]);
        }
        difference
    }

    /// Takes sums of up to three wide numbers and the bias, gives tight: every limb hands what is above 51 bits to the next,
    /// all at once. A carry is below 2^12, so 19 times it fits the 32-bit product.
    #[inline(always)]
    pub(crate) fn narrow(self, limbs: &Five<I>) -> Five<I> {
        debug_assert!(self.is_within(limbs, SUM));
        let isa = self.0;
        let mask = isa.splat(MASK);
        let mut narrow = *limbs;
        let top = isa.mul_u32(isa.shr::<51>(limbs[4]), isa.splat(19));
        narrow[0] = isa.add(isa.and(limbs[0], mask), top);
        for index in 1..5 {
            narrow[index] = isa.add(isa.and(limbs[index], mask), isa.shr::<51>(limbs[index - 1]));
        }
        debug_assert!(self.is_within(&narrow, LIMB_MAX));
        narrow
    }

    /// Columns from 5 on come back times 19 = 16 + 2 + 1; they have more bits than the 32-bit product takes.
    #[inline(always)]
    fn fold(self, columns: &[I::V; 10]) -> Five<I> {
        let isa = self.0;
        let mut wide = [isa.splat(0); 5];
        for index in 0..5 {
            let above = columns[index + 5];
            let three = isa.add(isa.shl::<1>(above), above);
            wide[index] = isa.add(isa.add(columns[index], isa.shl::<4>(above)), three);
        }
        debug_assert!(self.is_within(&wide, WIDE));
        wide
    }

    /// Takes tight, gives wide.
    #[inline(always)]
    pub(crate) fn product(self, a: &Five<I>, b: &Five<I>) -> Five<I> {
        debug_assert!(self.is_within(a, LIMB_MAX) && self.is_within(b, LIMB_MAX));
        self.fold(&self.0.product(a, b))
    }

    /// Takes tight, gives wide.
    #[inline(always)]
    pub(crate) fn square(self, a: &Five<I>) -> Five<I> {
        debug_assert!(self.is_within(a, LIMB_MAX));
        self.fold(&self.0.square(a))
    }

    /// Takes and gives tight.
    #[inline(always)]
    pub(crate) fn multiply(self, a: &Five<I>, b: &Five<I>) -> Five<I> {
        self.narrow(&self.product(a, b))
    }

    /// a + b; takes and gives tight.
    #[inline(always)]
    pub(crate) fn sum(self, a: &Five<I>, b: &Five<I>) -> Five<I> {
        self.narrow(&self.plus(a, b))
    }

    /// a - b; takes and gives tight.
    #[inline(always)]
    pub(crate) fn difference(self, a: &Five<I>, b: &Five<I>) -> Five<I> {
        self.narrow(&self.minus(a, b, &TWO_P))
    }

    /// e = b - a, f = 2z - c, g = 2z + c, h = b + a of wide a, b, c and tight z; in lanes of the mask with -c for c.
    #[inline(always)]
    pub(crate) fn of_addition(self, [a, b, c]: &[Five<I>; 3], z: &Five<I>, mask: I::V) -> [Five<I>; 4] {
        let isa = self.0;
        let (mut f, mut g) = (*c, *c);
        for index in 0..5 {
            let signed = isa.sub(isa.xor(c[index], mask), mask);
            let d = isa.add(isa.add(z[index], z[index]), isa.splat(BIAS[index]));
            (f[index], g[index]) = (isa.sub(d, signed), isa.add(d, signed));
        }
        let (e, h) = (self.minus(b, a, &BIAS), self.plus(b, a));
        [self.narrow(&e), self.narrow(&f), self.narrow(&g), self.narrow(&h)]
    }

    /// e = xx + yy - ss, f = 2zz + xx - yy, g = xx - yy, h = xx + yy of wide xx, yy, zz, ss.
    #[inline(always)]
    pub(crate) fn of_doubling(self, [xx, yy, zz, ss]: &[Five<I>; 4]) -> [Five<I>; 4] {
        let (g, h) = (self.minus(xx, yy, &BIAS), self.plus(xx, yy));
        let e = self.minus(&h, ss, &BIAS);
        let f = self.plus(&g, &self.plus(zz, zz));
        [self.narrow(&e), self.narrow(&f), self.narrow(&g), self.narrow(&h)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field::Fe;
    use crate::isa::LANES_MAX;
    use crate::isa::model::Model;
    use crate::lanes::canonical;

    /// The number of one lane as the scalar field has it.
    fn scalar(number: &Five<Model<8>>, lane: usize) -> Fe {
        Fe::from_limbs(number.map(|limb| limb[lane]))
    }

    /// Tight numbers, the largest among them, a different one in each lane.
    fn numbers() -> Vec<Five<Model<8>>> {
        let mut word = 3_u64;
        let mut next = || {
            word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            if word >> 61 == 0 { LIMB_MAX } else { (word >> 8) % (LIMB_MAX + 1) }
        };
        let mut numbers: Vec<Five<Model<8>>> =
            (0..60).map(|_| std::array::from_fn(|_| std::array::from_fn(|_| next()))).collect();
        numbers.extend([[[LIMB_MAX; LANES_MAX]; 5], [[0; LANES_MAX]; 5]]);
        numbers
    }

    // Sums, differences, products and squares in every lane are those of the scalar field.
    #[test]
    fn lanes_compute_as_the_scalar_field() {
        let (field, numbers) = (Field(Model::<8>), numbers());
        for (a, b) in numbers.iter().flat_map(|a| numbers.iter().map(move |b| (a, b))) {
            let results = [
                field.sum(a, b),
                field.difference(a, b),
                field.multiply(a, b),
                field.narrow(&field.square(a)),
            ];
            for lane in 0..LANES_MAX {
                let (x, y) = (scalar(a, lane), scalar(b, lane));
                let expected = [x.add(&y), x.sub(&y), x.mul(&y), x.square()];
                for (result, expected) in results.iter().zip(expected) {
                    assert_eq!(scalar(result, lane).to_bytes(), expected.mul(&Fe::ONE).to_bytes());
                }
            }
        }
    }

    // Encodings in lanes are the scalar field's: the one below p, also of p itself and its neighbours.
    #[test]
    fn encodings_are_canonical() {
        let mut numbers = numbers();
        let p = [(1 << 51) - 19, (1 << 51) - 1, (1 << 51) - 1, (1 << 51) - 1, (1 << 51) - 1];
        for change in [-2, -1, 0, 1, 18, 19] {
            let mut near = p;
            near[0] = u64::wrapping_add_signed(near[0], change);
            numbers.push(near.map(|limb| [limb; LANES_MAX]));
            // One limb that lets no carry through.
            for index in 1..5 {
                let mut below = near;
                below[index] -= 1;
                numbers.push(below.map(|limb| [limb; LANES_MAX]));
            }
        }
        for number in numbers {
            let words = canonical(Model::<8>, number);
            for lane in 0..LANES_MAX {
                let bytes: Vec<u8> = words.iter().flat_map(|word| word[lane].to_le_bytes()).collect();
                assert_eq!(bytes, scalar(&number, lane).to_bytes());
            }
        }
    }
}
