/*!
Training of reward heads and value heads on the hidden states of a frozen language model.

- A *reward head* is a linear function of the last hidden state of a text. It is fitted to human judgements: preference
  pairs or ratings.
- A *value head* is a small network that predicts, in the middle of a text, the shaped reward of the finished text. It
  is fitted to *rollouts*: many samples per prompt with their rewards and hidden states.

# Overview

Reward heads:

- [`read_pairs`](stackelberg_data::read_pairs) and [`read_rated`](stackelberg_data::read_rated) read judgements. Each
  text is a [`Conversation`](stackelberg_data::Conversation).
- [`extract`] computes the features of texts with a model. [`Features`] is a matrix of features, one row per text.
- [`fit::bradley_terry`] fits `score(h) = w·h` to pairs, and [`fit::regression`] fits `w·h + b` to ratings. Both choose
  the regularisation by cross-validation in which no conversation is in two folds ([`Settings`]), and return a [`Fit`].
- [`measure`] computes metrics of scores on other data, with standard errors.
- [`Head`] writes the result as a safetensors file, with a [`Card`] in Markdown beside it.
- [`reward`] does all of this for files of judgements.

Value heads:

- [`rollouts`] collects or imports samples and stores them as a folder of shards.
- [`value`] trains a value head on such a dataset.

```
use stackelberg_data::group_ids;
use stackelberg_learning::{Card, Features, Head, Settings, TextFormat, fit};

// Six conversations with two pairs each, and features of width 2. The first feature decides the preferences.
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

# Objectives

Features are divided by the standard deviation `sd` of single responses in the training part, so that one scale of
`lambda` suits all features and models. `u` is the weight in these units; the reported weight is `w = u / sd`.

| | objective over `n` rows | held-out metrics; the second chooses `lambda` |
|---|---|---|
| [`fit::bradley_terry`] | `mean log(1 + exp(-w·(h⁺ - h⁻))) + lambda/2 ‖u‖²` | pair accuracy, log-loss in nats |
| [`fit::regression`] | `mean (y - w·h - b)²/2 + lambda/2 ‖u‖²` | Pearson r, R² |

Equal input and settings give equal bytes, for any number of threads.
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
mod out;
pub mod plot;
pub mod reward;
mod ridge;
pub mod rollouts;
pub mod summary;
mod tensors;
pub mod value;

pub use card::{Card, Source, pair_accuracies};
pub use error::Error;
pub use features::Features;
pub use fit::{Choose, Fit, Kind, Settings, Trial};
pub use head::Head;
pub use measure::Metric;
pub use out::check_out;
pub use stackelberg_engine::reward::{Backbone, TextFormat};
