/*!
Datasets of rollouts: many samples of the base policy per prompt, with rewards and hidden states, stored as a folder of
shards. Several machines can fill one dataset, and an interrupted run can be resumed.

# Overview

A [`Dataset`] is a folder with a [`Manifest`] and shards. A shard contains the samples of a few consecutive prompts.

| file | content |
|---|---|
| `manifest.json` | model and reward with hashes, settings, version, ids of the prompts |
| `rollouts-00000.parquet` | one row per sample, see [`Row`]; the metadata repeats the manifest without the ids |
| `hidden-00000.safetensors` | `hidden` F16 `[tokens of the shard, d]`, after the final norm; `offsets` I64 `[samples + 1]`: sample `i` has the rows `offsets[i]..offsets[i + 1]` |

- [`Draw`] prepares rollouts that a user asks for. [`collect()`] draws the samples of the missing shards, or of a [`Part`] of them. All files are written atomically, the
  hidden states before the rows, so that a shard with rows is complete. A resumed run writes the same bytes as an
  uninterrupted one.
- [`Samples`] reads samples of other programs. An [`Import`] writes them to a dataset and computes their hidden states.
- [`Shaper`] adds shaped rewards under any number of rules as columns ([`ShapedColumns`]).
- [`Frontiers`] predicts the utility of each rule over all prompts, at a common bound and at a common KL.

A dataset is read one [`Shard`] at a time:

```no_run
use stackelberg_learning::rollouts::Dataset;

let dataset = Dataset::open("rollouts".as_ref())?;
for shard in dataset.iter() {
    let shard = shard?;
    let hidden = shard.hidden()?;
    for (i, row) in shard.rows.iter().enumerate() {
        let states = hidden.of(i); // [tokens, d], row-major
        println!("{} {}: {} numbers", row.prompt_id, row.sample, states.len());
    }
}
# Ok::<(), stackelberg_learning::Error>(())
```
*/

mod collect;
mod columns;
mod dataset;
mod draw;
mod foreign;
mod frontiers;
mod hidden;
mod import;
mod manifest;
mod part;
mod plan;
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
pub use draw::{Draw, Prepared, check_hidden};
pub use frontiers::{Curve, Frontiers};
pub use hidden::Hidden;
pub use import::Import;
pub(crate) use manifest::difference;
pub use manifest::{Identity, Manifest, Prompts, settings};
pub use part::Part;
pub use plan::{Plan, TURNS, default_settings};
pub use row::Row;
pub use samples::Samples;
pub use shaper::Shaper;
pub(crate) use shaper::shaping_settings;
pub use shard::Shard;
pub use texts::LayOut;
