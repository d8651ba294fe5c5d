//! Invalid input is rejected, and the message names the value.

use stackelberg_shaping::{Confidence, Error, Follower, Rule, Samples, Shaping, Threshold};

#[track_caller]
fn message<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn rewards_and_priors() {
    assert_eq!(message(Samples::new(&[])), "no rewards: at least one is needed");
    assert_eq!(message(Samples::new(&[1.0, f64::NAN])), "rewards[1] is NaN: it must be a finite number");
    assert_eq!(
        message(Samples::new(&[f64::NEG_INFINITY])),
        "rewards[0] is -inf: it must be a finite number"
    );
    let two = [1.0, 2.0];
    assert_eq!(
        message(Samples::weighted(&two, &[1.0])),
        "weights has 1 entries but there are 2 rewards"
    );
    assert_eq!(
        message(Samples::weighted(&two, &[1.0, -0.5])),
        "weights[1] is -0.5: a weight cannot be negative"
    );
    assert_eq!(
        message(Samples::weighted(&two, &[f64::INFINITY, 1.0])),
        "weights[0] is inf: it must be a finite number"
    );
    assert_eq!(
        message(Samples::weighted(&two, &[0.0, 0.0])),
        "all weights carry zero mass: at least one response must be possible"
    );
    assert_eq!(
        message(Samples::from_logits(&two, &[0.0, f64::NAN])),
        "logits[1] is NaN: it must be a finite number"
    );
    assert_eq!(
        message(Samples::from_logits(&two, &[f64::NEG_INFINITY; 2])),
        "all logits carry zero mass: at least one response must be possible"
    );
    assert!(matches!(Samples::weighted(&[], &[]), Err(Error::Empty)));
    assert!(matches!(Samples::from_logits(&[], &[]), Err(Error::Empty)));
}

#[test]
fn a_masked_candidate_has_no_mass() {
    let samples = Samples::from_logits(&[5.0, 1.0], &[f64::NEG_INFINITY, 0.3]).unwrap();
    assert_eq!(samples.prior(), [0.0, 1.0]);
    assert_eq!(Threshold::new(&samples, 1.0).unwrap().value, 1.0);
}

#[test]
fn weights_at_the_ends_of_f64() {
    for scale in [f64::MIN_POSITIVE, 1e-300, 1e300, f64::MAX / 4.0] {
        let samples = Samples::weighted(&[1.0, 2.0, 3.0], &[scale, 2.0 * scale, scale]).unwrap();
        assert_eq!(samples.prior(), [0.25, 0.5, 0.25]);
    }
    let samples = Samples::weighted(&[1.0, 2.0], &[f64::MAX, f64::MAX]).unwrap();
    assert_eq!(samples.prior(), [0.5, 0.5]);
}

#[test]
fn settings() {
    let samples = Samples::new(&[1.0, 2.0]).unwrap();
    let base = Shaping::default();
    for (shaping, expected) in [
        (Shaping { strength: -1.0, ..base }, "strength is -1: it must be zero or more, and finite"),
        (Shaping { strength: f64::NAN, ..base }, "strength is NaN: it must be zero or more, and finite"),
        (Shaping { bound: -0.1, ..base }, "bound is -0.1: it must be zero or more, and finite"),
        (Shaping { bound: f64::INFINITY, ..base }, "bound is inf: it must be zero or more, and finite"),
        (Shaping { alpha: 0.0, ..base }, "alpha is 0: it must be above zero, and finite"),
        (Shaping { cap: -1.0, ..base }, "cap is -1: it must be zero or more, and finite"),
        (Shaping { stretch: 0.0, ..base }, "stretch is 0: it must be above zero, and finite"),
        (Shaping { ref_quantile: 1.5, ..base }, "ref-quantile is 1.5: it must be between 0 and 1"),
        (Shaping { exponent_cap: -2.0, ..base }, "exponent-cap is -2: it must be zero or more"),
    ] {
        for rule in Rule::ALL {
            assert_eq!(message(Shaping { rule, ..shaping }.apply(&samples)), expected);
        }
    }
    assert_eq!(
        message(Threshold::new(&samples, -1.0)),
        "bound times strength is -1: it must be zero or more"
    );
    assert_eq!(message(Confidence::new(0.3)), "level is 0.3: it must be between 0.5 and 0.99");
    assert_eq!(message(Confidence::new(1.0)), "level is 1: it must be between 0.5 and 0.99");
    assert_eq!(
        message(Follower::respond(&samples, &[1.0], 1.0)),
        "shaped has 1 entries but there are 2 rewards"
    );
    assert_eq!(
        message(Follower::respond(&samples, &[1.0, f64::NAN], 1.0)),
        "shaped[1] is NaN: it must be a finite number"
    );
}
