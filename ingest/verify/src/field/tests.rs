//! The field's laws on chosen and random numbers, at the edges of the limbs' bounds.

use super::*;

/// p - 1, p, p + 1 and 2^255 - 1, little-endian.
fn edges() -> Vec<[u8; 32]> {
    let mut edges = vec![[0; 32], [0xff; 32]];
    for low in [0xec, 0xed, 0xee] {
        let mut bytes = [0xff; 32];
        (bytes[0], bytes[31]) = (low, 0x7f);
        edges.push(bytes);
    }
    let mut one = [0; 32];
    one[0] = 1;
    edges.push(one);
    edges
}

fn numbers() -> Vec<Fe> {
    let mut numbers: Vec<Fe> = edges().iter().map(Fe::from_bytes).collect();
    let mut x = Fe([3, 5, 7, 11, 13]);
    for _ in 0..200 {
        x = x.square().mul(&x);
        numbers.push(x);
    }
    // The largest tight limbs.
    numbers.push(Fe([TIGHT - 1; 5]));
    numbers
}

fn same(a: &Fe, b: &Fe) -> bool {
    a.mul(&Fe::ONE).to_bytes() == b.mul(&Fe::ONE).to_bytes()
}

#[test]
fn encodings_are_canonical() {
    let mut minus_one = [0xff; 32];
    (minus_one[0], minus_one[31]) = (0xec, 0x7f);
    let expected = |low: u8| {
        let mut bytes = [0; 32];
        bytes[0] = low;
        bytes
    };
    let canonical: Vec<[u8; 32]> = edges().iter().map(|bytes| Fe::from_bytes(bytes).to_bytes()).collect();
    assert_eq!(canonical, [expected(0), expected(18), minus_one, expected(0), expected(1), expected(1)]);
}

#[test]
fn the_constants_are_what_they_are_called() {
    let small = |value: u64| Fe([value, 0, 0, 0, 0]);
    assert!(same(&D.mul(&small(121_666)), &small(121_665).neg()));
    assert!(same(&SQRT_M1.square(), &Fe::ONE.neg()));
}

// Products, sums and differences fit together; a number times its inverse is one; squares are products.
#[test]
fn the_laws_hold() {
    let numbers = numbers();
    for (a, b) in numbers.iter().zip(numbers.iter().skip(1).chain(&numbers)) {
        let c = &numbers[17];
        assert!(same(&a.mul(b), &b.mul(a)));
        assert!(same(&a.add(b).mul(c), &a.mul(c).add(&b.mul(c))));
        assert!(same(&a.sub(b).mul(c), &a.mul(c).sub(&b.mul(c))));
        assert!(same(&a.square(), &a.mul(a)));
        assert!(same(&a.add(b).square(), &a.add(b).mul(&a.add(b))));
        assert!(same(&a.neg().add(a), &Fe::ZERO));
        assert!(a.is_zero() || same(&a.invert().mul(a), &Fe::ONE));
    }
}

// The largest loose limbs multiply without overflow, and mean what they mean.
#[test]
fn loose_numbers_multiply() {
    let loose = Fe([LOOSE - 1; 5]);
    let tight = carry(loose.0.map(u128::from));
    assert!(same(&loose.mul(&loose), &tight.mul(&tight)));
    assert!(same(&loose.square(), &tight.square()));
}

// Zeros in a shared inversion stay zero and spoil nobody.
#[test]
fn inverses_are_shared() {
    let mut shared = numbers();
    shared.insert(3, Fe::ZERO);
    let alone: Vec<[u8; 32]> = shared.iter().map(|number| number.invert().to_bytes()).collect();
    let mut scratch = vec![Fe::ZERO; shared.len()];
    invert_all(&mut shared, &mut scratch);
    let shared: Vec<[u8; 32]> = shared.iter().map(|number| number.to_bytes()).collect();
    assert_eq!(shared, alone);
}
