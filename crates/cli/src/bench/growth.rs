//! Measures how the time of a step grows with the length of the sequence.

use std::collections::BTreeMap;

use anyhow::Result;
use indicatif::ProgressBar;
use serde::Serialize;
use stackelberg_engine::Model;

use super::figures::Figure;
use super::steps::{look_ahead, timed};

/// Medians over the last steps before each length, in milliseconds.
#[derive(Serialize)]
pub(super) struct Growth {
    token_ms: BTreeMap<usize, f64>,
    /// A branch of 10 candidates, of which one is committed.
    branch_10_ms: BTreeMap<usize, f64>,
}

/// Steps per median.
const WINDOW: usize = 250;

impl Growth {
    /// Grows two sequences to `length` tokens, alternating step by step. The choice of tokens does not matter.
    pub(super) fn measure(model: &Model, candidates: &[u32], length: usize) -> Result<Self> {
        let mut growth = Self { token_ms: BTreeMap::new(), branch_10_ms: BTreeMap::new() };
        let mut texts = [model.prefill(&candidates[..1])?.0, model.prefill(&candidates[..1])?.0];
        let bar = ProgressBar::new(length as u64).with_message("a long sequence");
        let mut samples = [Vec::new(), Vec::new()];
        for at in 1..length {
            for ((text, samples), k) in texts.iter_mut().zip(&mut samples).zip([1, 10]) {
                let candidates = &candidates[..k];
                let step = || {
                    let (branches, _) = look_ahead(model, text, candidates)?;
                    Ok(text.commit(&branches, at % k)?)
                };
                samples.push(timed(step)?.1);
            }
            bar.inc(1);
            if (at + 1) % WINDOW == 0 || at + 1 == length {
                let [token, branch] = &mut samples;
                growth.token_ms.insert(at + 1, Figure::of(token).median);
                growth.branch_10_ms.insert(at + 1, Figure::of(branch).median);
                samples.iter_mut().for_each(Vec::clear);
            }
        }
        bar.finish_and_clear();
        Ok(growth)
    }

    /// The figures as a text table.
    pub(super) fn table(&self) -> String {
        let mut table = "sequence up to        one token      branch of 10\n".to_owned();
        for ((length, token), branch) in self.token_ms.iter().zip(self.branch_10_ms.values()) {
            table.push_str(&format!("{length:>8} tokens{token:>13.2} ms{branch:>15.2} ms\n"));
        }
        table
    }
}
