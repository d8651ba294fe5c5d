//! The strength of a sweep that is kept: a pure function of the measured answers.

use std::cmp::Ordering;

use stackelberg_evaluation::compare::{Bootstrap, mean};
use stackelberg_evaluation::findings::{
    Degeneration, Knob, Limits, Relative, Series, degeneration, described,
};
use stackelberg_evaluation::metrics::Metric;

/// The kept strength of a sweep, and the reason as the rest of a sentence.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Choice {
    pub(crate) knob: Knob,
    pub(crate) why: String,
}

/// A strength of the sweep.
struct Tried {
    knob: Knob,
    /// The reward that decides, one value per prompt.
    reward: Vec<f64>,
    /// The means of diversity and coherence.
    text: [f64; 2],
    /// The same relative to the base policy's.
    relative: Vec<Relative>,
}

impl Tried {
    fn is(&self, verdict: Degeneration) -> bool {
        degeneration(&self.relative) == verdict
    }

    /// Whether `other` has a higher mean reward, and diversity and coherence that are not lower.
    fn is_dominated_by(&self, other: &Self) -> bool {
        let lower = self.text.iter().zip(other.text).any(|(own, other)| other < *own);
        mean(&other.reward) > mean(&self.reward) && !lower
    }
}

impl Choice {
    /// Chooses one of the strengths of `sweep`, which all have the shaping `shaping`; `None` if there are none.
    ///
    /// A strength is degenerate if the interval of its diversity or coherence, paired with the base policy's, lies wholly
    /// below the limit. Degenerate strengths are not kept. Among the others:
    ///
    /// 1. The best strength has the highest mean of `judge`.
    /// 2. A strength is dominated if another one has a higher mean of `judge`, and a mean diversity and a mean coherence
    ///    that are not lower. Dominated strengths are not kept.
    /// 3. The largest remaining strength is kept whose paired difference from the best one is not significant.
    ///
    /// If all strengths are degenerate, the smallest one is kept.
    pub(crate) fn new(
        base: &Series,
        sweep: &[Series],
        judge: &Metric,
        limits: &Limits,
        shaping: &str,
    ) -> Option<Self> {
        let unguided = base.values(judge);
        let bootstrap = Bootstrap::new(unguided.len(), 0);
        let tried = |series: &Series| {
            let text = [Metric::Diversity, Metric::Coherence].map(|m| mean(&series.values(&m)));
            let relative = limits.compare(&bootstrap, series, base);
            Some(Tried { knob: series.knob?, reward: series.values(judge), text, relative })
        };
        let mut tried: Vec<Tried> = sweep.iter().filter_map(tried).collect();
        tried.sort_by(|a, b| a.knob.partial_cmp(&b.knob).unwrap_or(Ordering::Equal));
        let smallest = tried.first()?;
        let sound: Vec<&Tried> = tried.iter().filter(|one| !one.is(Degeneration::Yes)).collect();
        let verdicts = verdicts(&tried, unguided.len());
        let Some(best) = sound.iter().max_by(|a, b| mean(&a.reward).total_cmp(&mean(&b.reward))) else {
            let why =
                format!("it is the smallest, and text is degenerate at every strength; {verdicts}");
            return Some(Self { knob: smallest.knob, why });
        };
        let dominated = |one: &Tried| sound.iter().any(|other| one.is_dominated_by(other));
        let level = |one: &Tried| {
            let behind = bootstrap.difference(&best.reward, &one.reward);
            behind.is_none_or(|behind| behind.low <= 0.0 && behind.low.is_finite() || behind.mean == 0.0)
        };
        let kept = sound.iter().rfind(|one| !dominated(one) && level(one)).unwrap_or(best);
        let (judge, unguided) = (judge.name(), mean(&unguided));
        let most = mean(&best.reward);
        let mut why = match kept.knob == best.knob {
            true => format!("{shaping} has the highest {judge} there, {most:+.3} (base {unguided:+.3})"),
            false => format!(
                "{shaping} has the highest {judge} at {}, {most:+.3} (base {unguided:+.3}), and {}, {:+.3}, is not significantly different and has the higher diversity or coherence",
                best.knob,
                kept.knob,
                mean(&kept.reward)
            ),
        };
        let others: Vec<String> =
            sound.iter().filter(|one| dominated(one)).map(|one| one.knob.to_string()).collect();
        if !others.is_empty() {
            why += &format!(
                "; dominated by another strength in {judge}, diversity and coherence: {}",
                others.join(", ")
            );
        }
        Some(Self { knob: kept.knob, why: format!("{why}; {verdicts}") })
    }
}

