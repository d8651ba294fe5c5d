/*!
Policies, rewards and chat models that run outside of this process: on HTTP servers, or as programs.

# Overview

| type | what it talks to | how |
|---|---|---|
| [`PolicyClient`] | a policy on a vLLM, llama.cpp or Stackelberg server | JSON over HTTP, many calls at once |
| [`StatesClient`] | a vLLM or Stackelberg server that gives the hidden states of a policy's model | JSON over HTTP, many calls at once |
| [`ProgramReward`] | a program that scores texts | JSON lines on standard input and output |
| [`HttpReward`] | a reward model on a vLLM, SGLang or text-embeddings-inference server | JSON over HTTP |
| [`chat::Client`] | an OpenAI-compatible chat endpoint | JSON over HTTP |

Both rewards implement [`TextScorer`](stackelberg_engine::reward::TextScorer), so a
[`TextReward`](stackelberg_engine::reward::TextReward) turns each of them into a reward that can guide decoding.

The HTTP clients share one retry policy:

- A request that failed for a temporary reason (status 408, 409, 425, 429 or 5xx, a timeout, a broken connection) is
  sent again. The wait doubles each time, is shortened at random by up to one half, and is never shorter than the
  server's `Retry-After`. A request that cannot succeed (any other 4xx status, a bad certificate, a host name that
  does not resolve) fails at once.
- Redirects are not followed, because the next server would see the key. Addresses on this machine bypass proxies.
- A [`Key`], the password of an address and the values of its query never appear in messages, not even if the
  server repeats them. [`without_secrets`] gives a name or an address as messages and records show it.

The crate does not read the environment: callers pass the key.

# Example

A program rewards long answers. It reads one JSON object per line and writes one number per line.

```ignore-windows
use stackelberg_engine::Prompt;
use stackelberg_engine::reward::{Exchange, TextReward};
use stackelberg_remote::ProgramReward;

let program = ProgramReward::start("while read -r line; do echo ${#line}; done")?;
let reward = TextReward::new(program);

let prompt = Prompt::Text("Why is the sky blue?".to_owned());
let answers = ["Rayleigh.", "Air scatters blue light more than red light."];
let exchanges = answers.map(|answer| Exchange { prompt: &prompt, answer });
let rewards = reward.score(&exchanges)?; // one f64 per exchange
assert!(rewards[0] < rewards[1]);
# Ok::<(), stackelberg_engine::Error>(())
```
*/

#![cfg_attr(not(test), warn(clippy::unwrap_used))]

mod address;
pub mod chat;
mod connection;
mod key;
mod message;
mod policy;
mod retry;
mod reward;
mod served;
mod servers;
mod states;

pub use key::Key;
pub use policy::PolicyClient;
pub use reward::{HttpReward, ProgramReward, RewardCheck};
pub use stackelberg_http::without_secrets;
pub use states::StatesClient;
