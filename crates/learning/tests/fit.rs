//! Fits recover known parameters, are reproducible, and reject invalid input.

use std::cell::RefCell;

use stackelberg_learning::{Choose, Error, Features, Fit, Settings, fit, measure};

use crate::common::{Random, features};

const D: usize = 12;

fn rows(values: &[f32]) -> Features<'_> {
    Features::new(values, D).unwrap()
}

fn dot(x: &[f32], w: &[f64]) -> f64 {
    x.iter().zip(w).map(|(x, w)| f64::from(*x) * w).sum()
}

/// `n` pairs drawn from the Bradley-Terry model with weights `w`; for `w = 0` the winner is a fair coin toss.
fn pairs(seed: u64, n: usize, w: &[f64]) -> (Vec<f32>, Vec<f32>) {
    let mut random = Random::new(seed);
    let (a, b) = (features(&mut random, n, D), features(&mut random, n, D));
    let (mut chosen, mut rejected) = (vec![], vec![]);
    for (a, b) in a.chunks_exact(D).zip(b.chunks_exact(D)) {
        let first = random.uniform() < 1.0 / (1.0 + (dot(b, w) - dot(a, w)).exp());
        let (win, lose) = if first { (a, b) } else { (b, a) };
        chosen.extend_from_slice(win);
        rejected.extend_from_slice(lose);
    }
    (chosen, rejected)
}

/// Weights of about equal effect; the features of column 3 are large.
fn truth() -> Vec<f64> {
    (0..D).map(|j| (j as f64 - 5.5) / 8.0 * if j == 3 { 0.003 } else { 1.0 }).collect()
}

fn bits(fit: &Fit) -> Vec<u8> {
    let mut bits: Vec<u8> = fit.weight.iter().flat_map(|w| w.to_le_bytes()).collect();
    bits.extend(fit.bias.to_le_bytes());
    for value in [fit.reward_mean, fit.reward_std, fit.regularisation] {
        bits.extend(value.to_le_bytes());
    }
    for metric in fit.cross_validation.iter().flat_map(|t| t.metrics) {
        bits.extend(metric.value.to_le_bytes());
        bits.extend(metric.standard_error.to_le_bytes());
    }
    bits
}

#[test]
fn known_preferences_are_recovered() {
    let (chosen, rejected) = pairs(1, 20_000, &truth());
    let fit = fit::bradley_terry(rows(&chosen), rows(&rejected), &Settings::default()).unwrap();
    for (j, (found, true_)) in fit.weight.iter().zip(truth()).enumerate() {
        let scale = if j == 3 { 300.0 } else { 0.3 + (j % 7) as f64 / 3.0 };
        // Four standard errors.
        assert!(scale * (f64::from(*found) - true_).abs() < 0.2, "{j}: {found} {true_}");
    }
    assert_eq!(fit.bias, 0.0);
    let scores = [fit.scores(rows(&chosen)).unwrap(), fit.scores(rows(&rejected)).unwrap()].concat();
    let mean = scores.iter().sum::<f64>() / 40_000.0;
    let std = (scores.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / 40_000.0).sqrt();
    assert!((fit.reward_mean - mean).abs() < 1e-9 && (fit.reward_std - std).abs() < 1e-9);
    assert_eq!(fit.score(&chosen[..D]), scores[0]);
    // The metrics on new data agree with those of the cross-validation.
    let (c, r) = pairs(2, 20_000, &truth());
    let fresh =
        measure::pairs(&fit.scores(rows(&c)).unwrap(), &fit.scores(rows(&r)).unwrap(), None).unwrap();
    for (promised, fresh) in fit.held_out.iter().zip(fresh) {
        let error = promised.standard_error.hypot(fresh.standard_error);
        assert!((promised.value - fresh.value).abs() < 4.0 * error, "{promised:?} {fresh:?}");
    }
}

