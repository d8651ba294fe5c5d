//! `stackelberg tune`: which method and which strength for a reward.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::Args;
use stackelberg_data::atomic;
use stackelberg_data::words::{beginning, count as counted};
use stackelberg_decoding::{AT_ONCE, most};
use stackelberg_evaluation::report::plain;
use stackelberg_experiment::tune::{
    FEWEST_PROMPTS, MOST_COST, MOST_PROMPTS, Tuned, Tuning, Verdict, tune,
};
use stackelberg_experiment::{Experiment, Policy, Size};

use crate::experiment::{Terminal, open_lab, prompts_of_file};
use crate::generate::LayoutArgs;
use crate::help::brief;
use crate::limits::count;
use crate::model::{ModelArgs, registry};
use crate::output::{note, say};

/// The options that -h shows.
const SHOWN: [&str; 8] = ["reward", "held_out", "prompts", "limit", "cost", "quick", "out", "model"];

/// The longest part of an answer that is printed, in characters.
const SHOWN_CHARACTERS: usize = 200;

/// Find the method and the strength to use with a reward, on a few prompts.
///
/// Compares plain sampling with best-of-n, blocks, and ARGS by tokens and by segments at several KL budgets. All settings
/// run at most --cost times the tokens of a plain answer. Prints how far the reward tells texts apart, one table, three
/// answers of each setting, and the command to use, or that this reward should not guide. The same command resumes a
/// stopped run. The folder has the answers, a report, and the experiment's file.
#[derive(Args)]
#[command(mut_args(brief(&SHOWN)), after_help = "`stackelberg tune --help` has all options.", after_long_help = "")]
pub(crate) struct Tune {
    /// The reward that guides, as for generate.
    #[arg(long, value_name = "NAME")]
    reward: String,

    /// A reward that only measures; may be given several times. The first one decides which setting is best. Without one,
    /// the reward that guides decides.
    #[arg(long, value_name = "NAME")]
    held_out: Vec<String>,

    /// Prompts: a file as for generate, or a known set.
    #[arg(long, value_name = "FILE", default_value = "mt-bench")]
    prompts: String,

    /// Number of prompts, from the first one. [default: 30; with --quick 12]
    #[arg(long, value_name = "N", value_parser = count(FEWEST_PROMPTS, MOST_PROMPTS))]
    limit: Option<usize>,

    /// Tokens that an answer may run through the policy, as a multiple of its length.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = count(2, MOST_COST))]
    cost: usize,

    /// Compare one setting of each kind on fewer prompts and shorter answers.
    #[arg(long)]
    quick: bool,

    /// The folder of the runs and the report.
    #[arg(long, value_name = "DIR", default_value = "tune")]
    out: PathBuf,

    /// Maximum new tokens. [default: 64; with --quick 32]
    #[arg(long, value_name = "N", value_parser = count(1, most::NEW_TOKENS))]
    max_new_tokens: Option<usize>,

    /// Sampling temperature.
    #[arg(long, value_name = "T", default_value_t = 0.7, allow_negative_numbers = true)]
    temperature: f64,

    /// Sample from the smallest set of likeliest tokens with at least this total probability. Not for ARGS.
    #[arg(long, value_name = "P", default_value_t = 0.9, allow_negative_numbers = true)]
    top_p: f64,

    /// Random seed.
    #[arg(long, default_value_t = 0)]
    seed: u64,

    /// Sequences decoded in parallel (batch size).
    #[arg(long, default_value_t = AT_ONCE, value_name = "N", value_parser = count(1, most::BATCH_SIZE))]
    batch_size: usize,

    #[command(flatten)]
    layout: LayoutArgs,

    #[command(flatten)]
    model: ModelArgs,
}

