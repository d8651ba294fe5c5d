//! The measurements, in order.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Result;
use indicatif::ProgressBar;
use stackelberg_decoding::{Generation, Guidance, Method, Settings, generate};
use stackelberg_engine::kernel::Bandwidth;
use stackelberg_engine::reward::{Head, RewardModel, TextFormat, ValueHead};
use stackelberg_engine::{Checkpoint, Model, Prefix, Prompt, Reward, kernel};
use stackelberg_experiment::load::{self, Concurrency, Concurrent, Load};
use stackelberg_registry::Registry;

use super::concurrent;
use super::figures::{Figure, Figures};
use super::growth::Growth;
use super::machine::peak_rss_mb;
use super::steps::{look_ahead, prefill, read_together, timed};
use crate::model::ModelArgs;
use crate::progress::style;

/// The number of repetitions.
pub(super) struct Effort {
    loads: usize,
    /// Rounds of steps; every fourth also measures prefill.
    rounds: usize,
    batches: usize,
    /// Steps per batch.
    steps: usize,
    /// Rounds of answers to the first `prompts` prompts, `tokens` long each.
    answers: usize,
    prompts: usize,
    tokens: usize,
    /// Concurrent requests.
    load: Load,
}

pub(super) const FULL: Effort = Effort {
    loads: 5,
    rounds: 32,
    batches: 5,
    steps: 32,
    answers: 3,
    prompts: 3,
    tokens: 128,
    load: concurrent::FULL,
};
pub(super) const QUICK: Effort = Effort {
    loads: 1,
    rounds: 5,
    batches: 2,
    steps: 4,
    answers: 2,
    prompts: 1,
    tokens: 16,
    load: concurrent::QUICK,
};

/// Numbers of candidates per branch.
const KS: [usize; 5] = [1, 5, 10, 20, 40];

/// Numbers of sequences per batch.
const NS: [usize; 3] = [1, 4, 10];

/// Tokens of the prefix before the branches.
const PREFIX: usize = 150;

/// Herman Melville, Moby-Dick (1851).
const TEXT: &str = "\
    Call me Ishmael. Some years ago, never mind how long precisely, having little or no money in my \
    purse, and nothing particular to interest me on shore, I thought I would sail about a little and \
    see the watery part of the world. It is a way I have of driving off the spleen and regulating \
    the circulation. Whenever I find myself growing grim about the mouth; whenever it is a damp, \
    drizzly November in my soul; whenever I find myself involuntarily pausing before coffin \
    warehouses, and bringing up the rear of every funeral I meet; and especially whenever my hypos \
    get such an upper hand of me, that it requires a strong moral principle to prevent me from \
    deliberately stepping into the street, and methodically knocking people's hats off, then, I \
    account it high time to get to sea as soon as I can. This is my substitute for pistol and ball.";

const PROMPTS: [&str; 3] =
    ["How do I bake bread at home?", "Tell me about the moon.", "What should I say to a sad friend?"];

/// Bytes of weights that a forward reads.
pub(super) struct Weights {
    /// Up to the hidden states, as in a reward model.
    hidden: f64,
    /// Up to the logits, as in a decoding step.
    pub(super) step: f64,
}

impl Weights {
    pub(super) fn of(model: &Model) -> Self {
        Self {
            hidden: model.body_bytes() as f64,
            step: (model.body_bytes() + model.head_bytes()) as f64,
        }
    }
}

/// A model with the inputs of the measurements.
pub(super) struct Course<'a> {
    args: &'a ModelArgs,
    registry: &'a Registry,
    policy: &'a Checkpoint,
    effort: Effort,
    bar: ProgressBar,
    /// Tokens of the prefix.
    text: Vec<u32>,
    prefix: Prefix,
    /// The likeliest tokens after the prefix, enough for the widest branch.
    candidates: Vec<u32>,
    /// Tokens of the prompts.
    prompts: Vec<Vec<u32>>,
}

/// All measurements.
#[derive(Default)]
struct Samples {
    bandwidth_gb_s: Vec<f64>,
    load_ms: Vec<f64>,
    prefill_ms: Vec<f64>,
    /// By the number of candidates.
    branch_ms: BTreeMap<usize, Vec<f64>>,
    /// By the number of sequences: total tokens per second.
    batch: BTreeMap<usize, Vec<f64>>,
    /// Answers, in tokens per second.
    base: Vec<f64>,
    head: Vec<f64>,
    model: Vec<f64>,
    cd: Vec<f64>,
}

