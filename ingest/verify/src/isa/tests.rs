//! Every operation of every machine here means what the model says; its products are products.

use num_bigint::BigUint;

use super::model::Model;
use super::*;

type V = [u64; LANES_MAX];

/// Words and limbs from a seed, values at the edges among them.
struct Dice(crate::tests::Dice);

impl Dice {
    fn new(seed: u64) -> Dice {
        Dice(crate::tests::Dice(seed))
    }

    fn word(&mut self) -> u64 {
        const EDGES: [u64; 8] = [0, 1, u64::MAX, 1 << 63, 1 << 31, (1 << 31) - 1, 1 << 32, (1 << 52) - 1];
        let word = self.0.next();
        if word.is_multiple_of(4) { EDGES[(word >> 8) as usize % 8] } else { word }
    }

    fn vector(&mut self) -> V {
        std::array::from_fn(|_| self.word())
    }

    /// A limb, often a largest or smallest one.
    fn limb(&mut self) -> u64 {
        let word = self.0.next();
        match word % 5 {
            0 => LIMB_MAX,
            1 => 0,
            2 => (1 << 51) - 1,
            _ => (word >> 3) % (LIMB_MAX + 1),
        }
    }
}

/// All operations of a machine and of the model with as many lanes.
struct Agree<const N: usize>;

impl<const N: usize, I: Multiply> Program<I> for Agree<N> {
    type Output = ();

    #[inline(always)]
    fn run(self, machine: I) {
        let (model, mut dice) = (Model::<N>, Dice::new(7));
        assert_eq!(I::LANES, N);
        for _ in 0..2_000 {
            let (x, y, z) = (dice.vector(), dice.vector(), dice.vector());
            let (a, b, c) = (machine.load(&x), machine.load(&y), machine.load(&z));
            let (p, q, r) = (model.load(&x), model.load(&y), model.load(&z));
            let pairs = [
                (machine.splat(x[0]), model.splat(x[0])),
                (machine.mask(x[1] as u8), model.mask(x[1] as u8)),
                (machine.add(a, b), model.add(p, q)),
                (machine.sub(a, b), model.sub(p, q)),
                (machine.and(a, b), model.and(p, q)),
                (machine.or(a, b), model.or(p, q)),
                (machine.xor(a, b), model.xor(p, q)),
                (machine.xor3(a, b, c), model.xor3(p, q, r)),
                (machine.choose(a, b, c), model.choose(p, q, r)),
                (machine.majority(a, b, c), model.majority(p, q, r)),
                (machine.shl::<1>(a), model.shl::<1>(p)),
                (machine.shl::<63>(a), model.shl::<63>(p)),
                (machine.shr::<51>(a), model.shr::<51>(p)),
                (machine.shl_by(a, (x[2] % 65) as u32), model.shl_by(p, (x[2] % 65) as u32)),
                (machine.shr_by(a, (x[2] % 65) as u32), model.shr_by(p, (x[2] % 65) as u32)),
                (machine.shl_by(a, 64), model.splat(0)),
                (machine.shr_by(a, 64), model.splat(0)),
                (machine.rotate::<14, 50>(a), model.rotate::<14, 50>(p)),
                (machine.swap_bytes(a), model.swap_bytes(p)),
                (machine.mul_u32(a, b), model.mul_u32(p, q)),
                (machine.mul_i32(a, b), model.mul_i32(p, q)),
            ];
            for (at, (real, meant)) in pairs.into_iter().enumerate() {
                assert_eq!(machine.store(real), model.store(meant), "operation {at}");
            }
            assert_eq!(model.majority(p, q, r)[0], (x[0] & y[0]) | (x[0] & z[0]) | (y[0] & z[0]));
            let rows: [V; LANES_MAX] = std::array::from_fn(|_| dice.vector());
            let rows: [&V; LANES_MAX] = std::array::from_fn(|row| &rows[row]);
            let (real, meant) = (machine.columns(&rows), model.columns(&rows));
            for (real, meant) in real.into_iter().zip(meant) {
                assert_eq!(machine.store(real), model.store(meant));
            }
        }
    }
}

/// The 32-bit operations of a machine.
struct Agree32;

impl<I: Isa32> Program<I> for Agree32 {
    type Output = ();

