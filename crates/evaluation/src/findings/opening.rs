//! The sentences that a report opens with: what guidance gains, and at what cost.

use stackelberg_decoding::Method;

use super::degeneration::{Degeneration, degeneration, described};
use super::paired::Findings;
use crate::compare::{Bootstrap, mean};
use crate::estimate::Estimate;
use crate::metrics::Metric;

/// The guided setting that the sentences are about, and what it is compared with.
struct Headline {
    /// Its index.
    best: usize,
    /// The index of best-of-n, if it was run.
    best_of_n: Option<usize>,
    /// The number of settings that it was selected from.
    among: usize,
}

impl Findings<'_> {
    /// At most four sentences: whether guidance beats the base policy, whether it beats best-of-n, what the held-out
    /// rewards say, and what it costs. All differences are paired by prompt.
    ///
    /// The sentences are about one guided setting of the main table: the one with the highest reward of the guide among
    /// those whose text is not clearly degenerate (among all if it is degenerate everywhere). The held-out rewards take no part
    /// in this selection.
    pub fn opening(&self) -> Vec<String> {
        if self.series.is_empty() {
            return Vec::new();
        }
        let Some(headline) = self.headline() else {
            return vec![
                "No guided setting is finished, so there is nothing to compare with the base policy."
                    .to_owned(),
            ];
        };
        vec![
            self.gain(&headline),
            self.against_best_of_n(&headline),
            self.held_out(&headline),
            self.cost(&headline),
        ]
    }

    fn headline(&self) -> Option<Headline> {
        let guide = self.rewards.first()?;
        let of = |wanted: fn(Method) -> bool| {
            self.kept().filter(move |&i| self.series[i].method.is_some_and(wanted))
        };
        let guides =
            |method: Method| matches!(method, Method::Args | Method::Cd) || method.decodes_blocks();
        let guided: Vec<usize> = of(guides).collect();
        let mut sound = guided.clone();
        sound.retain(|&i| degeneration(&self.text[i]) != Degeneration::Yes);
        let among = if sound.is_empty() { &guided } else { &sound };
        let reward = |i: usize| mean(self.of(i, guide));
        let best = among.iter().copied().max_by(|&a, &b| reward(a).total_cmp(&reward(b)))?;
        let best_of_n = of(|method| method == Method::BestOfN).next();
        Some(Headline { best, best_of_n, among: among.len() })
    }

    /// The row of the setting in the main table.
    pub(super) fn label(&self, i: usize) -> String {
        match self.series[i].knob {
            Some(knob) => format!("{}, {knob}", self.series[i].curve),
            None => self.series[i].curve.clone(),
        }
    }

    /// Whether the setting beats the base policy under the guide's reward.
    fn gain(&self, &Headline { best, among, .. }: &Headline) -> String {
        let (guide, label) = (&self.rewards[0], self.label(best));
        let sound = match degeneration(&self.text[best]) {
            Degeneration::Yes => "all of them with degenerate text",
            _ => "whose text is not clearly degenerate",
        };
        let selected = match among {
            1 => String::new(),
            _ => format!(" It has the highest {} of {among} guided settings {sound}.", guide.name()),
        };
        let prompts = self.prompts();
        let difference = self.bootstrap.difference(self.of(best, guide), self.of(0, guide));
        let verdict = match difference.map(|difference| difference.sign()) {
            Some(1) => "Guidance beats the base policy",
            Some(-1) => "Guidance does worse than the base policy",
            _ if prompts < Bootstrap::FEWEST => {
                "Too few prompts to tell whether guidance beats the base policy"
            }
            _ => "Guidance does not clearly beat the base policy",
        };
        let [own, base] = [best, 0].map(|i| number(mean(self.of(i, guide)), guide));
        let change = changed(difference, guide);
        format!(
            "{verdict}: under {label}, {} changes from {base} to {own}, by {change} ({prompts} prompts, paired).{selected}",
            guide.name()
        )
    }

    /// Whether the setting beats best-of-n under the guide's reward, and what best-of-n generates.
    fn against_best_of_n(&self, headline: &Headline) -> String {
        let (guide, label) = (&self.rewards[0], self.label(headline.best));
        let Some(other) = headline.best_of_n else {
            return "There is no comparison with best-of-n: it was not run.".to_owned();
        };
        let difference = self.bootstrap.difference(self.of(headline.best, guide), self.of(other, guide));
        let verdict = match difference.map(|difference| difference.sign()) {
            Some(1) => "beats best-of-n",
            Some(-1) => "does worse than best-of-n",
            _ => "is not clearly different from best-of-n",
        };
        let tokens = match self.series[other].generated {
            Some(tokens) => format!(", which generates about {tokens:.0} tokens per prompt"),
            None => String::new(),
        };
        let text = match degeneration(&self.text[other]) {
            Degeneration::Yes => " The text of best-of-n is degenerate.",
            _ => "",
        };
        let change = changed(difference, guide);
        format!("{label} {verdict}{tokens}: the difference in {} is {change}.{text}", guide.name())
    }

    /// What the held-out rewards say about the setting.
    fn held_out(&self, headline: &Headline) -> String {
        let judges = &self.rewards[1..];
        if judges.is_empty() {
            return "No held-out reward was measured, so it is not known whether the gain holds under a reward that did not guide.".to_owned();
        }
        let against = |judge: &Metric, other: usize, name: &str| {
            let values = self.of(headline.best, judge);
            let difference = self.bootstrap.difference(values, self.of(other, judge));
            let relation = match difference.map(|difference| difference.sign()) {
                Some(1) => "higher than",
                Some(-1) => "lower than",
                _ => "not clearly different from",
            };
            format!("{relation} {name}'s ({})", changed(difference, judge))
        };
        let judged = |judge: &Metric| {
            let mut words = format!("{} is {}", judge.name(), against(judge, 0, "base"));
            if let Some(other) = headline.best_of_n {
                words += &format!(" and {}", against(judge, other, "best-of-n"));
            }
            words
        };
        let all: Vec<String> = judges.iter().map(judged).collect();
        let which = if all.len() == 1 { "The held-out reward" } else { "The held-out rewards:" };
        format!("{which} {}.", all.join("; "))
    }

    /// What the setting costs: KL, tokens, diversity and coherence.
    fn cost(&self, &Headline { best, .. }: &Headline) -> String {
        let mut parts = Vec::new();
        if let Some(kl) = self.bootstrap.estimate(self.of(best, &Metric::Kl)) {
            let interval = interval(&kl, Metric::Kl.digits(), false);
            parts.push(format!("KL {:.2}{interval} nats per answer", kl.mean));
        }
        for metric in [Metric::Diversity, Metric::Coherence] {
            let difference = self.bootstrap.difference(self.of(best, &metric), self.of(0, &metric));
            if difference.is_some() {
                parts.push(format!("{} {}", metric.name(), changed(difference, &metric)));
            }
        }
        let [own, base] = [best, 0].map(|i| self.series[i].generated);
        if let (Some(own), Some(base)) = (own, base) {
            let scored = self.series[best].scored.map_or_else(String::new, |candidates| {
                format!(" and {candidates:.0} scored candidate tokens")
            });
            parts.push(format!(
                "{own:.0} generated{scored} per prompt (base: {base:.0} generated tokens)"
            ));
        }
        let text = &self.text[best];
        let verdict = match degeneration(text) {
            Degeneration::Yes => {
                format!("its text is degenerate ({})", described(text, Degeneration::Yes))
            }
            Degeneration::CannotTell => format!(
                "whether its text is degenerate cannot be told with {} prompts ({})",
                self.prompts(),
                described(text, Degeneration::CannotTell)
            ),
            Degeneration::No if text.is_empty() => {
                "its text was not checked for degeneration".to_owned()
            }
            Degeneration::No => "its text is not degenerate".to_owned(),
        };
        format!("The cost of {} against base: {}; {verdict}.", self.label(best), parts.join(", "))
    }
}

/// A difference with its sign and interval: `+1.019 [+0.880, +1.160]`.
fn changed(difference: Option<Estimate>, metric: &Metric) -> String {
    let Some(difference) = difference else { return "an unknown difference".to_owned() };
    let digits = metric.digits();
    format!("{:+.digits$}{}", difference.mean, interval(&difference, digits, true))
}

/// The interval with a space before it; empty if it is infinite.
fn interval(Estimate { low, high, .. }: &Estimate, digits: usize, signed: bool) -> String {
    match (low.is_finite(), signed) {
        (false, _) => String::new(),
        (true, true) => format!(" [{low:+.digits$}, {high:+.digits$}]"),
        (true, false) => format!(" [{low:.digits$}, {high:.digits$}]"),
    }
}

fn number(value: f64, metric: &Metric) -> String {
    format!("{value:.*}", metric.digits())
}
