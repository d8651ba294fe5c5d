//! `stackelberg rollout`: many samples per prompt, with rewards and hidden states.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use indicatif::{HumanBytes, HumanDuration, ProgressBar};
use stackelberg_data::words::count as counted;
use stackelberg_decoding::{Job, Policy, Sampling, Settings, Step, Watch, most, rollout};
use stackelberg_engine::Reward;
use stackelberg_learning::rollouts::{self, Dataset, Identity, Manifest, Part, Plan, Prompt, collect};
use stackelberg_registry::names::shown;
use stackelberg_registry::{DEFAULT_REWARD, layout};

use crate::filling::fill;
use crate::generate::LayoutArgs;
use crate::help::brief;
use crate::import::Import;
use crate::input;
use crate::limits::{self, count};
use crate::model::{ModelArgs, registry};
use crate::output::{note, say};
use crate::progress::style;

/// The options that -h shows.
const SHOWN: [&str; 8] =
    ["prompts", "out", "reward", "model", "samples", "max_new_tokens", "temperature", "dry_run"];

/// Sample many responses per prompt, with rewards and hidden states: the training data of value heads.
///
/// Writes a folder of shards, with Parquet files for text, tokens and rewards and safetensors files for hidden
/// states. The same command resumes a stopped run; several machines can fill one folder.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(mut_args(brief(&SHOWN)), after_help = "`stackelberg rollout --help` has all options.", after_long_help = "")]
pub(crate) struct Rollout {
    #[command(subcommand)]
    other: Option<Other>,

    /// The prompts: a JSON array or JSON lines with prompt, instruction or messages; - is standard input;
    /// mt-bench and realtoxicity are known sets.
    #[arg(long, value_name = "FILE", required = true)]
    prompts: Option<String>,

    /// The folder of the dataset.
    #[arg(long, value_name = "DIR", required = true)]
    out: Option<PathBuf>,

    /// The reward that scores the samples, given as for `generate --reward`.
    #[arg(long, default_value = DEFAULT_REWARD, value_name = "NAME")]
    reward: String,

    /// Do not score the samples.
    #[arg(long, conflicts_with = "reward")]
    no_reward: bool,

    /// Do not write hidden states.
    #[arg(long)]
    no_hidden: bool,

    /// Process the shards whose number modulo N is I. N machines with 0/N to N-1/N fill one folder.
    #[arg(long, value_name = "I/N", default_value = "0/1")]
    shard: Part,

    /// Prompts per shard. A killed run loses at most the work on one shard.
    #[arg(long, default_value_t = 16, value_name = "N", value_parser = count(1, limits::SHARD))]
    prompts_per_shard: usize,

    /// Print the number of prompts, the estimated time and the disk space; write nothing.
    #[arg(long)]
    dry_run: bool,

    /// Sequences decoded in parallel (batch size). A larger batch is faster and takes more memory; the samples
    /// are identical.
    #[arg(long, default_value_t = 40, value_name = "N", value_parser = count(1, most::BATCH_SIZE))]
    batch_size: usize,

    #[command(flatten)]
    layout: LayoutArgs,

    #[command(flatten)]
    drawing: Drawing,

    #[command(flatten)]
    model: ModelArgs,
}

#[derive(Subcommand)]
enum Other {
    Import(Box<Import>),
    Merge(Merge),
}

#[derive(Args)]
#[command(next_help_heading = "Sampling")]
struct Drawing {
    /// Samples per prompt.
    #[arg(long, default_value_t = 10, value_name = "N", value_parser = count(1, most::SAMPLES))]
    samples: usize,

    /// Maximum new tokens per sample.
    #[arg(long, default_value_t = 128, value_name = "N", value_parser = count(1, most::NEW_TOKENS))]
    max_new_tokens: usize,

    /// Sampling temperature; 0 is greedy, with identical samples.
    #[arg(long, default_value_t = 0.7, allow_negative_numbers = true)]
    temperature: f64,

    /// Sample from the N likeliest tokens only; 0 is all.
    #[arg(long, default_value_t = 0, value_name = "N")]
    top_k: usize,

    /// Sample from the smallest set of likeliest tokens with at least this total probability (nucleus sampling).
    #[arg(long, default_value_t = 0.9, value_name = "P", allow_negative_numbers = true)]
    top_p: f64,

