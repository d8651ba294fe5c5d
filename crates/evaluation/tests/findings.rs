//! Tables, curves and sentences of constructed answers whose differences are known.

use std::collections::BTreeMap;

use stackelberg_decoding::Method;
use stackelberg_evaluation::findings::{Findings, Knob, Limits, Series};
use stackelberg_evaluation::metrics::Measured;
use stackelberg_evaluation::report::{Row, Table};

const PROMPTS: usize = 40;
const LIMITS: Limits = Limits { diversity: 0.9, coherence: 0.9 };

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
        group: "without a strength".to_owned(),
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
    let findings = Findings::new(&series, &["guide".to_owned(), "judge".to_owned()], &LIMITS);
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
    let findings = Findings::new(&series, &["guide".to_owned(), "judge".to_owned()], &LIMITS);
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

#[test]
fn rewards_stand_over_what_they_cost() {
    let setting = |method: Method, curve: &str, reward: f64, kl: f64, tokens: f64| Series {
        method: Some(method),
        group: "without a strength".to_owned(),
        curve: curve.to_owned(),
        kept: true,
        tokens_run: Some(tokens),
        seeds: vec![seed(reward, kl, 0.8)],
        ..Series::default()
    };
    let mut raw =
        Series { tokens_run: Some(640.0), method: Some(Method::Args), ..guided("raw", 2.0, 2.0, 4.0) };
    raw.seeds[0].iter_mut().for_each(|answer| answer.tail_nll = Some(1.5));
    raw.seeds.truncate(1);
    let series = [
        setting(Method::Base, "base", 0.0, 0.0, 60.0),
        setting(Method::BestOfN, "best-of-n samples 16", 1.5, 1.8, 960.0),
        setting(Method::BestOfN, "best-of-n samples 4", 1.0, 0.6, 240.0),
        raw.clone(),
        // Not in the main table.
        Series { tokens_run: Some(640.0), ..guided("raw", 1.0, 1.0, 1.0) },
        Series { perturbation: Some("noise=1".to_owned()), ..raw },
    ];
    let findings = Findings::new(&series, &["guide".to_owned(), "judge".to_owned()], &LIMITS);
    let charts = findings.charts();
    let points = |name: &str| -> Vec<(String, Vec<(String, f64)>)> {
        let chart =
            charts.iter().find(|chart| chart.name == name).unwrap_or_else(|| panic!("{charts:#?}"));
        let of = |point: &stackelberg_evaluation::report::Point| (point.label.clone(), point.x);
        chart.curves.iter().map(|c| (c.label.clone(), c.points.iter().map(of).collect())).collect()
    };
    let expected = |base: f64, four: f64, sixteen: f64, raw: f64| {
        let of = |label: &str, x: f64| (label.to_owned(), x);
        vec![
            ("base".to_owned(), vec![of("base", base)]),
            (
                "best-of-n".to_owned(),
                vec![of("best-of-n samples 4", four), of("best-of-n samples 16", sixteen)],
            ),
            ("args raw".to_owned(), vec![of("args raw, λ 2", raw)]),
        ]
    };
    assert_eq!(points("judge-of-settings-by-tokens-run"), expected(60.0, 240.0, 960.0, 640.0));
    let by_kl = points("judge-of-settings-by-kl");
    for (got, wanted) in by_kl.iter().zip(expected(0.0, 0.6, 1.8, 5.5)) {
        assert_eq!(got.0, wanted.0);
        assert!(
            got.1.iter().zip(&wanted.1).all(|(a, b)| a.0 == b.0 && (a.1 - b.1).abs() < 1e-9),
            "{got:?}"
        );
    }
    let by_tokens = charts.iter().find(|c| c.name == "judge-of-settings-by-tokens-run").unwrap();
    assert!(by_tokens.log_x && by_tokens.y == "reward judge");
    // The reward is the held-out one: half of the guide's difference from base.
    let (base, best) = (&by_tokens.curves[0].points[0], &by_tokens.curves[1].points[1]);
    assert!((best.y.mean - base.y.mean - 0.75).abs() < 0.1, "{best:?} {base:?}");

    // Without a held-out reward, the guide's.
    let alone = Findings::new(&series, &["guide".to_owned()], &LIMITS).charts();
    assert!(alone.iter().any(|chart| chart.name == "guide-of-settings-by-tokens-run"));
    assert!(!alone.iter().any(|chart| chart.name.starts_with("judge")));

    // The last column of the main table.
    let main = &findings.tables()[0];
    assert_eq!(main.columns.last().map(String::as_str), Some("tokens run"));
    let tokens = |label: &str| row(main, label).cells.last().unwrap().as_ref().map(|cell| cell.mean);
    assert_eq!((tokens("best-of-n samples 16"), tokens("args raw, λ 2")), (Some(960.0), Some(640.0)));
}

