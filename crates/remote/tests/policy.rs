//! Policies on servers: what is found out about them, and that no answer is lost, doubled or mixed up however they behave.

use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stackelberg_decoding::policy::{Call, Drawn, Found, InFlight, Likeliest, PolicyServer, Wanted};
use stackelberg_decoding::{Sampling, Settings};
use stackelberg_remote::{Key, PolicyClient};

use crate::engine::{Engine, Looks, Reply, Several, WORDS, drawn, engine, likeliest, log_prob, text};

fn connect(addresses: &str) -> Result<PolicyClient, String> {
    let folder = tempfile::tempdir().unwrap();
    PolicyClient::connect(addresses, None, &text(folder.path())).map_err(|error| error.to_string())
}

fn well(looks: Looks) -> Engine {
    engine(looks, |_, _| Reply::Right(Duration::ZERO))
}

fn sampled() -> Arc<Settings> {
    let sampling = Sampling { temperature: 0.8, ..Sampling::default() };
    Arc::new(Settings { sampling, ..Settings::default() })
}

/// The call with this number: its prompt is different from all others'.
fn call(number: usize) -> Call {
    let tokens = vec![(number % 89) as u32, (number / 89 % 89) as u32, (number / 7921) as u32, 5];
    let wanted = match number % 3 {
        0 => Wanted::Likeliest { k: 1 + number % 20 },
        _ => Wanted::Continuation {
            n: 1 + number % 5,
            tokens: 1 + number % 7,
            least: 0,
            settings: sampled(),
            seed: number as u64,
            log_probs: 1 + number % 3,
        },
    };
    Call { tokens, wanted }
}

/// What the mock engine says to a call.
fn expected(call: &Call) -> Vec<Found> {
    match &call.wanted {
        Wanted::Likeliest { k } => vec![Found::Likeliest(Likeliest(likeliest(&call.tokens, *k)))],
        Wanted::Continuation { n, tokens, seed, log_probs, .. } => {
            let drawn = |seed| continuation(call, *tokens, seed, *log_probs);
            (*seed..seed + *n as u64).map(drawn).collect()
        }
    }
}

fn continuation(call: &Call, tokens: usize, seed: u64, log_probs: usize) -> Found {
    let mut text = call.tokens.clone();
    let mut all = Vec::new();
    for _ in 0..tokens {
        let token = drawn(&text, seed);
        let likeliest = Likeliest(likeliest(&text, log_probs));
        all.push(Drawn { token, log_prob: log_prob(&text, token), likeliest });
        text.push(token);
    }
    Found::Continuation { tokens: all, ended: false }
}

type Answers = Receiver<(usize, Result<Vec<Found>, String>)>;

/// Asks all calls at once.
fn ask_all(client: &PolicyClient, numbers: impl Iterator<Item = usize>) -> (Answers, Vec<InFlight>) {
    let (sender, answers) = channel();
    let calls = numbers.map(|number| {
        let sender = sender.clone();
        client.ask(call(number), Box::new(move |found| drop(sender.send((number, found)))))
    });
    let calls = calls.collect();
    (answers, calls)
}

/// Checks that each of the calls has its own answer, once.
fn check_all(answers: &Answers, n: usize) {
    let mut seen = vec![0; n];
    for _ in 0..n {
        let (number, found) = answers.recv_timeout(Duration::from_secs(120)).expect("an answer is lost");
        assert_eq!(found.as_ref(), Ok(&expected(&call(number))), "call {number}");
        seen[number] += 1;
    }
    assert!(seen.iter().all(|&times| times == 1));
    assert!(answers.recv_timeout(Duration::from_millis(20)).is_err(), "an answer came twice");
}

