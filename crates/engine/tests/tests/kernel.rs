//! Every variant of the kernels against plain arithmetic.

use std::process::Command;

use half::{bf16, f16};
use proptest::prelude::*;
use stackelberg_engine::Dtype;
use stackelberg_engine::kernel::{Activation, Norm, Packed, Variant};

use crate::common::tiny::choose_kernel;

fn values(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

/// A row, rounded to a dtype. The scales of int8 weights are f16, those of inputs f32.
fn kept(row: &[f32], dtype: Dtype, weights: bool) -> Vec<f32> {
    match dtype {
        Dtype::F32 => row.to_vec(),
        Dtype::Bf16 | Dtype::Native => row.iter().map(|&x| bf16::from_f32(x).to_f32()).collect(),
        Dtype::Int8 | Dtype::Q4 => row
            .chunks(32)
            .flat_map(|block| {
                let scale = block.iter().fold(0f32, |most, x| most.max(x.abs())) / 127.0;
                let scale = if weights { f16::from_f32(scale).to_f32() } else { scale };
                let nearest = move |x: f32| (x / scale).round_ties_even().clamp(-127.0, 127.0) * scale;
                block.iter().map(move |&x| if scale > 0.0 { nearest(x) } else { 0.0 })
            })
            .collect(),
    }
}

fn layer(w: &[f32], n: usize, k: usize, dtype: Dtype, variant: Variant) -> Packed {
    let rows = |rows: std::ops::Range<usize>, to: &mut [f32]| {
        to.copy_from_slice(&w[rows.start * k..rows.end * k]);
        Ok::<(), std::convert::Infallible>(())
    };
    Packed::with_variant(n, k, dtype, variant, rows).unwrap()
}

fn dtype() -> impl Strategy<Value = Dtype> {
    prop::sample::select(Dtype::ALL)
}

const CASES: u32 = if cfg!(miri) { 2 } else { 300 };

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn linear_variants_agree(m in 1usize..30, n in 1usize..100, k in 1usize..150, seed: u64, dtype in dtype()) {
        let (w, x) = (values(n * k, seed), values(m * k, !seed));
        let held: Vec<Vec<f32>> = w.chunks_exact(k).map(|row| kept(row, dtype, true)).collect();
        for variant in Variant::available() {
            let layer = layer(&w, n, k, dtype, variant);
            let mut y = vec![f32::NAN; m * n];
            layer.apply(&x, &mut y, false);
            for (row, x) in x.chunks_exact(k).enumerate() {
                let x = kept(x, dtype, false);
                for out in 0..n {
                    let exact: f64 = x.iter().zip(&held[out]).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum();
                    let found = f64::from(y[row * n + out]);
                    prop_assert!((found - exact).abs() < 2e-5, "{variant:?} {row} {out}: {found} not {exact}");
                }
            }
            // A row does not depend on the other rows of the call.
            let mut alone = vec![0.0; n];
            layer.apply(&x[(m - 1) * k..], &mut alone, false);
            prop_assert_eq!(&alone[..], &y[(m - 1) * n..]);
            // Added to previous values.
            let mut sum = alone.clone();
            layer.apply(&x[(m - 1) * k..], &mut sum, true);
            prop_assert!(sum.iter().zip(&alone).all(|(sum, y)| *sum == 2.0 * y));
            let mut last = vec![0.0; k];
            layer.row(n - 1, &mut last);
            prop_assert_eq!(&last, &held[n - 1]);
        }
    }

    /// Vector instructions of all kinds add bf16 products in the same order, so that a machine may take the fastest.
    #[test]
    fn bf16_has_the_same_bits(m in 1usize..30, n in 1usize..70, k in 1usize..150, seed: u64) {
        let (w, x) = (values(n * k, seed), values(m * k, !seed));
        let variants = Variant::available().into_iter().filter(|variant| *variant != Variant::Portable);
        let results: Vec<Vec<f32>> = variants
            .map(|variant| {
                let mut y = vec![0.0; m * n];
                layer(&w, n, k, Dtype::Bf16, variant).apply(&x, &mut y, false);
                y
            })
            .collect();
        for other in &results {
            prop_assert_eq!(other, &results[0]);
        }
    }

    #[test]
    fn int8_agrees_in_every_variant(m in 1usize..9, n in 1usize..70, k in 1usize..150, seed: u64) {
        let (w, x) = (values(n * k, seed), values(m * k, !seed));
        let results: Vec<Vec<f32>> = Variant::available()
            .into_iter()
            .map(|variant| {
                let mut y = vec![0.0; m * n];
                layer(&w, n, k, Dtype::Int8, variant).apply(&x, &mut y, false);
                y
            })
            .collect();
        for other in &results {
            prop_assert!(other.iter().zip(&results[0]).all(|(a, b)| (a - b).abs() < 1e-5));
        }
    }

    #[test]
    fn norm_and_gate_are_fused(m in 1usize..20, n in 1usize..70, k in 1usize..100, seed: u64, dtype in dtype()) {
        choose_kernel();
        let (g, u, x) = (values(n * k, seed), values(n * k, seed ^ 5), values(m * k, !seed));
        let weight = values(k, seed ^ 9);
        let rows = |w: &[f32]| {
            let w = w.to_vec();
            move |rows: std::ops::Range<usize>, to: &mut [f32]| {
                to.copy_from_slice(&w[rows.start * k..rows.end * k]);
                Ok::<(), std::convert::Infallible>(())
            }
        };
        let gated = Packed::gated(n, k, dtype, Activation::Silu, rows(&g), rows(&u)).unwrap().after_norm(Norm::rms(weight.clone(), 1e-5));
        let mut y = vec![0.0; m * n];
        gated.apply(&x, &mut y, false);
        let mut normed = Vec::new();
        for x in x.chunks_exact(k) {
            let square = x.iter().map(|x| x * x).sum::<f32>() / k as f32;
            normed.extend(x.iter().zip(&weight).map(|(x, w)| x / (square + 1e-5).sqrt() * w));
        }
        let alone = |w: &[f32]| {
            let mut y = vec![0.0; m * n];
            layer(w, n, k, dtype, Variant::Portable).apply(&normed, &mut y, false);
            y
        };
        let near = match dtype {
            Dtype::F32 => 1e-3,
            // A difference in the last bit of the norm may round an input to the next bf16 or int8.
            Dtype::Bf16 | Dtype::Int8 | Dtype::Q4 | Dtype::Native => 0.2,
        };
        for ((found, g), u) in y.iter().zip(alone(&g)).zip(alone(&u)) {
            let exact = g / (1.0 + (-g).exp()) * u;
            prop_assert!((found - exact).abs() < near * (1.0 + exact.abs()), "{found} not {exact}");
        }
    }
}

/// Prints the kernel in use. [`the_environment_chooses_the_kernel`] runs it in processes of its own.
#[test]
fn in_use() {
    choose_kernel();
    println!("in use: {}", Variant::detect());
}

/// The tests run with the kernel that `STACKELBERG_KERNEL` names, and with the best one if it names none.
#[test]
#[cfg_attr(miri, ignore = "it starts processes")]
fn the_environment_chooses_the_kernel() {
    let in_use = |name: &str| {
        let mut test = Command::new(std::env::current_exe().unwrap());
        test.args(["--exact", "kernel::in_use", "--nocapture"]).env("STACKELBERG_KERNEL", name);
        String::from_utf8(test.output().unwrap().stdout).unwrap()
    };
    for variant in Variant::available() {
        let said = in_use(variant.name());
        assert!(said.contains(&format!("in use: {variant}\n")), "{variant}: {said}");
    }
    let best = Variant::available()[0];
    assert!(in_use("mmx").contains(&format!("in use: {best}\n")));
}
