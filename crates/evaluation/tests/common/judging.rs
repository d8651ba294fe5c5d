//! Runs of the judge against a local server.

use std::fs;
use std::time::Duration;

use stackelberg_evaluation::judge::{
    Asking, Client, Endpoint, Error, Identity, Order, Outcome, Pair, Resampling, Store, Summary,
    Verdict, ask, calls, form,
};

use crate::judge_server::{Act, Request, Server, say};

pub const BOTH: [Order; 2] = [Order::Ab, Order::Ba];

pub fn identity() -> Identity {
    Identity {
        model: "judge".to_owned(),
        form: form::version(),
        temperature: Some(0.0),
        seed: None,
        extra: serde_json::Map::new(),
    }
}

pub fn client(server: &Server) -> Client {
    Client::new(endpoint(server), identity()).unwrap()
}

/// An endpoint with short waits.
pub fn endpoint(server: &Server) -> Endpoint {
    Endpoint {
        base_url: server.url.clone(),
        timeout: Duration::from_millis(400),
        retries: 2,
        first_wait: Duration::from_millis(2),
        ..Endpoint::default()
    }
}

/// Pairs of different answers. A's answers begin with "good".
pub fn some_pairs(count: usize) -> Vec<Pair> {
    let pair = |i| Pair {
        id: format!("p{i}"),
        prompt: format!("Question {i}?"),
        a: format!("good {i}"),
        b: format!("bad {i}"),
    };
    (0..count).map(pair).collect()
}

pub fn one_at_a_time() -> Asking {
    Asking { concurrency: 1, ..Asking::default() }
}

/// A run with its own verdict file.
pub struct Judging {
    pub folder: tempfile::TempDir,
    pub pairs: Vec<Pair>,
}

impl Judging {
    pub fn new(pairs: Vec<Pair>) -> Self {
        Self { folder: tempfile::tempdir().unwrap(), pairs }
    }

    pub fn store(&self) -> Store {
        Store::open(&self.folder.path().join("v.jsonl"), &identity()).unwrap()
    }

    pub fn go(&self, server: &Server, asking: &Asking) -> Result<Outcome, Error> {
        ask(&calls(&self.pairs, &BOTH), &client(server), &mut self.store(), asking, &())
    }

    pub fn summary(&self) -> Summary {
        Summary::new(&self.pairs, &BOTH, &self.store(), &Resampling { draws: 500, seed: 0 })
    }

    pub fn text(&self) -> String {
        fs::read_to_string(self.folder.path().join("v.jsonl")).unwrap()
    }

    pub fn lines(&self) -> Vec<Verdict> {
        self.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// Rates "good" with 8 and "bad" with 6.
pub fn fair(request: &Request) -> Act {
    let score = |text: &str| if text.starts_with("good") { 8 } else { 6 };
    say(score(request.first()), score(request.second()))
}
