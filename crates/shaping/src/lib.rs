/*!
The mathematics of Stackelberg reward shaping (arXiv 2602.02572, ICML 2026): from rewards to provably optimal shaped
rewards. The crate works on slices of `f64`. It knows nothing of models, tensors or files.

# The problem

A language model `rho` (the base policy) answers a prompt with `y`, and the user values the answer at `r(y)`. The
model cannot be retrained, but it can be shown a reward `s(y)` between 0 and a bound `B`. It then responds with

```text
rho_s(y) ∝ rho(y) exp(s(y) / beta).
```

This is the response of every KL-regularised alignment method, at training time and at decoding time. In game theory
the user is the leader, who chooses `s`, and the model is the follower. Which `s` gives the user the largest expected
reward `E_{rho_s}[r]`?

Showing the reward itself (`s = r`) is not optimal: the answer stays biased towards what `rho` says anyway. Under a
bound, the optimal `s` is a threshold: `s = B` for answers with `r >= m*`, and 0 for all others. The threshold `m*`
equals the expected reward that the user obtains with it. The smooth version `s = B sigmoid(alpha (r - m*))` is
Stackelberg reward shaping, rule `srs`. The paper finds `m*` by bisection; this crate computes it in closed form.

# Overview

- [`Samples`]: the rewards and the base policy's mass on each response. The responses are either samples of one prompt
  or the candidates of one decoding step.
- [`Threshold`]: `m*` with a certificate.
- [`Shaping`]: one of ten [`Rule`]s with its settings. It turns samples into [`Shaped`] rewards.
- [`Follower`]: the model's best response, with its utility, its KL from the base policy and its effective sample size.
- [`KlBudget`]: settings solved for a budget of nats instead of a bound.
- [`Confidence`]: confidence intervals for `m*`.
- [`Frontier`]: upper limits on the utility of any shaped reward.
- [`Report`]: all of these in one call. [`Record`] is a report as flat numbers, which can be written as JSON.

```
use stackelberg_shaping::{Follower, Rule, Samples, Shaping};

// A biased base policy: 9 of 10 answers have reward 1, the better answer is rare.
let rewards = [1.0, 2.0];
let samples = Samples::weighted(&rewards, &[0.9, 0.1])?;

// Shown the reward itself, the follower (beta = 1) changes little.
let raw = Follower::respond(&samples, &rewards, 1.0)?;
assert!((raw.utility - 1.23197).abs() < 1e-5);

// Shown the threshold reward with B = 5, it prefers the better answer. m* predicts the utility.
let shaping = Shaping { rule: Rule::Hard, strength: 1.0, bound: 5.0, ..Shaping::default() };
let shaped = shaping.apply(&samples)?;
let hard = Follower::respond(&samples, &shaped.values, shaping.strength)?;
assert!((hard.utility - 1.94283).abs() < 1e-5);
assert!((hard.utility - shaped.threshold.unwrap().value).abs() < 1e-12);
# Ok::<(), stackelberg_shaping::Error>(())
```

# Two ways to compare rules

Theorem 1 of the paper: at a given *bound* `B/beta` on the log density ratio, no rule is better than [`Rule::Hard`].
At a given *KL*, no rule is better than [`Rule::Raw`] (Gibbs' variational principle). Both hold for each prompt and for
the exact follower; the first holds in [`Budget::Paper`] only. A comparison at equal strength therefore favours
the rule that moves further from the base policy. Compare at equal KL as well ([`KlBudget`]), and measure with a reward
that was not used for guidance.

# Units and equations

Rewards, `m*`, utilities and the ends of intervals are in reward units. KL, `B * strength` and budgets are in nats.
`strength` is `lambda = 1/beta`, in 1/reward units. Computations are in `f64` and accurate to rounding for rewards
from 1e-300 to 1e300.

| quantity | equation | item |
|---|---|---|
| follower | `rho_s ∝ rho exp(s/beta)` | [`Follower::respond`] |
| threshold, Theorem 1 | `m* = E_{rho_s*}[r]` | [`Threshold::new`] |
| certificate | `F(m*) = 0` and the bracketing rewards | [`Threshold::residual`] |
| SRS and the other rules | `s = B sigmoid(alpha (r - m*))` ... | [`Rule`], [`Shaping::apply`] |
| fused score of a decoding step | `f_j = l_j + lambda s_j` | [`fuse`] |
| KL budget | largest `c` with `KL <= nats` | [`KlBudget::solve`] |
| upper limits | `U <= U(hard at c)`, `U <= min_t (ln E_rho[exp(t r)] + KL) / t` | [`Frontier`] |
| interval | `{m : abs(mean g(m)) <= t se(m)}` | [`Confidence`] |
*/

#![warn(clippy::unwrap_used)]

mod error;
mod follower;
mod frontier;
mod interval;
mod kl_budget;
mod record;
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
pub use record::{Kl, Range, Record, Utility};
pub use report::{Report, Warning};
pub use rule::{Budget, Rule};
pub use samples::Samples;
pub use shaping::{Shaped, Shaping};
pub use threshold::Threshold;
