//! `stackelberg generate`: reward-guided generation.

use std::collections::HashSet;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use indicatif::ProgressBar;
use stackelberg_data::Prompt;
use stackelberg_data::trace::TraceWriter;
use stackelberg_data::words::count as counted;
use stackelberg_decoding::{
    Cancel, Error, Guidance, HackingWatch, Limits, Method, Options, Settings, generate, most,
};
use stackelberg_engine::Reward;
use stackelberg_engine::reward::{PromptInput, TextFormat};
use stackelberg_experiment::record::{self, Names};
use stackelberg_experiment::{Files, Session, interrupted};
use stackelberg_registry::names::shown;
use stackelberg_registry::{DEFAULT_REWARD, Registry, layout};
use stackelberg_shaping::Budget;

use crate::help::{FORMATS, METHODS, brief, named};
use crate::limits::{self, count};
use crate::model::{ModelArgs, registry};
use crate::output::{note, say};
use crate::progress::{Answers, style};
use crate::sampling::SamplingArgs;
use crate::shaping::ShapingArgs;
use crate::terminal::{Printer, Style};
use crate::{input, interrupt};

/// The options that -h shows.
const SHOWN: [&str; 9] =
    ["prompts", "model", "reward", "method", "compare", "out", "max_new_tokens", "temperature", "seed"];

const EXAMPLES: &str = "\
Examples:
  stackelberg generate \"How do I say no?\" --compare
  stackelberg generate \"How do I say no?\" --method best-of-n --reward harmless-minilm
  stackelberg generate --prompts mt-bench --out answers.jsonl --max-new-tokens 256";

/// Generate answers to prompts, guided by a reward.
///
/// By default, the default model generates with ARGS, guided by the built-in reward `sentiment`: the reward scores the
/// ten likeliest next tokens of every step, and their shaped rewards (srs, a KL budget of 0.3 nats per step) are added to
/// the logits. --compare also shows the unguided answer.
#[derive(Args)]
#[command(mut_args(brief(&SHOWN)), after_help = format!("{EXAMPLES}\n\n`stackelberg generate --help` has all options."))]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Generate {
    /// The prompt; - reads it from standard input.
    #[arg(conflicts_with = "prompts")]
    prompt: Option<String>,

    /// A file of prompts: a JSON array or JSON lines with prompt, instruction or messages; - is standard
    /// input; mt-bench and realtoxicity are known sets.
    #[arg(long, value_name = "FILE")]
    prompts: Option<String>,

    /// Number of prompts, from the first one. [default: all]
    #[arg(long, value_name = "N", requires = "prompts", value_parser = count(1usize, 1_000_000_000))]
    limit: Option<usize>,

    /// The reward that guides: a built-in name (see `stackelberg models`), a head (.safetensors), the folder of a
    /// reward model or a classifier (#LABEL), program:COMMAND or http://HOST/PATH. The prefix answer:, hh:, raw:, chat:,
    /// closed: or pair: selects the text format that it reads. Rewards can be combined: a*0.7+b*0.3, min(a,b),
    /// lex(a>=0,b). [default: sentiment, if it fits the model]
    #[arg(long, value_name = "NAME")]
    reward: Option<String>,

    /// The decoding method: base, args, cd, best-of-n, soft-best-of-n, follower, blockwise or particles.
    #[arg(long, default_value_t = Method::Args, hide_possible_values = true, value_parser = named::<Method>(METHODS))]
    method: Method,

    /// A value head (.safetensors). cd: it guides, and the reward only scores the finished answer. blockwise, particles: it
    /// scores the blocks, and the reward makes the last choice.
    #[arg(long, value_name = "FILE")]
    value: Option<String>,

    /// Show the unguided answer, then the guided one. Tokens that guidance changed are highlighted.
    #[arg(long, conflicts_with_all = ["out", "trace", "prompts"])]
    compare: bool,

    /// Write answers as JSON lines, each as soon as it is finished.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    /// Continue an --out file: prompts that it already has under the same settings are skipped.
    #[arg(long, requires = "out")]
    resume: bool,

    /// Write every decoding step as a JSON line: candidates, logits, rewards (cd: log_probs, values), threshold,
    /// shaped, fused, chosen. Methods that choose among samples also write all samples with their scores.
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,

    /// Do not warn of reward hacking. By default, a warning says if guidance leaves no choice, the text repeats
    /// itself, or its tokens are far less likely than the base policy's; lines of --out have the field `warnings`.
    #[arg(long)]
    no_watch: bool,

    /// The default.
    #[arg(long, hide = true, conflicts_with = "no_watch")]
    watch: bool,

    /// Sequences decoded in parallel (batch size). A larger batch is faster and takes more memory; the answers
    /// are identical. [default: 10, or 64 if a server runs the model]
    #[arg(long, visible_alias = "concurrency", value_name = "N", value_parser = count(1, most::BATCH_SIZE))]
    batch_size: Option<usize>,

    /// Memory for the keys and values of prompts, in MB. Prompts with the same beginning share them and prefill only the
    /// rest; the answers are the same. 0 shares nothing.
    #[arg(long, default_value_t = 256, value_name = "MB", value_parser = count(0, limits::MEGABYTES))]
    cache_mb: usize,

    #[command(flatten)]
    layout: LayoutArgs,

    #[command(flatten)]
    sampling: SamplingArgs,

    #[command(flatten)]
    shaping: ShapingArgs,

    #[command(flatten)]
    model: ModelArgs,
}

