//! `stackelberg experiment`: methods, shapings and strengths compared over the same prompts.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use indicatif::ProgressBar;
use stackelberg_data::Prompt;
use stackelberg_data::words::count as counted;
use stackelberg_decoding::Cancel;
use stackelberg_experiment::{
    Experiment, Lab, Observer, Part, Provenance, Setting, Size, prompts_of, report, run, stages, verify,
};
use stackelberg_learning::rollouts::{self, Dataset};
use stackelberg_learning::value;
use stackelberg_registry::Registry;

use crate::filling::Filling;
use crate::help::brief;
use crate::model::{policy, registry, set_threads};
use crate::output::{note, say};
use crate::progress::style;
use crate::training::Training;
use crate::{arguments, interrupt, limits};

/// The options that -h shows.
const SHOWN: [&str; 1] = ["out"];

/// Compare methods, shapings and strengths over the same prompts, and write a report.
#[derive(Args)]
pub(crate) struct Command {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Run the missing runs of an experiment, then write its report.
    ///
    /// First the base policy and a sweep of the vanilla shaping over all strengths are run. The largest
    /// strength that is not degenerate, not dominated, and not significantly worse than the best is kept. Then all shapings are run at the kept strength, and last the perturbed rewards and
    /// the curves. The same command resumes a stopped or killed run.
    #[command(mut_args(brief(&SHOWN)), after_help = "`stackelberg experiment run --help` has all options.", after_long_help = "")]
    Run(Where),
    /// Write the report of the finished runs; run nothing.
    #[command(mut_args(brief(&SHOWN)), after_help = "`stackelberg experiment report --help` has all options.", after_long_help = "")]
    Report(Where),
    /// Generate some answers again and compare them and their scores with the saved ones.
    Verify(Verify),
    /// Print the planned runs; run nothing.
    Plan(Where),
}

#[derive(Args)]
struct Where {
    /// The experiment (TOML).
    file: PathBuf,

    /// The folder of the runs and the report. [default: the file's name without .toml, in the current folder]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    /// Compute threads. [default: all cores]
    #[arg(long, value_name = "N", value_parser = limits::threads)]
    threads: Option<usize>,
}

impl Command {
    pub(crate) fn run(&self) -> Result<()> {
        match &self.what {
            What::Run(place) => place.with_lab(registry()?, |lab| {
                let mut terminal = Terminal::new(lab);
                let outcome = run(lab, &mut terminal);
                terminal.finish(lab, outcome.is_ok());
                wrote(lab, &outcome?)
            }),
            // A report needs no scores.
            What::Report(place) => {
                place.with_runs(registry()?.without_checks(), |lab| wrote(lab, &report(lab)?))
            }
            What::Verify(verify) => verify.place.with_runs(registry()?, |lab| verify.run(lab)),
            What::Plan(place) => place.plan(),
        }
    }
}

#[derive(Args)]
struct Verify {
    #[command(flatten)]
    place: Where,

    /// Number of runs to verify, drawn at random from the finished ones.
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = limits::count(1, limits::VERIFIED))]
    runs: usize,

    /// Number of prompts to answer again in each run.
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = limits::count(1, limits::VERIFIED))]
    prompts: usize,

    /// Random seed of the selection.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

impl Verify {
    fn run(&self, lab: &Lab<'_>) -> Result<()> {
        let part = Part { runs: self.runs, prompts: self.prompts, seed: self.seed };
        let compared = verify(lab, &part, &mut |line| drop(say!("{line}")))?;
        say!("{} generated again: all texts and scores are identical", counted(compared, "answer"))?;
        Ok(())
    }
}

impl Where {
    fn folder(&self) -> PathBuf {
        match &self.out {
            Some(out) => out.clone(),
            None => PathBuf::from(self.file.file_stem().unwrap_or_default()),
        }
    }

