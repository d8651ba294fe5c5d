//! `stackelberg evaluate`: metrics of answers, and paired comparisons of runs.

use std::cell::OnceCell;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Serialize;
use stackelberg_data::generations::{self, Run};
use stackelberg_data::words::count as counted;
use stackelberg_data::{Output, keep_inputs};
use stackelberg_engine::Checkpoint;
use stackelberg_evaluation::metrics::Metric;
use stackelberg_evaluation::report::{Table, Wins, csv, latex, markdown, plain};
use stackelberg_evaluation::summary::{Comparison, Means, RewardWins, table};
use stackelberg_evaluation::{Evaluation, Evaluator, Partners};
use stackelberg_registry::names::shown;

use crate::arguments;
use crate::help::brief;
use crate::input::note_terminal;
use crate::model::{ModelArgs, registry};
use crate::output::note;

/// Measure answers: rewards, repetition, diversity, coherence, length, speed, KL. Several runs are compared with the
/// first, paired by prompt.
///
/// Reads the output of `generate`, of the paper's reference code (prompt with result or response) and of AlpacaEval
/// (instruction, output, generator): JSON lines or arrays, plain or gzipped. Answers are cut where the model begins
/// the human's next turn.
#[derive(Args)]
#[command(mut_args(brief(&["reward", "no_embeddings", "unpaired", "each", "json", "format", "model"])))]
#[command(after_help = "`stackelberg evaluate --help` has all options.", after_long_help = "")]
pub(crate) struct Evaluate {
    /// Files of answers; - is standard input.
    #[arg(required = true, value_name = "GENERATIONS")]
    files: Vec<PathBuf>,

    /// A reward to measure, whether or not it guided; may be given several times. See `stackelberg models`.
    #[arg(long, value_name = "NAME")]
    reward: Vec<String>,

    /// The sentence embedder for coherence: a known name or the folder of a BERT-like model.
    #[arg(long, value_name = "REF", default_value = "all-minilm-l6-v2")]
    embedder: String,

    /// Do not measure coherence; then no embedder is needed.
    #[arg(long, conflicts_with = "embedder")]
    no_embeddings: bool,

    /// Do not compare runs; they may then answer different prompts.
    #[arg(long)]
    unpaired: bool,

    /// Write one JSON line per answer: id, reward, rep_2, rep_3, rep_4, diversity, coherence, length; with several
    /// runs also the file, with several rewards also all rewards.
    #[arg(long, value_name = "FILE")]
    each: Option<PathBuf>,

    /// Write all means, intervals and comparisons as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// The format of the printed tables: table (aligned, metrics downwards), markdown, csv or latex. [default: table on a
    /// terminal, else markdown]
    #[arg(long, value_enum)]
    format: Option<Format>,

    /// Random seed of the bootstrap.
    #[arg(long, default_value_t = 0)]
    seed: u64,

    #[command(flatten)]
    model: ModelArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Table,
    Markdown,
    Csv,
    Latex,
}

/// One line of `--each`.
#[derive(Serialize)]
struct Each<'a> {
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    run: Option<&'a str>,
    reward: Option<f64>,
    rep_2: f64,
    rep_3: f64,
    rep_4: f64,
    diversity: f64,
    coherence: Option<f64>,
    length: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    rewards: Option<&'a std::collections::BTreeMap<String, f64>>,
}

