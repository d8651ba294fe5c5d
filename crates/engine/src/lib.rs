/*!
Causal language models that look ahead: one forward of many candidate tokens over one shared prefix.

# Overview

- [`Checkpoint`] is a model with its tokenizer and chat template, from a Hugging Face folder or a GGUF file.
- [`Model`] reads a text into a [`Prefix`] ([`Model::prefill`]), looks at candidates for its next token
  ([`Model::branch`], ONE forward for all of them, nothing of the prefix copied) and takes the chosen one in
  without running it again ([`Prefix::commit`]).
- [`Reward`] is what guides: a [`Head`](reward::Head) on the policy's hidden states, or a causal reward
  model. A [`ValueHead`](reward::ValueHead) says what the rest of a text promises.
- [`Embedder`] gives texts places in a space where those that mean alike lie side by side.

The engine knows nothing of shaping, sampling or prompts' files.

```no_run
use stackelberg_engine::{Checkpoint, Dtype};

let policy = Checkpoint::load("SmolLM2-135M-Instruct".as_ref(), Dtype::Bf16)?;
let tokens = policy.tokenizer.encode("The moon is made of", true)?;
let (mut prefix, hidden) = policy.model.prefill(&tokens)?; // hidden: [n, d]
let last = hidden.narrow(0, tokens.len() - 1, 1)?;
let logits = policy.model.logits(&last)?; // [1, vocabulary]

let candidates = [216, 476, 1626];
let branches = policy.model.branch(&prefix, &candidates)?; // hidden states [3, d], one forward
prefix.commit(&branches, 1)?; // the second is chosen, and is not run again
# Ok::<(), Box<dyn std::error::Error>>(())
```
*/

#![cfg_attr(not(test), warn(clippy::unwrap_used))]

mod cache;
mod chat;
mod checkpoint;
pub mod embedder;
mod error;
pub mod kernel;
pub mod model;
mod place;
pub mod reward;
mod tokenizer;

pub use cache::{Branches, Prefix};
pub use candle_core::Tensor;
pub use chat::{ChatTemplate, Message, Prompt};
pub use checkpoint::{Checkpoint, fingerprint};
pub use embedder::Embedder;
pub use error::{Error, Result};
pub use kernel::Dtype;
pub use model::Model;
pub use place::Place;
pub use reward::Reward;
pub use tokenizer::{TextStream, Tokenizer};
