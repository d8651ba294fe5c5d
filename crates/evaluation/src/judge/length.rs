//! AlpacaEval 2's length-controlled win rate, for two runs.

/// The fitted model of preferences by length.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Controlled {
    /// Preferences for A: 1, 1/2 or 0.
    preferences: Vec<f64>,
    /// `tanh` of the standardised differences in length.
    lengths: Vec<f64>,
    start: [f64; 2],
}

/// The estimated win rate of A for answers of equal length, where a tie counts as half a win. `None` if all differences
/// in length are the same, because then length and quality cannot be separated.
///
/// The method is that of AlpacaEval 2 (Dubois et al. 2024, arXiv 2404.04475): the logistic model
/// `P(A preferred) = σ(θ + φ·tanh(ΔL / sd(ΔL)))` is fitted to the preferences (a tie is 1/2), where `ΔL` is the number of
/// characters of A's answer minus that of B's. The result is `σ(θ)`, the prediction for `φ = 0`. There are two
/// differences. AlpacaEval's model has a third term, the difficulty of each instruction, which is estimated from many
/// models; with two runs it cannot be separated from `θ` and is left out. AlpacaEval regularises with shortened and
/// lengthened answers of its baseline and an L1 penalty; this function adds the weak ridge penalty `(θ² + φ²)/200` to
/// the summed log loss, which matters only if answers win all or no prompts.
///
/// `preferences` (1, 1/2 or 0) and `longer_by` (`ΔL`) have one entry per prompt.
pub fn length_controlled(preferences: &[f64], longer_by: &[f64]) -> Option<f64> {
    let all: Vec<usize> = (0..preferences.len()).collect();
    Controlled::new(preferences, longer_by).map(|fit| fit.rate(&all))
}

const RIDGE: f64 = 0.01;
const STEPS: usize = 100;

impl Controlled {
    pub(super) fn new(preferences: &[f64], longer_by: &[f64]) -> Option<Self> {
        let n = longer_by.len() as f64;
        let mean = longer_by.iter().sum::<f64>() / n;
        let square = longer_by.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / (n - 1.0);
        let deviation = square.sqrt();
        if !(deviation.is_finite() && deviation > 0.0) {
            return None;
        }
        let lengths = longer_by.iter().map(|x| (x / deviation).tanh()).collect();
        let mut fit = Self { preferences: preferences.to_vec(), lengths, start: [0.0, 0.0] };
        fit.start = fit.minimise(&(0..preferences.len()).collect::<Vec<_>>());
        Some(fit)
    }

    /// The length coefficient `φ`, fitted to all prompts.
    pub(super) fn slope(&self) -> f64 {
        self.start[1]
    }

    /// The rate fitted to a sample of the prompts. Lengths are standardised over all prompts.
    pub(super) fn rate(&self, sample: &[usize]) -> f64 {
        sigmoid(self.minimise(sample)[0])
    }

    /// Newton's method. A step is halved until it decreases the loss.
    fn minimise(&self, sample: &[usize]) -> [f64; 2] {
        let mut at = self.start;
        let mut loss = self.loss(sample, at);
        for _ in 0..STEPS {
            let (mut g, mut h) = ([RIDGE * at[0], RIDGE * at[1]], [RIDGE, 0.0, RIDGE]);
            for &i in sample {
                let x = self.lengths[i];
                let p = sigmoid(at[0] + at[1] * x);
                let (error, weight) = (p - self.preferences[i], p * (1.0 - p));
                g = [g[0] + error, g[1] + error * x];
                h = [h[0] + weight, h[1] + weight * x, h[2] + weight * x * x];
            }
            // The ridge penalty makes it positive.
            let determinant = h[0] * h[2] - h[1] * h[1];
            let step =
                [(h[2] * g[0] - h[1] * g[1]) / determinant, (h[0] * g[1] - h[1] * g[0]) / determinant];
            let decrement = step[0] * g[0] + step[1] * g[1];
            // This close to the minimum, one more step is almost exact.
            if decrement < 1e-6 {
                return [at[0] - step[0], at[1] - step[1]];
            }
            let shorter = (0..40).map(|halvings| 0.5_f64.powi(halvings)).find_map(|length| {
                let there = [at[0] - length * step[0], at[1] - length * step[1]];
                let value = self.loss(sample, there);
                (value <= loss - 1e-4 * length * decrement).then_some((there, value))
            });
            match shorter {
                Some((there, value)) => (at, loss) = (there, value),
                // Rounding prevents a further decrease, or the loss is NaN.
                None => break,
            }
        }
        at
    }

    fn loss(&self, sample: &[usize], at: [f64; 2]) -> f64 {
        let term = |&i: &usize| {
            let margin = at[0] + at[1] * self.lengths[i];
            // ln(1 + e^margin) - y·margin, without overflow.
            margin.max(0.0) + (-margin.abs()).exp().ln_1p() - self.preferences[i] * margin
        };
        let ridge = RIDGE / 2.0 * (at[0] * at[0] + at[1] * at[1]);
        ridge + sample.iter().map(term).sum::<f64>()
    }
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}
