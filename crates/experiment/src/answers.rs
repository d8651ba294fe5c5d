//! Answers many prompts into a file. Each answer is written as soon as it is finished.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use stackelberg_data::trace::TraceWriter;
use stackelberg_data::words::count as counted;
use stackelberg_data::{Identity, Journal};
use stackelberg_decoding::{
    CacheCounts, Cancel, Error as DecodingError, Generation, Guidance, HackingWatch, Job, Limits,
    Policy, Settings, Step, Watch, generate_all,
};
use stackelberg_engine::reward::TextFormat;
use stackelberg_engine::{Error as EngineError, Prompt};
use stackelberg_registry::layout;

use crate::error::{Context, Error, Result};
use crate::record::{self, Names};

/// The policy, guidance and settings that all answers of a run share.
#[derive(Clone)]
pub struct Session<'a> {
    /// The policy.
    pub policy: &'a Policy,
    /// The reward or value head that guides it.
    pub guidance: Guidance<'a>,
    /// The decoding settings.
    pub settings: Settings,
    /// The prompt format.
    pub format: TextFormat,
    /// Names for the output.
    pub names: Names<'a>,
    /// Sequences that are decoded in parallel, and bytes of prefilled prompts that are kept.
    pub limits: Limits,
    /// Whether to watch for reward hacking and write warnings.
    pub watch: bool,
}

/// Output files of a run.
#[derive(Debug, Clone, Copy)]
pub struct Files<'a> {
    /// The file of answers; `None` is standard output.
    pub out: Option<&'a Path>,
    /// The file of decoding steps, if they are to be written.
    pub trace: Option<&'a Path>,
    /// The number of prompts, from the first one, whose steps are written.
    pub traced: usize,
    /// Whether existing files are continued.
    pub resume: bool,
    /// What continues a run that has stopped, for messages: options, or "the same command".
    pub again: Option<&'a str>,
}

/// Receives the progress of a run.
pub trait Progress {
    /// A warning for the user.
    fn warning(&mut self, _text: &str) {}

    /// The watch for reward hacking reports a warning about the answer to a prompt.
    fn hacking(&mut self, _id: &str, _text: &str) {}

    /// A prompt could not be answered. Others go on.
    fn failed(&mut self, _text: &str) {}

    /// More answers are finished: their number, and their tokens (0 for answers of an earlier run).
    fn answered(&mut self, _answers: usize, _tokens: usize) {}

    /// An answer of this run is finished.
    fn answer(&mut self, _answer: &Generation) {}

    /// The run is finished: what the cache of prefilled prompts has done.
    fn cache(&mut self, _counts: CacheCounts) {}
}

/// Ignores all progress.
impl Progress for () {}

