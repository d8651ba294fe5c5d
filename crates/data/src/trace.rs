//! Traces: what was decided at each step of an answer, one JSON line a step.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::atomic::AtomicFile;
use crate::error::{Error, Result};

/// One step. Lists have one element for each candidate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TraceStep {
    /// The prompt's id.
    pub id: String,
    /// From 0.
    pub step: usize,
    /// The candidates, by token id, likeliest first.
    pub candidates: Vec<u32>,
    /// Their texts.
    pub tokens: Vec<String>,
    /// What the candidates were chosen by.
    #[serde(flatten)]
    pub scores: Scores,
    /// m*, in reward units, of rules with a threshold.
    pub threshold: Option<f64>,
    /// The bound B in force, of rules with a bound.
    #[serde(default)]
    pub bound: Option<f64>,
    /// Shaped rewards.
    pub shaped: Option<Vec<f64>>,
    /// Logits (log-probabilities) plus strength times shaped rewards (values): what was chosen by.
    pub fused: Vec<f64>,
    /// The token chosen.
    pub chosen: u32,
    /// The token that the base policy would have chosen.
    pub base_choice: u32,
    /// Whether no reward could have changed the choice, so that none was computed.
    #[serde(default)]
    pub skipped: bool,
    /// KL from the base policy over the candidates, in nats.
    #[serde(default)]
    pub kl: Option<f64>,
    /// Effective number of candidates under the fused distribution.
    #[serde(default)]
    pub ess: Option<f64>,
    /// `-ln` of the base policy's mass on the candidates, in nats. Older files call it `outside`.
    #[serde(default, alias = "outside")]
    pub tail_nll: Option<f64>,
    /// Log-probability of the chosen token under the base policy at temperature 1, in nats.
    #[serde(default)]
    pub log_prob: Option<f64>,
    /// What each candidate was continued with before it was scored, where segments are scored.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub continuations: Vec<Vec<u32>>,
    /// Of a combination of rewards: what each said, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parts: BTreeMap<String, Vec<f64>>,
}

/// What the candidates of a step were chosen by: rewards beside logits, or values beside log-probabilities.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Scores {
    /// All methods but controlled decoding.
    Rewards {
        /// The base policy's logits.
        logits: Vec<f64>,
        /// Rewards, where they were computed.
        rewards: Option<Vec<f64>>,
    },
    /// Controlled decoding.
    Values {
        /// Log-probabilities at the policy temperature.
        log_probs: Vec<f64>,
        /// Values, where they were computed.
        values: Option<Vec<f64>>,
    },
}

/// A file of steps that is being written.
#[derive(Debug)]
pub struct TraceWriter {
    out: BufWriter<File>,
    path: PathBuf,
}

impl TraceWriter {
    /// Opens the trace. An existing one is only changed to resume it: steps of prompts that are not in `done` belong to
    /// an answer that was not finished, and are dropped.
    ///
    /// # Errors
    /// It exists and is not resumed, or cannot be read or written.
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

    /// Writes the steps of one answer.
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

/// The steps of a trace file by prompt id, and the numbers of the lines that are no steps, which are left out; nothing
/// where there is no file.
///
/// # Errors
/// The file cannot be read.
pub fn read(file: &Path) -> Result<(HashMap<String, Vec<TraceStep>>, Vec<usize>)> {
    let mut steps: HashMap<String, Vec<TraceStep>> = HashMap::new();
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
        // Files from before the field was renamed; a line that is no step is told.
        let text = std::fs::read_to_string(&path)?.replace("tail_nll", "outside");
        assert!(text.contains("\"log_probs\"") && text.contains("\"rewards\""));
        std::fs::write(&path, text + "{}\n")?;
        assert_eq!(read(&path)?, (HashMap::from([("7".to_owned(), written.to_vec())]), vec![3]));
        // Resumed, only the steps of finished answers stay.
        TraceWriter::open(&path, true, &HashSet::from(["8".to_owned()]))?;
        assert_eq!(std::fs::read_to_string(&path)?, "");
        Ok(())
    }
}
