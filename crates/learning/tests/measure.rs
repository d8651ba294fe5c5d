//! Metrics and their standard errors, by hand.

use stackelberg_learning::measure::{pairs, ratings};

fn near(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-12
}

#[test]
fn pairs_by_hand() {
    // One right, one wrong, one tie, one right.
    let [accuracy, loss] = pairs(&[1.0, 0.0, 2.0, 3.0], &[0.0, 1.0, 2.0, 1.0], None).unwrap();
    assert!(near(accuracy.value, 2.5 / 4.0));
    // Deviations .375, -.625, -.125, .375: squares sum to .6875; times 4/3, root, over 4.
    assert!(near(accuracy.standard_error, (0.6875_f64 * 4.0 / 3.0).sqrt() / 4.0));
    let one = |m: f64| (-m).exp().ln_1p();
    assert!(near(loss.value, (one(1.0) + one(-1.0) + one(0.0) + one(2.0)) / 4.0));

    // In two groups: deviations sum to -.25 and .25.
    let groups = [9, 9, 4, 4];
    let [accuracy, _] = pairs(&[1.0, 0.0, 2.0, 3.0], &[0.0, 1.0, 2.0, 1.0], Some(&groups)).unwrap();
    assert!(near(accuracy.standard_error, (0.125_f64 * 2.0).sqrt() / 4.0));

    let [accuracy, loss] = pairs(&[0.0], &[1e300], None).unwrap();
    assert_eq!((accuracy.value, loss.value), (0.0, 1e300));
    assert!(accuracy.standard_error.is_nan());
}

#[test]
fn ratings_by_hand() {
    // x = 1 2 3 4, y = 2 1 4 3: r = 3/5. Predictions x: squared errors all 1, variance 1.25.
    let [r, share] = ratings(&[1.0, 2.0, 3.0, 4.0], &[2.0, 1.0, 4.0, 3.0], None).unwrap();
    assert!(near(r.value, 0.6) && near(share.value, 1.0 - 1.0 / 1.25));
    // The influence of a row on r is zx zy - r (zx² + zy²)/2 = .6 - .6 · 1 in each row.
    assert!(near(r.standard_error, 0.0));
    // On R²: .8 zy² - .8 = -+.64.
    assert!(near(share.standard_error, (4.0 * 0.64_f64.powi(2) * 4.0 / 3.0).sqrt() / 4.0));

    // y = 1 2 4 3: r = 4/5; squared errors 0 0 1 1, so R² = 1 - .5/1.25.
    let [r, share] = ratings(&[1.0, 2.0, 3.0, 4.0], &[1.0, 2.0, 4.0, 3.0], None).unwrap();
    assert!(near(r.value, 0.8) && near(share.value, 0.6));
    // zx zy = 1.8 .2 .6 .6, zx² = 1.8 .2 .2 1.8, zy² = 1.8 .2 1.8 .2.
    let of_r = [1.8 - 0.8 * 1.8, 0.2 - 0.8 * 0.2, 0.6 - 0.8, 0.6 - 0.8];
    // .4 zy² - e / 1.25.
    let of_share = [0.4 * 1.8, 0.4 * 0.2, 0.4 * 1.8 - 0.8, 0.4 * 0.2 - 0.8];
    let error = |rows: &[f64]| (rows.iter().map(|i| i * i).sum::<f64>() * 4.0 / 3.0).sqrt() / 4.0;
    assert!(near(r.standard_error, error(&of_r)) && near(share.standard_error, error(&of_share)));
    assert!(r.standard_error > 0.1 && share.standard_error > 0.1);
    // In two groups the influences of a group add up: .4 and -.4, .8 and -.8.
    let [r, share] = ratings(&[1.0, 2.0, 3.0, 4.0], &[1.0, 2.0, 4.0, 3.0], Some(&[5, 5, 6, 6])).unwrap();
    assert!(near(r.standard_error, (2.0 * 0.4_f64.powi(2) * 2.0).sqrt() / 4.0));
    assert!(near(share.standard_error, (2.0 * 0.8_f64.powi(2) * 2.0).sqrt() / 4.0));

    // Pearson's r does not depend on the scale, R² does.
    let [r, share] = ratings(&[-10.0, -20.0, -30.0], &[1.0, 2.0, 3.0], None).unwrap();
    assert!(near(r.value, -1.0) && share.value < -100.0);
}

#[test]
fn bad_scores() {
    let message = |result: Result<_, stackelberg_learning::Error>| {
        let metrics: [stackelberg_learning::Metric; 2] = match result {
            Err(error) => return error.to_string(),
            Ok(metrics) => metrics,
        };
        panic!("{metrics:?}")
    };
    assert_eq!(
        message(pairs(&[1.0, f64::NAN], &[0.0, 0.0], None)),
        "scores of chosen[1] is NaN: it must be a finite number"
    );
    assert_eq!(
        message(pairs(&[1.0], &[0.0, 0.0], None)),
        "scores of rejected has 2 rows but scores of chosen has 1"
    );
    assert_eq!(message(pairs(&[1.0], &[0.0], Some(&[]))), "groups has 0 rows but the data has 1");
    assert_eq!(message(pairs(&[], &[], None)), "there are no rows to measure");
    assert_eq!(message(ratings(&[], &[], None)), "there are no rows to measure");
    assert!(
        message(ratings(&[1.0, 1.0], &[0.0, 1.0], None)).starts_with("predictions are all the same")
    );
    assert!(message(ratings(&[1.0, 2.0], &[0.0, 0.0], None)).starts_with("targets are all the same"));
}
