//! How much of the final reward a value head foresees at a distance from the end of an answer, compared with the reward
//! of the answer so far.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;

/// Numbers of tokens before the end of an answer at which values are measured.
pub const DISTANCES: [usize; 7] = [0, 1, 2, 4, 8, 16, 32];

/// Number of bootstrap resamples of the prompts, and the seed.
const RESAMPLES: usize = 1000;
const SEED: u64 = 0;

/// Smallest number of prompts for a bootstrap interval.
pub const LEAST_PROMPTS: usize = 10;

/// One sample of the validation set at one distance from its end.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Point {
    /// Index of the prompt.
    pub(super) prompt: usize,
    /// Final shaped reward.
    pub(super) target: f64,
    /// Final reward of the dataset.
    pub(super) reward: f64,
    /// The head's value.
    pub(super) value: f64,
    /// Reward of the text so far.
    pub(super) so_far: Option<f64>,
}

/// Quality of the values at one distance from the end. Correlations and slopes are within prompts: both variables are
/// centred per prompt over the samples that are long enough, and the centred values of all prompts are pooled. Prompts
/// with fewer than two such samples, or whose samples have equal final rewards, are left out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Distance {
    /// Number of tokens before the end of the answer. 0 is the last token.
    pub tokens: usize,
    /// Number of samples in the correlations.
    pub samples: usize,
    /// Number of prompts in the correlations.
    pub prompts: usize,
    /// Correlation of the values with the final rewards; `None` if the values or the rewards do not vary.
    pub value: Option<f64>,
    /// Correlation of the rewards of the text so far with the final rewards; `None` if they are unknown or do not vary.
    pub so_far: Option<f64>,
    /// 95 percent bootstrap interval over prompts of `value - so_far`; `None` with fewer than [`LEAST_PROMPTS`] prompts.
    pub difference: Option<[f64; 2]>,
    /// Slope of the regression of the final shaped rewards on the values within prompts. It is 1 for calibrated values
    /// and below 1 if the head exaggerates differences between samples.
    pub slope: Option<f64>,
    /// Explained variance: `1 - Σ (V - s)² / Σ (s - mean s)²` over all samples that are long enough, with the shaped
    /// rewards `s`. `None` if they do not vary.
    pub explained: Option<f64>,
}

/// Sums of products of the centred values of one prompt: value, reward so far, final reward, target.
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    vv: f64,
    vr: f64,
    vs: f64,
    pp: f64,
    pr: f64,
    rr: f64,
}

impl Sums {
    /// Sums of one prompt; `None` if it does not count.
    fn of(points: &[Point]) -> Option<Self> {
        let first = points.first()?.reward;
        if points.len() < 2 || points.iter().all(|point| point.reward == first) {
            return None;
        }
        let value = centred(points, |point| point.value);
        let reward = centred(points, |point| point.reward);
        let target = centred(points, |point| point.target);
        let so_far = centred(points, |point| point.so_far.unwrap_or_default());
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        Some(Self {
            vv: dot(&value, &value),
            vr: dot(&value, &reward),
            vs: dot(&value, &target),
            pp: dot(&so_far, &so_far),
            pr: dot(&so_far, &reward),
            rr: dot(&reward, &reward),
        })
    }

    fn total<'a>(sums: impl IntoIterator<Item = &'a Self>) -> Self {
        sums.into_iter().fold(Self::default(), |all, one| Self {
            vv: all.vv + one.vv,
            vr: all.vr + one.vr,
            vs: all.vs + one.vs,
            pp: all.pp + one.pp,
            pr: all.pr + one.pr,
            rr: all.rr + one.rr,
        })
    }

    fn value(&self) -> Option<f64> {
        ratio(self.vr, (self.vv * self.rr).sqrt())
    }

    fn so_far(&self) -> Option<f64> {
        ratio(self.pr, (self.pp * self.rr).sqrt())
    }
}

