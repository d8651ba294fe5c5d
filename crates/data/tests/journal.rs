//! The file of answers that a run continues.

use stackelberg_data::generations::{Record, Response};
use stackelberg_data::{Identity, Journal, Prompt};

fn identity() -> Identity {
    Identity {
        method: "args".to_owned(),
        settings: serde_json::json!({"bound": 8.0}),
        seed: 0,
        reward_hash: Some("r".to_owned()),
        value_hash: Some("v".to_owned()),
        template_hash: Some("t".to_owned()),
    }
}

#[test]
fn a_run_is_continued_with_what_it_began_with() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("o.jsonl");
    let open = |identity: &Identity| {
        let error = |e: stackelberg_data::Error| e.to_string().replace(&path.display().to_string(), "F");
        Journal::open(Some(&path), true, identity).map_err(error)
    };
    let prompt = Prompt::Text("Why?".to_owned());
    let record = identity().record(Record::default());
    let line = Response { id: "a".to_owned(), prompt: prompt.clone(), text: "ab".to_owned(), record };
    open(&identity()).unwrap().write(&line).unwrap();
    let journal = open(&identity()).unwrap();
    assert!(journal.has("a", &prompt).unwrap() && !journal.has("b", &prompt).unwrap());
    let error = journal.has("a", &Prompt::Text("How?".to_owned())).unwrap_err().to_string();
    let why = "o.jsonl:1: id: 'a' answers the prompt \"Why?\", this run has \"How?\" under it: give the changed prompt";
    assert!(error.contains(why), "{error}");
    drop(journal);
    let other = Some("other".to_owned());
    for (changed, what) in [
        (Identity { reward_hash: other.clone(), ..identity() }, "reward_hash \"r\""),
        (Identity { value_hash: other.clone(), ..identity() }, "value_hash \"v\""),
        (Identity { template_hash: other, ..identity() }, "another chat template"),
    ] {
        let error = open(&changed).err().unwrap();
        assert!(error.starts_with(&format!("F:1: written with {what}")), "{error}");
    }
    // A model is told by its fingerprint: its server may have another address now.
    let served = |model: &str, fingerprint: &str| Identity {
        settings: serde_json::json!({"model": model, "model_fingerprint": fingerprint}),
        ..identity()
    };
    let moved = folder.path().join("served.jsonl");
    let record = served("http://a/v1", "m on s 1").record(Record::default());
    let line = Response { id: "a".to_owned(), prompt: prompt.clone(), text: "ab".to_owned(), record };
    let open_moved = |identity: &Identity| Journal::open(Some(&moved), true, identity);
    open_moved(&served("http://a/v1", "m on s 1")).unwrap().write(&line).unwrap();
    assert!(open_moved(&served("http://b/v1/", "m on s 1")).unwrap().has("a", &prompt).unwrap());
    let error = open_moved(&served("http://b/v1", "other on s 1")).err().unwrap().to_string();
    assert!(error.contains("written with model \"http://a/v1\""), "{error}");
    // Lines of before templates were recorded fit any.
    let old = std::fs::read_to_string(&path).unwrap().replace("\"template_hash\":\"t\",", "");
    std::fs::write(&path, old).unwrap();
    open(&Identity { template_hash: Some("u".to_owned()), ..identity() }).unwrap();
}
