//! How to decode: method, sampling, shaping, where to stop.

use std::collections::BTreeMap;

use stackelberg_shaping::{KlBudget, Rule, Shaping};

use crate::error::{Error, Result};
use crate::method::{Keep, Method};
use crate::most;
use crate::perturbation::Perturbation;

/// How a token is drawn from the base policy's logits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// 0 is greedy.
    pub temperature: f64,
    /// Only the so many most likely tokens; 0 is all.
    pub top_k: usize,
    /// Only the most likely tokens that hold this much mass; 1 is all.
    pub top_p: f64,
    /// Only tokens at least this likely, relative to the likeliest; 0 is all.
    pub min_p: f64,
    /// Logits of tokens already written are divided by this (multiplied where negative); 1 is nothing.
    pub repetition_penalty: f64,
    /// Subtracted from the logits of tokens already written; 0 is nothing.
    pub presence_penalty: f64,
    /// Subtracted from the logits of tokens already written, for each time; 0 is nothing.
    pub frequency_penalty: f64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
        }
    }
}

impl Sampling {
    /// The temperature that a step's KL and effective number of candidates are taken at: 1 for greedy text, which has
    /// none.
    pub(crate) fn effective_temperature(&self) -> f64 {
        if self.temperature == 0.0 { 1.0 } else { self.temperature }
    }
}

/// All settings of a generation. A method ignores those that it does not use; in files and requests they cannot be given,
/// see [`Options`](crate::Options).
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Where the next token comes from.
    pub method: Method,
    /// How candidates' rewards are shaped, and how much they count. [`Method::Cd`] and
    /// [`Method::SoftBestOfN`] use its strength alone.
    pub shaping: Shaping,
    /// A KL budget per step, at the temperature that tokens are drawn at (methods that choose among answers: per
    /// prompt), in nats, in place of the bound (or strength).
    pub kl_budget: Option<f64>,
    /// Candidates per step, `k`.
    pub candidates: usize,
    /// Temperature of the log-probabilities that [`Method::Cd`] adds values to.
    pub policy_temperature: f64,
    /// Texts that [`Method::Cd`] keeps at every step; 1 is greedy decoding, or sampling.
    pub beams: usize,
    /// Of several beams the best by `Σ log p / length^length_penalty + strength V` is the answer; 0 is none.
    pub length_penalty: f64,
    /// Answers that best-of-n and its siblings choose from; continuations of a block; particles.
    pub samples: usize,
    /// Price of a token in reward units. [`Method::BestOfN`] and [`Method::Blockwise`] stop drawing samples when the expected
    /// gain of one more is less than the price of its tokens: `samples` is then the largest number, and after every four
    /// samples it is decided whether to go on. 0 draws all.
    pub token_price: f64,
    /// The fraction of the samples under way that [`Method::BestOfN`] drops at the end of each block: those with the lowest
    /// rewards of the texts so far (speculative rejection: Sun et al. 2024, arXiv 2410.20290). Below 1; 0 drops none, and the
    /// samples are not decoded block by block.
    pub reject: f64,
    /// Tokens of a block ([`Method::Blockwise`], [`Method::Particles`], and [`Method::BestOfN`] with [`Settings::reject`]).
    pub block: usize,
    /// Which continuation of a block is kept; of particles, which answer at the end.
    pub keep: Keep,
    /// Most new tokens.
    pub max_new_tokens: usize,
    /// How tokens are drawn. Guided steps use its temperature and its penalties alone.
    pub sampling: Sampling,
    /// Everything random follows from this.
    pub seed: u64,
    /// Texts that end the answer; they are not part of it.
    pub stop: Vec<String>,
    /// Whether to write on after a token that ends the text, as the reference does.
    pub no_eos: bool,
    /// Added to the logits of these tokens, before the penalties.
    pub logit_bias: BTreeMap<u32, f64>,
    /// Nothing ends the answer before it has so many tokens: tokens that would are not chosen, stop texts do not count.
    pub min_tokens: usize,
    /// Tokens that end the answer, also with `no_eos`; they are not part of it.
    pub stop_tokens: Vec<u32>,
    /// Whether the stop text or stop token that ended the answer is part of it.
    pub include_stop: bool,
    /// The number of the base policy's likeliest tokens that steps tell with their log-probabilities.
    pub log_probs: usize,
    /// What is done to rewards and values before they are shaped.
    pub perturbation: Perturbation,
    /// Tokens to a segment: the base policy carries every candidate on to so many tokens, rewards are asked for
    /// of the texts at their ends, and the chosen one's whole segment is kept. 1 is token by token.
    pub score_every: usize,
    /// Rewards are only asked for where the base policy's entropy over the candidates, at temperature 1, is at least this, in
    /// nats. 0 is everywhere.
    pub entropy_gate: f64,
    /// Whether to leave out the reward where it provably cannot change the choice.
    pub skip: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            method: Method::Args,
            shaping: Shaping::default(),
            kl_budget: None,
            candidates: 10,
            policy_temperature: 0.7,
            beams: 1,
            length_penalty: 1.0,
            samples: 10,
            token_price: 0.0,
            reject: 0.0,
            block: 16,
            keep: Keep::Best,
            max_new_tokens: 128,
            sampling: Sampling::default(),
            seed: 0,
            stop: Vec::new(),
            no_eos: false,
            logit_bias: BTreeMap::new(),
            min_tokens: 0,
            stop_tokens: Vec::new(),
            include_stop: false,
            log_probs: 0,
            perturbation: Perturbation::None,
            score_every: 1,
            entropy_gate: 0.0,
            skip: true,
        }
    }
}