#[test]
fn the_logistic_gradient_is_zero() {
    let (chosen, rejected) = pairs(3, 301, &truth());
    let lambda = 0.01;
    let settings = Settings { regularisations: vec![lambda], folds: 3, ..Settings::default() };
    let fit = fit::bradley_terry(rows(&chosen), rows(&rejected), &settings).unwrap();
    for j in 0..D {
        let column: Vec<f64> = [&chosen, &rejected]
            .iter()
            .flat_map(|x| x.chunks_exact(D).map(|x| f64::from(x[j])))
            .collect();
        let mean = column.iter().sum::<f64>() / 602.0;
        let variance = column.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 602.0;
        let mut gradient = lambda * f64::from(fit.weight[j]) * variance;
        for (c, r) in chosen.chunks_exact(D).zip(rejected.chunks_exact(D)) {
            let margin = fit.score(c) - fit.score(r);
            gradient -= f64::from(c[j] - r[j]) / (1.0 + margin.exp()) / 301.0;
        }
        assert!(gradient.abs() / variance.sqrt() < 1e-6, "{j}: {gradient}");
    }
}

#[test]
fn known_ratings_are_recovered() {
    let mut random = Random::new(4);
    let x = features(&mut random, 5_000, D);
    let targets: Vec<f64> =
        x.chunks_exact(D).map(|x| dot(x, &truth()) + 7.0 + 0.3 * random.normal()).collect();
    let fit = fit::regression(rows(&x), &targets, &Settings::default()).unwrap();
    for (j, (found, true_)) in fit.weight.iter().zip(truth()).enumerate() {
        let scale = if j == 3 { 300.0 } else { 1.0 };
        assert!(scale * (f64::from(*found) - true_).abs() < 0.05, "{j}: {found} {true_}");
    }
    assert!((f64::from(fit.bias) - 7.0).abs() < 0.2, "{}", fit.bias);
    let mean = targets.iter().sum::<f64>() / 5_000.0;
    assert!((fit.reward_mean - mean).abs() < 1e-5);
    assert!(fit.held_out[0].value > 0.97 && fit.held_out[1].value > 0.95);
}

#[test]
fn ridge_by_hand() {
    // Standardised feature -1, -1, 1, 1; slope cov/(var + lambda) = 2/(1 + 1) = 1 in those units.
    let x = [10.0, 10.0, 14.0, 14.0];
    let features = Features::new(&x, 1).unwrap();
    let settings = Settings { folds: 2, regularisations: vec![1.0], ..Settings::default() };
    let fit = fit::regression(features, &[0.0, 2.0, 4.0, 6.0], &settings).unwrap();
    assert!((fit.weight[0] - 0.5).abs() < 1e-6);
    assert!((fit.bias + 3.0).abs() < 1e-5);
    assert!((fit.reward_mean - 3.0).abs() < 1e-6 && (fit.reward_std - 1.0).abs() < 1e-6);
}

#[test]
fn noise_asks_for_more_regularisation() {
    // Means of log10 lambda and of accuracy over ten data sets, to reduce noise.
    let fitted = |w: &[f64]| {
        let one = |seed| {
            let (chosen, rejected) = pairs(seed, 400, w);
            fit::bradley_terry(rows(&chosen), rows(&rejected), &Settings::default()).unwrap()
        };
        let fits: Vec<Fit> = (100..110).map(one).collect();
        let mean = |of: &dyn Fn(&Fit) -> f64| fits.iter().map(of).sum::<f64>() / 10.0;
        (mean(&|f| f.regularisation.log10()), mean(&|f| f.held_out[0].value))
    };
    let ((clear, right), (noise, guessed)) = (fitted(&truth()), fitted(&[0.0; D]));
    assert!(noise > clear + 2.0, "{noise} {clear}");
    assert!(right > 0.75 && (guessed - 0.5).abs() < 0.05, "{right} {guessed}");

    let mut random = Random::new(6);
    let x = features(&mut random, 300, D);
    let mut regularisation = |noise: f64| {
        let targets: Vec<f64> =
            x.chunks_exact(D).map(|x| dot(x, &truth()) + noise * random.normal()).collect();
        fit::regression(rows(&x), &targets, &Settings::default()).unwrap().regularisation
    };
    assert!(regularisation(20.0) > 10.0 * regularisation(0.1));
}

