/*!
Streams of a server against the same requests in a loop of their own, side by side.

`cargo run --release -p stackelberg-server --example load [ROUNDS [STREAMS ...]] [CASE ...]` (default: 5 rounds of 16 and of 64
streams, all cases: base, "args, head", "args, head, no skip", cd, best-of-8) decodes the same requests with a [`Session`] and with
a [`Server`] over connections, in turn, on the default model. It prints the medians of the tokens per second of both and of their
ratio, and how long a short request waits for its first token while all streams run, in steps of the others.
*/

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stackelberg_decoding::{Event, Limits, Method, Options, Request, Session, Want};
use stackelberg_engine::reward::ValueHead;
use stackelberg_engine::{Checkpoint, Device, Dtype, KvDtype, Reward};
use stackelberg_hub::Hub;
use stackelberg_registry::{PolicySpec, Registry};
use stackelberg_server::{Config, Models, Server};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

/// Tokens of an answer.
const TOKENS: usize = 32;
/// Name of the reward in requests, and the head that it is.
const REWARD: (&str, &str) = ("kind", "sentiment");
/// Name of the value head in requests. It is not trained: only its cost is measured.
const VALUE: &str = "untrained";

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> Outcome<()> {
    // Arguments that are no numbers are names of cases.
    let (mut numbers, mut names) = (Vec::<usize>::new(), Vec::new());
    for argument in std::env::args().skip(1) {
        match argument.parse() {
            Ok(number) => numbers.push(number),
            Err(_) => names.push(argument),
        }
    }
    let known: Vec<&str> = cases().into_iter().map(|(name, _)| name).collect();
    if let Some(name) = names.iter().find(|name| !known.contains(&name.as_str())) {
        return Err(format!("no case '{name}': the cases are {known:?}").into());
    }
    let rounds = numbers.first().copied().unwrap_or(5).max(1);
    let streams = if numbers.len() > 1 { &numbers[1..] } else { &[16, 64] };
    let registry = Registry::new(Hub::from_variables(|name| std::env::var_os(name)));
    let spec = PolicySpec {
        name: "smollm2-135m".to_owned(),
        dtype: Dtype::Bf16,
        kv_dtype: KvDtype::default(),
        device: Device::default(),
        tokenizer: None,
        states: None,
        template_args: [].into(),
    };
    let policy = registry.checkpoint(&spec)?;
    let reward = registry.reward(REWARD.1, &policy, spec.dtype)?;
    let value = untrained(&policy)?;
    let runtime = Runtime::new()?;
    println!("{rounds} rounds, answers of {TOKENS} tokens; medians");
    println!(
        "{:<22} {:>8} {:>12} {:>12} {:>7} {:>22}",
        "method", "streams", "loop, tok/s", "server, tok/s", "ratio", "first token, in steps"
    );
    for &n in streams {
        for (name, guidance) in cases() {
            if !names.is_empty() && !names.iter().any(|wanted| wanted == name) {
                continue;
            }
            let mut found = [(); 4].map(|()| Vec::new());
            for _ in 0..rounds {
                let alone = in_loop(&policy, (&reward, &value), &guidance, n)?;
                let models = Models::new("load", policy.clone())
                    .with_reward(REWARD.0, reward.clone())?
                    .with_value(VALUE, value.clone())?;
                let (served, first) = runtime.block_on(served(models, &guidance, n))?;
                for (figures, figure) in found.iter_mut().zip([alone, served, served / alone, first]) {
                    figures.push(figure);
                }
            }
            let [alone, served, ratio, first] = found.map(median);
            println!("{name:<22} {n:>8} {alone:>12.1} {served:>12.1} {ratio:>7.3} {first:>22.1}");
        }
    }
    Ok(())
}

/// Names and guidance of what is measured.
fn cases() -> Vec<(&'static str, Value)> {
    vec![
        ("base", json!({"method": "base"})),
        ("args, head", json!({"method": "args", "reward": REWARD.0})),
        ("args, head, no skip", json!({"method": "args", "reward": REWARD.0, "skip": false})),
        ("cd", json!({"method": "cd", "value": VALUE})),
        ("best-of-8", json!({"method": "best-of-n", "reward": REWARD.0, "samples": 8})),
    ]
}

/// A value head for this policy, with weights that are not trained.
fn untrained(policy: &Checkpoint) -> Outcome<Arc<ValueHead>> {
    let (_, hidden) = policy.model.prefill(&tokens(policy, 0)?)?;
    let width = hidden.dim(1)?;
    let layer = |inputs: usize, outputs: usize| {
        let weights = (0..inputs * outputs).map(|i| (i as f32).sin() / inputs as f32).collect();
        (weights, vec![0.0; outputs])
    };
    // As wide as those of trained heads.
    let layers = [layer(width, width), layer(width, width), layer(width, 1)];
    Ok(Arc::new(ValueHead::new(width, layers)))
}

