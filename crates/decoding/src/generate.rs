//! From prompts to answers: a session for one caller.

use std::collections::HashMap;
use std::sync::Arc;

use stackelberg_engine::reward::{PromptInput, ValueHead};
use stackelberg_engine::{Error as EngineError, Prompt, Reward};

use crate::error::{Error, Result};
use crate::generation::Generation;
use crate::method::Method;
use crate::policy::Policy;
use crate::prefixes::CacheCounts;
use crate::request::{Event, Request, Sample, Ticket, Want};
use crate::session::{Limits, Session, check};
use crate::settings::Settings;
use crate::step::Step;

/// Callbacks while answers are decoded.
pub trait Watch {
    /// A step was decided in the answer to prompt `job`; `text` is what it adds to the answer. All texts of an answer
    /// together are its text.
    fn step(&mut self, _job: usize, _number: usize, _step: &Step, _text: &str) {}

    /// The answer to prompt `job` is finished.
    fn done(&mut self, _job: usize, _answer: Generation) {}

    /// Prompt `job` has no answer: the error names it. A watch that takes the error lets the other prompts go on.
    ///
    /// # Errors
    /// The run is to end; as it does unless this is implemented.
    fn failed(&mut self, _job: usize, error: Error) -> Result<()> {
        Err(error)
    }

    /// All samples of prompt `job` are finished, in order ([`rollout`]).
    fn samples(&mut self, _job: usize, _samples: Vec<Sample>) {}

    /// All answers are finished: what the cache of prefilled prompts has done.
    fn cache(&mut self, _counts: CacheCounts) {}

    /// Whether steps are to be told.
    fn watches(&self) -> bool {
        true
    }

    /// Whether to stop now.
    fn stop(&self) -> bool {
        false
    }
}

/// Watches nothing.
impl Watch for () {
    fn watches(&self) -> bool {
        false
    }
}

/// A prompt to be answered.
#[derive(Debug, Clone, Copy)]
pub struct Job<'a> {
    /// The prompt's name: with the seed it decides all random numbers.
    pub id: &'a str,
    /// The prompt, as tokens.
    pub prompt: &'a [u32],
    /// The prompt itself, which rewards that read text need.
    pub asked: Option<&'a Prompt>,
}

/// What guides and scores.
#[derive(Clone, Copy, Default)]
pub struct Guidance<'a> {
    /// Scores candidates ([`Method::Args`]), samples (best-of-n and its siblings) and every finished answer.
    pub reward: Option<&'a Reward>,
    /// Scores the candidates of [`Method::Cd`].
    pub value: Option<&'a Arc<ValueHead>>,
}

impl<'a> From<Option<&'a Reward>> for Guidance<'a> {
    fn from(reward: Option<&'a Reward>) -> Self {
        Self { reward, value: None }
    }
}

/// Sequences that are decoded at once unless the caller says otherwise: more need memory and bring little.
pub const AT_ONCE: usize = 10;

/// Answers one prompt, given as tokens (for rewards that read text: a [`PromptInput`]). `id` names the prompt: with the
/// seed it decides all random numbers. `guidance` is an `Option<&Reward>`, or a [`Guidance`] where there is a value head.
///
/// # Errors
/// A setting is out of range, the method lacks its reward or value head, the prompt does not fit the context, or a reward
/// is not finite; [`Error::Stopped`] if `watch` says so.
pub fn generate<'p>(
    policy: impl Into<Policy>,
    guidance: impl Into<Guidance<'p>>,
    prompt: impl Into<PromptInput<'p>>,
    id: &str,
    settings: &Settings,
    watch: &mut dyn Watch,
) -> Result<Generation> {
    let PromptInput { tokens: prompt, prompt: asked } = prompt.into();
    let job = Job { id, prompt, asked };
    let mut first = First { watch, answer: None };
    let outcome = generate_all(policy, guidance, &[job], settings, AT_ONCE, &mut first);
    outcome.map_err(|error| match error {
        Error::Prompt { source, .. } => *source,
        other => other,
    })?;
    first.answer.ok_or(Error::Stopped)
}

/// Keeps the answer.
struct First<'a> {
    watch: &'a mut dyn Watch,
    answer: Option<Generation>,
}

impl Watch for First<'_> {
    fn step(&mut self, job: usize, number: usize, step: &Step, text: &str) {
        self.watch.step(job, number, step, text);
    }

    fn done(&mut self, _: usize, answer: Generation) {
        self.answer = Some(answer);
    }

    fn watches(&self) -> bool {
        self.watch.watches()
    }

    fn stop(&self) -> bool {
        self.watch.stop()
    }
}

