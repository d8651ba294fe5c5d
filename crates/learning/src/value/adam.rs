//! The Adam optimiser with gradient clipping (Kingma and Ba 2015).

use super::network::{Network, Numbers};

/// Adam's moving averages of the gradient and of its square, and the number of steps.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Adam {
    pub(super) first: Numbers,
    pub(super) second: Numbers,
    pub(super) steps: u64,
}

/// The paper's `beta1`, `beta2` and `epsilon`.
const DECAY: [f64; 2] = [0.9, 0.999];
const TINY: f32 = 1e-8;

impl Adam {
    pub(super) fn new(widths: [usize; 3]) -> Self {
        Self { first: Network::zeros(widths), second: Network::zeros(widths), steps: 0 }
    }

    /// One step of size `rate`. The gradient is scaled down to norm `clip` if its norm is larger.
    pub(super) fn step(&mut self, numbers: &mut Numbers, gradient: &Numbers, rate: f64, clip: f64) {
        let square = |numbers: &Vec<f32>| numbers.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>();
        let length = gradient.iter().map(square).sum::<f64>().sqrt();
        let scale = (clip / length.max(f64::MIN_POSITIVE)).min(1.0) as f32;
        self.steps += 1;
        let n = i32::try_from(self.steps).unwrap_or(i32::MAX);
        let [first_bias, second_bias] = DECAY.map(|decay| 1.0 - decay.powi(n));
        let rate = (rate * second_bias.sqrt() / first_bias) as f32;
        let tiny = TINY * second_bias.sqrt() as f32;
        let [keep, keep_square] = DECAY.map(|decay| decay as f32);
        let averages = self.first.iter_mut().zip(&mut self.second);
        for ((numbers, gradient), (first, second)) in numbers.iter_mut().zip(gradient).zip(averages) {
            let averages = first.iter_mut().zip(second);
            for ((x, slope), (first, second)) in numbers.iter_mut().zip(gradient).zip(averages) {
                let slope = scale * slope;
                *first = keep * *first + (1.0 - keep) * slope;
                *second = keep_square * *second + (1.0 - keep_square) * slope * slope;
                *x -= rate * *first / (second.sqrt() + tiny);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first steps have the size of the learning rate, for any size of the gradient.
    #[test]
    fn first_steps() {
        let mut numbers = Network::zeros([1, 1, 1]);
        let mut gradient = Network::zeros([1, 1, 1]);
        (gradient[0][0], gradient[3][0]) = (3000.0, -4000.0);
        let mut adam = Adam::new([1, 1, 1]);
        for steps in 1..=3 {
            adam.step(&mut numbers, &gradient, 0.1, 1.0);
            let expected = 0.1 * f64::from(steps);
            assert!((f64::from(numbers[0][0]) + expected).abs() < 1e-5);
            assert!((f64::from(numbers[3][0]) - expected).abs() < 1e-5);
            assert_eq!(numbers[1][0], 0.0);
        }
        // Clipped: 0.6 and -0.8.
        assert!((adam.first[0][0] - 0.6 * (1.0 - 0.9f32.powi(3))).abs() < 1e-6);
    }
}
