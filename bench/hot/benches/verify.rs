//! The same cases and peers under criterion, for work on a backend: it says whether a change made a difference.
//! Not for comparing peers: they run one after the other, and a shared machine changes meanwhile.

use std::cell::OnceCell;
use std::time::Duration;

use bench_hot::case::{self, Case};
use bench_hot::measure::{self, SEED};
use bench_hot::peer;
use bench_hot::workload::{SIGNATURES_MIN, Workload};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

fn verify(criterion: &mut Criterion) {
    // Criterion drives one thread.
    for case in case::all(false).into_iter().filter(|case| case.threads == 1) {
        measure_case(criterion, case);
    }
}

fn measure_case(criterion: &mut Criterion, case: Case) {
    let mut group = criterion.benchmark_group(case.axis);
    group.throughput(Throughput::Elements(case.per_call as u64));
    // Made when the first benchmark of the case runs: a filter then costs nothing.
    let workload = OnceCell::new();
    for (index, name) in peer::all(&[]).iter().map(|peer| peer.name()).enumerate() {
        group.bench_with_input(BenchmarkId::new(name, case), &case, |bencher, case| {
            let workload = workload.get_or_init(|| Workload::new(SEED, case.shape, SIGNATURES_MIN));
            let mut peer = peer::all(workload.keys()).swap_remove(index);
            if let Err(error) = measure::warm_up(&mut *peer, workload, case.per_call) {
                panic!("{error:#}");
            }
            let signed = workload.signed();
            let mut calls = signed.chunks_exact(case.per_call).cycle();
            let mut verdicts = Vec::new();
            bencher.iter_batched(
                || calls.next().unwrap_or_default(),
                |call| peer.verify_each(call, &mut verdicts),
                BatchSize::SmallInput,
            );
        });
    }
}

fn options() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2))
}

criterion_group! { name = benches; config = options(); targets = verify }
criterion_main!(benches);
