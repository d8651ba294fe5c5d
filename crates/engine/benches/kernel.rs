//! Benchmarks of the kernels: `cargo bench -p stackelberg-engine`. `stackelberg bench` measures whole models.

use std::convert::Infallible;
use std::hint::black_box;
use std::ops::Range;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use stackelberg_engine::Dtype;
use stackelberg_engine::kernel::{Packed, Variant, log_sum_exp};

/// A layer of SmolLM2-135M: 1536 outputs and 576 inputs. It fits the CPU cache.
fn layer(dtype: Dtype, variant: Variant) -> Packed {
    let rows = |rows: Range<usize>, to: &mut [f32]| {
        to.iter_mut()
            .enumerate()
            .for_each(|(i, to)| *to = ((i * 31 + rows.start) % 97) as f32 / 97.0 - 0.5);
        Ok::<(), Infallible>(())
    };
    Packed::with_variant(1536, 576, dtype, variant, rows).unwrap_or_else(|error| match error {})
}

fn benches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("linear");
    for variant in Variant::available() {
        for &dtype in Dtype::ALL {
            let layer = layer(dtype, variant);
            for m in [1, 10, 40, 128] {
                let (x, mut y) = (vec![0.5; m * 576], vec![0.0; m * 1536]);
                group.throughput(Throughput::Elements((m * 576 * 1536) as u64));
                let name = format!("{} {dtype}", variant.name());
                group.bench_function(BenchmarkId::new(name, m), |b| {
                    b.iter(|| layer.apply(black_box(&x), &mut y, false));
                });
            }
        }
    }
    group.finish();
    let logits: Vec<f32> = (0..49152).map(|i| (i % 1009) as f32 / 100.0).collect();
    criterion
        .bench_function("log_sum_exp of a vocabulary", |b| b.iter(|| log_sum_exp(black_box(&logits))));
}

criterion_group!(kernel, benches);
criterion_main!(kernel);
