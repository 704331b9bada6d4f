//! Rounds in which every peer has its turn, so that whatever else the machine does meets all alike.
//! It knows no library and no file: peers go in, samples come out.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use ingest_verify::watch::Signed;

use crate::case::Case;
use crate::peer::{self, Peer};
use crate::workload::{SIGNATURES_MIN, Workload};

/// The same for every run: figures of two runs are about the same bytes.
pub const SEED: u64 = 7;

/// How long a run takes.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Turns of each peer.
    pub rounds: usize,
    /// Length of a turn.
    pub turn: Duration,
    /// The same where signatures are bad: our re-checks have a rate per second, so shorter turns would overstate them.
    pub turn_bad: Duration,
}

impl Effort {
    /// For figures that are kept.
    pub const FULL: Effort =
        Effort { rounds: 7, turn: Duration::from_millis(300), turn_bad: Duration::from_secs(1) };
    /// For a look.
    pub const QUICK: Effort =
        Effort { rounds: 3, turn: Duration::from_millis(100), turn_bad: Duration::from_secs(1) };
}

/// What one thread did in one turn.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The peer's name.
    pub peer: String,
    /// 0 = first.
    pub round: usize,
    /// 0 = first.
    pub thread: usize,
    /// Signatures checked.
    pub signatures: usize,
    /// Time that took.
    pub seconds: f64,
    /// The part of it that the thread ran, if the system says: the rest went to others.
    pub cpu_seconds: Option<f64>,
}

/// One peer on one thread, with its place in the workload.
struct Runner {
    peer: Box<dyn Peer>,
    verdicts: Vec<bool>,
    next: usize,
}

