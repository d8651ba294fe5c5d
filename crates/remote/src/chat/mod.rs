/*!
A client of an OpenAI-compatible chat endpoint (`POST BASE/chat/completions`).

```no_run
use stackelberg_engine::Message;
use stackelberg_remote::chat::{Client, Endpoint, Settings};

let endpoint = Endpoint { base_url: "http://localhost:8000/v1".to_owned(), ..Endpoint::default() };
let settings = Settings { model: "Qwen2.5-7B-Instruct".to_owned(), temperature: Some(0.0), ..Settings::default() };
let client = Client::new(endpoint, settings)?;
let mut requests = 0; // counts repetitions too
let messages = [Message::new("user", "Why is the sky blue?")];
let completion = client.complete(&messages, &mut requests, &|| false)?;
println!("{}", completion.text);
# Ok::<(), Box<dyn std::error::Error>>(())
```
*/

mod client;
mod completion;
mod endpoint;
mod error;
mod status;

pub use client::Client;
pub use completion::Completion;
pub use endpoint::{Endpoint, Settings};
pub use error::{Error, Failure, Hint, Kind};