/// Deviations from the mean; exactly zero if all numbers are equal.
fn centred(points: &[Point], of: impl Fn(&Point) -> f64) -> Vec<f64> {
    let first = points.first().map_or(0.0, &of);
    let mean = points.iter().map(|point| of(point) - first).sum::<f64>() / points.len() as f64;
    points.iter().map(|point| of(point) - first - mean).collect()
}

fn ratio(a: f64, b: f64) -> Option<f64> {
    (b > 0.0).then(|| a / b)
}

impl Distance {
    /// Statistics of the samples that have at least `tokens + 1` tokens.
    pub(super) fn new(tokens: usize, mut points: Vec<Point>) -> Self {
        points.sort_by_key(|point| point.prompt);
        let prompts = points.chunk_by(|a, b| a.prompt == b.prompt);
        let counted = prompts.filter_map(|points| Some((Sums::of(points)?, points.len())));
        let (sums, sizes): (Vec<Sums>, Vec<usize>) = counted.unzip();
        let known = points.iter().all(|point| point.so_far.is_some());
        let all = Sums::total(&sums);
        let targets = centred(&points, |point| point.target);
        let errors = points.iter().map(|point| (point.value - point.target).powi(2));
        let share = ratio(errors.sum(), targets.iter().map(|target| target * target).sum());
        Self {
            tokens,
            samples: sizes.iter().sum(),
            prompts: sums.len(),
            value: all.value(),
            so_far: all.so_far().filter(|_| known),
            difference: if known { interval(&sums) } else { None },
            slope: ratio(all.vs, all.vv),
            explained: share.map(|share| 1.0 - share),
        }
    }
}

/// 95 percent bootstrap interval of the difference of the correlations, over prompts.
fn interval(sums: &[Sums]) -> Option<[f64; 2]> {
    if sums.len() < LEAST_PROMPTS {
        return None;
    }
    let mut rng = ChaCha12Rng::seed_from_u64(SEED);
    let mut differences: Vec<f64> = (0..RESAMPLES)
        .filter_map(|_| {
            let drawn: Vec<Sums> = sums.iter().map(|_| sums[rng.random_range(0..sums.len())]).collect();
            let all = Sums::total(&drawn);
            Some(all.value()? - all.so_far()?)
        })
        .collect();
    differences.sort_by(f64::total_cmp);
    let last = differences.len().checked_sub(1)?;
    let at = |share: f64| differences[(share * last as f64).round() as usize];
    Some([at(0.025), at(0.975)])
}

/// The comparison of a value head with the reward read so far on the validation set.
#[derive(Debug, Clone, PartialEq)]
pub struct Foresight {
    /// Statistics at each of [`DISTANCES`].
    pub distances: Vec<Distance>,
    /// Why the rewards of unfinished answers are not known, if they are not.
    pub unknown: Option<String>,
}

impl Foresight {
    /// The smallest distance of at least one token from which on the interval of the difference is above zero, at all distances
    /// that have one. One interval above zero among others that are not is no evidence: it is to be expected among several.
    pub fn from(&self) -> Option<usize> {
        let compared = self.distances.iter().filter(|distance| distance.tokens > 0);
        let compared: Vec<(usize, f64)> =
            compared.filter_map(|distance| Some((distance.tokens, distance.difference?[0]))).collect();
        let above = compared.iter().rev().take_while(|(_, low)| *low > 0.0);
        above.last().map(|(tokens, _)| *tokens)
    }

    /// Distances of at least one token at which the interval of the difference is below zero.
    fn worse(&self) -> Vec<String> {
        let below = |distance: &&Distance| {
            distance.tokens > 0 && distance.difference.is_some_and(|[_, high]| high < 0.0)
        };
        self.distances.iter().filter(below).map(|distance| distance.tokens.to_string()).collect()
    }