/// The system message and the prompt format.
#[derive(Args)]
pub(crate) struct LayoutArgs {
    /// A system message.
    #[arg(long, value_name = "TEXT")]
    pub(crate) system: Option<String>,

    /// The prompt format: chat (the model's chat template) or raw (the text as it is; unrelated to the shaping rule). [default: the format that the value head or
    /// the reward was trained on]
    #[arg(long, value_name = "FORMAT", hide_possible_values = true, value_parser = named::<TextFormat>(FORMATS))]
    pub(crate) prompt_format: Option<TextFormat>,
}

impl Generate {
    pub(crate) fn run(&self) -> Result<()> {
        let settings = self.settings()?;
        if self.compare && settings.method == Method::Base {
            bail!("--compare with --method base would show the same answer twice");
        }
        if settings.method.chooses() && settings.sampling.temperature == 0.0 {
            bail!(
                "--temperature 0: all samples that {} chooses from would be identical",
                settings.method
            );
        }
        self.check_value()?;
        let registry = registry()?;
        let prompts = self.read_prompts(&registry)?;
        let policy = self.model.policy(&registry)?;
        settings.check(policy.vocabulary())?;
        let load_value = |file| registry.value(file, &policy);
        let value = self.value.as_deref().map(load_value).transpose()?;
        let value = value.map(Arc::new);
        let load_reward = || self.model.reward(&registry, self.reward_name(), &policy);
        let reward = match (&self.reward, settings.method) {
            // The reward only scores the answer here. A default that does not fit the model is left out.
            (None, Method::Base | Method::Cd) => load_reward().ok(),
            _ => Some(load_reward()?),
        };
        let guidance = Guidance { reward: reward.as_ref(), value: value.as_ref() };
        let (format, warnings) = layout::text_format(self.layout.prompt_format, &policy, guidance);
        warnings.iter().for_each(|warning| note!("warning: {warning}"));
        let cancel = interrupt::watch()?;
        let hash = |name: &str| registry.reward_hash(name);
        let value_hash = self.value.as_deref().map(hash).transpose()?;
        let reward_hash = reward.as_ref().map(|_| hash(self.reward_name())).transpose()?;
        if let (Some(value), Some(hash), true) = (&value, &reward_hash, settings.method.decodes_blocks())
        {
            let warning = layout::other_reward(value, &shown(self.reward_name()), hash);
            warning.iter().for_each(|warning| note!("warning: {warning}"));
        }
        let (dtype, device) = (self.model.spec().recorded_dtype(), self.model.spec().recorded_device());
        let reward_name = shown(self.reward_name());
        let model_name = shown(self.model.name());
        let names = Names {
            model: &model_name,
            dtype: &dtype,
            device: device.as_deref(),
            reward: &reward_name,
            reward_hash: reward_hash.as_deref(),
            value_hash: value_hash.as_deref(),
            value: self.value.as_deref(),
            system: self.layout.system.as_deref(),
            parts: reward.as_ref().map_or(&[], Reward::parts),
        };
        let limits = Limits {
            sequences: self.model.batch_size(self.batch_size),
            cache: self.cache_mb << 20,
            ..Limits::default()
        };
        let policy = &policy;
        let watch = !self.no_watch;
        let session = Session { policy, guidance, settings, format, names, limits, watch };
        if self.prompt.is_some() && self.out.is_none() {
            return Conversation { session, generate: self, cancel }.answer_one(&prompts[0]);
        }
        self.answer_all(&session, &prompts, &cancel)
    }

