//! Rewards that differ when the same text is scored again.

use stackelberg_evaluation::compare::mean;

use super::trial::Trial;
use crate::error::Result;
use crate::lab::Lab;

/// Noise below this fraction of the spread over answers is of no consequence.
const NEGLIGIBLE: f64 = 0.05;

/// Scores the answers of plain sampling twice. If the guide, which is not in this process, is noisy, scores the answers of all
/// trials again, because those that were drawn while choosing are too high: the highest was chosen. Returns what the user
/// should know.
pub(super) fn remove(lab: &Lab<'_>, trials: &mut [Trial]) -> Result<Option<String>> {
    let Some(plain) = trials.first().filter(|_| lab.guide.is_remote()) else { return Ok(None) };
    let answers = &plain.runs[0].responses;
    let (first, second) = (lab.score_again(answers)?, lab.score_again(answers)?);
    let Some(noise) = noise(&first, &second) else { return Ok(None) };
    for trial in trials {
        for (run, seed) in trial.runs.iter().zip(&mut trial.series.seeds) {
            for (measured, reward) in seed.iter_mut().zip(lab.score_again(&run.responses)?) {
                measured.rewards.insert(lab.guide_name.clone(), reward);
            }
        }
    }
    Ok(Some(format!(
        "the reward of the same text varies (standard deviation {:.3} between two calls, {:.3} between answers): the gains are those of \
         answers that were scored again",
        noise.within, noise.between
    )))
}

struct Noise {
    /// Standard deviation of the rewards of one text.
    within: f64,
    /// Standard deviation over texts of one call.
    between: f64,
}

/// The noise of rewards of the same texts; `None` if it is negligible.
fn noise(first: &[f64], second: &[f64]) -> Option<Noise> {
    let differences: Vec<f64> = first.iter().zip(second).map(|(a, b)| (a - b).powi(2)).collect();
    let centre = mean(first);
    let squares: Vec<f64> = first.iter().map(|reward| (reward - centre).powi(2)).collect();
    let (within, between) = ((mean(&differences) / 2.0).sqrt(), mean(&squares).sqrt());
    (within > NEGLIGIBLE * between).then_some(Noise { within, between })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_told_from_spread() {
        let rewards = [0.0, 1.0, 2.0, 3.0];
        assert!(noise(&rewards, &rewards).is_none());
        assert!(noise(&rewards, &[0.01, 0.99, 2.01, 2.99]).is_none());
        let found = noise(&rewards, &[1.0, 0.0, 3.0, 2.0]).unwrap();
        assert!(
            (found.within - 0.5f64.sqrt()).abs() < 1e-12
                && (found.between - 1.25f64.sqrt()).abs() < 1e-12
        );
        assert!(noise(&[], &[]).is_none() && noise(&[1.0], &[1.0]).is_none());
    }
}