impl Settings {
    /// The defaults of a method, those of `stackelberg generate`. [`Method::Args`] has a KL budget of 0.3 nats for each
    /// step; methods that choose among samples draw them at temperature 0.7 and top-p 0.9. Blocks have 8 continuations of 16
    /// tokens, of which the best is kept; of 8 particles one is drawn.
    pub fn new(method: Method) -> Self {
        let mut settings = Self { method, shaping: method.default_shaping(), ..Self::default() };
        if method.chooses() {
            settings.sampling.temperature = 0.7;
            settings.sampling.top_p = 0.9;
        }
        if method.decodes_blocks() {
            settings.samples = 8;
        }
        match method {
            Method::Args => settings.kl_budget = Some(0.3),
            Method::Particles => settings.keep = Keep::Draw,
            _ => {}
        }
        settings
    }

    /// The defaults of [`Method::Args`] by segments of so many tokens: unshaped rewards at strength 1.
    pub fn segments(tokens: usize) -> Self {
        let mut settings = Self { score_every: tokens, kl_budget: None, ..Self::new(Method::Args) };
        settings.shaping.rule = Rule::Raw;
        settings
    }

    /// The same settings for the base policy, unguided.
    #[must_use]
    pub fn unguided(&self) -> Self {
        Self { method: Method::Base, beams: 1, ..self.clone() }
    }

    /// The temperature that the logits of a step are divided by already: [`Method::Cd`] adds values to
    /// log-probabilities at the policy's temperature.
    pub(crate) fn logits_temperature(&self) -> f64 {
        if self.method == Method::Cd { self.policy_temperature } else { 1.0 }
    }

