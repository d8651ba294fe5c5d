//! `stackelberg judge`: compares two runs with a judge model.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use indicatif::ProgressBar;
use stackelberg_data::words::count as counted;
use stackelberg_data::{Output, generations, keep_inputs};
use stackelberg_decoding::{Cancel, most};
use stackelberg_evaluation::judge::{
    Asking, Call, Client, Endpoint, Identity, Key, Order, Pair, Report, Resampling, Store, Summary,
    Verdict, Watch, ask, calls, form, pairs,
};

use crate::interrupt::{self, Interrupted};
use crate::limits::{self, count};
use crate::output::say;
use crate::progress::style;

/// Compare two runs with a judge model: win, tie and lose rates of A against B.
///
/// A and B are outputs of `generate`, or JSON with prompt (or instruction) and response (or result, output). They
/// are paired by id, or by prompt if ids are missing. Each pair is judged in both orders over an OpenAI-compatible
/// chat endpoint, with two scores from 1 to 10. Every verdict is appended to the --out file immediately: the same
/// command resumes a stopped run, and no paid call is made twice.
#[derive(Args)]
pub(crate) struct Judge {
    /// The answers of run A.
    #[arg(value_name = "A")]
    a: PathBuf,

    /// The answers of run B to the same prompts.
    #[arg(value_name = "B")]
    b: PathBuf,

    /// The judge's model name on the server.
    #[arg(long, value_name = "NAME")]
    judge_model: String,

    /// The file of verdicts, as JSON lines. Calls with a verdict in this file are not made again.
    #[arg(long, value_name = "FILE", required_unless_present = "dry_run")]
    out: Option<PathBuf>,

    /// Also write the summary as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Count calls and estimate tokens and cost; make no calls, write nothing.
    #[arg(long)]
    dry_run: bool,

    /// Which answer is shown first: A (ab), B (ba), or each once (both).
    #[arg(long, default_value = "both", value_name = "ORDER")]
    order: Orders,

    /// Repeat calls that failed in an earlier run.
    #[arg(long)]
    retry_failed: bool,

    /// Random seed of the bootstrap over prompts.
    #[arg(long, default_value_t = 0, value_name = "SEED")]
    bootstrap_seed: u64,

    #[command(flatten)]
    server: Server,

    #[command(flatten)]
    price: Price,
}

#[derive(Args)]
#[command(next_help_heading = "Server")]
struct Server {
    /// Base URL of the server; /chat/completions is appended.
    #[arg(long, default_value = "https://api.openai.com/v1", value_name = "URL")]
    base_url: String,

    /// The environment variable with the API key. [default: OPENAI_API_KEY for https, no key for http]
    #[arg(long, value_name = "NAME")]
    key_env: Option<String>,

    /// Maximum number of concurrent calls.
    #[arg(long, default_value_t = 8, value_name = "N", value_parser = count(1, limits::CALLS))]
    concurrency: usize,

    /// Maximum number of retries after status 429 or 5xx, a timeout or a broken connection.
    #[arg(long, default_value_t = 6, value_name = "N", value_parser = count(0, limits::RETRIES))]
    retries: u32,

    /// Maximum number of repeated calls if the judge's reply has no scores.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = count(0, limits::RETRIES))]
    ask_again: u32,

    /// Timeout of one request, in seconds.
    #[arg(long, default_value_t = 120.0, value_name = "SECONDS")]
    timeout: f64,

    /// Maximum tokens of a reply; reasoning models need thousands.
    #[arg(long, default_value_t = 256, value_name = "N", value_parser = count(1, most::NEW_TOKENS as u64))]
    max_tokens: u64,

    /// The request field for the maximum tokens: max_tokens or, for newer OpenAI models, max_completion_tokens.
    #[arg(long, default_value = "max_tokens", value_name = "FIELD")]
    max_tokens_field: String,

    /// Do not send a temperature (0 otherwise), for models that accept only their default.
    #[arg(long)]
    no_temperature: bool,

    /// The sampling seed sent to the server.
    #[arg(long, value_name = "N")]
    judge_seed: Option<u64>,

    /// Additional request fields, as a JSON object: {"reasoning_effort": "low"}.
    #[arg(long, value_name = "JSON", value_parser = object)]
    body: Option<serde_json::Map<String, serde_json::Value>>,
}

fn object(text: &str) -> Result<serde_json::Map<String, serde_json::Value>, String> {
    serde_json::from_str(text).map_err(|e| format!("not a JSON object: {e}"))
}

