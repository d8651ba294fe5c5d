//! Traces of decoding: one JSON line per step of a response.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::atomic::AtomicFile;
use crate::error::{Error, Result};

/// One decoding step. Lists have one element per candidate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TraceStep {
    /// The prompt's id.
    pub id: String,
    /// Index of the step, from 0.
    pub step: usize,
    /// Token ids of the candidates, the most likely first.
    pub candidates: Vec<u32>,
    /// Their texts.
    pub tokens: Vec<String>,
    /// Scores of the candidates.
    #[serde(flatten)]
    pub scores: Scores,
    /// `m*`, in reward units, for rules with a threshold.
    pub threshold: Option<f64>,
    /// The effective bound `B`, for rules with a bound.
    #[serde(default)]
    pub bound: Option<f64>,
    /// Shaped rewards.
    pub shaped: Option<Vec<f64>>,
    /// Logits (or log-probabilities) plus strength times shaped rewards (or values): the scores that decide.
    pub fused: Vec<f64>,
    /// The chosen token.
    pub chosen: u32,
    /// The base policy's choice.
    pub base_choice: u32,
    /// Whether rewards were skipped because they could not change the choice.
    #[serde(default)]
    pub skipped: bool,
    /// KL from the base policy over the candidates, in nats.
    #[serde(default)]
    pub kl: Option<f64>,
    /// Effective number of candidates under the fused distribution.
    #[serde(default)]
    pub ess: Option<f64>,
    /// `-ln` of the base policy's mass on the candidates, in nats. Older files name it `outside`.
    #[serde(default, alias = "outside")]
    pub tail_nll: Option<f64>,
    /// Log-probability of the chosen token under the base policy at temperature 1, in nats.
    #[serde(default)]
    pub log_prob: Option<f64>,
    /// The continuation of each candidate before it was scored, if segments are scored.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub continuations: Vec<Vec<u32>>,
    /// The components of a combination of rewards, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parts: BTreeMap<String, Vec<f64>>,
    /// What was decided at the end of the block that begins with this step, with blockwise decoding and particles. With
    /// best-of-n, soft-best-of-n and follower, the first step has all samples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block: Option<TraceBlock>,
}

/// A block of several continuations, or all samples of a method that chooses among whole responses. Lists have one element
/// per continuation or sample.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TraceBlock {
    /// Token ids; empty for particles that had finished before. Of whole responses without the token that ended them.
    pub continuations: Vec<Vec<u32>>,
    /// Their texts.
    pub texts: Vec<String>,
    /// Rewards, or values, of the texts at their ends.
    pub scores: Vec<f64>,
    /// The shaped scores, unless the best is kept.
    pub shaped: Option<Vec<f64>>,
    /// `m*`, in reward units, for rules with a threshold.
    pub threshold: Option<f64>,
    /// The effective bound `B`, for rules with a bound.
    pub bound: Option<f64>,
    /// Probabilities to be kept; weights of particles. They sum to 1.
    pub weights: Vec<f64>,
    /// Rewards of finished texts, where the scores are values: they decide the last choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rewards: Option<Vec<Option<f64>>>,
    /// Of particles after the first block: for each, the index of the text that it continues in the block before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parents: Option<Vec<usize>>,
    /// The index of the response's own continuation, or of the sample that is the response.
    pub chosen: usize,
}

/// Scores of the candidates: logits with rewards, or log-probabilities with values.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Scores {
    /// Scores of all methods except controlled decoding.
    Rewards {
        /// The base policy's logits.
        logits: Vec<f64>,
        /// Rewards, if they were computed.
        rewards: Option<Vec<f64>>,
    },
    /// Scores of controlled decoding.
    Values {
        /// Log-probabilities at the policy temperature.
        log_probs: Vec<f64>,
        /// Values, if they were computed.
        values: Option<Vec<f64>>,
    },
}

/// Writes a trace file.
#[derive(Debug)]
pub struct TraceWriter {
    out: BufWriter<File>,
    path: PathBuf,
}