impl Session<'_> {
    /// Formats and tokenizes a prompt for the policy.
    ///
    /// # Errors
    /// The chat template or the tokenizer fails.
    pub fn tokens(&self, prompt: &Prompt) -> Result<Vec<u32>> {
        let text = self.policy.lay_out(prompt, self.names.system, self.format)?;
        Ok(self.policy.read(&text)?)
    }

    /// Answers all prompts that are not answered yet.
    ///
    /// # Errors
    /// [`Error::Interrupted`], which says how to resume; [`Error::Prompts`] if prompts cannot be answered, after the
    /// others; a file cannot be written, or has
    /// answers under other settings.
    pub fn answer_all(
        &self,
        prompts: &[(String, Prompt)],
        files: &Files<'_>,
        cancel: &Cancel,
        progress: &mut dyn Progress,
    ) -> Result<()> {
        let mut identity = record::identity(self.names, &self.settings, self.format, self.policy);
        identity.template_hash = record::template_hash(self.policy, self.format, self.guidance.reward);
        let journal = Journal::open(files.out, files.resume, &identity)?;
        let has = |(id, prompt): &(String, Prompt)| journal.has(id, prompt);
        let answered = prompts.iter().map(has).collect::<stackelberg_data::Result<Vec<bool>>>()?;
        let open = |path| TraceWriter::open(path, files.resume, &journal.ids());
        let trace = files.trace.map(open).transpose()?;
        let traced: HashSet<&str> = match trace {
            Some(_) => prompts.iter().take(files.traced).map(|(id, _)| id.as_str()).collect(),
            None => HashSet::new(),
        };
        let mut waiting = Vec::new();
        for ((id, prompt), answered) in prompts.iter().zip(answered) {
            if !answered {
                let tokens = self.tokens(prompt).with_context(|| format!("prompt {id}"))?;
                waiting.push(Waiting { id, prompt, tokens, traced: traced.contains(id.as_str()) });
            }
        }
        let tokens = waiting.iter().map(|waiting| &waiting.tokens[..]);
        for warning in layout::odd_tokens(self.policy, self.format, "prompt", tokens) {
            progress.warning(&warning);
        }
        let tokens = waiting.iter().map(|waiting| &waiting.tokens[..]);
        let (reward, most) = (self.guidance.reward, self.settings.max_new_tokens);
        if let Some(warning) = layout::short_context(self.policy, reward, most, tokens) {
            progress.warning(&warning);
        }
        let before = prompts.len() - waiting.len();
        progress.answered(before, 0);
        let jobs = waiting.iter().map(|Waiting { id, prompt, tokens, .. }| Job {
            id,
            prompt: tokens,
            asked: Some(prompt),
        });
        let jobs: Vec<Job<'_>> = jobs.collect();
        let under_way = HashMap::new();
        let (watching, failed) = (self.watch, None);
        let mut sink = Sink {
            session: self,
            identity,
            journal,
            trace,
            waiting: &waiting,
            under_way,
            watching,
            progress,
            cancel,
            done: before,
            failed,
            unanswered: Vec::new(),
            alike: 0,
        };
        let outcome =
            generate_all(self.policy, self.guidance, &jobs, &self.settings, self.limits, &mut sink);
        if let Some(error) = sink.failed {
            return Err(error);
        }
        match outcome {
            Err(stackelberg_decoding::Error::Stopped) => {
                Err(interrupted(sink.done, prompts.len(), files.again))
            }
            Err(error) if sink.alike >= HOPELESS => {
                Err(hopeless(&said(&error), sink.done, prompts.len(), files.again))
            }
            outcome => {
                outcome?;
                unanswered(&sink.unanswered, prompts.len(), files.again)
            }
        }
    }
}

/// The error of a run that left prompts without an answer, if it did.
fn unanswered(failures: &[String], all: usize, again: Option<&str>) -> Result<()> {
    let Some(first) = failures.first() else { return Ok(()) };
    let (n, again) = (failures.len(), resumed("try them again", again));
    Err(Error::Prompts(format!("{n} of {} failed, the first: {first}{again}", counted(all, "prompt"))))
}

/// The error of a run that was given up.
fn hopeless(error: &str, done: usize, all: usize, again: Option<&str>) -> Error {
    Error::Prompts(format!(
        "{error}; given up after {HOPELESS} such failures in a row, with {done} of {} answered{}",
        counted(all, "prompt"),
        resumed("continue", again)
    ))
}

/// How a run goes on, at the end of a message.
fn resumed(what: &str, again: Option<&str>) -> String {
    again.map(|again| format!("; {what} with {again}")).unwrap_or_default()
}

/// The error of a cancelled run.
pub fn interrupted(done: usize, all: usize, again: Option<&str>) -> Error {
    Error::Interrupted(format!(
        "interrupted after {done} of {}{}",
        counted(all, "prompt"),
        resumed("continue", again)
    ))
}

/// A prompt that is not answered yet.
struct Waiting<'a> {
    id: &'a String,
    prompt: &'a Prompt,
    tokens: Vec<u32>,
    traced: bool,
}

