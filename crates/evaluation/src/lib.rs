/*!
Numbers that can be trusted about answers: metrics, paired comparisons, a judge, a report.

# Overview

```text
file ─ generations ─► answers ─ metrics ─► measured ─ findings ─► tables, curves ─ report ─► page
                       └───── judge ─► verdicts              (compare: intervals, wins)
```

- [`generations`](stackelberg_data::generations) reads answers, this project's or others', and pairs two runs by prompt.
- [`metrics`] measures each: repetition and diversity ([`text`], over the [`words`] that NLTK finds), coherence by a
  sentence embedder, and what its line says of tokens and KL. Rewards come from whoever has them.
- [`compare`] says how sure a mean over prompts is, and whether two runs differ: bootstrap intervals, a sign test.
- [`findings`] turns the measured answers of an experiment into tables and curves, at equal strength and at equal KL;
  [`report`] shows them on one HTML page, and as CSV, Markdown and LaTeX.
- [`judge`] has a chat model rate both answers to each prompt.

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
assert!(difference.mean == -6.5 && difference.high < 0.0); // 3 words a time against 4
# Ok::<(), stackelberg_evaluation::Error>(())
```
*/

#![cfg_attr(not(test), warn(clippy::unwrap_used))]

pub mod compare;
mod error;
mod estimate;
pub mod findings;
pub mod judge;
pub mod metrics;
pub mod report;
pub mod text;
pub mod words;

pub use error::{Error, Result};
