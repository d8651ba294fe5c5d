//! How much of a win is length? AlpacaEval 2's length-controlled win rate, for two runs.

/// What wins, and by how much the answer of A is longer.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Controlled {
    /// Preferences for A: 1, 1/2 or 0.
    preferences: Vec<f64>,
    /// `tanh` of the standardised difference in length.
    lengths: Vec<f64>,
    start: [f64; 2],
}

/// The share of prompts that A would win, ties counted half, were both answers of equal length; `None` where
/// all differences in length are the same, so that length and quality cannot be told apart.
///
/// As AlpacaEval 2 has it (Dubois et al. 2024, arXiv 2404.04475): the logistic model
/// `P(A preferred) = σ(θ + φ·tanh(ΔL / sd(ΔL)))` is fitted to the preferences (a tie is 1/2), `ΔL` being
/// characters of A's answer less those of B's, and `φ` is then set to 0: `σ(θ)`. Two things differ.
/// AlpacaEval's model has a third term, the difficulty of each instruction, estimated from many models at once:
/// two runs cannot tell it from `θ`, so it is left out. And where AlpacaEval holds the fit in check by answers of
/// its baseline made short and long on purpose and by an L1 penalty, here it is a weak ridge,
/// `(θ² + φ²)/200` beside the summed log-loss, that only matters where answers win all or none.
///
/// `preferences` and `longer_by` have one entry a prompt.
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

    /// The length term `φ` of all prompts.
    pub(super) fn slope(&self) -> f64 {
        self.start[1]
    }

    /// The rate over a sample of the prompts, lengths being in units of all.
    pub(super) fn rate(&self, sample: &[usize]) -> f64 {
        sigmoid(self.minimise(sample)[0])
    }

    /// Newton's method, halved where a step would climb.
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
            // Positive: the ridge alone makes it so.
            let determinant = h[0] * h[2] - h[1] * h[1];
            let step =
                [(h[2] * g[0] - h[1] * g[1]) / determinant, (h[0] * g[1] - h[1] * g[0]) / determinant];
            let decrement = step[0] * g[0] + step[1] * g[1];
            // So near, Newton's step is all but exact.
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
                // As low as rounding lets it come, or no number.
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
