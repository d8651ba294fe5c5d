//! `stackelberg train reward`: reward heads from preference pairs or rated texts.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::Args;
use stackelberg_data::{Conversation, Pair, Rated, group_ids, read_pairs, read_rated};
use stackelberg_engine::reward::TextFormat;
use stackelberg_learning::{Card, Features, Fit, Head, Metric, Settings, Source, fit, measure};
use stackelberg_registry::Registry;
use stackelberg_registry::layout::OddTokens;

use super::command::command_line;
use super::reader::{Reader, bar};
use crate::help::brief;
use crate::limits::{self, count};
use crate::model::{ModelArgs, registry};
use crate::output::{note, say};

/// Train a reward head on the policy's own hidden states, or on a sentence embedder, from preference pairs
/// or rated texts.
///
/// Preference pairs are JSON lines {"chosen", "rejected"} (conversations as in HH-RLHF, or with a
/// "prompt"); rated texts are JSON lines {"text", "score"} or {"prompt", "response", "score"}, or VADER's
/// tab-separated files. Writes FILE.safetensors and a card FILE.md with the head's quality.
#[derive(Args)]
#[command(mut_args(brief(&["pairs", "rated", "held_out", "out", "embedder", "about", "model"])))]
#[command(after_help = "`stackelberg train reward --help` has all options.", after_long_help = "")]
pub(super) struct TrainReward {
    /// Preference pairs for training (.jsonl or .jsonl.gz).
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with = "rated")]
    pairs: Vec<String>,

    /// Rated texts for training: a file, or a reference to one as in `stackelberg models`.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    rated: Vec<String>,

    /// Held-out data of the same kind: the card reports the head's quality on it.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    held_out: Vec<String>,

    /// The head to write (.safetensors).
    #[arg(long, value_name = "FILE")]
    out: PathBuf,

    /// Train on this sentence embedder instead of the policy: a known name, a folder or another reference.
    /// Such a head reads text, so it guides and scores any policy, at the cost of one pass of the embedder per
    /// candidate.
    #[arg(long, value_name = "REF", conflicts_with_all = ["model", "text_format"])]
    embedder: Option<String>,

    /// The format of the texts that the head is trained on: raw, or chat (the policy's chat template).
    /// [default: chat]
    #[arg(long)]
    text_format: Option<TextFormat>,

    /// A description of what a high reward means, for the card.
    #[arg(long, default_value = "", value_name = "TEXT")]
    about: String,

    /// Folds of the cross-validation that chooses the regularization.
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = count(2, limits::FOLDS))]
    folds: usize,

    /// Random seed of the cross-validation folds.
    #[arg(long, default_value_t = 0)]
    seed: u64,

    #[command(flatten)]
    model: ModelArgs,
}

/// One file of preference pairs or ratings.
enum Judged {
    Pairs(Vec<Pair>),
    Rated(Vec<Rated>),
}

/// Features of one file of preference pairs or ratings.
enum Data {
    Pairs { chosen: Vec<f32>, rejected: Vec<f32>, groups: Vec<String> },
    Rated { rows: Vec<f32>, scores: Vec<f64>, groups: Vec<String> },
}

impl TrainReward {
    pub(super) fn run(&self) -> Result<()> {
        if self.pairs.is_empty() && self.rated.is_empty() {
            bail!(
                "give the data to train on: preference pairs with --pairs FILE, or rated texts with --rated FILE"
            );
        }
        if self.out.extension().is_none_or(|e| e != "safetensors") {
            bail!("--out {}: the file name of a head ends in .safetensors", self.out.display());
        }
        // Malformed lines are reported before the slow part begins.
        let paired = !self.pairs.is_empty();
        let learned = if paired { &self.pairs } else { &self.rated };
        let registry = registry()?;
        let local = |name: &String| match Path::new(name).exists() {
            true => Ok(PathBuf::from(name)),
            false => registry.fetch(name),
        };
        let mut files = Vec::new();
        for (names, learn) in [(learned, true), (&self.held_out, false)] {
            for reference in names {
                let file = local(reference)?;
                let judged = if paired {
                    Judged::Pairs(read_pairs(&file)?)
                } else {
                    Judged::Rated(read_rated(&file)?)
                };
                files.push((name(&file), judged, learn));
            }
        }
        let reader = self.reader(&registry)?;
        let width = reader.width();
        let mut training = Vec::new();
        let mut held_out = Vec::new();
        let mut odd = OddTokens::default();
        for (name, judged, learn) in files {
            let data = match &judged {
                Judged::Pairs(pairs) => pairs_of(&reader, pairs, &name, &mut odd)?,
                Judged::Rated(rated) => rated_of(&reader, rated, &name, &mut odd)?,
            };
            if learn { training.push((name, data)) } else { held_out.push((name, data)) }
        }
        for warning in odd.warnings("text") {
            note!("warning: {warning}");
        }

        let bar = bar("fitting")?;
        let progress = |done: usize, total: usize| {
            bar.set_length(total as u64);
            bar.set_position(done as u64);
        };
        let names: Vec<String> = training.iter().flat_map(|(_, data)| data.groups().to_vec()).collect();
        let groups = group_ids(names.iter().map(String::as_str));
        let settings = Settings {
            folds: self.folds,
            seed: self.seed,
            groups: Some(&groups),
            threads: rayon::current_num_threads(),
            progress: &progress,
            ..Settings::default()
        };
        let fit = fit_all(&training, width, &settings)?;
        bar.finish_and_clear();

        let mut sources: Vec<Source> =
            training.iter().map(|(name, data)| data.source(name, None)).collect();
        let mut measured = Vec::new();
        for (name, data) in &held_out {
            let metrics = data.measure(&fit, width)?;
            for metric in metrics {
                measured.push(format!(
                    "{name}: {} {:.4} ± {:.4}",
                    metric.name, metric.value, metric.standard_error
                ));
            }
            sources.push(data.source(name, Some(metrics)));
        }
        for metric in fit.held_out {
            measured.push(format!(
                "cross-validation: {} {:.4} ± {:.4}",
                metric.name, metric.value, metric.standard_error
            ));
        }
        let mut head = Head::new(&fit, reader.text_format());
        head.backbone = reader.backbone();
        head.base = Some(reader.fingerprint().to_owned());
        head.base_name = Some(self.embedder.as_deref().unwrap_or(self.model.name()).to_owned());
        let title = self.out.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let card = Card {
            title,
            about: self.about.clone(),
            data: sources,
            command: command_line(),
            notes: Vec::new(),
        };
        head.save(&self.out, &card.render(&head, &fit))?;
        for line in measured {
            say!("{line}")?;
        }
        say!("wrote {} and its card", self.out.display())?;
        Ok(())
    }

