/*!
Inference of causal language models for guided decoding, on the CPU and on GPUs.

Guided decoding asks a reward about many candidates for the next token, at every token. This crate makes that cheap: all
candidates run in one forward pass over one shared prefix, and the chosen candidate is not run again.

# The main types

- [`Checkpoint`] is a model with its tokenizer and chat template, loaded from a Hugging Face folder or a GGUF file. Its
  [`Model`] maps tokens to hidden states and logits.
- [`Prefix`] is a sequence of tokens with its cached keys and values. [`Model::prefill`] makes one, [`Model::branch`] runs
  candidates for its next token, and [`Prefix::commit`] appends one of them.
- [`Reward`] scores candidates and whole answers. It may be a [head](reward::Head) on the policy's hidden states, a second
  causal model, or a reward that reads text; decoding uses all of them through [`reward::RewardState`].

[`Embedder`] maps texts to vectors with an encoder such as BERT; text classifiers are built on it. [`kernel`] holds the CPU
kernels, whose results are batch-invariant: bit-identical at any batch size.

# Example

One step of guided decoding, with a head as the reward:

```no_run
use stackelberg_engine::reward::{PromptInput, Question, ask};
use stackelberg_engine::{Checkpoint, Dtype, Reward};

let policy = Checkpoint::load("SmolLM2-135M-Instruct".as_ref(), Dtype::Bf16)?;
let reward = Reward::load("head.safetensors".as_ref(), &policy, Dtype::Bf16)?;

let tokens = policy.tokenizer.encode("The moon is made of", true)?;
let (mut prefix, hidden) = policy.model.prefill(&tokens)?; // hidden states [n, d]
let last = hidden.narrow(0, tokens.len() - 1, 1)?;
let logits = policy.model.logits(&last)?; // [1, vocabulary], from which candidates are taken

let candidates = [216, 476, 1626];
let branches = policy.model.branch(&prefix, &candidates)?; // hidden states [3, d] in one forward pass
let mut state = reward.state(&policy, PromptInput::from(&tokens))?;
let ahead = Some(&branches.hidden);
let question = Question { state: &mut state, candidates: &candidates, further: &[], ahead };
let rewards = ask(&mut [question]).remove(0)?; // [3]

prefix.commit(&branches, 1)?; // the second candidate is chosen
state.commit(1)?;
# Ok::<(), Box<dyn std::error::Error>>(())
```
*/

#![cfg_attr(not(test), warn(clippy::unwrap_used))]

mod cache;
mod chat;
mod checkpoint;
mod device;
pub mod encoder;
mod error;
mod fingerprint;
pub mod kernel;
mod laid_out;
pub mod model;
mod names;
pub mod reward;
mod text_format;
mod text_processor;
mod tokenizer;

pub use cache::{Branches, Prefix, state_row};
pub use candle_core::Tensor;
pub use chat::{Argument, ChatTemplate, Date, Message, Prompt};
pub use checkpoint::Checkpoint;
pub use device::Device;
pub use encoder as embedder;
pub use encoder::Embedder;
pub use error::{Error, Result};
pub use fingerprint::fingerprint;
pub use kernel::{Dtype, KvDtype};
pub use laid_out::{ChatEnd, LaidOut};
pub use model::Model;
pub use reward::Reward;
pub use text_processor::TextProcessor;
pub use tokenizer::{TextStream, Tokenizer};