#[test]
fn servers_are_found_out_about() {
    let vllm = well(Looks::default());
    let client = connect(&vllm.address).unwrap();
    assert_eq!((client.context(), client.most_log_probs()), (4096, 20));
    assert_eq!(client.identity(), "mock on vllm 1.2.3, context 4096, 20 log-probabilities");
    let llama = well(Looks { owner: "llamacpp", most: 10_000, context: 512, ..Looks::default() });
    let client = connect(&format!("{}/#mock", llama.address)).unwrap();
    // Where nothing says what is served, it is the model's name.
    assert_eq!(PolicyClient::root(&vllm.address, None).unwrap(), "org/mock");
    assert_eq!(PolicyClient::root(&llama.address, None).unwrap(), "mock");
    // The first of several servers is asked.
    let both = format!("{}, {}#mock", vllm.address, llama.address);
    assert_eq!(PolicyClient::root(&both, None).unwrap(), "org/mock");
    // All of the vocabulary is given.
    assert_eq!((client.context(), client.most_log_probs()), (512, WORDS as usize));
    for server in [vllm, llama] {
        let client = connect(&server.address).unwrap();
        server.misbehave();
        let (answers, _calls) = ask_all(&client, 0..200);
        check_all(&answers, 200);
    }
}

/// Several continuations are asked for in one call only where the server draws as many, by different seeds.
#[test]
fn servers_that_draw_one_at_a_time_are_noticed() {
    for (several, most) in [
        (Several::Drawn, 16),
        (Several::Ignored, 1),
        (Several::Same, 1),
        (Several::AtMost(1), 1),
        // As llama.cpp with four slots.
        (Several::AtMost(4), 4),
    ] {
        let server = well(Looks { several, ..Looks::default() });
        assert_eq!(connect(&server.address).unwrap().most_continuations(), most);
    }
}

#[test]
fn servers_that_cannot_be_a_policy_are_refused() {
    let refused = |looks: Looks| connect(&well(looks).address).err().unwrap();
    let other = refused(Looks { shift: 1, ..Looks::default() });
    assert!(other.contains("its tokenizer is not the one that is given here"), "{other}");
    let processed = refused(Looks { processed: true, ..Looks::default() });
    assert!(processed.contains("--logprobs-mode raw_logprobs"), "{processed}");

    let changed = |change: fn(Value) -> Value| {
        let server = engine(Looks::default(), move |_, _| Reply::Changed(change));
        server.misbehave();
        connect(&server.address).err().unwrap()
    };
    let named = changed(|mut value| {
        // Texts collide: half a character is "".
        value["choices"][0]["logprobs"]["top_logprobs"] = json!([{"": -0.3, " a": -1.0}]);
        value
    });
    assert!(named.contains("named '', not by its id"), "{named}");
    let none = changed(|mut value| {
        value["choices"][0]["logprobs"] = Value::Null;
        value
    });
    assert!(none.contains("0 log-probabilities of 1 tokens"), "{none}");

    let server = well(Looks::default());
    let unknown = connect(&format!("{}#nope", server.address)).err().unwrap();
    assert!(unknown.contains("has no model 'nope': it has mock"), "{unknown}");
    let longer = well(Looks { context: 9000, ..Looks::default() });
    let unlike = connect(&format!("{},{}", server.address, longer.address)).err().unwrap();
    assert!(unlike.contains("is not like") && unlike.contains("context 9000"), "{unlike}");
    let nobody = connect("http://127.0.0.1:9/v1").err().unwrap();
    assert!(nobody.starts_with("http://127.0.0.1:9/v1: "), "{nobody}");
    let wrong = connect("ftp://host/v1").err().unwrap();
    assert!(wrong.contains("begins with http:// or https://"), "{wrong}");
}

/// The facts of all servers are asked for at the same time, and so are those of one that do not depend on each other.
#[test]
fn many_servers_start_as_fast_as_one() {
    let wait = Duration::from_millis(200);
    let servers: Vec<Engine> =
        (0..6).map(|_| engine(Looks::default(), move |_, _| Reply::Right(wait))).collect();
    servers.iter().for_each(Engine::misbehave);
    let addresses: Vec<&str> = servers.iter().map(|server| &server.address[..]).collect();
    let began = Instant::now();
    connect(&addresses.join(",")).unwrap();
    // Each is asked five questions of 200 ms, of which two wait for each other.
    let took = began.elapsed();
    assert!((2 * wait..8 * wait).contains(&took), "{took:?}");
}