#[test]
fn one_standard_error_is_simpler_and_ties_go_to_the_larger() {
    let (chosen, rejected) = pairs(7, 600, &truth());
    let fitted = |choose| {
        let settings = Settings { choose, ..Settings::default() };
        fit::bradley_terry(rows(&chosen), rows(&rejected), &settings).unwrap()
    };
    let (best, simple) = (fitted(Choose::Best), fitted(Choose::OneStandardError));
    assert!(simple.regularisation > best.regularisation);
    assert!(simple.held_out[1].value <= best.held_out[1].value + best.held_out[1].standard_error);
    assert_eq!(best.cross_validation, simple.cross_validation);
    // Repeated values are one trial, and the trials are in descending order.
    let regularisations = vec![0.1, 1.0, 0.1, 1.0];
    let settings = Settings { regularisations, ..Settings::default() };
    let fit = fit::bradley_terry(rows(&chosen), rows(&rejected), &settings).unwrap();
    let tried: Vec<f64> = fit.cross_validation.iter().map(|t| t.regularisation).collect();
    assert_eq!(tried, [1.0, 0.1]);
    assert!(fit.at_edge() && !best.at_edge());
}

#[test]
fn equal_settings_give_equal_bytes_on_any_number_of_threads() {
    let (chosen, rejected) = pairs(8, 500, &truth());
    let targets: Vec<f64> = chosen.chunks_exact(D).map(|x| dot(x, &truth()).sin()).collect();
    let groups: Vec<u64> = (0..500).map(|i| i / 3).collect();
    let both = |threads, seed| {
        let settings = Settings { threads, seed, groups: Some(&groups), ..Settings::default() };
        let pairs = fit::bradley_terry(rows(&chosen), rows(&rejected), &settings).unwrap();
        assert_eq!(pairs.groups, 167);
        [bits(&pairs), bits(&fit::regression(rows(&chosen), &targets, &settings).unwrap())]
    };
    let once = both(1, 3);
    for threads in [1, 2, 5, 64] {
        assert_eq!(once, both(threads, 3), "{threads} threads");
    }
    assert_ne!(once, both(1, 4));
}

#[test]
fn groups_keep_repeated_pairs_out_of_the_training_part() {
    // 60 pairs of noise with 60 columns, each repeated four times: a copy in the training part reveals the answer.
    let mut random = Random::new(9);
    let (mut chosen, mut rejected, mut groups) = (vec![], vec![], vec![]);
    for pair in 0..60 {
        let (c, r) = (random.normals(60), random.normals(60));
        for _ in 0..4 {
            chosen.extend_from_slice(&c);
            rejected.extend_from_slice(&r);
            groups.push(pair);
        }
    }
    let accuracy = |groups| {
        let settings = Settings { groups, regularisations: vec![0.01], ..Settings::default() };
        let rows = |x| Features::new(x, 60).unwrap();
        fit::bradley_terry(rows(&chosen), rows(&rejected), &settings).unwrap().held_out[0]
    };
    assert!(accuracy(None).value > 0.95);
    let grouped = accuracy(Some(&groups[..]));
    assert!((grouped.value - 0.5).abs() < 4.0 * grouped.standard_error);
    assert!(grouped.standard_error > 0.05, "60 answers, not 240: {grouped:?}");
}

#[test]
fn constant_columns_weigh_nothing() {
    let (mut chosen, mut rejected) = pairs(10, 300, &truth());
    for row in chosen.chunks_exact_mut(D).chain(rejected.chunks_exact_mut(D)) {
        row[2] = 1234.567;
    }
    let fit = fit::bradley_terry(rows(&chosen), rows(&rejected), &Settings::default()).unwrap();
    assert_eq!(fit.weight[2], 0.0);
    let targets: Vec<f64> = chosen.chunks_exact(D).map(|x| dot(x, &truth())).collect();
    let fit = fit::regression(rows(&chosen), &targets, &Settings::default()).unwrap();
    assert_eq!(fit.weight[2], 0.0);
}

