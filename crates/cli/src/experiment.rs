//! `stackelberg experiment`: methods, shapings and strengths compared over the same prompts.
//!
//! ```text
//! file ──► plan ──► lab (answers, scores; one folder a run) ──► sweep ──► results ──► report
//! ```

mod file;
mod lab;
mod plan;
mod results;
mod sweep;
mod values;
mod verify;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use stackelberg_evaluation::metrics::Coherence;

use crate::generate::{Interrupted, watch_for_ctrl_c};
use crate::model::{ModelArgs, reward_hash};
use file::{Experiment, Methods};
use lab::Lab;
use plan::Setting;
use sweep::Kept;

/// Compare methods, shapings and strengths over the same prompts, and write a report.
#[derive(Args)]
pub(crate) struct Command {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Run what is missing of an experiment, then write its report.
    ///
    /// First the base policy and the vanilla shaping at every strength; of these the best before text degenerates
    /// is kept; then all shapings at that strength, and last what is asked for beside. Stopped or killed, the same
    /// command goes on where it was.
    Run(Where),
    /// Write the report of what is done so far, and run nothing.
    Report(Where),
    /// Make some answers again and compare them, and their scores, with what is kept.
    Verify(Verify),
    /// Say what there is to run, and run nothing.
    Plan(Where),
}

#[derive(Args)]
struct Where {
    /// The experiment (TOML).
    file: PathBuf,

    /// The folder of its runs and its report. [default: the file's name, without .toml, in this folder]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    /// Threads to compute with. [default: all]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

impl Command {
    pub(crate) fn run(&self) -> Result<()> {
        match &self.what {
            What::Run(place) => place.with_lab(run),
            What::Report(place) => place.with_runs(report),
            What::Verify(verify) => verify.place.with_runs(|lab| verify.run(lab)),
            What::Plan(place) => place.plan(),
        }
    }
}

#[derive(Args)]
struct Verify {
    #[command(flatten)]
    place: Where,

    /// Runs to look at, drawn at random from those that are done.
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = at_least_one)]
    runs: usize,

    /// Prompts of each run that are answered again.
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = at_least_one)]
    prompts: usize,

    /// Decides which.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("at least 1".to_owned()),
        Ok(number) => Ok(number),
        Err(error) => Err(format!("{error}")),
    }
}

impl Verify {
    fn run(&self, lab: &Lab<'_>) -> Result<()> {
        verify::unchanged(lab)?;
        let kept = kept_so_far(lab)?;
        let settings = all_settings(lab, &kept);
        let part = verify::Part { runs: self.runs, prompts: self.prompts, seed: self.seed };
        verify::verify(lab, settings, &part)
    }
}

impl Where {
    fn check_leakage(&self, experiment: &Experiment) -> Result<()> {
        let prompts = lab::prompts_of(&experiment.prompts)?;
        experiment.check_leakage(&prompts).with_context(|| self.file.display().to_string())
    }

    fn folder(&self) -> PathBuf {
        match &self.out {
            Some(out) => out.clone(),
            None => PathBuf::from(self.file.file_stem().unwrap_or_default()),
        }
    }

