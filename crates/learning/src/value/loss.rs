//! What a value head is asked to do, as a number and its slope: one function per loss, of one sample at a
//! time, without a tensor in sight.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How values `V_1 .. V_T` along a sample are held against its shaped reward `s`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Loss {
    /// `(V_T - s)² + coef · mean_t (V_t - V_{t+1})²`, the paper's: right at the end, and smooth on the way.
    /// Nothing but smoothness tells the values on the way what the end will be.
    Smooth {
        /// `coef`.
        coef: f64,
    },
    /// `mean_t (V_t - G_t)²` with the TD(λ) return of the token game whose only reward is `s` at the end,
    /// `G_T = s`, `G_t = (1 - λ) V_{t+1} + λ G_{t+1}`, taken as given. At λ = 1 every value is fitted to the
    /// end itself, so that `V` is the expected shaped reward of a text begun so; smaller λ lean on later
    /// values instead, which are less noisy but not yet right.
    Td {
        /// `λ`, from 0 to 1.
        lambda: f64,
    },
}

/// How well values fit one sample.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Errors {
    /// `(V_T - s)²`, in squared units of the shaped reward.
    pub last: f64,
    /// `mean_t (V_t - s)²`: the error where decoding reads values, along the whole text.
    pub along: f64,
}

impl Loss {
    /// Its name, as on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Smooth { .. } => "smooth",
            Self::Td { .. } => "td",
        }
    }

    /// The loss of one sample with at least one value; its derivatives by the values are added to `slope`,
    /// times `scale`.
    pub(super) fn of(self, values: &[f32], s: f64, scale: f64, slope: &mut [f32]) -> f64 {
        let last = values.len() - 1;
        let value = |t: usize| f64::from(values[t]);
        let mut push = |t: usize, by: f64| slope[t] += (scale * by) as f32;
        match self {
            Self::Smooth { coef } => {
                let error = value(last) - s;
                push(last, 2.0 * error);
                let mut loss = error * error;
                for t in 0..last {
                    let share = coef / last as f64;
                    let step = value(t) - value(t + 1);
                    push(t, 2.0 * share * step);
                    push(t + 1, -2.0 * share * step);
                    loss += share * step * step;
                }
                loss
            }
            Self::Td { lambda } => {
                let (mut loss, mut target, share) = (0.0, s, 1.0 / values.len() as f64);
                for t in (0..values.len()).rev() {
                    if t < last {
                        target = (1.0 - lambda) * value(t + 1) + lambda * target;
                    }
                    let error = value(t) - target;
                    push(t, 2.0 * share * error);
                    loss += share * error * error;
                }
                loss
            }
        }
    }

    /// Which of the errors on validation samples decides: the one that the loss is made to reduce.
    pub fn decides(self, errors: Errors) -> f64 {
        match self {
            Self::Smooth { .. } => errors.last,
            Self::Td { .. } => errors.along,
        }
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Smooth { coef } => write!(f, "smooth, coef {coef}"),
            Self::Td { lambda } => write!(f, "td, lambda {lambda}"),
        }
    }
}

impl Errors {
    /// Those of one sample.
    pub(super) fn of(values: &[f32], s: f64, bound: Option<f64>) -> Self {
        let error = |value: &f32| {
            let value = f64::from(*value);
            (bound.map_or(value, |bound| value.clamp(0.0, bound)) - s).powi(2)
        };
        let along = values.iter().map(error).sum::<f64>() / values.len() as f64;
        Self { last: values.last().map_or(0.0, error), along }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worked_examples() {
        let (values, mut slope) = ([1.0, 3.0, 2.0], [0.0; 3]);
        let loss = Loss::Smooth { coef: 0.5 }.of(&values, 4.0, 1.0, &mut slope);
        assert_eq!(loss, 4.0 + 0.5 * (4.0 + 1.0) / 2.0);
        let loss = Loss::Td { lambda: 1.0 }.of(&values, 4.0, 1.0, &mut slope);
        assert!((loss - (9.0 + 1.0 + 4.0) / 3.0).abs() < 1e-12);
        // Returns: 4, (2 + 4) / 2 = 3, (3 + 3) / 2 = 3.
        let loss = Loss::Td { lambda: 0.5 }.of(&values, 4.0, 1.0, &mut slope);
        assert!((loss - (4.0 + 0.0 + 4.0) / 3.0).abs() < 1e-12);
        let errors = Errors::of(&values, 4.0, Some(2.5));
        assert_eq!(errors, Errors { last: 4.0, along: (9.0 + 2.25 + 4.0) / 3.0 });
    }

    /// Slopes are those of finite differences; of TD with the returns held fixed, so λ = 1 alone.
    #[test]
    fn slopes() {
        let values = [0.3, -1.2, 2.0, 0.7, 0.7];
        for loss in [Loss::Smooth { coef: 0.8 }, Loss::Td { lambda: 1.0 }] {
            for n in 1..=values.len() {
                let mut slope = vec![0.0; n];
                loss.of(&values[..n], 1.5, 2.0, &mut slope);
                for t in 0..n {
                    let at = |by: f32| {
                        let mut moved = values[..n].to_vec();
                        moved[t] += by;
                        2.0 * loss.of(&moved, 1.5, 1.0, &mut vec![0.0; n])
                    };
                    let found = (at(0.01) - at(-0.01)) / 0.02;
                    assert!((found - f64::from(slope[t])).abs() < 1e-3, "{loss} {n} {t}");
                }
            }
        }
    }
}
