//! SmolLM2-135M guided by a head or a value head, against traces of the reference (see `tests/data/README.md`); the
//! lossless skip on the real model; and what decoding promises of any model.

use std::path::Path;
use std::sync::OnceLock;

use serde::Deserialize;
use stackelberg_decoding::{Generation, Guidance, Method, Settings, Step, Watch, generate};
use stackelberg_engine::reward::ValueHead;
use stackelberg_engine::{Checkpoint, Dtype, Reward};
use stackelberg_shaping::{Budget, Rule, Shaping};

fn policy() -> &'static Checkpoint {
    static POLICY: OnceLock<Checkpoint> = OnceLock::new();
    POLICY.get_or_init(|| {
        let path = crate::weights::fetch("smollm2-135m");
        Checkpoint::load(&path, Dtype::F32).unwrap()
    })
}

/// The reference's head, as a file of ours.
fn reward() -> &'static Reward {
    static REWARD: OnceLock<Reward> = OnceLock::new();
    REWARD.get_or_init(|| {
        let weight: Vec<f32> = serde_json::from_str(include_str!("data/head.json")).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("head.safetensors");
        let header = format!(
            r#"{{"__metadata__":{{"format":"stackelberg-head"}},"score.weight":{{"dtype":"F32","shape":[1,{}],"data_offsets":[0,{}]}}}}"#,
            weight.len(),
            4 * weight.len()
        );
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend(weight.iter().flat_map(|w| w.to_le_bytes()));
        std::fs::write(&path, bytes).unwrap();
        Reward::load(&path, policy(), Dtype::F32).unwrap()
    })
}

#[derive(Deserialize)]
struct Traces {
    soft: Vec<Trace>,
    raw: Vec<Trace>,
}

#[derive(Deserialize)]
struct Trace {
    prompt: String,
    prompt_ids: Vec<u32>,
    new_ids: Vec<u32>,
    steps: Vec<Expected>,
}

#[derive(Deserialize)]
struct Expected {
    top_ids: Vec<u32>,
    lm_logits: Vec<f64>,
    rewards: Vec<f64>,
    #[serde(rename = "B_eff")]
    bound: Option<f64>,
    m: Option<f64>,
    shaped: Option<Vec<f64>>,
    fused: Vec<f64>,
    chosen: u32,
}

#[derive(Default)]
struct Steps(Vec<Step>);

impl Watch for Steps {
    fn step(&mut self, _: usize, _: usize, step: &Step, _: &str) {
        self.0.push(step.clone());
    }
}

fn run(prompt: &str, settings: &Settings) -> (Generation, Vec<Step>) {
    let tokens = policy().tokenizer.encode(prompt, true).unwrap();
    let mut steps = Steps::default();
    let answer = generate(policy(), Some(reward()), &tokens, "p", settings, &mut steps).unwrap();
    (answer, steps.0)
}

fn guided(rule: Rule, budget: Budget) -> Settings {
    let shaping = Shaping { rule, budget, strength: 0.5, bound: 12.0, alpha: 1.5, ..Shaping::default() };
    Settings { shaping, max_new_tokens: 40, no_eos: true, skip: false, ..Settings::default() }
}

#[track_caller]
fn close(found: &[f64], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= tolerance, "{what}[{i}]: {a} is not {b} within {tolerance}");
    }
}

fn check(trace: &Trace, rule: Rule) {
    let (answer, steps) = run(&trace.prompt, &guided(rule, Budget::ReferenceStep));
    assert_eq!(policy().tokenizer.encode(&trace.prompt, true).unwrap(), trace.prompt_ids);
    assert_eq!(answer.tokens, trace.new_ids);
    assert_eq!((steps.len(), answer.reward_calls, answer.skipped), (40, 40, 0));
    for (step, expected) in steps.iter().zip(&trace.steps) {
        assert_eq!(step.candidates, expected.top_ids);
        assert_eq!(step.chosen, expected.chosen);
        close(&step.logits, &expected.lm_logits, 1e-3, "logits");
        // The reference's reward of an EOS candidate is an artefact of its padding.
        if step.candidates.contains(&2) {
            continue;
        }
        close(step.rewards.as_ref().unwrap(), &expected.rewards, 1e-3, "rewards");
        if let (Some(m), Some(shaped)) = (expected.m, &expected.shaped) {
            close(&[step.threshold.unwrap()], &[m], 1e-3, "threshold");
            close(&[step.bound.unwrap()], &[expected.bound.unwrap()], 1e-3, "bound");
            // s moves by at most B alpha / 4 = 4.5 per unit of reward.
            close(step.shaped.as_ref().unwrap(), shaped, 4.5e-3, "shaped");
        }
        close(&step.fused, &expected.fused, 3.5e-3, "fused");
    }
}

