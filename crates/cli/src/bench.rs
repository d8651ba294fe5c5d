//! `stackelberg bench`: measures speed, and compares it with the memory bandwidth.

mod concurrent;
mod course;
mod figures;
mod growth;
mod machine;
mod steps;

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Serialize;
use stackelberg_data::Output;
use stackelberg_engine::kernel;
use stackelberg_experiment::load::Concurrent;

use crate::limits;
use crate::model::{ModelArgs, registry};
use crate::output;
use course::{Course, FULL, QUICK, Weights};
use figures::{Figure, Figures};
use growth::Growth;
use machine::Machine;

/// Measure the speed of this machine: loading, prefill, branching, and guided and unguided generation.
///
/// Prints medians, quartiles and the fraction of the limit. The limit is set by the memory bandwidth, which is
/// measured in the same run: a step must read all weights once. Measurements alternate, so that noise
/// affects all of them equally. MB and GB are powers of ten.
///
/// Prefill: 150 tokens, and the logits of the last. One token, or a branch of k: that many candidates after the
/// prefix of 150 tokens in one forward, and the logits of one of them. A batch of n: n sequences that grow by
/// one token per forward, and all their logits. base, args and cd: answers of 128 tokens, greedy and token by
/// token (args: srs, strength 1, bound 8), prefill included; the layers of cd's value head are as wide as the model. Peak memory: up to the
/// first answer, guided by a head.
#[derive(Args)]
pub(crate) struct Bench {
    /// Also write the figures as JSON; - is standard output, instead of the table.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Fewer and shorter measurements: a smoke test, not figures to quote.
    #[arg(long)]
    quick: bool,

    /// Also measure how the time of a step grows with the sequence, up to this many tokens.
    #[arg(long, value_name = "TOKENS", value_parser = limits::count(growth::SHORTEST, limits::LENGTH))]
    length: Option<usize>,

    /// Also measure so many clients at once, each sending requests one after the other: tokens per second of all, with
    /// and without the lossless skip, the time to the first token, and an exact guided step against one forward of the
    /// same rows.
    #[arg(long, value_name = "N,...", value_delimiter = ',')]
    #[arg(value_parser = limits::count::<u16>(1, 1024))]
    concurrent: Vec<u16>,

    #[command(flatten)]
    model: ModelArgs,
}

/// The file that --json writes.
#[derive(Serialize)]
struct Report<'a> {
    version: &'static str,
    machine: Machine,
    model: &'a str,
    dtype: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<String>,
    threads: usize,
    quick: bool,
    /// Weights that a step reads, in MB: all but an embedding table that is not shared with the output layer.
    weight_mb: f64,
    #[serde(flatten)]
    medians: Figures<f64>,
    spread: Figures<[f64; 2]>,
    limit_fraction: Figures<Option<f64>>,
    /// The measurements of --length.
    by_length: Option<Growth>,
    /// The measurements of --concurrent.
    #[serde(skip_serializing_if = "Option::is_none")]
    concurrent: Option<Concurrent>,
}

impl Bench {
    pub(crate) fn run(&self) -> Result<()> {
        // An output that cannot be written is reported before the slow part.
        let json = self.json.as_deref().map(|path| output::open(Some(path))).transpose()?;
        let registry = registry()?;
        let policy = self.model.load(&registry)?;
        let context = policy.model.context();
        if let Some(length) = self.length.filter(|&length| length > context) {
            bail!("--length is {length}: it must be at most the model's context of {context}");
        }
        let effort = if self.quick { QUICK } else { FULL };
        let course = Course::new(&self.model, &registry, &policy, effort)?;
        let clients: Vec<usize> = self.concurrent.iter().map(|&n| n.into()).collect();
        let (figures, concurrent) = course.run(&clients)?;
        let by_length = self.length.map(|length| course.growth(length)).transpose()?;
        let report = Report {
            version: env!("CARGO_PKG_VERSION"),
            machine: Machine::this(),
            model: self.model.name(),
            dtype: self.model.spec().recorded_dtype(),
            device: self.model.spec().recorded_device(),
            threads: kernel::threads(),
            quick: self.quick,
            weight_mb: Weights::of(&policy.model).step / 1e6,
            medians: figures.map(|figure| figure.median),
            spread: figures.map(|figure| figure.spread),
            limit_fraction: figures.map(|figure| figure.limit_fraction),
            by_length,
            concurrent,
        };
        let printed = matches!(json, Some(Output::Stdout(_)));
        if let Some(mut json) = json {
            serde_json::to_writer_pretty(&mut json, &report).map_err(std::io::Error::from)?;
            json.write_all(b"\n").context("cannot write the figures")?;
            output::finish(json)?;
        }
        if printed { Ok(()) } else { report.print(&figures) }
    }
}

impl Report<'_> {
    fn print(&self, figures: &Figures<Figure>) -> Result<()> {
        let Self { machine: Machine { cpu, cores, os, arch, kernel }, medians, .. } = self;
        let Self { model, dtype, threads, weight_mb, .. } = self;
        let device = self.device.as_ref().map_or_else(String::new, |device| format!(" on {device}"));
        let mut out = std::io::stdout().lock();
        writeln!(out, "{cpu}, cores: {cores}, {os} {arch}, {kernel}")?;
        writeln!(
            out,
            "{model}, {dtype}{device}, threads: {threads}; a step reads {weight_mb:.0} MB of weights\n"
        )?;
        writeln!(out, "{}", figures.table())?;
        if let Some(growth) = &self.by_length {
            writeln!(out, "{}", growth.table())?;
        }
        if let Some(concurrent) = &self.concurrent {
            writeln!(out, "{}", concurrent::table(concurrent))?;
        }
        let share = |rate: f64| rate / medians.base_tokens_per_s;
        writeln!(
            out,
            "speed relative to base: args {:.2} with a head, {:.2} with a causal reward model; cd {:.2}",
            share(medians.args_head_tokens_per_s),
            share(medians.args_model_tokens_per_s),
            share(medians.cd_tokens_per_s)
        )?;
        Ok(())
    }
}
