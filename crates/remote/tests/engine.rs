//! A mock engine: an OpenAI-compatible server whose tokens are a function of the prompt and the seed.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use stackelberg_engine::TextProcessor;

/// Words of the model's vocabulary.
pub const WORDS: u32 = 97;

/// What a mock engine does with a request to `/v1/completions`.
pub enum Reply {
    /// It answers as it should, after a while.
    Right(Duration),
    /// It answers with this status, these header lines and this body.
    Status(u16, &'static str, String),
    /// It answers with this instead of the right response.
    Changed(fn(Value) -> Value),
    /// It ends the connection in the middle of the response.
    Cut,
}

/// How a mock engine presents itself.
#[derive(Clone)]
pub struct Looks {
    pub owner: &'static str,
    /// The most log-probabilities; more are a 400 as vLLM's.
    pub most: usize,
    pub context: usize,
    /// Whether the log-probabilities are those at the sampling temperature.
    pub processed: bool,
    /// Added to the ids of `/tokenize`.
    pub shift: u32,
    /// The hidden states that it gives.
    pub states: States,
    /// What it makes of `n`.
    pub several: Several,
}

/// What a mock engine makes of a request for several choices.
#[derive(Clone, Copy, PartialEq)]
pub enum Several {
    /// Each has a seed of its own. They come in reverse order.
    Drawn,
    /// There is one, whatever is asked for.
    Ignored,
    /// All are the same.
    Same,
    /// More than so many are an error.
    AtMost(u64),
}

/// The hidden states that a mock engine gives.
#[derive(Clone, Copy, PartialEq)]
pub enum States {
    None,
    /// Of all tokens, of this width.
    All(usize),
    /// Of last tokens, of this width.
    Last(usize),
    /// Of all tokens, which read the whole text.
    Bidirectional,
    /// Of all tokens, of length 1.
    Normalised,
    /// Of first tokens.
    First,
}

impl Default for Looks {
    fn default() -> Self {
        let (states, several) = (States::None, Several::Drawn);
        Self { owner: "vllm", most: 20, context: 4096, processed: false, shift: 0, states, several }
    }
}

/// A running mock engine.
pub struct Engine {
    pub address: String,
    pub calls: Arc<AtomicUsize>,
    /// Heads of all requests.
    pub heads: Arc<Mutex<Vec<String>>>,
    quiet: Arc<AtomicBool>,
    stopped: Arc<AtomicBool>,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Engine {
    /// Ends all connections, and refuses those to come.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        for stream in self.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// From now on it is asked how it replies; before, it answers rightly, so that it can be found out about.
    pub fn misbehave(&self) {
        self.quiet.store(false, Ordering::SeqCst);
    }

    /// Serves again.
    pub fn start_again(&self) {
        self.stopped.store(false, Ordering::SeqCst);
    }
}

/// The text side of the mock engine's model.
pub fn text(folder: &Path) -> TextProcessor {
    let vocabulary: serde_json::Map<String, Value> =
        (0..WORDS).map(|i| (format!("w{i}"), i.into())).collect();
    let tokenizer = json!({
        "version": "1.0", "added_tokens": [], "normalizer": null, "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": null, "decoder": null, "truncation": null, "padding": null,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "w0"},
    });
    std::fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    std::fs::write(folder.join("config.json"), r#"{"eos_token_id": [2]}"#).unwrap();
    TextProcessor::load(folder).unwrap()
}

fn mixed(numbers: impl IntoIterator<Item = u64>) -> u64 {
    numbers.into_iter().fold(0x9e37_79b9_7f4a_7c15, |hash, number| {
        (hash ^ number).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23)
    })
}

/// The token that follows, which is never the end of the text.
pub fn drawn(prompt: &[u32], seed: u64) -> u32 {
    let hash = mixed(prompt.iter().map(|&token| u64::from(token)).chain([seed]));
    3 + (hash % u64::from(WORDS - 3)) as u32
}

/// The log-probability of a token behind a text.
pub fn log_prob(prompt: &[u32], token: u32) -> f64 {
    let hash = mixed(prompt.iter().map(|&token| u64::from(token)).chain([u64::from(token) + 1000]));
    -0.5 - (hash % 1000) as f64 / 100.0
}

/// The likeliest tokens behind a text.
pub fn likeliest(prompt: &[u32], k: usize) -> Vec<(u32, f64)> {
    let mut all: Vec<(u32, f64)> = (0..WORDS).map(|token| (token, log_prob(prompt, token))).collect();
    all.sort_by(|(a, one), (b, other)| other.total_cmp(one).then(a.cmp(b)));
    all.truncate(k);
    all
}

/// The hidden state behind a text, of this width.
pub fn state(text: &[u32], width: usize) -> Vec<f32> {
    let of = |number: u64| mixed(text.iter().map(|&token| u64::from(token)).chain([number]));
    (0..width as u64).map(|i| (of(i) % 2000) as f32 / 100.0 - 10.0).collect()
}

/// The right response to a request for hidden states.
fn pooled(looks: &Looks, body: &Value) -> (u16, Value) {
    let ids: Vec<u32> = serde_json::from_value(body["input"].clone()).unwrap();
    let all = |width: usize| (1..=ids.len()).flat_map(|end| state(&ids[..end], width)).collect();
    let (task, states): (&str, Vec<f32>) = match looks.states {
        States::None => return (404, json!({"detail": "Not Found"})),
        States::All(width) => ("token_embed", all(width)),
        States::Last(width) => ("embed", state(&ids, width)),
        States::First => ("embed", state(&ids[..1], 4)),
        States::Bidirectional => {
            ("token_embed", ids.iter().flat_map(|&id| state(&[&ids[..], &[id]].concat(), 4)).collect())
        }
        States::Normalised => {
            let unit = |state: &[f32]| {
                let length = state.iter().map(|x| x * x).sum::<f32>().sqrt();
                state.iter().map(|x| x / length).collect::<Vec<f32>>()
            };
            ("token_embed", all(4).chunks(4).flat_map(unit).collect())
        }
    };
    if body["task"] != task || body["use_activation"] != false || body["encoding_format"] != "base64" {
        let message = format!("Try switching the model's pooling_task via --pooler-config.task {task}.");
        return (400, json!({"error": {"message": message}}));
    }
    (200, json!({"data": [{"index": 0, "data": packed(&states)}]}))
}

/// Numbers as base64.
pub fn packed(states: &[f32]) -> String {
    STANDARD.encode(states.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>())
}

/// The right response to a request.
fn right(looks: &Looks, body: &Value) -> (u16, Value) {
    let ids = |value: &Value| -> Vec<u32> {
        value
            .as_array()
            .map_or_else(Vec::new, |ids| ids.iter().map(|id| id.as_u64().unwrap() as u32).collect())
    };
    let (prompt, k) = (ids(&body["prompt"]), body["logprobs"].as_u64().unwrap_or(0) as usize);
    if k > looks.most {
        let most = looks.most;
        let message =
            format!("Requested sample logprobs of {k}, which is greater than max allowed: {most}");
        return (400, json!({"error": {"message": message}}));
    }
    let n = body["n"].as_u64().unwrap_or(1);
    let seed = body["seed"].as_u64().unwrap_or(0);
    let seeds: Vec<u64> = match looks.several {
        Several::Drawn => (seed..seed + n).collect(),
        Several::Ignored => vec![seed],
        Several::Same => vec![seed; n as usize],
        Several::AtMost(most) if n > most => {
            let message = format!("Field 'n': Value must be between 1 <= value <= {most}, but got {n}");
            return (400, json!({"error": {"message": message}}));
        }
        Several::AtMost(_) => (seed..seed + n).collect(),
    };
    let of_seed = |(index, seed)| choice(looks, body, index, prompt.clone(), k, seed);
    let choices: Vec<Value> = seeds.into_iter().enumerate().rev().map(of_seed).collect();
    (200, json!({"choices": choices}))
}

/// One of the choices of a response.
fn choice(
    looks: &Looks,
    body: &Value,
    index: usize,
    mut prompt: Vec<u32>,
    k: usize,
    seed: u64,
) -> Value {
    let temperature = body["temperature"].as_f64().unwrap_or(1.0);
    let scale = if looks.processed && temperature > 0.0 { 1.0 / temperature } else { 1.0 };
    let most = body["max_tokens"].as_u64().unwrap();
    let (mut tokens, mut of_tokens, mut tops) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..most {
        let token = if temperature == 0.0 { likeliest(&prompt, 1)[0].0 } else { drawn(&prompt, seed) };
        tokens.push(token);
        of_tokens.push(scale * log_prob(&prompt, token));
        tops.push(
            likeliest(&prompt, k.max(1)).into_iter().map(|(t, l)| (t, scale * l)).collect::<Vec<_>>(),
        );
        prompt.push(token);
    }
    match looks.owner {
        "llamacpp" => {
            let entry =
                |(token, log_prob): (u32, f64)| json!({"id": token, "token": "", "logprob": log_prob});
            let content = tokens.iter().zip(of_tokens).zip(tops).map(|((&token, log_prob), top)| {
                let mut whole = entry((token, log_prob));
                whole["top_logprobs"] = top.into_iter().map(entry).collect();
                whole
            });
            json!({"index": index, "text": "", "finish_reason": "length",
                "logprobs": {"content": content.collect::<Vec<_>>()}})
        }
        _ => {
            let name = |token: u32| format!("token_id:{token}");
            let tops = tops.into_iter().map(|top| {
                Value::Object(
                    top.into_iter().map(|(token, log_prob)| (name(token), log_prob.into())).collect(),
                )
            });
            json!({"index": index, "text": "", "finish_reason": "length", "token_ids": tokens,
                "logprobs": {"tokens": tokens.iter().map(|&token| name(token)).collect::<Vec<_>>(),
                    "token_logprobs": of_tokens, "top_logprobs": tops.collect::<Vec<_>>()}})
        }
    }
}

/// Starts a mock engine. Once it is to [`misbehave`](Engine::misbehave), `reply` is asked about each request to
/// `/v1/completions` and `/pooling`, by its number.
pub fn engine(looks: Looks, reply: impl Fn(usize, &Value) -> Reply + Send + Sync + 'static) -> Engine {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/v1", listener.local_addr().unwrap());
    let engine = Engine {
        address,
        calls: Arc::default(),
        heads: Arc::default(),
        quiet: Arc::new(AtomicBool::new(true)),
        stopped: Arc::default(),
        open: Arc::default(),
    };
    let (calls, heads, quiet) = (engine.calls.clone(), engine.heads.clone(), engine.quiet.clone());
    let (stopped, open, reply) = (engine.stopped.clone(), engine.open.clone(), Arc::new(reply));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { continue };
            if stopped.load(Ordering::SeqCst) {
                continue;
            }
            let _ = stream.set_nodelay(true);
            open.lock().unwrap().push(stream.try_clone().unwrap());
            let (looks, calls, heads, reply, quiet) =
                (looks.clone(), calls.clone(), heads.clone(), reply.clone(), quiet.clone());
            thread::spawn(move || {
                let mut reader = BufReader::new(stream);
                while let Some((head, body)) = read(&mut reader) {
                    let path = head.split_whitespace().nth(1).unwrap_or_default().to_owned();
                    heads.lock().unwrap().push(head);
                    let how = match &path[..] {
                        "/v1/completions" | "/pooling" => {
                            let number = calls.fetch_add(1, Ordering::SeqCst);
                            if quiet.load(Ordering::SeqCst) {
                                Reply::Right(Duration::ZERO)
                            } else {
                                reply(number, &body)
                            }
                        }
                        _ => Reply::Right(Duration::ZERO),
                    };
                    if answer(reader.get_mut(), &looks, &path, &body, how).is_none() {
                        return;
                    }
                }
            });
        }
    });
    engine
}

