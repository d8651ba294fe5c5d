//! Value heads, trained on synthetic hidden states with a known relation to the rewards.

use std::fs;
use std::path::Path;

use candle_core::{Device, Tensor};
use half::f16;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;
use serde_json::json;
use stackelberg_engine::reward::ValueHead;
use stackelberg_learning::Error;
use stackelberg_learning::rollouts::{Dataset, Hidden, Identity, Manifest, Prompts, Row};
use stackelberg_learning::value::{About, Counts, Epoch, Outcome, Settings, Watch, save, train};
use stackelberg_shaping::{Rule, Shaping};

const D: usize = 6;
const SAMPLES: usize = 5;

fn manifest(prompts: usize) -> Manifest {
    let ids: Vec<String> = (0..prompts).map(|i| format!("p{i}")).collect();
    let settings = json!({"prompt_format": "chat"});
    Manifest {
        format: Manifest::FORMAT.to_owned(),
        version: "0".to_owned(),
        model: Identity { name: "tiny".to_owned(), hash: "m".to_owned() },
        reward: Some(Identity { name: "head".to_owned(), hash: "h".to_owned() }),
        hidden: Some(D),
        samples: Some(SAMPLES),
        settings: settings.as_object().unwrap().clone(),
        prompts_per_shard: 4,
        prompts: Prompts::new(ids.iter().map(|id| (id.as_str(), id.as_str()))),
    }
}

/// The reward is 2 h[0] - h[1] of the last token; before it, h[0] and h[1] grow linearly to their last values. Every
/// seventh sample has no tokens.
fn made_up(folder: &Path, manifest: Manifest, reward: impl Fn(f32, f32) -> f64) -> Dataset {
    let dataset = Dataset::create(folder, manifest).unwrap();
    let manifest = dataset.manifest();
    let mut rng = ChaCha12Rng::seed_from_u64(5);
    for shard in 0..manifest.shards() {
        let mut rows = Vec::new();
        let mut hidden = Hidden::new(manifest.hidden.unwrap_or(1));
        for prompt in manifest.prompts_of(shard) {
            for sample in 0..SAMPLES {
                let mut uniform = || rng.random_range(-1.0..1.0f32);
                let (a, b) = (uniform(), uniform());
                let empty = (SAMPLES * prompt + sample).is_multiple_of(7);
                let tokens = if empty { 0 } else { 1 + (prompt + 3 * sample) % 9 };
                for t in 0..tokens {
                    let share = (t + 1) as f32 / tokens as f32;
                    let noise: Vec<f32> = (2..D).map(|_| uniform()).collect();
                    let state = [share * a, share * b].into_iter().chain(noise);
                    hidden.states.extend(state.map(f16::from_f32));
                }
                hidden.offsets.push(hidden.states.len() / D);
                rows.push(Row {
                    prompt_id: manifest.prompts.ids[prompt].clone(),
                    sample: sample as u32,
                    prompt: manifest.prompts.ids[prompt].clone(),
                    response: String::new(),
                    tokens: vec![1; tokens],
                    reward: manifest.reward.as_ref().map(|_| reward(a, b)),
                    finish_reason: if sample == 0 { "stop" } else { "length" }.to_owned(),
                    seed: 0,
                });
            }
        }
        dataset.write(shard, &rows, &hidden).unwrap();
    }
    dataset
}

fn plane(a: f32, b: f32) -> f64 {
    f64::from(2.0 * a - b)
}

fn settings(rule: Rule) -> Settings {
    let shaping = Shaping { rule, strength: 1.0, bound: 2.0, alpha: 2.0, ..Shaping::default() };
    Settings {
        widths: [Some(16), Some(8)],
        learning_rate: 1e-2,
        batch: 16,
        epochs: 12,
        validation: 0.2,
        ..Settings::new(shaping)
    }
}

