/*!
Runs and experiments: answers many prompts into files, and compares methods, shapings and strengths on the same prompts.

# Overview

```text
file ──► plan ──► lab (answers, scores; one folder per run) ──► sweep ──► results ──► report
```

- [`Session`] answers many prompts with one setting into a file; an interrupted run can be resumed.
- [`Experiment`] is the TOML file. [`stages`] lists its runs ([`Setting`]). A [`Lab`] makes and stores them, in one folder
  per run whose name has a hash of everything that determines the answers.
- [`run()`] makes the missing runs and writes the report. [`verify`] generates some answers again and compares them.
- [`tune`](crate::tune::tune) finds a method and a strength for a reward on a few prompts.
- An [`Observer`] receives progress events. A [`Cancel`](stackelberg_decoding::Cancel) stops a run. The crate neither
  prints nor reads the environment.
*/

#![cfg_attr(not(test), warn(clippy::unwrap_used))]

mod answers;
mod check;
mod choice;
mod cost;
mod decoding;
mod error;
mod file;
mod lab;
pub mod load;
mod observer;
mod plan;
pub mod record;
mod results;
mod run;
mod sets;
mod stages;
mod sweep;
pub mod tune;
mod values;
mod verify;

pub use answers::{Files, Progress, Session, interrupted};
pub use cost::{Size, most_tokens_run};
pub use decoding::Decoding;
pub use error::{Error, Result};
pub use file::{Experiment, Methods, Perturbed, Policy, PromptSet, Rewards, Sweep, Values};
pub use lab::{Done, Lab, Provenance};
pub use observer::Observer;
pub use plan::{Setting, ValueHead};
pub use run::{report, run};
pub use sets::prompts_of;
pub use stages::{Stages, stages};
pub use sweep::Kept;
pub use verify::{Part, verify};
