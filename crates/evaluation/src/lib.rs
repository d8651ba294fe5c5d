/*!
Evaluation of generated answers: metrics, paired comparisons, a judge and a report.

# Overview

```text
file ─ generations ─► answers ─ metrics ─► measured ─ findings ─► tables, curves ─ report ─► page
                       └───── judge ─► verdicts              (compare: intervals, wins)
```

- [`generations`](stackelberg_data::generations) reads answers and pairs two runs by prompt.
- [`metrics`] measures each answer: repetition and diversity ([`text`], over NLTK's Treebank [`words`]), coherence with
  a sentence embedder, and statistics of the generation such as tokens and KL. The caller adds rewards.
- [`compare`] computes bootstrap intervals of means over prompts, paired differences of two runs, and the sign test.
- [`findings`] turns the measured answers of an experiment into tables, curves and sentences, at equal strength and at
  equal KL. [`report`] shows them on one HTML page, and writes tables as CSV, Markdown and LaTeX.
- [`Evaluation`] measures runs with an [`Evaluator`] (rewards and an embedder) and compares them.
- [`summary`] computes the means of runs, and the paired differences of two, as `stackelberg evaluate` prints them.
- [`judge`] asks a chat model to rate both answers to each prompt.

```
use stackelberg_evaluation::compare::Bootstrap;
use stackelberg_evaluation::metrics::{Metric, measure};
use stackelberg_data::generations as responses;

let lines = |answer: &str| -> String {
    (0..12).map(|i| format!("{{\"prompt\": \"p{i}\", \"response\": \"{}\"}}\n", answer.repeat(i + 1))).collect()
};
let first = responses::parse("first", &lines("the same again "))?;
let second = responses::parse("second", &lines("one two three four "))?;
let partners = responses::pair(&first, &second)?;
let (first, second) = (measure(&first.responses, None)?, measure(&second.responses, None)?);
let words = |of: &stackelberg_evaluation::metrics::Measured| Metric::Length.of(of);
let ours: Vec<f64> = first.iter().map(words).collect();
let theirs: Vec<f64> = partners.iter().map(|&i| words(&second[i])).collect();
let difference = Bootstrap::new(ours.len(), 0).difference(&ours, &theirs).unwrap();
assert!(difference.mean == -6.5 && difference.high < 0.0); // 3 words per repetition against 4
# Ok::<(), stackelberg_evaluation::Error>(())
```
*/

#![cfg_attr(not(test), warn(clippy::unwrap_used))]

pub mod compare;
mod error;
mod estimate;
mod evaluation;
mod evaluator;
pub mod findings;
pub mod judge;
pub mod metrics;
pub mod report;
pub mod summary;
pub mod text;
pub mod words;

pub use error::{Error, Result};
pub use evaluation::{Evaluation, Partners, Results};
pub use evaluator::Evaluator;
