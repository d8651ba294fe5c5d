//! From prompts to answers.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use stackelberg_engine::reward::{PromptInput, RewardState, ValueHead};
use stackelberg_engine::{Checkpoint, Prefix, Prompt, Reward, Tensor};
use stackelberg_shaping::{Follower, Samples, argmax};

use crate::beam::{self, Steps};
use crate::error::{Error, Result};
use crate::generation::Generation;
use crate::perturbation::Perturbation;
use crate::randomness::Randomness;
use crate::sample;
use crate::score::Score;
use crate::segment;
use crate::settings::{Method, Settings};
use crate::step::Step;
use crate::text::{Answer, Text};
use crate::turn::{advance, shape};

/// What a caller may watch while answers are written, and where they go.
pub trait Watch {
    /// A step was decided in the answer to prompt `job`; `text` is what it adds to the answer for certain.
    fn step(&mut self, _job: usize, _number: usize, _step: &Step, _text: &str) {}

    /// The answer to prompt `job` is finished.
    fn done(&mut self, _job: usize, _answer: Generation) {}

    /// Whether to stop here and now.
    fn stop(&self) -> bool {
        false
    }
}

/// Watches nothing.
impl Watch for () {}

/// A prompt to be answered.
#[derive(Debug, Clone, Copy)]
pub struct Job<'a> {
    /// The prompt's name: with the seed it decides all that is random.
    pub id: &'a str,
    /// The prompt, as tokens.
    pub prompt: &'a [u32],
    /// What was asked: rewards that read text must be told.
    pub asked: Option<&'a Prompt>,
}

/// What scores.
#[derive(Clone, Copy, Default)]
pub struct Guidance<'a> {
    /// Scores candidates ([`Method::Args`]), samples (best-of-n and its siblings) and every finished answer.
    pub reward: Option<&'a Reward>,
    /// Scores the candidates of [`Method::Cd`].
    pub value: Option<&'a ValueHead>,
}

impl<'a> From<Option<&'a Reward>> for Guidance<'a> {
    fn from(reward: Option<&'a Reward>) -> Self {
        Self { reward, value: None }
    }
}

/// Writes an answer to one prompt, given as tokens (for rewards that read text: an [`PromptInput`]). `id` names the prompt: with the seed it decides all that
/// is random. `guidance` is an `Option<&Reward>`, or a [`Guidance`] where there is a value head.
///
/// # Errors
/// A setting outside its range, a method without the reward or value head it needs, a prompt beyond the context, a
/// reward that is not finite; [`Error::Stopped`] if `watch` says so.
pub fn generate<'a, 'p>(
    policy: &'a Checkpoint,
    guidance: impl Into<Guidance<'a>>,
    prompt: impl Into<PromptInput<'p>>,
    id: &str,
    settings: &Settings,
    watch: &mut dyn Watch,
) -> Result<Generation> {
    let PromptInput { tokens: prompt, prompt: asked } = prompt.into();
    let job = Job { id, prompt, asked };
    let mut one = One { watch, answer: None };
    // Samples of one prompt are written together.
    let outcome = generate_all(policy, guidance, &[job], settings, AT_ONCE, &mut one);
    outcome.map_err(|error| match error {
        Error::Prompt { source, .. } => *source,
        other => other,
    })?;
    one.answer.ok_or(Error::Stopped)
}

/// Texts that are written together unless the caller says otherwise: more cost memory and bring little.
pub const AT_ONCE: usize = 10;

struct One<'a> {
    watch: &'a mut dyn Watch,
    answer: Option<Generation>,
}

impl Watch for One<'_> {
    fn step(&mut self, job: usize, number: usize, step: &Step, text: &str) {
        self.watch.step(job, number, step, text);
    }

    fn done(&mut self, _: usize, answer: Generation) {
        self.answer = Some(answer);
    }

    fn stop(&self) -> bool {
        self.watch.stop()
    }
}

