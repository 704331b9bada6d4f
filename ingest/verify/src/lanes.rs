//! Signatures side by side, one to a lane: hash, comb, one shared inversion, comparison. Generic over the machine;
//! everything here is safe code, and inlined into the one call that enables the machine's instructions.
//!
//! Formulas: Hisil, Wong, Carter, Dawson 2008, sections 3.1 and 3.3, a = -1, as in [`crate::point`], but T is left out where
//! a doubling or the end follows.

use crate::cache::Cache;
use crate::comb::{Shape, Table};
use crate::digits::Digits;
use crate::field::{Fe, invert_all};
use crate::isa::{Isa, LANES_MAX, Multiply};
use crate::order;
use crate::point::Entry;
use crate::radix51::{Field, Five};
use crate::sha512::{self, Block};

/// One signature's equation R = sB - kA, ready but for k.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Equation {
    /// Number of A's table in the cache.
    pub(crate) table: usize,
    /// R and s as little-endian words.
    pub(crate) r: [u64; 4],
    pub(crate) s: [u64; 4],
    /// Where its padded message starts among the blocks, and how many blocks it has.
    pub(crate) first_block: usize,
    pub(crate) blocks: usize,
}

/// What the lanes work on.
#[derive(Clone, Copy)]
pub(crate) struct Work<'t> {
    pub(crate) equations: &'t [Equation],
    pub(crate) blocks: &'t [Block],
    pub(crate) cache: &'t Cache,
    pub(crate) base: &'t Table,
    /// Which equations, at most [`ROUNDS_MAX`] rounds of lanes, all with tables of one shape.
    pub(crate) order: &'t [usize],
    pub(crate) shape: Shape,
}

/// Most rounds of lanes for one shared inversion: a group of 64 in four lanes.
pub(crate) const ROUNDS_MAX: usize = 16;
/// Most steps of a sum: windows of the smallest shape and of the base point's.
const STEPS_MAX: usize = 64 + 32;
/// Steps between asking for entries and adding them.
const AHEAD: usize = 6;
/// Steps that are held: those asked for, and the one that is added.
const HELD: usize = 8;
const _: () = assert!(AHEAD < HELD);

struct Point<I: Multiply> {
    x: Five<I>,
    y: Five<I>,
    z: Five<I>,
    /// Stale where a doubling or the end follows.
    t: Five<I>,
}

/// What all lanes add at once.
#[derive(Clone, Copy)]
struct Step<'t, I: Isa> {
    entries: [&'t Entry; LANES_MAX],
    /// All ones in the lanes that subtract.
    negative: I::V,
}

/// All steps of a sum: the keys' windows from the highest residue down, then the base point's.
struct Plan<'t, I: Isa> {
    shape: Shape,
    base: Shape,
    /// Of each lane's key, and the base point's.
    tables: [[&'t Table; LANES_MAX]; 2],
    /// Of each lane's k and s.
    digits: [Digits<I>; 2],
    places: &'t [(u8, u8); STEPS_MAX],
}

/// Table and window of each step; the same for all keys of a shape.
fn places(shape: Shape, base: Shape) -> [(u8, u8); STEPS_MAX] {
    let windows = |shape: Shape| {
        (0..shape.gap()).rev().flat_map(move |residue| {
            (residue..shape.windows()).step_by(shape.gap()).map(move |window| (window / shape.gap(), window))
        })
    };
    let mut places = [(0, 0); STEPS_MAX];
    for (place, (table, window)) in places.iter_mut().zip(windows(shape).chain(windows(base))) {
        *place = (table as u8, window as u8);
    }
    places
}

impl<'t, I: Isa> Plan<'t, I> {
    #[inline(always)]
    fn steps(&self) -> usize {
        self.shape.windows() + self.base.windows()
    }

    /// Step number `at`, its entries asked for.
    #[inline(always)]
    fn ask(&self, isa: I, at: usize) -> Step<'t, I> {
        let (table, window) = self.places[at];
        let which = usize::from(at >= self.shape.windows());
        let (numbers, negative) = self.digits[which].at(isa, usize::from(table), usize::from(window));
        let mut step = Step { entries: [&Entry::NEUTRAL; LANES_MAX], negative };
        for (lane, number) in isa.store(numbers).into_iter().enumerate().take(I::LANES) {
            let entry = self.tables[which][lane].pick(number);
            isa.prefetch(entry.lines());
            step.entries[lane] = entry;
        }
        step
    }
}

