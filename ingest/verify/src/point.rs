//! Points of edwards25519 as the comb needs them: extended coordinates, affine table entries, one mixed addition and one
//! doubling (Hisil, Wong, Carter, Dawson 2008, sections 3.1 and 3.3, a = -1). The formulas are complete: d is no square, so
//! no input is an exception. Decompression is for enrolled keys only, which the key rule has checked.

use crate::field::{D, Fe, SQRT_M1, invert_all};

/// (X : Y : Z : T) with x = X/Z, y = Y/Z, xy = T/Z; all four tight.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Point {
    x: Fe,
    y: Fe,
    pub(crate) z: Fe,
    t: Fe,
}

/// An affine point ready to be added: y + x, y - x, 2dxy, all tight; two whole cache lines.
///
/// Limbs 0 to 3 of the first and of the second are line 0; those of the third, and the three limbs 4, are line 1.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
pub(crate) struct Entry([[u64; 8]; 2]);

impl Entry {
    pub(crate) const NEUTRAL: Entry = Entry::new(Fe::ONE, Fe::ONE, Fe::ZERO);

    const fn new(Fe(p): Fe, Fe(m): Fe, Fe(t): Fe) -> Entry {
        Entry([
            [p[0], p[1], p[2], p[3], m[0], m[1], m[2], m[3]],
            [t[0], t[1], t[2], t[3], p[4], m[4], t[4], 0],
        ])
    }

    /// As it lies in memory, for lanes.
    pub(crate) fn lines(&self) -> &[[u64; 8]; 2] {
        &self.0
    }

    #[inline(always)]
    fn plus(&self) -> Fe {
        let [a, b] = &self.0;
        Fe([a[0], a[1], a[2], a[3], b[4]])
    }

    #[inline(always)]
    fn minus(&self) -> Fe {
        let [a, b] = &self.0;
        Fe([a[4], a[5], a[6], a[7], b[5]])
    }

    #[inline(always)]
    fn t2d(&self) -> Fe {
        let [_, b] = &self.0;
        Fe([b[0], b[1], b[2], b[3], b[6]])
    }
}

impl Point {
    pub(crate) const NEUTRAL: Point = Point { x: Fe::ZERO, y: Fe::ONE, z: Fe::ONE, t: Fe::ZERO };

    /// The point of an encoding; `None` if there is none. Does not ask for the one canonical encoding.
    pub(crate) fn decompress(bytes: &[u8; 32]) -> Option<Point> {
        let y = Fe::from_bytes(bytes);
        let y2 = y.square();
        let u = y2.sub(&Fe::ONE);
        let v = D.mul(&y2).add(&Fe::ONE).mul(&Fe::ONE);
        let v3 = v.square().mul(&v);
        let v7 = v3.square().mul(&v);
        let mut x = u.mul(&v3).mul(&u.mul(&v7).pow_p58());
        let vxx = v.mul(&x.square());
        let u = u.mul(&Fe::ONE);
        if vxx.to_bytes() == u.neg().to_bytes() {
            x = x.mul(&SQRT_M1);
        } else if vxx.to_bytes() != u.to_bytes() {
            return None;
        }
        if x.is_odd() != (bytes[31] >> 7 == 1) {
            x = x.neg();
        }
        Some(Point { x, y, z: Fe::ONE, t: x.mul(&y) })
    }

    pub(crate) fn neg(&self) -> Point {
        Point { x: self.x.neg(), y: self.y, z: self.z, t: self.t.neg() }
    }

    pub(crate) fn double(&self) -> Point {
        let (a, b, zz) = (self.x.square(), self.y.square(), self.z.square());
        // c and h are sums of two tight numbers, below 2^52 + 2^14; g is below 2^51 + 2^13 + 2^53, so c + g < 2^54.
        let (c, h, g) = (zz.add(&zz), a.add(&b), a.sub(&b));
        let e = h.sub(&self.x.add(&self.y).square());
        let f = g.add_loose(&c);
        Point { x: e.mul(&f), y: g.mul(&h), z: f.mul(&g), t: e.mul(&h) }
    }

    /// Adds the entry, or subtracts it. The sign picks operands without a branch: digits are as good as random.
    #[inline(always)]
    pub(crate) fn add(&self, entry: &Entry, is_negative: bool) -> Point {
        let (mut plus, mut minus) = (entry.plus(), entry.minus());
        swap_if(is_negative, &mut plus, &mut minus);
        let a = self.y.sub(&self.x).mul(&minus);
        let b = self.y.add(&self.x).mul(&plus);
        let c = self.t.mul(&entry.t2d());
        let d = self.z.add(&self.z);
        let (e, h) = (b.sub(&a), b.add(&a));
        let (mut f, mut g) = (d.sub(&c), d.add_loose(&c));
        swap_if(is_negative, &mut f, &mut g);
        Point { x: e.mul(&f), y: g.mul(&h), z: f.mul(&g), t: e.mul(&h) }
    }

    /// The encoding, given 1/Z.
    pub(crate) fn compress(&self, z_inverse: &Fe) -> [u8; 32] {
        let mut bytes = self.y.mul(z_inverse).to_bytes();
        bytes[31] |= u8::from(self.x.mul(z_inverse).is_odd()) << 7;
        bytes
    }
}

fn swap_if(condition: bool, a: &mut Fe, b: &mut Fe) {
    let mask = 0_u64.wrapping_sub(u64::from(condition));
    for index in 0..5 {
        let difference = (a.0[index] ^ b.0[index]) & mask;
        a.0[index] ^= difference;
        b.0[index] ^= difference;
    }
}

/// Table entries of points, for one inversion.
pub(crate) fn entries(points: &[Point]) -> Vec<Entry> {
    let mut inverses: Vec<Fe> = points.iter().map(|point| point.z).collect();
    invert_all(&mut inverses, &mut vec![Fe::ZERO; points.len()]);
    let two_d = D.add(&D);
    let entry = |(point, inverse): (&Point, &Fe)| {
        let (x, y) = (point.x.mul(inverse), point.y.mul(inverse));
        let (plus, minus) = (y.add(&x).mul(&Fe::ONE), y.sub(&x).mul(&Fe::ONE));
        Entry::new(plus, minus, x.mul(&y).mul(&two_d))
    };
    points.iter().zip(&inverses).map(entry).collect()
}
