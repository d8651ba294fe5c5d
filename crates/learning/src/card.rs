//! The model card of a reward head in Markdown: training data, metrics and settings. It has no date, so that equal
//! training gives equal bytes.

use std::fmt::Write;

use stackelberg_engine::reward::Backbone;

use crate::fit::{Fit, Kind};
use crate::head::Head;
use crate::measure::Metric;

/// A dataset that a head was trained or evaluated on.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Source {
    /// Name of the file or dataset.
    pub name: String,
    /// Number of pairs or texts.
    pub rows: usize,
    /// Number of distinct conversations (groups).
    pub groups: usize,
    /// `training` or `held out`.
    pub part: String,
    /// Metrics of the head, if held out.
    pub metrics: Option<[Metric; 2]>,
}

/// The parts of a card that only the caller knows.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Card {
    /// The head's name.
    pub title: String,
    /// What a high reward means, in one or two sentences. May be empty.
    pub about: String,
    /// Training and held-out data.
    pub data: Vec<Source>,
    /// The command line that reproduces the head.
    pub command: String,
    /// Further paragraphs: licences, citations, limitations.
    pub notes: Vec<String>,
}

impl Card {
    /// Renders the card of a head and its fit as Markdown.
    pub fn render(&self, head: &Head, fit: &Fit) -> String {
        let mut out = format!("# {}\n\n", self.title);
        if !self.about.is_empty() {
            out += &format!("{}\n\n", self.about);
        }
        let from = match fit.kind {
            Kind::Pairs => "preference pairs, Bradley-Terry",
            Kind::Ratings => "ratings, ridge regression",
        };
        let edge = if fit.at_edge() { " (at the edge of the grid)" } else { "" };
        table(&mut out, &["reward head", ""]);
        row(&mut out, &["training data", from]);
        row(&mut out, &["base model", &base(head)]);
        if let Backbone::Embedder(pooling) = head.backbone {
            let what = format!(
                "an embedder ({pooling} pooling): it scores complete texts and cannot guide decoding"
            );
            row(&mut out, &["backbone", &what]);
        }
        row(&mut out, &["text format", &head.text_format.to_string()]);
        row(&mut out, &["width", &head.weight.len().to_string()]);
        let scale = format!("mean {:.6}, standard deviation {:.6}", head.reward_mean, head.reward_std);
        row(&mut out, &["raw score on the training responses", &scale]);
        row(&mut out, &["regularisation", &format!("{:.3e}{edge}", fit.regularisation)]);
        for (key, value) in &head.extra {
            row(&mut out, &[key, value]);
        }
        self.quality(&mut out, fit);
        cross_validation(&mut out, fit);
        if !self.command.is_empty() {
            out += &format!("\n## Command\n\n    {}\n", self.command.replace('\n', "\n    "));
        }
        if !self.notes.is_empty() {
            out += &format!("\n## Notes\n\n{}\n", self.notes.join("\n\n"));
        }
        out
    }

    fn quality(&self, out: &mut String, fit: &Fit) {
        *out += "\n## Data and quality\n\n";
        let [first, second] = fit.held_out;
        table(out, &["data", "part", "rows", "groups", first.name, second.name]);
        for source in &self.data {
            let (rows, groups) = (source.rows.to_string(), source.groups.to_string());
            let [a, b] = source.metrics.map_or([String::new(), String::new()], |m| m.map(shown));
            row(out, &[&source.name, &source.part, &rows, &groups, &a, &b]);
        }
        let (rows, groups) = (fit.rows.to_string(), fit.groups.to_string());
        let [a, b] = [shown(first), shown(second)];
        row(out, &["all training data", "cross-validation", &rows, &groups, &a, &b]);
        *out += "\nValues are given with one standard error over groups. The regularisation was chosen by \
                 cross-validation, so the cross-validation metrics are slightly optimistic.\n";
    }
}

/// The pair accuracies in a card (see [`Card::render`]): on held-out data, and of the cross-validation. Nothing for heads that
/// were trained on ratings, and for other texts.
pub fn pair_accuracies(card: &str) -> Vec<f64> {
    let cells = |line: &str| -> Vec<String> {
        // Names of files may have the separator in them.
        line.replace("\\|", "/").split('|').map(|cell| cell.trim().to_owned()).collect()
    };
    let quality = card.split("\n## ").find(|section| section.starts_with("Data and quality"));
    let mut rows = quality.unwrap_or_default().lines().filter(|line| line.starts_with('|')).map(cells);
    let column = rows.next().and_then(|head| head.iter().position(|cell| cell == "pair accuracy"));
    let Some(column) = column else { return Vec::new() };
    let value = |row: Vec<String>| row.get(column)?.split(' ').next()?.parse().ok();
    rows.filter_map(value).collect()
}

fn base(head: &Head) -> String {
    match (&head.base_name, &head.base) {
        (Some(name), Some(hash)) => format!("{name} ({hash})"),
        (Some(one), None) | (None, Some(one)) => one.clone(),
        (None, None) => "not recorded".to_owned(),
    }
}

fn cross_validation(out: &mut String, fit: &Fit) {
    // Writing to a String cannot fail.
    let _ = write!(
        out,
        "\n## Cross-validation\n\n{} folds, seed {}, no group in two folds.\n\n",
        fit.folds, fit.seed
    );
    let [first, second] = fit.held_out;
    table(out, &["regularisation", first.name, second.name, ""]);
    for trial in &fit.cross_validation {
        let chosen = if trial.regularisation == fit.regularisation { "chosen" } else { "" };
        let [a, b] = trial.metrics.map(shown);
        row(out, &[&format!("{:.3e}", trial.regularisation), &a, &b, chosen]);
    }
}

fn shown(metric: Metric) -> String {
    format!("{:.4} ± {:.4}", metric.value, metric.standard_error)
}

/// Writes the header of a Markdown table.
pub(crate) fn table(out: &mut String, head: &[&str]) {
    row(out, head);
    *out += &format!("|{}\n", "---|".repeat(head.len()));
}

/// Writes a row of a Markdown table.
pub(crate) fn row(out: &mut String, cells: &[&str]) {
    for cell in cells {
        *out += &format!("| {} ", cell.replace('|', "\\|").replace('\n', " "));
    }
    *out += "|\n";
}

#[cfg(test)]
mod tests {
    use super::pair_accuracies;

    #[test]
    fn accuracies_are_those_of_the_section_on_quality() {
        let card = "# a\n\n## Data and quality\n\n\
             | data | part | rows | groups | pair accuracy | log-loss |\n|---|---|---|---|---|---|\n\
             | train\\|1.jsonl | training | 1184 | 1118 |  |  |\n\
             | judge\\|1.jsonl | held out | 487 | 460 | 0.6632 ± 0.0218 | 0.6022 ± 0.0174 |\n\
             | all training data | cross-validation | 1184 | 1118 | 1.0000 ± 0.0000 | 0.0001 ± 0.0000 |\n\n\
             ## Cross-validation\n\n| regularisation | pair accuracy |\n|---|---|\n| 1e2 | 0.5 ± 0.1 |\n";
        assert_eq!(pair_accuracies(card), [0.6632, 1.0]);
        assert!(pair_accuracies(&card.replace("pair accuracy", "Pearson r")).is_empty());
        assert!(pair_accuracies("").is_empty());
    }
}
