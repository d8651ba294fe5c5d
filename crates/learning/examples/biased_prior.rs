/*!
The paper's biased-prior example, then every rule on one set of samples.

`cargo run --release -p stackelberg-learning --example biased_prior [FOLDER]` prints the numbers and draws
`utility-by-bound.svg` and `utility-by-kl.svg` into FOLDER (default: the current one).
*/

use std::error::Error;
use std::path::{Path, PathBuf};

use stackelberg_learning::plot::{self, Curve};
use stackelberg_shaping::{Follower, Rule, Samples, Shaping, Threshold};

fn main() -> Result<(), Box<dyn Error>> {
    biased_prior()?;

    // Ten responses to one prompt. The base policy prefers mediocre ones; the best two are rare.
    let rewards = [0.15, 0.25, -0.1, 0.05, 0.95, -0.55, 0.2, 1.2, -0.3, 0.4];
    let prior = [0.22, 0.16, 0.14, 0.12, 0.02, 0.08, 0.12, 0.01, 0.08, 0.05];
    let samples = Samples::weighted(&rewards, &prior)?;
    let folder = std::env::args().nth(1).map_or(PathBuf::from("."), PathBuf::from);
    std::fs::create_dir_all(&folder)?;
    by_bound(&samples, &folder.join("utility-by-bound.svg"))?;
    by_kl(&samples, &folder.join("utility-by-kl.svg"))?;
    println!("\ndrawn: {0}/utility-by-bound.svg and {0}/utility-by-kl.svg", folder.display());
    Ok(())
}

/// Prints the follower's response (beta = 1) if nine of ten answers have reward 1 and one has reward 2.
fn biased_prior() -> Result<(), Box<dyn Error>> {
    let rewards = [1.0, 2.0];
    let samples = Samples::weighted(&rewards, &[0.9, 0.1])?;
    let raw = Follower::respond(&samples, &rewards, 1.0)?;
    println!("base policy: reward 1 with probability 0.9, reward 2 with probability 0.1; beta = 1\n");
    println!("shown                   P(better)  utility      m*   KL (nats)");
    let row = |name: &str, follower: &Follower, m: &str| {
        let (better, utility, kl) = (follower.policy[1], follower.utility, follower.kl);
        println!("{name:<22} {better:>10.5} {utility:>8.5} {m:>8} {kl:>10.5}");
    };
    row("the reward itself", &raw, "");
    for bound in [1.0, 2.0, 5.0, 10.0] {
        let shaping = Shaping { rule: Rule::Hard, strength: 1.0, bound, ..Shaping::default() };
        let led = Follower::respond(&samples, &shaping.apply(&samples)?.values, 1.0)?;
        let m = Threshold::new(&samples, bound)?.value;
        row(&format!("a threshold, B = {bound}"), &led, &format!("{m:.5}"));
    }
    Ok(())
}

/// Utility of the follower against the span of the shaped rewards in nats. `hard` is the best rule.
fn by_bound(samples: &Samples<'_>, path: &Path) -> Result<(), Box<dyn Error>> {
    let curves = sweep(samples, |values, follower, strength| {
        let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        ((most - least) * strength, follower.utility)
    })?;
    draw(path, "At a given bound, nothing beats hard (Theorem 1)", "bound B/β, nats", 10.0, curves)
}

/// Utility of the follower against its KL from the base policy. `raw` is the best rule.
fn by_kl(samples: &Samples<'_>, path: &Path) -> Result<(), Box<dyn Error>> {
    let curves = sweep(samples, |_, follower, _| (follower.kl, follower.utility))?;
    draw(path, "At a given KL, nothing beats raw (Gibbs)", "KL from the base policy, nats", 4.6, curves)
}

/// Computes all rules over a range of strengths. `B` is 1, since for the bounded rules only the product of `B` and
/// strength matters.
fn sweep(
    samples: &Samples<'_>,
    point: impl Fn(&[f64], &Follower, f64) -> (f64, f64),
) -> Result<Vec<Curve>, Box<dyn Error>> {
    let mut curves = Vec::new();
    for rule in Rule::ALL {
        let mut points = Vec::new();
        for step in 0..=400 {
            let strength = 1e-2 * 1.03f64.powi(step);
            let shaping = Shaping { rule, strength, bound: 1.0, alpha: 1.5, ..Shaping::default() };
            let values = shaping.apply(samples)?.values;
            points.push(point(&values, &Follower::respond(samples, &values, strength)?, strength));
        }
        let thick = matches!(rule, Rule::Raw | Rule::Hard);
        curves.push(Curve { name: rule.name().to_owned(), points, thick });
    }
    Ok(curves)
}

/// Draws the part of the curves up to this point of the x axis.
fn draw(
    path: &Path,
    title: &str,
    x: &str,
    most: f64,
    mut curves: Vec<Curve>,
) -> Result<(), Box<dyn Error>> {
    curves.iter_mut().for_each(|curve| curve.points.retain(|point| point.0 <= most));
    Ok(plot::draw(path, title, x, "utility of the follower, E[r]", &curves)?)
}
