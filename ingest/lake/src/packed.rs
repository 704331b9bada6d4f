//! Whole numbers as DELTA_BINARY_PACKED (Parquet format, Encodings.md, encoding 5), with the format's usual blocks of 128
//! differences in four miniblocks of 32: small enough that the jump from one series to the next widens few numbers.
//!
//! Encoding is most of what sealing costs, and most columns of a batch hardly change from row to row: a block of equal
//! differences is found with one pass that the compiler turns into vector instructions. It does not decode.

/// Differences of a block.
const BLOCK: usize = 128;
/// Differences that share a width.
const MINIBLOCK: usize = 32;
/// Longest miniblock: 32 numbers of 64 bits.
const MINIBLOCK_BYTES_MAX: usize = MINIBLOCK * 8;

/// A whole number of one of Parquet's physical types. Differences wrap, as the format has it.
pub(crate) trait Whole: Copy + Ord {
    /// What differences that are not there count as: they never are the least.
    const MOST: Self;
    /// Self less `before`, wrapping.
    fn since(self, before: Self) -> Self;
    /// Self less `least`, which is not above it, as the unsigned number it is.
    fn above(self, least: Self) -> u64;
    /// The same number in 64 bits.
    fn widened(self) -> i64;
}

impl Whole for i32 {
    const MOST: Self = i32::MAX;
    fn since(self, before: Self) -> Self {
        self.wrapping_sub(before)
    }
    fn above(self, least: Self) -> u64 {
        u64::from(self.wrapping_sub(least).cast_unsigned())
    }
    fn widened(self) -> i64 {
        i64::from(self)
    }
}

impl Whole for i64 {
    const MOST: Self = i64::MAX;
    fn since(self, before: Self) -> Self {
        self.wrapping_sub(before)
    }
    fn above(self, least: Self) -> u64 {
        self.wrapping_sub(least).cast_unsigned()
    }
    fn widened(self) -> i64 {
        self
    }
}

/// Appends `values`, encoded.
pub(crate) fn pack<T: Whole>(values: &[T], out: &mut Vec<u8>) {
    varint(BLOCK as u64, out);
    varint((BLOCK / MINIBLOCK) as u64, out);
    varint(values.len() as u64, out);
    let Some((first, after)) = values.split_first() else { return zigzag(0, out) };
    zigzag(first.widened(), out);
    for (befores, afters) in values.chunks(BLOCK).zip(after.chunks(BLOCK)) {
        block(befores, afters, out);
    }
}

fn block<T: Whole>(befores: &[T], afters: &[T], out: &mut Vec<u8>) {
    let mut differences = [T::MOST; BLOCK];
    for ((difference, before), after) in differences.iter_mut().zip(befores).zip(afters) {
        *difference = after.since(*before);
    }
    let least = differences.iter().fold(T::MOST, |least, difference| least.min(*difference));
    zigzag(least.widened(), out);
    // Beyond the last difference there is padding, which is any number: 0 is the narrowest.
    let mut rests = [0; BLOCK];
    for (rest, difference) in rests.iter_mut().zip(&differences).take(afters.len()) {
        *rest = difference.above(least);
    }
    let (miniblocks, _) = rests.as_chunks::<MINIBLOCK>();
    let widths = miniblocks
        .iter()
        .map(|rests| u64::BITS - rests.iter().fold(0, |all, rest| all | rest).leading_zeros());
    out.extend(widths.clone().map(|width| width as u8));
    for (rests, width) in miniblocks.iter().zip(widths).take(afters.len().div_ceil(MINIBLOCK)) {
        bits(rests, width, out);
    }
}

/// Appends the lowest `width` bits of each number, the first one lowest.
fn bits(rests: &[u64; MINIBLOCK], width: u32, out: &mut Vec<u8>) {
    if width == 0 {
        return;
    }
    let (mut held, mut count) = (0u128, 0);
    let mut packed = [0; MINIBLOCK_BYTES_MAX];
    let mut words = packed.as_chunks_mut::<8>().0.iter_mut();
    for rest in rests {
        held |= u128::from(*rest) << count;
        count += width;
        if count >= u64::BITS {
            if let Some(word) = words.next() {
                *word = (held as u64).to_le_bytes();
            }
            held >>= u64::BITS;
            count -= u64::BITS;
        }
    }
    // 32 numbers of an odd width end in the middle of a word.
    if let Some(word) = words.next() {
        *word = (held as u64).to_le_bytes();
    }
    out.extend(packed.iter().take(MINIBLOCK * width as usize / 8));
}

/// Appends an unsigned LEB128 number.
pub(crate) fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn zigzag(value: i64, out: &mut Vec<u8>) {
    varint(((value << 1) ^ (value >> 63)).cast_unsigned(), out);
}

/// Levels of a page: runs of equal numbers, each of at most eight bits (the RLE half of Parquet's hybrid, encoding 3).
#[derive(Default)]
pub(crate) struct Runs {
    bytes: Vec<u8>,
    level: i16,
    length: u64,
}

impl Runs {
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.length = 0;
    }

    /// Adds `level`, `times` over.
    pub(crate) fn push(&mut self, level: i16, times: usize) {
        if times == 0 {
            return;
        }
        if level != self.level {
            self.end_run();
        }
        self.level = level;
        self.length += times as u64;
    }

    fn end_run(&mut self) {
        if self.length > 0 {
            varint(self.length << 1, &mut self.bytes);
            self.bytes.push(self.level as u8);
        }
        self.length = 0;
    }

    /// The runs as a data page (version 1) has them: length, then runs.
    pub(crate) fn append_to(&mut self, page: &mut Vec<u8>) {
        self.end_run();
        page.extend((self.bytes.len() as u32).to_le_bytes());
        page.extend(&self.bytes);
    }
}