/// All samples of a case; fails if a peer judges wrongly, for then its time means nothing.
pub fn run(case: Case, effort: Effort, progress: &mut dyn FnMut(&str)) -> Result<Vec<Sample>> {
    progress(&format!("{case}: signing"));
    let workload = Workload::new(SEED, case.shape, SIGNATURES_MIN);
    let signed = workload.signed();
    let calls: Vec<&[Signed<'_>]> = signed.chunks(case.per_call).collect();
    let turn = if case.shape.bad_per_mille > 0 { effort.turn_bad } else { effort.turn };

    let mut contestants = contestants(&workload, case.threads);
    for runners in &mut contestants {
        progress(&format!("{case}: warming up {}", runners[0].peer.name()));
        for runner in runners {
            warm_up(&mut *runner.peer, &workload, case.per_call)?;
        }
    }
    let mut samples = Vec::new();
    for round in 0..effort.rounds {
        progress(&format!("{case}: round {} of {}", round + 1, effort.rounds));
        for runners in &mut contestants {
            take_turn(runners, &calls, turn, round, &mut samples)?;
        }
    }
    Ok(samples)
}

/// For each peer as many as there are threads.
fn contestants(workload: &Workload, threads: usize) -> Vec<Vec<Runner>> {
    let mut contestants: Vec<Vec<Runner>> = Vec::new();
    for _ in 0..threads {
        for (index, peer) in peer::all(workload.keys()).into_iter().enumerate() {
            let runner = Runner { peer, verdicts: Vec::new(), next: 0 };
            match contestants.get_mut(index) {
                Some(runners) => runners.push(runner),
                None => contestants.push(vec![runner]),
            }
        }
    }
    contestants
}

/// Every key as often as the peer needs, every verdict compared with what it must be.
pub fn warm_up(peer: &mut dyn Peer, workload: &Workload, per_call: usize) -> Result<()> {
    let signed = workload.signed();
    let passes = (peer.warm_up_uses() * workload.keys().len()).div_ceil(signed.len());
    let mut verdicts = Vec::new();
    for _ in 0..passes {
        for (call, each) in signed.chunks(per_call).zip(workload.expected().chunks(per_call)) {
            peer.verify_each(call, &mut verdicts);
            ensure!(verdicts == peer::expected(peer, each), "{} judged wrongly", peer.name());
        }
    }
    Ok(())
}

/// All threads of one peer at once.
fn take_turn(
    runners: &mut [Runner],
    calls: &[&[Signed<'_>]],
    turn: Duration,
    round: usize,
    samples: &mut Vec<Sample>,
) -> Result<()> {
    let start = Barrier::new(runners.len());
    std::thread::scope(|scope| {
        let threads: Vec<_> = runners
            .iter_mut()
            .map(|runner| {
                scope.spawn(|| {
                    start.wait();
                    runner.work(calls, turn)
                })
            })
            .collect();
        for (thread, handle) in threads.into_iter().enumerate() {
            let Ok(sample) = handle.join() else { bail!("a measured thread panicked") };
            samples.push(Sample { round, thread, ..sample });
        }
        Ok(())
    })
}

impl Runner {
    /// Whole calls until the time is over; round and thread are the caller's to fill in.
    fn work(&mut self, calls: &[&[Signed<'_>]], turn: Duration) -> Sample {
        let mut signatures = 0;
        let cpu_before = cpu_seconds();
        let start = Instant::now();
        let mut elapsed = Duration::ZERO;
        while elapsed < turn {
            let call = calls[self.next];
            self.next = (self.next + 1) % calls.len();
            self.peer.verify_each(call, &mut self.verdicts);
            std::hint::black_box(&self.verdicts);
            signatures += call.len();
            elapsed = start.elapsed();
        }
        let cpu_seconds = cpu_before.and_then(|before| Some(cpu_seconds()? - before));
        let peer = self.peer.name().to_owned();
        Sample { peer, round: 0, thread: 0, signatures, seconds: elapsed.as_secs_f64(), cpu_seconds }
    }
}

/// Time that this thread has run so far; Linux only.
fn cpu_seconds() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let nanoseconds: u64 = text.split_whitespace().next()?.parse().ok()?;
    Some(nanoseconds as f64 / 1e9)
}

/// One peer's figures in one case.
#[derive(Debug, Clone, PartialEq)]
pub struct Figures {
    /// The peer's name.
    pub peer: String,
    /// Of the rounds, all threads together.
    pub median_ns: f64,
    /// The fastest round.
    pub min_ns: f64,
    /// The share of all turns' time that its threads ran, if the system says.
    pub on_cpu: Option<f64>,
}

/// Figures of a case's peers, in the order of their first samples.
pub fn figures(samples: &[Sample]) -> Result<Vec<Figures>> {
    let mut names: Vec<&str> = Vec::new();
    for sample in samples {
        if !names.contains(&sample.peer.as_str()) {
            names.push(&sample.peer);
        }
    }
    names.into_iter().map(|name| figures_of(name, samples)).collect()
}

fn figures_of(name: &str, samples: &[Sample]) -> Result<Figures> {
    let mut rates: Vec<f64> = Vec::new();
    let (mut cpu_seconds, mut seconds) = (Some(0.0), 0.0);
    for sample in samples.iter().filter(|sample| sample.peer == name) {
        // Threads' rates add up: they work at the same time.
        rates.resize(rates.len().max(sample.round + 1), 0.0);
        rates[sample.round] += sample.signatures as f64 / sample.seconds;
        cpu_seconds = cpu_seconds.zip(sample.cpu_seconds).map(|(sum, one)| sum + one);
        seconds += sample.seconds;
    }
    rates.sort_by(f64::total_cmp);
    let median = rates.get(rates.len() / 2).context("no rounds")?;
    let max = rates.last().context("no rounds")?;
    let on_cpu = cpu_seconds.map(|sum: f64| sum / seconds);
    Ok(Figures { peer: name.to_owned(), median_ns: 1e9 / median, min_ns: 1e9 / max, on_cpu })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::Shape;

    fn sample(peer: &str, round: usize, thread: usize, signatures: usize) -> Sample {
        Sample { peer: peer.to_owned(), round, thread, signatures, seconds: 0.5, cpu_seconds: Some(0.25) }
    }

    // Scenario: two threads, three rounds, out of order. Guarantee: threads add up, rounds do not; others' time shows.
    #[test]
    fn threads_add_up() {
        let mut samples = vec![sample("b", 0, 0, 5)];
        for (round, signatures) in [(2, 400), (0, 100), (1, 200)] {
            samples.extend([0, 1].map(|thread| sample("a", round, thread, signatures)));
        }
        let found = figures(&samples).unwrap();
        let of = |peer: &str, median_ns, min_ns| Figures {
            peer: peer.to_owned(),
            median_ns,
            min_ns,
            on_cpu: Some(0.5),
        };
        assert_eq!(found[0], of("b", 1e8, 1e8));
        assert_eq!(found[1], of("a", 1e9 / 800.0, 1e9 / 1_600.0));
    }

    // Scenario: the shortest possible run on two threads. Guarantee: each peer has a sample for each round and thread.
    #[test]
    fn everybody_has_a_turn() {
        let shape = Shape { devices: 4, message_bytes: 100, bad_per_mille: 10 };
        let workload = Workload::new(1, shape, 64);
        let signed = workload.signed();
        let calls: Vec<&[Signed<'_>]> = signed.chunks(8).collect();
        let mut samples = Vec::new();
        let mut contestants = contestants(&workload, 2);
        for round in 0..2 {
            for runners in &mut contestants {
                warm_up(&mut *runners[0].peer, &workload, 8).unwrap();
                take_turn(runners, &calls, Duration::from_nanos(1), round, &mut samples).unwrap();
            }
        }
        assert_eq!(samples.len(), contestants.len() * 4);
        assert!(samples.iter().all(|sample| sample.signatures == 8));
        assert_eq!(figures(&samples).unwrap().len(), contestants.len());
    }
}
