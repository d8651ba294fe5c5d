/*!
The files that Stackelberg reads and writes. Each format is one type, which is both read and written.

# Overview

| file | type | read by | written by |
|---|---|---|---|
| prompts: JSON lines, an array, text lines | [`Prompt`] | [`prompts::read`] | serde |
| answers of `generate`, of other projects | [`generations::Response`] | [`generations::read`] | [`Journal`] |
| traces, one line a decoding step | [`TraceStep`](trace::TraceStep) | [`trace::read`] | [`TraceWriter`](trace::TraceWriter) |
| preference pairs, rated texts | [`Pair`], [`Rated`] | [`read_pairs`], [`read_rated`] | |

Beneath them: [`Lines`] reads JSON lines one at a time, [`json`] a file as a whole, both plain or gzipped, with errors
that name file, line and field; [`atomic`] writes files that are whole or not there at all; [`hash`] names contents by
SHA-256. Nothing here knows of models.

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
pub mod trace;

pub use conversation::{Conversation, group_ids};
pub use error::{Error, Result};
pub use journal::{Identity, Journal};
pub use lines::Lines;
pub use output::{Output, keep_inputs};
pub use pairs::{Pair, read_pairs};
pub use prompt::{Message, Prompt};
pub use rated::{Rated, read_rated};