    /// Sample from tokens with at least this probability relative to the likeliest token only.
    #[arg(long, default_value_t = 0.0, value_name = "P", allow_negative_numbers = true)]
    min_p: f64,

    /// Random seed.
    #[arg(long, default_value_t = 0)]
    seed: u64,

    /// Stop string: a sample ends before this text; may be given several times. [default: a line that begins
    /// with Human: or User:]
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
}

/// Check a dataset of rollouts that several machines filled, and copy in shards from other folders.
#[derive(Args)]
struct Merge {
    /// The dataset.
    dataset: PathBuf,

    /// Folders of the same run whose shards are copied into the dataset.
    #[arg(value_name = "FROM")]
    from: Vec<PathBuf>,
}

impl Rollout {
    pub(crate) fn run(&self) -> Result<()> {
        match (&self.other, &self.prompts, &self.out) {
            (Some(Other::Import(import)), ..) => import.run(),
            (Some(Other::Merge(merge)), ..) => merge.run(),
            (None, Some(prompts), Some(out)) => self.collect(prompts, out),
            (None, ..) => bail!("give --prompts and --out"),
        }
    }

    fn collect(&self, prompts: &str, out: &Path) -> Result<()> {
        let registry = registry()?;
        let prompts = input::prompts(&registry, prompts)?;
        let policy = self.model.policy(&registry)?;
        if policy.width().is_none() && !self.no_hidden {
            bail!(
                "{}: a server gives no hidden states: add --no-hidden, or name one that gives those of all tokens with --states",
                shown(self.model.name())
            );
        }
        let reward = match self.no_reward {
            true => None,
            false => Some(self.model.reward(&registry, &self.reward, &policy)?),
        };
        let asked = self.layout.prompt_format;
        let (format, warnings) = layout::text_format(asked, &policy, reward.as_ref().into());
        warnings.iter().for_each(|warning| note!("warning: {warning}"));
        let settings = self.settings();
        settings.check(policy.vocabulary())?;
        let spec = self.model.spec();
        let identity = |hash| Identity { name: shown(&self.reward), hash };
        let hash = reward.as_ref().map(|_| registry.reward_hash(&self.reward)).transpose()?;
        let plan = Plan {
            policy: &policy,
            model: shown(&spec.name),
            dtype: spec.recorded_dtype(),
            device: spec.recorded_device(),
            reward: hash.map(identity),
            format,
            system: self.layout.system.as_deref(),
            settings,
            hidden: !self.no_hidden,
            prompts_per_shard: self.prompts_per_shard,
        };
        let prompts = plan.lay_out(&prompts)?;
        let tokens = prompts.iter().map(|prompt| &prompt.tokens[..]);
        for warning in layout::odd_tokens(&policy, plan.format, "prompt", tokens) {
            note!("warning: {warning}");
        }
        let manifest = plan.manifest(&prompts);
        let run = Run {
            policy: &policy,
            reward: reward.as_ref(),
            prompts: &prompts,
            settings: &plan.settings,
            rollout: self,
        };
        if self.dry_run {
            return run.estimate(out, &manifest);
        }
        let (dataset, how) = (Dataset::create(out, manifest)?, (self.shard, self.batch_size));
        fill(&dataset, self.shard, |progress| {
            collect(&dataset, run.policy, run.reward, run.prompts, run.settings, how, progress)
        })
    }

    fn settings(&self) -> Settings {
        let drawing = &self.drawing;
        let default = rollouts::default_settings();
        let stop = if drawing.stop.is_empty() { default.stop } else { drawing.stop.clone() };
        Settings {
            samples: drawing.samples,
            max_new_tokens: drawing.max_new_tokens,
            sampling: Sampling {
                temperature: drawing.temperature,
                top_k: drawing.top_k,
                top_p: drawing.top_p,
                min_p: drawing.min_p,
                ..Sampling::default()
            },
            seed: drawing.seed,
            stop,
            ..Settings::default()
        }
    }
}

/// The inputs of a run.
struct Run<'a> {
    policy: &'a Policy,
    reward: Option<&'a Reward>,
    prompts: &'a [Prompt],
    settings: &'a Settings,
    rollout: &'a Rollout,
}

