//! Datasets of rollouts of a tiny model: complete, interrupted, split and corrupt ones.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::OnceLock;

use serde_json::json;
use stackelberg_decoding::{Sampling, Settings};
use stackelberg_engine::reward::{Head, TextFormat};
use stackelberg_engine::{Checkpoint, Dtype, Reward};
use stackelberg_learning::Error;
use stackelberg_learning::rollouts::{
    Dataset, Identity, Manifest, Part, Progress, Prompt, Prompts, Shaper, collect, settings,
};
use stackelberg_shaping::{Rule, Shaping};

use crate::tiny::{D, Tiny};

/// A policy, and a head and a reward model for it.
fn parts() -> &'static (Checkpoint, [Reward; 2]) {
    static PARTS: OnceLock<(Checkpoint, [Reward; 2])> = OnceLock::new();
    PARTS.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        Tiny { last_word: "stop", ..Tiny::default() }.write(&at("policy"));
        Tiny { seed: 5, labels: Some(1), last_word: "stop", ..Tiny::default() }.write(&at("reward"));
        let policy = Checkpoint::load(&at("policy"), Dtype::F32).unwrap();
        let head = Head::new((0..D).map(|i| (i as f32 * 2.3).sin()).collect());
        let model = Reward::load(&at("reward"), &policy, Dtype::F32).unwrap();
        (policy, [Reward::Head(std::sync::Arc::new(head)), model])
    })
}

fn prompts() -> Vec<Prompt> {
    let prompt = |i: u32| {
        let tokens: Vec<u32> = (0..1 + i % 5).map(|j| 4 + (7 * i + j) % 30).collect();
        let text: Vec<String> = tokens.iter().map(|t| format!("w{t}")).collect();
        let asked = Some(stackelberg_engine::Prompt::Text(text.join(" ")));
        Prompt { id: format!("p{i}"), text: text.join(" "), tokens, asked }
    };
    (0..11).map(prompt).collect()
}

fn drawing() -> Settings {
    let sampling = Sampling { temperature: 0.7, top_p: 0.9, ..Sampling::default() };
    let stop = vec!["stop".to_owned()];
    Settings { samples: 4, max_new_tokens: 9, sampling, seed: 3, stop, ..Settings::default() }
}

fn manifest(settings_of: &Settings) -> Manifest {
    let prompts = prompts();
    Manifest {
        format: Manifest::FORMAT.to_owned(),
        version: "0".to_owned(),
        model: Identity { name: "tiny".to_owned(), hash: parts().0.fingerprint.clone() },
        reward: Some(Identity { name: "head".to_owned(), hash: "h".to_owned() }),
        hidden: Some(D),
        samples: Some(settings_of.samples),
        settings: settings(settings_of, TextFormat::Raw, None),
        prompts_per_shard: 3,
        prompts: Prompts::new(prompts.iter().map(|p| (p.id.as_str(), p.text.as_str()))),
    }
}

/// Fills a folder.
fn fill(
    folder: &Path,
    part: &str,
    at_once: usize,
    progress: &mut dyn Progress,
) -> Result<Dataset, Error> {
    let dataset = Dataset::create(folder, manifest(&drawing()))?;
    let (policy, rewards) = parts();
    let how = (part.parse::<Part>().unwrap(), at_once);
    collect(&dataset, policy, Some(&rewards[0]), &prompts(), &drawing(), how, progress)?;
    Ok(dataset)
}

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let read = |entry: std::io::Result<fs::DirEntry>| {
        let path = entry.unwrap().path();
        (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(path).unwrap())
    };
    fs::read_dir(folder).unwrap().map(read).collect()
}

/// A finished dataset's files.
fn whole() -> &'static BTreeMap<String, Vec<u8>> {
    static WHOLE: OnceLock<BTreeMap<String, Vec<u8>>> = OnceLock::new();
    WHOLE.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        fill(folder.path(), "0/1", 6, &mut ()).unwrap();
        files(folder.path())
    })
}

