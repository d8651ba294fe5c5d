//! A server with a tiny model, and clients.
#![allow(dead_code, reason = "not every test needs all of it")]

use std::future::Future;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use stackelberg_engine::reward::{Exchange, RewardFormat, TextReward, TextScorer, ValueHead};
use stackelberg_engine::{Checkpoint, Dtype, Reward};
use stackelberg_server::{Config, Models, Server};
use tower::ServiceExt;

use crate::tiny::{D, Tiny};

/// The most tokens of prompt and answer together.
pub const CONTEXT: usize = 4000;

/// Messages as words of the tiny model.
const TEMPLATE: &str = "{% for message in messages %}w30 {{ message.role | length }} {{ message.content }} w31 {% endfor %}\
                        {% if add_generation_prompt %}w32 w33{% endif %}{% if shout %} w34{% endif %}";

/// A runtime for a test.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.unwrap().block_on(future)
}

/// A policy and its rewards: a head, a reward model, and one that reads text.
pub fn loaded() -> &'static (Checkpoint, [Reward; 3]) {
    static LOADED: OnceLock<(Checkpoint, [Reward; 3])> = OnceLock::new();
    LOADED.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        write_policy(&at("policy"));
        Tiny { seed: 5, labels: Some(1), config: config(), ..Tiny::default() }.write(&at("reward"));
        let header = json!({"__metadata__": {"format": "stackelberg-head"},
            "score.weight": {"dtype": "F32", "shape": [1, D], "data_offsets": [0, 4 * D]}});
        let header = header.to_string();
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend((0..D).flat_map(|i| ((i as f32 * 2.3).sin()).to_le_bytes()));
        std::fs::write(at("head.safetensors"), bytes).unwrap();
        let policy = Checkpoint::load(&at("policy"), Dtype::F32).unwrap();
        let load = |name: &str| Reward::load(&at(name), &policy, Dtype::F32).unwrap();
        let text = Reward::Text(Arc::new(TextReward::new(Ones)));
        let rewards = [load("head.safetensors"), load("reward"), text];
        (policy, rewards)
    })
}

fn config() -> Value {
    json!({ "max_position_embeddings": CONTEXT })
}

/// The tiny policy, with a chat template.
pub fn write_policy(folder: &Path) {
    Tiny { config: config(), ..Tiny::default() }.write(folder);
    let config = json!({"chat_template": TEMPLATE, "bos_token": "w1", "eos_token": "w2"});
    std::fs::write(folder.join("tokenizer_config.json"), config.to_string()).unwrap();
}

/// The share of the digit 1 in the answer. It panics at the prompt `panic`, and fails at `refuse`.
struct Ones;

impl TextScorer for Ones {
    fn score(
        &self,
        exchanges: &[Exchange<'_>],
        _: RewardFormat,
    ) -> stackelberg_engine::Result<Vec<f64>> {
        let panics = |e: &Exchange<'_>| e.prompt.raw(None).contains("panic");
        assert!(!exchanges.iter().any(panics), "the reward panics");
        let refuses = |e: &Exchange<'_>| e.prompt.raw(None).contains("refuse");
        if exchanges.iter().any(refuses) {
            return Err(stackelberg_engine::Error::Scorer("http://secret:8000 refuses".to_owned()));
        }
        let share =
            |e: &Exchange<'_>| e.answer.matches('1').count() as f64 / (1 + e.answer.len()) as f64;
        Ok(exchanges.iter().map(share).collect())
    }

    fn usual_format(&self) -> RewardFormat {
        RewardFormat::Answer
    }

    fn is_remote(&self) -> bool {
        false
    }
}

fn value() -> Arc<ValueHead> {
    let layer = |inputs: usize, outputs: usize| {
        let wave = |i: usize| (i as f32 * 1.7 + inputs as f32).sin();
        ((0..inputs * outputs).map(wave).collect(), (0..outputs).map(wave).collect())
    };
    Arc::new(ValueHead::new(D, [layer(D, 6), layer(6, 35), layer(35, 1)]))
}

/// The models that all tests use: rewards `head`, `model` and `ones`, a value head `v`.
pub fn models() -> Models {
    let (policy, [head, model, ones]) = loaded();
    let models = Models::new("tiny", policy.clone()).with_reward("head", head.clone()).unwrap();
    let models = models.with_reward("model", model.clone()).unwrap();
    models.with_reward("ones", ones.clone()).unwrap().with_value("v", value()).unwrap()
}

/// A server of its own.
pub fn server(config: Config) -> Client {
    Client::new(&Server::new(config, models()).unwrap())
}

/// A client without a connection.
#[derive(Clone)]
pub struct Client {
    router: Router,
}

/// What came back.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: axum::http::HeaderMap,
    pub text: String,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    /// The text of the first choice.
    pub fn text(&self) -> String {
        text_of(&self.json()["choices"][0])
    }

