//! Drawing tokens: logits to candidates, and one out of many by its mass.

use std::cmp::Ordering;

use stackelberg_engine::kernel;

use crate::randomness::Randomness;
use crate::settings::Sampling;

/// The index that a number in [0, 1) draws by weight; weights need not sum to 1.
pub(crate) fn draw(weights: &[f64], uniform: f64) -> usize {
    let mut left = uniform * weights.iter().sum::<f64>();
    for (i, weight) in weights.iter().enumerate() {
        left -= weight;
        if left < 0.0 {
            return i;
        }
    }
    // Rounding: the last one that can be drawn.
    weights.iter().rposition(|&w| w > 0.0).unwrap_or(0)
}

/// The `k` tokens with the largest logits, largest first; of equals the lower number first.
pub(crate) fn largest(logits: &[f32], k: usize) -> Vec<u32> {
    let by_logit = |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
    if k <= 128 {
        return largest_few(logits, k, by_logit);
    }
    let mut order: Vec<u32> = (0..logits.len() as u32).collect();
    if k < order.len() {
        order.select_nth_unstable_by(k, by_logit);
        order.truncate(k);
    }
    order.sort_unstable_by(by_logit);
    order
}

/// The same for few: hardly any block of a vocabulary holds one of them.
fn largest_few(logits: &[f32], k: usize, by_logit: impl Fn(&u32, &u32) -> Ordering) -> Vec<u32> {
    const BLOCK: usize = 64;
    let mut found: Vec<u32> = Vec::with_capacity(k + 1);
    let mut least = f32::NEG_INFINITY;
    for (block, values) in logits.chunks(BLOCK).enumerate() {
        // A comparison with what is not a number is false: such a block is looked into.
        if found.len() == k && values.iter().all(|value| *value <= least) {
            continue;
        }
        for token in (block * BLOCK) as u32..(block * BLOCK + values.len()) as u32 {
            let at = found.partition_point(|other| by_logit(other, &token) == Ordering::Less);
            if at < k {
                found.truncate(k - 1);
                found.insert(at, token);
            }
        }
        if found.len() == k {
            least = logits[found[k - 1] as usize];
        }
    }
    found
}

/// Whether tokens already written are made less likely.
pub(crate) fn penalises(sampling: &Sampling) -> bool {
    let Sampling { repetition_penalty, presence_penalty, frequency_penalty, .. } = *sampling;
    repetition_penalty != 1.0 || presence_penalty != 0.0 || frequency_penalty != 0.0
}

/// Makes tokens already written less likely: `l / repetition - presence - count * frequency`, or `l * repetition` where `l`
/// is negative.
pub(crate) fn penalise(logits: &mut [f32], written: &[u32], sampling: &Sampling) {
    if !penalises(sampling) {
        return;
    }
    let repetition = sampling.repetition_penalty as f32;
    let mut written = written.to_vec();
    written.sort_unstable();
    for same in written.chunk_by(|a, b| a == b) {
        if let Some(logit) = logits.get_mut(same[0] as usize) {
            *logit = if *logit > 0.0 { *logit / repetition } else { *logit * repetition };
            *logit -=
                (sampling.presence_penalty + same.len() as f64 * sampling.frequency_penalty) as f32;
        }
    }
}

/// The next token by the base policy alone, drawn: the temperature is above 0.
pub(crate) fn next(logits: &[f32], sampling: &Sampling, randomness: &mut Randomness) -> u32 {
    let uniform = randomness.uniform();
    if sampling.top_k == 0 && sampling.top_p == 1.0 && sampling.min_p == 0.0 {
        let masses = kernel::masses(logits, sampling.temperature as f32);
        return draw_of_many(&masses, uniform);
    }
    let (order, masses) = likeliest(logits, sampling);
    order[draw(&masses, uniform)]
}

/// The tokens that top-k, top-p and min-p leave, likeliest first, and their masses.
fn likeliest(logits: &[f32], sampling: &Sampling) -> (Vec<u32>, Vec<f64>) {
    let (all, temperature) = (logits.len(), sampling.temperature as f32);
    // Few tokens hold most of the mass, as a rule: more are only sorted where they are needed.
    let (mut few, most, total) = match sampling.top_k {
        0 => (all.min(128), all, Some(sum(&kernel::masses(logits, temperature)))),
        k => (k.min(all), k.min(all), None),
    };
    loop {
        let order = largest(logits, few);
        let found: Vec<f32> = order.iter().map(|&token| logits[token as usize]).collect();
        let mut masses: Vec<f64> =
            kernel::masses(&found, temperature).into_iter().map(f64::from).collect();
        let total = total.unwrap_or_else(|| masses.iter().sum());
        let mut before = 0.0;
        let kept = masses.iter().take_while(|&&mass| {
            let within = before < sampling.top_p * total && mass >= sampling.min_p;
            before += mass;
            within
        });
        let kept = kept.count().max(1);
        if kept < few || few == most {
            masses.truncate(kept);
            return (order, masses);
        }
        few = most.min(16 * few);
    }
}

/// Sum of many masses; blocks are exact enough in f32.
pub(crate) fn sum(masses: &[f32]) -> f64 {
    masses.chunks(64).map(|block| f64::from(block.iter().sum::<f32>())).sum()
}