/// Rows, rewards and hidden states equal those of a separate forward pass over each text.
#[test]
fn samples_are_what_they_say() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = fill(folder.path(), "0/1", 6, &mut ()).unwrap();
    let ((policy, rewards), prompts) = (parts(), prompts());
    let (mut seen, mut cut) = (0, 0);
    for shard in dataset.iter() {
        let shard = shard.unwrap();
        let hidden = shard.hidden().unwrap();
        for (i, row) in shard.rows.iter().enumerate() {
            let prompt = &prompts[seen / 4];
            assert_eq!((&row.prompt_id, &row.prompt), (&prompt.id, &prompt.text));
            assert_eq!((row.sample as usize, row.seed), (seen % 4, 3));
            assert!(!row.response.contains("stop"));
            let text = [&prompt.tokens[..], &row.tokens].concat();
            let reward = rewards[0].of_tokens(policy, &text).unwrap();
            assert_eq!(row.reward, Some(reward));
            let (_, states) = policy.model.prefill(&text).unwrap();
            let states: Vec<f32> = states.flatten_all().unwrap().to_vec1().unwrap();
            let expected: Vec<half::f16> =
                states[prompt.tokens.len() * D..].iter().map(|&x| half::f16::from_f32(x)).collect();
            assert_eq!(hidden.of(i), expected);
            match row.finish_reason.as_str() {
                "length" => assert_eq!(row.tokens.len(), 9),
                _ => cut += 1,
            }
            seen += 1;
        }
    }
    assert_eq!(seen, 44);
    assert!(cut > 0 && cut < 44);
    let summary = dataset.check(&mut || ()).unwrap();
    assert_eq!((summary.prompts, summary.samples, summary.finished), (11, 44, cut));
}

/// The files do not depend on the batch size and on the split over machines.
#[test]
fn batches_and_parts_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path(), "0/1", 1, &mut ()).unwrap();
    assert_eq!(files(folder.path()), *whole());
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let dataset = fill(here.path(), "1/3", 3, &mut ()).unwrap();
    fill(here.path(), "0/3", 50, &mut ()).unwrap();
    let other = fill(there.path(), "2/3", 2, &mut ()).unwrap();
    let said = dataset.check(&mut || ()).unwrap_err().to_string();
    assert!(said.contains("1 of 4 shards are not there yet, the first is number 2"), "{said}");
    assert_eq!(dataset.take(&other).unwrap(), 1);
    assert_eq!(files(here.path()), *whole());
}

/// Stops after this number of tokens.
struct After(usize);

impl Progress for After {
    fn token(&mut self) {
        self.0 = self.0.saturating_sub(1);
    }

    fn stop(&self) -> bool {
        self.0 == 0
    }
}

#[test]
fn a_stopped_run_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    const LEFT: &str = ".rollouts-00001.parquet-x.partial";
    let mut lost = vec!["hidden-00001.safetensors", "rollouts-00000.parquet"];
    let mut runs = 0;
    let stopped = |runs: &mut usize| {
        *runs += 1;
        match fill(folder.path(), "0/1", 5, &mut After(150)) {
            Err(Error::Decoding(stackelberg_decoding::Error::Stopped)) => true,
            outcome => outcome.map(|_| false).unwrap(),
        }
    };
    while stopped(&mut runs) {
        // A temporary file of a killed process, and a shard without rows or hidden states.
        fs::write(folder.path().join(LEFT), "half").unwrap();
        if let Some(name) = lost.pop_if(|name| folder.path().join(name).exists()) {
            fs::remove_file(folder.path().join(name)).unwrap();
        }
        assert!(runs < 50);
    }
    assert!(runs > 3 && lost.is_empty());
    let mut found = files(folder.path());
    found.remove(LEFT);
    assert_eq!(found, *whole());
}

/// A resumed run and a merge keep shaped rewards.
#[test]
fn shaped_shards_are_shards() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let dataset = fill(here.path(), "0/1", 6, &mut ()).unwrap();
    let shaper = Shaper::new(Shaping::default(), None, Some(0.9)).unwrap();
    let rewards = shaper.read(&dataset, &mut || ()).unwrap();
    assert_eq!((rewards.len(), rewards[0].1.len()), (11, 4));
    assert_eq!(files(here.path()), *whole(), "reading writes nothing");
    shaper.write(&dataset, &mut || ()).unwrap();
    let shaped = files(here.path());
    for (name, bytes) in whole() {
        assert_eq!(*bytes != shaped[name], name.ends_with(".parquet"), "{name}");
    }
    let dataset = fill(here.path(), "0/1", 6, &mut ()).unwrap();
    assert_eq!(files(here.path()), shaped, "nothing was missing");
    dataset.check(&mut || ()).unwrap();

    let other = Dataset::create(there.path(), manifest(&drawing())).unwrap();
    assert_eq!(other.take(&dataset).unwrap(), 4);
    assert_eq!(files(there.path()), shaped);

    // A recreated shard has no shaped rewards until it is shaped again.
    fs::remove_file(here.path().join("rollouts-00001.parquet")).unwrap();
    fill(here.path(), "0/1", 6, &mut ()).unwrap();
    let has = |shard| dataset.read(shard).unwrap().shaped(Rule::Srs).is_some();
    assert_eq!([0, 1, 2].map(has), [true, false, true]);
    shaper.write(&dataset, &mut || ()).unwrap();
    assert_eq!(files(here.path()), shaped);
}