/// Records the callbacks, and stops after a number of steps.
#[derive(Default)]
struct Seen {
    steps: usize,
    stop_at: Option<usize>,
    counts: Counts,
    epochs: Vec<Epoch>,
    resumed: usize,
    samples: Vec<usize>,
}

impl Watch for Seen {
    fn begin(&mut self, counts: &Counts, done: &[Epoch]) {
        self.counts = counts.clone();
        self.resumed = done.len();
    }

    fn step(&mut self, samples: usize, _: f64) {
        self.steps += 1;
        self.samples.push(samples);
    }

    fn epoch(&mut self, _: usize, epoch: &Epoch, _: bool) {
        self.epochs.push(*epoch);
    }

    fn stop(&self) -> bool {
        self.stop_at == Some(self.steps)
    }
}

fn trained(dataset: &Dataset, settings: &Settings) -> Outcome {
    let folder = tempfile::tempdir().unwrap();
    train(dataset, settings, (&folder.path().join("c"), false), &mut ()).unwrap()
}

#[test]
fn what_can_be_learned_is() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = made_up(folder.path(), manifest(60), plane);
    for rule in [Rule::Raw, Rule::Srs, Rule::Cap, Rule::Meanstd] {
        let outcome = trained(&dataset, &settings(rule));
        let explained = outcome.explained().unwrap();
        assert!(explained.last > 0.4, "{rule}: {explained:?}");
    }
    // Raw rewards are a function of the last state. The smoothness term improves the values along the text.
    let raw = trained(&dataset, &settings(Rule::Raw)).explained().unwrap();
    let rough = Settings { coef: 0.0, ..settings(Rule::Raw) };
    let rough = trained(&dataset, &rough).explained().unwrap();
    assert!(raw.last > 0.9 && rough.last > 0.9 && raw.along > rough.along, "{raw:?} {rough:?}");
}

#[test]
fn counts_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = made_up(folder.path(), manifest(20), |a, b| if a > 0.9 { 0.0 } else { plane(a, b) });
    let mut seen = Seen::default();
    let settings = Settings { epochs: 2, ..settings(Rule::Hard) };
    let outcome = train(&dataset, &settings, (&folder.path().join("c"), false), &mut seen).unwrap();
    let Counts { training, validation, empty, all_equal, unfinished, .. } = seen.counts;
    assert_eq!((training.1, validation.1, empty, all_equal, unfinished), (16, 4, 15, 0, 0));
    assert_eq!(training.0 + validation.0 + empty, 100);
    assert_eq!(outcome.counts, seen.counts);
    assert_eq!(seen.samples.iter().max(), Some(&training.0));
    assert_eq!(outcome.epochs, seen.epochs);
}

/// A run that is stopped and resumed on one thread gives the same head, bit by bit.
#[test]
fn a_resumed_run_ends_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = made_up(folder.path(), manifest(40), plane);
    let settings = Settings { memory: 4000, epochs: 6, ..settings(Rule::Srs) };
    let whole = trained(&dataset, &settings);
    let checkpoint = folder.path().join("head.training");
    let mut seen = Seen { stop_at: Some(30), ..Seen::default() };
    let stopped = train(&dataset, &settings, (&checkpoint, false), &mut seen);
    assert!(matches!(stopped, Err(Error::Stopped)) && (1..5).contains(&seen.epochs.len()));
    let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let mut rest = Seen::default();
    let outcome = one.install(|| train(&dataset, &settings, (&checkpoint, true), &mut rest)).unwrap();
    assert_eq!(rest.resumed, seen.epochs.len());
    assert_eq!(outcome, whole);

    // Other rewards with the same prompts and settings, and fewer epochs than in the checkpoint.
    let changed =
        made_up(&folder.path().join("other"), manifest(40), |a, b| plane(a, b) + 0.1 * f64::from(a));
    let said = train(&changed, &settings, (&checkpoint, true), &mut ()).unwrap_err().to_string();
    assert!(said.contains("begun with targets"), "{said}");
    let fewer = Settings { epochs: 2, ..settings.clone() };
    let said = train(&dataset, &fewer, (&checkpoint, true), &mut ()).unwrap_err().to_string();
    assert!(said.contains("epochs is 2: it must be at least the number of finished epochs"), "{said}");

    let other = Settings { learning_rate: 2e-2, ..settings.clone() };
    let said = train(&dataset, &other, (&checkpoint, true), &mut ()).unwrap_err().to_string();
    assert!(said.contains("head.training: begun with lr 0.01, this run has 0.02"), "{said}");
    let bytes = fs::read(&checkpoint).unwrap();
    fs::write(&checkpoint, &bytes[..bytes.len() - 4]).unwrap();
    let said = train(&dataset, &settings, (&checkpoint, true), &mut ()).unwrap_err().to_string();
    assert!(said.contains("head.training: not a valid checkpoint"), "{said}");
}

