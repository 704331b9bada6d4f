//! The comb backend: one signature after the other by table additions alone, R never decompressed, one inversion for a
//! group of [`GROUP`]. Each signature has its own verdict; the group shares nothing but that inversion.
//!
//! R' = sB - kA must encode to the very bytes of R, and not be the neutral point. For keys that pass the key rule that is
//! exactly `verify_strict` (see `schemas_identity::PublicKey::verify`). A key without room for a table is left open.

use curve25519_dalek::scalar::Scalar;
use schemas_identity::PublicKey;
use sha2::{Digest, Sha512};

use crate::cache::{Cache, Tables};
use crate::comb::{BASE, Digits, Shape, Table};
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
    /// The number of the point that must encode to R.
    Computed(usize),
}

/// The backend with its tables.
pub(crate) struct Comb {
    base: Table,
    cache: Cache,
    steps: Vec<([u8; 32], Step)>,
    points: Vec<Point>,
    inverses: Vec<Fe>,
    scratch: Vec<Fe>,
}

impl Comb {
    /// Builds the base point's table; keys' tables may use `table_bytes_max`.
    pub(crate) fn new(table_bytes_max: usize) -> Option<Comb> {
        let base = Point::decompress(&BASE_POINT)?;
        Some(Comb {
            base: Table::new(&base, BASE),
            cache: Cache::new(table_bytes_max),
            steps: Vec::with_capacity(GROUP),
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
        let Some(at) = self.cache.find(key) else { return Step::Open };
        let Some(table) = self.cache.table(at) else { return Step::Open };
        let hash =
            Sha512::new().chain_update(r).chain_update(key.as_bytes()).chain_update(message).finalize();
        let k = Scalar::from_bytes_mod_order_wide(&hash.into()).to_bytes();
        let sum = multiply(table, &k, Point::NEUTRAL);
        self.points.push(multiply(&self.base, &s, sum));
        Step::Computed(self.points.len() - 1)
    }

    /// Appends a verdict for each signature taken, in order; `None` where the key had no table.
    pub(crate) fn finish(&mut self, verdicts: &mut Vec<Option<bool>>) {
        self.inverses.clear();
        self.inverses.extend(self.points.iter().map(|point| point.z));
        invert_all(&mut self.inverses, &mut self.scratch);
        for (r, step) in self.steps.drain(..) {
            verdicts.push(match step {
                Step::Refused => Some(false),
                Step::Open => None,
                Step::Computed(at) => Some(self.points[at].compress(&self.inverses[at]) == r && r != NEUTRAL),
            });
        }
        self.points.clear();
    }
}

/// `sum` + the number times the table's point. The base point's shape has no doublings, so there `sum` may be anything.
fn multiply(table: &Table, number: &[u8; 32], sum: Point) -> Point {
    let shape: Shape = table.shape();
    table.accumulate(&Digits::new(number, shape), sum)
}