#[test]
fn separable_pairs_and_more_columns_than_rows_converge() {
    let mut random = Random::new(11);
    let (c, r) = (random.normals(20 * 50), random.normals(20 * 50));
    let rows = |x| Features::new(x, 50).unwrap();
    let settings = Settings { regularisations: Settings::grid(1e-8, 1.0, 5), ..Settings::default() };
    let fit = fit::bradley_terry(rows(&c), rows(&r), &settings).unwrap();
    let quality = |fit: &Fit| {
        let [chosen, rejected] = [&c, &r].map(|x| fit.scores(rows(x)).unwrap());
        measure::pairs(&chosen, &rejected, None).unwrap().map(|metric| metric.value)
    };
    let [accuracy, loss] = quality(&fit);
    assert!(accuracy == 1.0 && loss < 0.5, "{accuracy} {loss}");
    // With almost no regularisation, the margins grow and the training loss vanishes.
    let only = Settings { regularisations: vec![1e-8], ..settings };
    let fit = fit::bradley_terry(rows(&c), rows(&r), &only).unwrap();
    let [accuracy, loss] = quality(&fit);
    assert!(accuracy == 1.0 && loss < 1e-5, "{accuracy} {loss}");
}

#[test]
fn progress_counts_to_the_end() {
    let (chosen, rejected) = pairs(12, 60, &truth());
    let seen = RefCell::new(vec![]);
    let progress = |done, total| seen.borrow_mut().push((done, total));
    let settings = Settings { progress: &progress, threads: 2, ..Settings::default() };
    fit::bradley_terry(rows(&chosen), rows(&rejected), &settings).unwrap();
    let total = 5 * 14 + 1;
    assert_eq!(*seen.borrow(), (1..=total).map(|done| (done, total)).collect::<Vec<_>>());
}

#[track_caller]
fn message<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn bad_features_and_settings() {
    assert_eq!(message(Features::new(&[1.0, 2.0, 3.0], 2)), "3 features do not make rows of 2");
    assert_eq!(message(Features::new(&[], 0)), "0 features do not make rows of 0");
    assert_eq!(
        message(Features::new(&[0.0, 1.0, f32::NAN, 0.0], 2)),
        "feature 0 of row 1 is NaN: features must be finite numbers"
    );
    let (chosen, rejected) = pairs(13, 40, &truth());
    let default = Settings::default();
    let fitted = |settings| message(fit::bradley_terry(rows(&chosen), rows(&rejected), &settings));
    assert_eq!(fitted(Settings { folds: 1, ..default.clone() }), "folds is 1: it must be at least 2");
    assert!(fitted(Settings { folds: 41, ..default.clone() }).starts_with("40 groups of rows cannot"));
    assert_eq!(
        fitted(Settings { threads: 0, ..default.clone() }),
        "threads is 0: it must be at least 1"
    );
    for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let settings = Settings { regularisations: vec![1.0, bad], ..default.clone() };
        assert_eq!(fitted(settings), format!("regularisation is {bad}: it must be a positive number"));
    }
    assert_eq!(
        fitted(Settings { regularisations: vec![], ..default.clone() }),
        "number of regularisations is 0: it must be at least 1"
    );
    assert_eq!(
        fitted(Settings { groups: Some(&[1, 2]), ..default.clone() }),
        "groups has 2 rows but the data has 40"
    );
    assert_eq!(
        message(fit::bradley_terry(rows(&chosen), rows(&rejected[D..]), &default)),
        "rejected has 39 rows but chosen has 40"
    );
    assert_eq!(
        message(fit::bradley_terry(rows(&chosen), Features::new(&rejected, 6).unwrap(), &default)),
        "rejected has 6 columns but chosen has 12"
    );
    assert_eq!(
        message(fit::bradley_terry(rows(&chosen), rows(&chosen), &default)),
        "features of chosen and rejected are all the same: there is nothing to learn from them"
    );
    let regression = |targets: &[f64]| message(fit::regression(rows(&chosen), targets, &default));
    assert_eq!(regression(&[1.0; 3]), "targets has 3 rows but features has 40");
    assert!(regression(&[1.0; 40]).starts_with("targets are all the same"));
    let mut targets = vec![1.0; 40];
    targets[7] = f64::INFINITY;
    assert_eq!(regression(&targets), "targets[7] is inf: it must be a finite number");
    let flat = vec![3.0; 40 * D];
    targets[7] = 2.0;
    assert!(message(fit::regression(rows(&flat), &targets, &default)).starts_with("features are all"));
    let fit = fit::bradley_terry(rows(&chosen), rows(&rejected), &default).unwrap();
    let other = Features::new(&chosen, 6).unwrap();
    assert_eq!(message(fit.scores(other)), "features has 6 columns but the head has 12");
}