impl Run<'_> {
    /// Prints the counts, the time as measured by a short run, and the disk space.
    fn estimate(&self, out: &Path, manifest: &Manifest) -> Result<()> {
        let missing = match out.join("manifest.json").exists() {
            true => Dataset::create(out, manifest.clone())?.missing(),
            false => (0..manifest.shards()).collect(),
        };
        let part = self.rollout.shard;
        let missing: Vec<usize> = missing.into_iter().filter(|&shard| part.has(shard)).collect();
        let prompts: Vec<&Prompt> =
            missing.iter().flat_map(|&shard| &self.prompts[manifest.prompts_of(shard)]).collect();
        let samples = prompts.len().saturating_mul(self.settings.samples);
        let tokens = samples.saturating_mul(self.settings.max_new_tokens);
        say!(
            "{} of {} to do, in {}",
            prompts.len(),
            counted(self.prompts.len(), "prompt"),
            counted(missing.len(), "shard")
        )?;
        say!("{}, at most {}", counted(samples, "sample"), counted(tokens, "token"))?;
        let few = self.rollout.batch_size.div_ceil(self.settings.samples).min(prompts.len());
        if few > 0 {
            let rate = self.rate(&prompts[..few])?;
            let time = HumanDuration(Duration::from_secs_f64(tokens as f64 / rate));
            say!("at most about {time}, at {rate:.0} tokens/s")?;
        }
        // Per token: two bytes per hidden state, about four of text, four for the token id.
        let bytes = 2 * manifest.hidden.unwrap_or(0) + 8;
        say!("at most about {} on disk", HumanBytes(tokens.saturating_mul(bytes) as u64))?;
        Ok(())
    }

    /// Tokens per second, measured on the first tokens of some prompts' samples.
    fn rate(&self, prompts: &[&Prompt]) -> Result<f64> {
        let jobs: Vec<Job<'_>> = prompts
            .iter()
            .map(|p| Job { id: &p.id, prompt: &p.tokens, asked: p.asked.as_ref() })
            .collect();
        let settings =
            Settings { max_new_tokens: self.settings.max_new_tokens.min(16), ..self.settings.clone() };
        let (mut count, began) = (Count(0), Instant::now());
        let (hidden, at_once) = (!self.rollout.no_hidden, self.rollout.batch_size);
        rollout(self.policy, self.reward, &jobs, &settings, hidden, at_once, &mut count)?;
        Ok(count.0 as f64 / began.elapsed().as_secs_f64())
    }
}

/// Counts tokens.
struct Count(usize);

impl Watch for Count {
    fn step(&mut self, _: usize, _: usize, _: &Step, _: &str) {
        self.0 += 1;
    }
}

impl Merge {
    fn run(&self) -> Result<()> {
        let dataset = match self.from.first() {
            Some(first) if !self.dataset.join("manifest.json").exists() => {
                Dataset::create(&self.dataset, Dataset::open(first)?.manifest().clone())?
            }
            _ => Dataset::open(&self.dataset)?,
        };
        for folder in &self.from {
            let taken = dataset.take(&Dataset::open(folder)?)?;
            // The other folders are copied even if nobody reads this.
            let _ = say!("{} copied from {}", counted(taken, "shard"), folder.display());
        }
        let style = style("checking {bar:40} {pos}/{len} {eta} left");
        let bar = ProgressBar::new(dataset.manifest().shards() as u64).with_style(style);
        let summary = dataset.check(&mut || bar.inc(1))?;
        bar.finish_and_clear();
        let rollouts::Summary { prompts, samples, tokens, finished, unfinished_prompts, .. } = summary;
        say!(
            "complete: {}, {}, {}",
            counted(prompts, "prompt"),
            counted(samples, "sample"),
            counted(tokens, "token")
        )?;
        say!(
            "{} finished, {} cut at the length limit",
            counted(finished, "sample"),
            samples - finished
        )?;
        if let (sum, count @ 1..) = summary.rewards {
            say!("mean reward {:+.4}", sum / count as f64)?;
        }
        if unfinished_prompts > 0 {
            note!(
                "warning: {} without a finished sample: a larger --max-new-tokens may help",
                counted(unfinished_prompts, "prompt")
            );
        }
        Ok(())
    }
}
