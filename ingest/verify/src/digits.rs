//! Signed digits of numbers in lanes: [`crate::comb::Digits`] for all lanes at once, as numbers of table entries.

use crate::comb::Shape;
use crate::isa::Isa;

/// A number in each lane, and half of each window added.
#[derive(Clone, Copy)]
pub(crate) struct Digits<I: Isa> {
    lifted: [I::V; 6],
    shape: Shape,
}

impl<I: Isa> Digits<I> {
    /// Of numbers below 2^253, in little-endian words.
    #[inline(always)]
    pub(crate) fn new(isa: I, number: &[I::V; 4], shape: Shape) -> Digits<I> {
        let (zero, ones) = (isa.splat(0), isa.splat(u64::MAX));
        let (mut lifted, mut carry) = ([zero; 6], zero);
        for (index, lift) in shape.lift().iter().enumerate() {
            let word = number.get(index).copied().unwrap_or(zero);
            let lift = isa.splat(*lift);
            let sum = isa.add(isa.add(word, lift), carry);
            // Something is carried out of bit 63 if both have it, or one has and the sum has not.
            carry = isa.shr::<63>(isa.majority(word, lift, isa.xor(sum, ones)));
            lifted[index] = sum;
        }
        Digits { lifted, shape }
    }

    /// The table entries of a window, and all ones in the lanes that subtract theirs. A digit of 0 gives a number past every
    /// table's end.
    #[inline(always)]
    pub(crate) fn at(&self, isa: I, table: usize, window: usize) -> (I::V, I::V) {
        let (zero, width) = (isa.splat(0), self.shape.width());
        let bit = window * width as usize;
        let (word, shift) = (bit / 64, (bit % 64) as u32);
        let bits =
            isa.or(isa.shr_by(self.lifted[word], shift), isa.shl_by(self.lifted[word + 1], 64 - shift));
        let digit = isa.sub(isa.and(bits, isa.splat((1 << width) - 1)), isa.splat(1 << (width - 1)));
        let negative = isa.sub(zero, isa.shr::<63>(digit));
        let size = isa.sub(isa.xor(digit, negative), negative);
        let before = isa.sub(size, isa.splat(1));
        let is_zero = isa.sub(zero, isa.shr::<63>(before));
        (isa.or(isa.add(before, isa.splat(self.shape.first(table) as u64)), is_zero), negative)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comb::{self, BASE, HOT, LARGE, SMALL};
    use crate::isa::LANES_MAX;
    use crate::isa::model::Model;

    // Digits in lanes are the scalar ones: their entry and sign, and no entry where they are 0, in every window of every shape.
    #[test]
    fn lanes_have_the_scalar_digits() {
        let mut dice = crate::tests::Dice(5);
        for round in 0..200_u64 {
            let numbers: [[u64; 4]; LANES_MAX] = std::array::from_fn(|lane| {
                let edge = [0, u64::MAX, 1 << 63, 0x5555_5555_5555_5555][lane % 4];
                let mut number = std::array::from_fn(|_| if round == 0 { edge } else { dice.next() });
                number[3] >>= 3;
                number
            });
            let words = std::array::from_fn(|word| numbers.map(|number| number[word]));
            for shape in [SMALL, LARGE, HOT, BASE] {
                let digits = Digits::new(Model::<8>, &words, shape);
                let scalar = numbers.map(|number| comb::Digits::new(&number, shape));
                for window in 0..shape.windows() {
                    let table = window / shape.gap();
                    let (entries, negative) = digits.at(Model::<8>, table, window);
                    for lane in 0..LANES_MAX {
                        let digit = scalar[lane].at(window);
                        let entry = match u64::from(digit.unsigned_abs()) {
                            0 => u64::MAX,
                            size => shape.first(table) as u64 + size - 1,
                        };
                        assert_eq!(
                            (entries[lane], negative[lane] != 0),
                            (entry, digit < 0),
                            "{shape:?} {window}"
                        );
                    }
                }
            }
        }
    }
}
