//! Rewards that read text: a reward model with another tokenizer, a program, a server.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stackelberg_engine::reward::{
    Asked, Exchange, ForeignModel, Guide, HttpReward, ProgramReward, Question, RewardFormat,
    RewardModel, TextReward, TextScorer, ask,
};
use stackelberg_engine::{Checkpoint, Dtype, Message, Prompt, Reward};
use tempfile::TempDir;

use crate::common::tiny::{self, Tiny};

fn load(tiny: &Tiny) -> (TempDir, Checkpoint) {
    let folder = tempfile::tempdir().unwrap();
    tiny.write(folder.path());
    let checkpoint = Checkpoint::load(folder.path(), Dtype::F32).unwrap();
    (folder, checkpoint)
}

/// A model gives the same rewards with the policy's tokenizer and with another one, step by step.
#[test]
fn a_foreign_tokenizer_changes_no_reward() {
    let (_folder, policy) = load(&Tiny::default());
    let own = tempfile::tempdir().unwrap();
    Tiny { seed: 5, labels: Some(1), ..Tiny::default() }.write(own.path());
    let other = tempfile::tempdir().unwrap();
    Tiny { seed: 5, labels: Some(1), last_word: "other", ..Tiny::default() }.write(other.path());
    let own = Reward::load(own.path(), &policy, Dtype::F32).unwrap();
    let foreign = Reward::load(other.path(), &policy, Dtype::F32).unwrap();
    assert!(matches!((&own, &foreign), (Reward::Model(_), Reward::Text(_))));
    let Reward::Text(foreign) = foreign else { unreachable!() };
    let foreign = Reward::Text(Box::new(foreign.with_format(RewardFormat::Raw).unwrap()));

    // The tokenizer's words are cut at spaces, of which none stands before an answer.
    let prompt = Prompt::Text("w4 w9 w6 ".to_owned());
    let tokens = policy.tokens("w4 w9 w6", stackelberg_engine::reward::TextFormat::Raw).unwrap();
    let asked = Asked { tokens: &tokens, prompt: Some(&prompt) };
    let (mut a, mut b) = (own.guide(&policy, asked).unwrap(), foreign.guide(&policy, asked).unwrap());
    assert!(!b.needs_policy() && b.span().is_none());
    let mut answer = Vec::new();
    for step in 0..40u32 {
        let candidates = [4 + step % 30, 5 + step * 7 % 30, 10];
        let score = |guide: &mut Guide<'_>| {
            ask(&mut [Question { guide, candidates: &candidates, further: &[], ahead: None }])
                .unwrap()
                .remove(0)
        };
        let (ours, theirs) = (score(&mut a), score(&mut b));
        assert_eq!(ours, theirs, "step {step}");
        let chosen = step as usize % 3;
        answer.push(candidates[chosen]);
        if step % 5 == 4 {
            a.read(candidates[chosen]).unwrap();
            b.read(candidates[chosen]).unwrap();
        } else {
            a.commit(chosen).unwrap();
            b.commit(chosen).unwrap();
        }
    }
    let both = [&own, &foreign]
        .map(|reward| reward.of_answers(&policy, asked, &[&answer, &answer[..7]]).unwrap());
    assert_eq!(both[0], both[1]);
    assert!(foreign.guide(&policy, Asked { tokens: &tokens, prompt: None }).is_err());
}

/// The tensor names of UltraRM: the same weights give the same rewards.
#[test]
fn a_regression_head_is_a_score() {
    let folder = tempfile::tempdir().unwrap();
    Tiny { seed: 5, labels: Some(1), ..Tiny::default() }.write(folder.path());
    let (_policy, policy) = load(&Tiny::default());
    let tokens = [5, 12, 7, 30, 2, 18, 21];
    let usual = Reward::load(folder.path(), &policy, Dtype::F32).unwrap();
    let usual = usual.of_tokens(&policy, &tokens).unwrap();
    // By hand: the last hidden state times the row.
    let model = Checkpoint::load(folder.path(), Dtype::F32).unwrap().model;
    let hidden: Vec<Vec<f32>> = model.prefill(&tokens).unwrap().1.to_vec2().unwrap();
    let row = &model.score().unwrap().rows[0];
    let by_hand: f64 = hidden[6].iter().zip(row).map(|(h, w)| f64::from(h * w)).sum();

    let weights = folder.path().join("model.safetensors");
    let bytes = std::fs::read(&weights).unwrap();
    let end = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header = std::str::from_utf8(&bytes[8..end]).unwrap();
    let header = header.replace("\"score.weight\"", "\"regression_head.weight\"");
    let renamed = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &bytes[end..]].concat();
    std::fs::write(&weights, renamed).unwrap();
    let config = folder.path().join("config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("LlamaForSequenceClassification", "LlamaRewardModel")).unwrap();
    let ultra =
        Reward::load(folder.path(), &policy, Dtype::F32).unwrap().of_tokens(&policy, &tokens).unwrap();
    assert_eq!(ultra, usual);
    assert!((ultra - by_hand).abs() < 1e-5, "{ultra} not {by_hand}");
}

