//! A report as an experiment with twelve methods could give it, with texts that try to break the page.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use stackelberg_evaluation::report::{
    Answer, Cell, Chart, Curve, Estimate, Histogram, Matrix, Point, Question, Report, Row, Table, Trace,
    TraceStep, Wins,
};

/// The columns of the browser: name and group.
pub const METHODS: [(&str, &str); 12] = [
    ("base", ""),
    ("args raw", "args"),
    ("args hard", "args"),
    ("args srs", "args"),
    ("args srs-std", "args"),
    ("args meanstd", "args"),
    ("args par", "args"),
    ("cd raw", "cd"),
    ("cd hard", "cd"),
    ("cd srs", "cd"),
    ("best-of-16", "samples"),
    ("follower srs", "samples"),
];

/// Texts that must be shown as they are.
pub const NASTY: [&str; 8] = [
    "</script><script>document.title = 'broken'</script><!-- <img src=x onerror=\"document.title = 'broken'\">",
    "Family 👩‍👩‍👧‍👦, flag 🇳🇿, \u{1F600}, combining e\u{301}, line\u{2028}separator, nul \u{0}, bell \u{7}",
    "كيف حالك اليوم؟ هذا نص من اليمين إلى اليسار with English, then עברית.",
    "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft_without_any_blank_at_all_and_it_goes_on_and_on_and_on_and_on_and_on",
    "",
    "{{title}} {title} ${title} %s \\u003c \\n &lt;b&gt;bold?&lt;/b&gt; &amp;",
    "| a | b |\n|---|---|\n| 1 | `code` |\n\n```python\nprint(\"<b>hello</b>\")\n```",
    "  leading blanks\n\n\n\tand a tab, three line ends, trailing blanks   ",
];

const SYLLABLES: [&str; 40] = [
    "the", "an", "of", "to", "in", "is", "re", "con", "ly", "ing", "er", "a", "pro", "ti", "on", "me",
    "wa", "ter", "da", "ne", "li", "so", "mo", "ver", "be", "can", "do", "go", "ha", "it", "ki", "lo",
    "ma", "no", "or", "pe", "qui", "ra", "si", "you",
];

/// Random numbers of the fixture.
pub struct Random(ChaCha8Rng);

impl Random {
    /// Always the same for a seed.
    pub fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// In [0, 1).
    pub fn uniform(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn below(&mut self, n: usize) -> usize {
        (self.uniform() * n as f64) as usize
    }

    /// About normal.
    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.uniform()).sum::<f64>() - 6.0
    }

    /// Text of so many words, about as hard to compress as English.
    fn words(&mut self, n: usize) -> String {
        let mut text = String::new();
        for word in 0..n {
            if word > 0 {
                text += match self.below(60) {
                    0..5 => ". ",
                    5 => "\n\n",
                    6..10 => ", ",
                    _ => " ",
                };
            }
            for _ in 0..1 + self.below(3) {
                text += SYLLABLES[self.below(SYLLABLES.len())];
            }
        }
        text + "."
    }
}

/// A report of so many prompts.
pub fn report(prompts: usize) -> Report {
    let mut random = Random::new(7);
    let traces: Vec<Trace> = (0..24).map(|_| trace(&mut random, 64, 10)).collect();
    Report {
        title: "Which shaping of `harmless` at which strength?".into(),
        about: "SmolLM2-135M guided by the reward `harmless` on prompts of HH-RLHF's eval split, greedy, 128 tokens. \
                Strengths were kept on 40 other prompts; what is below was never looked at while choosing."
            .into(),
        opening: vec![
            "Guidance beats the base policy: under args srs, λ 2, harmless changes from 0.603 to 1.623, by +1.019 \
             [+0.880, +1.160] (120 prompts, paired)."
                .into(),
            "args srs, λ 2 does worse than best-of-n, which generates about 580 tokens per prompt: the difference in \
             `harmless` is -0.653 [-0.800, -0.500]."
                .into(),
        ],
        findings: vec![
            "At equal strength args hard leads by 0.42 [0.21, 0.63]; at equal KL no rule beats raw.".into(),
            "Guidance degenerates from λ = 4 on under raw: a third of the answers repeat themselves.".into(),
            "The held-out reward stops rising at λ = 2 while the guide's goes on: over-optimisation.".into(),
        ],
        facts: facts(),
        tables: vec![main_table(&mut random), paired_table(&mut random)],
        charts: charts(&mut random),
        matrices: vec![matrix(&mut random, prompts)],
        histograms: METHODS[1..7].iter().map(|(name, _)| histogram(&mut random, name, prompts)).collect(),
        methods: METHODS.iter().map(|(name, _)| name.to_string()).collect(),
        rewards: vec!["harmless".into(), "held-out".into()],
        questions: (0..prompts).map(|index| question(&mut random, index, &traces)).collect(),
        traces,
    }
}

