/*!
Value heads: from rollouts and a shaping to a function that says, in the middle of a text, what shaped reward
its end will get. Controlled decoding (`--method cd`) follows it.

# Overview

The policy is frozen; its hidden states `h_t` `[d]` after the final norm, one per token of each sample, are in
the [`Dataset`](crate::rollouts::Dataset). The head is

```text
V(h) = w₄ · tanh(W₂ tanh(W₀ h + b₀) + b₂) + b₄,     W₀ [h₁, d], W₂ [h₂, h₁], w₄ [1, h₂].
```

Rewards are shaped prompt by prompt over its `M` samples ([`Shaping`](stackelberg_shaping::Shaping)), and `V`
is fitted to a sample's shaped reward `s` at its last token `T`, and kept smooth on the way there:

```text
(V(h_T) - s)² + coef · mean over t of (V(h_t) - V(h_{t+1}))².
```

While it learns, hidden states are standardised number by number; the file has that folded into `W₀` and `b₀`.
Adam, orthogonal weights to begin with, the last bias at the mean target, gradients clipped; a share of the
*prompts* validates, and the epoch that does best on them is kept ([`Settings`]).

[`train`] streams: it holds as many shards as [`Settings::memory`] allows and draws batches across them, so a
dataset may be larger than memory. After every epoch it writes a checkpoint; resumed from there, training goes
on to the same head to the bit.

Where the shaping has a bound, the file says so: values are then clamped to `[0, B]` where they are used, and
decoding may skip steps that no value can change.
*/

mod adam;
mod card;
mod checkpoint;
mod data;
mod epoch;
mod init;
mod loss;
mod network;
mod settings;
mod train;

pub use card::{About, save};
pub use data::Counts;
pub use epoch::Epoch;
pub use loss::Errors;
pub use settings::Settings;
pub use train::{Outcome, Watch, train};