#[derive(Args)]
#[command(next_help_heading = "Price")]
struct Price {
    /// Price per million input tokens.
    #[arg(long, value_name = "PRICE", requires = "price_out")]
    price_in: Option<f64>,

    /// Price per million output tokens.
    #[arg(long, value_name = "PRICE", requires = "price_in")]
    price_out: Option<f64>,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Orders {
    Both,
    Ab,
    Ba,
}

impl Orders {
    fn orders(self) -> &'static [Order] {
        match self {
            Self::Both => &[Order::Ab, Order::Ba],
            Self::Ab => &[Order::Ab],
            Self::Ba => &[Order::Ba],
        }
    }
}

impl Judge {
    pub(crate) fn run(&self) -> Result<()> {
        self.check()?;
        let (first, second) = (generations::read(&self.a)?, generations::read(&self.b)?);
        let pairs = pairs(&first, &second, &generations::pair(&first, &second)?);
        let calls = calls(&pairs, self.order.orders());
        if self.dry_run {
            return self.estimate(&pairs, &calls);
        }
        let Some(out) = &self.out else { bail!("give --out FILE for the verdicts") };
        keep_inputs(&[&self.json], [&self.a, &self.b, out])?;
        let mut store = Store::open(out, &self.identity())?;
        self.ask_all(&calls, &mut store)?;
        self.report(&pairs, &store)
    }

    fn check(&self) -> Result<()> {
        let timeout = self.server.timeout;
        if !(timeout > 0.0 && timeout <= 86_400.0) {
            bail!("--timeout is {timeout}: it must be above 0 and at most 86400 seconds");
        }
        for (name, price) in [("--price-in", self.price.price_in), ("--price-out", self.price.price_out)]
        {
            if price.is_some_and(|price| !(price >= 0.0 && price.is_finite())) {
                bail!("{name}: a price must be zero or more, and finite");
            }
        }
        let base = ["model", "messages", "temperature", "seed"];
        if base.contains(&self.server.max_tokens_field.as_str()) {
            bail!(
                "--max-tokens-field is {}: that field has another meaning",
                self.server.max_tokens_field
            );
        }
        Ok(())
    }

    fn identity(&self) -> Identity {
        Identity {
            model: self.judge_model.clone(),
            form: form::version(),
            temperature: (!self.server.no_temperature).then_some(0.0),
            seed: self.server.judge_seed,
            extra: self.server.body.clone().unwrap_or_default(),
        }
    }

    fn asking(&self) -> Asking {
        Asking {
            concurrency: self.server.concurrency,
            ask_again: self.server.ask_again,
            retry_failed: self.retry_failed,
        }
    }

    fn client(&self) -> Result<Client> {
        let server = &self.server;
        let endpoint = Endpoint {
            base_url: server.base_url.clone(),
            key: self.key()?,
            max_tokens: server.max_tokens,
            max_tokens_field: server.max_tokens_field.clone(),
            timeout: Duration::from_secs_f64(server.timeout),
            retries: server.retries,
            ..Endpoint::default()
        };
        Ok(Client::new(endpoint, self.identity())?)
    }

    /// Reads the key from the environment. Over plain HTTP a key is sent only with --key-env.
    fn key(&self) -> Result<Option<Key>> {
        let secure = self.server.base_url.to_ascii_lowercase().starts_with("https:");
        let name = match &self.server.key_env {
            Some(name) => name.as_str(),
            None if secure => "OPENAI_API_KEY",
            None => return Ok(None),
        };
        match std::env::var(name) {
            Ok(key) if !key.trim().is_empty() => Ok(Some(Key::new(&key))),
            Ok(_) => bail!("the environment variable {name} is empty: set it to the key"),
            Err(std::env::VarError::NotUnicode(_)) => {
                bail!("the environment variable {name} is not valid Unicode: set it to the key")
            }
            Err(_) => bail!(
                "the environment variable {name} is not set: set it to the key, or give another variable with --key-env"
            ),
        }
    }

