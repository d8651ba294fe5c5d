//! Enumerable texts: the exact follower of short texts of the tiny policy, and counts of drawn texts against it.

use std::collections::BTreeMap;

use stackelberg_decoding::{Generation, Watch};

use super::parts;

/// The prompt of the enumerated texts.
pub const PROMPT: [u32; 3] = [4, 9, 17];

/// Length of the enumerated texts, and the number of possible tokens at each place.
pub const LENGTH: usize = 3;
pub const CHOICES: usize = 3;

/// The likeliest tokens after the prompt and this text, and their probabilities among each other.
pub fn choices(text: &[u32]) -> Vec<(u32, f64)> {
    let policy = &parts().0;
    let all = [&PROMPT[..], text].concat();
    let (_, hidden) = policy.model.prefill(&all).unwrap();
    let last = hidden.narrow(0, all.len() - 1, 1).unwrap();
    let logits: Vec<f32> = policy.model.logits(&last).unwrap().flatten_all().unwrap().to_vec1().unwrap();
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
    let masses: Vec<f64> = order[..CHOICES].iter().map(|&t| f64::from(logits[t]).exp()).collect();
    let total: f64 = masses.iter().sum();
    order.iter().zip(masses).map(|(&token, mass)| (token as u32, mass / total)).collect()
}

/// Reward of a text under the first of the rewards.
pub fn reward(text: &[u32]) -> f64 {
    let (policy, rewards) = parts();
    rewards[0].of_tokens(policy, &[&PROMPT[..], text].concat()).unwrap()
}

/// Probabilities of all texts under the base policy.
pub fn base() -> BTreeMap<Vec<u32>, f64> {
    let mut texts: Vec<(Vec<u32>, f64)> = vec![(Vec::new(), 1.0)];
    for _ in 0..LENGTH {
        let longer = texts.iter().flat_map(|(text, mass)| {
            let next = choices(text).into_iter();
            next.map(move |(token, share)| ([&text[..], &[token]].concat(), mass * share))
        });
        texts = longer.collect();
    }
    texts.into_iter().collect()
}

/// Probabilities of all texts under the follower of unshaped rewards: `base exp(strength reward) / Z`.
pub fn exact(strength: f64) -> BTreeMap<Vec<u32>, f64> {
    let weigh = |(text, mass): (Vec<u32>, f64)| {
        let mass = mass * (strength * reward(&text)).exp();
        (text, mass)
    };
    let weighed: BTreeMap<Vec<u32>, f64> = base().into_iter().map(weigh).collect();
    let total: f64 = weighed.values().sum();
    weighed.into_iter().map(|(text, mass)| (text, mass / total)).collect()
}

/// Answers under many seeds, as counts of their tokens.
#[derive(Default)]
pub struct Counts(pub BTreeMap<Vec<u32>, usize>);

impl Watch for Counts {
    fn watches(&self) -> bool {
        false
    }

    fn done(&mut self, _: usize, answer: Generation) {
        *self.0.entry(answer.tokens).or_default() += 1;
    }
}

/// Chi-square of counts against probabilities, and its degrees of freedom; rare texts are put together.
pub fn chi_square(counts: &BTreeMap<Vec<u32>, usize>, exact: &BTreeMap<Vec<u32>, f64>) -> (f64, f64) {
    let n: usize = counts.values().sum();
    let (mut square, mut cells, mut rare) = (0.0, 0.0, (0.0, 0.0));
    for (text, mass) in exact {
        let (expected, found) = (mass * n as f64, counts.get(text).copied().unwrap_or(0) as f64);
        if expected < 8.0 {
            rare = (rare.0 + expected, rare.1 + found);
            continue;
        }
        square += (found - expected).powi(2) / expected;
        cells += 1.0;
    }
    if rare.0 > 0.0 {
        square += (rare.1 - rare.0).powi(2) / rare.0;
        cells += 1.0;
    }
    (square, cells - 1.0)
}
