//! Two ways to multiply bf16 weights on processors with AVX-512's dot products of bf16 pairs: by these, or by multiplications in f32.
//! Both give the same bits. Which one is faster depends on the processor: some do one dot product in the time of two multiplications,
//! others one in the time of one.

/// Whether several rows are multiplied faster by dot products. It is measured once per process, in less than a millisecond. The
/// processor must have [`Variant::Avx512Dot`](super::Variant::Avx512Dot).
#[cfg(target_arch = "x86_64")]
pub(super) fn dots_are_faster() -> bool {
    use std::sync::OnceLock;

    static FASTER: OnceLock<bool> = OnceLock::new();
    *FASTER.get_or_init(measure)
}

#[cfg(not(target_arch = "x86_64"))]
pub(super) fn dots_are_faster() -> bool {
    true
}

/// How this process multiplies several rows with bf16 weights, if the variant in use knows two ways.
pub fn bf16_products() -> Option<&'static str> {
    let knows_both = super::Variant::detect() == super::Variant::Avx512Dot;
    knows_both.then(|| if dots_are_faster() { "dot products" } else { "multiplications" })
}

/// Times both on a panel that fits the first cache.
#[cfg(target_arch = "x86_64")]
fn measure() -> bool {
    use std::hint::black_box;
    use std::time::{Duration, Instant};

    use super::Variant;
    use super::tile;
    use super::weight::{LANES, Pair};

    const STEPS: usize = 128;
    const ROWS: usize = 10;
    const ROUNDS: usize = 9;
    const CALLS: usize = 8;
    let weights = vec![Pair::new([0.5, -0.25]); STEPS * LANES];
    let pairs = vec![Pair::new([1.0, 2.0]); ROWS * STEPS];
    let numbers = vec![1.0; ROWS * 2 * STEPS];
    let mut y = vec![0.0; ROWS * LANES];
    let mut best = [Duration::MAX; 2];
    for _ in 0..ROUNDS {
        let mut time = |which: usize, call: &mut dyn FnMut(&mut [f32])| {
            let began = Instant::now();
            (0..CALLS).for_each(|_| call(black_box(&mut y)));
            best[which] = best[which].min(began.elapsed());
        };
        time(0, &mut |y| tile::dot_rows(&weights, &pairs, STEPS, y));
        time(1, &mut |y| tile::turned_rows(Variant::Avx512Dot, &weights, &numbers, 2 * STEPS, y));
    }
    best[0] <= best[1]
}
