//! The comb backend: table additions alone, four signatures at once where the CPU can, R never decompressed, one inversion for a
//! group of [`GROUP`]. Each signature has its own verdict; the group shares nothing but that inversion.
//!
//! R' = sB - kA must encode to the very bytes of R, and not be the neutral point. For keys that pass the key rule that is
//! exactly `verify_strict` (see `schemas_identity::PublicKey::verify`). A key without room for a table is left open.

use curve25519_dalek::scalar::Scalar;
use schemas_identity::PublicKey;
use sha2::{Digest, Sha512};

use crate::cache::{Cache, Tables};
use crate::comb::{BASE, Digits, LARGE, SMALL, Shape, Table};
use crate::field::{Fe, invert_all};
use crate::point::Point;

/// Signatures that share an inversion, and a first-in wait.
pub(crate) const GROUP: usize = 64;
/// y of the base point, 4/5, with x even (RFC 8032 section 5.1).
const BASE_POINT: [u8; 32] = {
    let mut bytes = [0x66; 32];
    bytes[0] = 0x58;
    bytes
};
/// Encoding of the neutral point.
const NEUTRAL: [u8; 32] = {
    let mut bytes = [0; 32];
    bytes[0] = 1;
    bytes
};

/// Where one signature stands.
enum Step {
    /// s is not below the order: refused without arithmetic.
    Refused,
    /// No table for its key.
    Open,
    /// Equation number so and so.
    Equation(usize),
}

/// R' = sB - kA, with the number of A's table.
struct Equation {
    table: usize,
    k: [u8; 32],
    s: [u8; 32],
}

/// How points are computed; all give the same ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// One after the other, portable.
    Scalar,
    /// Four at once.
    #[cfg(target_arch = "x86_64")]
    Avx2,
}

impl Kind {
    /// All that this CPU has, the fastest last.
    #[must_use]
    pub fn all() -> Vec<Kind> {
        let mut kinds = vec![Kind::Scalar];
        #[cfg(target_arch = "x86_64")]
        if crate::avx2::is_here() {
            kinds.push(Kind::Avx2);
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
        }
    }
}

/// The backend with its tables.
pub(crate) struct Comb {
    kind: Kind,
    base: Table,
    cache: Cache,
    steps: Vec<([u8; 32], Step)>,
    equations: Vec<Equation>,
    /// Equations of one shape, waiting for company.
    order: Vec<usize>,
    points: Vec<Point>,
    inverses: Vec<Fe>,
    scratch: Vec<Fe>,
}

impl Comb {
    /// Builds the base point's table; keys' tables may use `table_bytes_max`.
    pub(crate) fn new(kind: Kind, table_bytes_max: usize) -> Option<Comb> {
        let base = Point::decompress(&BASE_POINT)?;
        Some(Comb {
            kind,
            base: Table::new(&base, BASE),
            cache: Cache::new(table_bytes_max),
            steps: Vec::with_capacity(GROUP),
            equations: Vec::with_capacity(GROUP),
            order: Vec::with_capacity(GROUP),
            points: Vec::with_capacity(GROUP),
            inverses: Vec::with_capacity(GROUP),
            scratch: Vec::with_capacity(GROUP),
        })
    }

    /// As a broken machine would have it: another base point.
    #[cfg(test)]
    pub(crate) fn break_it(&mut self) {
        if let Some(base) = Point::decompress(&BASE_POINT) {
            self.base = Table::new(&base.double(), BASE);
        }
    }

    pub(crate) fn tables(&self) -> Tables {
        self.cache.counts
    }

    /// Takes one signature; at most [`GROUP`] before [`Comb::finish`].
    pub(crate) fn push(&mut self, key: &PublicKey, message: &[u8], signature: &[u8; 64]) {
        if self.steps.is_empty() {
            self.cache.begin();
        }
        let (mut r, mut s) = ([0; 32], [0; 32]);
        r.copy_from_slice(&signature[..32]);
        s.copy_from_slice(&signature[32..]);
        let step = self.compute(key, message, &r, s);
        self.steps.push((r, step));
    }