/// Writes answers to many prompts, `at_once` texts sharing each pass over the weights. Answers are handed to
/// `watch` as they are finished, and are the same whatever `at_once` is (on the CPU; elsewhere but for rounding).
///
/// # Errors
/// As [`generate`]; those of one prompt name it.
pub fn generate_all<'a>(
    policy: &'a Checkpoint,
    guidance: impl Into<Guidance<'a>>,
    jobs: &[Job<'_>],
    settings: &Settings,
    at_once: usize,
    watch: &mut dyn Watch,
) -> Result<()> {
    settings.check(policy.model.config().vocabulary)?;
    let Guidance { reward, value } = guidance.into();
    match (settings.method, reward, value) {
        (Method::Cd, _, None) => return Err(Error::NoValueHead),
        (Method::Base | Method::Cd, ..) | (_, Some(_), _) => {}
        (method, None, _) => return Err(Error::NoReward(method.name())),
    }
    let samples = if settings.method.chooses_answers() { settings.samples } else { 1 };
    // A head reads the hidden state that the last token leaves.
    let unseen = settings.method != Method::Args || settings.perturbation != Perturbation::None;
    let read_last = unseen && reward.is_some_and(Reward::reads_policy);
    let run = Run { policy, reward, value, jobs, settings, samples, read_last, keep_hidden: false };
    let mut answers = Answers { run: &run, watch, steps: HashMap::new() };
    if settings.beams > 1 { run.search(&mut answers) } else { run.write(at_once, &mut answers) }
}

/// Takes in the answers of a run, of which each prompt gets one.
struct Answers<'a> {
    run: &'a Run<'a>,
    watch: &'a mut dyn Watch,
    /// Of the answers under way, by prompt and sample, where it is not known yet which one it will be.
    steps: HashMap<(usize, usize), Steps>,
}

impl Desk for Answers<'_> {
    fn step(&mut self, text: &Text<'_>, step: &Step, new: &str) {
        if self.run.samples == 1 {
            return self.watch.step(text.job, text.steps - 1, step, new);
        }
        let steps = self.steps.entry((text.job, text.sample)).or_default();
        steps.push((step.clone(), new.to_owned()));
    }

    /// Scores the answers to a prompt and hands one over.
    fn done(&mut self, job: usize, texts: Vec<Text<'_>>) -> Result<()> {
        let (run, began) = (self.run, Instant::now());
        let rewards = run.rewards(job, &texts)?;
        let (scoring, calls) = (began.elapsed(), texts.len());
        let (index, kl) = run.choose(job, &rewards)?;
        let elapsed = texts.iter().map(|text| text.elapsed).sum::<Duration>() + scoring;
        for text in texts {
            let steps = self.steps.remove(&(job, text.sample)).unwrap_or_default();
            if text.sample != index {
                continue;
            }
            for (number, (step, new)) in steps.iter().enumerate() {
                self.watch.step(job, number, step, new);
            }
            let mut answer = text.finish(rewards.get(index).cloned());
            if run.settings.method.chooses_answers() {
                (answer.reward_calls, answer.elapsed, answer.kl) = (calls, elapsed, Some(kl));
            }
            self.watch.done(job, answer);
        }
        Ok(())
    }

    fn stop(&self) -> bool {
        self.watch.stop()
    }
}

/// Where texts report while they are written.
pub(crate) trait Desk {
    /// A step was decided; `new` is what it adds to the answer for certain.
    fn step(&mut self, text: &Text<'_>, step: &Step, new: &str);

    /// All answers to a prompt are finished; here they are, in order.
    fn done(&mut self, job: usize, texts: Vec<Text<'_>>) -> Result<()>;

    /// Whether to stop here and now.
    fn stop(&self) -> bool;
}

/// What all texts of a run have in common.
pub(crate) struct Run<'a> {
    pub(crate) policy: &'a Checkpoint,
    pub(crate) reward: Option<&'a Reward>,
    pub(crate) value: Option<&'a ValueHead>,
    pub(crate) jobs: &'a [Job<'a>],
    pub(crate) settings: &'a Settings,
    /// Answers to each prompt.
    pub(crate) samples: usize,
    /// Whether the last token of an answer is read too.
    pub(crate) read_last: bool,
    /// Whether texts keep the hidden states of their answers.
    pub(crate) keep_hidden: bool,
}

/// The answers to one prompt.
#[derive(Default)]
struct Group<'a> {
    /// The prompt, read; until the last answer has begun.
    prompt: Option<(Prefix, Tensor)>,
    finished: Vec<Text<'a>>,
}