#[inline(always)]
fn double<I: Multiply, const WITH_T: bool>(field: Field<I>, p: &Point<I>) -> Point<I> {
    let xy = field.sum(&p.x, &p.y);
    let squares = [field.square(&p.x), field.square(&p.y), field.square(&p.z), field.square(&xy)];
    finish::<I, WITH_T>(field, &field.of_doubling(&squares))
}

/// The last four products, or three.
#[inline(always)]
fn finish<I: Multiply, const WITH_T: bool>(field: Field<I>, [e, f, g, h]: &[Five<I>; 4]) -> Point<I> {
    let z = field.multiply(f, g);
    let t = if WITH_T { field.multiply(e, h) } else { z };
    Point { x: field.multiply(f, e), y: field.multiply(g, h), z, t }
}

/// y + x, y - x, 2dxy of a step's entries, and the lanes that subtract. Subtracting a point is adding (-x, y): the first two
/// change places here, the third's sign is left to [`Field::of_addition`].
#[inline(always)]
fn fetch<I: Multiply>(isa: I, step: &Step<'_, I>) -> ([Five<I>; 3], I::V) {
    let mut lines = [[&[0; 8]; LANES_MAX]; 2];
    for (lane, entry) in step.entries.iter().enumerate() {
        let [first, second] = entry.lines();
        (lines[0][lane], lines[1][lane]) = (first, second);
    }
    let [p0, p1, p2, p3, m0, m1, m2, m3] = isa.columns(&lines[0]);
    let [t0, t1, t2, t3, p4, m4, t4, _] = isa.columns(&lines[1]);
    let (mut plus, mut minus) = ([p0, p1, p2, p3, p4], [m0, m1, m2, m3, m4]);
    let negative = step.negative;
    for index in 0..5 {
        let change = isa.and(negative, isa.xor(plus[index], minus[index]));
        (plus[index], minus[index]) = (isa.xor(plus[index], change), isa.xor(minus[index], change));
    }
    ([plus, minus, [t0, t1, t2, t3, t4]], negative)
}

#[inline(always)]
fn add<I: Multiply, const WITH_T: bool>(field: Field<I>, p: &Point<I>, step: &Step<'_, I>) -> Point<I> {
    let ([plus, minus, t2d], negative) = fetch(field.0, step);
    let a = field.product(&field.difference(&p.y, &p.x), &minus);
    let b = field.product(&field.sum(&p.y, &p.x), &plus);
    let c = field.product(&p.t, &t2d);
    finish::<I, WITH_T>(field, &field.of_addition(&[a, b, c], &p.z, negative))
}

/// The sum of all steps.
#[inline(always)]
fn accumulate<I: Multiply>(field: Field<I>, plan: &Plan<'_, I>) -> Point<I> {
    let (isa, shape, steps) = (field.0, plan.shape, plan.steps());
    let mut held = [plan.ask(isa, 0); HELD];
    for (at, step) in held.iter_mut().enumerate().take(AHEAD).skip(1) {
        *step = plan.ask(isa, at);
    }
    let (zero, one) = (field.constant(0), field.constant(1));
    let mut p = Point::<I> { x: zero, y: one, z: one, t: zero };
    let mut at = 0;
    for residue in (0..shape.gap()).rev() {
        if residue + 1 < shape.gap() {
            for _ in 1..shape.width() {
                p = double::<I, false>(field, &p);
            }
            p = double::<I, true>(field, &p);
        }
        // The base point's windows need no doublings: they come with the last round.
        let own = (residue..shape.windows()).step_by(shape.gap()).len();
        let last = if residue == 0 { steps - 1 } else { at + own - 1 };
        while at <= last {
            if at + AHEAD < steps {
                held[(at + AHEAD) % HELD] = plan.ask(isa, at + AHEAD);
            }
            let step = &held[at % HELD];
            p = if at < last { add::<I, true>(field, &p, step) } else { add::<I, false>(field, &p, step) };
            at += 1;
        }
    }
    p
}

