//! Imports: every format, errors, and the round trip of a dataset.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde_json::{Value, json};
use stackelberg_decoding::{Sampling, Settings};
use stackelberg_engine::reward::{Head, TextFormat};
use stackelberg_engine::{Checkpoint, Dtype, Message, Prompt, Reward};
use stackelberg_learning::Error;
use stackelberg_learning::rollouts::{
    self, Dataset, Identity, Import, LayOut, Manifest, Part, Progress, Prompts, Row, Samples, collect,
    settings,
};

use crate::tiny::{D, Tiny};

/// A policy with a chat template, and a head and a reward model for it.
pub fn parts() -> &'static (Checkpoint, [Reward; 2]) {
    static PARTS: OnceLock<(Checkpoint, [Reward; 2])> = OnceLock::new();
    PARTS.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        Tiny { last_word: "stop", ..Tiny::default() }.write(&at("policy"));
        Tiny { seed: 5, labels: Some(1), last_word: "stop", ..Tiny::default() }.write(&at("reward"));
        let template =
            "{% for m in messages %}{{ 'w9 ' + m.role + ' w10 ' + m.content + ' w11 ' }}{% endfor %}w12";
        fs::write(at("policy").join("chat_template.jinja"), template).unwrap();
        let policy = Checkpoint::load(&at("policy"), Dtype::F32).unwrap();
        let head = Head::new((0..D).map(|i| (i as f32 * 2.3).sin()).collect());
        let model = Reward::load(&at("reward"), &policy, Dtype::F32).unwrap();
        (policy, [Reward::Head(std::sync::Arc::new(head)), model])
    })
}

pub const RAW: LayOut<'_> =
    LayOut { asked: None, otherwise: TextFormat::Raw, system: None, context: Some(400) };

/// A dataset with samples of the policy.
fn rollout(folder: &Path) -> Dataset {
    let (policy, rewards) = parts();
    let prompt = |i: u32| {
        let tokens: Vec<u32> = (0..1 + i % 5).map(|j| 4 + (7 * i + j) % 30).collect();
        let text: Vec<String> = tokens.iter().map(|t| format!("w{t}")).collect();
        rollouts::Prompt { id: format!("p{i}"), text: text.join(" "), tokens, asked: None }
    };
    let prompts: Vec<_> = (0..7).map(prompt).collect();
    let sampling = Sampling { temperature: 0.7, top_p: 0.9, ..Sampling::default() };
    let stop = vec!["stop".to_owned()];
    let drawing =
        Settings { samples: 4, max_new_tokens: 9, sampling, seed: 3, stop, ..Settings::default() };
    let manifest = Manifest {
        format: Manifest::FORMAT.to_owned(),
        version: "0".to_owned(),
        model: Identity { name: "tiny".to_owned(), hash: policy.fingerprint.clone() },
        reward: Some(Identity { name: "head".to_owned(), hash: "h".to_owned() }),
        hidden: Some(D),
        samples: Some(4),
        settings: settings(&drawing, TextFormat::Raw, None),
        prompts_per_shard: 3,
        prompts: Prompts::new(prompts.iter().map(|p| (p.id.as_str(), p.text.as_str()))),
    };
    let dataset = Dataset::create(folder, manifest).unwrap();
    collect(&dataset, policy, Some(&rewards[0]), &prompts, &drawing, (Part::ALL, 6), &mut ()).unwrap();
    dataset
}

fn shards(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|e| e == "parquet"));
    files.sort();
    files
}

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let read = |entry: std::io::Result<fs::DirEntry>| {
        let path = entry.unwrap().path();
        (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(path).unwrap())
    };
    fs::read_dir(folder).unwrap().map(read).collect()
}

fn model() -> Identity {
    Identity { name: "tiny".to_owned(), hash: parts().0.fingerprint.clone() }
}

