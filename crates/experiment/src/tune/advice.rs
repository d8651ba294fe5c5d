//! The setting to use: a pure function of the measured answers.

use stackelberg_evaluation::compare::Bootstrap;
use stackelberg_evaluation::findings::{Degeneration, Limits, Series, degeneration, described};
use stackelberg_evaluation::metrics::Metric;
use stackelberg_evaluation::report::Estimate;

/// What to do with a reward.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Use the setting of this index.
    Use(usize),
    /// Do not guide with this reward: no setting raises the reward that decides.
    DoNotGuide,
    /// There are too few prompts to tell.
    CannotTell,
}

/// The verdict, and its reasons.
#[derive(Debug, Clone, PartialEq)]
pub struct Advice {
    /// What to do.
    pub verdict: Verdict,
    /// The reasons as sentences.
    pub reasons: Vec<String>,
}

/// One setting.
pub(super) struct Candidate<'a> {
    pub(super) name: String,
    pub(super) series: &'a Series,
    /// Tokens run through the policy, per prompt.
    pub(super) tokens_run: Option<f64>,
}

impl Advice {
    /// Chooses among `settings`, of which the first is the base policy. `rewards` are the guide and the held-out rewards; the
    /// first held-out one decides, or the guide if there is none.
    ///
    /// A setting is sound if its text is not degenerate, which an interval decides ([`Limits::compare`]), and if the
    /// interval of its gain over the base policy lies above 0, paired by prompt. Of the sound ones, that with the largest mean
    /// gain is the one to use. If there is none, and every interval lies below or at 0, the reward should not guide; else
    /// there are too few prompts to tell.
    pub(super) fn new(settings: &[Candidate<'_>], rewards: &[Metric], limits: &Limits) -> Self {
        let Some((base, others)) = settings.split_first() else {
            return Self { verdict: Verdict::CannotTell, reasons: Vec::new() };
        };
        let judge = rewards.get(1).unwrap_or(&rewards[0]);
        let unguided = base.series.values(judge);
        let (prompts, bootstrap) = (unguided.len(), Bootstrap::new(unguided.len(), 0));
        let gain = |one: &Candidate<'_>| bootstrap.difference(&one.series.values(judge), &unguided);
        let gains: Vec<Option<Estimate>> = others.iter().map(gain).collect();
        let texts: Vec<_> =
            others.iter().map(|one| limits.compare(&bootstrap, one.series, base.series)).collect();
        let sound: Vec<(usize, Estimate)> = gains
            .iter()
            .zip(&texts)
            .enumerate()
            .filter(|(_, (_, text))| degeneration(text) != Degeneration::Yes)
            .filter_map(|(index, (gain, _))| Some((index, (*gain)?)))
            .filter(|(_, gain)| gain.low > 0.0)
            .collect();
        let mut reasons = Vec::new();
        let best = sound.iter().max_by(|a, b| a.1.mean.total_cmp(&b.1.mean));
        let verdict = match best {
            Some((index, gain)) => {
                reasons.push(format!(
                    "{} raises {} by {} over plain sampling ({prompts} prompts, paired){}.",
                    others[*index].name,
                    judge.name(),
                    shown(gain),
                    cost(base, &others[*index])
                ));
                reasons.extend(cheaper(base, others, &sound, *index, judge, &bootstrap));
                reasons.push(format!(
                    "It is the best of {} settings, so its gain on other prompts is probably smaller; the intervals are \
                     not corrected for the number of settings.",
                    others.len()
                ));
                Verdict::Use(index + 1)
            }
            None if gains.iter().all(|gain| gain.is_some_and(|gain| gain.high <= 0.0)) => {
                reasons.push(format!(
                    "No setting raises {} ({prompts} prompts, paired): do not guide with this reward.",
                    judge.name()
                ));
                Verdict::DoNotGuide
            }
            None => {
                let degenerate = texts.iter().any(|text| degeneration(text) == Degeneration::Yes);
                let but = if degenerate { " and keeps its text" } else { "" };
                reasons.push(format!(
                    "Cannot tell with {prompts} prompts whether any setting raises {}{but}: all intervals of the gain \
                     include 0, or the text is degenerate. Give more prompts.",
                    judge.name()
                ));
                Verdict::CannotTell
            }
        };
        if rewards.len() < 2 && verdict != Verdict::DoNotGuide {
            reasons.push(
                "The gain is measured by the reward that guides, which overstates it: give another reward with --held-out."
                    .to_owned(),
            );
        } else if rewards.len() > 1 && !matches!(verdict, Verdict::Use(_)) {
            reasons.extend(exploited(others, &rewards[0], base, &bootstrap));
        }
        for (one, text) in others.iter().zip(&texts) {
            reasons.extend(match degeneration(text) {
                Degeneration::Yes => Some(format!(
                    "{}: text is degenerate: {}.",
                    one.name,
                    described(text, Degeneration::Yes)
                )),
                _ => None,
            });
        }
        let unclear = texts.iter().filter(|text| degeneration(text) == Degeneration::CannotTell).count();
        if unclear > 0 && verdict != Verdict::DoNotGuide {
            reasons.push(format!(
                "Cannot tell with {prompts} prompts whether text is degenerate in {unclear} of {} settings.",
                others.len()
            ));
        }
        Self { verdict, reasons }
    }
}

/// A cheaper setting that is not measurably worse than the best.
fn cheaper(
    base: &Candidate<'_>,
    others: &[Candidate<'_>],
    sound: &[(usize, Estimate)],
    best: usize,
    judge: &Metric,
    bootstrap: &Bootstrap,
) -> Option<String> {
    /// The largest part of the best setting's tokens that counts as cheaper.
    const CHEAPER: f64 = 0.75;
    let most = CHEAPER * others[best].tokens_run?;
    let rewards = others[best].series.values(judge);
    let level = |index: usize| {
        let behind = bootstrap.difference(&rewards, &others[index].series.values(judge));
        behind.is_some_and(|behind| behind.low <= 0.0)
    };
    let affordable = |index: usize| {
        others[index].tokens_run.filter(|tokens| *tokens <= most).map(|tokens| (index, tokens))
    };
    let cheap =
        sound.iter().filter_map(|(index, _)| affordable(*index)).filter(|(index, _)| level(*index));
    let (index, _) = cheap.min_by(|a, b| a.1.total_cmp(&b.1))?;
    let gain = sound.iter().find(|(other, _)| *other == index).map(|(_, gain)| shown(gain))?;
    Some(format!(
        "{} is not measurably worse ({gain}) and costs less{}.",
        others[index].name,
        cost(base, &others[index])
    ))
}

/// Says so if the guide's own reward rises although the held-out one does not.
fn exploited(
    others: &[Candidate<'_>],
    guide: &Metric,
    base: &Candidate<'_>,
    bootstrap: &Bootstrap,
) -> Option<String> {
    let unguided = base.series.values(guide);
    let rises = |one: &&Candidate<'_>| {
        bootstrap.difference(&one.series.values(guide), &unguided).is_some_and(|gain| gain.low > 0.0)
    };
    let rising = others.iter().filter(rises).count();
    (rising > 0).then(|| {
        format!(
            "{rising} of {} settings raise {} itself: the held-out reward does not see the improvement.",
            others.len(),
            guide.name()
        )
    })
}

/// What a setting costs, as the rest of a sentence.
fn cost(base: &Candidate<'_>, one: &Candidate<'_>) -> String {
    match base.tokens_run.zip(one.tokens_run) {
        Some((plain, tokens)) if plain > 0.0 => {
            format!(", at {:.1} times its tokens", tokens / plain)
        }
        _ => String::new(),
    }
}

fn shown(gain: &Estimate) -> String {
    format!("{:+.2} [{:.2}, {:.2}]", gain.mean, gain.low, gain.high)
}

#[cfg(test)]
mod tests {
    use stackelberg_evaluation::metrics::Measured;

    use super::*;

    const PROMPTS: usize = 20;
    const LIMITS: Limits = Limits { diversity: 0.9, coherence: 0.9 };

    /// Answers with these mean rewards and this diversity. `swing` is added to the rewards of the even prompts and taken from
    /// those of the odd ones, so the means are exact.
    fn series(guide: f64, judge: f64, diversity: f64, swing: f64) -> Series {
        let answer = |prompt: usize| {
            let sign = if prompt.is_multiple_of(2) { swing } else { -swing };
            Measured {
                rewards: [("guide".to_owned(), guide + sign), ("judge".to_owned(), judge + sign)].into(),
                diversity,
                coherence: Some(0.5),
                ..Measured::default()
            }
        };
        Series { seeds: vec![(0..PROMPTS).map(answer).collect()], ..Series::default() }
    }

    fn advise(settings: &[(Series, f64)], rewards: &[&str]) -> Advice {
        let mut candidates = Vec::new();
        for ((series, tokens), name) in settings.iter().zip(["base", "a", "b", "c"]) {
            candidates.push(Candidate { name: name.to_owned(), series, tokens_run: Some(*tokens) });
        }
        let rewards: Vec<Metric> =
            rewards.iter().map(|name| Metric::Reward((*name).to_owned())).collect();
        Advice::new(&candidates, &rewards, &LIMITS)
    }

    fn says(advice: &Advice, words: &str) -> bool {
        advice.reasons.iter().any(|reason| reason.contains(words))
    }

    #[test]
    fn the_held_out_reward_decides() {
        let settings = [
            (series(0.0, 0.0, 0.8, 0.0), 64.0),
            (series(2.0, 0.2, 0.8, 0.1), 512.0),
            (series(1.0, 0.5, 0.8, 0.1), 512.0),
        ];
        let advice = advise(&settings, &["guide", "judge"]);
        assert_eq!(advice.verdict, Verdict::Use(2));
        assert!(says(&advice, "b raises judge by +0.50 ["), "{advice:?}");
        assert!(says(&advice, "at 8.0 times its tokens"), "{advice:?}");
        assert!(says(&advice, "best of 2 settings"), "{advice:?}");
        assert!(!says(&advice, "overstates"), "{advice:?}");
        // Without a held-out reward, the guide does.
        let advice = advise(&settings, &["guide"]);
        assert_eq!(advice.verdict, Verdict::Use(1));
        assert!(says(&advice, "overstates"), "{advice:?}");
    }

    #[test]
    fn degenerate_text_is_not_recommended() {
        let settings = [
            (series(0.0, 0.0, 0.8, 0.0), 64.0),
            (series(2.0, 2.0, 0.5, 0.1), 512.0),
            (series(0.3, 0.3, 0.8, 0.1), 512.0),
        ];
        let advice = advise(&settings, &["guide", "judge"]);
        assert_eq!(advice.verdict, Verdict::Use(2));
        assert!(says(&advice, "a: text is degenerate: diversity is 0.625"), "{advice:?}");
    }

    #[test]
    fn a_reward_that_nothing_raises_is_not_used() {
        let base = || (series(0.0, 0.0, 0.8, 0.0), 64.0);
        let falls = || (series(2.0, -0.5, 0.8, 0.1), 512.0);
        let advice = advise(&[base(), falls(), falls()], &["guide", "judge"]);
        assert_eq!(advice.verdict, Verdict::DoNotGuide);
        assert!(says(&advice, "2 of 2 settings raise guide itself"), "{advice:?}");
        // An interval that includes 0 leaves it open.
        let unclear = (series(0.0, 0.01, 0.8, 0.5), 512.0);
        let advice = advise(&[base(), falls(), unclear], &["guide", "judge"]);
        assert_eq!(advice.verdict, Verdict::CannotTell);
        assert!(says(&advice, "Cannot tell with 20 prompts"), "{advice:?}");
    }

    #[test]
    fn a_cheaper_setting_that_is_level_is_named() {
        let settings = [
            (series(0.0, 0.0, 0.8, 0.0), 64.0),
            (series(1.0, 0.50, 0.8, 0.1), 512.0),
            (series(1.0, 0.49, 0.8, -0.1), 256.0),
            (series(1.0, 0.20, 0.8, 0.1), 128.0),
        ];
        let advice = advise(&settings, &["guide", "judge"]);
        assert_eq!(advice.verdict, Verdict::Use(1));
        assert!(says(&advice, "b is not measurably worse (+0.49 ["), "{advice:?}");
        assert!(says(&advice, "at 4.0 times its tokens"), "{advice:?}");
    }

    #[test]
    fn few_prompts_cannot_tell() {
        let few = |guide| {
            let mut series = series(guide, guide, 0.8, 0.0);
            series.seeds[0].truncate(4);
            (series, 64.0)
        };
        let advice = advise(&[few(0.0), few(5.0)], &["guide", "judge"]);
        assert_eq!(advice.verdict, Verdict::CannotTell);
    }
}