impl Evaluate {
    pub(crate) fn run(&self) -> Result<()> {
        let repeated = |(i, name): &(usize, &String)| self.reward[..*i].contains(name);
        if let Some((_, name)) = self.reward.iter().enumerate().find(repeated) {
            bail!("--reward {} is given twice", shown(name));
        }
        keep_inputs(&[&self.each, &self.json], &self.files)?;
        note_terminal(&self.files, "answers");
        let runs: Vec<Run> =
            self.files.iter().map(|file| generations::read(file)).collect::<Result<_, _>>()?;
        // Runs that cannot be compared are reported before models are loaded.
        let partners = if self.unpaired { Partners::default() } else { Partners::of(&runs)? };
        let policy = OnceCell::new();
        let evaluator = self.evaluator(&policy)?;
        let evaluation = Evaluation::new(&evaluator, policy.get(), &runs, partners)?;
        for warning in &evaluation.warnings {
            note!("warning: {warning}");
        }
        if let Some(file) = &self.each {
            self.write_each(file, &evaluation)?;
        }
        let results = evaluation.results(self.seed);
        if let Some(file) = &self.json {
            let mut out = Output::create(file)?;
            let all = serde_json::json!({
                "version": env!("CARGO_PKG_VERSION"), "commit": env!("STACKELBERG_COMMIT"),
                "command": arguments::all(), "seed": self.seed,
                "measured_by": evaluation.measured_by,
                "runs": results.runs, "comparisons": results.comparisons,
            });
            writeln!(out, "{all:#}")?;
            out.finish()?;
        }
        self.print(&results.runs, &results.comparisons, &evaluation.metrics)
    }

    fn evaluator(&self, policy: &OnceCell<Checkpoint>) -> Result<Evaluator> {
        let embedder = (!self.no_embeddings).then_some(self.embedder.as_str());
        let registry = registry()?;
        self.model.set_threads()?;
        let load = &mut || self.model.load_into(&registry, policy);
        Ok(Evaluator::load(&registry, &self.reward, embedder, self.model.dtype(), load)?)
    }

    fn write_each(&self, file: &Path, Evaluation { runs, .. }: &Evaluation) -> Result<()> {
        let mut out = Output::create(file)?;
        for (run, answers) in runs {
            for m in answers {
                let line = Each {
                    id: &m.id,
                    run: (runs.len() > 1).then_some(run.as_str()),
                    reward: self.reward.first().and_then(|name| m.rewards.get(&shown(name)).copied()),
                    rep_2: m.rep_2,
                    rep_3: m.rep_3,
                    rep_4: m.rep_4,
                    diversity: m.diversity,
                    coherence: m.coherence,
                    length: m.length,
                    rewards: (m.rewards.len() > 1).then_some(&m.rewards),
                };
                serde_json::to_writer(&mut out, &line).map_err(std::io::Error::from)?;
                out.write_all(b"\n").context("cannot write the output")?;
            }
        }
        Ok(out.finish()?)
    }

    fn print(
        &self,
        means: &[Means<'_>],
        comparisons: &[Comparison<'_>],
        metrics: &[Metric],
    ) -> Result<()> {
        let mut out = std::io::stdout().lock();
        let format = self.format.unwrap_or(match std::io::stdout().is_terminal() {
            true => Format::Table,
            false => Format::Markdown,
        });
        let write = |table: &Table| match format {
            Format::Table => plain(table),
            Format::Markdown => markdown(table),
            Format::Csv => csv(table),
            Format::Latex => latex(table),
        };
        let rows =
            means.iter().map(|means| (format!("{} ({})", means.run, means.answers), &means.metrics));
        writeln!(out, "{}", write(&table("metrics", rows, metrics)).trim_end())?;
        if comparisons.is_empty() {
            return Ok(());
        }
        let minus = |c: &Comparison<'_>| format!("{} minus {}", c.run, c.with);
        let rows = comparisons.iter().map(|c| (minus(c), &c.differences));
        writeln!(out, "\n{}", write(&table("differences", rows, metrics)).trim_end())?;
        let mut say: Box<dyn Write> = match format {
            Format::Table | Format::Markdown => Box::new(out),
            // CSV and LaTeX output consists of tables only.
            Format::Csv | Format::Latex => Box::new(std::io::stderr()),
        };
        for comparison in comparisons {
            for RewardWins { reward, wins: Wins { win, tie, lose, p } } in &comparison.wins {
                writeln!(
                    say,
                    "\n{} against {} by {reward}: {}, {}, {lose} {} (sign test p = {p:.3})",
                    comparison.run,
                    comparison.with,
                    counted(*win, "win"),
                    counted(*tie, "tie"),
                    if *lose == 1 { "loss" } else { "losses" }
                )?;
            }
        }
        Ok(())
    }
}