/// Imports samples into a folder with the tiny policy and the rewards of the files.
fn fill(
    folder: &Path,
    samples: &Samples,
    at_once: usize,
    progress: &mut dyn Progress,
) -> Result<Dataset, Error> {
    let import = Import::new(samples, Some(&parts().0), &RAW)?;
    let manifest = import.manifest(model(), samples.rewards()?, Some(D), 3, None);
    let dataset = Dataset::create(folder, manifest)?;
    import.fill(&dataset, Some(&parts().0), None, at_once, progress)?;
    Ok(dataset)
}

/// Rows and hidden states.
fn all(dataset: &Dataset) -> (Vec<Row>, Vec<u8>) {
    let (mut rows, mut hidden) = (Vec::new(), Vec::new());
    for shard in dataset.iter() {
        let shard = shard.unwrap();
        if dataset.manifest().hidden.is_some() {
            hidden.extend(shard.hidden().unwrap().states.iter().flat_map(|x| x.to_le_bytes()));
        }
        rows.extend(shard.rows);
    }
    (rows, hidden)
}

/// Stops after this number of prompts.
struct After(usize);

impl Progress for After {
    fn prompt(&mut self) {
        self.0 = self.0.saturating_sub(1);
    }

    fn stop(&self) -> bool {
        self.0 == 0
    }
}

/// The round trip of a dataset is exact for any batch size, also when it is interrupted.
#[test]
fn there_and_back() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let was = rollout(from.path());
    let samples = Samples::read(&shards(from.path()), &[], true).unwrap();
    assert_eq!((samples.prompts(), samples.count(), samples.repeated()), (7, 28, 0));
    let is = fill(to.path(), &samples, 6, &mut ()).unwrap();
    let ((mut rows, hidden), (read, states)) = (all(&was), all(&is));
    rows.iter_mut().for_each(|row| row.seed = 0);
    assert_eq!((rows, hidden), (read, states));
    let manifest = is.manifest();
    assert_eq!((manifest.samples, &manifest.settings["prompt_format"]), (Some(4), &json!("raw")));
    assert_eq!(manifest.settings["imported"], true);

    for at_once in [1, 100] {
        let other = tempfile::tempdir().unwrap();
        fill(other.path(), &samples, at_once, &mut ()).unwrap();
        assert_eq!(files(other.path()), files(to.path()));
    }
    let other = tempfile::tempdir().unwrap();
    for prompts in [4, 3] {
        let stopped = fill(other.path(), &samples, 1, &mut After(prompts)).unwrap_err();
        assert!(matches!(stopped, Error::Decoding(stackelberg_decoding::Error::Stopped)));
    }
    fill(other.path(), &samples, 5, &mut ()).unwrap();
    assert_eq!(files(other.path()), files(to.path()));

    // Rewards are computed again: those of the head are unchanged, those of the reward model equal its rewards of
    // complete texts.
    let (policy, rewards) = parts();
    let import = Import::new(&samples, Some(policy), &RAW).unwrap();
    for (i, reward) in rewards.iter().enumerate() {
        let again = tempfile::tempdir().unwrap();
        let identity = Identity { name: "r".to_owned(), hash: i.to_string() };
        let manifest = import.manifest(model(), Some(identity), None, 2, None);
        let dataset = Dataset::create(again.path(), manifest).unwrap();
        import.fill(&dataset, Some(policy), Some(reward), 5, &mut ()).unwrap();
        for (scored, row) in all(&dataset).0.iter().zip(all(&was).0) {
            let text = [&policy.tokens(&row.prompt, TextFormat::Raw).unwrap()[..], &row.tokens].concat();
            assert_eq!(scored.reward, Some(reward.of_tokens(policy, &text).unwrap()));
            assert!(i == 1 || scored.reward == row.reward);
        }
    }

    // A subset of the samples is a different dataset.
    let fewer = Samples::read(&shards(from.path())[..2], &[], true).unwrap();
    let said = fill(to.path(), &fewer, 6, &mut ()).unwrap_err().to_string();
    assert!(said.contains("begun with prompts.hash"), "{said}");
}

