//! The comb backend: table additions alone, several signatures at once where the CPU can, R never decompressed, one
//! inversion for a group of [`GROUP`]. Each signature has its own verdict; the group shares nothing but that inversion.
//!
//! R' = sB - kA must encode to the very bytes of R, and not be the neutral point. For keys that pass the key rule that is
//! exactly `verify_strict` (see `schemas_identity::PublicKey::verify`). A key without room for a table is left open.

use std::sync::{Arc, LazyLock};

use curve25519_dalek::scalar::Scalar;
use schemas_identity::PublicKey;
use sha2::{Digest, Sha512};

use crate::cache::{Cache, Limits, Tables};
use crate::comb::{BASE, Digits, HOT, LARGE, SMALL, Table};
use crate::field::{Fe, invert_all};
#[cfg(test)]
use crate::isa::model::Model;
use crate::isa::{Multiply, Program};
#[cfg(target_arch = "x86_64")]
use crate::isa::{avx2::Avx2, avx512::Avx512F, avx512::Avx512Ifma};
use crate::lanes::{self, Equation, Work};
use crate::order::is_below_order;
use crate::point::Point;
use crate::sha512::{self, Block};

/// Signatures that share an inversion, and a first-in wait.
pub(crate) const GROUP: usize = 64;
/// y of the base point, 4/5, with x even (RFC 8032 section 5.1).
const BASE_POINT: [u8; 32] = {
    let mut bytes = [0x66; 32];
    bytes[0] = 0x58;
    bytes
};
/// Its table, built once in a process.
static BASE_TABLE: LazyLock<Option<Arc<Table>>> =
    LazyLock::new(|| Some(Arc::new(Table::new(&Point::decompress(&BASE_POINT)?, BASE))));
/// Encoding of the neutral point.
const NEUTRAL: [u64; 4] = [1, 0, 0, 0];

/// Where one signature stands.
enum Step {
    /// s is not below the order, or R is neutral: refused without arithmetic.
    Refused,
    /// No table for its key.
    Open,
    /// Equation number so and so.
    Equation(usize),
}

/// How points are computed; all give the same ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// One after the other, portable: the readable form of what the lanes do.
    Scalar,
    /// Four at once.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// Eight at once, multiplying as [`Kind::Avx2`] does.
    #[cfg(target_arch = "x86_64")]
    Avx512F,
    /// Eight at once, with 52-bit multiply-add.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// The code of [`Kind::Avx2`] on a machine of plain Rust.
    #[cfg(test)]
    ModelOfAvx2,
    /// The code of [`Kind::Avx512`] on a machine of plain Rust.
    #[cfg(test)]
    ModelOfAvx512,
}

impl Kind {
    /// All that this CPU has, the fastest last; in tests the models before all.
    #[must_use]
    pub fn all() -> Vec<Kind> {
        let mut kinds = Vec::new();
        #[cfg(test)]
        kinds.extend([Kind::ModelOfAvx2, Kind::ModelOfAvx512]);
        kinds.push(Kind::Scalar);
        #[cfg(target_arch = "x86_64")]
        {
            kinds.extend(Avx2::here().map(|_| Kind::Avx2));
            kinds.extend(Avx512F::here().map(|_| Kind::Avx512F));
            kinds.extend(Avx512Ifma::here().map(|_| Kind::Avx512));
        }
        kinds
    }

    /// As in [`crate::VARIABLE`].
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Kind::Scalar => "comb",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512F => "avx512f",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => "avx512",
            #[cfg(test)]
            Kind::ModelOfAvx2 => "model of avx2",
            #[cfg(test)]
            Kind::ModelOfAvx512 => "model of avx512",
        }
    }
}

/// The backend with its tables. What it keeps between calls is room: a warm one allocates nothing but tables.
pub(crate) struct Comb {
    kind: Kind,
    base: Arc<Table>,
    cache: Cache,
    steps: Vec<Step>,
    equations: Vec<Equation>,
    blocks: Vec<Block>,
    /// k of each equation, in the scalar kind alone; lanes compute it.
    challenges: Vec<[u64; 4]>,
    /// Equations of one shape, those with as many blocks beside each other.
    order: Vec<usize>,
    holds: Vec<bool>,
    points: Vec<Point>,
    inverses: Vec<Fe>,
    scratch: Vec<Fe>,
}

impl Comb {
    /// With no tables but the base point's.
    pub(crate) fn new(kind: Kind, limits: Limits) -> Option<Comb> {
        Some(Comb {
            kind,
            base: BASE_TABLE.clone()?,
            cache: Cache::new(limits),
            steps: Vec::with_capacity(GROUP),
            equations: Vec::with_capacity(GROUP),
            blocks: Vec::with_capacity(8 * GROUP),
            challenges: Vec::with_capacity(GROUP),
            order: Vec::with_capacity(GROUP),
            holds: Vec::with_capacity(GROUP),
            points: Vec::with_capacity(GROUP),
            inverses: Vec::with_capacity(GROUP),
            scratch: Vec::with_capacity(GROUP),
        })
    }

    /// Starts over with no tables and other limits.
    pub(crate) fn forget_tables(&mut self, limits: Limits) {
        self.cache = Cache::new(limits);
    }

    /// As a broken machine would have it: another base point.
    #[cfg(test)]
    pub(crate) fn break_it(&mut self) {
        if let Some(base) = Point::decompress(&BASE_POINT) {
            self.base = Arc::new(Table::new(&base.double(), BASE));
        }
    }

