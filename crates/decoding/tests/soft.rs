//! Token-by-token decoding with exact values, on texts that can be enumerated: with soft values, whole texts are drawn from
//! the follower. With mean values they are not.

use std::collections::BTreeMap;
use std::sync::Arc;

use stackelberg_decoding::{Guidance, Job, Method, Sampling, Settings, generate_all};
use stackelberg_engine::Tensor;
use stackelberg_engine::reward::ValueHead;
use stackelberg_shaping::{Rule, Shaping};

use crate::common::follower::{
    CHOICES, Counts, LENGTH, PROMPT, base, chi_square, choices, exact, reward,
};
use crate::common::parts;
use crate::common::tiny::D;

const STRENGTH: f64 = 0.5;

/// Values of texts of one token and more.
type Values = BTreeMap<Vec<u32>, f64>;

/// The value of each text from the probabilities and rewards of the finished texts that begin with it.
fn values(of: impl Fn(&[(f64, f64)]) -> f64) -> Values {
    let mut ends: BTreeMap<Vec<u32>, Vec<(f64, f64)>> = BTreeMap::new();
    for (text, mass) in base() {
        let reward = reward(&text);
        for length in 1..=LENGTH {
            ends.entry(text[..length].to_vec()).or_default().push((mass, reward));
        }
    }
    let value = |(text, mut ends): (Vec<u32>, Vec<(f64, f64)>)| {
        let total: f64 = ends.iter().map(|(mass, _)| mass).sum();
        ends.iter_mut().for_each(|(mass, _)| *mass /= total);
        (text, of(&ends))
    };
    ends.into_iter().map(value).collect()
}

/// `ln E exp(strength r) / strength`.
fn soft() -> Values {
    values(|ends| ends.iter().map(|(mass, r)| mass * (STRENGTH * r).exp()).sum::<f64>().ln() / STRENGTH)
}

/// `E r`.
fn mean() -> Values {
    values(|ends| ends.iter().map(|(mass, r)| mass * r).sum())
}

/// Probabilities of the texts whose tokens are drawn in proportion to `base exp(strength V)`.
fn by_token(values: &Values) -> BTreeMap<Vec<u32>, f64> {
    let mut texts: Vec<(Vec<u32>, f64)> = vec![(Vec::new(), 1.0)];
    for _ in 0..LENGTH {
        let mut longer = Vec::new();
        for (text, mass) in texts {
            let weigh = |(token, share): (u32, f64)| {
                let text = [&text[..], &[token]].concat();
                let weight = share * (STRENGTH * values[&text]).exp();
                (text, weight)
            };
            let next: Vec<(Vec<u32>, f64)> = choices(&text).into_iter().map(weigh).collect();
            let total: f64 = next.iter().map(|(_, weight)| weight).sum();
            longer.extend(next.into_iter().map(|(text, weight)| (text, mass * weight / total)));
        }
        texts = longer;
    }
    texts.into_iter().collect()
}

/// A value head with these values: a sum of steps between the projections of the hidden states on a direction.
fn head_of(values: &Values) -> ValueHead {
    let model = &parts().0.model;
    let state = |text: &[u32]| -> Tensor {
        let all = [&PROMPT[..], text].concat();
        model.prefill(&all).unwrap().1.narrow(0, all.len() - 1, 1).unwrap()
    };
    let states: Vec<(Tensor, f64)> = values.iter().map(|(text, value)| (state(text), *value)).collect();
    let project = |seed: usize| {
        let direction: Vec<f32> =
            (0..D).map(|i| ((7 * i + 1) as f32 * (1 + seed) as f32).sin()).collect();
        let along = |state: &Tensor| {
            let state: Vec<f32> = state.flatten_all().unwrap().to_vec1().unwrap();
            state.iter().zip(&direction).map(|(x, d)| x * d).sum::<f32>()
        };
        let mut points: Vec<(f32, f64)> = states.iter().map(|(x, value)| (along(x), *value)).collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        let gap = points.windows(2).map(|pair| pair[1].0 - pair[0].0).fold(f32::INFINITY, f32::min);
        (gap, direction, points)
    };
    let (gap, direction, points) = (0..200).map(project).max_by(|a, b| a.0.total_cmp(&b.0)).unwrap();
    // tanh(10) is 1 up to 4e-9.
    let (steps, steep) = (points.len() - 1, 20.0 / gap);
    let first = (0..steps).flat_map(|_| direction.iter().map(|d| steep * d)).collect();
    let middles = points.windows(2).map(|pair| -steep * (pair[0].0 + pair[1].0) / 2.0).collect();
    let second = (0..steps * steps).map(|i| if i / steps == i % steps { 10.0 } else { 0.0 }).collect();
    let heights = points.windows(2).map(|pair| ((pair[1].1 - pair[0].1) / 2.0) as f32).collect();
    let centre = ((points[0].1 + points[steps].1) / 2.0) as f32;
    let head =
        ValueHead::new(D, [(first, middles), (second, vec![0.0; steps]), (heights, vec![centre])]);
    for (state, value) in states {
        assert!((head.score(&state).unwrap()[0] - value).abs() < 1e-4);
    }
    head
}

/// The conditional distributions of the follower are those of soft values; mean values give another distribution of texts.
#[test]
fn soft_values_give_the_follower() {
    let exact = exact(STRENGTH);
    assert_eq!(exact.len(), CHOICES.pow(LENGTH as u32));
    let total_variation = |found: BTreeMap<Vec<u32>, f64>| {
        exact.iter().map(|(text, mass)| (mass - found[text]).abs()).sum::<f64>() / 2.0
    };
    assert!(total_variation(by_token(&soft())) < 1e-12);
    let apart = total_variation(by_token(&mean()));
    assert!(apart > 0.01, "{apart}");
}

/// Controlled decoding draws from the follower with a head of exact soft values, and not with one of mean values.
#[test]
fn controlled_decoding_by_soft_values_draws_from_the_follower() {
    let settings = Settings {
        shaping: Shaping { rule: Rule::Raw, strength: STRENGTH, ..Shaping::default() },
        candidates: CHOICES,
        policy_temperature: 1.0,
        max_new_tokens: LENGTH,
        no_eos: true,
        sampling: Sampling { temperature: 1.0, ..Sampling::default() },
        ..Settings::new(Method::Cd)
    };
    let ids: Vec<String> = (0..6000).map(|i| i.to_string()).collect();
    let jobs: Vec<Job<'_>> = ids.iter().map(|id| Job { id, prompt: &PROMPT, asked: None }).collect();
    let square = |values: &Values| {
        let head = Arc::new(head_of(values));
        let guidance = Guidance { reward: Some(&parts().1[0]), value: Some(&head) };
        let mut counts = Counts::default();
        generate_all(&parts().0, guidance, &jobs, &settings, 64, &mut counts).unwrap();
        let (square, freedom) = chi_square(&counts.0, &exact(STRENGTH));
        (square, freedom + 4.0 * (2.0 * freedom).sqrt())
    };
    let (of_soft, limit) = square(&soft());
    assert!(of_soft < limit, "{of_soft} of {limit}");
    let (of_mean, _) = square(&mean());
    assert!(of_mean > 2.0 * limit, "{of_mean} of {limit}");
}