/// Writes a file and reads it.
pub fn read_with(prompts: &[(String, Prompt)], name: &str, text: &str) -> Result<Samples, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, text).unwrap();
    let prefix = format!("{}/", folder.path().display());
    Samples::read(&[path], prompts, true).map_err(|e| e.to_string().replace(&prefix, ""))
}

pub fn read(text: &str) -> Result<Samples, String> {
    read_with(&[], "f", text)
}

fn rows_of(samples: &Samples, lay_out: &LayOut<'_>) -> Vec<Row> {
    let folder = tempfile::tempdir().unwrap();
    let import = Import::new(samples, Some(&parts().0), lay_out).unwrap();
    let manifest = import.manifest(model(), samples.rewards().unwrap(), None, 16, None);
    let dataset = Dataset::create(folder.path(), manifest).unwrap();
    import.fill(&dataset, None, None, 3, &mut ()).unwrap();
    all(&dataset).0
}

/// Id, prompt, response, tokens, reward and finish reason of the rows.
fn told(rows: &[Row]) -> Vec<Value> {
    let row = |r: &Row| json!([r.prompt_id, r.prompt, r.response, r.tokens, r.reward, r.finish_reason]);
    rows.iter().map(row).collect()
}

#[test]
fn formats() {
    let rows = |text: &str| told(&rows_of(&read(text).unwrap(), &RAW));
    // Samples with equal ids, with equal prompts, with and without tokens, empty, cut at the length limit.
    let lines = [
        json!({"prompt_id": "a", "prompt": "w5", "response": "w6 w7", "reward": 1, "other": [{}]}),
        json!({"id": 7, "instruction": "w8", "completion": "", "score": -0.5, "finish_reason": "eos"}),
        json!({"prompt_id": "a", "prompt": "w5", "output": "w6", "reward": 2, "finish_reason": "MAX_TOKENS",
               "tokens": 1}),
    ];
    let text: String = lines.iter().map(|line| format!("{line}\n\n")).collect();
    let expected = [
        json!(["a", "w5", "w6 w7", [6, 7], 1.0, "stop"]),
        json!(["a", "w5", "w6", [6], 2.0, "length"]),
        json!(["7", "w8", "", [], -0.5, "stop"]),
    ];
    assert_eq!(rows(&text), expected);
    assert_eq!(rows(&json!(lines).to_string()), expected);

    // Prompts with several samples; the id of a prompt without one is derived from its text.
    let line = r#"{"prompt": "w5", "responses": ["w6", "w7"], "rewards": [1, 0.5]}"#;
    let found = rows(&format!("{line}\n{{\"prompt\": \"w5\", \"text\": \"w8\", \"reward\": 3}}"));
    let id = found[0][0].as_str().unwrap();
    assert_eq!(id.len(), 12);
    let sample = |text: &str, token: u32, reward: f64| json!([id, "w5", text, [token], reward, "stop"]);
    assert_eq!(found, [sample("w6", 6, 1.0), sample("w7", 7, 0.5), sample("w8", 8, 3.0)]);

    // vLLM: one prompt in two requests; the final EOS and tokens after a stop text are removed.
    let request = |id: &str, outputs: Value, rewards: Value| {
        json!({"request_id": id, "prompt": "w5 w9", "prompt_token_ids": [5, 9], "finished": true,
               "outputs": outputs, "rewards": rewards})
        .to_string()
    };
    let outputs = json!([
        {"index": 0, "text": "w6", "token_ids": [6, 2], "finish_reason": "stop", "reward": 4},
        {"index": 1, "text": "w6 w7", "token_ids": [6, 7], "finish_reason": "length", "reward": 5},
    ]);
    let cut = json!([{"index": 0, "text": "w6", "token_ids": [6, 39, 7], "finish_reason": "stop"}]);
    let text = format!("{}\n{}", request("0", outputs, Value::Null), request("1", cut, json!([6])));
    let samples = read(&text).unwrap();
    assert_eq!((samples.prompts(), samples.count()), (1, 3));
    let import = Import::new(&samples, Some(&parts().0), &RAW).unwrap();
    assert_eq!((import.tokenised, import.replaced, import.format), (0, 0, Some(TextFormat::Raw)));
    let found: Vec<Value> = rows(&text).iter().map(|row| row.as_array().unwrap()[2..].into()).collect();
    let expected = [
        json!(["w6", [6], 4.0, "stop"]),
        json!(["w6 w7", [6, 7], 5.0, "length"]),
        json!(["w6", [6], 6.0, "stop"]),
    ];
    assert_eq!(found, expected);

    // Tokens of another tokenizer.
    let text = r#"{"prompt": "w5", "response": "w6", "token_ids": [1, 7000], "reward": 0}
{"prompt": "w5", "response": "w6", "token_ids": [7], "reward": 0}
{"prompt": "w5", "response": "w6", "reward": 0}"#;
    let samples = read(text).unwrap();
    let import = Import::new(&samples, Some(&parts().0), &RAW).unwrap();
    assert_eq!((import.tokenised, import.replaced), (1, 2));
    assert!(rows(text).iter().all(|row| row[3] == json!([6])));
}

