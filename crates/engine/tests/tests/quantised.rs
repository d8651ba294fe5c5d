//! Weights that are kept in the blocks of GGUF: without loss, and the same product in every variant of the kernels.

use std::convert::Infallible;
use std::ops::Range;

use candle_core::Device;
use candle_core::quantized::GgmlDType;
use candle_core::quantized::ggml_file::qtensor_from_ggml;
use half::f16;
use proptest::prelude::*;
use stackelberg_engine::kernel::{self, Activation, Packed, Quant, Source, Variant};

use crate::common::tiny::choose_kernel;

/// The type as candle names it, and where its f16 lie in a block.
fn described(quant: Quant) -> (GgmlDType, &'static [usize]) {
    match quant {
        Quant::Q4_0 => (GgmlDType::Q4_0, &[0]),
        Quant::Q4_1 => (GgmlDType::Q4_1, &[0, 2]),
        Quant::Q5_0 => (GgmlDType::Q5_0, &[0]),
        Quant::Q5_1 => (GgmlDType::Q5_1, &[0, 2]),
        Quant::Q8_0 => (GgmlDType::Q8_0, &[0]),
        Quant::Q4K => (GgmlDType::Q4K, &[0, 2]),
        Quant::Q5K => (GgmlDType::Q5K, &[0, 2]),
        Quant::Q6K => (GgmlDType::Q6K, &[208]),
    }
}

/// Rows of blocks, which may change their type from one row to the next.
struct Blocks {
    rows: Vec<(Option<Quant>, Vec<u8>)>,
    numbers: Vec<Vec<f32>>,
}

impl Source<Infallible> for Blocks {
    fn quant(&self, rows: Range<usize>) -> Option<Quant> {
        let first = self.rows[rows.start].0;
        first.filter(|_| self.rows[rows].iter().all(|(quant, _)| *quant == first))
    }

    fn blocks(&self, rows: Range<usize>, to: &mut [u8]) -> Result<(), Infallible> {
        to.copy_from_slice(&self.rows[rows].iter().flat_map(|(_, row)| row.clone()).collect::<Vec<_>>());
        Ok(())
    }

    fn numbers(&self, rows: Range<usize>, to: &mut [f32]) -> Result<(), Infallible> {
        to.copy_from_slice(&self.numbers[rows].concat());
        Ok(())
    }
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 20
    }

    fn number(&mut self) -> f32 {
        self.next() as f32 / (1u64 << 43) as f32 - 1.0
    }

    /// A row of blocks of random integers, whose scales `scale` makes.
    fn row(&mut self, quant: Quant, k: usize, scale: &mut dyn FnMut(&mut Self) -> f16) -> Vec<u8> {
        let mut row = vec![0; k / quant.weights() * quant.bytes()];
        for block in row.chunks_exact_mut(quant.bytes()) {
            // Some blocks have nothing but the largest or the smallest integers.
            let fill = [0x00, 0xff, 0x80, 0x7f][self.next() as usize % 4];
            let same = self.next().is_multiple_of(5);
            block.iter_mut().for_each(|byte| *byte = if same { fill } else { self.next() as u8 });
            for &at in described(quant).1 {
                block[at..at + 2].copy_from_slice(&scale(self).to_le_bytes());
            }
        }
        row
    }

    /// A scale near that of weights, and sometimes zero.
    fn usual(&mut self) -> f16 {
        if self.next().is_multiple_of(7) { f16::ZERO } else { f16::from_f32(self.number() / 100.0) }
    }
}

fn dequantised(quant: Quant, row: &[u8], k: usize) -> Vec<f32> {
    let tensor = qtensor_from_ggml(described(quant).0, row, vec![k], &Device::Cpu).unwrap();
    tensor.dequantize(&Device::Cpu).unwrap().to_vec1().unwrap()
}

fn blocks(quants: &[Quant], n: usize, k: usize, random: &mut Random) -> Blocks {
    let mut blocks = Blocks { rows: Vec::new(), numbers: Vec::new() };
    for i in 0..n {
        let quant = quants[i * quants.len() / n];
        let row = random.row(quant, k, &mut Random::usual);
        blocks.numbers.push(dequantised(quant, &row, k));
        blocks.rows.push((Some(quant), row));
    }
    blocks
}

fn layer(source: &Blocks, k: usize, variant: Variant) -> Packed {
    let Ok(layer) = Packed::stored(source.rows.len(), k, variant, source);
    layer
}

fn bits(numbers: &[f32]) -> Vec<u32> {
    numbers.iter().map(|x| x.to_bits()).collect()
}

/// The inputs as the kernels round them.
fn rounded(x: &[f32]) -> Vec<f32> {
    let of = |block: &[f32]| {
        let scale = block.iter().fold(0f32, |most, x| most.max(x.abs())) / 127.0;
        let nearest = |x: &f32| if scale > 0.0 { (x / scale).round_ties_even() * scale } else { 0.0 };
        block.iter().map(nearest).collect::<Vec<_>>()
    };
    x.chunks(32).flat_map(of).collect()
}

const CASES: u32 = if cfg!(miri) { 1 } else { 150 };