/// Without likeliest tokens, a continuation asks for the log-probabilities of its own tokens only.
#[test]
fn no_more_is_asked_for_than_is_told() {
    for (owner, asked) in [("vllm", 0), ("llamacpp", 1)] {
        let bodies = Arc::new(Mutex::new(Vec::new()));
        let kept = bodies.clone();
        let server = engine(Looks { owner, ..Looks::default() }, move |_, body| {
            kept.lock().unwrap().push(body.clone());
            Reply::Right(Duration::ZERO)
        });
        let client = connect(&server.address).unwrap();
        server.misbehave();
        let (sender, answers) = channel();
        let wanted = Wanted::Continuation {
            n: 1,
            tokens: 3,
            least: 0,
            settings: sampled(),
            seed: 1,
            log_probs: 0,
        };
        let _call = client
            .ask(Call { tokens: vec![1, 2], wanted }, Box::new(move |found| drop(sender.send(found))));
        let found = answers.recv_timeout(Duration::from_secs(20)).unwrap();
        let Ok([Found::Continuation { tokens, .. }]) = found.as_deref() else { panic!("{found:?}") };
        assert!(tokens.len() == 3 && tokens.iter().all(|drawn| drawn.log_prob < 0.0), "{tokens:?}");
        assert_eq!(bodies.lock().unwrap()[0]["logprobs"], json!(asked));
    }
}

/// A storm: too busy, broken, slow, cut, wrong. Every call has its own answer in the end.
#[test]
fn no_answer_is_lost_doubled_or_mixed_up() {
    const CALLS: usize = 10_000;
    let server = engine(Looks::default(), |number, _| match number * 7919 % 1000 {
        0..8 => Reply::Status(429, "retry-after: 0.05\r\n", "busy".to_owned()),
        8..12 => Reply::Status(500, "", "broken".to_owned()),
        12..16 => Reply::Cut,
        16..18 => Reply::Status(200, "", "no JSON".to_owned()),
        18..21 => Reply::Changed(|_| json!({"choices": []})),
        22..24 => Reply::Changed(|mut value| {
            value["choices"][0]["token_ids"] = json!([-1]);
            value
        }),
        21 => Reply::Changed(|mut value| {
            value["choices"][0]["index"] = json!(7);
            value
        }),
        24..27 => Reply::Changed(|mut value| {
            value["choices"][0]["logprobs"]["token_logprobs"] = json!([null]);
            value
        }),
        27..40 => Reply::Right(Duration::from_millis(20)),
        _ => Reply::Right(Duration::ZERO),
    });
    let client = connect(&server.address).unwrap();
    server.misbehave();
    let (answers, _calls) = ask_all(&client, 0..CALLS);
    check_all(&answers, CALLS);
    let calls = server.calls.load(Ordering::SeqCst);
    assert!(calls > CALLS + CALLS / 50, "{calls}: the server did not misbehave");
}

/// One of two servers dies: the other answers all. When it is back, it is asked again.
#[test]
fn a_dead_server_is_left_out() {
    let [one, two] =
        [(); 2].map(|()| engine(Looks::default(), |_, _| Reply::Right(Duration::from_millis(1))));
    let client = connect(&format!("{}, {}", one.address, two.address)).unwrap();
    let before = (one.calls.load(Ordering::SeqCst), two.calls.load(Ordering::SeqCst));
    let (answers, _calls) = ask_all(&client, 0..400);
    check_all(&answers, 400);
    let shares =
        [one.calls.load(Ordering::SeqCst) - before.0, two.calls.load(Ordering::SeqCst) - before.1];
    assert!(shares.iter().all(|&share| share > 100), "{shares:?}");

    one.stop();
    let (answers, _calls) = ask_all(&client, 0..400);
    check_all(&answers, 400);
    one.start_again();
    let (since, back) = (Instant::now(), one.calls.load(Ordering::SeqCst));
    while one.calls.load(Ordering::SeqCst) < back + 10 {
        assert!(since.elapsed() < Duration::from_secs(60), "the server is not asked again");
        let (answers, _calls) = ask_all(&client, 0..50);
        check_all(&answers, 50);
    }
}