impl Tune {
    pub(crate) fn run(&self) -> Result<()> {
        let (text, file) = (self.tuning()?.file()?, self.out.join("tune.toml"));
        if std::fs::read_to_string(&file).is_ok_and(|other| other != text) {
            bail!(
                "{} has other settings: give another folder with --out, or delete this one",
                file.display()
            );
        }
        let (experiment, registry) = (Experiment::from_text(&text, &file)?, registry()?);
        let prompts = prompts_of_file(&file, &experiment, &registry)?.len();
        if prompts < FEWEST_PROMPTS {
            bail!(
                "--prompts {}: {} are too few for an interval: give at least {FEWEST_PROMPTS}",
                self.prompts,
                counted(prompts, "prompt")
            );
        }
        open_lab(&experiment, &self.out, &registry, self.model.threads, |lab| {
            atomic::write(&file, text.as_bytes())?;
            let size = Size::of(&experiment, prompts);
            note!(
                "{} on {}: at most {} run through the policy",
                counted(size.settings, "setting"),
                counted(prompts, "prompt"),
                counted(size.tokens, "token")
            );
            let mut terminal = Terminal::new(lab);
            let tuned = tune(lab, &mut terminal);
            terminal.finish(lab, tuned.is_ok());
            show(&tuned?, &self.out)
        })
    }

    fn tuning(&self) -> Result<Tuning> {
        if self.prompts == "-" {
            bail!("--prompts -: give a file, since a resumed run reads the prompts again");
        }
        let prompts = match Path::new(&self.prompts).exists() {
            true => std::path::absolute(&self.prompts)?.to_string_lossy().into_owned(),
            false => self.prompts.clone(),
        };
        let spec = self.model.spec();
        Ok(Tuning {
            policy: Policy {
                model: spec.name,
                dtype: Some(spec.dtype),
                kv_dtype: spec.kv_dtype,
                device: spec.device,
                tokenizer: spec.tokenizer,
                states: spec.states,
                prompt_format: self.layout.prompt_format,
                system: self.layout.system.clone(),
                template_args: spec.template_args,
            },
            reward: self.reward.clone(),
            held_out: self.held_out.clone(),
            prompts,
            limit: self.limit.unwrap_or(if self.quick { 12 } else { 30 }),
            cost: self.cost,
            max_new_tokens: self.max_new_tokens.unwrap_or(if self.quick { 32 } else { 64 }),
            temperature: self.temperature,
            top_p: self.top_p,
            seed: self.seed,
            batch_size: self.batch_size,
            quick: self.quick,
        })
    }
}

fn show(tuned: &Tuned, out: &Path) -> Result<()> {
    say!("Spread of the reward (standard deviation, among texts that continue the same text):")?;
    for spread in &tuned.spread {
        say!("  {:<30} {:.3}", spread.of.to_string(), spread.deviation)?;
    }
    let rewards: Vec<String> =
        tuned.plain.iter().map(|(name, reward)| format!("{name} {reward:.2}")).collect();
    say!("\nPlain sampling (base): {}. Gains over it, paired by prompt:\n", rewards.join(", "))?;
    // Settings downwards.
    say!("{}", plain(&tuned.table.transposed()).trim_end())?;
    for answers in &tuned.answers {
        say!("\n{}", beginning(&answers.prompt, SHOWN_CHARACTERS))?;
        for (name, text) in &answers.texts {
            say!("  {name}: {}", beginning(text, SHOWN_CHARACTERS))?;
        }
    }
    say!("")?;
    for doubt in &tuned.doubts {
        say!("Caution: {doubt}.")?;
    }
    for reason in &tuned.advice.reasons {
        say!("{reason}")?;
    }
    match (&tuned.command, tuned.advice.verdict) {
        (Some(command), _) => say!("\nUse:\n  {command} \"YOUR PROMPT\"")?,
        (None, Verdict::DoNotGuide) => {}
        (None, _) => say!("\nNo setting is recommended.")?,
    }
    say!("All answers, side by side: {}", out.join("report.html").display())?;
    Ok(())
}