impl<'a> Run<'a> {
    /// Writes all answers, `at_once` sharing each pass over the weights.
    pub(crate) fn write(&self, at_once: usize, desk: &mut dyn Desk) -> Result<()> {
        let (model, samples) = (&self.policy.model, self.samples);
        let mut waiting =
            (0..self.jobs.len()).flat_map(|job| (0..samples).map(move |sample| (job, sample)));
        let mut groups: HashMap<usize, Group<'_>> = HashMap::new();
        let mut texts: Vec<Text<'_>> = Vec::new();
        loop {
            for (job, sample) in waiting.by_ref().take(at_once.max(1) - texts.len()) {
                let text = self.start(job, sample, groups.entry(job).or_default());
                texts.push(text.map_err(|error| error.of(self.jobs[job].id))?);
            }
            if texts.is_empty() {
                return Ok(());
            }
            if desk.stop() {
                return Err(Error::Stopped);
            }
            let began = Instant::now();
            let said = &mut |text: &Text<'_>, step: &Step, new: &str| desk.step(text, step, new);
            // Without a guide there is nothing to look ahead for.
            let guided = texts.iter().any(|text| text.guide.is_some());
            let advance =
                if guided && self.settings.score_every > 1 { segment::advance } else { advance };
            advance(model, &mut texts, self.settings, self.read_last, said)?;
            if self.keep_hidden {
                texts.iter_mut().try_for_each(|text| text.keep_hidden(self.jobs[text.job].prompt))?;
            }
            let share = began.elapsed() / texts.len() as u32;
            texts.iter_mut().for_each(|text| text.elapsed += share);
            for mut text in texts.extract_if(.., |text| text.answer.finish.is_some()) {
                let (job, id) = (text.job, text.id);
                text.settle(self.jobs[job].prompt, model.empty())?;
                let group = groups.entry(job).or_default();
                group.finished.push(text);
                if group.finished.len() == samples {
                    let mut texts = groups.remove(&job).unwrap_or_default().finished;
                    texts.sort_by_key(|text| text.sample);
                    desk.done(job, texts).map_err(|error| error.of(id))?;
                }
            }
        }
    }

    /// Most tokens of an answer: one that reaches the end of the context ends there.
    pub(crate) fn room(&self, job: usize) -> Result<usize> {
        let (prompt, model) = (self.jobs[job].prompt.len(), &self.policy.model);
        let context = model.context().min(self.reward.map_or(usize::MAX, |r| r.context(model)));
        if prompt >= context {
            return Err(stackelberg_engine::Error::Context { tokens: prompt + 1, context }.into());
        }
        Ok(self.settings.max_new_tokens.min(context - prompt))
    }