fn quant() -> impl Strategy<Value = Quant> {
    prop::sample::select(Quant::ALL)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() })]

    /// Every weight is bit-identical to candle's, for any finite scales.
    #[test]
    fn nothing_is_lost(quant in quant(), n in 1usize..40, blocks in 1usize..4, seed: u64) {
        let (k, mut random) = (blocks * quant.weights(), Random(seed | 1));
        let mut any = |random: &mut Random| {
            let scale = f16::from_bits(random.next() as u16);
            if scale.is_finite() { scale } else { f16::MAX }
        };
        let rows: Vec<_> = (0..n).map(|_| (Some(quant), random.row(quant, k, &mut any))).collect();
        let numbers: Vec<_> = rows.iter().map(|(_, row)| dequantised(quant, row, k)).collect();
        let layer = layer(&Blocks { rows, numbers: numbers.clone() }, k, Variant::Portable);
        for (row, stored) in numbers.iter().enumerate() {
            let mut kept = vec![0.0; k];
            layer.row(row, &mut kept);
            prop_assert_eq!(bits(&kept), bits(stored), "{:?}", quant);
        }
    }

    /// The product is that of the stored weights with the rounded inputs, in every variant, and a row does not depend on
    /// the other rows of the call.
    #[test]
    fn products_agree(quant in quant(), m in 1usize..20, n in 1usize..100, blocks in 1usize..10, seed: u64) {
        let mut random = Random(seed | 1);
        let k = (32 * blocks).next_multiple_of(quant.weights());
        let source = self::blocks(&[quant], n, k, &mut random);
        // Some inputs are as large as they can be, to reach the largest sums.
        let x: Vec<f32> = (0..m * k)
            .map(|_| if random.next().is_multiple_of(3) { 1.0 } else { random.number() })
            .collect();
        for variant in Variant::available() {
            let layer = layer(&source, k, variant);
            let mut y = vec![f32::NAN; m * n];
            layer.apply(&x, &mut y, false);
            for (row, x) in x.chunks_exact(k).enumerate() {
                let x = rounded(x);
                for out in 0..n {
                    let terms = || x.iter().zip(&source.numbers[out]).map(|(x, w)| f64::from(*x) * f64::from(*w));
                    let (exact, size): (f64, f64) = (terms().sum(), terms().map(f64::abs).sum());
                    let found = f64::from(y[row * n + out]);
                    // Scales and minima cancel, so that the terms of the kernels may be larger than those of the weights.
                    let near = 1e-5 * (size + 0.01 * k as f64);
                    prop_assert!((found - exact).abs() < near, "{variant:?} {row} {out}: {found} not {exact}");
                }
            }
            let mut alone = vec![0.0; n];
            layer.apply(&x[(m - 1) * k..], &mut alone, false);
            prop_assert_eq!(bits(&alone), bits(&y[(m - 1) * n..]));
            kernel::set_threads(1);
            let mut serial = vec![0.0; m * n];
            layer.apply(&x, &mut serial, false);
            kernel::set_threads(0);
            prop_assert_eq!(bits(&serial), bits(&y));
        }
    }

    /// Matrices of several types in one layer. Where a panel has rows of two types, it is rounded to int8.
    #[test]
    fn types_may_be_mixed(a in quant(), b in quant(), n in 33usize..120, seed: u64) {
        let (k, mut random) = (256, Random(seed | 1));
        let source = blocks(&[a, b], n, k, &mut random);
        let layer = layer(&source, k, Variant::Portable);
        for panel in 0..n.div_ceil(32) {
            let rows = panel * 32..(panel * 32 + 32).min(n);
            let one = source.quant(rows.clone()).is_some();
            for row in rows {
                let mut kept = vec![0.0; k];
                layer.row(row, &mut kept);
                let stored = &source.numbers[row];
                if one {
                    prop_assert_eq!(bits(&kept), bits(stored));
                    continue;
                }
                for (kept, stored) in kept.chunks(32).zip(stored.chunks(32)) {
                    let largest = stored.iter().fold(0f32, |most, x| most.max(x.abs()));
                    // Half a step, and the error of a scale in f16.
                    let near = largest * (0.5 / 127.0 + 1e-3) + 1e-5;
                    prop_assert!(kept.iter().zip(stored).all(|(a, b)| (a - b).abs() <= near));
                }
            }
        }
    }

    /// A gated layer is the product of its two halves.
    #[test]
    fn gates_take_turns(quant in quant(), m in 1usize..5, n in 1usize..80, seed: u64) {
        choose_kernel();
        let (k, mut random) = (256, Random(seed | 1));
        let halves = [(); 2].map(|()| blocks(&[quant], n, k, &mut random));
        let x: Vec<f32> = (0..m * k).map(|_| random.number()).collect();
        let [gate, up] = halves.each_ref().map(|half| {
            let mut y = vec![0.0; m * n];
            layer(half, k, Variant::detect()).apply(&x, &mut y, false);
            y
        });
        let [a, b] = halves;
        let both = Blocks { rows: [a.rows, b.rows].concat(), numbers: [a.numbers, b.numbers].concat() };
        let Ok(gated) = Packed::stored_gated(n, k, Activation::Relu, &both);
        let mut y = vec![0.0; m * n];
        gated.apply(&x, &mut y, false);
        let expected: Vec<f32> = gate.iter().zip(&up).map(|(gate, up)| gate.max(0.0) * up).collect();
        prop_assert_eq!(y, expected);
    }
}

/// A scale that is no number makes its own output no number, and no other.
#[test]
fn broken_scales_stay_where_they_are() {
    for &quant in Quant::ALL {
        let (k, mut random) = (256, Random(7));
        let mut source = blocks(&[quant], 40, k, &mut random);
        for &at in described(quant).1 {
            source.rows[3].1[at..at + 2].copy_from_slice(&f16::NAN.to_le_bytes());
        }
        let x: Vec<f32> = (0..2 * k).map(|_| random.number()).collect();
        for variant in Variant::available() {
            let mut y = vec![0.0; 80];
            layer(&source, k, variant).apply(&x, &mut y, false);
            let broken: Vec<usize> = (0..80).filter(|&i| !y[i].is_finite()).collect();
            assert_eq!(broken, [3, 43], "{quant:?} {variant:?}");
        }
    }
}
