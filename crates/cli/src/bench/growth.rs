//! How the time of a step grows with the text.

use std::collections::BTreeMap;

use anyhow::Result;
use indicatif::ProgressBar;
use serde::Serialize;
use stackelberg_engine::Model;

use super::figures::Figure;
use super::steps::{look_ahead, timed};

/// Medians over the steps up to each length.
#[derive(Serialize)]
pub(super) struct Growth {
    token_ms: BTreeMap<usize, f64>,
    /// Looking ahead at 10 candidates and taking one of them.
    branch_10_ms: BTreeMap<usize, f64>,
}

/// Steps from which a median is taken.
const WINDOW: usize = 250;

impl Growth {
    /// Writes two texts of `length` tokens, step by step in turns. Which tokens makes no difference.
    pub(super) fn measure(model: &Model, candidates: &[u32], length: usize) -> Result<Self> {
        let mut growth = Self { token_ms: BTreeMap::new(), branch_10_ms: BTreeMap::new() };
        let mut texts = [model.prefill(&candidates[..1])?.0, model.prefill(&candidates[..1])?.0];
        let bar = ProgressBar::new(length as u64).with_message("a long text");
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

    /// A table for people.
    pub(super) fn table(&self) -> String {
        let mut table = "a text of up to       one token      branch of 10\n".to_owned();
        for ((length, token), branch) in self.token_ms.iter().zip(self.branch_10_ms.values()) {
            table.push_str(&format!("{length:>8} tokens{token:>13.2} ms{branch:>15.2} ms\n"));
        }
        table
    }
}