    /// Checks every setting against its range.
    ///
    /// # Errors
    /// The first one outside.
    pub fn check(&self, vocabulary: usize) -> Result<()> {
        let require = |name, value, holds: bool, must| {
            if holds { Ok(()) } else { Err(Error::Setting { name, value, must }) }
        };
        let rule = self.shaping_in_force();
        rule.check().map_err(Error::Rule)?;
        for (name, value) in [
            ("strength", rule.strength),
            ("bound", rule.bound),
            ("alpha", rule.alpha),
            ("cap", rule.cap),
            ("stretch", rule.stretch),
        ] {
            require(name, value, value <= most::SHAPING, "at most 1e9")?;
        }
        self.check_counts()?;
        self.check_blocks()?;
        if let Some(nats) = self.kl_budget {
            KlBudget::check(&rule, nats).map_err(Error::Rule)?;
        }
        let Sampling { temperature, top_p, min_p, repetition_penalty, .. } = self.sampling;
        let k = self.candidates;
        require(
            "candidates",
            k as f64,
            (1..=vocabulary).contains(&k),
            "between 1 and the vocabulary's size",
        )?;
        let most = (k as f64).ln();
        let entropy = (0.0..=most).contains(&self.entropy_gate);
        require("entropy-gate", self.entropy_gate, entropy, "between 0 and ln of the candidates")?;
        let every = self.score_every;
        require(
            "score-every",
            every as f64,
            every == 1 || (every > 1 && self.beams == 1),
            "at least 1; with beams, 1",
        )?;
        require("samples", self.samples as f64, self.samples > 0, "at least 1")?;
        let price = self.token_price;
        require(
            "token-price",
            price,
            (0.0..f64::INFINITY).contains(&price),
            "zero or more, and finite",
        )?;
        let stops = self.price_in_force().is_some();
        let sees = !stops || self.perturbation == Perturbation::None;
        require("token-price", price, sees, "0 where rewards are perturbed")?;
        self.check_rejection()?;
        require("max-new-tokens", self.max_new_tokens as f64, self.max_new_tokens > 0, "at least 1")?;
        let empty = self.stop.iter().any(String::is_empty);
        require("the length of a stop text", 0.0, !empty, "at least 1")?;
        // Masses are computed in f32.
        let sensible = |temperature: f64| (1e-6..1e6).contains(&temperature);
        let fits = temperature == 0.0 || sensible(temperature);
        require("temperature", temperature, fits, "0, or between 0.000001 and 1000000")?;
        require("top-p", top_p, top_p > 0.0 && top_p <= 1.0, "above 0 and at most 1")?;
        require("min-p", min_p, (0.0..=1.0).contains(&min_p), "between 0 and 1")?;
        let policy = self.policy_temperature;
        require("policy-temperature", policy, sensible(policy), "between 0.000001 and 1000000")?;
        let alone = self.method != Method::Cd || temperature != 0.0 || self.kl_budget.is_some();
        let must = match alone {
            true => "1, except with the method cd, a temperature of 0 and no KL budget",
            false => "at least 1",
        };
        require("beams", self.beams as f64, self.beams == 1 || (self.beams > 1 && !alone), must)?;
        let length = self.length_penalty;
        require(
            "length-penalty",
            length,
            (0.0..f64::INFINITY).contains(&length),
            "zero or more, and finite",
        )?;
        let std = self.perturbation.std();
        require(
            "the perturbation's standard deviation",
            std,
            (0.0..=most::DEVIATION).contains(&std),
            "between 0 and 1e6",
        )?;
        self.check_tokens(vocabulary)?;
        let penalty = repetition_penalty > 0.0 && repetition_penalty.is_finite();
        require("repetition-penalty", repetition_penalty, penalty, "above zero, and finite")
    }

    /// Checks what is said of single tokens.
    fn check_tokens(&self, vocabulary: usize) -> Result<()> {
        let Sampling { presence_penalty, frequency_penalty, .. } = self.sampling;
        let penalty = (-2.0..=2.0).contains(&presence_penalty);
        let (bias, known) = (-100.0..=100.0, |token: u32| (token as usize) < vocabulary);
        let biases = self.logit_bias.iter();
        let strange = biases.clone().find(|(_, value)| !bias.contains(*value)).map(|(_, value)| *value);
        let unknown = biases.map(|(token, _)| *token).find(|token| !known(*token)).map(f64::from);
        let stop = self.stop_tokens.iter().find(|token| !known(**token)).map(|token| f64::from(*token));
        let (tokens, most) = (self.min_tokens, self.max_new_tokens);
        let inside = "a token of the vocabulary";
        for (name, value, holds, must) in [
            ("presence-penalty", presence_penalty, penalty, "between -2 and 2"),
            (
                "frequency-penalty",
                frequency_penalty,
                (-2.0..=2.0).contains(&frequency_penalty),
                "between -2 and 2",
            ),
            ("logit-bias", strange.unwrap_or(0.0), strange.is_none(), "between -100 and 100"),
            ("logit-bias", unknown.unwrap_or(0.0), unknown.is_none(), inside),
            ("stop-tokens", stop.unwrap_or(0.0), stop.is_none(), inside),
            ("min-tokens", tokens as f64, tokens <= most, "at most the maximum number of new tokens"),
        ] {
            if !holds {
                return Err(Error::Setting { name, value, must });
            }
        }
        Ok(())
    }

