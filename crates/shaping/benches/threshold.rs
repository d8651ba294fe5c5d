//! Time per prompt. `cargo bench -p stackelberg-shaping`; figures in `bench/runs/`.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use stackelberg_shaping::{Confidence, Report, Samples, Shaping, Threshold};

fn rewards(m: usize) -> Vec<f64> {
    let mut rng = ChaCha8Rng::seed_from_u64(m as u64);
    (0..m).map(|_| rng.random_range(-3.0..3.0)).collect()
}

fn benches(criterion: &mut Criterion) {
    for m in [10, 100, 1000] {
        let rewards = rewards(m);
        let logits: Vec<f64> = rewards.iter().map(|r| 1.0 - r * r).collect();
        criterion.bench_with_input(BenchmarkId::new("threshold", m), &rewards, |b, r| {
            b.iter(|| Threshold::new(&Samples::new(black_box(r))?, 6.0));
        });
        let shaping = Shaping::default();
        criterion.bench_with_input(BenchmarkId::new("srs", m), &rewards, |b, r| {
            b.iter(|| shaping.apply(&Samples::new(black_box(r))?));
        });
        criterion.bench_with_input(BenchmarkId::new("srs of logits", m), &rewards, |b, r| {
            b.iter(|| shaping.apply(&Samples::from_logits(black_box(r), &logits)?));
        });
        let confidence = Confidence::new(0.9).expect("a level in range");
        criterion.bench_with_input(BenchmarkId::new("report", m), &rewards, |b, r| {
            b.iter(|| Report::new(&shaping, &Samples::new(black_box(r))?, None, Some(&confidence)));
        });
    }
}

criterion_group!(threshold, benches);
criterion_main!(threshold);
