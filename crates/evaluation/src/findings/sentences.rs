//! What the tables say, in words.

use super::Findings;
use super::tables::sign;
use crate::compare::Bootstrap;
use crate::metrics::Metric;

impl Findings<'_> {
    /// One sentence a method and metric: which shapings differ from the vanilla one, at equal strength and at equal KL.
    pub fn sentences(&self) -> Vec<String> {
        let prompts = self.of(0, &Metric::Diversity).len();
        if prompts < Bootstrap::FEWEST {
            return vec![format!(
                "{prompts} prompts are too few for intervals: nothing is said to differ."
            )];
        }
        let mut sentences = Vec::new();
        let judged = self.rewards.iter().skip(1).chain(self.rewards.first());
        let metrics: Vec<Metric> =
            judged.cloned().chain([Metric::Diversity, Metric::Coherence]).collect();
        for group in self.guided() {
            let kept: Vec<usize> = self.kept().filter(|&i| self.series[i].group == group).collect();
            let vanilla = kept.iter().copied().find(|&i| self.series[i].vanilla);
            if let Some(vanilla) = vanilla.filter(|_| kept.len() > 1) {
                let knob = self.series[vanilla].knob.map_or_else(String::new, |knob| knob.to_string());
                let others = || kept.iter().copied().filter(|&i| i != vanilla);
                for metric in &metrics {
                    let signs = others().filter_map(|i| {
                        let difference =
                            self.bootstrap.difference(self.of(i, metric), self.of(vanilla, metric))?;
                        Some((self.name(i), sign(&difference)))
                    });
                    let place = format!("{group} at equal strength, {knob}");
                    sentences.extend(sentence(
                        &place,
                        metric,
                        &self.name(vanilla),
                        &signs.collect::<Vec<_>>(),
                    ));
                }
            }
            for metric in &metrics {
                sentences.extend(self.at_equal_kl(&group, metric));
            }
        }
        sentences
    }

    /// The same at the KL that most curves reach.
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
            Some((self.name(points[0]), sign(&difference)))
        });
        let place = format!("{group} at equal KL, {level} nats an answer");
        sentence(&place, metric, &self.name(vanilla.1[0]), &signs.collect::<Vec<_>>())
    }

    /// A shaping's name, without its method's.
    fn name(&self, i: usize) -> String {
        let series = &self.series[i];
        let name = series.curve.strip_prefix(&series.group).unwrap_or(&series.curve);
        name.trim().to_owned()
    }
}

/// `None` for a metric that is no reward and in which nothing differs, or for nothing at all.
fn sentence(place: &str, metric: &Metric, vanilla: &str, signs: &[(String, i8)]) -> Option<String> {
    if signs.is_empty()
        || !matches!(metric, Metric::Reward(_)) && signs.iter().all(|(_, sign)| *sign == 0)
    {
        return None;
    }
    let those = |sign: i8| {
        let names: Vec<&str> =
            signs.iter().filter(|(_, s)| *s == sign).map(|(name, _)| name.as_str()).collect();
        names.join(", ")
    };
    let said = [(1, "more than"), (-1, "less than"), (0, "no clear difference from")];
    let parts: Vec<String> = said
        .iter()
        .map(|&(sign, words)| (those(sign), words))
        .filter(|(names, _)| !names.is_empty())
        .map(|(names, words)| format!("{words} {vanilla}: {names}"))
        .collect();
    Some(format!("{place}, {}: {}.", metric.name(), parts.join("; ")))
}
