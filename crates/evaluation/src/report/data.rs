//! The data of a report. The page embeds it as JSON.

use serde::{Deserialize, Serialize};

use crate::estimate::{Estimate, Wins};

/// A report.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The experiment's name.
    pub title: String,
    /// One paragraph by the author of the experiment; may be empty. Text between backticks is code, here and in the title,
    /// the findings, headings and notes.
    pub about: String,
    /// The sentences that the page opens with: at most five.
    #[serde(default)]
    pub opening: Vec<String>,
    /// All other findings, one sentence each. The page shows them folded.
    pub findings: Vec<String>,
    /// Labels and values that describe the experiment: version, commit, command, hashes, seeds.
    pub facts: Vec<(String, String)>,
    /// The main table first.
    pub tables: Vec<Table>,
    /// The charts.
    pub charts: Vec<Chart>,
    /// The win rates between methods, one matrix per reward.
    pub matrices: Vec<Matrix>,
    /// The histograms of thresholds.
    pub histograms: Vec<Histogram>,
    /// The methods whose answers the page shows, the base policy first.
    pub methods: Vec<String>,
    /// The names of the rewards in [`Answer::rewards`], the guide's first.
    pub rewards: Vec<String>,
    /// The prompts and their answers.
    pub questions: Vec<Question>,
    /// The traces that answers refer to.
    pub traces: Vec<Trace>,
}

/// A table.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// A short name for file names: lower case, with hyphens.
    pub name: String,
    /// The heading.
    pub title: String,
    /// One paragraph on how to read the table; may be empty.
    pub note: String,
    /// The headings of the columns.
    pub columns: Vec<String>,
    /// The rows.
    pub rows: Vec<Row>,
}

/// A row of a table.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The group. Rows of one group follow each other; [`Cell::bold`] compares within a group.
    pub group: String,
    /// The name of the row.
    pub label: String,
    /// One cell per column; `None` is shown as a dash.
    pub cells: Vec<Option<Cell>>,
}

impl Table {
    /// The table with its rows as columns, and its columns as rows. Groups are left out.
    #[must_use]
    pub fn transposed(&self) -> Self {
        let row = |(column, name): (usize, &String)| Row {
            label: name.clone(),
            cells: self.rows.iter().map(|row| row.cells.get(column).cloned().flatten()).collect(),
            ..Row::default()
        };
        Self {
            columns: self.rows.iter().map(|row| row.label.clone()).collect(),
            rows: self.columns.iter().enumerate().map(row).collect(),
            ..self.clone()
        }
    }
}

/// A number in a table.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// The number.
    pub mean: f64,
    /// Its 95 percent interval, if there is one.
    pub interval: Option<(f64, f64)>,
    /// The number of decimals.
    pub digits: usize,
    /// Whether it is the best of its group, and the interval of its difference from the second best excludes 0.
    pub bold: bool,
    /// The sign of its difference from the base policy if the interval excludes 0, and 0 otherwise.
    pub differs: i8,
}

impl Cell {
    /// A mean with its interval, if it is finite.
    pub fn of(Estimate { mean, low, high }: Estimate, digits: usize) -> Self {
        let interval = low.is_finite().then_some((low, high));
        Self { mean, interval, digits, ..Self::default() }
    }
}

/// A chart of curves.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Chart {
    /// A short name for anchors.
    pub name: String,
    /// The heading.
    pub title: String,
    /// How to read the chart; may be empty.
    pub note: String,
    /// The label of the horizontal axis: a name with its unit.
    pub x: String,
    /// The label of the vertical axis.
    pub y: String,
    /// Whether the horizontal axis is logarithmic.
    pub log_x: bool,
    /// The base policy's value, drawn as a horizontal line.
    pub base: Option<Estimate>,
    /// The curves.
    pub curves: Vec<Curve>,
}

/// A curve: one method with one shaping.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// The name. It has the same colour in all charts.
    pub label: String,
    /// The group (args, cd, ...). The curves of a group can be shown and hidden together.
    pub group: String,
    /// The points, by rising x.
    pub points: Vec<Point>,
}

/// A point of a curve.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// The horizontal position.
    pub x: f64,
    /// The value with its interval.
    pub y: Estimate,
    /// The label, shown when the pointer is over the point: `λ 2`.
    pub label: String,
    /// Whether text has degenerated by the sweep's rule.
    pub degenerate: bool,
}

/// Wins, ties and losses between all pairs of methods.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Matrix {
    /// The heading.
    pub title: String,
    /// How to read the matrix.
    pub note: String,
    /// The methods.
    pub labels: Vec<String>,
    /// `cells[row][column]` is the row against the column; `None` on the diagonal.
    pub cells: Vec<Vec<Option<Wins>>>,
}

/// A histogram.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    /// The name of the counted quantity.
    pub label: String,
    /// The label of the horizontal axis.
    pub x: String,
    /// The rising edges of the bins, one more than there are counts.
    pub edges: Vec<f64>,
    /// The count of each bin.
    pub counts: Vec<usize>,
}

/// A prompt with the answers of every method.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Question {
    /// The prompt's id.
    pub id: String,
    /// Its text.
    pub prompt: String,
    /// One answer per method, in the order of [`Report::methods`]; `None` for a method without an answer.
    pub answers: Vec<Option<Answer>>,
}

/// One answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// Its text.
    pub text: String,
    /// The rewards, in the order of [`Report::rewards`].
    pub rewards: Vec<Option<f64>>,
    /// The KL divergence from the base policy in nats, if it is known.
    pub kl: Option<f64>,
    /// The warnings about reward hacking, one short sentence each.
    pub warnings: Vec<String>,
    /// The index of its trace in [`Report::traces`].
    pub trace: Option<usize>,
}

/// The decoding steps of an answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Trace {
    /// Whether the method is controlled decoding, whose steps have values and log-probabilities in place of rewards and
    /// logits.
    pub values: bool,
    /// The steps.
    pub steps: Vec<TraceStep>,
}

/// One decoding step.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TraceStep {
    /// The texts of the candidates, the most likely first.
    pub tokens: Vec<String>,
    /// Their logits (args) or log-probabilities (cd).
    pub logits: Vec<f64>,
    /// Their rewards (args) or values (cd); `None` if they were not computed in this step.
    pub rewards: Option<Vec<f64>>,
    /// The threshold m*, for shapings that have one.
    pub threshold: Option<f64>,
    /// Their shaped rewards.
    pub shaped: Option<Vec<f64>>,
    /// Logits plus strength times shaped reward.
    pub fused: Vec<f64>,
    /// The index of the chosen candidate; `None` if the token was not among the candidates.
    pub chosen: Option<usize>,
    /// The index of the candidate that the base policy would have chosen.
    pub base: Option<usize>,
    /// The text of the chosen token.
    pub text: String,
    /// The warning about reward hacking in this step.
    pub warning: Option<String>,
}