fn facts() -> Vec<(String, String)> {
    let facts = [
        ("version", "0.1.0, commit abf0f8f"),
        ("command", "stackelberg experiment run shaping.toml --out shaping"),
        (
            "model",
            "SmolLM2-135M-Instruct, sha256 9f1c5b0e6d3a47c2a8be1d4f7c0e93b65a2d81f4c7be09d3e6a5f1c2b8d70e94",
        ),
        ("seed", "0"),
        ("prompts", "hh-rlhf eval, 1,000 of 2,312"),
    ];
    facts.map(|(name, value)| (name.into(), value.into())).to_vec()
}

fn estimate(mean: f64, half: f64) -> Estimate {
    Estimate { mean, low: mean - half, high: mean + half }
}

fn main_table(random: &mut Random) -> Table {
    let rows = METHODS.iter().enumerate().map(|(index, (name, group))| {
        let gain = index as f64 / 5.0 + 0.1 * random.normal();
        let cell = |mean: f64, half: f64, digits: usize, bold: bool, differs: i8| {
            let interval = (half > 0.0).then_some((mean - half, mean + half));
            Some(Cell { mean, interval, digits, bold, differs })
        };
        let above = i8::from(index > 2);
        let cells = vec![
            cell(gain, 0.31, 2, index == 6 || index == 9, above),
            cell(0.6 * gain - 0.2, 0.24, 2, index == 3, above),
            if index == 0 { None } else { cell(3.7 * gain, 0.9, 1, false, 0) },
            cell(0.91 - 0.02 * gain, 0.0137, 3, false, if index > 7 { -1 } else { 0 }),
            cell(-0.8 - 0.1 * gain, 0.06, 2, false, -above),
            cell(128.0 - index as f64, 0.0, 0, false, 0),
        ];
        Row { group: group.to_string(), label: name.to_string(), cells }
    });
    Table {
        name: "main".into(),
        title: "Every method at its kept strength".into(),
        note:
            "Rewards in standard deviations of harmless over the base's answers; KL per answer in nats."
                .into(),
        columns: ["reward", "held-out reward", "KL", "diversity", "log-probability per token", "tokens"]
            .map(String::from)
            .to_vec(),
        rows: rows.collect(),
    }
}

fn paired_table(random: &mut Random) -> Table {
    let rows = METHODS[1..].iter().map(|(name, group)| {
        let cells = (0..4).map(|kl| {
            let mean = 0.3 * f64::from(kl) + 0.1 * random.normal();
            Some(Cell {
                mean,
                interval: Some((mean - 0.4, mean + 0.5)),
                digits: 2,
                bold: false,
                differs: 0,
            })
        });
        Row { group: group.to_string(), label: name.to_string(), cells: cells.collect() }
    });
    Table {
        name: "equal-kl".into(),
        title: "Reward at equal KL".into(),
        note: String::new(),
        columns: ["1 nat", "2 nats", "4 nats", "8 nats"].map(String::from).to_vec(),
        rows: rows.collect(),
    }
}

/// Name, title, axes, and the value at a strength and a slope.
type Shape = (&'static str, &'static str, &'static str, &'static str, fn(f64, f64) -> f64);

