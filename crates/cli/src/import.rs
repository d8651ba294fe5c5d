//! `stackelberg rollout import`: samples and rewards of other tools, as a dataset of rollouts.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;
use stackelberg_data::words::count as counted;
use stackelberg_decoding::most;
use stackelberg_engine::reward::TextFormat;
use stackelberg_engine::{Checkpoint, Reward};
use stackelberg_learning::rollouts::{self, Dataset, Identity, LayOut, Part, Samples};

use stackelberg_registry::layout;
use stackelberg_registry::names::shown;

use crate::filling::fill;
use crate::help::{FORMATS, named};
use crate::input;
use crate::limits::{self, count};
use crate::model::{ModelArgs, registry};
use crate::output::note;

/// Import samples and rewards from vLLM, OpenAI's API, a trainer, `generate` or `rollout`.
///
/// Files are JSON lines, a JSON array (plain or gzipped) or Parquet. A row is a sample (prompt, response,
/// reward, finish_reason, tokens), a prompt with responses and rewards, a request output of vLLM (outputs) or a
/// completion of OpenAI's API (choices, also in batch output). Rows with the same prompt_id, custom_id or id
/// belong to one prompt; rows without an id belong to one prompt if their prompts are equal. The id of a vLLM
/// request or of a completion is not used for this. Other fields are ignored.
///
/// The policy then runs once over every response to compute its hidden states. With --no-hidden and without
/// --reward or --model no model is needed, and the dataset has texts and rewards only.
///
/// A finish_reason of length, max_tokens, max_new_tokens, max_length or abort means that the response was
/// truncated; any other value, or none, means that it is finished.
#[derive(Args)]
pub(crate) struct Import {
    /// The files to import; - is standard input.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    /// The folder of the dataset.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    /// The prompts of rows that only have an id: a file as for `rollout`, or OpenAI's batch input.
    #[arg(long, value_name = "FILE")]
    prompts: Option<String>,

    /// Score the samples with this reward, given as for `generate --reward`. [default: the rewards in the files]
    #[arg(long, value_name = "NAME")]
    reward: Option<String>,

    /// Do not write rewards.
    #[arg(long, conflicts_with = "reward")]
    no_reward: bool,

    /// Do not write hidden states.
    #[arg(long)]
    no_hidden: bool,

    /// Prompts per shard. A killed run loses at most the work on one shard.
    #[arg(long, default_value_t = 16, value_name = "N", value_parser = count(1, limits::SHARD))]
    prompts_per_shard: usize,

    /// Responses per forward (batch size). A larger batch is faster and takes more memory; the results are
    /// identical.
    #[arg(long, default_value_t = 16, value_name = "N", value_parser = count(1, most::BATCH_SIZE))]
    batch_size: usize,

    /// A system message for prompts that are not formatted yet.
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,

    /// The prompt format: chat (the model's chat template) or raw. Rollouts keep their format. [default: for
    /// lines of `generate` the recorded format; for vLLM raw; else the format that the reward was trained on]
    #[arg(long, value_name = "FORMAT", hide_possible_values = true, value_parser = named::<TextFormat>(FORMATS))]
    prompt_format: Option<TextFormat>,

    #[command(flatten)]
    model: ModelArgs,
}

