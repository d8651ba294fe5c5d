/*!
File formats of Stackelberg: prompts, responses, traces, preference pairs and rated texts. Each format is one type,
which is both read and written. The crate knows nothing of models.

# Overview

| file | type | read by | written by |
|---|---|---|---|
| prompts: JSON lines, a JSON array, text lines | [`Prompt`] | [`prompts::read`] | serde |
| responses of `generate` and of other projects | [`generations::Response`] | [`generations::read`] | [`Journal`] |
| traces, one line per decoding step | [`TraceStep`](trace::TraceStep) | [`trace::read`] | [`TraceWriter`](trace::TraceWriter) |
| preference pairs, rated texts | [`Pair`], [`Rated`] | [`read_pairs`], [`read_rated`] | |

These are built on:

- [`Lines`] reads JSON lines one at a time, and [`json`] reads a whole file. Both read plain and gzipped files. Errors
  name the file, the line and the field.
- [`atomic`] writes files atomically: a file appears under its name only when it is complete.
- [`hash`] computes SHA-256 digests.

```
use stackelberg_data::{Prompt, prompts};

let folder = tempfile::tempdir()?;
let file = folder.path().join("mine.jsonl");
std::fs::write(&file, r#"{"id": "sky", "prompt": "Why is the sky blue?"}"#)?;
let read = prompts::read(&file)?;
assert_eq!(read, [("sky".to_owned(), Prompt::Text("Why is the sky blue?".to_owned()))]);
# Ok::<(), Box<dyn std::error::Error>>(())
```
*/

#![cfg_attr(not(test), warn(clippy::unwrap_used))]

pub mod atomic;
mod conversation;
mod error;
pub mod generations;
pub mod hash;
mod journal;
pub mod json;
mod lines;
mod name;
mod output;
mod pairs;
mod prompt;
pub mod prompts;
mod rated;
mod renamed;
pub mod trace;
pub mod words;

pub use conversation::{Conversation, group_ids};
pub use error::{Error, Result};
pub use journal::{Identity, Journal};
pub use lines::Lines;
pub use output::{Output, keep_inputs};
pub use pairs::{Pair, read_pairs};
pub use prompt::{Message, Prompt};
pub use rated::{Rated, read_rated};
