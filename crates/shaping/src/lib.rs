/*!
The mathematics of Stackelberg reward shaping: from rewards to provably optimal shaped rewards, without
a model, a tensor or a file in sight.

# The game in ten lines

A language model `rho` answers a prompt with `y`; you like the answer as much as `r(y)`. You cannot
retrain the model, but you can show it a reward `s(y)` between 0 and a bound `B`, and it will answer with
`rho_s(y) ∝ rho(y) exp(s(y)/beta)`. That is the follower of every KL-regularised alignment method, at
training and at decoding time. You lead: which `s` gets you the most `r`? Not `s = r`: the pull of
`rho` then biases the answer towards what the model would have said anyway. The best `s` is all or
nothing: `B` for answers with `r >= m*`, 0 for the rest, where the threshold `m*` is at once the utility
you will get. Softened to `B sigmoid(alpha (r - m*))` it is Stackelberg reward shaping, `srs`
(arXiv 2602.02572, ICML 2026). The paper finds `m*` by bisection; here it has a closed form.

# Overview

- [`Samples`] holds rewards and the base policy's mass on each response: a prompt's samples, or the
  candidates of a decoding step.
- [`Threshold`] is `m*` with a certificate.
- [`Shaping`] is one of ten [`Rule`]s with its settings; it turns samples into [`Shaped`] rewards.
- [`Follower`] is the model's best response: utility, KL from the base policy, effective sample size.
- [`KlBudget`] takes nats instead of a bound; [`Confidence`] makes an interval for `m*`.
- [`Report`] is all of it in one call.

```
use stackelberg_shaping::{Follower, Rule, Samples, Shaping};

// A biased base policy: 9 in 10 answers have reward 1, the better answer is rare.
let rewards = [1.0, 2.0];
let samples = Samples::weighted(&rewards, &[0.9, 0.1])?;

// Shown the reward itself, the follower (beta = 1) hardly moves.
let told = Follower::respond(&samples, &rewards, 1.0)?;
assert!((told.utility - 1.23197).abs() < 1e-5);

// Shown the threshold reward with B = 5, it does; and m* said so beforehand.
let shaping = Shaping { rule: Rule::Hard, strength: 1.0, bound: 5.0, ..Shaping::default() };
let shaped = shaping.apply(&samples)?;
let led = Follower::respond(&samples, &shaped.values, shaping.strength)?;
assert!((led.utility - 1.94283).abs() < 1e-5);
assert!((led.utility - shaped.threshold.unwrap().value).abs() < 1e-12);
# Ok::<(), stackelberg_shaping::Error>(())
```

# Two frontiers, not one

Theorem 1 says that nothing beats [`Rule::Hard`] at a given *bound* `B/beta` on the log density ratio. At
a given *KL* it is [`Rule::Raw`] that nothing beats (Gibbs' variational principle). Both hold prompt by
prompt, for the exact follower; the first in [`Budget::Paper`] only. So a comparison at equal strength
favours whatever moves further from the base policy: compare at equal KL too ([`KlBudget`]), and under a
reward that did not guide.

# Units and equations

Rewards, `m*`, utilities and interval ends are in reward units; KL, `B * strength` and budgets in nats;
`strength` is `lambda = 1/beta`. Everything is f64 and exact to rounding from 1e-300 to 1e300.

| what | equation | where |
|---|---|---|
| follower | `rho_s ∝ rho exp(s/beta)` | [`Follower::respond`] |
| threshold, Theorem 1 | `m* = E_{rho_s*}[r]` | [`Threshold::new`] |
| certificate | `F(m*) = 0` and the bracket | [`Threshold::residual`] |
| SRS and the other rules | `s = B sigmoid(alpha (r - m*))` ... | [`Rule`], [`Shaping::apply`] |
| fused score of a decoding step | `f_j = l_j + lambda s_j` | [`fuse`] |
| KL budget | largest `c` with `KL <= nats` | [`KlBudget::solve`] |
| the two frontiers | `U <= U(hard at c)`, `U <= min_t (ln E_rho[exp(t r)] + KL) / t` | [`Frontier`] |
| interval | `{m : abs(mean g(m)) <= t se(m)}` | [`Confidence`] |
*/

#![warn(clippy::unwrap_used)]

mod error;
mod follower;
mod frontier;
mod interval;
mod kl_budget;
mod report;
mod rule;
mod samples;
mod shaping;
mod threshold;

pub use error::Error;
pub use follower::{Follower, argmax, fuse};
pub use frontier::{Frontier, Margins};
pub use interval::{Confidence, Interval};
pub use kl_budget::KlBudget;
pub use report::{Report, Warning};
pub use rule::{Budget, Rule};
pub use samples::Samples;
pub use shaping::{Shaped, Shaping};
pub use threshold::Threshold;