    fn compute(&mut self, key: &PublicKey, message: &[u8], r: &[u8; 32], s: [u8; 32]) -> Step {
        if !bool::from(Scalar::from_canonical_bytes(s).is_some()) {
            return Step::Refused;
        }
        let Some(table) = self.cache.find(key) else { return Step::Open };
        let hash =
            Sha512::new().chain_update(r).chain_update(key.as_bytes()).chain_update(message).finalize();
        let k = Scalar::from_bytes_mod_order_wide(&hash.into()).to_bytes();
        self.equations.push(Equation { table, k, s });
        Step::Equation(self.equations.len() - 1)
    }

    /// Computes the points of all equations.
    fn solve(&mut self) {
        self.points.clear();
        self.points.resize(self.equations.len(), Point::NEUTRAL);
        for shape in [SMALL, LARGE] {
            self.order.clear();
            let is_of_shape = |at: &usize| {
                self.cache.table(self.equations[*at].table).is_some_and(|table| table.shape() == shape)
            };
            self.order.extend((0..self.equations.len()).filter(is_of_shape));
            let order = std::mem::take(&mut self.order);
            let mut rest = order.as_slice();
            #[cfg(target_arch = "x86_64")]
            if self.kind == Kind::Avx2 {
                rest = self.solve_in_lanes(rest, shape);
            }
            for at in rest {
                self.solve_one(*at, shape);
            }
            self.order = order;
        }
    }

    fn solve_one(&mut self, at: usize, shape: Shape) {
        let equation = &self.equations[at];
        let Some(table) = self.cache.table(equation.table) else { return };
        let sum = table.accumulate(&Digits::new(&equation.k, shape), Point::NEUTRAL);
        // The base point's shape has no doublings, so it may add to what is there.
        self.points[at] = self.base.accumulate(&Digits::new(&equation.s, BASE), sum);
    }

    /// Four at a time; gives back those that are left. Two or three fill the lanes with one of them twice.
    #[cfg(target_arch = "x86_64")]
    fn solve_in_lanes<'o>(&mut self, order: &'o [usize], shape: Shape) -> &'o [usize] {
        use crate::avx2::{LANES, Lane, multiply};
        for (index, part) in order.chunks(LANES).enumerate() {
            let unsolved = &order[index * LANES..];
            if part.len() == 1 {
                return unsolved;
            }
            let lane = |place: usize| {
                let equation = &self.equations[part[place.min(part.len() - 1)]];
                let (digits, base_digits) = (Digits::new(&equation.k, shape), Digits::new(&equation.s, BASE));
                let table = self.cache.table(equation.table)?;
                Some(Lane { table, digits, base_digits })
            };
            let (Some(a), Some(b), Some(c), Some(d)) = (lane(0), lane(1), lane(2), lane(3)) else {
                return unsolved;
            };
            let Some(points) = multiply(&[a, b, c, d], &self.base) else { return unsolved };
            for (at, point) in part.iter().zip(points) {
                self.points[*at] = point;
            }
        }
        &[]
    }

    /// Appends a verdict for each signature taken, in order; `None` where the key had no table.
    pub(crate) fn finish(&mut self, verdicts: &mut Vec<Option<bool>>) {
        self.solve();
        self.inverses.clear();
        self.inverses.extend(self.points.iter().map(|point| point.z));
        invert_all(&mut self.inverses, &mut self.scratch);
        for (r, step) in self.steps.drain(..) {
            verdicts.push(match step {
                Step::Refused => Some(false),
                Step::Open => None,
                Step::Equation(at) => Some(self.points[at].compress(&self.inverses[at]) == r && r != NEUTRAL),
            });
        }
        self.equations.clear();
    }
}