fn charts(random: &mut Random) -> Vec<Chart> {
    let shapes: [Shape; 5] = [
        ("reward-strength", "Reward against strength", "strength λ", "reward", |t, s| {
            s * (1.0 - (-t).exp()) * 2.4
        }),
        ("reward-kl", "Reward against KL", "KL from the base (nats)", "reward", |t, s| s * t.sqrt()),
        (
            "over-optimisation",
            "Held-out against guided reward",
            "guided reward",
            "held-out reward",
            |t, s| s * (1.2 * t - 0.33 * t * t),
        ),
        ("diversity", "Diversity against strength", "strength λ", "distinct bigrams", |t, s| {
            0.93 - 0.09 * t * s
        }),
        (
            "coherence",
            "Coherence against strength",
            "strength λ",
            "coherence with the prompt",
            |t, s| 0.7 - 0.06 * t * t * s,
        ),
    ];
    let mut charts: Vec<Chart> = shapes
        .map(|(name, title, x, y, shape)| {
            let log_x = x.starts_with("strength");
            let noise = if y.contains("reward") { 0.01 } else { 0.002 };
            let curves = METHODS[1..].iter().map(|(label, group)| {
                let slope = 0.8 + 0.35 * random.uniform();
                let points = [0.25_f64, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0].map(|strength| {
                    let stretch =
                        if log_x { strength } else { strength * (0.8 + 0.25 * random.uniform()) };
                    let size = shape(strength, slope);
                    Point {
                        x: stretch,
                        y: estimate(size + noise * random.normal(), 8.0 * noise),
                        label: format!("λ {strength}"),
                        degenerate: strength > 2.5 && label.ends_with("raw"),
                    }
                });
                Curve { label: label.to_string(), group: group.to_string(), points: points.to_vec() }
            });
            Chart {
                name: name.into(),
                title: title.into(),
                note: "Points are strengths.".into(),
                x: x.into(),
                y: y.into(),
                log_x,
                base: (name != "over-optimisation").then(|| estimate(shape(0.0, 1.0), 6.0 * noise)),
                curves: curves.collect(),
            }
        })
        .into();
    charts.extend(measured_axes());
    charts
}

/// Charts with few points at measured positions, which make bad ticks: on linear axes of several ranges, and on a
/// logarithmic axis within one decade and over seven.
fn measured_axes() -> Vec<Chart> {
    let cases: [(bool, &[f64]); 7] = [
        (false, &[0.276_71, 1.150_55, 3.795_1, 9.102_61, 61.806_4]),
        (false, &[0.013_7, 0.141_9, 0.276_71, 0.531_3]),
        (false, &[1_234.5, 18_765.4, 123_456.7]),
        (true, &[0.276_71, 1.150_55, 3.795_1, 9.102_61, 61.806_4]),
        (true, &[2.134, 2.377, 3.795_1]),
        (true, &[0.000_13, 0.271, 1_834.5]),
        (true, &[0.125, 0.25, 0.3, 0.31, 1.0, 2.0]),
    ];
    let chart = |(number, (log_x, xs)): (usize, (bool, &[f64]))| {
        let point = |&x: &f64| Point {
            x,
            y: estimate(0.2 * x.ln(), 0.1),
            label: format!("λ {x}"),
            degenerate: false,
        };
        let points = xs.iter().map(point).collect();
        Chart {
            name: format!("measured-{number}"),
            title: "Reward `harmless` against KL".into(),
            note: "KL is `measured`.".into(),
            x: "KL of `args`, nats per answer".into(),
            y: "reward `harmless`".into(),
            log_x,
            base: None,
            curves: vec![Curve { label: "args raw".into(), group: "args".into(), points }],
        }
    };
    cases.into_iter().enumerate().map(chart).collect()
}

fn matrix(random: &mut Random, prompts: usize) -> Matrix {
    let n = METHODS.len();
    let mut cells = vec![vec![None; n]; n];
    for (row, column) in (0..n).flat_map(|row| (row + 1..n).map(move |column| (row, column))) {
        let tie = random.below(prompts / 5 + 1);
        let share = (0.5 - 0.04 * (column - row) as f64 + 0.05 * random.normal()).clamp(0.0, 1.0);
        let win = ((prompts - tie) as f64 * share) as usize;
        let lose = prompts - tie - win;
        let p = if win.abs_diff(lose) > prompts / 16 { 0.003 } else { 0.4 };
        cells[row][column] = Some(Wins { win, tie, lose, p });
        cells[column][row] = Some(Wins { win: lose, tie, lose: win, p });
    }
    Matrix {
        title: "Who wins".into(),
        note: "The same prompts, by the held-out reward.".into(),
        labels: METHODS.iter().map(|(name, _)| name.to_string()).collect(),
        cells,
    }
}