#[test]
fn the_opening_answers_four_questions() {
    let rewards = ["guide".to_owned(), "judge".to_owned()];
    let method = |method, series: Series| Series { method: Some(method), ..series };
    let constant = |reward: f64, judge: f64, kl: f64, coherence: f64| {
        let answer = |prompt: usize| Measured {
            id: prompt.to_string(),
            rewards: [("guide".to_owned(), reward), ("judge".to_owned(), judge)].into(),
            diversity: 0.8,
            coherence: Some(coherence),
            kl: Some(kl),
            ..Measured::default()
        };
        vec![(0..PROMPTS).map(answer).collect::<Vec<_>>()]
    };
    let unguided = |of: Method, seeds, generated| Series {
        group: "without a strength".to_owned(),
        curve: of.name().to_owned(),
        method: Some(of),
        kept: true,
        seeds,
        generated: Some(generated),
        ..Series::default()
    };
    let args = |curve: &str, seeds| Series {
        seeds,
        generated: Some(52.0),
        scored: Some(480.0),
        ..method(Method::Args, guided(curve, 2.0, 0.0, 0.0))
    };
    let base = unguided(Method::Base, constant(0.5, -0.5, 0.0, 0.5), 48.0);
    let best = unguided(Method::BestOfN, constant(1.75, -0.5, 1.4, 0.5), 480.0);
    let raw = args("raw", constant(1.5, 0.25, 18.5, 0.48));
    // The highest reward, with degenerate text: it is not the one that is written about.
    let hot = args("hot", constant(3.0, 0.5, 250.0, 0.2));
    let opening =
        |series: &[Series], rewards: &[String]| Findings::new(series, rewards, &LIMITS).opening();
    let all = [base.clone(), best.clone(), raw.clone(), hot.clone()];
    assert_eq!(
        opening(&all, &rewards),
        [
            "Guidance beats the base policy: under args raw, λ 2, guide changes from 0.500 to 1.500, by +1.000 \
             [+1.000, +1.000] (40 prompts, paired).",
            "args raw, λ 2 does worse than best-of-n, which generates about 480 tokens per prompt: the difference in \
             guide is -0.250 [-0.250, -0.250].",
            "The held-out reward judge is higher than base's (+0.750 [+0.750, +0.750]) and higher than best-of-n's \
             (+0.750 [+0.750, +0.750]).",
            "The cost of args raw, λ 2 against base: KL 18.50 [18.50, 18.50] nats per answer, diversity +0.000 \
             [+0.000, +0.000], coherence -0.020 [-0.020, -0.020], 52 generated and 480 scored candidate tokens per \
             prompt (base: 48 generated tokens); its text is not degenerate.",
        ]
    );
    let note = Findings::new(&all, &rewards, &LIMITS).tables()[0].note.clone();
    let degenerate = "Degenerate by the sweep's limits: args hot, λ 2 (coherence is 0.400 [0.400, 0.400] of base's, limit 0.9).";
    assert!(note.ends_with(degenerate), "{note}");

    // No best-of-n, no held-out reward, and only degenerate text.
    let said = opening(&[base.clone(), hot.clone()], &rewards[..1]);
    assert_eq!(said.len(), 4);
    assert_eq!(said[1], "There is no comparison with best-of-n: it was not run.");
    assert!(said[2].starts_with("No held-out reward was measured"), "{said:?}");
    assert!(
        said[3].ends_with(
            "its text is degenerate (coherence is 0.400 [0.400, 0.400] of base's, limit 0.9)."
        ),
        "{said:?}"
    );
    // Two guided settings: the sentence says that one was selected.
    let said = opening(&[base.clone(), raw, args("cool", constant(0.5, 0.0, 1.0, 0.5))], &rewards);
    assert!(
        said[0].ends_with(
            "It has the highest guide of 2 guided settings whose text is not clearly degenerate."
        ),
        "{said:?}"
    );
    // A difference of 0 is not clear; a lower reward is worse.
    let none = opening(&[base.clone(), args("raw", constant(0.5, -0.5, 1.0, 0.5))], &rewards);
    assert!(none[0].starts_with("Guidance does not clearly beat the base policy: "), "{none:?}");
    let worse = opening(&[base.clone(), args("raw", constant(0.25, -0.5, 1.0, 0.5))], &rewards);
    assert!(worse[0].starts_with("Guidance does worse than the base policy: "), "{worse:?}");
    // Nine prompts say nothing for certain.
    let few = |mut series: Series| {
        series.seeds[0].truncate(9);
        series
    };
    let said = opening(&[few(base.clone()), few(hot)], &rewards);
    assert!(
        said[0].starts_with("Too few prompts to tell whether guidance beats the base policy: "),
        "{said:?}"
    );
    assert!(said[0].contains("by +2.500 (9 prompts, paired)"), "{said:?}");
    assert!(
        said[3].contains("whether its text is degenerate cannot be told with 9 prompts"),
        "{said:?}"
    );
    assert_eq!(
        opening(&[base, best], &rewards),
        ["No guided setting is finished, so there is nothing to compare with the base policy."]
    );
    assert!(opening(&[], &rewards).is_empty());
}
