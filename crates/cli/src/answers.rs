//! Many prompts answered into a file, each answer as soon as it is finished: what `generate` and `experiment` share.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Instant;

use anyhow::{Context, Result};
use indicatif::ProgressBar;
use stackelberg_decoding::{
    Generation, Guidance, HackingWatch, Job, Settings, Step, Watch, generate_all,
};
use stackelberg_engine::reward::TextFormat;
use stackelberg_engine::{Checkpoint, Prompt};

use crate::generate::{INTERRUPTED, interrupted, warn_of_double_bos};
use crate::record::{Journal, Names, Recorded, Trace};

/// All that answers have in common.
#[derive(Clone)]
pub(crate) struct Session<'a> {
    pub(crate) policy: &'a Checkpoint,
    pub(crate) guidance: Guidance<'a>,
    pub(crate) settings: Settings,
    pub(crate) format: TextFormat,
    pub(crate) names: Names<'a>,
    /// Texts written together.
    pub(crate) at_once: usize,
    /// Whether to look out for text that the reward has taken over.
    pub(crate) watch: bool,
}

/// Where answers go.
pub(crate) struct Files<'a> {
    /// `None` is standard output.
    pub(crate) out: Option<&'a Path>,
    /// Where the steps go, if anywhere.
    pub(crate) trace: Option<&'a Path>,
    /// Of how many prompts, the first ones, the steps are kept.
    pub(crate) traced: usize,
    /// Whether files that are there are gone on with.
    pub(crate) resume: bool,
    /// Whether what the watch sees is also said.
    pub(crate) warn: bool,
}

impl Session<'_> {
    /// A prompt as the policy reads it.
    pub(crate) fn tokens(&self, prompt: &Prompt) -> Result<Vec<u32>> {
        let text = self.policy.lay_out(prompt, self.names.system, self.format)?;
        Ok(self.policy.tokens(&text, self.format)?)
    }

    /// Answers all prompts that are not answered yet. The bar counts prompts.
    pub(crate) fn answer_all(
        &self,
        prompts: &[(String, Prompt)],
        files: &Files<'_>,
        bar: &ProgressBar,
    ) -> Result<()> {
        let recorded = Recorded::new(self.names, &self.settings, self.format, self.policy);
        let mut journal = Journal::open(files.out, files.resume, &recorded)?;
        let open = |path| Trace::open(path, files.resume, &journal.ids());
        let mut trace = files.trace.map(open).transpose()?;
        let traced = match trace {
            Some(_) => prompts.iter().take(files.traced).map(|(id, _)| id.as_str()).collect(),
            None => HashSet::new(),
        };
        let mut waiting = Vec::new();
        for (id, prompt) in prompts {
            if !journal.has(id, prompt) {
                let tokens = self.tokens(prompt).with_context(|| format!("prompt {id}"))?;
                waiting.push((id, prompt, tokens));
            }
        }
        warn_of_double_bos(self.policy, waiting.iter().map(|(.., tokens)| &tokens[..]));
        bar.inc((prompts.len() - waiting.len()) as u64);
        let jobs: Vec<Job<'_>> =
            waiting.iter().map(|(id, asked, prompt)| Job { id, prompt, asked: Some(asked) }).collect();
        let keep = |job: usize, steps: &[Step], warnings: &[String], answer: &Generation| {
            let (id, prompt, _) = &waiting[job];
            if let Some(trace) = trace.as_mut().filter(|_| traced.contains(id.as_str())) {
                trace.write(
                    id,
                    self.settings.method,
                    steps,
                    self.names.parts,
                    &self.policy.tokenizer,
                )?;
            }
            let seconds = answer.elapsed.as_secs_f64();
            tracing::debug!(id, tokens = answer.tokens.len(), seconds, "answered");
            for warning in warnings.iter().filter(|_| files.warn) {
                bar.suspend(|| eprintln!("warning: prompt {id}: {warning}"));
            }
            journal.write(id, prompt, answer, warnings, &recorded)
        };
        let traced = waiting.iter().map(|(id, ..)| traced.contains(id.as_str())).collect();
        let watched = self.watch.then_some(&self.settings);
        let (under_way, began) = (HashMap::new(), Instant::now());
        let mut desk = Desk { keep, traced, watched, under_way, bar, tokens: 0, began, failed: None };
        let outcome =
            generate_all(self.policy, self.guidance, &jobs, &self.settings, self.at_once, &mut desk);
        if let Some(error) = desk.failed {
            return Err(error);
        }
        match outcome {
            Err(stackelberg_decoding::Error::Stopped) => {
                return Err(interrupted(bar.position() as usize, prompts.len(), files.out));
            }
            outcome => outcome?,
        }
        journal.finish()
    }
}

/// Where answers come in: the steps of those that are traced are collected until their answer is finished, then both
/// are kept, with what the watch saw.
struct Desk<'a, F> {
    keep: F,
    traced: Vec<bool>,
    /// The settings that answers are watched under, if they are.
    watched: Option<&'a Settings>,
    under_way: HashMap<usize, UnderWay>,
    bar: &'a ProgressBar,
    tokens: usize,
    began: Instant,
    failed: Option<anyhow::Error>,
}

/// What is known of an answer before it is finished.
#[derive(Default)]
struct UnderWay {
    steps: Vec<Step>,
    watch: Option<HackingWatch>,
    warnings: Vec<String>,
}

impl<F: FnMut(usize, &[Step], &[String], &Generation) -> Result<()>> Watch for Desk<'_, F> {
    fn step(&mut self, job: usize, number: usize, step: &Step, _: &str) {
        if !self.traced[job] && self.watched.is_none() {
            return;
        }
        let answer = self.under_way.entry(job).or_default();
        if let Some(settings) = self.watched {
            let watch = answer.watch.get_or_insert_with(|| HackingWatch::new(settings));
            let warning = |alarm| format!("token {}: {alarm}", number + 1);
            answer.warnings.extend(watch.step(step).into_iter().map(warning));
        }
        if self.traced[job] {
            answer.steps.push(step.clone());
        }
    }

    fn done(&mut self, job: usize, answer: Generation) {
        let UnderWay { steps, warnings, .. } = self.under_way.remove(&job).unwrap_or_default();
        if self.stop() {
            return;
        }
        if let Err(error) = (self.keep)(job, &steps, &warnings, &answer) {
            self.failed = Some(error);
            return;
        }
        self.tokens += answer.tokens.len();
        let rate = self.tokens as f64 / self.began.elapsed().as_secs_f64();
        self.bar.set_message(format!("{rate:.1} tokens/s"));
        self.bar.inc(1);
    }

    fn stop(&self) -> bool {
        INTERRUPTED.load(Ordering::Relaxed) || self.failed.is_some()
    }
}
