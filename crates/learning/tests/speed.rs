//! How long a fit of a real size takes: `cargo test --release --test speed -- --ignored --nocapture`.

mod common;

use std::time::Instant;

use common::{Random, features};
use stackelberg_learning::{Features, Fit, Settings, fit};

fn report(what: &str, run: impl FnOnce() -> Fit) {
    let start = Instant::now();
    let fit = run();
    let [a, b] = fit.held_out;
    println!(
        "{what}: {:.2} s; lambda {:.1e}; {} {:.3} ± {:.3}; {} {:.3} ± {:.3}",
        start.elapsed().as_secs_f64(),
        fit.regularisation,
        a.name,
        a.value,
        a.standard_error,
        b.name,
        b.value,
        b.standard_error
    );
}

#[test]
#[ignore = "takes seconds to minutes and only prints times"]
fn real_sizes() {
    for (n, d) in [(1_200, 576), (20_000, 576), (4_000, 2_048)] {
        let mut random = Random::new(1);
        let (chosen, rejected) = (features(&mut random, n, d), features(&mut random, n, d));
        let w: Vec<f64> = (0..d).map(|_| random.normal() / (d as f64).sqrt()).collect();
        let dot = |x: &[f32]| x.iter().zip(&w).map(|(x, w)| f64::from(*x) * w).sum::<f64>();
        let (mut won, mut lost, mut targets) = (vec![], vec![], vec![]);
        for (a, b) in chosen.chunks_exact(d).zip(rejected.chunks_exact(d)) {
            let margin = dot(a) - dot(b);
            let first = random.uniform() < 1.0 / (1.0 + (-margin).exp());
            let (w, l) = if first { (a, b) } else { (b, a) };
            won.extend_from_slice(w);
            lost.extend_from_slice(l);
            targets.push(dot(a) + 2.0 * random.normal());
        }
        let rows = |values| Features::new(values, d).unwrap();
        for threads in [1, 2] {
            let settings = Settings { threads, ..Settings::default() };
            report(&format!("pairs n={n} d={d} threads={threads}"), || {
                fit::bradley_terry(rows(&won), rows(&lost), &settings).unwrap()
            });
            report(&format!("ratings n={n} d={d} threads={threads}"), || {
                fit::regression(rows(&chosen), &targets, &settings).unwrap()
            });
        }
    }
}
