//! The report, as data: what the page embeds as JSON, and what the tables are written from.

use serde::{Deserialize, Serialize};

use crate::estimate::{Estimate, Wins};

/// All that a report shows.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The experiment's name.
    pub title: String,
    /// One paragraph, in the words of whoever wrote the experiment; may be empty.
    pub about: String,
    /// What was found, one sentence each: kept strengths, where guidance degenerates, what differs.
    pub findings: Vec<String>,
    /// Version, commit, command, hashes, seeds: label and value.
    pub facts: Vec<(String, String)>,
    /// The main table first.
    pub tables: Vec<Table>,
    /// Curves: reward against strength, against KL, held-out against guided reward, ...
    pub charts: Vec<Chart>,
    /// Who wins against whom.
    pub matrices: Vec<Matrix>,
    /// Thresholds of steps or prompts.
    pub histograms: Vec<Histogram>,
    /// The columns of the browser: one a method, the base first.
    pub methods: Vec<String>,
    /// Names of the rewards in [`Answer::rewards`], the guide's first.
    pub rewards: Vec<String>,
    /// The prompts and their answers.
    pub questions: Vec<Question>,
    /// The traces that answers refer to.
    pub traces: Vec<Trace>,
}

/// A table.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// A short name, for file names: lower case, hyphens.
    pub name: String,
    /// The heading.
    pub title: String,
    /// One paragraph: how to read it. May be empty.
    pub note: String,
    /// Headings of the columns of cells.
    pub columns: Vec<String>,
    /// The rows.
    pub rows: Vec<Row>,
}

/// A row of a table.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Rows of one group stand together under its name; `bold` compares within it.
    pub group: String,
    /// The row's own name.
    pub label: String,
    /// One cell a column; `None` is shown as a dash.
    pub cells: Vec<Option<Cell>>,
}

/// A number in a table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// The number, with its interval where it has one.
    pub mean: f64,
    /// Its 95 percent interval.
    pub interval: Option<(f64, f64)>,
    /// Digits behind the point.
    pub digits: usize,
    /// The best of its group, and the interval of its difference from the next best says so.
    pub bold: bool,
    /// Its difference from the base has an interval that leaves out 0: -1 below, 1 above, 0 neither.
    pub differs: i8,
}

/// A chart of curves.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Chart {
    /// A short name, for anchors.
    pub name: String,
    /// The heading.
    pub title: String,
    /// How to read it. May be empty.
    pub note: String,
    /// The horizontal axis: a name with its unit.
    pub x: String,
    /// The vertical axis.
    pub y: String,
    /// Whether the horizontal axis is logarithmic.
    pub log_x: bool,
    /// The base policy's value, as a horizontal line.
    pub base: Option<Estimate>,
    /// The curves.
    pub curves: Vec<Curve>,
}

/// A curve: one method under one shaping.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// Its name; the same name has the same colour in all charts.
    pub label: String,
    /// Curves of one group can be shown and hidden together: args, cd, ...
    pub group: String,
    /// Its points, by rising x.
    pub points: Vec<Point>,
}

/// A point of a curve.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Where it stands.
    pub x: f64,
    /// Its value with its interval.
    pub y: Estimate,
    /// What stands beside it when it is pointed at: `λ 2`.
    pub label: String,
    /// Text has degenerated here by the sweep's rule.
    pub degenerate: bool,
}

/// Who wins against whom, all pairs of methods.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Matrix {
    /// The heading.
    pub title: String,
    /// How to read it.
    pub note: String,
    /// The methods.
    pub labels: Vec<String>,
    /// `cells[row][column]`: row against column; `None` on the diagonal.
    pub cells: Vec<Vec<Option<Wins>>>,
}

/// How often a number falls where.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    /// What is counted.
    pub label: String,
    /// The unit of the horizontal axis.
    pub x: String,
    /// Edges of the bins, one more than counts, rising.
    pub edges: Vec<f64>,
    /// How many fall into each.
    pub counts: Vec<usize>,
}

/// A prompt with the answers of every method.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Question {
    /// The prompt's id.
    pub id: String,
    /// Its text.
    pub prompt: String,
    /// One answer a method, in the order of [`Report::methods`]; `None` where a method has none.
    pub answers: Vec<Option<Answer>>,
}

/// One answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// Its text.
    pub text: String,
    /// Its rewards, in the order of [`Report::rewards`].
    pub rewards: Vec<Option<f64>>,
    /// Its KL from the base policy in nats, where it is known.
    pub kl: Option<f64>,
    /// What the hacking watch saw, one short sentence each.
    pub warnings: Vec<String>,
    /// Which trace shows how it came about.
    pub trace: Option<usize>,
}

/// How an answer came about, step by step.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Trace {
    /// Of controlled decoding: its steps have values and log-probabilities, not rewards and logits.
    pub values: bool,
    /// Its steps.
    pub steps: Vec<TraceStep>,
}

/// One step of an answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TraceStep {
    /// The candidates' texts, likeliest first.
    pub tokens: Vec<String>,
    /// Their logits (args) or log-probabilities (cd).
    pub logits: Vec<f64>,
    /// Their rewards (args) or values (cd); `None` where none was asked for.
    pub rewards: Option<Vec<f64>>,
    /// The threshold m*, for rules that have one.
    pub threshold: Option<f64>,
    /// Their shaped rewards.
    pub shaped: Option<Vec<f64>>,
    /// Logits plus strength times shaped reward.
    pub fused: Vec<f64>,
    /// Which candidate was chosen; `None` if the token was not among them.
    pub chosen: Option<usize>,
    /// Which one the base policy would have chosen.
    pub base: Option<usize>,
    /// The chosen token's text.
    pub text: String,
    /// What the hacking watch saw in this step.
    pub warning: Option<String>,
}
