/*!
An OpenAI-compatible server whose answers follow a reward, token by token while they are decided.

# The way of a request

```text
HTTP ──guard──► body ──► types ──► settings ──► engine thread ──► events ──► pieces ──► chunks, or one answer
```

1. `guard` checks the host, the key and the media type; `body` reads the body within limits of size and time. `routes` has all
   paths.
2. `openai` has the types of requests and answers. Every known field is listed; what is not supported is an error that names
   the field (`refuse`), and so is what is unknown.
3. `settings` and `guidance` make [`Settings`](stackelberg_decoding::Settings) of the fields: there is one list of settings,
   [`Options`](stackelberg_decoding::Options). Rewards and value heads are found by the names that the operator gave them
   (`models`). `asked` is a request that is ready: tokens, settings, reward.
4. `engine` is the thread that owns the [`Session`](stackelberg_decoding::Session). Choices of all requests are decoded together.
   What a choice becomes depends on its prompt, its settings, the seed and its index only, not on what else is decoded.
5. Events go to the request that they concern; `pieces` makes pieces of text of them. A stream sends the pieces as chunks; a
   whole answer is the same pieces put together (`respond`, `render`). If the client goes away, its choices end before the
   next step.

`playground` is a page at `/` for people, whose files are part of the program; it uses the same paths as every client.

[`Server`] is all of this behind connections of its own (`serve`); [`run`] is a server in one call. The crate neither prints
nor reads the environment: a caller gives a [`Config`] and loaded [`Models`], and a token that stops the server.
*/

#![cfg_attr(not(test), warn(clippy::unwrap_used))]

mod app;
mod asked;
mod body;
mod chat;
mod completion;
mod config;
mod engine;
mod error;
mod guard;
mod guidance;
mod info;
mod logprobs;
mod metrics;
mod models;
mod openai;
mod openapi;
mod pieces;
mod playground;
mod pooling;
mod prompt_rows;
mod refuse;
mod render;
mod respond;
mod routes;
mod score_one;
mod scoring;
mod serve;
mod settings;
mod shape;
mod tokens;

pub use config::{Config, Keys, Limits};
pub use error::{Error, Result};
pub use models::Models;
pub use serve::{Server, run};