fn exchanges<'a>(prompt: &'a Prompt, answers: &[&'a str]) -> Vec<Exchange<'a>> {
    answers.iter().map(|answer| Exchange { prompt, answer }).collect()
}

#[cfg(unix)]
#[test]
fn a_program_scores() {
    // The length of each line.
    let program =
        ProgramReward::start("while read -r line; do echo \"{\\\"reward\\\": ${#line}}\"; done")
            .unwrap();
    let reward = TextReward::new(program);
    let prompt = Prompt::Messages(vec![Message::new("user", "a \"b\"")]);
    let found = reward.score(&exchanges(&prompt, &["x", "xyz"])).unwrap();
    assert_eq!(found[1] - found[0], 4.0, "response and text are each two longer: {found:?}");
    // More than a pipe holds, answered while it is written.
    let long = "y".repeat(2000);
    let many: Vec<&str> = vec![&long; 300];
    assert_eq!(reward.score(&exchanges(&prompt, &many)).unwrap().len(), 300);
    assert_eq!(reward.score(&exchanges(&prompt, &["x"])).unwrap().len(), 1);
}

/// `chat` ends with the answer, `closed` with what the template writes after it. Without a template, both are refused.
#[test]
fn chats_are_open_or_closed() {
    let (_folder, policy) = load(&Tiny::default());
    let own = tempfile::tempdir().unwrap();
    Tiny { seed: 5, labels: Some(1), ..Tiny::default() }.write(own.path());
    let template = "{% for m in messages %}{{ 'w30 ' if m.role == 'user' else 'w31 ' }}{{ m.content }} w32 \
                    {% endfor %}{{ 'w31 ' if add_generation_prompt }}";
    let config = json!({ "chat_template": template }).to_string();
    std::fs::write(own.path().join("tokenizer_config.json"), config).unwrap();
    let own = Checkpoint::load(own.path(), Dtype::F32).unwrap();
    let whole = |text: &str| own.tokens(text, stackelberg_engine::reward::TextFormat::Raw).unwrap();
    let (open, closed) = (whole("w30 w4 w5 w32 w31 w6 w7"), whole("w30 w4 w5 w32 w31 w6 w7 w32"));
    let model = RewardModel::new(own, (0..tiny::D).map(|i| i as f32 - 7.0).collect()).unwrap();
    let model = Reward::Model(Box::new(model));
    let expected = [open, closed].map(|tokens| model.of_tokens(&policy, &tokens).unwrap());
    let Reward::Model(model) = model else { unreachable!() };
    let prompt = Prompt::Messages(vec![Message::new("user", "w4 w5")]);
    let mut reward = TextReward::new(ForeignModel::of(*model));
    for (format, expected) in [RewardFormat::Chat, RewardFormat::Closed].into_iter().zip(expected) {
        reward = reward.with_format(format).unwrap();
        assert_eq!(reward.score(&exchanges(&prompt, &["w6 w7"])).unwrap(), [expected], "{format}");
    }
    let refused = |format| {
        let program = TextReward::new(ProgramReward::start("cat").unwrap());
        program.with_format(format).err().unwrap().to_string()
    };
    let closed = refused(RewardFormat::Closed);
    assert!(
        closed.contains("closed text, as it has no chat template: it reads raw, hh, answer"),
        "{closed}"
    );
    assert!(refused(RewardFormat::Pair).contains("for classifiers over an encoder"));
}

#[cfg(unix)]
#[test]
fn a_program_that_fails_is_named() {
    let prompt = Prompt::Text("a".to_owned());
    let refused = |command: &str| {
        let program = ProgramReward::start(command).unwrap().with_patience(Duration::from_millis(300));
        program.score(&exchanges(&prompt, &["x", "y"]), RewardFormat::Hh).unwrap_err().to_string()
    };
    assert!(
        refused("exit 3").contains("the program 'exit 3' ended (exit status: 3) before it had scored")
    );
    assert!(
        refused("echo nonsense; cat")
            .contains("wrote 'nonsense' where a number or {\"reward\": number}")
    );
    assert!(refused("echo 1; echo NaN; cat").contains("wrote 'NaN'"));
    let began = Instant::now();
    assert!(refused("sleep 30").contains("gave no reward within 0.3 s: does it flush its output?"));
    assert!(began.elapsed() < Duration::from_secs(10));
}

/// A server that answers each request by `reply` (status, body) and records the requests.
fn server(
    reply: impl Fn(usize, &Value) -> (u16, String) + Send + 'static,
) -> (String, Arc<Mutex<Vec<Value>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let kept = seen.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let (mut length, mut line) = (0, String::new());
            while reader.read_line(&mut line).unwrap_or(0) > 2 {
                if let Some(n) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = n.trim().parse().unwrap();
                }
                line.clear();
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            let body: Value = serde_json::from_slice(&body).unwrap();
            let number = kept.lock().unwrap().len();
            kept.lock().unwrap().push(body.clone());
            let (status, text) = reply(number, &body);
            let head = format!(
                "HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                text.len()
            );
            let _ = stream.write_all((head + &text).as_bytes());
        }
    });
    (address, seen)
}