impl TraceWriter {
    /// Opens the trace. With `resume`, an existing file is continued. Steps of prompts that are not in `done` belong to
    /// unfinished responses and are removed.
    ///
    /// # Errors
    /// The file exists and `resume` is false, or it cannot be read or written.
    pub fn open(path: &Path, resume: bool, done: &HashSet<String>) -> Result<Self> {
        let cannot = |source| Error::write(path, source);
        if path.is_file() && path.metadata().map_err(cannot)?.len() > 0 {
            if !resume {
                return Err(Error::File {
                    file: format!("{} exists", path.display()),
                    problem: "name another file".to_owned(),
                });
            }
            let text = std::fs::read_to_string(path).map_err(|e| Error::read(path, e))?;
            let mut kept = AtomicFile::create(path)?;
            for line in text.lines() {
                let value: Value = serde_json::from_str(line).unwrap_or_default();
                if value["id"].as_str().is_some_and(|id| done.contains(id)) {
                    writeln!(kept, "{line}").map_err(cannot)?;
                }
            }
            kept.finish()?;
        }
        let file = OpenOptions::new().append(true).create(true).open(path).map_err(cannot)?;
        Ok(Self { out: BufWriter::new(file), path: path.to_owned() })
    }

    /// Writes the steps of one response.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&mut self, steps: &[TraceStep]) -> Result<()> {
        let cannot = |source: io::Error| Error::write(&self.path, source);
        for step in steps {
            serde_json::to_writer(&mut self.out, step).map_err(|e| cannot(e.into()))?;
            self.out.write_all(b"\n").map_err(cannot)?;
        }
        self.out.flush().map_err(cannot)
    }
}

/// Steps by prompt id.
pub type Steps = HashMap<String, Vec<TraceStep>>;

/// Reads a trace file: the steps by prompt id, and the numbers of malformed lines, which are skipped. Both are empty
/// if the file does not exist.
///
/// # Errors
/// The file cannot be read.
pub fn read(file: &Path) -> Result<(Steps, Vec<usize>)> {
    let mut steps = Steps::new();
    let mut odd = Vec::new();
    let text = match std::fs::read_to_string(file) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok((steps, odd)),
        text => text.map_err(|e| Error::read(file, e))?,
    };
    for (number, line) in (1..).zip(text.lines()) {
        match serde_json::from_str::<TraceStep>(line) {
            Ok(step) => steps.entry(step.id.clone()).or_default().push(step),
            Err(_) => odd.push(number),
        }
    }
    Ok((steps, odd))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(scores: Scores) -> TraceStep {
        TraceStep {
            id: "7".to_owned(),
            step: 0,
            candidates: vec![4, 5],
            tokens: vec!["a".to_owned(), "b".to_owned()],
            scores,
            threshold: Some(0.1 + 0.2),
            bound: Some(8.0),
            shaped: Some(vec![0.0, 8.0]),
            fused: vec![-1.0, 7.5],
            chosen: 5,
            base_choice: 4,
            skipped: true,
            kl: Some(0.5),
            ess: Some(1.5),
            tail_nll: Some(0.25),
            log_prob: Some(-2.0),
            continuations: vec![vec![1], vec![2, 3]],
            parts: BTreeMap::from([("x".to_owned(), vec![1.0, 2.0])]),
            block: Some(TraceBlock {
                continuations: vec![vec![5, 6], vec![7]],
                texts: vec!["b c".to_owned(), "d".to_owned()],
                scores: vec![0.5, -0.5],
                shaped: Some(vec![1.0, 0.0]),
                threshold: Some(0.25),
                bound: Some(2.0),
                weights: vec![0.75, 0.25],
                rewards: Some(vec![Some(1.5), None]),
                parents: Some(vec![1, 1]),
                chosen: 0,
            }),
        }
    }

    #[test]
    fn a_written_step_is_read_back_field_by_field() -> std::result::Result<(), Box<dyn std::error::Error>>
    {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("trace.jsonl");
        let rewards = Scores::Rewards { logits: vec![1.5, 0.1], rewards: Some(vec![-1.0, 2.0]) };
        let values = Scores::Values { log_probs: vec![-0.5, -1.5], values: None };
        let written = [step(rewards), step(values)];
        TraceWriter::open(&path, false, &HashSet::new())?.write(&written)?;
        let (read_back, odd) = read(&path)?;
        assert!(odd.is_empty());
        assert_eq!(read_back["7"], written);
        // The field's old name is still read; malformed lines are reported.
        let text = std::fs::read_to_string(&path)?.replace("tail_nll", "outside");
        assert!(text.contains("\"log_probs\"") && text.contains("\"rewards\""));
        std::fs::write(&path, text + "{}\n")?;
        assert_eq!(read(&path)?, (HashMap::from([("7".to_owned(), written.to_vec())]), vec![3]));
        // Resuming keeps only the steps of finished responses.
        TraceWriter::open(&path, true, &HashSet::from(["8".to_owned()]))?;
        assert_eq!(std::fs::read_to_string(&path)?, "");
        Ok(())
    }
}