    /// Begins an answer.
    fn start(&self, job: usize, sample: usize, group: &mut Group<'a>) -> Result<Text<'a>> {
        let Job { id, prompt, asked } = self.jobs[job];
        let (model, most) = (&self.policy.model, self.room(job)?);
        let began = Instant::now();
        let read = match group.prompt.take() {
            Some(read) => read,
            None => {
                let (prefix, hidden) = model.prefill(prompt)?;
                let last = hidden.narrow(0, prompt.len() - 1, 1);
                (prefix, last.map_err(stackelberg_engine::Error::from)?)
            }
        };
        if sample + 1 < self.samples {
            group.prompt = Some(read.clone());
        }
        let asked = PromptInput { tokens: prompt, prompt: asked };
        let guide = match (self.settings.method, self.reward) {
            (Method::Args, Some(reward)) => Some(reward.state(self.policy, asked)?),
            (Method::Cd, _) => self.value.map(RewardState::Value),
            _ => None,
        };
        let (seed, number) = (self.settings.seed, sample as u64);
        let randomness =
            (Randomness::new(seed, id, number), Randomness::of_perturbation(seed, id, number));
        let answer = Answer::new(self.policy, self.settings, most);
        let mut text = Text::new((job, id, sample), read, guide, randomness, answer);
        text.elapsed = began.elapsed();
        Ok(text)
    }

    /// Answers prompt by prompt: the beams of each share the passes over the weights.
    fn search(&self, answers: &mut Answers<'_>) -> Result<()> {
        for (job, Job { id, .. }) in self.jobs.iter().enumerate() {
            let mut answer = || {
                let text = self.start(job, 0, &mut Group::default())?;
                let began = Instant::now();
                let (mut text, steps) =
                    beam::search(&self.policy.model, text, self.settings, &|| answers.watch.stop())?;
                text.elapsed += began.elapsed();
                text.settle(self.jobs[job].prompt, self.policy.model.empty())?;
                answers.steps.insert((job, 0), steps);
                answers.done(job, vec![text])
            };
            answer().map_err(|error| error.of(id))?;
        }
        Ok(())
    }

    /// Which of a prompt's answers it will be, and the KL of that choice from a blind one, in nats.
    fn choose(&self, job: usize, scores: &[Score]) -> Result<(usize, f64)> {
        let (settings, id) = (self.settings, self.jobs[job].id);
        let mut disturbed: Vec<f64> = scores.iter().map(|score| score.reward).collect();
        settings
            .perturbation
            .perturb(&mut disturbed, &mut Randomness::of_perturbation(settings.seed, id, u64::MAX));
        let rewards = &disturbed;
        match settings.method {
            Method::Base | Method::Args | Method::Cd => Ok((0, 0.0)),
            Method::BestOfN => {
                let n = rewards.len() as f64;
                Ok((argmax(rewards).unwrap_or(0), n.ln() - (n - 1.0) / n))
            }
            Method::SoftBestOfN | Method::Follower => {
                let follower = Samples::new(rewards).and_then(|samples| {
                    let (shaping, shaped) = shape(settings, &samples, 1.0)?;
                    Follower::respond(&samples, &shaped.values, shaping.strength)
                });
                let follower = follower.map_err(Error::Rule)?;
                let uniform = Randomness::new(settings.seed, id, u64::MAX).uniform();
                Ok((sample::draw(&follower.policy, uniform), follower.kl))
            }
        }
    }

    /// What finished answers to one prompt are worth; nothing without a reward. What a step has seen is not
    /// asked again.
    pub(crate) fn rewards(&self, job: usize, texts: &[Text<'_>]) -> Result<Vec<Score>> {
        let Some(reward) = self.reward else { return Ok(Vec::new()) };
        let unknown: Vec<&Text<'_>> = texts.iter().filter(|text| text.reward.is_none()).collect();
        let mut found = self.scores(reward, job, &unknown)?.into_iter();
        let score = |text: &Text<'_>| text.reward.clone().or_else(|| found.next());
        let scores: Vec<Score> = texts.iter().filter_map(score).collect();
        let prompt = self.jobs[job].prompt;
        let last = |text: &Text<'_>| *text.answer.tokens.last().or(prompt.last()).unwrap_or(&0);
        match scores.iter().zip(texts).find(|(score, _)| !score.reward.is_finite()) {
            Some((&Score { reward, .. }, text)) => {
                Err(Error::Reward { step: text.answer.tokens.len(), token: last(text), reward })
            }
            None => Ok(scores),
        }
    }

    /// What a reward says of finished answers to one prompt. A head reads the states that are there already.
    fn scores(&self, reward: &Reward, job: usize, texts: &[&Text<'_>]) -> Result<Vec<Score>> {
        if let Reward::Combined(combined) = reward {
            let of_part = |part: &Reward| -> Result<Vec<f64>> {
                Ok(self.scores(part, job, texts)?.into_iter().map(|score| score.reward).collect())
            };
            let parts = combined.rewards().iter().map(of_part).collect::<Result<Vec<_>>>()?;
            let score =
                |(i, reward)| Score { reward, parts: parts.iter().map(|part| part[i]).collect() };
            return Ok(combined.of(&parts).into_iter().enumerate().map(score).collect());
        }
        let mut scores = Vec::with_capacity(texts.len());
        let mut unread = Vec::new();
        for (i, text) in texts.iter().enumerate() {
            scores.push(match (reward, &text.last) {
                (Reward::Head(head), Some(hidden)) => head.score(hidden)?[0],
                _ => {
                    unread.push(i);
                    f64::NAN
                }
            });
        }
        if !unread.is_empty() {
            let answers: Vec<&[u32]> = unread.iter().map(|&i| &texts[i].answer.tokens[..]).collect();
            let Job { prompt, asked, .. } = self.jobs[job];
            let found = reward.of_answers(
                self.policy,
                PromptInput { tokens: prompt, prompt: asked },
                &answers,
            )?;
            unread.iter().zip(found).for_each(|(&i, reward)| scores[i] = reward);
        }
        Ok(scores.into_iter().map(Score::from).collect())
    }
}