/// The numbers of all lanes as one scalar number each, and back.
#[inline(always)]
fn lanes_of<I: Isa>(isa: I, number: &Five<I>) -> [Fe; LANES_MAX] {
    let mut limbs = [[0; 5]; LANES_MAX];
    for (index, vector) in number.iter().enumerate() {
        for (lane, value) in isa.store(*vector).into_iter().enumerate() {
            limbs[lane][index] = value;
        }
    }
    limbs.map(Fe::from_limbs)
}

#[inline(always)]
fn into_lanes<I: Isa>(isa: I, numbers: &[Fe; LANES_MAX]) -> Five<I> {
    let mut limbs = [isa.splat(0); 5];
    for (index, limb) in limbs.iter_mut().enumerate() {
        let mut values = [0; LANES_MAX];
        for (value, number) in values.iter_mut().zip(numbers) {
            *value = number.0[index];
        }
        *limb = isa.load(&values);
    }
    limbs
}

/// The one encoding below p, as four little-endian words per lane; takes limbs below 2^52.
#[inline(always)]
pub(crate) fn canonical<I: Isa>(isa: I, mut limbs: [I::V; 5]) -> [I::V; 4] {
    let (mask, nineteen) = (isa.splat((1 << 51) - 1), isa.splat(19));
    // After the first pass the value is below 2^255 + 2^8; the second chain of carries finds whether 19 more reach 2^255,
    // so whether it is p or more, and takes p away by adding 19 and dropping bit 255.
    for index in 0..4 {
        limbs[index + 1] = isa.add(limbs[index + 1], isa.shr::<51>(limbs[index]));
        limbs[index] = isa.and(limbs[index], mask);
    }
    let top = isa.shr::<51>(limbs[4]);
    limbs[4] = isa.and(limbs[4], mask);
    limbs[0] = isa.add(limbs[0], isa.mul_u32(top, nineteen));
    let mut over = isa.shr::<51>(isa.add(limbs[0], nineteen));
    for limb in &limbs[1..] {
        over = isa.shr::<51>(isa.add(*limb, over));
    }
    limbs[0] = isa.add(limbs[0], isa.mul_u32(over, nineteen));
    for index in 0..4 {
        limbs[index + 1] = isa.add(limbs[index + 1], isa.shr::<51>(limbs[index]));
        limbs[index] = isa.and(limbs[index], mask);
    }
    limbs[4] = isa.and(limbs[4], mask);
    [
        isa.or(limbs[0], isa.shl::<51>(limbs[1])),
        isa.or(isa.shr::<13>(limbs[1]), isa.shl::<38>(limbs[2])),
        isa.or(isa.shr::<26>(limbs[2]), isa.shl::<25>(limbs[3])),
        isa.or(isa.shr::<39>(limbs[3]), isa.shl::<12>(limbs[4])),
    ]
}

/// For each lane, whether (x/z, y/z) has this encoding.
#[inline(always)]
fn compare<I: Multiply>(
    field: Field<I>,
    [x, y, z_inverse]: [&Five<I>; 3],
    expected: &[[u64; 4]; LANES_MAX],
) -> [bool; LANES_MAX] {
    let isa = field.0;
    let x = canonical(isa, field.multiply(x, z_inverse));
    let mut y = canonical(isa, field.multiply(y, z_inverse));
    y[3] = isa.or(y[3], isa.shl::<63>(x[0]));
    let mut difference = isa.splat(0);
    for (word, expected) in y.into_iter().zip(load_each(isa, expected)) {
        difference = isa.or(difference, isa.xor(word, expected));
    }
    isa.store(difference).map(|bits| bits == 0)
}

