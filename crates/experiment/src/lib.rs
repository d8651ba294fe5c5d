/*!
Prompts answered into files, and experiments: methods, shapings and strengths compared over the same prompts.

# Overview

```text
file ──► plan ──► lab (answers, scores; one folder a run) ──► sweep ──► results ──► report
```

- [`Session`] answers many prompts under one setting into a file that can be resumed.
- [`Experiment`] is the TOML file; [`stages`] lists its runs ([`Setting`]), which a [`Lab`] makes and keeps, one folder a
  run, named by all that decides its answers.
- [`run()`] makes what is missing and writes the report; [`verify`] makes some answers again and compares them.
- An [`Observer`] is told what happens; a [`Cancel`](stackelberg_decoding::Cancel) stops it. Nothing here prints.
*/

#![cfg_attr(not(test), warn(clippy::unwrap_used))]

mod answers;
mod check;
mod error;
mod file;
mod lab;
mod observer;
mod plan;
pub mod record;
mod results;
mod run;
mod sets;
mod stages;
mod sweep;
mod values;
mod verify;

pub use answers::{Files, Progress, Session, interrupted};
pub use error::{Error, Result};
pub use file::{Decoding, Experiment, Methods, Perturbed, Policy, PromptSet, Rewards, Sweep, Values};
pub use lab::{Done, Lab, Provenance};
pub use observer::Observer;
pub use plan::{Setting, ValueHead};
pub use run::{answers, report, run};
pub use sets::prompts_of;
pub use stages::{Stages, stages};
pub use sweep::Kept;
pub use verify::{Part, verify};