impl Import {
    pub(crate) fn run(&self) -> Result<()> {
        let registry = registry()?;
        let prompts = self.prompts.as_deref().map(|name| input::prompts(&registry, name));
        let prompts = prompts.transpose()?.unwrap_or_default();
        input::note_terminal(&self.files, "samples");
        let of_files = self.reward.is_none() && !self.no_reward;
        let samples = Samples::read(&self.files, &prompts, of_files)?;
        let identity = match (&self.reward, self.no_reward) {
            (Some(name), _) => Some(Identity { name: shown(name), hash: registry.reward_hash(name)? }),
            (None, true) => None,
            (None, false) => match samples.rewards()? {
                Some(identity) => Some(identity),
                None => bail!(
                    "no sample has a reward: score them with --reward NAME, or import without rewards with --no-reward"
                ),
            },
        };
        if let repeated @ 1.. = samples.repeated() {
            let have = if repeated == 1 { "has" } else { "have" };
            note!(
                "warning: {} {have} the same text as another prompt with a different id; all samples of a prompt need the same prompt_id, or none",
                counted(repeated, "prompt")
            );
        }
        // Formatting prompts and scoring texts need a model.
        let lays_out = self.system.is_some() || self.prompt_format == Some(TextFormat::Chat);
        let reads = !self.no_hidden || self.reward.is_some() || self.model.model.is_some();
        let policy = match lays_out || reads {
            true => Some(self.model.load(&registry)?),
            false => None,
        };
        let policy = policy.as_ref();
        let reward = match (policy, &self.reward) {
            (Some(policy), Some(name)) => Some(self.model.reward(&registry, name, policy)?),
            _ => None,
        };
        let guided = |asked| {
            let Some(policy) = policy else { return TextFormat::Raw };
            let (format, warnings) = layout::text_format(asked, policy, reward.as_ref().into());
            warnings.iter().for_each(|warning| note!("warning: {warning}"));
            format
        };
        let room = |policy: &Checkpoint| {
            let of_reward = reward.as_ref().map(|reward| reward.context(policy.model.context()));
            policy.model.context().min(of_reward.unwrap_or(usize::MAX))
        };
        let read = policy.filter(|_| !self.no_hidden || reward.is_some());
        let (asked, system) = (self.prompt_format, self.system.as_deref());
        let otherwise = guided(asked);
        let lay_out = LayOut { asked, otherwise, system, context: read.map(room) };
        let import = rollouts::Import::new(&samples, policy, &lay_out)?;
        if import.format.is_some_and(|format| format != otherwise) {
            // The prompts turned out to have another format: print the warnings about it.
            guided(import.format);
        }
        if let Some(policy) = policy {
            let tokens = import.prompts.iter().map(|prompt| &prompt.tokens[..]);
            for warning in
                layout::odd_tokens(policy, import.format.unwrap_or(otherwise), "prompt", tokens)
            {
                note!("warning: {warning}");
            }
        }
        let reads_text = reward
            .as_ref()
            .is_some_and(|reward| reward.each().iter().any(|r| matches!(r, Reward::Text(_))));
        if let Some(prompt) = import.prompts.iter().find(|prompt| reads_text && prompt.asked.is_none()) {
            bail!(
                "prompt '{}' is already formatted as a chat, but a reward that reads text needs the original prompt: give \
                 the prompts with --prompts, or use a reward on the policy",
                prompt.id
            );
        }
        let (prompts, count) = (samples.prompts(), samples.count());
        drop(samples);
        note!("{} of {}{}", counted(count, "sample"), counted(prompts, "prompt"), made(&import));
        let hidden = policy.filter(|_| !self.no_hidden).map(|policy| policy.model.config().hidden);
        let model = match policy {
            Some(policy) => {
                let (name, hash) = (self.model.name().to_owned(), policy.fingerprint.clone());
                Identity { name, hash }
            }
            None => Identity { name: "elsewhere".to_owned(), hash: String::new() },
        };
        let mut manifest = import.manifest(model, identity, hidden, self.prompts_per_shard, system);
        if policy.is_some() {
            manifest.settings.insert("dtype".to_owned(), self.model.spec().recorded_dtype().into());
            if let Some(device) = self.model.spec().recorded_device() {
                manifest.settings.insert("device".to_owned(), device.into());
            }
        }
        let dataset = Dataset::create(&self.out, manifest)?;
        fill(&dataset, Part::ALL, |progress| {
            import.fill(&dataset, policy, reward.as_ref(), self.batch_size, progress)
        })
    }
}

/// How many texts were tokenized by the policy's tokenizer.
fn made(import: &rollouts::Import) -> String {
    let were = |number: usize| if number == 1 { "was" } else { "were" };
    let mut said = String::new();
    if let tokenised @ 1.. = import.tokenised {
        said.push_str(&format!("; {tokenised} had no tokens and {} tokenized", were(tokenised)));
    }
    if let replaced @ 1.. = import.replaced {
        said.push_str(&format!(
            "; {replaced} had tokens of another tokenizer and {} tokenized again",
            were(replaced)
        ));
    }
    said
}