    /// Like [`Self::with_lab`], for commands that need existing runs.
    fn with_runs(&self, registry: Registry, work: impl FnOnce(&Lab<'_>) -> Result<()>) -> Result<()> {
        Experiment::read(&self.file)?;
        let runs = self.folder().join("runs");
        if !runs.is_dir() {
            bail!(
                "{} does not exist: run the experiment first, or give its folder with --out",
                runs.display()
            );
        }
        self.with_lab(registry, work)
    }

    fn with_lab(&self, registry: Registry, work: impl FnOnce(&Lab<'_>) -> Result<()>) -> Result<()> {
        let experiment = Experiment::read(&self.file)?;
        prompts_of_file(&self.file, &experiment, &registry)?;
        open_lab(&experiment, &self.folder(), &registry, self.threads, work)
    }

    fn plan(&self) -> Result<()> {
        let (experiment, registry) = (Experiment::read(&self.file)?, registry()?);
        let prompts = prompts_of_file(&self.file, &experiment, &registry)?.len();
        for name in std::iter::once(&experiment.rewards.guide).chain(&experiment.rewards.held_out) {
            // References that may need a download are not checked here.
            if !name.contains(':') {
                registry
                    .reward_hash(name)
                    .with_context(|| format!("{}: rewards", self.file.display()))?;
            }
        }
        for (stage, settings) in stages(&experiment, &[]) {
            say!("{stage}")?;
            for setting in &settings {
                say!("  {setting}")?;
            }
        }
        let size = Size::of(&experiment, prompts);
        say!(
            "{}, {}, {}: {} of at most {}",
            counted(size.settings, "setting"),
            counted(experiment.seeds.len(), "seed"),
            counted(prompts, "prompt"),
            counted(size.answers, "answer"),
            counted(experiment.decoding.max_new_tokens(), "token")
        )?;
        say!(
            "at most {} run through the policy, besides prompts and rollouts",
            counted(size.tokens, "token")
        )?;
        if experiment.guided().next().is_some() {
            say!(
                "(the kept strength is known after the sweep; this plan uses the first strength of each method)"
            )?;
        }
        Ok(())
    }
}

/// Reads the prompts of an experiment, and checks that value heads are trained on none of them.
pub(crate) fn prompts_of_file(
    file: &Path,
    experiment: &Experiment,
    registry: &Registry,
) -> Result<Vec<(String, Prompt)>> {
    let prompts = prompts_of(registry, &experiment.prompts)?;
    let taught = match &experiment.values {
        Some(values) => prompts_of(registry, &values.prompts)?,
        None => Vec::new(),
    };
    experiment.check_leakage(&prompts, &taught).with_context(|| file.display().to_string())?;
    Ok(prompts)
}

/// Loads the models of an experiment, and opens its folder.
pub(crate) fn open_lab(
    experiment: &Experiment,
    out: &Path,
    registry: &Registry,
    threads: Option<usize>,
    work: impl FnOnce(&Lab<'_>) -> Result<()>,
) -> Result<()> {
    let cancel = interrupt::watch()?;
    set_threads(threads)?;
    let policy = policy(registry, &experiment.policy.spec())?;
    std::fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    let provenance = Provenance {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        commit: env!("STACKELBERG_COMMIT").to_owned(),
        command: arguments::all(),
    };
    let (lab, warnings) = Lab::open(experiment, out, registry, &policy, provenance, cancel)?;
    warnings.iter().for_each(|warning| note!("warning: {warning}"));
    work(&lab)
}

/// Prints the sentences that the report opens with, and where it is.
fn wrote(lab: &Lab<'_>, opening: &[String]) -> Result<()> {
    for sentence in opening {
        say!("{sentence}")?;
    }
    say!("wrote {} and the tables beside it", lab.out.join("report.html").display())?;
    Ok(())
}

fn all_answers(lab: &Lab<'_>) -> usize {
    Size::of(lab.experiment, lab.prompts.len()).answers
}

/// Progress of an experiment: a bar over all answers, with messages above it.
pub(crate) struct Terminal {
    bar: ProgressBar,
    cancel: Cancel,
    /// The number of tokens that this call has generated.
    tokens: usize,
    began: Instant,
}

impl Terminal {
    pub(crate) fn new(lab: &Lab<'_>) -> Self {
        let style = style("{bar:30} {pos}/{len} answers {eta} left | {prefix} {msg}");
        let bar = ProgressBar::new(all_answers(lab) as u64).with_style(style);
        Self { bar, cancel: lab.cancel.clone(), tokens: 0, began: Instant::now() }
    }

    /// Removes the bar. Prints one line about this call, if it succeeded: `66 answers, 471 new tokens in 3.2 s`.
    pub(crate) fn finish(self, lab: &Lab<'_>, succeeded: bool) {
        self.bar.finish_and_clear();
        if !succeeded {
            return;
        }
        let all = counted(all_answers(lab), "answer");
        let seconds = self.began.elapsed().as_secs_f64();
        match self.tokens {
            0 => note!("{all}, all of them from earlier runs"),
            tokens => note!("{all}, {} in {seconds:.1} s", counted(tokens, "new token")),
        }
    }

    /// Prints a line above the bar.
    fn say(&self, line: &str) {
        self.bar.suspend(|| note!("{line}"));
    }
}

impl Observer for Terminal {
    fn stage(&mut self, name: &str) {
        self.say(name);
    }

    fn message(&mut self, text: &str) {
        self.say(text);
    }

    fn warning(&mut self, text: &str) {
        self.say(&format!("warning: {text}"));
    }

    fn run(&mut self, setting: &Setting, seed: u64) {
        self.bar.set_prefix(format!("{setting}, seed {seed}"));
    }

    fn answered(&mut self, answers: usize, tokens: usize) {
        self.tokens += tokens;
        self.bar.inc(answers as u64);
    }

    fn measured(&mut self, setting: &Setting, seed: u64) {
        if self.bar.is_hidden() {
            let (done, all) = (self.bar.position(), self.bar.length().unwrap_or_default());
            note!("  {setting}, seed {seed} | {done} of {all} answers");
        }
    }

    fn rollouts<'d>(&'d mut self, dataset: &'d Dataset) -> Box<dyn rollouts::Progress + 'd> {
        Box::new(Filling::new(dataset, rollouts::Part::ALL, self.cancel.clone()))
    }

    fn training(&mut self, settings: &value::Settings) -> Box<dyn value::Watch + '_> {
        Box::new(Training::new(settings, self.cancel.clone()))
    }
}