    /// What the measurement means for decoding, in one sentence.
    pub fn sentence(&self) -> String {
        let compared = |distance: &Distance| distance.tokens > 0 && distance.difference.is_some();
        match (&self.unknown, self.from()) {
            (Some(reason), _) => format!("not compared with the reward read so far: {reason}"),
            (None, Some(n)) => {
                let unit = if n == 1 { "token" } else { "tokens" };
                let worse = match &self.worse()[..] {
                    [] => String::new(),
                    worse => format!(", and less at {}", worse.join(", ")),
                };
                format!(
                    "this head foresees more than the reward read so far from {n} {unit} before the end{worse}"
                )
            }
            (None, None) if !self.distances.iter().any(compared) => format!(
                "not compared with the reward read so far: the validation set has fewer than {LEAST_PROMPTS} prompts \
                 whose rewards vary and whose answers are long enough (a larger --validation may help)"
            ),
            (None, None) => {
                "this head does not measurably foresee more than the reward read so far: guide with blocks by \
                 reward (--method blockwise), or with best-of-n"
                    .to_owned()
            }
        }
    }

    /// Names of the columns of [`Foresight::cells`].
    pub const COLUMNS: [&'static str; 8] = [
        "tokens before the end",
        "samples",
        "prompts",
        "value",
        "reward so far",
        "difference (95%)",
        "slope",
        "R²",
    ];

    /// The statistics as text, one row per distance. A number that is undefined or unknown is `-`.
    pub fn cells(&self) -> Vec<[String; 8]> {
        let number = |x: Option<f64>| x.map_or_else(|| "-".to_owned(), |x| format!("{x:.3}"));
        let interval = |x: Option<[f64; 2]>| {
            x.map_or_else(|| "-".to_owned(), |[low, high]| format!("[{low:.3}, {high:.3}]"))
        };
        let row = |distance: &Distance| {
            [
                distance.tokens.to_string(),
                distance.samples.to_string(),
                distance.prompts.to_string(),
                number(distance.value),
                number(distance.so_far),
                interval(distance.difference),
                number(distance.slope),
                number(distance.explained),
            ]
        };
        self.distances.iter().map(row).collect()
    }