    /// Answers all prompts into a file, or standard output, with a progress bar.
    fn answer_all(
        &self,
        session: &Session<'_>,
        prompts: &[(String, Prompt)],
        cancel: &Cancel,
    ) -> Result<()> {
        let style = style("{bar:40} {pos}/{len} {msg} {eta} left");
        let bar = ProgressBar::new(prompts.len() as u64).with_style(style);
        if self.out.is_none() && std::io::stdout().is_terminal() {
            bar.set_draw_target(indicatif::ProgressDrawTarget::hidden());
        }
        let out = self.out.as_deref().filter(|out| *out != Path::new("-"));
        let (trace, resume) = (self.trace.as_deref(), self.resume);
        let again = out.map(|out| format!("--resume --out {}", out.display()));
        let files = Files { out, trace, traced: usize::MAX, resume, again: again.as_deref() };
        let mut answers = Answers::new(&bar, session.settings.method);
        session.answer_all(prompts, &files, cancel, &mut answers)?;
        bar.finish_and_clear();
        let file = out.map_or("standard output".into(), |out| out.to_string_lossy());
        note!("{file}: {}", answers.summary());
        Ok(())
    }

    fn reward_name(&self) -> &str {
        self.reward.as_deref().unwrap_or(DEFAULT_REWARD)
    }

    /// Checks that cd has a value head, and that only methods that use one have one.
    fn check_value(&self) -> Result<()> {
        match (self.method, &self.value) {
            (Method::Cd, None) => bail!("--method cd needs --value FILE, the value head that guides"),
            (Method::Cd | Method::Blockwise | Method::Particles, Some(_)) | (_, None) => Ok(()),
            (method, Some(_)) => {
                bail!("--value has no effect with --method {method}: use cd, blockwise or particles")
            }
        }
    }

    /// The settings, checked; only the vocabulary's size is not known yet.
    fn settings(&self) -> Result<Settings> {
        let reference = match self.method {
            Method::Follower | Method::Blockwise | Method::Particles => Budget::ReferenceOffline,
            _ => Budget::ReferenceStep,
        };
        let options = Options { method: Some(self.method), ..self.sampling.options() };
        let options = options.or(self.shaping.options(Some(reference))?);
        let settings = options.settings().map_err(|error| match error {
            Error::Unused { field, method } => anyhow!(
                "{} has no effect with --method {method}: leave it out{}",
                self.shaping.flag(field),
                match (method, field) {
                    (Method::Cd, "shaping") =>
                        ", and give it to `train value`, which shapes the targets",
                    _ => "",
                }
            ),
            Error::UnusedByBest { field } => anyhow!(
                "{} has no effect if the best continuation is kept: leave it out, or use --keep draw",
                self.shaping.flag(field)
            ),
            Error::UnusedByDraw { field } => anyhow!(
                "{} has no effect if a continuation is drawn: leave it out, or use --keep best",
                self.shaping.flag(field)
            ),
            Error::UnusedWithoutReject { field } => anyhow!(
                "{} has no effect with --method best-of-n without --reject: leave it out, or use --reject",
                self.shaping.flag(field)
            ),
            error => error.into(),
        })?;
        settings.check(usize::MAX)?;
        Ok(settings)
    }

    fn read_prompts(&self, registry: &Registry) -> Result<Vec<(String, Prompt)>> {
        match (&self.prompt, &self.prompts) {
            (Some(text), _) => {
                let text = if text == "-" { input::text()? } else { text.clone() };
                if text.trim().is_empty() {
                    bail!("the prompt is empty");
                }
                Ok(vec![("0".to_owned(), Prompt::Text(text))])
            }
            (None, Some(prompts)) => {
                let mut prompts = input::prompts(registry, prompts)?;
                prompts.truncate(self.limit.unwrap_or(usize::MAX));
                Ok(prompts)
            }
            (None, None) => bail!(
                "give a prompt as the argument, - to read it from standard input, or a file of prompts with --prompts FILE"
            ),
        }
    }
}

