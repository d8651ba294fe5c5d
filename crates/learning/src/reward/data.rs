//! Features of files of judgements.

use stackelberg_data::{Conversation, group_ids};
use stackelberg_registry::layout::OddTokens;

use super::judgements::Judged;
use super::reader::Reader;
use super::watch::Watch;
use crate::card::Source;
use crate::error::Error;
use crate::features::Features;
use crate::fit::{self, Fit, Settings};
use crate::measure::{self, Metric};

/// Features of one file of preference pairs or ratings.
pub(super) enum Data {
    Pairs { chosen: Vec<f32>, rejected: Vec<f32>, groups: Vec<String> },
    Rated { rows: Vec<f32>, scores: Vec<f64>, groups: Vec<String> },
}

impl Data {
    /// Computes the features of a file's texts.
    pub(super) fn of(
        reader: &Reader,
        judged: &Judged,
        name: &str,
        odd: &mut OddTokens,
        watch: &(dyn Watch + Sync),
    ) -> Result<Self, Error> {
        match judged {
            Judged::Pairs(pairs) => {
                let sets: Vec<Vec<&Conversation>> =
                    pairs.iter().map(|p| vec![&p.chosen, &p.rejected]).collect();
                let rows = reader.features(&sets, name, odd, watch)?;
                let width = reader.width();
                let (mut chosen, mut rejected) = (Vec::new(), Vec::new());
                for pair in rows.chunks(2 * width) {
                    chosen.extend_from_slice(&pair[..width]);
                    rejected.extend_from_slice(&pair[width..]);
                }
                let groups = pairs.iter().map(|p| p.group.clone()).collect();
                Ok(Self::Pairs { chosen, rejected, groups })
            }
            Judged::Rated(rated) => {
                // All texts share at least the beginning of the chat template.
                let sets: Vec<Vec<&Conversation>> =
                    rated.chunks(16).map(|set| set.iter().map(|r| &r.conversation).collect()).collect();
                let rows = reader.features(&sets, name, odd, watch)?;
                let (scores, groups) = rated.iter().map(|r| (r.score, r.group.clone())).unzip();
                Ok(Self::Rated { rows, scores, groups })
            }
        }
    }

    pub(super) fn groups(&self) -> &[String] {
        match self {
            Self::Pairs { groups, .. } | Self::Rated { groups, .. } => groups,
        }
    }

    pub(super) fn measure(&self, fit: &Fit, width: usize) -> Result<[Metric; 2], Error> {
        let scores =
            |rows: &[f32]| -> Result<Vec<f64>, Error> { fit.scores(Features::new(rows, width)?) };
        let groups = group_ids(self.groups().iter().map(String::as_str));
        match self {
            Self::Pairs { chosen, rejected, .. } => {
                measure::pairs(&scores(chosen)?, &scores(rejected)?, Some(&groups))
            }
            Self::Rated { rows, scores: truth, .. } => {
                measure::ratings(&scores(rows)?, truth, Some(&groups))
            }
        }
    }

    pub(super) fn source(&self, name: &str, metrics: Option<[Metric; 2]>) -> Source {
        let mut groups = self.groups().to_vec();
        let rows = groups.len();
        groups.sort_unstable();
        groups.dedup();
        let part = if metrics.is_some() { "held out" } else { "training" };
        Source { name: name.to_owned(), rows, groups: groups.len(), part: part.to_owned(), metrics }
    }
}

/// Fits a head to all files together.
pub(super) fn fit_all(
    training: &[(String, Data)],
    width: usize,
    settings: &Settings<'_>,
) -> Result<Fit, Error> {
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
    match second.is_empty() {
        true => fit::regression(rows, &scores, settings),
        false => fit::bradley_terry(rows, Features::new(&second, width)?, settings),
    }
}
