//! Runs of the simulation. A seed decides everything: `VITALOG_SIM_SEEDS=FROM..TO` runs others than the default ones, and
//! a failing seed says how to run it again.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::disks::LedgerFault;
use super::world::World;

/// Seeds of an ordinary test run.
const SEEDS: Range<u64> = 0..250;
/// Things that happen in one run.
const EVENTS: usize = 70;
/// Rounds in which everything must be accepted once nothing fails any more.
const ROUNDS_MAX: usize = 400;
/// Frames of a round.
const ROUND_FRAMES: usize = 6;
/// Between two lines of progress of a long run.
const PROGRESS: Duration = Duration::from_secs(10);

/// Says how to run a seed again if it panics, wherever that is.
struct Named(u64);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let (from, to) = (self.0, self.0 + 1);
            eprintln!("seed {from} failed: VITALOG_SIM_SEEDS={from}..{to} cargo test -p ingest-pipeline sim");
        }
    }
}

/// Tells the other threads that one failed.
struct Alarm<'a>(&'a AtomicBool);

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

/// What a run came to, in short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Outcome {
    trace: u64,
    answers: u64,
    promised: u64,
    contradicted: u64,
    batches: u64,
    /// Fewer parts than batches.
    merged: u64,
    restarts: u64,
}

impl World {
    fn event(&mut self) {
        self.now_us += self.dice.below(20_000_000) as i64;
        match self.dice.below(100) {
            0..=38 => self.send(),
            39..=44 => {
                self.check();
            }
            45..=61 => {
                self.check();
                self.decide();
            }
            62..=71 => self.seal(),
            72..=77 => self.compact(),
            78..=80 => self.tidy(),
            81..=84 => self.plug.die_in(1 + self.dice.below(60) as u64),
            85 => self.plug.die(),
            86..=87 => self.restart_in_order(),
            88..=89 => self.wal.fail_syncs(1),
            90..=91 => self.plug.fail_lake_syncs(1),
            92..=94 => self.plug.set_full(true),
            95..=97 => self.plug.set_full(false),
            98 => *self.ledger.fault.lock() = Some(LedgerFault::Before),
            _ => *self.ledger.fault.lock() = Some(LedgerFault::After),
        }
        self.settle();
    }

    /// After each event: the dead are started again, the stuck sometimes.
    fn settle(&mut self) {
        if self.plug.is_down() {
            let power = self.dice.one_in(2);
            self.restart(power);
        } else if self.is_stuck() && self.dice.one_in(6) {
            let power = self.dice.one_in(3);
            self.restart(power);
        }
    }

    fn restart(&mut self, power: bool) {
        self.end(power);
        self.start();
        self.check_all();
        if self.dice.one_in(8) {
            self.audit();
        }
    }

    /// Doors close, what waits is decided, the last batch is sealed.
    fn restart_in_order(&mut self) {
        while self.check() {}
        while self.life.as_ref().is_some_and(|life| !life.groups.is_empty() && life.lake.has_room()) {
            self.decide();
        }
        self.seal();
        self.restart(false);
    }

    /// One submission: new frames, some sent again, some that contradict.
    fn send(&mut self) {
        let count = 1 + self.dice.below(8);
        let mut frames = Vec::new();
        let made = self.senders.make(&mut self.dice, self.now_us, count);
        let mut desk = self.desk.lock();
        for made in made {
            frames.push(desk.add(made));
        }
        if !desk.sent.is_empty() && self.dice.one_in(3) {
            // Once more: answered or not.
            frames.push(self.dice.below(desk.sent.len()));
        }
        let waiting: Vec<usize> = desk.todo.iter().copied().take(2).collect();
        frames.extend(waiting);
        if self.dice.one_in(12) {
            let made = desk.sent[self.dice.below(desk.sent.len())].clone();
            if let Some(other) = self.senders.contradict(&mut self.dice, &made) {
                frames.push(desk.add(other));
            }
        }
        if self.dice.one_in(8) {
            // Lost on the way for now.
            let late = frames.remove(self.dice.below(frames.len()));
            desk.todo.insert(late);
        }
        if self.dice.one_in(5) {
            frames.reverse();
        }
        drop(desk);
        self.offer(frames);
    }