    pub(crate) fn tables(&self) -> Tables {
        self.cache.counts
    }

    /// Takes one signature; at most [`GROUP`] before [`Comb::finish`].
    pub(crate) fn push(&mut self, key: &PublicKey, message: &[u8], signature: &[u8; 64]) {
        debug_assert!(self.steps.len() < GROUP);
        if self.steps.is_empty() {
            self.cache.begin();
        }
        let step = self.prepare(key, message, signature);
        self.steps.push(step);
    }

    fn prepare(&mut self, key: &PublicKey, message: &[u8], signature: &[u8; 64]) -> Step {
        let (r, s) = signature.split_at(32);
        let (r_words, s_words) = (words(r), words(s));
        if !is_below_order(&s_words) || r_words == NEUTRAL {
            return Step::Refused;
        }
        let Some(table) = self.cache.find(key) else { return Step::Open };
        let parts = [r, key.as_bytes(), message];
        let (mut first_block, mut blocks) = (0, 0);
        if self.kind == Kind::Scalar {
            let hash = parts.iter().fold(Sha512::new(), |hash, part| hash.chain_update(part)).finalize();
            self.challenges.push(words(&Scalar::from_bytes_mod_order_wide(&hash.into()).to_bytes()));
        } else {
            (first_block, blocks) = (self.blocks.len(), sha512::pad(&mut self.blocks, &parts));
        }
        self.equations.push(Equation { table, r: r_words, s: s_words, first_block, blocks });
        Step::Equation(self.equations.len() - 1)
    }

    /// Decides all equations.
    fn solve(&mut self) {
        self.holds.clear();
        self.holds.resize(self.equations.len(), false);
        if self.kind == Kind::Scalar {
            return self.solve_one_by_one();
        }
        for shape in [SMALL, LARGE, HOT] {
            self.order.clear();
            let is_of_shape = |at: &usize| {
                self.cache.table(self.equations[*at].table).is_some_and(|table| table.shape() == shape)
            };
            self.order.extend((0..self.equations.len()).filter(is_of_shape));
            if self.order.is_empty() {
                // Its shared inversion would be one for nothing.
                continue;
            }
            self.order.sort_unstable_by_key(|at| self.equations[*at].blocks);
            let work = Work {
                equations: &self.equations,
                blocks: &self.blocks,
                cache: &self.cache,
                base: &self.base,
                order: &self.order,
                shape,
            };
            decide(self.kind, work, &mut self.holds);
        }
    }

    fn solve_one_by_one(&mut self) {
        self.points.clear();
        for (equation, challenge) in self.equations.iter().zip(&self.challenges) {
            let Some(table) = self.cache.table(equation.table) else { return };
            let sum = table.accumulate(&Digits::new(challenge, table.shape()), Point::NEUTRAL);
            // The base point's shape has no doublings, so it may add to what is there.
            self.points.push(self.base.accumulate(&Digits::new(&equation.s, BASE), sum));
        }
        self.inverses.clear();
        self.inverses.extend(self.points.iter().map(|point| point.z));
        self.scratch.resize(self.points.len(), Fe::ZERO);
        invert_all(&mut self.inverses, &mut self.scratch);
        for (at, point) in self.points.iter().enumerate() {
            let inverse = &self.inverses[at];
            self.holds[at] = !inverse.is_zero() && words(&point.compress(inverse)) == self.equations[at].r;
        }
    }

    /// Appends a verdict for each signature taken, in order; `None` where the key had no table.
    pub(crate) fn finish(&mut self, verdicts: &mut Vec<Option<bool>>) {
        self.solve();
        for step in self.steps.drain(..) {
            verdicts.push(match step {
                Step::Refused => Some(false),
                Step::Open => None,
                Step::Equation(at) => Some(self.holds[at]),
            });
        }
        self.equations.clear();
        self.blocks.clear();
        self.challenges.clear();
    }
}

/// Little-endian words of 32 bytes.
fn words(bytes: &[u8]) -> [u64; 4] {
    let mut words = [0; 4];
    for (word, part) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *word = u64::from_le_bytes(*part);
    }
    words
}

/// [`lanes::decide`] as a program of a machine.
struct Decide<'a> {
    work: Work<'a>,
    holds: &'a mut [bool],
}

impl<I: Multiply> Program<I> for Decide<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self, machine: I) {
        lanes::decide(machine, &self.work, self.holds);
    }
}

/// Decides in lanes. On a CPU without them, where no caller gets, nothing holds.
fn decide(kind: Kind, work: Work<'_>, holds: &mut [bool]) {
    match kind {
        Kind::Scalar => {}
        #[cfg(target_arch = "x86_64")]
        Kind::Avx2 => {
            if let Some(machine) = Avx2::here() {
                machine.run(Decide { work, holds });
            }
        }
        #[cfg(target_arch = "x86_64")]
        Kind::Avx512F => {
            if let Some(machine) = Avx512F::here() {
                machine.run(Decide { work, holds });
            }
        }
        #[cfg(target_arch = "x86_64")]
        Kind::Avx512 => {
            if let Some(machine) = Avx512Ifma::here() {
                machine.run(Decide { work, holds });
            }
        }
        #[cfg(test)]
        Kind::ModelOfAvx2 => Decide { work, holds }.run(Model::<4>),
        #[cfg(test)]
        Kind::ModelOfAvx512 => Decide { work, holds }.run(Model::<8>),
    }
}