/// For any memory limit, each training sample is used once per epoch.
#[test]
fn shards_are_streamed() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = made_up(folder.path(), manifest(40), plane);
    for memory in [0, 3000, 1 << 20] {
        let mut seen = Seen::default();
        let settings = Settings { memory, epochs: 1, ..settings(Rule::Raw) };
        train(&dataset, &settings, (&folder.path().join("c"), false), &mut seen).unwrap();
        assert_eq!(seen.samples.last(), Some(&seen.counts.training.0), "{memory}");
    }
}

/// Prompts of equal text are either in the training set or in the validation set.
#[test]
fn equal_prompts_stay_together() {
    let folder = tempfile::tempdir().unwrap();
    for seed in 0..6 {
        let ids: Vec<String> = (0..8).map(|i| format!("p{i}")).collect();
        let prompts = Prompts::new(ids.iter().map(|id| (id.as_str(), "text")));
        let mut dataset =
            made_up(&folder.path().join(seed.to_string()), Manifest { prompts, ..manifest(8) }, plane);
        // Half of the prompts have the same text.
        for shard in 0..dataset.manifest().shards() {
            let read = dataset.read(shard).unwrap();
            let (mut rows, hidden) = (read.rows.clone(), read.hidden().unwrap());
            rows.iter_mut()
                .filter(|row| row.prompt_id.as_str() < "p4")
                .for_each(|row| row.prompt = "same".into());
            dataset.write(shard, &rows, &hidden).unwrap();
        }
        dataset = Dataset::open(dataset.folder()).unwrap();
        let mut seen = Seen::default();
        let settings = Settings { epochs: 1, seed, validation: 0.4, ..settings(Rule::Raw) };
        train(&dataset, &settings, (&folder.path().join("c"), false), &mut seen).unwrap();
        // Two of five texts are in the validation set: with four prompts and one, or with one each.
        assert!([2, 5].contains(&seen.counts.validation.1), "{:?}", seen.counts);
    }
}

/// Decoding reads the written file with its metadata.
#[test]
fn decoding_reads_the_head() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = made_up(&folder.path().join("data"), manifest(20), plane);
    let settings = Settings { epochs: 3, ..settings(Rule::Srs) };
    let path = folder.path().join("v.safetensors");
    let about = About { title: "v".into(), command: "train value".into(), plot: None };
    let outcome = trained(&dataset, &settings);
    save(&path, &dataset, &settings, &outcome, &about).unwrap();
    let head = ValueHead::load(&path).unwrap();
    assert_eq!((head.width(), head.bound, head.base.as_deref()), (D, Some(2.0), Some("m")));
    assert_eq!(head.shaping.as_deref(), Some("srs"));
    assert_eq!(head.text_format.unwrap().name(), "chat");
    let shard = dataset.read(0).unwrap();
    let hidden = shard.hidden().unwrap();
    let states: Vec<f32> = hidden.states.iter().map(|x| x.to_f32()).collect();
    let states = Tensor::from_vec(states, (hidden.states.len() / D, D), &Device::Cpu).unwrap();
    let values = head.score(&states).unwrap();
    assert!(values.iter().all(|value| (0.0..=2.0).contains(value)));
    assert!(values.iter().any(|value| (value - values[0]).abs() > 0.1));
    let card = fs::read_to_string(folder.path().join("v.md")).unwrap();
    for line in ["# v\n", "| layers | 6 → 16 → 8 → 1, tanh |", "\"shaping\":\"srs\"", "| kept |"] {
        assert!(card.contains(line), "{line}\n{card}");
    }
    let bytes = fs::read(&path).unwrap();
    save(&path, &dataset, &settings, &trained(&dataset, &settings), &about).unwrap();
    assert_eq!(fs::read(&path).unwrap(), bytes, "equal input, equal bytes");
    let unbounded = Settings { epochs: 1, ..self::settings(Rule::Meanstd) };
    save(&path, &dataset, &unbounded, &trained(&dataset, &unbounded), &about).unwrap();
    assert_eq!(ValueHead::load(&path).unwrap().bound, None);
}