fn http(address: &str) -> TextReward {
    TextReward::new(HttpReward::new(address, Duration::from_secs(5)).unwrap())
}

#[test]
fn each_protocol_is_spoken() {
    let prompt = Prompt::Text("why?".to_owned());
    let ask = |path: &str, reply: Value| {
        let (address, seen) = server(move |_, _| (200, reply.to_string()));
        let found = http(&format!("{address}{path}")).score(&exchanges(&prompt, &["a", "bb"]));
        let sent = seen.lock().unwrap()[0].clone();
        (found.map_err(|e| e.to_string()), sent)
    };
    let laid_out = json!(["\n\nHuman: why?\n\nAssistant: a", "\n\nHuman: why?\n\nAssistant: bb"]);
    // In any order.
    let scores = json!({"data": [{"index": 1, "score": 2.0}, {"index": 0, "score": 1.0}]});
    let (found, sent) = ask("/score?model=m", scores);
    assert_eq!(found.unwrap(), [1.0, 2.0]);
    assert_eq!(sent, json!({"model": "m", "text_1": ["why?", "why?"], "text_2": ["a", "bb"]}));
    let (found, sent) = ask("/pooling", json!({"data": [{"data": [[0.0], [3.0]]}, {"data": [4.5]}]}));
    assert_eq!((found.unwrap(), sent), (vec![3.0, 4.5], json!({"input": laid_out.clone()})));
    let two = json!({"data": [{"label": "good", "probs": [0.25, 0.75]}, {"label": "bad", "probs": [0.9, 0.1]}]});
    assert_eq!(ask("/classify#good", two.clone()).0.unwrap(), [0.75, 1.0 - 0.9]);
    assert_eq!(ask("/classify#0", two.clone()).0.unwrap(), [0.25, 0.9]);
    assert!(
        ask("/classify", two).0.unwrap_err().contains("tells 2 labels apart: choose one by its number")
    );
    let labels = |a: f64| json!([{"label": "good", "score": a}, {"label": "bad", "score": -a}]);
    let (found, sent) = ask("/predict#bad", json!([labels(1.5), labels(-2.0)]));
    assert_eq!(found.unwrap(), [-1.5, 2.0]);
    assert_eq!(sent["inputs"], json!([[laid_out[0]], [laid_out[1]]]));
    let error = ask("/predict#odd", json!([labels(1.0), labels(1.0)])).0.unwrap_err();
    assert!(error.contains("knows the labels good, bad: choose one, behind a '#'"), "{error}");
    let (found, sent) = ask("/rerank", json!([{"index": 1, "score": 0.5}, {"index": 0, "score": -0.5}]));
    assert_eq!(found.unwrap(), [-0.5, 0.5]);
    assert_eq!((&sent["query"], &sent["texts"]), (&json!("why?"), &json!(["a", "bb"])));
}

#[test]
fn servers_that_fail_are_asked_again_and_then_named() {
    let prompt = Prompt::Text("why?".to_owned());
    let good = || json!({"data": [{"index": 0, "score": 1.0}]}).to_string();
    let (address, seen) = server(move |number, _| match number {
        0 => (503, "busy".to_owned()),
        1 => (429, String::new()),
        _ => (200, good()),
    });
    assert_eq!(http(&format!("{address}/score")).score(&exchanges(&prompt, &["a"])).unwrap(), [1.0]);
    assert_eq!(seen.lock().unwrap().len(), 3);

    let refused = |status: u16, body: &'static str| {
        let (address, seen) = server(move |_, _| (status, body.to_owned()));
        let error = http(&format!("{address}/score")).score(&exchanges(&prompt, &["a"])).unwrap_err();
        let tries = seen.lock().unwrap().len();
        (error.to_string().replace(&address, "S"), tries)
    };
    let (error, tries) = refused(401, "no key");
    assert!(error.starts_with("S/score: 401 Unauthorized: no key") && tries == 1, "{error}");
    let (error, tries) = refused(200, "<html>");
    assert!(error == "S/score: answered '<html>' where JSON is expected" && tries == 1, "{error}");
    assert!(refused(200, "{\"data\": []}").0.contains("where a list of 1 scores is expected"));
    assert!(
        refused(200, "{\"data\": [{\"score\": null}]}").0.contains("where a finite score is expected")
    );
    assert!(refused(200, "{\"data\": [{\"index\": 7, \"score\": 1.0}]}").0.contains("an index below 1"));
    let error =
        HttpReward::new("http://localhost/embed", Duration::from_secs(1)).err().unwrap().to_string();
    assert!(error.contains("the address must end with one of /classify, /score,"), "{error}");
}