#[test]
fn openai_and_prompts_elsewhere() {
    let prompts = [
        ("a".to_owned(), Prompt::Text("w5".to_owned())),
        ("chatcmpl-1".to_owned(), Prompt::Messages(vec![Message::new("user", "w8")])),
    ];
    let text = [
        json!({"id": "batch_1", "custom_id": "a", "error": null, "reward": 1, "response": {"status_code": 200,
               "body": {"id": "chatcmpl-9", "choices": [
                   {"index": 0, "message": {"role": "assistant", "content": "w6"}, "finish_reason": "stop"}]}}}),
        json!({"id": "chatcmpl-1", "choices": [{"message": {"content": null}, "finish_reason": "tool_calls"},
               {"message": {"content": "w7 w6"}, "finish_reason": "length"}], "rewards": [2, 3]}),
        json!({"id": "cmpl-2", "prompt_id": "a", "choices": [{"text": "w9", "reward": 4}]}),
        json!({"id": "cmpl-3", "prompt": "w5", "choices": [{"text": "w9", "reward": 5}]}),
        json!({"id": "cmpl-4", "prompt": "w5", "choices": [{"text": "w10", "reward": 6}]}),
    ]
    .map(|line| line.to_string())
    .join("\n");
    let samples = read_with(&prompts, "f", &text).unwrap();
    assert_eq!((samples.prompts(), samples.count(), samples.repeated()), (3, 6, 1));
    let found = told(&rows_of(&samples, &RAW));
    assert_eq!(found[0], json!(["a", "w5", "w6", [6], 1.0, "stop"]));
    assert_eq!(found[1], json!(["a", "w5", "w9", [9], 4.0, "stop"]));
    let asked = "\n\nHuman: w8\n\nAssistant:";
    assert_eq!(found[2], json!(["chatcmpl-1", asked, "", [], 2.0, "stop"]));
    assert_eq!(found[3], json!(["chatcmpl-1", asked, "w7 w6", [7, 6], 3.0, "length"]));
    assert_eq!((&found[4][2], &found[5][2]), (&json!("w9"), &json!("w10")));
    assert_eq!(found[4][0], found[5][0]);
}

/// Parquet files of pandas and polars: dictionaries, f32, lists, structs, snappy and zstd.
#[test]
fn tables() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let rows = |name: &str| {
        let samples = Samples::read(&[data.join(name)], &[], true).unwrap();
        told(&rows_of(&samples, &RAW))
    };
    let expected = [
        json!(["a", "w5", "w6 w7", [6, 7], 1.0, "stop"]),
        json!(["a", "w5", "w6", [6], 2.5, "stop"]),
        json!(["b", "w8", "", [], -1.0, "length"]),
    ];
    assert_eq!(rows("pandas.parquet"), expected);
    let found: Vec<Value> =
        rows("polars.parquet").iter().map(|row| row.as_array().unwrap()[1..5].into()).collect();
    let asked = |token: u32| format!("\n\nHuman: w{token}\n\nAssistant:");
    let expected = [
        json!([asked(5), "w6", [6], 1.0]),
        json!([asked(5), "w7", [7], 2.0]),
        json!([asked(8), "w9", [9], 3.0]),
    ];
    assert_eq!(found, expected);
}