    /// The chunks of a stream, without `[DONE]`, which must be last.
    pub fn chunks(&self) -> Vec<Value> {
        let mut events: Vec<&str> = self.text.split("\n\n").collect();
        assert_eq!(events.pop(), Some(""), "{}", self.text);
        assert_eq!(events.pop(), Some("data: [DONE]"), "{}", self.text);
        let data = events.iter().map(|event| event.strip_prefix("data: ").expect("an event has data"));
        data.map(|data| serde_json::from_str(data).unwrap()).collect()
    }
}

/// The text of a choice, or of a chunk of one, of either kind.
pub fn text_of(choice: &Value) -> String {
    let text = choice["text"].as_str().or(choice["message"]["content"].as_str());
    text.or(choice["delta"]["content"].as_str()).unwrap_or_default().to_owned()
}

/// The texts of a stream's choices.
pub fn joined(chunks: &[Value], choices: usize) -> Vec<String> {
    let mut texts = vec![String::new(); choices];
    for choice in chunks.iter().flat_map(|chunk| chunk["choices"].as_array().unwrap()) {
        texts[choice["index"].as_u64().unwrap() as usize].push_str(&text_of(choice));
    }
    texts
}

impl Client {
    pub fn new(server: &Server) -> Self {
        Self { router: server.router() }
    }

    pub async fn send(&self, request: Request<Body>) -> Response<Body> {
        self.router.clone().oneshot(request).await.unwrap()
    }

    pub async fn reply(&self, request: Request<Body>) -> Reply {
        let response = self.send(request).await;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        Reply { status, headers, text: String::from_utf8(bytes.to_vec()).unwrap() }
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.reply(Request::get(path).header("host", "localhost").body(Body::empty()).unwrap()).await
    }

    pub async fn post(&self, path: &str, body: impl Into<Body>) -> Reply {
        self.reply(post(path, body)).await
    }

    pub async fn ask(&self, path: &str, body: Value) -> Reply {
        self.post(path, body.to_string()).await
    }

    /// The answer to a request that must succeed.
    #[track_caller]
    pub fn good(&self, path: &str, body: Value) -> impl Future<Output = Reply> + use<> {
        let (client, path, at) = (self.clone(), path.to_owned(), std::panic::Location::caller());
        async move {
            let reply = client.ask(&path, body).await;
            assert_eq!(reply.status, 200, "{at}: {}", reply.text);
            reply
        }
    }

    /// The value of a counter or gauge.
    pub async fn metric(&self, line: &str) -> f64 {
        let text = self.get("/metrics").await.text;
        let found = text.lines().find_map(|l| l.strip_prefix(line)?.strip_prefix(' '));
        found.map_or(0.0, |value| value.parse().unwrap())
    }
}

pub fn post(path: &str, body: impl Into<Body>) -> Request<Body> {
    let request =
        Request::post(path).header("host", "localhost").header("content-type", "application/json");
    request.body(body.into()).unwrap()
}

/// Waits until something holds.
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    for _ in 0..1000 {
        if holds().await {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}