#[test]
fn hopeless_calls_fail_with_the_servers_words() {
    let server = engine(Looks::default(), |_, _| {
        Reply::Status(400, "", r#"{"error": {"message": "the prompt is bad"}}"#.to_owned())
    });
    let client = connect(&server.address).unwrap();
    server.misbehave();
    let before = server.calls.load(Ordering::SeqCst);
    let (answers, _calls) = ask_all(&client, 0..1);
    let (_, found) = answers.recv_timeout(Duration::from_secs(20)).unwrap();
    let problem = found.unwrap_err();
    assert_eq!(problem, format!("{}: 400 Bad Request: the prompt is bad", server.address));
    assert_eq!(server.calls.load(Ordering::SeqCst), before + 1);
}

/// A server that asks for a pause gets it.
#[test]
fn a_busy_server_is_left_alone() {
    let first = Arc::new(Mutex::new(None::<Instant>));
    let kept = first.clone();
    let server = engine(Looks::default(), move |_, _| {
        let mut first = kept.lock().unwrap();
        match *first {
            Some(since) if since.elapsed() >= Duration::from_millis(500) => Reply::Right(Duration::ZERO),
            Some(_) => Reply::Status(400, "", "asked too early".to_owned()),
            None => {
                *first = Some(Instant::now());
                Reply::Status(429, "retry-after: 0.5\r\n", "busy".to_owned())
            }
        }
    });
    let client = connect(&server.address).unwrap();
    server.misbehave();
    let (answers, _calls) = ask_all(&client, 0..1);
    check_all(&answers, 1);
}

/// A dropped call is not answered, and the server is not kept busy by it.
#[test]
fn dropped_calls_are_cancelled() {
    let server = engine(Looks::default(), |_, _| Reply::Right(Duration::from_millis(200)));
    let client = connect(&server.address).unwrap();
    server.misbehave();
    let (answers, calls) = ask_all(&client, 0..5);
    drop(calls);
    assert!(answers.recv_timeout(Duration::from_millis(600)).is_err());
}

#[test]
fn the_key_is_sent_and_never_shown_or_passed_on() {
    let server = engine(Looks::default(), |number, _| match number % 2 {
        0 => Reply::Status(401, "", r#"{"error": {"message": "the key s3cret is wrong"}}"#.to_owned()),
        _ => Reply::Status(307, "location: http://127.0.0.1:9/v1/completions\r\n", String::new()),
    });
    let folder = tempfile::tempdir().unwrap();
    let client =
        PolicyClient::connect(&server.address, Some(Key::new("s3cret")), &text(folder.path())).unwrap();
    server.misbehave();
    let (answers, _calls) = ask_all(&client, 0..2);
    let mut problems: Vec<String> =
        (0..2).map(|_| answers.recv_timeout(Duration::from_secs(20)).unwrap().1.unwrap_err()).collect();
    problems.sort();
    assert!(
        problems[0].contains("307 Temporary Redirect: it says to go to http://127.0.0.1:9/v1/"),
        "{problems:?}"
    );
    assert!(problems[1].contains("the key [key] is wrong"), "{problems:?}");
    assert!(!client.identity().contains("s3cret"));
    let heads = server.heads.lock().unwrap();
    assert!(heads.iter().all(|head| head.to_ascii_lowercase().contains("authorization: bearer s3cret")));
}