#[test]
fn bad_input_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let fails = |dataset: &Dataset, settings: &Settings| {
        let error = train(dataset, settings, (&at("c"), false), &mut ()).unwrap_err();
        assert!(!at("c").exists(), "nothing is written");
        error.to_string()
    };
    let usual = settings(Rule::Raw);
    let bare = made_up(&at("bare"), Manifest { reward: None, ..manifest(4) }, plane);
    assert!(fails(&bare, &usual).contains("it has no rewards to shape: roll out with a reward"));
    let blind = made_up(&at("blind"), Manifest { hidden: None, ..manifest(4) }, plane);
    assert!(fails(&blind, &usual).contains("no hidden states to learn from"));
    let one = made_up(&at("one"), manifest(1), plane);
    assert!(fails(&one, &usual).contains("it has one prompt: at least two are needed"));
    let equal = made_up(&at("equal"), manifest(4), |_, _| 3.0);
    assert!(
        fails(&equal, &usual).contains("all shaped rewards under raw are 3: there is nothing to learn")
    );
    let whole = made_up(&at("whole"), manifest(9), plane);
    for (bad, said) in [
        (Settings { learning_rate: 0.0, ..usual.clone() }, "lr is 0: it must be above zero"),
        (Settings { validation: 1.0, ..usual.clone() }, "validation is 1: it must be"),
        (Settings { batch: 0, ..usual.clone() }, "batch-size is 0"),
        (Settings { widths: [Some(0), None], ..usual.clone() }, "width is 0"),
        (Settings { widths: [None, Some(1 << 20)], ..usual.clone() }, "second-width is 1048576"),
        (Settings { coef: f64::NAN, ..usual.clone() }, "coef is NaN"),
        (Settings { learning_rate: 1e38, ..usual.clone() }, "the loss is not a number after epoch"),
    ] {
        assert!(fails(&whole, &bad).contains(said), "{}", fails(&whole, &bad));
    }
    let huge = made_up(&at("huge"), manifest(4), |a, _| 1e20 * f64::from(a));
    assert!(fails(&huge, &usual).contains("is too large for training: rescale the rewards"));
    let name = at("whole").join("hidden-00001.safetensors");
    let bytes = fs::read(&name).unwrap();
    let mut changed = bytes.clone();
    *changed.last_mut().unwrap() ^= 1;
    fs::write(&name, changed).unwrap();
    assert!(fails(&whole, &usual).contains("hidden-00001.safetensors: its content has changed"));
    fs::write(&name, &bytes[..bytes.len() - 2]).unwrap();
    let said = fails(&whole, &usual);
    assert!(
        said.contains("hidden-00001.safetensors: it has") && said.contains("delete the file and run"),
        "{said}"
    );
    fs::remove_file(&name).unwrap();
    assert!(fails(&whole, &usual).contains("1 of 3 shards are not there yet"));
}
