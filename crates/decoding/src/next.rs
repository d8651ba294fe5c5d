//! The distribution of the next token: all logits of a local model, or the likeliest tokens that a server tells.

use stackelberg_engine::kernel;

use crate::policy::Likeliest;
use crate::randomness::Randomness;
use crate::sample;
use crate::settings::{Sampling, Settings};

/// A distribution as it comes from the policy.
pub(crate) enum Distribution {
    /// The logits of the whole vocabulary.
    Logits(Vec<f32>),
    /// The likeliest tokens.
    Likeliest(Likeliest),
}

/// A distribution with biases and penalties, from which candidates are taken.
#[derive(Clone)]
pub(crate) enum Next {
    Row(Row),
    Few(Few),
}

impl Next {
    /// `written` are the tokens of the answer, `banned` those that may not come next.
    pub(crate) fn new(from: Distribution, written: &[u32], banned: &[u32], settings: &Settings) -> Self {
        match from {
            Distribution::Logits(logits) => Self::Row(Row::new(logits, written, banned, settings)),
            Distribution::Likeliest(likeliest) => Self::Few(Few::new(likeliest, banned)),
        }
    }

    /// Whether there are candidates, and all numbers are finite.
    pub(crate) fn is_finite(&self) -> bool {
        match self {
            Self::Row(row) => row.log_z.is_finite(),
            Self::Few(few) => few.is_finite(),
        }
    }

    /// The `k` likeliest tokens and their log-probabilities under the base policy at temperature 1, in nats.
    pub(crate) fn likeliest(&self, k: usize) -> Vec<(u32, f64)> {
        match self {
            Self::Row(row) => row.likeliest(k),
            Self::Few(few) => few.all.iter().take(k).copied().collect(),
        }
    }

    /// The `k` likeliest tokens that are not banned, and their logits.
    pub(crate) fn candidates(&self, k: usize) -> (Vec<u32>, Vec<f64>) {
        match self {
            Self::Row(row) => row.candidates(k),
            Self::Few(few) => few.allowed.iter().take(k).copied().unzip(),
        }
    }

    /// Makes logits of some tokens, largest first and the largest of all among them, log-probabilities at
    /// this temperature, in nats. Those that a server tells are log-probabilities already.
    pub(crate) fn normalise(&self, logits: &mut [f64], temperature: f64) {
        if let Self::Row(row) = self {
            row.normalise(logits, temperature);
        }
    }

    /// `ln` of the mass that some tokens have at this temperature, at most 0. `None` if it is not known: a server tells
    /// log-probabilities at temperature 1.
    pub(crate) fn log_mass(&self, tokens: &[u32], temperature: f64) -> Option<f64> {
        match self {
            Self::Row(row) => Some(row.log_mass(tokens, temperature)),
            Self::Few(few) => few.log_mass(tokens).filter(|_| temperature == 1.0),
        }
    }

    /// Log-probability of a token under the base policy at temperature 1, in nats. The token is one that is known.
    pub(crate) fn log_prob(&self, token: u32) -> f64 {
        match self {
            Self::Row(row) => row.log_prob(token),
            Self::Few(few) => few.log_prob(token).unwrap_or(f64::NEG_INFINITY),
        }
    }

    /// A token by the base policy alone, drawn: the temperature is above 0.
    pub(crate) fn draw(&self, sampling: &Sampling, randomness: &mut Randomness) -> u32 {
        match self {
            Self::Row(row) => sample::next(&row.logits, sampling, randomness),
            // Sampled steps are drawn by the server; this is the case of a single candidate.
            Self::Few(few) => few.allowed.first().map_or(0, |(token, _)| *token),
        }
    }
}

/// The likeliest tokens, likeliest first, with their log-probabilities.
#[derive(Clone)]
pub(crate) struct Few {
    all: Vec<(u32, f64)>,
    /// Those that are not banned.
    allowed: Vec<(u32, f64)>,
}