/// The prompt of a stream: no two begin in the same way.
fn prompt(stream: usize) -> String {
    format!("{stream} things that happened on the way home from the market, where I had bought")
}

/// Samples of an answer: the tokens of all of them count.
fn samples(guidance: &Value) -> usize {
    guidance["samples"].as_u64().map_or(1, |samples| samples as usize)
}

/// Tokens per second of a session.
fn in_loop(
    policy: &Checkpoint,
    (reward, value): (&Reward, &Arc<ValueHead>),
    guidance: &Value,
    streams: usize,
) -> Outcome<f64> {
    let settings = Arc::new(settings(guidance)?.settings()?);
    let reward = guidance["reward"].is_string().then(|| reward.clone());
    let value = guidance["value"].is_string().then(|| value.clone());
    let mut session = Session::new(policy.clone(), Limits::from(streams));
    let began = Instant::now();
    for stream in 0..streams {
        session.submit(Request {
            id: stream.to_string(),
            prompt: tokens(policy, stream)?,
            asked: None,
            settings: settings.clone(),
            reward: reward.clone(),
            value: value.clone(),
            want: Want::Answer,
            steps: true,
        })?;
    }
    let mut done = 0;
    while done < streams {
        for event in session.step() {
            match event {
                Event::Done { .. } => done += 1,
                Event::Failed { error, .. } => return Err(error.into()),
                _ => {}
            }
        }
    }
    Ok((streams * TOKENS * samples(guidance)) as f64 / began.elapsed().as_secs_f64())
}

fn tokens(policy: &Checkpoint, stream: usize) -> Outcome<Vec<u32>> {
    Ok(policy.tokenizer.encode(&prompt(stream), true)?)
}

/// The settings of the same request as that of [`body`].
fn settings(guidance: &Value) -> Outcome<Options> {
    let mut object = guidance.clone();
    if let Some(fields) = object.as_object_mut() {
        fields.remove("reward");
        fields.remove("value");
    }
    let options: Options = serde_json::from_value(object)?;
    // Methods that do not guide steps show candidates in traces only.
    let guides = matches!(options.method, Some(Method::Args | Method::Cd));
    let candidates = (!guides).then_some(1);
    Ok(Options {
        max_new_tokens: Some(TOKENS),
        no_eos: Some(true),
        seed: Some(1),
        candidates,
        ..options
    })
}

fn body(stream: usize, guidance: &Value, tokens: usize) -> Value {
    let mut body = json!({
        "prompt": prompt(stream), "max_tokens": tokens, "ignore_eos": true, "seed": 1, "stream": true, "guidance": guidance,
    });
    if guidance["method"] == "base" {
        body["temperature"] = json!(0);
    }
    body
}

/// Tokens per second of a server, and the wait of a short request for its first token, in steps of the streams.
async fn served(models: Models, guidance: &Value, streams: usize) -> Outcome<(f64, f64)> {
    let limits =
        stackelberg_server::Limits { sequences: streams + 1, queue: streams, ..Default::default() };
    let server = Server::new(Config { limits, ..Config::default() }, models)?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(server.serve(listener, async move {
        let _ = stopped.await;
    }));
    let clients = |n: usize| {
        (0..n)
            .map(|stream| tokio::spawn(client(address, body(stream, guidance, TOKENS))))
            .collect::<Vec<_>>()
    };
    let began = Instant::now();
    for client in clients(streams) {
        client.await??;
    }
    let seconds = began.elapsed().as_secs_f64();
    // The same again, and a short request in the middle of it.
    let running = clients(streams);
    tokio::time::sleep(Duration::from_secs_f64(seconds / 2.0)).await;
    let (first, _) = client(address, body(streams, &json!({"method": "base"}), 1)).await?;
    for client in running {
        client.await??;
    }
    let _ = stop.send(());
    serving.await??;
    let step = seconds / TOKENS as f64;
    Ok(((streams * TOKENS * samples(guidance)) as f64 / seconds, first / step))
}

/// Reads a stream to its end. Returns the seconds to its first text, and its number of chunks.
async fn client(address: SocketAddr, body: Value) -> Outcome<(f64, usize)> {
    let body = body.to_string();
    let began = Instant::now();
    let mut connection = TcpStream::connect(address).await?;
    let head = format!(
        "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    connection.write_all((head + &body).as_bytes()).await?;
    let mut lines = BufReader::new(connection).lines();
    let (mut first, mut chunks) = (None, 0);
    while let Some(line) = lines.next_line().await? {
        if line.starts_with("data: {") {
            first = first.or(Some(began.elapsed().as_secs_f64()));
            chunks += 1;
        } else if line.contains("\"error\"") {
            return Err(line.into());
        }
    }
    Ok((first.ok_or("a stream without text")?, chunks))
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    if figures.len() % 2 == 1 {
        figures[middle]
    } else {
        f64::midpoint(figures[middle - 1], figures[middle])
    }
}