/// Writes answers as they finish. The steps of traced prompts are collected until the answer is finished, then both are
/// written, together with the warnings of the watch.
struct Sink<'a> {
    session: &'a Session<'a>,
    identity: Identity,
    journal: Journal,
    trace: Option<TraceWriter>,
    waiting: &'a [Waiting<'a>],
    under_way: HashMap<usize, UnderWay>,
    watching: bool,
    progress: &'a mut dyn Progress,
    cancel: &'a Cancel,
    /// Answers written, including those of earlier runs.
    done: usize,
    failed: Option<Error>,
    /// Why prompts have no answer.
    unanswered: Vec<String>,
    /// The last failures that a scorer outside caused, if nothing was answered in between: how many are the same.
    alike: usize,
}

/// So many failures of a program or a server, all the same and in a row, end a run: the others would fail too.
const HOPELESS: usize = 3;

/// An error with its causes on one line.
fn said(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |said, cause| format!("{said}: {cause}"))
}

/// State of an unfinished answer.
#[derive(Default)]
struct UnderWay {
    steps: Vec<Step>,
    watch: Option<HackingWatch>,
    warnings: Vec<String>,
}

impl Sink<'_> {
    fn write(&mut self, job: usize, under_way: UnderWay, answer: &Generation) -> Result<()> {
        let Waiting { id, prompt, traced, .. } = &self.waiting[job];
        let parts = self.session.names.parts;
        if let Some(trace) = self.trace.as_mut().filter(|_| *traced) {
            let (method, tokenizer) = (self.session.settings.method, &self.session.policy.tokenizer);
            trace.write(&record::trace(id, method, &under_way.steps, parts, tokenizer)?)?;
        }
        for warning in &under_way.warnings {
            self.progress.hacking(id, warning);
        }
        let line = record::response(&self.identity, parts, (id, prompt), answer, &under_way.warnings);
        Ok(self.journal.write(&line)?)
    }
}

impl Watch for Sink<'_> {
    fn step(&mut self, job: usize, number: usize, step: &Step, _: &str) {
        let traced = self.waiting[job].traced;
        if !traced && !self.watching {
            return;
        }
        let answer = self.under_way.entry(job).or_default();
        if self.watching {
            let settings = &self.session.settings;
            let watch = answer.watch.get_or_insert_with(|| HackingWatch::new(settings));
            let warning = |alarm| format!("token {}: {alarm}", number + 1);
            answer.warnings.extend(watch.step(step).into_iter().map(warning));
        }
        if traced {
            answer.steps.push(step.clone());
        }
    }

    fn done(&mut self, job: usize, answer: Generation) {
        let under_way = self.under_way.remove(&job).unwrap_or_default();
        if self.stop() {
            return;
        }
        match self.write(job, under_way, &answer) {
            Ok(()) => {
                self.done += 1;
                self.alike = 0;
                self.progress.answer(&answer);
                self.progress.answered(1, answer.tokens.len());
            }
            Err(error) => self.failed = Some(error),
        }
    }

    fn failed(&mut self, job: usize, error: DecodingError) -> stackelberg_decoding::Result<()> {
        self.under_way.remove(&job);
        let text = said(&error);
        let DecodingError::Prompt { source, .. } = &error else { return Err(error) };
        if let DecodingError::Engine(EngineError::Scorer(why)) | DecodingError::Server(why) = &**source {
            let same = self.alike > 0
                && self.unanswered.last().is_some_and(|last| last.ends_with(why.as_str()));
            self.alike = if same { self.alike + 1 } else { 1 };
            if self.alike >= HOPELESS {
                return Err(error);
            }
        }
        self.progress.failed(&text);
        self.unanswered.push(text);
        Ok(())
    }

    fn cache(&mut self, counts: CacheCounts) {
        self.progress.cache(counts);
    }

    fn stop(&self) -> bool {
        self.cancel.is_cancelled() || self.failed.is_some()
    }
}
