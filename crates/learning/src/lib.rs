/*!
Linear reward heads from people's judgements: preference pairs or rated texts in, a few kilobytes of
weights and a card that says what they are worth out. This crate knows nothing of models: it takes
features, one row of `d` numbers per text, from whoever has them.

# Overview

- [`read_pairs`](stackelberg_data::read_pairs) and [`read_rated`](stackelberg_data::read_rated) read judgements; each
  text comes as a [`Conversation`](stackelberg_data::Conversation), raw and parsed into messages.
- [`Features`] is a matrix of rows `h`, one per text.
- [`fit::bradley_terry`] learns `score(h) = w·h` from pairs, [`fit::regression`] learns `w·h + b` from
  ratings. Both choose their regularisation by cross-validation ([`Settings`]) in which no conversation
  falls into two folds, and return a [`Fit`].
- [`measure`] has the quality of scores on any other data, with standard errors.
- [`Head`] and [`Card`] write the result: safetensors, and Markdown beside it.
- [`rollouts`] collects many samples per prompt, with rewards and hidden states, in a folder of shards.

```
use stackelberg_data::group_ids;
use stackelberg_learning::{Card, Features, Head, Settings, TextFormat, fit};

// Six conversations of two pairs each, features of width 2: the first is what people liked.
let (mut chosen, mut rejected, mut opening) = (vec![], vec![], vec![]);
for i in 0..12 {
    let noise = (i * 7 % 5) as f32;
    let liked = if i == 8 { -0.5 } else { 1.0 };
    chosen.extend([liked, noise]);
    rejected.extend([-liked, 4.0 - noise]);
    opening.push(format!("question {}", i / 2));
}
let groups = group_ids(opening.iter().map(String::as_str));
let settings = Settings { folds: 3, groups: Some(&groups), ..Settings::default() };
let fit = fit::bradley_terry(Features::new(&chosen, 2)?, Features::new(&rejected, 2)?, &settings)?;
assert!(fit.weight[0] > 0.0 && fit.weight[0] > 2.0 * fit.weight[1].abs());
assert!((fit.held_out[0].value - 11.0 / 12.0).abs() < 1e-12); // pair accuracy

let folder = tempfile::tempdir()?;
let head = Head::new(&fit, TextFormat::Raw);
let card = Card { title: "liked".into(), command: "train reward --pairs p.jsonl".into(), ..Card::default() };
head.save(&folder.path().join("liked.safetensors"), &card.render(&head, &fit))?;
# Ok::<(), Box<dyn std::error::Error>>(())
```

# What is minimised

Features are divided by the standard deviation `sd` of single responses in the training part, so that one
`lambda` suits every feature and model; `u` is the weight in those units and `w = u / sd` is reported.

| | over `n` rows | held-out metrics; the second chooses `lambda` |
|---|---|---|
| [`fit::bradley_terry`] | `mean log(1 + exp(-w·(h⁺ - h⁻))) + lambda/2 ‖u‖²` | pair accuracy, log-loss in nats |
| [`fit::regression`] | `mean (y - w·h - b)²/2 + lambda/2 ‖u‖²` | Pearson r, R² |

Equal input and settings give equal bytes, whatever the number of threads.
*/

#![cfg_attr(not(test), warn(clippy::unwrap_used))]

mod card;
mod cross_validation;
mod error;
pub mod extract;
mod features;
pub mod fit;
mod folds;
mod head;
mod linear;
mod logistic;
pub mod measure;
pub mod plot;
mod ridge;
pub mod rollouts;
mod tensors;
pub mod value;

pub use card::{Card, Source};
pub use error::Error;
pub use features::Features;
pub use fit::{Choose, Fit, Kind, Settings, Trial};
pub use head::Head;
pub use measure::Metric;
pub use stackelberg_engine::reward::{Backbone, TextFormat};