    /// For what needs runs that are there already.
    fn with_runs(&self, work: impl FnOnce(&Lab<'_>) -> Result<()>) -> Result<()> {
        Experiment::read(&self.file)?;
        let runs = self.folder().join("runs");
        if !runs.is_dir() {
            bail!(
                "there is no {}: run the experiment first, or give its folder with --out",
                runs.display()
            );
        }
        self.with_lab(work)
    }

    fn with_lab(&self, work: impl FnOnce(&Lab<'_>) -> Result<()>) -> Result<()> {
        let experiment = Experiment::read(&self.file)?;
        self.check_leakage(&experiment)?;
        let out = self.folder();
        let model = ModelArgs {
            model: Some(experiment.policy.model.clone()),
            dtype: experiment.policy.dtype,
            device: experiment.policy.device,
            threads: self.threads,
        };
        watch_for_ctrl_c()?;
        let policy = model.load()?;
        std::fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
        work(&Lab::open(&experiment, &out, &model, &policy)?)
    }

    fn plan(&self) -> Result<()> {
        let experiment = Experiment::read(&self.file)?;
        self.check_leakage(&experiment)?;
        let prompts = lab::prompts_of(&experiment.prompts)?.len();
        for name in std::iter::once(&experiment.rewards.guide).chain(&experiment.rewards.held_out) {
            // What would have to be fetched is left to the run.
            if !name.contains(':') {
                reward_hash(name).with_context(|| format!("{}: rewards", self.file.display()))?;
            }
        }
        let (mut settings, mut answers) = (0, 0);
        for (stage, of_stage) in stages(&experiment, &[]) {
            println!("{stage}");
            for setting in &of_stage {
                println!("  {setting}");
                settings += 1;
                answers += experiment.seeds_of(setting).len() * prompts;
            }
        }
        println!(
            "{settings} settings, {} seeds, {prompts} prompts: {answers} answers of at most {} tokens",
            experiment.seeds.len(),
            experiment.decoding.max_new_tokens
        );
        if experiment.guided().next().is_some() {
            println!(
                "(which strength is kept shows when the sweep is done; here it is each method's first)"
            );
        }
        Ok(())
    }
}

/// Runs what is missing.
fn run(lab: &Lab<'_>) -> Result<()> {
    let mut bench = Bench::new(lab)?;
    bench.run_all(lab.experiment.first_stages())?;
    let kept = kept_so_far(lab)?;
    kept.iter().for_each(|kept| bench.say(&kept.finding()));
    bench.run_all(later_stages(lab, &kept))?;
    bench.bar.finish_and_clear();
    finish(lab, &kept)
}

/// Writes the report of what is done; says how much that is.
fn report(lab: &Lab<'_>) -> Result<()> {
    finish(lab, &kept_so_far(lab)?)
}

fn finish(lab: &Lab<'_>, kept: &[Kept]) -> Result<()> {
    results::write(lab, kept)?;
    println!("wrote {} and the tables beside it", lab.out.join("report.html").display());
    Ok(())
}

/// All that there is to run. Where no strength is kept yet, the first of a method stands for it: there are as many.
fn stages(experiment: &Experiment, kept: &[Kept]) -> Vec<(String, Vec<Setting>)> {
    let knob = |methods: &Methods| match Kept::of(kept, &methods.group()) {
        Some(kept) => Some(kept.knob),
        None => methods.knobs().first().copied(),
    };
    [experiment.first_stages(), experiment.later_stages(&knob)].concat()
}

/// All settings by the strengths that are kept.
fn all_settings(lab: &Lab<'_>, kept: &[Kept]) -> Vec<Setting> {
    let stages = [lab.experiment.first_stages(), later_stages(lab, kept)].concat();
    stages.into_iter().flat_map(|(_, settings)| settings).collect()
}

fn later_stages(lab: &Lab<'_>, kept: &[Kept]) -> Vec<(String, Vec<Setting>)> {
    let knob = |methods: &Methods| Kept::of(kept, &methods.group()).map(|kept| kept.knob);
    lab.experiment.later_stages(&knob)
}

/// The strengths of the methods whose sweep is done.
fn kept_so_far(lab: &Lab<'_>) -> Result<Vec<Kept>> {
    let kept = lab.experiment.guided().map(|methods| Kept::choose(lab, methods));
    Ok(kept.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
}

/// Where runs are made, one after the other, with a bar.
struct Bench<'a> {
    lab: &'a Lab<'a>,
    coherence: Option<Coherence<'a>>,
    bar: ProgressBar,
}

impl<'a> Bench<'a> {
    fn new(lab: &'a Lab<'a>) -> Result<Self> {
        let style =
            ProgressStyle::with_template("{bar:30} {pos}/{len} answers {eta} left | {prefix} {msg}")?;
        let runs = stages(lab.experiment, &[]).into_iter().flat_map(|(_, settings)| settings);
        let runs: usize = runs.map(|setting| lab.seeds(&setting).len()).sum();
        let bar = ProgressBar::new((runs * lab.prompts.len()) as u64).with_style(style);
        Ok(Self { lab, coherence: lab.evaluator.coherence(), bar })
    }

    /// A line that stays.
    fn say(&self, line: &str) {
        self.bar.suspend(|| eprintln!("{line}"));
    }

    fn run_all(&mut self, stages: Vec<(String, Vec<Setting>)>) -> Result<()> {
        for (stage, settings) in stages {
            self.say(&stage);
            self.run(&settings).map_err(|error| match error.is::<Interrupted>() {
                true => {
                    let out = self.lab.out.display();
                    Interrupted(format!("interrupted; the same command goes on in {out}")).into()
                }
                false => error,
            })?;
        }
        Ok(())
    }

    fn run(&mut self, settings: &[Setting]) -> Result<()> {
        let heads: Vec<_> = settings.iter().filter_map(Setting::value).collect();
        self.lab.train_values(&heads)?;
        for setting in settings {
            for &seed in self.lab.seeds(setting) {
                let made = self.lab.run(setting, seed, &mut self.coherence, &self.bar)?;
                if made && self.bar.is_hidden() {
                    let (done, all) = (self.bar.position(), self.bar.length().unwrap_or_default());
                    eprintln!("  {setting}, seed {seed} | {done} of {all} answers");
                }
            }
        }
        Ok(())
    }
}