#[test]
fn broken_shards_and_other_settings_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fill(folder.path(), "0/1", 10, &mut ()).unwrap();
    let fails = || fill(folder.path(), "0/1", 10, &mut ()).unwrap_err().to_string();
    for (name, problem) in [
        ("rollouts-00002.parquet", "not a whole Parquet file"),
        ("hidden-00001.safetensors", "bytes instead of"),
    ] {
        let bytes = fs::read(at(name)).unwrap();
        fs::write(at(name), &bytes[..bytes.len() - 9]).unwrap();
        let said = fails();
        assert!(said.contains(name) && said.contains(problem), "{said}");
        assert!(said.ends_with("delete the file and run the same rollout again to recreate it"));
        fs::remove_file(at(name)).unwrap();
        fill(folder.path(), "0/1", 10, &mut ()).unwrap();
        assert_eq!(files(folder.path()), *whole());
    }
    // The check of all files detects changed bytes.
    let name = "hidden-00000.safetensors";
    let mut bytes = fs::read(at(name)).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(at(name), bytes).unwrap();
    let said = Dataset::open(folder.path()).unwrap().check(&mut || ()).unwrap_err().to_string();
    assert!(said.contains(name) && said.contains("has changed"), "{said}");
    // A shard with the file name of another one.
    fs::copy(at("rollouts-00001.parquet"), at("rollouts-00000.parquet")).unwrap();
    assert!(fails().contains("it is shard 1 with another file name"), "{}", fails());

    let mut other = manifest(&Settings { seed: 4, ..drawing() });
    let said = Dataset::create(folder.path(), other.clone()).unwrap_err().to_string();
    assert!(said.contains("begun with settings.seed 3, this run has 4"), "{said}");
    other = manifest(&drawing());
    other.model = Identity { name: "tiny".to_owned(), hash: "another".to_owned() };
    let said = Dataset::create(folder.path(), other.clone()).unwrap_err().to_string();
    assert!(said.contains("begun with model.hash"), "{said}");
    other = Manifest { prompts: Prompts::new([]), ..manifest(&drawing()) };
    let said = Dataset::create(&at("new"), other).unwrap_err().to_string();
    assert!(said.ends_with("the dataset is empty: it has no prompts"), "{said}");
    fs::write(at("manifest.json"), json!({"format": 1}).to_string()).unwrap();
    let said = Dataset::open(folder.path()).unwrap_err().to_string();
    assert!(said.contains("manifest.json: not a manifest of rollouts: format"), "{said}");
    assert!(Dataset::open(&at("none")).unwrap_err().to_string().contains("no manifest.json"));
}

/// A prompt that cannot be sampled or scored ends the run with an error that names it.
#[test]
fn a_prompt_beyond_the_context_and_a_reward_that_is_no_number() {
    let (policy, rewards) = parts();
    let folder = tempfile::tempdir().unwrap();
    let dataset = Dataset::create(folder.path(), manifest(&drawing())).unwrap();
    let run = |reward: &Reward, prompts: &[Prompt]| {
        let error =
            collect(&dataset, policy, Some(reward), prompts, &drawing(), (Part::ALL, 4), &mut ());
        let error: Box<dyn std::error::Error> = Box::new(error.unwrap_err());
        assert_eq!(dataset.missing(), [0, 1, 2, 3]);
        format!("{error}: {}", error.source().map(ToString::to_string).unwrap_or_default())
    };
    let mut long = prompts();
    long[7].tokens = vec![5; 500];
    let said = run(&rewards[1], &long);
    assert!(said.contains("prompt p7: 501 tokens do not fit the model's context of 400"), "{said}");
    let mut weights = vec![1.0; D];
    weights[2] = f32::NAN;
    let said = run(&Reward::Head(Arc::new(Head::new(weights))), &prompts());
    assert!(said.contains("is NaN: the reward model is broken for this text"), "{said}");
}
