//! From a revocation to the empty answer, while others keep the engine busy.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use query_engine::Options;

use crate::cost::Ours;
use crate::lake::{Recording, Stored};
use crate::population::{Population, device};

/// What runs beside: every reading of everybody.
const HEAVY: &str = "SELECT signal, count(*), avg(value) FROM readings GROUP BY signal";
/// Time for the load to build up, at first and after each revocation, which ends all that runs.
const WARM: Duration = Duration::from_millis(1_500);
/// How long a client waits after its query was ended, as clients should.
const BACK_OFF: Duration = Duration::from_millis(500);

/// Revokes one person after the other, each time asking for that person's day at once; the day must be empty. The queries
/// beside it are allowed by `cohort` people, the one who asks for the day by a thousand.
pub(crate) fn revoke(dir: &Path, people: u32, cohort: u32, beside: usize, times: u32) -> Result<()> {
    let stored = Stored::open(dir, Recording::Days, people)?;
    let mut cohorts = vec![1_000.min(people)];
    cohorts.extend((cohort != cohorts[0]).then_some(cohort));
    let population = Population::new(people, &cohorts)?;
    let options =
        Options { queries_max: beside + 16, queries_per_principal_max: beside + 16, ..Options::default() };
    let ours = Ours::start(dir, stored, population, options)?;
    let stop = Arc::new(AtomicBool::new(false));
    let (done, ended) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    for _ in 0..beside {
        let (engine, population) = (Arc::clone(&ours.engine), Arc::clone(&ours.population));
        let (stop, done, ended) = (Arc::clone(&stop), Arc::clone(&done), Arc::clone(&ended));
        ours.runtime.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                if Ours::ask(&engine, &population, cohort, HEAVY).await.is_ok() {
                    done.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                ended.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(BACK_OFF).await;
            }
        });
    }
    std::thread::sleep(WARM);
    let mut seconds = Vec::new();
    for time in 0..times {
        // People of the small cohort, from the second on.
        let number = (time + 1) * (people / cohorts[0]) % people;
        let sql = format!("SELECT ts, signal, value FROM readings WHERE device = '{}'", device(number));
        let start = Instant::now();
        ours.population.revoke(number)?;
        let took = ours.runtime.block_on(Ours::ask(&ours.engine, &ours.population, cohorts[0], &sql))?;
        seconds.push(start.elapsed().as_secs_f64());
        ensure!(took.rows == 0, "{} rows after the revocation", took.rows);
        std::thread::sleep(WARM);
    }
    stop.store(true, Ordering::Relaxed);
    report(beside, &mut seconds, done.load(Ordering::Relaxed), ended.load(Ordering::Relaxed));
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the report")]
fn report(beside: usize, seconds: &mut [f64], done: u64, ended: u64) {
    seconds.sort_by(f64::total_cmp);
    let at = |part: f64| seconds[((seconds.len() - 1) as f64 * part) as usize] * 1e3;
    println!(
        "{} revocations beside {beside} queries ({done} done, {ended} ended by a revocation): empty after \
         {:.1} ms at the median, {:.1} p90, {:.1} p99, {:.1} at most",
        seconds.len(),
        at(0.5),
        at(0.9),
        at(0.99),
        at(1.0)
    );
}