/// Which strengths are degenerate, and which cannot be decided.
fn verdicts(tried: &[Tried], prompts: usize) -> String {
    let list = |verdict: Degeneration| -> Vec<String> {
        let of = tried.iter().filter(|one| one.is(verdict));
        of.map(|one| format!("{} ({})", one.knob, described(&one.relative, verdict))).collect()
    };
    let (degenerate, unclear) = (list(Degeneration::Yes), list(Degeneration::CannotTell));
    let mut parts = Vec::new();
    if !degenerate.is_empty() {
        parts.push(format!("text is degenerate at {}", degenerate.join(", ")));
    }
    if !unclear.is_empty() {
        parts.push(format!(
            "cannot tell with {prompts} prompts whether text is degenerate at {}",
            unclear.join(", ")
        ));
    }
    match tried.iter().all(|one| one.relative.is_empty()) {
        true => "degeneration was not checked".to_owned(),
        false if parts.is_empty() => "text is degenerate at no strength of the sweep".to_owned(),
        false => parts.join("; "),
    }
}

#[cfg(test)]
mod tests {
    use stackelberg_evaluation::metrics::Measured;

    use super::*;

    const PROMPTS: usize = 20;
    const LIMITS: Limits = Limits { diversity: 0.9, coherence: 0.9 };

    /// Answers with this diversity, coherence and mean reward. `swing` is added to the coherence of the even prompts and
    /// taken from that of the odd ones, so the mean is exact.
    fn series(knob: f64, reward: f64, diversity: f64, coherence: f64, swing: f64) -> Series {
        let answer = |prompt: usize| {
            let sign = if prompt.is_multiple_of(2) { 1.0 } else { -1.0 };
            Measured {
                rewards: [("judge".to_owned(), reward + sign * 0.01)].into(),
                diversity,
                coherence: Some(coherence + sign * swing),
                ..Measured::default()
            }
        };
        Series {
            knob: Some(Knob::Strength(knob)),
            seeds: vec![(0..PROMPTS).map(answer).collect()],
            ..Series::default()
        }
    }

    fn choose(sweep: &[Series]) -> Choice {
        let base = Series { knob: None, ..series(0.0, 0.0, 0.8, 0.5, 0.0) };
        Choice::new(&base, sweep, &Metric::Reward("judge".to_owned()), &LIMITS, "raw").unwrap()
    }

    #[test]
    fn a_point_estimate_below_the_limit_is_not_degenerate() {
        // Coherence 0.895 and 0.914 of the base policy's; both intervals contain 0.9.
        let chosen = choose(&[series(0.5, 0.2, 0.8, 0.4475, 0.05), series(1.0, 0.4, 0.8, 0.457, 0.05)]);
        assert_eq!(chosen.knob, Knob::Strength(1.0));
        for words in [
            "raw has the highest judge there, +0.400 (base +0.000)",
            "dominated by another strength in judge, diversity and coherence: λ 0.5;",
            "cannot tell with 20 prompts whether text is degenerate at λ 0.5 (coherence is 0.895 [",
            "λ 1 (coherence is 0.914 [",
            "of base's, limit 0.9",
        ] {
            assert!(chosen.why.contains(words), "{words}: {}", chosen.why);
        }
        assert!(!chosen.why.contains("; text is degenerate"), "{}", chosen.why);
    }

