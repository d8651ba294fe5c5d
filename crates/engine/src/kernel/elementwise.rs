//! Elementwise operations: sums, exponential, silu. They are plain Rust that the compiler vectorises for each variant.
//! Results are bit-identical in every variant.

use super::Variant;

/// Evaluates an expression, compiled with the variant's instruction set. This processor must have the variant: callers pass
/// [`Variant::detect`] or a member of [`Variant::available`].
///
/// It is a macro because its closure must be inlined into [`compiled_for`]'s functions: where it is not, it is compiled for the
/// oldest processors, and nothing fails.
macro_rules! vectorised {
    ($variant:expr, $work:expr) => {
        $crate::kernel::elementwise::compiled_for(
            $variant,
            #[inline(always)]
            || $work,
        )
    };
}
pub(super) use vectorised;

/// What [`vectorised`] calls.
#[inline(always)]
pub(super) fn compiled_for<R>(variant: Variant, work: impl FnOnce() -> R) -> R {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
        unsafe fn avx512<R>(work: impl FnOnce() -> R) -> R {
            work()
        }
        #[target_feature(enable = "avx2")]
        unsafe fn avx2<R>(work: impl FnOnce() -> R) -> R {
            work()
        }
        match variant {
            // SAFETY: the processor has the variant, and `Variant::available` detects all features enabled above.
            Variant::Avx512 | Variant::Avx512Dot => return unsafe { avx512(work) },
            // SAFETY: as above.
            Variant::Avx2 => return unsafe { avx2(work) },
            _ => {}
        }
    }
    let _ = variant;
    work()
}

/// Adding this to a small number leaves the nearest integer in the low bits.
pub(super) const SHIFT: f32 = 12_582_912.0;

/// e to the power of x, within two units in the last place. Never below 1.2e-38; infinite from x = 88.4 on.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    const LN_2: [f32; 2] = [0.693_145_75, 1.428_606_8e-6];
    let x = if x < -87.3 { -87.3 } else { x };
    let x = if x > 88.7 { 88.7 } else { x };
    let shifted = x * std::f32::consts::LOG2_E + SHIFT;
    let whole = shifted - SHIFT;
    // |rest| <= ln(2) / 2
    let rest = (x - whole * LN_2[0]) - whole * LN_2[1];
    let mut sum = 1.0 / 5040.0;
    for factor in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        sum = sum * rest + factor;
    }
    let power = shifted.to_bits().wrapping_sub(SHIFT.to_bits()).wrapping_add(127) << 23;
    sum * f32::from_bits(power)
}

/// x σ(x).
#[inline(always)]
pub(super) fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

/// Sum of `f(x)` over all numbers, in 16 interleaved partial sums that are then added as a tree.
#[inline(always)]
pub(super) fn sum(numbers: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut chains = [0f32; 16];
    let (chunks, rest) = numbers.as_chunks::<16>();
    for chunk in chunks {
        for (chain, &x) in chains.iter_mut().zip(chunk) {
            *chain += f(x);
        }
    }
    for (chain, &x) in chains.iter_mut().zip(rest) {
        *chain += f(x);
    }
    tree(chains, |a, b| a + b)
}

/// Folds 16 numbers as a tree.
#[inline(always)]
pub(super) fn tree(numbers: [f32; 16], f: impl Fn(f32, f32) -> f32) -> f32 {
    // Loops of constant length, which the compiler turns into a few vector instructions.
    let (mut eight, mut four) = ([0f32; 8], [0f32; 4]);
    for i in 0..8 {
        eight[i] = f(numbers[i], numbers[i + 8]);
    }
    for i in 0..4 {
        four[i] = f(eight[i], eight[i + 4]);
    }
    f(f(four[0], four[2]), f(four[1], four[3]))
}

/// `ln Σ exp(x)`, the logarithm of the sum of exponentials.
pub fn log_sum_exp(x: &[f32]) -> f64 {
    let variant = Variant::detect();
    let most = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    // Within a block, f32 sums are accurate enough.
    let blocks = x.chunks(1024).map(|x| f64::from(vectorised!(variant, sum(x, |x| exp(x - most)))));
    f64::from(most) + blocks.sum::<f64>().ln()
}

/// `exp((x - max x) / temperature)`: the numerators of a softmax.
pub fn masses(x: &[f32], temperature: f32) -> Vec<f32> {
    let most = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut masses = x.to_vec();
    vectorised!(Variant::detect(), {
        masses.iter_mut().for_each(|x| *x = exp((*x - most) / temperature))
    });
    masses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponentials_are_near() {
        let step = if cfg!(miri) { 9_973 } else { 1 };
        for i in (-87_000..88_000).step_by(step) {
            let x = i as f32 / 1000.0;
            let (found, exact) = (f64::from(exp(x)), f64::from(x).exp());
            assert!((found / exact - 1.0).abs() < 3e-7, "exp({x}) is {exact}, not {found}");
        }
        assert!(exp(-1e30) < 1.3e-38 && exp(f32::NEG_INFINITY) < 1.3e-38);
        assert!(exp(f32::NAN).is_nan() && silu(f32::NAN).is_nan());
        assert!((silu(-100.0), silu(100.0)) == (-100.0 / (1.0 + exp(88.7)), 100.0));
    }

    #[test]
    fn variants_give_the_same_bits() {
        let x: Vec<f32> = (0..999).map(|i| ((i * 7919) % 997) as f32 / 31.0 - 16.0).collect();
        let all = |variant| vectorised!(variant, (sum(&x, silu).to_bits(), sum(&x, exp).to_bits()));
        for variant in Variant::available() {
            assert_eq!(all(variant), all(Variant::Portable), "{variant:?}");
        }
    }
}