/// Answers a request; `None` if the connection is over.
fn answer(stream: &mut TcpStream, looks: &Looks, path: &str, body: &Value, how: Reply) -> Option<()> {
    let (mut status, mut value) = match path {
        "/v1/models" => {
            let mut model = json!({"id": "mock", "owned_by": looks.owner});
            if looks.owner == "vllm" {
                model["root"] = json!("org/mock");
            }
            match looks.owner {
                "llamacpp" => model["meta"] = json!({"n_ctx": looks.context}),
                _ => model["max_model_len"] = json!(looks.context),
            }
            (200, json!({"data": [model]}))
        }
        "/version" => (200, json!({"version": "1.2.3"})),
        "/tokenize" => {
            let text = body["prompt"].as_str().or(body["content"].as_str()).unwrap_or_default();
            let word =
                |word: &str| word.strip_prefix('w').and_then(|number| number.parse().ok()).unwrap_or(0);
            let ids: Vec<u32> = text.split_whitespace().map(|text| word(text) + looks.shift).collect();
            (200, json!({"tokens": ids}))
        }
        "/v1/completions" => right(looks, body),
        "/pooling" => pooled(looks, body),
        _ => (404, json!({"detail": "Not Found"})),
    };
    let (mut headers, mut cut) = (String::new(), false);
    let mut text = None;
    match how {
        Reply::Right(wait) => thread::sleep(wait),
        Reply::Status(code, lines, said) => {
            (status, headers, text) = (code, lines.to_owned(), Some(said))
        }
        Reply::Changed(change) if status == 200 => value = change(value),
        Reply::Changed(_) => {}
        Reply::Cut => cut = true,
    }
    let text = text.unwrap_or_else(|| value.to_string());
    let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n{headers}\r\n", text.len());
    let whole = head + &text;
    let sent = if cut { &whole[..whole.len() / 2] } else { &whole[..] };
    stream.write_all(sent.as_bytes()).ok()?;
    if cut {
        let _ = stream.shutdown(Shutdown::Both);
        return None;
    }
    Some(())
}

/// The head and the body of the next request of a connection.
fn read(reader: &mut BufReader<TcpStream>) -> Option<(String, Value)> {
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line == "\r\n" {
            break;
        }
        if let Some(n) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = n.trim().parse().unwrap();
        }
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let body = if length == 0 { Value::Null } else { serde_json::from_slice(&body).unwrap() };
    Some((head, body))
}
