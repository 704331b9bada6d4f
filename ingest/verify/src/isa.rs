//! What a CPU does with a few 64-bit numbers at once, one to a lane: the whole alphabet of the lane code.
//!
//! All arithmetic above is written once against these traits, in safe code, and runs on three machines: AVX-512 with its
//! 52-bit multiply-add, AVX2, and in tests a model in plain Rust, so that what only some CPUs can execute is tested on all.
//! A value of an implementing type is the proof that this CPU has the instructions.

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
pub(crate) mod fused;
#[cfg(test)]
pub(crate) mod model;

/// Most lanes of any machine.
pub(crate) const LANES_MAX: usize = 8;

/// What runs on a machine, as one piece: its `run` is to be inlined always, so that it becomes that machine's instructions.
pub(crate) trait Program<I> {
    /// What it gives.
    type Output;
    /// Runs it.
    fn run(self, machine: I) -> Self::Output;
}

/// A machine with [`Isa::LANES`] lanes of 64 bits. Arithmetic wraps.
pub(crate) trait Isa: Copy {
    /// Lanes: 1 to [`LANES_MAX`].
    const LANES: usize;
    /// A number in each lane.
    type V: Copy;

    /// The same number in all lanes.
    fn splat(self, value: u64) -> Self::V;
    /// One number per lane; those past the last lane are ignored.
    fn load(self, values: &[u64; LANES_MAX]) -> Self::V;
    /// As many numbers as there are lanes; the rest is 0.
    fn store(self, vector: Self::V) -> [u64; LANES_MAX];
    /// Vector `i` has word `i` of each row: rows to lanes. Rows past the last lane are ignored.
    fn columns(self, rows: &[&[u64; 8]; LANES_MAX]) -> [Self::V; 8];
    /// All ones in the lanes whose bit is set.
    fn mask(self, bits: u8) -> Self::V;

    /// a + b
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    /// a - b
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    /// a & b
    fn and(self, a: Self::V, b: Self::V) -> Self::V;
    /// a | b
    fn or(self, a: Self::V, b: Self::V) -> Self::V;
    /// a ^ b
    fn xor(self, a: Self::V, b: Self::V) -> Self::V;
    /// a ^ b ^ c
    #[inline(always)]
    fn xor3(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        self.xor(self.xor(a, b), c)
    }
    /// Bit by bit: `yes` where the mask has a one.
    #[inline(always)]
    fn choose(self, mask: Self::V, yes: Self::V, no: Self::V) -> Self::V {
        self.xor(no, self.and(mask, self.xor(yes, no)))
    }
    /// Bit by bit: what two of three say.
    #[inline(always)]
    fn majority(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        self.or(self.and(a, b), self.and(c, self.or(a, b)))
    }
    /// a << BITS
    fn shl<const BITS: i32>(self, a: Self::V) -> Self::V;
    /// a >> BITS, zeros from above
    fn shr<const BITS: i32>(self, a: Self::V) -> Self::V;
    /// a << bits, the same in all lanes, at most 64, which leaves nothing
    fn shl_by(self, a: Self::V, bits: u32) -> Self::V;
    /// a >> bits, zeros from above, as [`Isa::shl_by`]
    fn shr_by(self, a: Self::V, bits: u32) -> Self::V;
    /// Rotation to the right; LEFT is 64 - RIGHT, which a const parameter cannot compute.
    #[inline(always)]
    fn rotate<const RIGHT: i32, const LEFT: i32>(self, a: Self::V) -> Self::V {
        self.or(self.shr::<RIGHT>(a), self.shl::<LEFT>(a))
    }
    /// Bytes in reverse order.
    fn swap_bytes(self, a: Self::V) -> Self::V;
    /// Product of the low 32 bits, unsigned.
    fn mul_u32(self, a: Self::V, b: Self::V) -> Self::V;
    /// Product of the low 32 bits, signed.
    fn mul_i32(self, a: Self::V, b: Self::V) -> Self::V;
    /// Asks for the two cache lines of something soon needed.
    fn prefetch(self, lines: &[[u64; 8]; 2]);

    /// For debug builds: whether every lane is at most `max`, both below 2^63.
    #[inline(always)]
    fn is_within(self, a: Self::V, max: u64) -> bool {
        self.store(a)[..Self::LANES].iter().all(|value| *value <= max)
    }
}

/// A machine's way to multiply numbers of five limbs, each at most [`LIMB_MAX`].
///
/// The result is ten columns of weight 2^(51 i): their sum is the product plus, where products come with signs, a multiple
/// of p that keeps sums from being negative. As signed numbers columns are within -5 * 2^50 and [`COLUMN_MAX`], those from
/// 0 to 4 with 2^58 added in the second case.
pub(crate) trait Multiply: Isa {
    /// a * b
    fn product(self, a: &[Self::V; 5], b: &[Self::V; 5]) -> [Self::V; 10];
    /// a * a
    fn square(self, a: &[Self::V; 5]) -> [Self::V; 10];
}

/// Rows of 32-bit words that are worked on side by side.
pub(crate) const ROWS: usize = 8;

/// A machine with eight lanes of 32 bits. Arithmetic wraps.
pub(crate) trait Isa32: Copy {
    /// A word in each lane.
    type W: Copy;

    /// The same word in all lanes.
    fn splat32(self, value: u32) -> Self::W;
    /// One word per lane.
    fn load32(self, values: &[u32; ROWS]) -> Self::W;
    /// One word per lane.
    fn store32(self, vector: Self::W) -> [u32; ROWS];
    /// Vector `i` has word `i` of each row.
    fn columns32(self, rows: &[[u32; 16]; ROWS]) -> [Self::W; 16];
    /// All ones in the lanes whose bit is set.
    fn mask32(self, bits: u8) -> Self::W;
    /// a + b
    fn add32(self, a: Self::W, b: Self::W) -> Self::W;
    /// a ^ b
    fn xor32(self, a: Self::W, b: Self::W) -> Self::W;
    /// Bit by bit: `yes` where the mask has a one.
    fn choose32(self, mask: Self::W, yes: Self::W, no: Self::W) -> Self::W;
    /// Rotation to the right; LEFT is 32 - RIGHT.
    fn rotate32<const RIGHT: i32, const LEFT: i32>(self, a: Self::W) -> Self::W;
}

/// Largest limb of a factor: 2^51 and what carries may leave on top.
pub(crate) const LIMB_MAX: u64 = (1 << 51) + (1 << 16);
/// Largest column of a product: five low parts below 2^52, five high ones below 2^51 + 2^18 that count twice.
pub(crate) const COLUMN_MAX: u64 = 11 << 52;

#[cfg(test)]
mod tests;
