//! `stackelberg serve`: an OpenAI-compatible server.

use std::net::{IpAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use stackelberg_decoding::most;
use stackelberg_registry::{DEFAULT_REWARD, Registry};
use stackelberg_server::{Config, Keys, Limits, Models, run};

use crate::help::brief;
use crate::interrupt;
use crate::limits::{self, count};
use crate::model::{ModelArgs, registry};
use crate::output::note;

/// The variable with a key that clients must send.
const VARIABLE: &str = "STACKELBERG_API_KEY";

/// The options that -h shows.
const SHOWN: [&str; 6] = ["model", "rewards", "values", "host", "port", "api_key_file"];

/// Serve an OpenAI-compatible API whose answers follow a reward, chosen per request.
///
/// Requests for /v1/chat/completions and /v1/completions may have a field `guidance`, such as {"method": "args", "reward":
/// "sentiment"}. Without it, the model answers as it is, or as --default-guidance says. /openapi.json has the interface.
#[derive(Args)]
#[command(mut_args(brief(&SHOWN)), after_help = "`stackelberg serve --help` has all options.", after_long_help = "")]
pub(crate) struct Serve {
    /// A reward under the name that requests give, NAME=REF, or NAME alone for a built-in one; may be given several times.
    /// REF is as for `generate --reward`. [default: sentiment, if it fits the model]
    #[arg(long = "reward", value_name = "NAME=REF", value_parser = reference)]
    rewards: Vec<(String, String)>,

    /// A value head under the name that requests give; may be given several times.
    #[arg(long = "value", value_name = "NAME=REF", value_parser = reference)]
    values: Vec<(String, String)>,

    /// The address to listen on. Addresses other than loopback require a key, or --no-auth.
    #[arg(long, default_value = "127.0.0.1")]
    host: String,

    /// The port to listen on; 0 is any that is free.
    #[arg(long, default_value_t = 8080)]
    port: u16,

    /// A key that clients must send. Other users of this machine can see it: prefer --api-key-file or STACKELBERG_API_KEY.
    #[arg(long, value_name = "KEY")]
    api_key: Option<String>,

    /// A file of keys, one per line, of which clients must send one.
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,

    /// Listen without a key on an address that others can reach.
    #[arg(long)]
    no_auth: bool,

    /// Sequences decoded in parallel.
    #[arg(long, default_value_t = 16, value_name = "N", value_parser = count(1, most::BATCH_SIZE))]
    max_requests: usize,

    /// Choices that may wait beyond --max-requests. More are refused with 429.
    #[arg(long, default_value_t = 256, value_name = "N", value_parser = count(0, 1_000_000_usize))]
    queue: usize,

    /// Memory for the keys and values of prompts, in MB, which requests with the same beginning share.
    #[arg(long, default_value_t = 256, value_name = "MB", value_parser = count(0, limits::MEGABYTES))]
    cache_mb: usize,

    /// Seconds that running requests have to finish after SIGTERM or Ctrl-C.
    #[arg(long, default_value_t = 30, value_name = "SECONDS", value_parser = count(0, limits::SECONDS))]
    drain: u64,

    /// Limits on requests, as JSON, such as {"choices": 16, "samples": 8, "prompt": 4096, "tokens": 1024}. The guide has all.
    #[arg(long, value_name = "JSON")]
    limits: Option<String>,

    /// The guidance of requests that have none, as JSON.
    #[arg(long, value_name = "JSON")]
    default_guidance: Option<String>,

    #[command(flatten)]
    model: ModelArgs,
}

/// NAME=REF; a name alone is its own reference.
fn reference(text: &str) -> Result<(String, String), String> {
    let (name, reference) = text.split_once('=').unwrap_or((text, text));
    match name.is_empty() || reference.is_empty() {
        true => Err("write NAME=REF".to_owned()),
        false => Ok((name.to_owned(), reference.to_owned())),
    }
}

impl Serve {
    pub(crate) fn run(&self) -> Result<()> {
        let keys = self.keys()?;
        let address = self.host.parse::<IpAddr>().ok();
        let loopback = self.host.eq_ignore_ascii_case("localhost")
            || address.is_some_and(|address| address.is_loopback());
        if self.no_auth && !keys.is_empty() {
            bail!("--no-auth: there is a key, in an option or in {VARIABLE}: leave one of them out");
        }
        if !loopback && keys.is_empty() && !self.no_auth {
            bail!(
                "--host {}: others can reach this address: give --api-key-file, or --no-auth",
                self.host
            );
        }
        let default_guidance = self.default_guidance.as_deref().map(serde_json::from_str).transpose();
        let default_guidance = default_guidance.context("--default-guidance is not JSON")?;
        let limits = self.limits.as_deref().map(Limits::from_json).transpose();
        let limits = limits.context("--limits")?.unwrap_or_default();
        let limits = Limits {
            sequences: self.max_requests,
            queue: self.queue,
            cache: self.cache_mb << 20,
            drain: Duration::from_secs(self.drain),
            ..limits
        };
        // A port that is taken is noticed before the model is loaded.
        drop(
            TcpListener::bind((self.host.as_str(), self.port))
                .with_context(|| format!("cannot listen on {}:{}", self.host, self.port))?,
        );
        let models = self.models(&registry()?)?;
        let stop = interrupt::watch()?;
        let config = Config { limits, default_guidance, keys, loopback };
        let at = (self.host.as_str(), self.port);
        run(config, models, at, &stop, |address| note!("listening on http://{address}"))?;
        Ok(())
    }

    /// The keys of the options and of the environment.
    fn keys(&self) -> Result<Keys> {
        let read = |path: &PathBuf| {
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
        };
        let option = Keys::new(self.api_key.as_deref()).context("--api-key")?;
        let mut keys = vec![option];
        if let Some(path) = &self.api_key_file {
            let file = read(path)?;
            let lines: Vec<&str> = file.lines().filter(|line| !line.trim().is_empty()).collect();
            if lines.is_empty() {
                bail!("{}: the file has no key", path.display());
            }
            keys.push(Keys::new(lines).with_context(|| path.display().to_string())?);
        }
        // A variable that is set is meant to be a key: without one, everybody would be let in.
        if let Some(variable) = std::env::var_os(VARIABLE) {
            let variable = variable.to_str().with_context(|| format!("{VARIABLE}: it is not UTF-8"))?;
            keys.push(Keys::new([variable]).context(VARIABLE)?);
        }
        Ok(keys.into_iter().collect())
    }

    fn models(&self, registry: &Registry) -> Result<Models> {
        self.model.set_threads()?;
        let spec = self.model.spec();
        let models = Models::load(registry, &spec, &self.rewards, &self.values)?;
        if !self.rewards.is_empty() {
            return Ok(models);
        }
        // A default that does not fit the model is left out.
        match self.model.reward(registry, DEFAULT_REWARD, models.policy()) {
            Ok(reward) => Ok(models.with_reward(DEFAULT_REWARD, reward)?),
            Err(_) => Ok(models),
        }
    }
}