    fn ask_all(&self, calls: &[Call<'_>], store: &mut Store) -> Result<()> {
        let asking = self.asking();
        let open = asking.open(calls, store).len();
        if open == 0 {
            return Ok(());
        }
        let client = self.client()?;
        let cancel = interrupt::watch()?;
        let style = style("{bar:40} {pos}/{len} calls {msg} {eta} left");
        let bar = ProgressBar::new(calls.len() as u64).with_style(style);
        bar.set_position((calls.len() - open) as u64);
        bar.reset_eta();
        let terminal = Terminal { bar: &bar, counts: Mutex::new((0, 0)), cancel };
        let outcome = ask(calls, &client, store, &asking, &terminal);
        bar.finish_and_clear();
        let out = self.out.as_deref().unwrap_or(Path::new("-")).display();
        let done = calls.len() - asking.open(calls, store).len();
        let outcome = outcome.with_context(|| match done {
            0 => "nothing was judged".to_owned(),
            _ => format!("stopped after {done} of {}, saved in {out}", counted(calls.len(), "call")),
        })?;
        if outcome.stopped {
            let said = format!(
                "interrupted after {done} of {}; the same command resumes with {out}",
                counted(calls.len(), "call")
            );
            return Err(Interrupted(said).into());
        }
        Ok(())
    }

    fn report(&self, pairs: &[Pair], store: &Store) -> Result<()> {
        let orders = self.order.orders();
        let bootstrap = Resampling { seed: self.bootstrap_seed, ..Resampling::default() };
        let summary = Summary::new(pairs, orders, store, &bootstrap);
        let cost = self.price.of(&summary);
        let judge = self.identity();
        let report = Report {
            version: env!("CARGO_PKG_VERSION"),
            a: &self.a,
            b: &self.b,
            judge: &judge,
            orders,
            bootstrap_seed: self.bootstrap_seed,
            cost,
            summary: &summary,
        };
        if let Some(path) = &self.json {
            let mut out = Output::create(path)?;
            serde_json::to_writer_pretty(&mut out, &report).map_err(std::io::Error::from)?;
            out.write_all(b"\n").context("cannot write the summary")?;
            out.finish()?;
        }
        write!(std::io::stdout(), "{report}")?;
        if summary.judged == summary.identical && summary.calls.needed > 0 {
            bail!("no call returned two scores: {}", summary.calls.reasons());
        }
        Ok(())
    }

    /// Prints the number of calls, the tokens as estimated from the texts' lengths, and the cost.
    fn estimate(&self, pairs: &[Pair], calls: &[Call<'_>]) -> Result<()> {
        let open = match &self.out {
            Some(out) => self.asking().open(calls, &Store::look(out, &self.identity())?),
            None => calls.iter().collect(),
        };
        let identical = pairs.iter().filter(|pair| pair.identical()).count();
        say!(
            "{}, of which {identical} with identical answers (ties without a call)",
            counted(pairs.len(), "prompt")
        )?;
        say!("{} of {} to make", open.len(), counted(calls.len(), "call"))?;
        let asked = |call: &&Call<'_>| form::fill(call.prompt, call.first, call.second).chars().count();
        let tokens_in = open.iter().map(asked).sum::<usize>() / CHARACTERS_A_TOKEN;
        let tokens_out = open.len() as u64 * self.server.max_tokens;
        say!(
            "about {tokens_in} input tokens (at four characters each), at most {tokens_out} output tokens"
        )?;
        if let (Some(price_in), Some(price_out)) = (self.price.price_in, self.price.price_out) {
            let cost = (tokens_in as f64 * price_in + tokens_out as f64 * price_out) / 1e6;
            say!("cost at most about {cost:.2}, if no call has to be repeated")?;
        }
        Ok(())
    }
}

/// Approximate characters per token of English text.
const CHARACTERS_A_TOKEN: usize = 4;

impl Price {
    fn of(&self, summary: &Summary) -> Option<f64> {
        Some(summary.calls.spent.cost(self.price_in?, self.price_out?))
    }
}

/// A progress bar over calls.
struct Terminal<'a> {
    bar: &'a ProgressBar,
    cancel: Cancel,
    /// Numbers of failures and of tokens.
    counts: Mutex<(usize, u64)>,
}

impl Watch for Terminal<'_> {
    fn done(&self, verdict: &Verdict) {
        if let Ok(mut counts) = self.counts.lock() {
            counts.0 += usize::from(verdict.failure.is_some());
            counts.1 += verdict.tokens_in.unwrap_or(0) + verdict.tokens_out.unwrap_or(0);
            self.bar.set_message(format!("{} failed, {} tokens", counts.0, counts.1));
        }
        self.bar.inc(1);
    }

    fn stop(&self) -> bool {
        self.cancel.is_cancelled()
    }
}