    /// The table and the sentence as plain text, without a line break at the end.
    pub fn text(&self) -> String {
        let head = Self::COLUMNS.map(str::to_owned);
        let mut text =
            "validation set: correlation with the final reward within prompts, slope and R² of the shaped reward\n"
                .to_owned();
        let rows = self.cells();
        for row in std::iter::once(&head).chain(&rows) {
            let cells: Vec<String> = row
                .iter()
                .zip(&head)
                .map(|(cell, head)| {
                    format!(
                        "{cell:>0$}",
                        head.chars().count().max(16 * usize::from(head.starts_with("diff")))
                    )
                })
                .collect();
            text += &format!("{}\n", cells.join("  "));
        }
        text + &self.sentence()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(prompt: usize, reward: f64, value: f64, so_far: f64) -> Point {
        Point { prompt, target: reward, reward, value, so_far: Some(so_far) }
    }

    /// Two prompts of different means. Pooled centred values: V (-1, 1, -2, 2), rewards (-1, 1, 0.5, -0.5) and rewards
    /// so far (1, -1, 1, -1).
    #[test]
    fn both_variables_are_centred_per_prompt() {
        let points = vec![
            point(4, 100.5, -8.0, 3.0),
            point(0, -1.0, 4.0, 8.0),
            point(4, 99.5, -4.0, 1.0),
            point(0, 1.0, 6.0, 6.0),
        ];
        let found = Distance::new(2, points);
        assert_eq!((found.tokens, found.samples, found.prompts), (2, 4, 2));
        // Products: V with r: 1 + 1 - 1 - 1 = 0; V with V: 10; r with r: 2.5; so far with r: -1 - 1 + 0.5 + 0.5 = -1.
        assert!(found.value.unwrap().abs() < 1e-12);
        assert!((found.so_far.unwrap() + 1.0 / 10f64.sqrt()).abs() < 1e-12);
        assert!(found.slope.unwrap().abs() < 1e-12);
        assert_eq!(found.difference, None, "two prompts are too few");
    }

    #[test]
    fn prompts_without_variation_do_not_count() {
        let points = vec![
            point(0, 1.0, 1.0, 0.0),
            point(0, 3.0, 5.0, 0.0),
            point(1, 9.0, -7.0, 1.0),
            point(2, 5.0, 1.0, 1.0),
            point(2, 5.0, 8.0, 2.0),
        ];
        let found = Distance::new(0, points);
        assert_eq!((found.samples, found.prompts), (2, 1));
        assert!((found.value.unwrap() - 1.0).abs() < 1e-12);
        assert_eq!(found.so_far, None, "the reward so far does not vary");
        // Centred: V (-2, 2), s (-1, 1).
        assert!((found.slope.unwrap() - 0.5).abs() < 1e-12);
        // All five samples: errors 0, 4, 256, 16, 9; the mean target is 4.6.
        assert!((found.explained.unwrap() - (1.0 - 285.0 / 35.2)).abs() < 1e-12);
        let none = Distance::new(32, Vec::new());
        assert_eq!((none.samples, none.value, none.slope, none.explained), (0, None, None, None));
    }

    /// Twelve prompts of four samples. The reward so far is orthogonal to the final reward within each prompt.
    fn rows(value: impl Fn(f64, f64) -> f64) -> Vec<Point> {
        let samples = [(0.0, 1.0), (1.0, 0.0), (2.0, 0.0), (3.0, 1.0)];
        let of = |prompt: usize| {
            samples.map(|(reward, noise)| {
                point(prompt, reward + prompt as f64, value(reward, noise), noise)
            })
        };
        (0..12).flat_map(of).collect()
    }

    #[test]
    fn the_sentence_follows_the_interval() {
        let foresees = Distance::new(4, rows(|reward, _| 2.0 * reward));
        assert!((foresees.value.unwrap() - 1.0).abs() < 1e-12 && foresees.so_far.unwrap().abs() < 1e-12);
        assert!((foresees.slope.unwrap() - 0.5).abs() < 1e-12, "the head doubles all differences");
        let [low, high] = foresees.difference.unwrap();
        assert!((low - 1.0).abs() < 1e-9 && (high - 1.0).abs() < 1e-9);
        let equal = |tokens| Distance::new(tokens, rows(|_, noise| noise));
        assert_eq!(equal(1).difference, Some([0.0, 0.0]));
        let mut found = Foresight { distances: vec![equal(0), equal(1), foresees], unknown: None };
        assert_eq!(found.from(), Some(4));
        assert!(
            found.sentence().ends_with("more than the reward read so far from 4 tokens before the end")
        );
        // One interval above zero among others that are not claims nothing; where it is worse is said.
        found.distances.push(equal(8));
        assert_eq!(found.from(), None);
        let better = |tokens| Distance::new(tokens, rows(|reward, _| reward));
        let worse = rows(|reward, _| -reward)
            .into_iter()
            .map(|point| Point { so_far: Some(point.reward), ..point });
        found.distances = vec![Distance::new(1, worse.collect()), better(4), better(8)];
        let said = found.sentence();
        assert!(said.ends_with("from 4 tokens before the end, and less at 1"), "{said}");
        // The last token does not count: nothing is left to foresee.
        found.distances = vec![Distance::new(0, rows(|reward, _| reward)), equal(1)];
        assert_eq!(found.from(), None);
        assert!(
            found.sentence().starts_with("this head does not measurably foresee more"),
            "{}",
            found.sentence()
        );
        found.unknown = Some("why".to_owned());
        assert_eq!(found.sentence(), "not compared with the reward read so far: why");
        let few = Foresight { distances: vec![Distance::new(1, Vec::new())], unknown: None };
        assert!(few.sentence().contains("fewer than 10 prompts"));
    }

    #[test]
    fn an_unknown_reward_so_far_is_a_dash() {
        let points = rows(|reward, _| reward).into_iter().map(|point| Point { so_far: None, ..point });
        let found = Distance::new(1, points.collect());
        assert_eq!((found.so_far, found.difference), (None, None));
        let found = Foresight { distances: vec![found], unknown: Some("why".to_owned()) };
        let cells = found.cells();
        assert_eq!(&cells[0][..6], ["1", "48", "12", "1.000", "-", "-"]);
        assert!(found.text().ends_with("\nnot compared with the reward read so far: why"));
    }
}