    fn reader(&self, registry: &Registry) -> Result<Reader> {
        let Some(name) = &self.embedder else {
            let policy = Box::new(self.model.load(registry)?);
            return Ok(Reader::Policy(policy, self.text_format.unwrap_or(TextFormat::Chat)));
        };
        self.model.set_threads()?;
        Ok(Reader::Embedder(Box::new(registry.embedder(name)?)))
    }
}

fn pairs_of(reader: &Reader, pairs: &[Pair], name: &str, odd: &mut OddTokens) -> Result<Data> {
    let sets: Vec<Vec<&Conversation>> = pairs.iter().map(|p| vec![&p.chosen, &p.rejected]).collect();
    let rows = reader.features(&sets, name, odd)?;
    let width = reader.width();
    let (mut chosen, mut rejected) = (Vec::new(), Vec::new());
    for pair in rows.chunks(2 * width) {
        chosen.extend_from_slice(&pair[..width]);
        rejected.extend_from_slice(&pair[width..]);
    }
    Ok(Data::Pairs { chosen, rejected, groups: pairs.iter().map(|p| p.group.clone()).collect() })
}

fn rated_of(reader: &Reader, rated: &[Rated], name: &str, odd: &mut OddTokens) -> Result<Data> {
    // All texts share at least the beginning of the chat template.
    let sets: Vec<Vec<&Conversation>> =
        rated.chunks(16).map(|set| set.iter().map(|r| &r.conversation).collect()).collect();
    let rows = reader.features(&sets, name, odd)?;
    let (scores, groups) = rated.iter().map(|r| (r.score, r.group.clone())).unzip();
    Ok(Data::Rated { rows, scores, groups })
}

impl Data {
    fn groups(&self) -> &[String] {
        match self {
            Self::Pairs { groups, .. } | Self::Rated { groups, .. } => groups,
        }
    }

    fn measure(&self, fit: &Fit, width: usize) -> Result<[Metric; 2]> {
        let scores = |rows: &[f32]| -> Result<Vec<f64>> { Ok(fit.scores(Features::new(rows, width)?)?) };
        let groups = group_ids(self.groups().iter().map(String::as_str));
        Ok(match self {
            Self::Pairs { chosen, rejected, .. } => {
                measure::pairs(&scores(chosen)?, &scores(rejected)?, Some(&groups))?
            }
            Self::Rated { rows, scores: truth, .. } => {
                measure::ratings(&scores(rows)?, truth, Some(&groups))?
            }
        })
    }

    fn source(&self, name: &str, metrics: Option<[Metric; 2]>) -> Source {
        let mut groups = self.groups().to_vec();
        let rows = groups.len();
        groups.sort_unstable();
        groups.dedup();
        let part = if metrics.is_some() { "held out" } else { "training" };
        Source { name: name.to_owned(), rows, groups: groups.len(), part: part.to_owned(), metrics }
    }
}

fn fit_all(training: &[(String, Data)], width: usize, settings: &Settings<'_>) -> Result<Fit> {
    let (mut first, mut second, mut scores) = (Vec::new(), Vec::new(), Vec::new());
    for (_, data) in training {
        match data {
            Data::Pairs { chosen, rejected, .. } => {
                first.extend_from_slice(chosen);
                second.extend_from_slice(rejected);
            }
            Data::Rated { rows, scores: more, .. } => {
                first.extend_from_slice(rows);
                scores.extend_from_slice(more);
            }
        }
    }
    let rows = Features::new(&first, width)?;
    Ok(match second.is_empty() {
        true => fit::regression(rows, &scores, settings)?,
        false => fit::bradley_terry(rows, Features::new(&second, width)?, settings)?,
    })
}

fn name(file: &Path) -> String {
    file.file_name().unwrap_or(file.as_os_str()).to_string_lossy().into_owned()
}
