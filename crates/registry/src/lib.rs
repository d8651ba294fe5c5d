/*!
From what a user writes after `--model`, `--reward` or `--value` to the loaded thing, with its hash.

# Overview

- [`Registry`] fetches references through [`stackelberg_hub`] and loads policies, rewards, value heads, embedders and
  prompts. [`BUILTIN`] are the rewards that are part of the program.
- [`Scorer`] is a reward, or a combination of several, for finished texts.
- [`layout`] decides how prompts are laid out for a policy and what guides it, and returns the warnings about it.

Nothing here prints or reads the environment: the caller hands in a [`Hub`](stackelberg_hub::Hub) and a function that
is told about downloads.

```no_run
use stackelberg_engine::{Dtype, Device};
use stackelberg_hub::Hub;
use stackelberg_registry::{PolicySpec, Registry};

let registry = Registry::new(Hub::from_variables(|name| std::env::var_os(name)));
let policy = registry.policy(&PolicySpec::default())?;
let reward = registry.reward("sentiment", &policy, Dtype::Bf16)?;
# Ok::<(), Box<dyn std::error::Error>>(())
```
*/

#![cfg_attr(not(test), warn(clippy::unwrap_used))]

mod builtin;
mod error;
mod hash;
pub mod layout;
pub mod names;
mod registry;
mod rewards;
mod scorer;

pub use builtin::{BUILTIN, Builtin};
pub use error::{Error, Result};
pub use registry::{DEFAULT_MODEL, PolicySpec, Registry};
pub use scorer::{Finished, Ready, Scorer};
