//! Every variant of a kernel against plain arithmetic.

use candle_core::DType;
use proptest::prelude::*;
use stackelberg_engine::kernel::{Packed, Variant};

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

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn linear_variants_agree(m in 1usize..30, n in 1usize..100, k in 1usize..80, seed: u64, half: bool) {
        let dtype = if half { DType::BF16 } else { DType::F32 };
        let (w, x) = (values(n * k, seed), values(m * k, !seed));
        let kept = |w: f32| if half { half::bf16::from_f32(w).to_f32() } else { w };
        for variant in Variant::available() {
            let layer = Packed::with_variant(&w, n, k, dtype, variant).unwrap();
            let y = layer.apply(&x, m);
            prop_assert_eq!(y.len(), m * n);
            for row in 0..m {
                for out in 0..n {
                    let terms = (0..k).map(|i| f64::from(x[row * k + i]) * f64::from(kept(w[out * k + i])));
                    let exact: f64 = terms.sum();
                    let found = f64::from(y[row * n + out]);
                    prop_assert!((found - exact).abs() < 1e-5, "{variant:?} {row} {out}: {found} not {exact}");
                }
            }
            // A row does not know which rows share the call.
            let alone = layer.apply(&x[(m - 1) * k..], 1);
            prop_assert_eq!(&alone[..], &y[(m - 1) * n..]);
            prop_assert_eq!(layer.row(n - 1), w[(n - 1) * k..].iter().map(|&w| kept(w)).collect::<Vec<_>>());
        }
    }
}
