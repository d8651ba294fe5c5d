//! Rewards made worse on purpose, to see what a method makes of a bad reward.

use std::fmt;
use std::str::FromStr;

use crate::randomness::Randomness;

/// What is done to rewards and values before they are shaped. What is recorded of a finished answer is its true
/// reward.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub enum Perturbation {
    /// Nothing.
    #[default]
    None,
    /// Gaussian noise of this standard deviation, in reward units, is added to each.
    Noise(f64),
    /// Each is replaced by a Gaussian number of mean 0 and this standard deviation.
    Random(f64),
    /// The best of a step gets the reward of the worst, the second best that of the second worst, and so on.
    Reversed,
}

impl Perturbation {
    /// Makes rewards worse.
    pub(crate) fn perturb(self, rewards: &mut [f64], randomness: &mut Randomness) {
        match self {
            Self::None => {}
            Self::Noise(std) => rewards.iter_mut().for_each(|r| *r += std * randomness.normal()),
            Self::Random(std) => rewards.iter_mut().for_each(|r| *r = std * randomness.normal()),
            Self::Reversed => {
                let mut order: Vec<usize> = (0..rewards.len()).collect();
                order.sort_by(|&a, &b| rewards[a].total_cmp(&rewards[b]));
                let sorted: Vec<f64> = order.iter().map(|&i| rewards[i]).collect();
                order.iter().rev().zip(sorted).for_each(|(&i, reward)| rewards[i] = reward);
            }
        }
    }

    /// The standard deviation, where there is one.
    pub(crate) fn std(self) -> f64 {
        match self {
            Self::Noise(std) | Self::Random(std) => std,
            Self::None | Self::Reversed => 0.0,
        }
    }
}

impl fmt::Display for Perturbation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.pad("none"),
            Self::Noise(std) => f.pad(&format!("noise={std}")),
            Self::Random(std) => f.pad(&format!("random={std}")),
            Self::Reversed => f.pad("reversed"),
        }
    }
}

impl FromStr for Perturbation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.parse().map_err(|e| format!("{text:?}: {e}"));
        match text.split_once('=') {
            None if text == "none" => Ok(Self::None),
            None if text == "reversed" => Ok(Self::Reversed),
            Some(("noise", std)) => number(std).map(Self::Noise),
            Some(("random", std)) => number(std).map(Self::Random),
            _ => Err(format!("'{text}' is none of none, noise=STD, random=STD, reversed")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reversed_ranks_the_other_way_round() {
        let mut rewards = [0.5, 3.0, -1.0, 2.0];
        Perturbation::Reversed.perturb(&mut rewards, &mut Randomness::new(0, "p", 0));
        assert_eq!(rewards, [2.0, -1.0, 3.0, 0.5]);
    }

    #[test]
    fn noise_has_its_standard_deviation() {
        for (perturbation, mean) in [(Perturbation::Noise(2.0), 7.0), (Perturbation::Random(2.0), 0.0)] {
            let mut rewards = [7.0; 4000];
            perturbation.perturb(&mut rewards, &mut Randomness::new(3, "p", 0));
            let found = rewards.iter().sum::<f64>() / 4000.0;
            let variance = rewards.iter().map(|r| (r - found).powi(2)).sum::<f64>() / 4000.0;
            assert!((found - mean).abs() < 0.12, "{perturbation}: {found}");
            assert!((variance - 4.0).abs() < 0.35, "{perturbation}: {variance}");
        }
    }

    #[test]
    fn names_are_read_back() {
        for perturbation in [
            Perturbation::None,
            Perturbation::Noise(0.5),
            Perturbation::Random(5.0),
            Perturbation::Reversed,
        ] {
            assert_eq!(perturbation.to_string().parse(), Ok(perturbation));
        }
        assert!("noise".parse::<Perturbation>().is_err());
    }
}
