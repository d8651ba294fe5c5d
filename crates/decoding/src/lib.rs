/*!
Guided decoding: the base policy proposes candidates, a reward scores them, the shaped reward decides.

# Overview

[`generate`] writes one answer under [`Settings`]: a [`Method`], a shaping rule with its settings, how to
sample and when to stop. [`Guidance`] is what scores: a reward, and for controlled decoding a value head.
[`generate_all`] writes many, several at once, each the same as it would be alone.
[`Step`] is what happened in one step; a [`Watch`] sees each as it is decided. [`rollout`] writes many
answers of the base policy to each prompt and keeps all of them, with their hidden states.

```no_run
use stackelberg_decoding::{Method, Settings, generate};
use stackelberg_engine::{Checkpoint, Dtype, Reward};
use stackelberg_shaping::{Rule, Shaping};

let policy = Checkpoint::load("SmolLM2-135M-Instruct".as_ref(), Dtype::Bf16)?;
let reward = Reward::load("harmless.safetensors".as_ref(), &policy, Dtype::Bf16)?;
let prompt = policy.tokenizer.encode("\n\nHuman: Hello!\n\nAssistant:", true)?;
let shaping = Shaping { rule: Rule::SrsStd, strength: 1.0, bound: 4.0, alpha: 2.0, ..Shaping::default() };
let settings = Settings { method: Method::Args, shaping, ..Settings::default() };
let answer = generate(&policy, Some(&reward), &prompt, "hello", &settings, &mut ())?;
println!("{} ({:?})", answer.text, answer.reward);
# Ok::<(), Box<dyn std::error::Error>>(())
```
*/

#![warn(clippy::unwrap_used)]

mod answer;
mod beam;
mod blocks;
mod cancel;
mod choice;
mod error;
mod generate;
mod generation;
mod hacking;
mod history;
mod input;
mod line;
mod method;
pub mod most;
mod next;
mod on_server;
mod options;
mod perturbation;
pub mod policy;
mod prefixes;
mod randomness;
mod rejection;
mod request;
mod sample;
mod score;
mod scorer;
mod sequence;
mod session;
mod settings;
mod states;
mod step;
mod stopping;
mod turn;
mod work;

pub use cancel::Cancel;
pub use error::{Error, Result};
pub use generate::{AT_ONCE, Guidance, Job, Watch, generate, generate_all, rollout};
pub use generation::{Finish, Generation, StoppedBy};
pub use hacking::{Alarm, HackingWatch};
pub use method::{Keep, Method};
pub use options::Options;
pub use perturbation::Perturbation;
pub use policy::{Policy, RemotePolicy};
pub use prefixes::CacheCounts;
pub use randomness::Randomness;
pub use request::{Event, Request, Sample, Ticket, Want};
pub use score::Score;
pub use session::{Limits, Session};
pub use settings::{Sampling, Settings};
pub use step::{Block, Step};