    #[inline(always)]
    fn run(self, machine: I) {
        let (model, mut dice) = (Model::<4>, Dice::new(13));
        for _ in 0..2_000 {
            let mut words = || -> [u32; ROWS] { std::array::from_fn(|_| dice.word() as u32) };
            let (p, q, r) = (words(), words(), words());
            let (a, b, c) = (machine.load32(&p), machine.load32(&q), machine.load32(&r));
            let mask = (machine.mask32(p[0] as u8), model.mask32(p[0] as u8));
            let pairs = [
                (machine.splat32(p[1]), model.splat32(p[1])),
                (machine.add32(a, b), model.add32(p, q)),
                (machine.xor32(a, b), model.xor32(p, q)),
                (machine.choose32(mask.0, b, c), model.choose32(mask.1, q, r)),
                (machine.rotate32::<16, 16>(a), model.rotate32::<16, 16>(p)),
                (machine.rotate32::<7, 25>(a), model.rotate32::<7, 25>(p)),
            ];
            for (at, (real, meant)) in pairs.into_iter().enumerate() {
                assert_eq!(machine.store32(real), meant, "operation {at}");
            }
            let rows: [[u32; 16]; ROWS] =
                std::array::from_fn(|_| std::array::from_fn(|_| dice.word() as u32));
            for (real, meant) in machine.columns32(&rows).into_iter().zip(model.columns32(&rows)) {
                assert_eq!(machine.store32(real), meant);
            }
        }
    }
}

/// Products and squares of a machine, as whole numbers modulo p.
struct Products;

impl<I: Multiply> Program<I> for Products {
    type Output = ();

    #[inline(always)]
    fn run(self, machine: I) {
        let mut dice = Dice::new(11);
        for _ in 0..2_000 {
            let [x, y]: [[V; 5]; 2] =
                std::array::from_fn(|_| std::array::from_fn(|_| std::array::from_fn(|_| dice.limb())));
            let (a, b) = (x.map(|limb| machine.load(&limb)), y.map(|limb| machine.load(&limb)));
            let product = machine.product(&a, &b).map(|column| machine.store(column));
            let square = machine.square(&a).map(|column| machine.store(column));
            for lane in 0..I::LANES {
                let (a, b) = (number(&x.map(|limb| limb[lane])), number(&y.map(|limb| limb[lane])));
                check(&product.map(|column| column[lane]), &a * &b);
                check(&square.map(|column| column[lane]), &a * &a);
            }
        }
    }
}

fn number(limbs: &[u64]) -> BigUint {
    limbs.iter().rev().fold(BigUint::ZERO, |sum, limb| (sum << 51) + limb)
}

/// Columns within their bounds, and the product modulo p = 2^255 - 19.
fn check(columns: &[u64; 10], product: BigUint) {
    let p = (BigUint::from(1_u8) << 255) - 19_u8;
    // Columns from 5 on may be a little below zero: a multiple of p makes up for it.
    let raised: Vec<u64> = columns.iter().map(|column| column.wrapping_add(1 << 60)).collect();
    let ones = number(&[1 << 60; 10]) % &p;
    assert_eq!(number(&raised) % &p, (product + ones) % &p);
    for (at, column) in columns.iter().enumerate() {
        let (low, high) = (-5_i64 << 50, COLUMN_MAX.cast_signed() + if at < 5 { 1 << 58 } else { 0 });
        let column = column.cast_signed();
        assert!(low <= column && column <= high && (at >= 5 || column >= 0), "column {at}: {column}");
    }
}

// What a machine does with a vector is what the model does, on random words and on edges.
#[test]
fn machines_agree_with_the_model() {
    #[cfg(target_arch = "x86_64")]
    {
        match avx2::Avx2::here() {
            Some(machine) => {
                machine.run(Agree::<4>);
                machine.run(Agree32);
            }
            None => eprintln!("skipped: no AVX2 and FMA here"),
        }
        match avx512::Avx512F::here() {
            Some(machine) => machine.run(Agree::<8>),
            None => eprintln!("skipped: no AVX-512 here"),
        }
        match avx512::Avx512Ifma::here() {
            Some(machine) => machine.run(Agree::<8>),
            None => eprintln!("skipped: no AVX-512 with IFMA here"),
        }
    }
    Agree::<1>.run(Model::<1>);
}

// Products of limbs up to the largest are products, and their columns within the bounds that all else relies on.
#[test]
fn products_are_products() {
    #[cfg(target_arch = "x86_64")]
    {
        if let Some(machine) = avx2::Avx2::here() {
            machine.run(Products);
        }
        if let Some(machine) = avx512::Avx512F::here() {
            machine.run(Products);
        }
        if let Some(machine) = avx512::Avx512Ifma::here() {
            machine.run(Products);
        }
    }
    Products.run(Model::<4>);
    Products.run(Model::<8>);
}