    #[test]
    fn an_interval_wholly_below_the_limit_is_degenerate() {
        // 0.86 of the base policy's without spread: the interval is a point.
        let chosen = choose(&[series(1.0, 0.4, 0.8, 0.5, 0.0), series(2.0, 0.8, 0.8, 0.43, 0.0)]);
        assert_eq!(chosen.knob, Knob::Strength(1.0));
        let words = "text is degenerate at λ 2 (coherence is 0.860 [0.860, 0.860] of base's, limit 0.9)";
        assert!(chosen.why.contains(words), "{}", chosen.why);
        // Exactly at the limit is not below it.
        let chosen = choose(&[series(1.0, 0.4, 0.8, 0.5, 0.0), series(2.0, 0.8, 0.8, 0.45, 0.0)]);
        assert_eq!(chosen.knob, Knob::Strength(2.0));
        assert!(
            chosen.why.ends_with("text is degenerate at no strength of the sweep"),
            "{}",
            chosen.why
        );
    }

    #[test]
    fn a_sound_strength_is_kept_although_a_smaller_one_is_degenerate() {
        let chosen = choose(&[series(0.5, 0.2, 0.8, 0.4, 0.0), series(1.0, 0.4, 0.8, 0.5, 0.0)]);
        assert_eq!(chosen.knob, Knob::Strength(1.0));
        // All degenerate: the smallest, in whatever order they come.
        let chosen = choose(&[series(1.0, 0.4, 0.4, 0.5, 0.0), series(0.5, 0.2, 0.4, 0.5, 0.0)]);
        assert_eq!(chosen.knob, Knob::Strength(0.5));
        assert!(chosen.why.contains("text is degenerate at every strength"), "{}", chosen.why);
        assert!(
            chosen.why.contains("λ 1 (diversity is 0.500 [0.500, 0.500] of base's"),
            "{}",
            chosen.why
        );
    }

    #[test]
    fn a_larger_strength_that_is_level_is_kept_unless_it_is_dominated() {
        /// The rewards of `series` with another pattern, so that the difference from 0.4 is not significant.
        fn noisy(mut series: Series) -> Series {
            for (prompt, answer) in series.seeds[0].iter_mut().enumerate() {
                let noise = if prompt % 4 < 2 { 0.2 } else { -0.2 };
                answer.rewards.values_mut().for_each(|reward| *reward += noise);
            }
            series
        }
        let best = || series(1.0, 0.4, 0.8, 0.5, 0.0);
        // More coherent, and not significantly behind.
        let chosen = choose(&[best(), noisy(series(2.0, 0.39, 0.8, 0.51, 0.0))]);
        assert_eq!(chosen.knob, Knob::Strength(2.0));
        assert!(
            chosen.why.contains("and λ 2, +0.390, is not significantly different"),
            "{}",
            chosen.why
        );
        // Less coherent: dominated by the best.
        let chosen = choose(&[best(), noisy(series(2.0, 0.39, 0.8, 0.49, 0.0))]);
        assert_eq!(chosen.knob, Knob::Strength(1.0));
        // More coherent, and significantly behind.
        let chosen = choose(&[best(), series(2.0, 0.39, 0.8, 0.51, 0.0)]);
        assert_eq!(chosen.knob, Knob::Strength(1.0));
    }

    #[test]
    fn few_prompts_cannot_tell() {
        let few = |mut series: Series| {
            series.seeds[0].truncate(4);
            series
        };
        let base = few(Series { knob: None, ..series(0.0, 0.0, 0.8, 0.5, 0.0) });
        let sweep = [few(series(1.0, 0.4, 0.8, 0.1, 0.0))];
        let judge = Metric::Reward("judge".to_owned());
        let chosen = Choice::new(&base, &sweep, &judge, &LIMITS, "raw").unwrap();
        let words = "cannot tell with 4 prompts whether text is degenerate at λ 1 (diversity is 1.000 of base's, \
             limit 0.9, coherence is 0.200 of base's, limit 0.9)";
        assert!(chosen.why.ends_with(words), "{}", chosen.why);
        // Nothing was measured.
        let without = |mut series: Series| {
            series.seeds[0].iter_mut().for_each(|answer| answer.coherence = None);
            series
        };
        let found = LIMITS.compare(
            &Bootstrap::new(PROMPTS, 0),
            &without(series(1.0, 0.0, 0.8, 0.0, 0.0)),
            &without(series(1.0, 0.0, 0.8, 0.0, 0.0)),
        );
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].metric == Metric::Diversity && found[0].degeneration == Degeneration::No);
    }
}