/// One prompt answered on the terminal.
struct Conversation<'a> {
    session: Session<'a>,
    generate: &'a Generate,
    cancel: Cancel,
}

impl Conversation<'_> {
    /// Prints the answer to one prompt, with --compare after the unguided one.
    fn answer_one(&self, (id, prompt): &(String, Prompt)) -> Result<()> {
        let tokens = self.session.tokens(prompt)?;
        let (policy, format) = (self.session.policy, self.session.format);
        for warning in layout::odd_tokens(policy, format, "prompt", std::iter::once(&tokens[..])) {
            note!("warning: {warning}");
        }
        let most = self.session.settings.max_new_tokens;
        let reward = self.session.guidance.reward;
        if let Some(warning) = layout::short_context(policy, reward, most, std::iter::once(&tokens[..]))
        {
            note!("warning: {warning}");
        }
        let asked = PromptInput { tokens: &tokens, prompt: Some(prompt) };
        let style = Style::of_stdout();
        if self.generate.compare {
            let base = self.session.settings.unguided();
            say!("{}", style.title("base"))?;
            self.show(id, asked, &base, style)?;
            say!("")?;
            let settings = &self.session.settings;
            let (method, rule) = (settings.method, settings.shaping.rule);
            let shapes = Options::used(settings).given().any(|field| field == "shaping");
            let (how, guide) = match self.session.names.value {
                Some(value) => (method.to_string(), value),
                None if shapes => (format!("{method} {rule}"), self.session.names.reward),
                None => (method.to_string(), self.session.names.reward),
            };
            say!("{}", style.title(&format!("{how}, guided by {guide}")))?;
        }
        self.show(id, asked, &self.session.settings, style)
    }

    fn show(&self, id: &str, asked: PromptInput<'_>, settings: &Settings, style: Style) -> Result<()> {
        let mut stdout = std::io::stdout().lock();
        let live = style.terminal;
        let mut trace = self
            .generate
            .trace
            .as_deref()
            .map(|path| TraceWriter::open(path, false, &HashSet::new()))
            .transpose()?;
        let mut printer = Printer::new(live, style, self.cancel.clone());
        let answer =
            generate(self.session.policy, self.session.guidance, asked, id, settings, &mut printer);
        if let Some(trace) = &mut trace {
            let (method, parts) = (settings.method, self.session.names.parts);
            let tokenizer = &self.session.policy.tokenizer;
            trace.write(&record::trace(id, method, &printer.steps, parts, tokenizer)?)?;
        }
        if let Some(error) = printer.failed {
            return Err(error).context("cannot write to standard output");
        }
        let answer = match answer {
            Err(Error::Stopped) => {
                writeln!(stdout)?;
                return Err(interrupted(0, 1, None).into());
            }
            answer => answer?,
        };
        if !live {
            write!(stdout, "{}", answer.text)?;
        }
        writeln!(stdout)?;
        stdout.flush()?;
        let rate = answer.tokens.len() as f64 / answer.elapsed.as_secs_f64();
        let parts = self.session.names.parts.iter().zip(&answer.parts);
        let parts: Vec<String> = parts.map(|(name, reward)| format!("{name} {reward:+.3}")).collect();
        let parts = if parts.is_empty() { String::new() } else { format!(" ({})", parts.join(", ")) };
        let reward = answer.reward.map_or_else(String::new, |r| format!("reward {r:+.3}{parts} | "));
        let count = answer.tokens.len();
        let mut said = format!("[{reward}{} | {rate:.1} tokens/s", counted(count, "token"));
        if matches!(settings.method, Method::Args | Method::Cd) {
            let (steered, skipped) = (answer.steered, answer.skipped);
            said.push_str(&format!(" | {steered} steered | {} skipped", counted(skipped, "step")));
        }
        said.push_str(&format!(" | mean log-probability {:.2}]", answer.mean_log_prob));
        if !self.generate.no_watch {
            let mut watch = HackingWatch::new(settings);
            for (number, step) in (1..).zip(&printer.steps) {
                for alarm in watch.step(step) {
                    note!("warning: token {number}: {alarm}");
                }
            }
        }
        if self.generate.compare {
            say!("{}", style.faint(&said))?;
        } else {
            note!("{said}");
        }
        Ok(())
    }
}
