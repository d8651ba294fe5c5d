/*!
Value heads for controlled decoding (`--method cd`): networks that predict, at each token of a text, the shaped reward of
the finished text.

# Overview

The policy is frozen. The inputs are its hidden states `h_t` `[d]` after the final norm, one per token of each sample,
which are stored in a [`Dataset`](crate::rollouts::Dataset). The head is

```text
V(h) = w₄ · tanh(W₂ tanh(W₀ h + b₀) + b₂) + b₄,     W₀ [h₁, d], W₂ [h₂, h₁], w₄ [1, h₂].
```

Rewards are shaped for each prompt over its `M` samples ([`Shaping`](stackelberg_shaping::Shaping)). The loss of a sample
with shaped reward `s` and last token `T` is

```text
(V(h_T) - s)² + coef · mean over t of (V(h_t) - V(h_{t+1}))².
```

During training, each component of the hidden states is standardised; the saved file has the standardisation folded into
`W₀` and `b₀`. Training uses Adam, orthogonal initialisation, and gradient clipping. The last bias is initialised with the
mean target. A share of the *prompts* is the validation set, and the epoch with the smallest validation error is kept
([`Settings`]).

[`train`] streams the data: it holds as many shards in memory as [`Settings::memory`] allows and draws batches across
them, so that a dataset can be larger than memory. It writes a checkpoint after every epoch. A resumed run gives the same
head, bit by bit.

[`Foresight`] says on the validation set what a trained head adds to the reward of the text read so far. At each of
[`DISTANCES`] tokens before the end of the answers it gives the correlation of both with the final (unshaped) reward within
prompts, a bootstrap interval of their difference, the calibration slope and the explained variance of the shaped reward
([`Distance`]). A head that does not foresee more than the reward read so far has no advantage over guiding blocks by reward.

If the shaping has a bound, the file records it. Decoding then clamps values to `[0, B]` and can skip steps in which no
value can change the choice.
*/

mod adam;
mod card;
mod checkpoint;
mod data;
mod epoch;
mod foresight;
mod held_out;
mod init;
mod loss;
mod network;
mod run;
mod settings;
mod train;

pub use card::{About, save};
pub use data::Counts;
pub use epoch::Epoch;
pub use foresight::{DISTANCES, Distance, Foresight, LEAST_PROMPTS};
pub use loss::Errors;
pub use run::{check_resume, checkpoint_of, train_to_file};
pub use settings::Settings;
pub use train::{Outcome, Watch, train};
