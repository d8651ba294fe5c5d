//! Tables, curves and sentences of constructed answers whose differences are known.

use std::collections::BTreeMap;

use stackelberg_evaluation::findings::{Findings, Knob, Series};
use stackelberg_evaluation::metrics::Measured;
use stackelberg_evaluation::report::{Row, Table};

const PROMPTS: usize = 40;

/// Answers whose guide's reward is `reward` plus an offset of the prompt. The held-out reward has half of `reward`.
fn seed(reward: f64, kl: f64, diversity: f64) -> Vec<Measured> {
    let answer = |prompt: usize| {
        let of_prompt = 3.0 * (prompt as f64 * 0.7).sin();
        let own = 0.1 * (prompt as f64 * (2.0 + reward)).cos();
        let rewards =
            [("guide", reward + of_prompt + own), ("judge", 0.5 * reward + of_prompt + 2.0 * own)];
        Measured {
            id: prompt.to_string(),
            rewards: rewards.map(|(name, value)| (name.to_owned(), value)).into(),
            diversity,
            coherence: Some(0.5),
            kl: Some(kl),
            ..Measured::default()
        }
    };
    (0..PROMPTS).map(answer).collect()
}

fn guided(curve: &str, strength: f64, reward: f64, kl: f64) -> Series {
    Series {
        group: "args".to_owned(),
        curve: format!("args {curve}"),
        knob: Some(Knob::Strength(strength)),
        kept: strength == 2.0,
        vanilla: curve == "raw",
        seeds: vec![seed(reward, kl, 0.8), seed(reward, kl, 0.8)],
        ..Series::default()
    }
}

/// raw: the reward is the root of KL. hot: a higher reward at equal strength, the same at equal KL. worse: a lower reward at
/// equal KL.
fn series() -> Vec<Series> {
    let base = Series {
        group: "without guidance".to_owned(),
        curve: "base".to_owned(),
        kept: true,
        seeds: vec![seed(0.0, 0.0, 0.8)],
        ..Series::default()
    };
    let noisy = Series { perturbation: Some("noise=1".to_owned()), ..guided("raw", 2.0, 0.5, 6.0) };
    vec![
        base,
        guided("raw", 1.0, 1.0, 1.0),
        guided("raw", 2.0, 2.0, 4.0),
        guided("hot", 1.0, 1.5, 2.25),
        guided("hot", 2.0, 2.5, 6.25),
        guided("worse", 1.0, 0.4, 1.0),
        guided("worse", 2.0, 1.0, 4.0),
        noisy,
    ]
}

fn row<'a>(table: &'a Table, label: &str) -> &'a Row {
    table.rows.iter().find(|row| row.label == label).unwrap_or_else(|| panic!("{label}: {table:#?}"))
}

#[test]
fn tables_show_the_known_differences() {
    let series = series();
    let findings = Findings::new(&series, &["guide".to_owned(), "judge".to_owned()]);
    let tables: BTreeMap<String, Table> =
        findings.tables().into_iter().map(|table| (table.name.clone(), table)).collect();
    let names: Vec<&String> = tables.keys().collect();
    assert_eq!(names, ["equal-kl-guide", "equal-kl-judge", "equal-strength", "main", "perturbed"]);

    let main = &tables["main"];
    assert_eq!(main.rows.len(), 4);
    let hot = row(main, "args hot, λ 2").cells[0].as_ref().unwrap();
    let base = row(main, "base").cells[0].as_ref().unwrap();
    assert!((hot.mean - base.mean - 2.5).abs() < 0.05, "{hot:?}");
    // The paired difference is clear, although the two intervals overlap.
    let raw = row(main, "args raw, λ 2").cells[0].as_ref().unwrap();
    assert!(raw.interval.unwrap().1 > hot.interval.unwrap().0);
    assert!(hot.bold && !raw.bold && hot.differs == 1);
    // All diversities are the same, so no cell is bold or marked.
    let diversity = main.columns.iter().position(|column| column == "diversity").unwrap();
    assert!(main.rows.iter().all(|row| {
        let cell = row.cells[diversity].as_ref().unwrap();
        !cell.bold && cell.differs == 0
    }));

    let strength = &tables["equal-strength"];
    let difference = row(strength, "args hot minus args raw").cells[0].as_ref().unwrap();
    assert!((difference.mean - 0.5).abs() < 0.05 && difference.differs == 1);
    assert_eq!(row(strength, "args worse minus args raw").cells[0].as_ref().unwrap().differs, -1);

    // KL 4 lies between the points of hot and on a point of raw: both have reward 2. hot does not reach KL 1 and 2.
    let kl = &tables["equal-kl-guide"];
    assert_eq!(kl.columns, ["KL 1", "KL 2", "KL 4"]);
    let [raw, hot, worse] = ["args raw", "args hot", "args worse"].map(|label| &row(kl, label).cells);
    assert!(hot[0].is_none() && hot[1].is_none());
    let at =
        |cell: &Option<stackelberg_evaluation::report::Cell>| cell.as_ref().unwrap().mean - base.mean;
    assert!((at(&raw[2]) - 2.0).abs() < 0.05 && (at(&hot[2]) - 2.0).abs() < 0.05);
    assert!((at(&raw[1]) - 2.0_f64.sqrt()).abs() < 0.05);
    assert_eq!(hot[2].as_ref().unwrap().differs, 0);
    assert!((at(&worse[2]) - 1.0).abs() < 0.05);
    assert_eq!(worse[2].as_ref().unwrap().differs, -1);

    let perturbed = &tables["perturbed"];
    assert_eq!(perturbed.title, "Perturbed rewards");
    assert_eq!(perturbed.rows.len(), 1);
    assert_eq!(perturbed.rows[0].group, "args, noise=1");
}

#[test]
fn sentences_charts_and_wins() {
    let series = series();
    let findings = Findings::new(&series, &["guide".to_owned(), "judge".to_owned()]);
    let sentences = findings.sentences();
    let said = |start: &str| {
        sentences.iter().find(|s| s.starts_with(start)).unwrap_or_else(|| panic!("{sentences:#?}"))
    };
    assert_eq!(
        said("args at equal strength (λ 2): guide"),
        "args at equal strength (λ 2): guide is higher than with raw for hot; lower for worse."
    );
    assert_eq!(
        said("args at equal KL (4 nats per answer): guide"),
        "args at equal KL (4 nats per answer): guide is lower than with raw for worse; not clearly different for hot."
    );
    let charts = findings.charts();
    let by_kl = charts.iter().find(|chart| chart.name == "guide-by-kl").unwrap();
    assert_eq!(by_kl.curves.len(), 3);
    let xs: Vec<f64> = by_kl.curves[0].points.iter().map(|point| point.x).collect();
    assert_eq!((by_kl.curves[0].label.as_str(), xs), ("args raw", vec![1.0, 4.0]));
    let matrices = findings.matrices();
    // The held-out reward comes first. The cell is base against hot.
    assert!(matrices[0].title.ends_with("judge"));
    let guide = &matrices[1];
    let lost = guide.cells[0][2].unwrap();
    assert_eq!((lost.win, lost.tie, lost.lose), (0, 0, PROMPTS));
    assert!(lost.p < 1e-9);
}