#[test]
fn traces_of_the_reference() {
    let traces: Traces = serde_json::from_str(include_str!("data/args_traces.json")).unwrap();
    assert_eq!((traces.soft.len(), traces.raw.len()), (3, 3));
    traces.soft.iter().for_each(|trace| check(trace, Rule::Srs));
    traces.raw.iter().for_each(|trace| check(trace, Rule::Raw));
}

#[derive(Deserialize)]
struct CdTraces {
    traces: Vec<CdTrace>,
}

#[derive(Deserialize)]
struct CdTrace {
    prompt: String,
    prompt_ids: Vec<u32>,
    new_ids: Vec<u32>,
    steps: Vec<CdStep>,
}

#[derive(Deserialize)]
struct CdStep {
    candidates: Vec<u32>,
    logprobs: Vec<f64>,
    values: Vec<f64>,
    fused: Vec<f64>,
    chosen: u32,
}

/// The reference's value head, as torch wrote it: there are no metadata.
fn value_head() -> ValueHead {
    let path = Path::new("cd_value_head.safetensors");
    let head = ValueHead::parse(path, include_bytes!("data/cd_value_head.safetensors")).unwrap();
    head.fits(policy()).unwrap();
    head
}

#[test]
fn traces_of_the_references_controlled_decoding() {
    let head = std::sync::Arc::new(value_head());
    let guidance = Guidance { reward: Some(reward()), value: Some(&head) };
    let shaping = Shaping { strength: 1.5, ..Shaping::default() };
    let settings = Settings {
        method: Method::Cd,
        shaping,
        max_new_tokens: 40,
        no_eos: true,
        ..Settings::default()
    };
    let traces: CdTraces = serde_json::from_str(include_str!("data/cd_traces.json")).unwrap();
    assert_eq!(traces.traces.len(), 3);
    for trace in traces.traces {
        let tokens = policy().tokenizer.encode(&trace.prompt, true).unwrap();
        assert_eq!(tokens, trace.prompt_ids);
        let mut steps = Steps::default();
        let answer = generate(policy(), guidance, &tokens, "p", &settings, &mut steps).unwrap();
        assert_eq!(answer.tokens, trace.new_ids);
        assert_eq!((steps.0.len(), answer.reward_calls, answer.skipped), (40, 40, 0));
        for (step, expected) in steps.0.iter().zip(&trace.steps) {
            assert_eq!((&step.candidates, step.chosen), (&expected.candidates, expected.chosen));
            close(&step.logits, &expected.logprobs, 1e-3, "log p");
            close(step.rewards.as_ref().unwrap(), &expected.values, 1e-3, "values");
            close(&step.fused, &expected.fused, 2.5e-3, "fused");
        }
        // The reward of the answer is the reward's, not the value head's.
        let text = [tokens, answer.tokens].concat();
        let whole = reward().of_tokens(policy(), &text).unwrap();
        assert_eq!(answer.reward, Some(whole));
    }
}

const PROMPTS: [&str; 2] =
    ["\n\nHuman: Tell me about the moon.\n\nAssistant:", "The capital of France is"];

#[test]
fn a_strength_of_zero_is_the_base_policy() {
    for prompt in PROMPTS {
        for rule in [Rule::Raw, Rule::Srs, Rule::Hard] {
            let mut settings = guided(rule, Budget::Paper);
            settings.shaping.strength = 0.0;
            let base = Settings { method: Method::Base, ..settings.clone() };
            let (guided, base) = (run(prompt, &settings).0, run(prompt, &base).0);
            assert_eq!(guided.tokens, base.tokens);
            assert_eq!(guided.steered, 0);
            assert!((guided.reward.unwrap() - base.reward.unwrap()).abs() < 1e-4);
        }
    }
}

#[test]
fn skipping_changes_nothing_but_the_work() {
    let mut skipped = 0;
    for prompt in PROMPTS {
        for rule in Rule::ALL {
            let mut with = guided(rule, Budget::Paper);
            with.shaping = Shaping { strength: 1.0, bound: 2.0, ..with.shaping };
            with.max_new_tokens = 12;
            with.skip = true;
            let without = Settings { skip: false, ..with.clone() };
            let (a, steps) = run(prompt, &with);
            let (b, _) = run(prompt, &without);
            assert_eq!(a.tokens, b.tokens, "{rule}");
            assert_eq!(a.skipped + a.reward_calls, steps.len());
            assert_eq!((b.skipped, b.reward_calls), (0, steps.len()));
            assert_eq!(a.skipped, steps.iter().filter(|s| s.skipped && s.rewards.is_none()).count());
            assert!(a.skipped == 0 || !matches!(rule, Rule::Raw | Rule::LogSigmoid));
            skipped += a.skipped;
        }
    }
    assert!(skipped > 20, "only {skipped} steps were skipped: this test shows nothing");
}