impl<'a> Course<'a> {
    pub(super) fn new(
        args: &'a ModelArgs,
        registry: &'a Registry,
        policy: &'a Checkpoint,
        effort: Effort,
    ) -> Result<Self> {
        let format = if policy.template.is_some() { TextFormat::Chat } else { TextFormat::Raw };
        let prompt = |text: &&str| -> Result<Vec<u32>> {
            let text = policy.lay_out(&Prompt::Text((*text).to_owned()), None, format)?;
            Ok(policy.read(&text)?)
        };
        let prompts = PROMPTS[..effort.prompts].iter().map(prompt).collect::<Result<_>>()?;
        let text = policy.tokenizer.encode(TEXT, true)?;
        let text: Vec<u32> = text.into_iter().cycle().take(PREFIX).collect();
        let (prefix, logits) = prefill(&policy.model, &text)?;
        let logits: Vec<f32> = logits.flatten_all()?.to_vec1()?;
        let mut likeliest: Vec<u32> = (0..logits.len() as u32).collect();
        likeliest.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]));
        let candidates = likeliest.into_iter().cycle().take(KS[KS.len() - 1]).collect();
        let Effort { rounds, batches, loads, answers, .. } = effort;
        let style = style("{msg} {bar:40} {pos}/{len} {eta} left");
        let bar = ProgressBar::new((rounds + batches + loads + answers) as u64).with_style(style);
        Ok(Self { args, registry, policy, effort, bar, text, prefix, candidates, prompts })
    }

    /// All measurements, and those of so many clients at once.
    pub(super) fn run(&self, clients: &[usize]) -> Result<(Figures<Figure>, Option<Concurrent>)> {
        let width = self.policy.model.config().hidden;
        // The built-in head if it fits, else arbitrary weights: all heads are equally fast.
        let head = self.args.reward(self.registry, "harmless", self.policy);
        let head = head.unwrap_or_else(|_| Reward::Head(Arc::new(Head::new(arbitrary(width)))));
        let head = Guidance::from(Some(&head));
        self.bar.set_message("a first answer");
        self.answer(Method::Args, head, &self.prompts[0])?;
        // The later measurements need more memory than an answer.
        let peak = peak_rss_mb();
        let mut samples = Samples::default();
        self.steps(&mut samples)?;
        self.batches(&mut samples)?;
        let twin = self.loads(&mut samples)?;
        let model = Reward::Model(Arc::new(RewardModel::new(twin, arbitrary(width))?));
        let layer = |outputs: usize| (arbitrary(outputs * width), arbitrary(outputs));
        let value = Arc::new(ValueHead::new(width, [layer(width), layer(width), layer(1)]));
        let guides = [head, Some(&model).into(), Guidance { reward: None, value: Some(&value) }];
        self.answers(guides, &mut samples)?;
        self.bar.finish_and_clear();
        let concurrency =
            Concurrency { policy: self.policy, prompts: &self.prompts, guides, load: self.effort.load };
        let parts = concurrency.parts(clients) as u64;
        let bar = ProgressBar::new(parts)
            .with_style(style("requests at once {bar:40} {pos}/{len} {eta} left"));
        let measure = || Ok::<_, anyhow::Error>(concurrency.measure(clients, &mut || bar.inc(1))?);
        let concurrent = (!clients.is_empty()).then(measure).transpose()?;
        bar.finish_and_clear();
        Ok((self.figures(&samples, value.bytes(), peak), concurrent))
    }

    /// Measures steps of sequences that grow to `length` tokens.
    pub(super) fn growth(&self, length: usize) -> Result<Growth> {
        Growth::measure(&self.policy.model, &self.candidates, length)
    }

    /// Measures steps after the prefix, in a different order in each round.
    fn steps(&self, samples: &mut Samples) -> Result<()> {
        self.bar.set_message("steps");
        let model = &self.policy.model;
        let memory = Bandwidth::new(kernel::threads());
        for round in 0..self.effort.rounds {
            samples.bandwidth_gb_s.push(memory.measure());
            if round % 4 == 0 {
                samples.prefill_ms.push(timed(|| prefill(model, &self.text))?.1);
            }
            for i in 0..KS.len() {
                let k = KS[(round + i) % KS.len()];
                let (_, ms) = timed(|| look_ahead(model, &self.prefix, &self.candidates[..k]))?;
                samples.branch_ms.entry(k).or_default().push(ms);
            }
            self.bar.inc(1);
        }
        Ok(())
    }

    /// Measures batches of sequences.
    fn batches(&self, samples: &mut Samples) -> Result<()> {
        self.bar.set_message("batches");
        for _ in 0..self.effort.batches {
            for n in NS {
                let mut texts = vec![self.prefix.clone(); n];
                let ((), ms) = timed(|| {
                    for _ in 0..self.effort.steps {
                        read_together(&self.policy.model, &mut texts, &self.candidates)?;
                    }
                    Ok(())
                })?;
                let tokens = (n * self.effort.steps) as f64;
                samples.batch.entry(n).or_default().push(1e3 * tokens / ms);
            }
            self.bar.inc(1);
        }
        Ok(())
    }

    /// Measures loading; returns the last loaded model.
    fn loads(&self, samples: &mut Samples) -> Result<Checkpoint> {
        self.bar.set_message("loading");
        let load = || Ok(Checkpoint::load_on(&self.policy.path, self.args.dtype(), self.args.device)?);
        for _ in 1..self.effort.loads {
            samples.load_ms.push(timed(load)?.1);
            self.bar.inc(1);
        }
        let (twin, ms) = timed(load)?;
        samples.load_ms.push(ms);
        self.bar.inc(1);
        Ok(twin)
    }

    /// Measures whole answers, unguided and guided alternately.
    fn answers(&self, [head, model, value]: [Guidance<'_>; 3], samples: &mut Samples) -> Result<()> {
        self.bar.set_message("answers");
        for _ in 0..self.effort.answers {
            samples.base.push(self.rate(Method::Base, Guidance::default())?);
            samples.head.push(self.rate(Method::Args, head)?);
            samples.model.push(self.rate(Method::Args, model)?);
            samples.cd.push(self.rate(Method::Cd, value)?);
            self.bar.inc(1);
        }
        Ok(())
    }

    /// Tokens per second over the prompts.
    fn rate(&self, method: Method, guidance: Guidance<'_>) -> Result<f64> {
        let (mut tokens, mut seconds) = (0, 0.0);
        for prompt in &self.prompts {
            let answer = self.answer(method, guidance, prompt)?;
            tokens += answer.tokens.len();
            seconds += answer.elapsed.as_secs_f64();
        }
        Ok(tokens as f64 / seconds)
    }

    /// Generates an answer of full length, greedily and token by token.
    fn answer(&self, method: Method, guidance: Guidance<'_>, prompt: &[u32]) -> Result<Generation> {
        let settings = Settings { max_new_tokens: self.effort.tokens, ..load::settings(method, true) };
        Ok(generate(self.policy, guidance, prompt, "bench", &settings, &mut ())?)
    }

    /// Summarizes the measurements. `value_bytes` is the size of the value head.
    fn figures(&self, samples: &Samples, value_bytes: usize, peak: Option<f64>) -> Figures<Figure> {
        let weights = Weights::of(&self.policy.model);
        let bandwidth = Figure::of(&samples.bandwidth_gb_s);
        let bytes_per_ms = 1e6 * bandwidth.median;
        let least = weights.step / bytes_per_ms;
        let guided_least = least + weights.hidden / bytes_per_ms;
        let cd_least = least + value_bytes as f64 / bytes_per_ms;
        let step = |ms: &[f64]| Figure::of(ms).at_least(least);
        let rate = |rates: &[f64], least: f64| Figure::of(rates).at_most(1e3 / least);
        let batch = |(&n, rates): (&usize, &Vec<f64>)| (n, rate(rates, least / n as f64));
        let (one, ten) = (&samples.branch_ms[&1], &samples.branch_ms[&10]);
        let ratio = Figure::of(ten).median / Figure::of(one).median;
        let ratios: Vec<f64> = ten.iter().zip(one).map(|(ten, one)| ten / one).collect();
        Figures {
            bandwidth_gb_s: bandwidth,
            load_ms: Figure::of(&samples.load_ms),
            prefill_ms: step(&samples.prefill_ms),
            token_ms: step(one),
            branch_ms: samples.branch_ms.iter().map(|(&k, ms)| (k, step(ms))).collect(),
            branch_ratio: Figure { median: ratio, ..Figure::of(&ratios) },
            batch_tokens_per_s: samples.batch.iter().map(batch).collect(),
            base_tokens_per_s: rate(&samples.base, least),
            args_head_tokens_per_s: rate(&samples.head, least),
            args_model_tokens_per_s: rate(&samples.model, guided_least),
            cd_tokens_per_s: rate(&samples.cd, cd_least),
            peak_rss_mb: peak.map(|mb| Figure::of(&[mb])),
        }
    }
}

/// Arbitrary weights, `[width]`.
fn arbitrary(width: usize) -> Vec<f32> {
    (0..width).map(|i| (i as f32).sin()).collect()
}