    /// Nothing fails any more: everything must be accepted or refused for good, without a restart unless one is due.
    fn heal(&mut self) {
        self.plug.set_full(false);
        self.plug.fail_lake_syncs(0);
        self.wal.fail_syncs(0);
        self.plug.die_in(u64::MAX / 2);
        *self.ledger.fault.lock() = None;
        if self.is_stuck() {
            self.restart(false);
            self.plug.die_in(u64::MAX / 2);
        }
        for _ in 0..ROUNDS_MAX {
            let todo: Vec<usize> = self.desk.lock().todo.iter().copied().take(ROUND_FRAMES).collect();
            if !todo.is_empty() {
                self.offer(todo);
            }
            self.check();
            self.decide();
            if self.life.as_ref().is_some_and(|life| !life.lake.has_room()) || self.dice.one_in(8) {
                self.seal();
            }
            self.tidy();
            let desk = self.desk.lock();
            if desk.todo.is_empty() && !desk.waits() {
                return;
            }
        }
        let desk = self.desk.lock();
        let todo = desk.todo.len();
        drop(desk);
        self.problem(format!("{todo} frames are not accepted although nothing fails"));
    }

    fn expect_no_problem(&self) {
        let problems = std::mem::take(&mut self.desk.lock().problems);
        assert!(problems.is_empty(), "{problems:#?}");
    }
}

fn run(seed: u64) -> Outcome {
    let _named = Named(seed);
    let mut world = World::new(seed);
    world.start();
    for _ in 0..EVENTS {
        world.event();
        world.expect_no_problem();
    }
    world.heal();
    world.expect_no_problem();
    world.restart_in_order();
    world.audit();
    // It may still die in the middle of that.
    world.compact();
    world.restart(false);
    world.audit();
    world.expect_no_problem();
    let desk = world.desk.lock();
    let view = world.life.as_ref().map(|life| life.lake.view());
    let batches = view.as_ref().map_or(0, |view| view.batches.len() as u64);
    let merged = view.as_ref().map_or(0, |view| (view.batches.len() - view.parts().len()) as u64);
    Outcome {
        trace: desk.trace,
        answers: desk.answers,
        promised: desk.promised.len() as u64,
        contradicted: desk.contradicted.len() as u64,
        batches,
        merged,
        restarts: world.restarts,
    }
}

fn seeds() -> Range<u64> {
    let Ok(text) = std::env::var("VITALOG_SIM_SEEDS") else { return SEEDS };
    let (from, to) = text.split_once("..").unwrap();
    from.parse().unwrap()..to.parse().unwrap()
}

/// Runs them on all cores; each seed by itself.
fn run_all(seeds: &Range<u64>) -> Outcome {
    let (next, failed) = (AtomicU64::new(seeds.start), AtomicBool::new(false));
    let (began, reported) = (Instant::now(), parking_lot::Mutex::new(Instant::now()));
    let total = parking_lot::Mutex::new(Outcome::default());
    let worker = || {
        let _alarm = Alarm(&failed);
        while !failed.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            let outcome = run(seed);
            let mut total = total.lock();
            total.answers += outcome.answers;
            total.promised += outcome.promised;
            total.contradicted += outcome.contradicted;
            total.batches += outcome.batches;
            total.merged += outcome.merged;
            total.restarts += outcome.restarts;
            drop(total);
            let mut reported = reported.lock();
            if reported.elapsed() > PROGRESS {
                *reported = Instant::now();
                eprintln!("seed {seed} of {}, {} s", seeds.end, began.elapsed().as_secs());
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(worker);
        }
    });
    let total = *total.lock();
    eprintln!("{} seeds in {:.1} s: {total:?}", seeds.end - seeds.start, began.elapsed().as_secs_f64());
    total
}

/// Guarantee (G2, G3, G5): whatever fails and whenever the machine dies, an accepted frame is stored once with its bytes,
/// nothing else is, every sender gets one true answer, and the lake agrees with the log.
#[test]
fn sim_accepted_frames_survive_everything() {
    let seeds = seeds();
    let total = run_all(&seeds);
    let count = seeds.end - seeds.start;
    // The runs are worth something only if a lot happens in them.
    if count >= 100 {
        assert!(total.promised > 30 * count, "{total:?}");
        assert!(total.restarts > 3 * count && total.batches > 2 * count, "{total:?}");
        assert!(total.contradicted > count / 10 && total.merged > count, "{total:?}");
    }
}

/// Guarantee: a seed gives the same run each time, so that a failure can be looked at again.
#[test]
fn sim_a_seed_replays() {
    for seed in 0..5 {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
}