impl Few {
    fn new(Likeliest(mut all): Likeliest, banned: &[u32]) -> Self {
        // Of equals the lower number first, whatever order a server has.
        all.sort_by(|(a, one), (b, other)| other.total_cmp(one).then(a.cmp(b)));
        let allowed = all.iter().filter(|(token, _)| !banned.contains(token)).copied().collect();
        Self { all, allowed }
    }

    fn is_finite(&self) -> bool {
        !self.allowed.is_empty() && self.all.iter().all(|(_, log_prob)| log_prob.is_finite())
    }

    fn log_prob(&self, token: u32) -> Option<f64> {
        self.all.iter().find(|(known, _)| *known == token).map(|(_, log_prob)| *log_prob)
    }

    fn log_mass(&self, tokens: &[u32]) -> Option<f64> {
        let masses = tokens.iter().map(|&token| Some(self.log_prob(token)?.exp()));
        Some(masses.sum::<Option<f64>>()?.ln().min(0.0))
    }
}

/// Logits of the whole vocabulary.
#[derive(Clone)]
pub(crate) struct Row {
    /// With biases and penalties, and without banned tokens: what is chosen by.
    logits: Vec<f32>,
    /// As the model gave them, where that differs.
    unpenalised: Option<Vec<f32>>,
    log_z: f64,
}

impl Row {
    fn new(mut logits: Vec<f32>, written: &[u32], banned: &[u32], settings: &Settings) -> Self {
        let log_z = kernel::log_sum_exp(&logits);
        let bias = &settings.logit_bias;
        let changes = sample::penalises(&settings.sampling) || !bias.is_empty() || !banned.is_empty();
        let unpenalised = changes.then(|| logits.clone());
        for (&token, bias) in bias {
            if let Some(logit) = logits.get_mut(token as usize) {
                *logit += *bias as f32;
            }
        }
        sample::penalise(&mut logits, written, &settings.sampling);
        for &token in banned {
            if let Some(logit) = logits.get_mut(token as usize) {
                *logit = f32::NEG_INFINITY;
            }
        }
        Self { logits, unpenalised, log_z }
    }

    /// The `k` likeliest tokens and their log-probabilities under the base policy at temperature 1, in nats.
    fn likeliest(&self, k: usize) -> Vec<(u32, f64)> {
        if k == 0 {
            return Vec::new();
        }
        let logits = self.unpenalised.as_ref().unwrap_or(&self.logits);
        let tokens = sample::largest(logits, k.min(logits.len()));
        tokens.into_iter().map(|token| (token, self.log_prob(token))).collect()
    }

    /// The `k` likeliest tokens and their logits. Banned ones are not among them.
    fn candidates(&self, k: usize) -> (Vec<u32>, Vec<f64>) {
        let mut candidates = sample::largest(&self.logits, k);
        let allowed = candidates.iter().take_while(|token| self.logits[**token as usize].is_finite());
        candidates.truncate(allowed.count().max(1));
        let logits = candidates.iter().map(|&t| f64::from(self.logits[t as usize])).collect();
        (candidates, logits)
    }

    /// Makes logits of some tokens, largest first and the largest of all among them, log-probabilities at
    /// this temperature, in nats.
    fn normalise(&self, logits: &mut [f64], temperature: f64) {
        let log_z = sample::sum(&kernel::masses(&self.logits, temperature as f32)).ln();
        let most = logits[0];
        logits.iter_mut().for_each(|logit| *logit = (*logit - most) / temperature - log_z);
    }

    /// `ln` of the mass that some tokens have at this temperature, at most 0.
    fn log_mass(&self, tokens: &[u32], temperature: f64) -> f64 {
        let masses = kernel::masses(&self.logits, temperature as f32);
        let of_tokens: f64 = tokens.iter().map(|&t| f64::from(masses[t as usize])).sum();
        (of_tokens / sample::sum(&masses)).ln().min(0.0)
    }

    /// Log-probability of a token under the base policy at temperature 1, in nats.
    fn log_prob(&self, token: u32) -> f64 {
        let logits = self.unpenalised.as_ref().unwrap_or(&self.logits);
        f64::from(logits[token as usize]) - self.log_z
    }
}