/// k = SHA-512(R | A | M) mod L of each lane.
#[inline(always)]
fn challenges<I: Isa>(isa: I, work: &Work<'_>, lanes: &[&Equation; LANES_MAX]) -> [I::V; 4] {
    let messages = lanes.map(|lane| &work.blocks[lane.first_block..lane.first_block + lane.blocks]);
    order::reduce(isa, sha512::hash(isa, &messages))
}

/// Word by word, one number to a lane.
#[inline(always)]
fn load_each<I: Isa>(isa: I, numbers: &[[u64; 4]; LANES_MAX]) -> [I::V; 4] {
    let word = |index: usize| isa.load(&numbers.map(|number| number[index]));
    [word(0), word(1), word(2), word(3)]
}

/// Writes `holds[at]` for each `at` of the order: whether the equation holds. What it does not reach stays as it was, which
/// callers start with `false`.
#[inline(always)]
pub(crate) fn decide<I: Multiply>(isa: I, work: &Work<'_>, holds: &mut [bool]) {
    let (field, lanes, shape) = (Field(isa), I::LANES, work.shape);
    debug_assert!(work.order.len() <= ROUNDS_MAX * lanes);
    let (one, base) = (field.constant(1), work.base.shape());
    let places = places(shape, base);
    let mut points = [[one; 3]; ROUNDS_MAX];
    let mut before = [one; ROUNDS_MAX];
    let mut product = one;
    let rounds = || work.order.chunks(lanes).take(ROUNDS_MAX);
    for (round, part) in rounds().enumerate() {
        // A round that is not full has its last signature in the rest of the lanes.
        let lane = |index: usize| &work.equations[part[index.min(part.len() - 1)]];
        let equations = [lane(0), lane(1), lane(2), lane(3), lane(4), lane(5), lane(6), lane(7)];
        let mut tables = [work.base; LANES_MAX];
        for (table, equation) in tables.iter_mut().zip(&equations[..lanes]) {
            let Some(own) = work.cache.table(equation.table) else { return };
            *table = own;
        }
        let digits = [
            Digits::new(isa, &challenges(isa, work, &equations), shape),
            Digits::new(isa, &load_each(isa, &equations.map(|equation| equation.s)), base),
        ];
        let tables = [tables, [work.base; LANES_MAX]];
        let p = accumulate(field, &Plan { shape, base, tables, digits, places: &places });
        (points[round], before[round]) = ([p.x, p.y, p.z], product);
        product = field.multiply(&product, &p.z);
    }
    // Montgomery's trick twice: down to one number per lane, then to a single one.
    let mut inverses = lanes_of(isa, &product);
    invert_all(&mut inverses[..lanes], &mut [Fe::ZERO; LANES_MAX]);
    // The formulas are complete, so no z is zero; were one, its lane would compare zeros, and must not accept them.
    let is_sound = inverses.map(|inverse| !inverse.is_zero());
    let mut inverse = into_lanes(isa, &inverses);
    for (round, part) in rounds().enumerate().rev() {
        let [x, y, z] = &points[round];
        let own = field.multiply(&inverse, &before[round]);
        inverse = field.multiply(&inverse, z);
        let lane = |index: usize| work.equations[part[index.min(part.len() - 1)]].r;
        let expected = [lane(0), lane(1), lane(2), lane(3), lane(4), lane(5), lane(6), lane(7)];
        let same = compare(field, [x, y, &own], &expected);
        for (lane, at) in part.iter().enumerate() {
            holds[*at] = same[lane] && is_sound[lane];
        }
    }
}