/// The index that a number in [0, 1) draws of many masses.
fn draw_of_many(masses: &[f32], uniform: f64) -> u32 {
    let blocks: Vec<f64> = masses.chunks(64).map(|block| f64::from(block.iter().sum::<f32>())).collect();
    let total: f64 = blocks.iter().sum();
    let mut left = uniform * total;
    let mut block = 0;
    while block + 1 < blocks.len() && left >= blocks[block] {
        left -= blocks[block];
        block += 1;
    }
    let inside: Vec<f64> = masses[block * 64..].iter().take(64).map(|&mass| f64::from(mass)).collect();
    (block * 64 + draw(&inside, left / inside.iter().sum::<f64>())) as u32
}

/// `softmax(scores / temperature)`, up to a factor.
pub(crate) fn masses(scores: &[f64], temperature: f64) -> Vec<f64> {
    let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    scores.iter().map(|s| ((s - most) / temperature).exp()).collect()
}

/// `softmax(scores)`.
pub(crate) fn shares(scores: &[f64]) -> Vec<f64> {
    let masses = masses(scores, 1.0);
    let total: f64 = masses.iter().sum();
    masses.iter().map(|mass| mass / total).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn penalties_count_what_was_written() {
        let penalised = |sampling: Sampling| {
            let mut logits = vec![1.0, -1.0, 2.0, -2.0];
            penalise(&mut logits, &[2, 1, 2, 2], &sampling);
            logits
        };
        let none = Sampling::default();
        assert_eq!(penalised(none), [1.0, -1.0, 2.0, -2.0]);
        assert_eq!(penalised(Sampling { repetition_penalty: 2.0, ..none }), [1.0, -2.0, 1.0, -2.0]);
        assert_eq!(penalised(Sampling { presence_penalty: 0.5, ..none }), [1.0, -1.5, 1.5, -2.0]);
        assert_eq!(penalised(Sampling { frequency_penalty: 0.5, ..none }), [1.0, -1.5, 0.5, -2.0]);
        let all = Sampling {
            repetition_penalty: 2.0,
            presence_penalty: 0.25,
            frequency_penalty: -1.0,
            ..none
        };
        assert_eq!(penalised(all), [1.0, -1.25, 3.75, -2.0]);
    }

    proptest! {
        /// What is drawn with no limit is what the masses say, token by token.
        #[test]
        fn drawing_of_many_is_drawing(logits in prop::collection::vec(-9f32..9.0, 1..400), uniform in 0f64..1.0) {
            let masses = kernel::masses(&logits, 0.7);
            let wide: Vec<f64> = masses.iter().map(|&mass| f64::from(mass)).collect();
            // A number on the border between two tokens may draw either.
            let near = [-1e-6, 0.0, 1e-6].map(|off| draw(&wide, (uniform + off).clamp(0.0, 1.0)) as u32);
            prop_assert!(near.contains(&draw_of_many(&masses, uniform)));
        }

        /// Limits leave the tokens that sorting all of them leaves.
        #[test]
        fn limits_keep_the_likeliest(
            logits in prop::collection::vec(-9f32..9.0, 1..3000), top_k in 0..600usize, top_p in 0.01f64..1.0,
            min_p in prop_oneof![Just(0.0), 0.0..0.9f64], temperature in 0.2f64..3.0,
        ) {
            let sampling = Sampling { temperature, top_k, top_p, min_p, ..Sampling::default() };
            let (order, masses) = likeliest(&logits, &sampling);
            let mut sorted = logits.clone();
            sorted.sort_by(|a, b| b.total_cmp(a));
            sorted.truncate(if top_k == 0 { logits.len() } else { top_k });
            let all: Vec<f64> =
                sorted.iter().map(|l| (f64::from(l - sorted[0]) / temperature).exp()).collect();
            let total: f64 = all.iter().sum();
            let kept = |slack: f64| {
                let mut before = 0.0;
                let within = all.iter().take_while(|&&mass| {
                    let within = before < top_p * total * slack && mass >= min_p / slack;
                    before += mass;
                    within
                });
                within.count().max(1)
            };
            prop_assert!((kept(1.0 - 1e-5)..=kept(1.0 + 1e-5)).contains(&masses.len()));
            prop_assert!(order.iter().zip(&sorted).take(masses.len()).all(|(&t, &l)| logits[t as usize] == l));
        }

        /// Few of many are those that sorting finds, ties and oddities included.
        #[test]
        fn the_largest_are_found(
            logits in prop::collection::vec(prop_oneof![
                8 => -3i8..3, 1 => Just(100i8), 1 => Just(-100i8), 1 => Just(101i8)
            ], 1..400),
            k in 1..140usize,
        ) {
            let value = |x: &i8| match x {
                100 => f32::INFINITY,
                -100 => f32::NEG_INFINITY,
                101 => f32::NAN,
                x => f32::from(*x) / 2.0,
            };
            let logits: Vec<f32> = logits.iter().map(value).collect();
            let mut sorted: Vec<u32> = (0..logits.len() as u32).collect();
            sorted.sort_by(|a, b| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b)));
            sorted.truncate(k);
            prop_assert_eq!(largest(&logits, k), sorted);
        }
    }
}
