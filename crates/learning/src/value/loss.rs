//! The training loss of value heads with its derivatives, and the validation errors.

use serde::{Deserialize, Serialize};

/// Squared errors of values: of one sample, or averaged over samples.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Errors {
    /// `(V_T - s)²`, in squared units of the shaped reward.
    pub last: f64,
    /// `mean_t (V_t - s)²` over all tokens, in the same units: decoding reads values at all positions.
    pub along: f64,
}

/// The loss `(V_T - s)² + coef · mean_t (V_t - V_{t+1})²` of the values `V_1 .. V_T` of one sample with shaped reward
/// `s`, `T >= 1`. The derivatives with respect to the values, times `scale`, are added to `slope`.
pub(super) fn loss(values: &[f32], s: f64, coef: f64, scale: f64, slope: &mut [f32]) -> f64 {
    let last = values.len() - 1;
    let value = |t: usize| f64::from(values[t]);
    let mut push = |t: usize, by: f64| slope[t] += (scale * by) as f32;
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

impl Errors {
    /// Errors of one sample. With `bound`, values are clamped to `[0, bound]`.
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
    fn worked_example() {
        let values = [1.0, 3.0, 2.0];
        let found = loss(&values, 4.0, 0.5, 1.0, &mut [0.0; 3]);
        assert_eq!(found, 4.0 + 0.5 * (4.0 + 1.0) / 2.0);
        let errors = Errors::of(&values, 4.0, Some(2.5));
        assert_eq!(errors, Errors { last: 4.0, along: (9.0 + 2.25 + 4.0) / 3.0 });
    }

    #[test]
    fn slopes_are_those_of_finite_differences() {
        let values = [0.3, -1.2, 2.0, 0.7, 0.7];
        for n in 1..=values.len() {
            let mut slope = vec![0.0; n];
            loss(&values[..n], 1.5, 0.8, 2.0, &mut slope);
            for t in 0..n {
                let at = |by: f32| {
                    let mut moved = values[..n].to_vec();
                    moved[t] += by;
                    2.0 * loss(&moved, 1.5, 0.8, 1.0, &mut vec![0.0; n])
                };
                let found = (at(0.01) - at(-0.01)) / 0.02;
                assert!((found - f64::from(slope[t])).abs() < 1e-3, "{n} {t}");
            }
        }
    }
}