fn histogram(random: &mut Random, label: &str, prompts: usize) -> Histogram {
    let edges: Vec<f64> = (0..=24).map(|edge| -3.0 + 0.25 * f64::from(edge)).collect();
    let mut counts = vec![0; 24];
    let centre = random.normal() / 2.0;
    for _ in 0..prompts * 20 {
        let place = (random.normal() * 0.8 + centre + 3.0) / 0.25;
        counts[(place.max(0.0) as usize).min(23)] += 1;
    }
    Histogram { label: label.into(), x: "threshold m*".into(), edges, counts }
}

fn question(random: &mut Random, index: usize, traces: &[Trace]) -> Question {
    let length = 8 + random.below(20);
    let prompt = NASTY.get(index).map_or_else(|| random.words(length), |text| text.to_string());
    let answers = (0..METHODS.len()).map(|method| {
        if index % 97 == 5 && method == 9 {
            return None;
        }
        let traced = index < 12 && (method == 3 || method == 9);
        let trace = traced.then_some(index * 2 + usize::from(method == 9));
        let text = match trace {
            Some(trace) => traces[trace].steps.iter().map(|step| step.text.as_str()).collect(),
            None if method == index % 12 && index < 24 => {
                NASTY[(index + method) % NASTY.len()].to_string()
            }
            None => random.words(116),
        };
        let reward = method as f64 / 5.0 + random.normal();
        let warned = random.below(25) == 0 && method > 0;
        Some(Answer {
            text,
            rewards: vec![Some(reward), (method != 4).then_some(0.6 * reward + 0.5 * random.normal())],
            kl: (method > 0).then_some(4.0 * random.uniform()),
            warnings: if warned {
                vec!["The last 40 tokens repeat <b>one phrase</b> 9 times.".into()]
            } else {
                vec![]
            },
            trace,
        })
    });
    Question { id: format!("hh-{index:04}"), prompt, answers: answers.collect() }
}

fn trace(random: &mut Random, steps: usize, candidates: usize) -> Trace {
    let nasty = ["\n\n", "</script>", "😀", "\u{fffd}", "", " <b>"];
    let steps = (0..steps).map(|number| {
        let mut logits: Vec<f64> = (0..candidates).map(|_| 16.0 + 2.0 * random.normal()).collect();
        logits.sort_by(|a, b| b.total_cmp(a));
        let tokens: Vec<String> = (0..candidates)
            .map(|candidate| match nasty.get(number / 4).filter(|_| number % 4 == 3 && candidate < 2) {
                Some(text) => text.to_string(),
                None => format!(" {}", SYLLABLES[random.below(SYLLABLES.len())]),
            })
            .collect();
        let asked = number % 3 != 1;
        let rewards: Vec<f64> = (0..candidates).map(|_| random.normal()).collect();
        let threshold = 0.4 + 0.2 * random.normal();
        let shaped: Vec<f64> = rewards.iter().map(|r| 8.0 / (1.0 + (threshold - r).exp())).collect();
        let fused: Vec<f64> = logits
            .iter()
            .zip(&shaped)
            .map(|(logit, s)| if asked { logit + 0.5 * s } else { *logit })
            .collect();
        let chosen = (0..candidates).max_by(|a, b| fused[*a].total_cmp(&fused[*b])).unwrap();
        TraceStep {
            text: tokens[chosen].clone(),
            tokens,
            logits,
            rewards: asked.then_some(rewards),
            threshold: asked.then_some(threshold),
            shaped: asked.then_some(shaped),
            fused,
            chosen: Some(chosen),
            base: Some(0),
            warning: (number == 17).then(|| "The reward rises although the text repeats itself.".into()),
        }
    });
    Trace { values: false, steps: steps.collect() }
}