#[test]
fn sampling_follows_from_the_seed() {
    let mut settings = guided(Rule::Srs, Budget::Paper);
    settings.sampling.temperature = 1.0;
    settings.max_new_tokens = 12;
    let tokens = |settings: &Settings| run(PROMPTS[0], settings).0.tokens;
    assert_eq!(tokens(&settings), tokens(&settings));
    assert_ne!(tokens(&settings), tokens(&Settings { seed: 1, ..settings.clone() }));
    let base = Settings { method: Method::Base, ..settings };
    assert_ne!(tokens(&base), tokens(&Settings { seed: 1, ..base.clone() }));
}

#[test]
fn best_of_n_is_the_best() {
    let mut settings = guided(Rule::Raw, Budget::Paper);
    settings.sampling.temperature = 1.0;
    settings.max_new_tokens = 8;
    settings.samples = 1;
    let one = run(PROMPTS[0], &Settings { method: Method::BestOfN, ..settings.clone() }).0;
    settings.samples = 5;
    let best = run(PROMPTS[0], &Settings { method: Method::BestOfN, ..settings.clone() }).0;
    assert!(best.reward >= one.reward);
    assert_eq!(best.reward_calls, 5);
    // At a great strength the soft choice is the best one too; at none it is any.
    settings.shaping.strength = 1e9;
    let soft = run(PROMPTS[0], &Settings { method: Method::SoftBestOfN, ..settings.clone() }).0;
    assert_eq!(soft.tokens, best.tokens);
    settings.shaping = Shaping { rule: Rule::Hard, ..settings.shaping };
    let follower = run(PROMPTS[0], &Settings { method: Method::Follower, ..settings }).0;
    assert_eq!((follower.tokens, follower.reward_calls), (best.tokens, 5));
}

#[test]
fn stops_where_it_is_told() {
    let mut settings = guided(Rule::Srs, Budget::Paper);
    settings.method = Method::Base;
    let (whole, _) = run(PROMPTS[0], &settings);
    let words: Vec<&str> = whole.text.split_whitespace().skip(5).take(2).collect();
    let word = words.join(" ");
    settings.stop = vec![word.clone()];
    let (cut, _) = run(PROMPTS[0], &settings);
    assert_eq!(cut.finish.name(), "stop");
    assert_eq!(cut.text, whole.text[..whole.text.find(&word).unwrap()]);
    // Its tokens are those of its text, not those of what ended it.
    assert!(policy().tokenizer.decode(&cut.tokens, false).unwrap().len() < cut.text.len() + word.len());
    assert!(whole.finish.name() == "length" && whole.tokens.len() == 40);

    // The model ends its own answer in its own format, and the ending is no part of it.
    let chat = "<|im_start|>user\nSay hi.<|im_end|>\n<|im_start|>assistant\n";
    settings = Settings { no_eos: false, stop: vec![], max_new_tokens: 60, ..settings };
    let (ended, steps) = run(chat, &settings);
    assert_eq!(ended.finish.name(), "stop");
    assert_eq!(steps.len(), ended.tokens.len() + 1);
    assert!(!ended.text.contains("<|im_end|>"));
}

#[test]
fn bad_settings_are_named() {
    let with = |change: fn(&mut Settings)| {
        let mut settings = guided(Rule::Srs, Budget::Paper);
        change(&mut settings);
        let tokens = policy().tokenizer.encode("Hi", true).unwrap();
        generate(policy(), Some(reward()), &tokens, "p", &settings, &mut ()).unwrap_err().to_string()
    };
    assert_eq!(
        with(|s| s.candidates = 0),
        "candidates is 0: it must be between 1 and the vocabulary's size"
    );
    assert!(with(|s| s.candidates = 50_000).starts_with("candidates is 50000"));
    assert!(with(|s| s.sampling.temperature = -1.0).starts_with("temperature is -1"));
    assert!(with(|s| s.shaping.alpha = -1.0).contains("alpha is -1"));
    assert!(with(|s| s.sampling.top_p = 0.0).starts_with("top-p is 0"));
    let none =
        generate(policy(), None, &[1], "p", &Settings::default(), &mut ()).unwrap_err().to_string();
    assert_eq!(none, "the method args needs a reward");
    assert!(with(|s| s.policy_temperature = 0.0).starts_with("policy-temperature is 0"));
    assert_eq!(with(|s| s.method = Method::Cd), "the method cd needs a value head");
    let alone = "it must be 1, except with the method cd, a temperature of 0 and no KL budget";
    assert_eq!(with(|s| s.beams = 2), format!("beams is 2: {alone}"));
    let greedy = |s: &mut Settings| (s.method, s.beams) = (Method::Cd, 0);
    assert_eq!(with(greedy), "beams is 0: it must be at least 1");
    assert!(with(|s| s.length_penalty = -1.0).starts_with("length-penalty is -1"));
    let long = vec![1; 9000];
    let settings = Settings { method: Method::Base, ..Settings::default() };
    let error = generate(policy(), None, &long, "p", &settings, &mut ()).unwrap_err().to_string();
    assert!(error.contains("9001 tokens do not fit the model's context of 8192"), "{error}");
}