/// The format of a prompt depends on its source and on the requested format.
#[test]
fn layouts() {
    let policy = &parts().0;
    let chat = |system: &str, words: &str| format!("{system}w9 user w10 {words} w11 w12");
    let words = r#"{"prompt": "w5", "response": "w6", "reward": 1}"#;
    let generated = r#"{"prompt": "w5", "response": "w6", "reward": 1,
                        "settings": {"prompt_format": "chat", "system": "w7"}}"#
        .replace('\n', "");
    let vllm = |prompt: &str| {
        let outputs = json!([{"text": "w6", "token_ids": [6]}]);
        json!({"prompt": prompt, "outputs": outputs, "reward": 1}).to_string()
    };
    let (raw, laid) = (Some(TextFormat::Raw), Some(TextFormat::Chat));
    for (line, asked, otherwise, expected) in [
        (words.to_owned(), None, TextFormat::Raw, (raw, "w5".to_owned())),
        (words.to_owned(), None, TextFormat::Chat, (laid, chat("", "w5"))),
        (words.to_owned(), raw, TextFormat::Chat, (raw, "w5".to_owned())),
        (generated.clone(), None, TextFormat::Raw, (laid, chat("w9 system w10 w7 w11 ", "w5"))),
        (generated, raw, TextFormat::Chat, (raw, "w7\n\nw5".to_owned())),
        (vllm("w5"), None, TextFormat::Chat, (raw, "w5".to_owned())),
        (vllm(&chat("", "w5")), None, TextFormat::Raw, (laid, chat("", "w5"))),
        (vllm("w5"), laid, TextFormat::Raw, (laid, chat("", "w5"))),
    ] {
        let lay_out = LayOut { asked, otherwise, ..RAW };
        let import = Import::new(&read(&line).unwrap(), Some(policy), &lay_out).unwrap();
        assert_eq!((import.format, import.prompts[0].text.clone()), expected, "{line}");
        let tokens = policy.tokens(&expected.1, TextFormat::Raw).unwrap();
        assert_eq!(import.prompts[0].tokens, tokens);
    }
    let both = format!("{}\n{words}", vllm(&chat("", "w8")));
    let said = Import::new(&read(&both).unwrap(), Some(policy), &RAW).unwrap_err().to_string();
    assert!(
        said.contains("has format raw") && said.contains("has format chat: a dataset has one"),
        "{said}"
    );

    // Without a model prompts are not formatted, and a second import recognises that.
    let (plain, folder) = (read(words).unwrap(), tempfile::tempdir().unwrap());
    let import = Import::new(&plain, None, &RAW).unwrap();
    let nobody = Identity { name: "elsewhere".to_owned(), hash: String::new() };
    let manifest = import.manifest(nobody, plain.rewards().unwrap(), None, 1, None);
    let dataset = Dataset::create(folder.path(), manifest).unwrap();
    import.fill(&dataset, None, None, 1, &mut ()).unwrap();
    assert_eq!(dataset.check(&mut || ()).unwrap().rewards, (1.0, 1));
    assert!(all(&dataset).0[0].tokens.is_empty());
    let again = Samples::read(&shards(folder.path()), &[], true).unwrap();
    let lay_out = LayOut { otherwise: TextFormat::Chat, ..RAW };
    let import = Import::new(&again, Some(policy), &lay_out).unwrap();
    assert_eq!((import.prompts[0].text.clone(), import.tokenised), (chat("", "w5"), 1));
}
