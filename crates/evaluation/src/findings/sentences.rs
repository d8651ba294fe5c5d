//! The findings as sentences.

use super::paired::Findings;
use crate::compare::Bootstrap;
use crate::metrics::Metric;
use stackelberg_data::words::count as counted;

impl Findings<'_> {
    /// One sentence per method and metric: which shapings differ from the vanilla shaping, at equal strength and at equal
    /// KL.
    pub fn sentences(&self) -> Vec<String> {
        if self.prompts() < Bootstrap::FEWEST {
            let are = if self.prompts() == 1 { "is" } else { "are" };
            let prompts = counted(self.prompts(), "prompt");
            return vec![format!(
                "{prompts} {are} too few for intervals, so no differences are reported."
            )];
        }
        let mut sentences = Vec::new();
        let metrics: Vec<Metric> =
            self.held_out_first().cloned().chain([Metric::Diversity, Metric::Coherence]).collect();
        for group in self.guided() {
            sentences.extend(metrics.iter().filter_map(|metric| self.at_equal_strength(&group, metric)));
            sentences.extend(metrics.iter().filter_map(|metric| self.at_equal_kl(&group, metric)));
        }
        sentences
    }

    /// The sentence on the kept strength.
    fn at_equal_strength(&self, group: &str, metric: &Metric) -> Option<String> {
        let (kept, vanilla) = self.kept_of(group);
        let vanilla = vanilla?;
        let knob = self.series[vanilla].knob.map_or_else(String::new, |knob| format!(" ({knob})"));
        let others = kept.into_iter().filter(|&i| i != vanilla);
        let signs = others.filter_map(|i| {
            let difference = self.bootstrap.difference(self.of(i, metric), self.of(vanilla, metric))?;
            Some((self.name(i), difference.sign()))
        });
        let place = format!("{group} at equal strength{knob}");
        sentence(&place, metric, &self.name(vanilla), &signs.collect::<Vec<_>>())
    }

    /// The sentence on the KL level that most curves reach.
    fn at_equal_kl(&self, group: &str, metric: &Metric) -> Option<String> {
        let curves = self.curves(group);
        let (vanilla, others) = curves.split_first()?;
        let sweep = |points: &[usize]| self.sweep(points, &Metric::Kl, metric);
        let reach =
            |level: f64| others.iter().filter(|(_, points)| sweep(points).at(level).is_some()).count();
        let levels = self.levels();
        let level = levels.into_iter().filter(|&level| sweep(&vanilla.1).at(level).is_some());
        let level = level.max_by_key(|&level| reach(level)).filter(|&level| reach(level) > 0)?;
        let signs = others.iter().filter_map(|(_, points)| {
            sweep(points).at(level)?;
            let difference =
                self.bootstrap.curve_difference(&sweep(points), &sweep(&vanilla.1), level)?;
            Some((self.name(points[0]), difference.sign()))
        });
        let place = format!("{group} at equal KL ({level} nats per answer)");
        sentence(&place, metric, &self.name(vanilla.1[0]), &signs.collect::<Vec<_>>())
    }

    /// The name of a shaping, without the method's.
    fn name(&self, i: usize) -> String {
        let series = &self.series[i];
        let name = series.curve.strip_prefix(&series.group).unwrap_or(&series.curve);
        name.trim().to_owned()
    }
}

/// How a metric differs from the vanilla shaping's, given each other shaping with the sign of its difference. `None` if
/// there are no other shapings, or if nothing differs and the metric is not a reward.
fn sentence(place: &str, metric: &Metric, vanilla: &str, signs: &[(String, i8)]) -> Option<String> {
    let is_reward = matches!(metric, Metric::Reward(_));
    if signs.is_empty() || !is_reward && signs.iter().all(|(_, sign)| *sign == 0) {
        return None;
    }
    let names = |sign: i8| -> Vec<&str> {
        signs.iter().filter(|(_, s)| *s == sign).map(|(name, _)| name.as_str()).collect()
    };
    let relations =
        [(1, "higher", "than with"), (-1, "lower", "than with"), (0, "not clearly different", "from")];
    let mut parts: Vec<String> = Vec::new();
    for (sign, relation, than) in relations {
        let names = names(sign).join(", ");
        if names.is_empty() {
            continue;
        }
        // The first part names the vanilla shaping.
        let than = if parts.is_empty() { format!(" {than} {vanilla}") } else { String::new() };
        parts.push(format!("{relation}{than} for {names}"));
    }
    Some(format!("{place}: {} is {}.", metric.name(), parts.join("; ")))
}
