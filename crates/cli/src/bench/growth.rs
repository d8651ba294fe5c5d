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

/// Lengths that are measured, evenly spaced.
const POINTS: usize = 8;
/// Steps of each kind before a length, at most.
const STEPS: usize = 25;

/// The shortest length: before each point, one token is prefilled and a step of each kind is measured.
pub(super) const SHORTEST: usize = 3 * POINTS;

impl Growth {
    /// Grows a sequence to `length` tokens. Most are prefilled; the last ones before each point are steps of one token and of
    /// a branch in turn. The choice of tokens does not matter.
    pub(super) fn measure(model: &Model, candidates: &[u32], length: usize) -> Result<Self> {
        let mut growth = Self { token_ms: BTreeMap::new(), branch_10_ms: BTreeMap::new() };
        let bar = ProgressBar::new(length as u64).with_message("a long sequence");
        let mut text = model.empty();
        for point in (1..=POINTS).map(|i| length * i / POINTS) {
            let steps = STEPS.min((point - text.len() - 1) / 2);
            let filling = candidates.iter().copied().cycle().take(point - 2 * steps - text.len());
            model.extend(&mut text, &filling.collect::<Vec<_>>())?;
            let mut samples = [Vec::new(), Vec::new()];
            for at in 0..steps {
                for (samples, k) in samples.iter_mut().zip([1, 10]) {
                    let step = || {
                        let (branches, _) = look_ahead(model, &text, &candidates[..k])?;
                        Ok(text.commit(&branches, at % k)?)
                    };
                    samples.push(timed(step)?.1);
                }
            }
            let [token, branch] = &mut samples;
            growth.token_ms.insert(point, Figure::of(token).median);
            growth.branch_10_ms.insert(point, Figure::of(branch).median);
            bar.set_position(point as u64);
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
