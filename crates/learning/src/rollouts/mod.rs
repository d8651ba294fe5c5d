/*!
Many samples per prompt of the base policy, with rewards and hidden states, in a folder that several
machines may fill and that outlives a killed run.

# Overview

A [`Dataset`] is a folder with a [`Manifest`] and shards of some prompts each. Which prompts a shard holds
follows from the list of prompts alone.

| file | |
|---|---|
| `manifest.json` | model and reward by hash, settings, version, ids of the prompts |
| `rollouts-00000.parquet` | one row a sample, see [`Row`]; its metadata repeat the manifest, less the ids |
| `hidden-00000.safetensors` | `hidden` F16 `[tokens of the shard, d]`, after the final norm; `offsets` I64 `[samples + 1]`: sample `i` has the rows `offsets[i]..offsets[i + 1]` |

Shaped rewards under any number of rules can be put beside the rewards ([`Shaper`], [`Dataset::add_shaped`]),
as columns behind the others; what they hold and where m\* comes from is [`ShapedColumns`]. [`Frontiers`] says
what each rule would deliver over all prompts, at a common bound and at a common KL.

Every file appears whole, the hidden states before the rows: a shard with rows is complete. [`collect()`]
writes what is missing of a [`Part`] of the shards, so that a run goes on where another was killed; the
files are the same bytes as those of a run that was not. [`Samples`] made elsewhere, with their rewards, become
a dataset by an [`Import`], which has the policy read them once. A reader takes one [`Shard`] at a time:

```no_run
use stackelberg_learning::rollouts::Dataset;

let dataset = Dataset::open("rollouts".as_ref())?;
for shard in dataset.iter() {
    let shard = shard?;
    let hidden = shard.hidden()?;
    for (i, row) in shard.rows.iter().enumerate() {
        let states = hidden.of(i); // [tokens of the row, d], row by row
        println!("{} {}: {} numbers", row.prompt_id, row.sample, states.len());
    }
}
# Ok::<(), stackelberg_learning::Error>(())
```
*/

mod collect;
mod columns;
mod dataset;
mod foreign;
mod frontiers;
mod hidden;
mod import;
mod manifest;
mod part;
mod row;
mod row_file;
mod samples;
mod shaper;
mod shard;
mod table;
mod texts;

pub use collect::{Progress, Prompt, collect};
pub use columns::{ShapedColumns, Thresholds};
pub use dataset::{Dataset, Summary};
pub use frontiers::{Curve, Frontiers};
pub use hidden::Hidden;
pub use import::Import;
pub(crate) use manifest::difference;
pub use manifest::{Identity, Manifest, Prompts, settings};
pub use part::Part;
pub use row::Row;
pub use samples::Samples;
pub use shaper::Shaper;
pub(crate) use shaper::shaping_settings;
pub use shard::Shard;
pub use texts::LayOut;