    /// Checks the counts against their limits.
    fn check_counts(&self) -> Result<()> {
        let counts = [
            ("candidates", self.candidates, most::CANDIDATES),
            ("beams", self.beams, most::BEAMS),
            ("samples", self.samples, most::SAMPLES),
            ("block", self.block, most::BLOCK),
            ("max-new-tokens", self.max_new_tokens, most::NEW_TOKENS),
            ("score-every", self.score_every, most::SCORE_EVERY),
            ("log-probs", self.log_probs, most::CANDIDATES),
        ];
        match counts.into_iter().find(|(_, value, most)| value > most) {
            Some((name, value, most)) => Err(Error::TooLarge { name, value, most }),
            None => Ok(()),
        }
    }

    /// Checks the fraction of samples to drop.
    fn check_rejection(&self) -> Result<()> {
        let (fraction, rejects) = (self.reject, self.rejection().is_some());
        let perturbed = rejects && self.perturbation != Perturbation::None;
        for (holds, must) in [
            ((0.0..1.0).contains(&fraction), "at least 0 and below 1"),
            (!perturbed, "0 where rewards are perturbed"),
            (!rejects || self.token_price == 0.0, "0 with a token price"),
        ] {
            if !holds {
                return Err(Error::Setting { name: "reject", value: fraction, must });
            }
        }
        Ok(())
    }

    /// Checks the settings of blocks.
    fn check_blocks(&self) -> Result<()> {
        if !self.decodes_blocks() {
            return Ok(());
        }
        let (samples, block, tokens) = (self.samples, self.block, self.max_new_tokens);
        if samples > most::CONTINUATIONS {
            let most = most::CONTINUATIONS;
            return Err(Error::TooLarge { name: "samples", value: samples, most });
        }
        let (temperature, several) = (self.sampling.temperature, self.method.decodes_blocks());
        let must = "above 0: at 0, all continuations of a block are the same";
        for (name, value, holds, must) in [
            (
                "samples",
                samples as f64,
                samples >= 2 || !several,
                "at least 2 with blockwise and particles",
            ),
            ("block", block as f64, block >= 1, "at least 1"),
            ("block", block as f64, block <= tokens, "at most the maximum number of new tokens"),
            ("temperature", temperature, temperature > 0.0, must),
        ] {
            if !holds {
                return Err(Error::Setting { name, value, must });
            }
        }
        Ok(())
    }

    /// The price of a token that the method uses, if there is one: only the best of samples is worth a price.
    pub(crate) fn price_in_force(&self) -> Option<f64> {
        let blocks = self.method == Method::Blockwise && self.keep == Keep::Best;
        Some(self.token_price).filter(|price| *price > 0.0 && (blocks || self.method == Method::BestOfN))
    }

    /// The fraction of samples that the method drops at the end of each block, if it drops some.
    pub(crate) fn rejection(&self) -> Option<f64> {
        Some(self.reject).filter(|fraction| *fraction > 0.0 && self.method == Method::BestOfN)
    }

    /// Whether several texts are decoded together, block by block: see [`Method::decodes_blocks`], and [`Settings::reject`].
    pub fn decodes_blocks(&self) -> bool {
        self.method.decodes_blocks() || self.rejection().is_some()
    }

    /// The shaping that the method uses. Values are of shaped rewards, and need no more of it.
    pub(crate) fn shaping_in_force(&self) -> Shaping {
        match self.method {
            Method::Cd | Method::SoftBestOfN => Shaping { rule: Rule::Raw, ..self.shaping },
            _ => self.shaping,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_count_has_a_limit() {
        let said = |change: fn(&mut Settings)| {
            let mut settings = Settings::default();
            change(&mut settings);
            settings.check(usize::MAX).map_or_else(|error| error.to_string(), |()| String::new())
        };
        assert_eq!(said(|s| s.candidates = 4097), "candidates is 4097: it must be at most 4096");
        assert_eq!(said(|s| s.beams = 1025), "beams is 1025: it must be at most 1024");
        assert_eq!(said(|s| s.samples = 100_001), "samples is 100001: it must be at most 100000");
        assert_eq!(
            said(|s| s.max_new_tokens = usize::MAX),
            format!("max-new-tokens is {}: it must be at most 1000000", usize::MAX)
        );
        assert_eq!(said(|s| s.score_every = 4097), "score-every is 4097: it must be at most 4096");
        assert_eq!(said(|s| s.samples = most::SAMPLES), "");
        assert_eq!(said(|s| s.max_new_tokens = most::NEW_TOKENS), "");
    }
}