/// Answers many prompts, as many sequences as `limits` allow sharing each forward. Answers are handed to `watch` as they
/// are finished, and are the same whatever the limits are (on the CPU; elsewhere except for rounding).
///
/// # Errors
/// As [`generate`]; those of one prompt name it, and end the run unless [`Watch::failed`] takes them. Answers that were
/// handed over before stay.
pub fn generate_all<'a>(
    policy: impl Into<Policy>,
    guidance: impl Into<Guidance<'a>>,
    jobs: &[Job<'_>],
    settings: &Settings,
    limits: impl Into<Limits>,
    watch: &mut dyn Watch,
) -> Result<()> {
    let (policy, guidance) = (policy.into(), guidance.into());
    settings.check(policy.vocabulary())?;
    match (settings.method, guidance.reward, guidance.value) {
        (Method::Cd, _, None) => return Err(Error::NoValueHead),
        (Method::Base | Method::Cd, ..) | (_, Some(_), _) => {}
        (method, None, _) => return Err(Error::NoReward(method.name())),
    }
    let counts = run(policy, guidance, jobs, settings, Want::Answer, limits.into(), watch)?;
    watch.cache(counts);
    Ok(())
}

/// Draws [`Settings::samples`] answers of the base policy to every prompt, whatever [`Settings::method`] says, `at_once`
/// sequences sharing each forward, and scores each if there is a reward. With `keep_hidden` their hidden states are kept;
/// no forward is run for them. Samples depend on the seed, the prompt and its id alone: not on `at_once`, nor on which
/// other prompts there are.
///
/// # Errors
/// As [`generate_all`]; those of one prompt name it.
pub fn rollout(
    policy: impl Into<Policy>,
    reward: Option<&Reward>,
    jobs: &[Job<'_>],
    settings: &Settings,
    keep_hidden: bool,
    at_once: usize,
    watch: &mut dyn Watch,
) -> Result<()> {
    // Candidates matter to guidance alone.
    let settings = &Settings { method: Method::Base, candidates: 1, ..settings.clone() };
    let (want, guidance) = (Want::Samples { hidden: keep_hidden }, Guidance { reward, value: None });
    run(policy.into(), guidance, jobs, settings, want, at_once.into(), watch).map(drop)
}

/// Runs prompts that are answered alike through a session.
fn run(
    policy: Policy,
    guidance: Guidance<'_>,
    jobs: &[Job<'_>],
    settings: &Settings,
    want: Want,
    limits: Limits,
    watch: &mut dyn Watch,
) -> Result<CacheCounts> {
    settings.check(policy.vocabulary())?;
    let (settings, steps) = (Arc::new(settings.clone()), watch.watches());
    let request = |job: &Job<'_>| Request {
        id: job.id.to_owned(),
        prompt: job.prompt.to_vec(),
        asked: job.asked.cloned().map(Arc::new),
        settings: settings.clone(),
        reward: guidance.reward.cloned(),
        value: guidance.value.cloned(),
        want,
        steps,
    };
    // A long run should not learn late that a prompt does not fit.
    let mut fit = Vec::with_capacity(jobs.len());
    for (number, job) in jobs.iter().enumerate() {
        match check(&policy, &request(job)) {
            Ok(_) => fit.push((number, job)),
            Err(error @ Error::Engine(EngineError::RewardContext { .. })) => {
                watch.failed(number, error.of(job.id))?;
            }
            Err(error) => return Err(error.of(job.id)),
        }
    }
    let mut session = Session::new(policy, limits);
    let mut waiting = fit.into_iter();
    let mut tickets: HashMap<Ticket, usize> = HashMap::new();
    loop {
        // Few wait at a time: their prompts are copies.
        while session.requests() < 2 * limits.sequences {
            let Some((number, job)) = waiting.next() else { break };
            let ticket = session.submit(request(job)).map_err(|error| error.of(job.id))?;
            tickets.insert(ticket, number);
        }
        if session.is_idle() {
            return Ok(session.cache());
        }
        if watch.stop() {
            return Err(Error::Stopped);
        }
        for event in session.step() {
            let Some(&job) = tickets.get(&event.ticket()) else { continue };
            match event {
                Event::Token { number, step, text, .. } => watch.step(job, number, &step, &text),
                Event::Failed { error, .. } => watch.failed(job, error.of(jobs[job].id))?,
                Event::Done { samples, .. } if want == Want::Answer => {
                    samples.into_iter().for_each(|sample| watch.done(job, sample.answer));
                }
                Event::Done { samples, .. } => watch.samples(job, samples),
            }
        }
    }
}
