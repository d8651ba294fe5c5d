/*!
Loads policies, rewards, value heads, embedders and prompts by name or reference, and computes their hashes.

# Overview

- [`Registry`] fetches references through [`stackelberg_hub`] and loads them: what a user gives as `--model`, `--reward`,
  `--value` or `--prompts`. [`BUILTIN`] lists the built-in rewards.
- [`Scorer`] scores finished texts with a reward, or a combination of several.
- [`guidance`] reads the guidance of a request, a JSON object: the settings, and the names of a reward and a value head.
- [`layout`] selects the prompt format for a policy and its guidance, and returns warnings about it.

The crate neither prints nor reads the environment. The caller passes a [`Hub`](stackelberg_hub::Hub) and a function
that receives the progress of downloads.

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

mod adapter;
mod builtin;
mod error;
pub mod guidance;
mod hash;
mod heads;
pub mod layout;
pub mod names;
mod registry;
mod rewards;
mod scorer;

pub use builtin::{BUILTIN, Builtin};
pub use error::{Error, Result};
pub use registry::{
    DEFAULT_MODEL, DEFAULT_REWARD, PolicySpec, Registry, set_template_args, usual_dtype,
};
pub use scorer::{Finished, Ready, Scorer};
