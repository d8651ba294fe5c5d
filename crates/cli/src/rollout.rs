//! `stackelberg rollout`: many samples per prompt, with rewards and hidden states.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use indicatif::{HumanBytes, HumanDuration, ProgressBar};
use stackelberg_decoding::{Job, Rollouts, Sample, Sampling, Settings, rollout};
use stackelberg_engine::{Checkpoint, Reward};
use stackelberg_learning::rollouts::{self, Dataset, Identity, Manifest, Part, Plan, Prompt, collect};
use stackelberg_registry::layout;

use crate::filling::fill;
use crate::generate::LayoutArgs;
use crate::import::Import;
use crate::input;
use crate::model::{ModelArgs, registry};
use crate::progress::style;

/// Draw many samples per prompt, with rewards and hidden states: what value heads are trained on.
///
/// Fills a folder with shards of some prompts each: Parquet for text, tokens and rewards, safetensors for
/// hidden states. A run that was stopped goes on where it was; several machines can fill one folder.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Rollout {
    #[command(subcommand)]
    other: Option<Other>,

    /// What to answer: a JSON array or JSON lines with prompt, instruction or messages; - is standard
    /// input; mt-bench and realtoxicity are known sets.
    #[arg(long, value_name = "FILE", required = true)]
    prompts: Option<String>,

    /// The folder to fill.
    #[arg(long, value_name = "DIR", required = true)]
    out: Option<PathBuf>,

    /// What scores the samples: what `generate --reward` takes.
    #[arg(long, default_value = "harmless", value_name = "NAME")]
    reward: String,

    /// Score nothing.
    #[arg(long, conflicts_with = "reward")]
    no_reward: bool,

    /// Leave out hidden states.
    #[arg(long)]
    no_hidden: bool,

    /// Take the shards whose number leaves I when divided by N: machines 0/N to N-1/N fill one folder.
    #[arg(long, value_name = "I/N", default_value = "0/1")]
    shard: Part,

    /// Prompts per shard: what a killed run loses at most.
    #[arg(long, default_value_t = 16, value_name = "N")]
    prompts_per_shard: usize,

    /// Say what there is to do, how long it takes and how much disk it needs; write nothing.
    #[arg(long)]
    dry_run: bool,

    /// Texts written together: more is faster and takes more memory; the samples are the same.
    #[arg(long, default_value_t = 40, value_name = "N")]
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
    #[arg(long, default_value_t = 10, value_name = "N")]
    samples: usize,

    /// Most new tokens.
    #[arg(long, default_value_t = 128, value_name = "N")]
    max_new_tokens: usize,

    /// 0 is greedy: all samples of a prompt are the same.
    #[arg(long, default_value_t = 0.7, allow_negative_numbers = true)]
    temperature: f64,

    /// Draw from the so many likeliest tokens only; 0 is all.
    #[arg(long, default_value_t = 0, value_name = "N")]
    top_k: usize,

    /// Draw from the likeliest tokens that hold this mass only.
    #[arg(long, default_value_t = 0.9, value_name = "P", allow_negative_numbers = true)]
    top_p: f64,

    /// Draw from tokens at least this likely only, relative to the likeliest.
    #[arg(long, default_value_t = 0.0, value_name = "P", allow_negative_numbers = true)]
    min_p: f64,

    /// Everything random follows from this.
    #[arg(long, default_value_t = 0)]
    seed: u64,

    /// End a sample at this text and cut it off; may be given several times. [default: a line that begins
    /// with Human: or User:]
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
}

/// Check a dataset of rollouts that several machines filled, and copy in what others hold.
#[derive(Args)]
struct Merge {
    /// The dataset.
    dataset: PathBuf,

    /// Folders of the same run whose shards are copied into it.
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
        if self.batch_size == 0 {
            bail!("--batch-size is 0: at least one is needed");
        }
        let registry = registry()?;
        let prompts = input::prompts(&registry, prompts)?;
        let policy = self.model.load(&registry)?;
        let reward = match self.no_reward {
            true => None,
            false => Some(self.model.reward(&registry, &self.reward, &policy)?),
        };
        let asked = self.layout.prompt_format;
        let (format, warnings) = layout::text_format(asked, &policy, reward.as_ref().into());
        warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
        let settings = self.settings();
        settings.check(policy.model.config().vocabulary)?;
        let spec = self.model.spec();
        let identity = |hash| Identity { name: self.reward.clone(), hash };
        let hash = reward.as_ref().map(|_| registry.reward_hash(&self.reward)).transpose()?;
        let plan = Plan {
            policy: &policy,
            model: spec.name.clone(),
            dtype: spec.dtype.name().to_owned(),
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
        if let Some(warning) = layout::double_bos(&policy, tokens) {
            eprintln!("warning: {warning}");
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

/// A run over a part of the prompts.
struct Run<'a> {
    policy: &'a Checkpoint,
    reward: Option<&'a Reward>,
    prompts: &'a [Prompt],
    settings: &'a Settings,
    rollout: &'a Rollout,
}

impl Run<'_> {
    /// What there is to do: counts, time from a short run, disk.
    fn estimate(&self, out: &Path, manifest: &Manifest) -> Result<()> {
        let missing = match out.join("manifest.json").exists() {
            true => Dataset::create(out, manifest.clone())?.missing(),
            false => (0..manifest.shards()).collect(),
        };
        let part = self.rollout.shard;
        let missing: Vec<usize> = missing.into_iter().filter(|&shard| part.has(shard)).collect();
        let prompts: Vec<&Prompt> =
            missing.iter().flat_map(|&shard| &self.prompts[manifest.prompts_of(shard)]).collect();
        let samples = prompts.len() * self.settings.samples;
        let tokens = samples * self.settings.max_new_tokens;
        println!(
            "{} prompts of {} to do, in {} shards",
            prompts.len(),
            self.prompts.len(),
            missing.len()
        );
        println!("{samples} samples, at most {tokens} tokens");
        let few = self.rollout.batch_size.div_ceil(self.settings.samples).min(prompts.len());
        if few > 0 {
            let rate = self.rate(&prompts[..few])?;
            let time = HumanDuration(Duration::from_secs_f64(tokens as f64 / rate));
            println!("at most about {time}, at {rate:.0} tokens/s");
        }
        // Texts are about four bytes a token and its number four more.
        let bytes = 2 * manifest.hidden.unwrap_or(0) + 8;
        println!("at most about {} on disk", HumanBytes((tokens * bytes) as u64));
        Ok(())
    }

    /// Tokens per second, measured on the beginnings of some prompts' samples.
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

impl Rollouts for Count {
    fn token(&mut self) {
        self.0 += 1;
    }

    fn done(&mut self, _: usize, _: Vec<Sample>) {}
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
            println!("{taken} shards copied from {}", folder.display());
        }
        let style = style("checking {bar:40} {pos}/{len} {eta} left");
        let bar = ProgressBar::new(dataset.manifest().shards() as u64).with_style(style);
        let summary = dataset.check(&mut || bar.inc(1))?;
        bar.finish_and_clear();
        let rollouts::Summary { prompts, samples, tokens, finished, unfinished_prompts, .. } = summary;
        println!("complete: {prompts} prompts, {samples} samples, {tokens} tokens");
        println!("{finished} samples ended by themselves, {} were cut for length", samples - finished);
        if let (sum, count @ 1..) = summary.rewards {
            println!("mean reward {:+.4}", sum / count as f64);
        }
        if unfinished_prompts > 0 {
            eprintln!(
                "warning: {unfinished_prompts} prompts have no sample that ended by itself: a larger --max-new-tokens may help"
            );
        }
        Ok(())
    }
}
