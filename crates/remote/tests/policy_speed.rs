//! How many calls a second the client of policies on servers makes, and what memory it takes:
//!
//!     cargo test --release --workspace --test tests -- --ignored --nocapture policy_speed
//!
//! A mock engine in this process answers each call after 1 ms. It shares the cores with the client, so its own ceiling is
//! measured beside it: the same requests, sent by a bare HTTP client that does not read the answers.

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use stackelberg_decoding::policy::{Call, PolicyServer, Wanted};
use stackelberg_decoding::{Sampling, Settings};
use stackelberg_remote::PolicyClient;

use crate::engine::{Looks, Reply, engine, text};

const ROUNDS: usize = 5;
const CALLS: usize = 10_000;
const AT_ONCE: [usize; 2] = [64, 512];

#[test]
#[ignore = "a measurement, for a quiet machine"]
fn calls_a_second() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let text = text(folder.path());
    let server = engine(Looks::default(), |_, _| Reply::Right(Duration::from_millis(1)));
    let client = PolicyClient::connect(&server.address, None, &text)?;
    server.misbehave();
    let bare = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    println!(
        "{CALLS} calls of 60 tokens and 10 log-probabilities, median of {ROUNDS} rounds, calls a second"
    );
    for at_once in AT_ONCE {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            ours.push(client_rate(&client, at_once));
            theirs.push(bare.block_on(bare_rate(&server.address, at_once))?);
        }
        let (ours, theirs) = (median(ours), median(theirs));
        println!("{at_once} at once: client {ours:.0}, bare {theirs:.0}, ratio {:.2}", ours / theirs);
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    for line in status.lines().filter(|line| line.starts_with("VmHWM") || line.starts_with("VmRSS")) {
        println!("{line}");
    }
    Ok(())
}

/// What the log-probabilities of a continuation cost the client, and how many bytes they are.
#[test]
#[ignore = "a measurement, for a quiet machine"]
fn cost_of_log_probabilities() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let server = engine(Looks::default(), |_, _| Reply::Right(Duration::ZERO));
    let client = PolicyClient::connect(&server.address, None, &text(folder.path()))?;
    let bare = stackelberg_http::builder(&server.address, Duration::from_secs(60))?.build()?;
    for log_probs in [0, 1, 10] {
        let body = serde_json::json!({
            "prompt": prompt(1), "max_tokens": 24, "temperature": 0.7, "seed": 1, "logprobs": log_probs,
        });
        let url = format!("{}/completions", server.address);
        let bytes = bare.post(url).body(body.to_string()).send()?.bytes()?.len();
        let mut rates = Vec::new();
        for _ in 0..ROUNDS {
            let began = Instant::now();
            let (sender, answers) = channel();
            let under_way = (0..CALLS / 10).map(|number| {
                let sender = sender.clone();
                let sampling = Sampling { temperature: 0.7, ..Sampling::default() };
                let settings = Arc::new(Settings { sampling, ..Settings::default() });
                let seed = number as u64;
                let wanted =
                    Wanted::Continuation { n: 1, tokens: 24, least: 0, settings, seed, log_probs };
                let call = Call { tokens: prompt(number), wanted };
                client.ask(call, Box::new(move |found| drop(sender.send(found))))
            });
            let under_way: Vec<_> = under_way.collect();
            for _ in &under_way {
                answers.recv()?.expect("no failure");
            }
            rates.push((CALLS / 10) as f64 / began.elapsed().as_secs_f64());
        }
        println!(
            "24 tokens, {log_probs} likeliest each: {bytes} bytes, {:.0} calls a second",
            median(rates)
        );
    }
    Ok(())
}

fn prompt(number: usize) -> Vec<u32> {
    (0..60).map(|i| (number / (1 + i) % 90) as u32).collect()
}

fn client_rate(client: &PolicyClient, at_once: usize) -> f64 {
    let (sender, answers) = channel();
    let began = Instant::now();
    let mut under_way = Vec::with_capacity(CALLS);
    let mut ask = |number: usize| {
        let sender = sender.clone();
        let call = Call { tokens: prompt(number), wanted: Wanted::Likeliest { k: 10 } };
        under_way.push(client.ask(call, Box::new(move |found| drop(sender.send(found)))));
    };
    (0..at_once).for_each(&mut ask);
    for next in at_once..CALLS + at_once {
        answers.recv().expect("an answer").expect("no failure");
        if next < CALLS {
            ask(next);
        }
    }
    CALLS as f64 / began.elapsed().as_secs_f64()
}

async fn bare_rate(address: &str, at_once: usize) -> Result<f64, Box<dyn std::error::Error>> {
    let client = stackelberg_http::async_builder(address, Duration::from_secs(60))?.build()?;
    let url = format!("{address}/completions");
    let began = Instant::now();
    let workers = (0..at_once).map(|worker| {
        let (client, url) = (client.clone(), url.clone());
        tokio::spawn(async move {
            for number in (worker..CALLS).step_by(at_once) {
                let body = serde_json::json!({
                    "prompt": prompt(number), "max_tokens": 1, "temperature": 0, "logprobs": 10,
                });
                client.post(&url).body(body.to_string()).send().await?.bytes().await?;
            }
            Ok::<(), reqwest::Error>(())
        })
    });
    for worker in workers.collect::<Vec<_>>() {
        worker.await??;
    }
    Ok(CALLS as f64 / began.elapsed().as_secs_f64())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
