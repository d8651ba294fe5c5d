//! SmolLM2-135M against Hugging Face transformers (see `tests/data/README.md`).

use std::sync::OnceLock;

use serde::Deserialize;
use stackelberg_engine::kernel::log_sum_exp;
use stackelberg_engine::reward::TextFormat;
use stackelberg_engine::{Checkpoint, Dtype, Tensor};

use crate::common::tiny::choose_kernel;
use crate::common::weights::fetch;

fn policy() -> &'static Checkpoint {
    static POLICY: OnceLock<Checkpoint> = OnceLock::new();
    POLICY.get_or_init(|| {
        choose_kernel();
        let path = fetch("smollm2-135m");
        Checkpoint::load(&path, Dtype::F32).unwrap()
    })
}

fn data<T: for<'a> Deserialize<'a>>(name: &str) -> T {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn last(hidden: &Tensor) -> Tensor {
    hidden.narrow(0, hidden.dim(0).unwrap() - 1, 1).unwrap()
}

fn flat(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

#[track_caller]
fn close(found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len());
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= tolerance, "[{i}]: {a} is not {b} within {tolerance}");
    }
}

#[derive(Deserialize)]
struct Text {
    text: String,
    ids: Vec<u32>,
    #[serde(default)]
    decoded: String,
    #[serde(default)]
    score: f32,
}

#[test]
fn tokenizer() {
    let cases: Vec<Text> = data("tokenizer.json");
    assert_eq!(cases.len(), 9);
    for case in cases {
        let tokenizer = &policy().tokenizer;
        assert_eq!(tokenizer.encode(&case.text, true).unwrap(), case.ids, "{:?}", case.text);
        assert_eq!(tokenizer.decode(&case.ids, false).unwrap(), case.decoded);
    }
}

#[derive(Deserialize)]
struct Logits {
    ids: Vec<u32>,
    top50_ids: Vec<u32>,
    top50_logits: Vec<f32>,
    logsumexp: f32,
    logit_mean: f32,
    hidden_last_post_norm: Vec<f32>,
}

#[test]
fn logits_and_hidden_states() {
    let cases: Vec<Logits> = data("lm_logits.json");
    assert_eq!(cases.len(), 3);
    for case in cases {
        let model = &policy().model;
        let hidden = last(&model.prefill(&case.ids).unwrap().1);
        close(&flat(&hidden), &case.hidden_last_post_norm, 1e-3);
        let logits = flat(&model.logits(&hidden).unwrap());
        let top: Vec<f32> = case.top50_ids.iter().map(|&id| logits[id as usize]).collect();
        close(&top, &case.top50_logits, 1e-3);
        let sum: f64 = logits.iter().map(|&l| f64::from(l).exp()).sum();
        let mean: f64 = logits.iter().map(|&l| f64::from(l)).sum::<f64>() / logits.len() as f64;
        close(&[sum.ln() as f32, mean as f32], &[case.logsumexp, case.logit_mean], 1e-3);
    }
}

#[test]
fn scores() {
    let weight: Vec<f32> = data("rm_score_weight.json");
    let cases: Vec<Text> = data("rm_scores.json");
    assert_eq!(cases.len(), 5);
    for case in cases {
        assert_eq!(policy().tokenizer.encode(&case.text, true).unwrap(), case.ids);
        let hidden = flat(&last(&policy().model.prefill(&case.ids).unwrap().1));
        let score = hidden.iter().zip(&weight).map(|(h, w)| h * w).sum();
        close(&[score], &[case.score], 1e-3);
    }
}

/// Looking ahead over k candidates equals k sequential continuations, and committing a branch equals prefilling its token.
#[test]
fn branch_is_sequential_decoding() {
    let Checkpoint { model, text, .. } = policy();
    let tokenizer = &text.tokenizer;
    let prompt = tokenizer.encode("\n\nHuman: Tell me about the moon.\n\nAssistant:", true).unwrap();
    let (mut prefix, _) = model.prefill(&prompt).unwrap();
    let mut read = prompt.clone();
    for step in 0..3 {
        let candidates: Vec<u32> = (0..10).map(|i| 300 + 1000 * i + step).collect();
        let branches = model.branch(&prefix, &candidates).unwrap();
        for (i, &candidate) in candidates.iter().enumerate() {
            let text = [&read[..], &[candidate]].concat();
            let sequential = last(&model.prefill(&text).unwrap().1);
            // Bit-identical.
            assert_eq!(flat(&branches.hidden.narrow(0, i, 1).unwrap()), flat(&sequential));
        }
        prefix.commit(&branches, 7).unwrap();
        read.push(candidates[7]);
        assert_eq!(prefix.tokens(), read);
    }
}

/// The error of the smaller dtypes: the mean distance of the logits from those of f32, over all tokens of three texts. The guide
/// says 0.05 and 0.21.
/// `cargo test --release -p stackelberg-engine --test tests golden::dtypes -- --nocapture` prints it.
#[test]
fn dtypes_stay_near() {
    choose_kernel();
    let path = fetch("smollm2-135m");
    let cases: Vec<Logits> = data("lm_logits.json");
    for (dtype, near) in
        [(Dtype::Bf16, 0.06), (Dtype::Int8, 0.25), (Dtype::Q4, 0.25), (Dtype::Native, 0.25)]
    {
        let small = Checkpoint::load(&path, dtype).unwrap();
        let (mut sum, mut count, mut same, mut tokens) = (0.0, 0, 0, 0);
        for case in &cases {
            let logits = |checkpoint: &Checkpoint| -> Vec<Vec<f32>> {
                let hidden = checkpoint.model.prefill(&case.ids).unwrap().1;
                checkpoint.model.logits(&hidden).unwrap().to_vec2().unwrap()
            };
            for (exact, found) in logits(policy()).iter().zip(logits(&small)) {
                sum += exact.iter().zip(&found).map(|(a, b)| f64::from((a - b).abs())).sum::<f64>();
                count += exact.len();
                let largest =
                    |logits: &[f32]| (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b]));
                same += usize::from(largest(exact) == largest(&found));
                tokens += 1;
            }
        }
        let mean = sum / count as f64;
        println!(
            "{dtype}: mean |delta logit| {mean:.4}; the likeliest token is the same for {same} of {tokens}"
        );
        assert!(mean > 1e-4 && mean < near, "{dtype}: {mean}");
    }
}

/// Questions for [`dtypes_are_measured`].
const QUESTIONS: [&str; 20] = [
    "How do I bake bread at home?",
    "Tell me about the moon.",
    "What should I say to a sad friend?",
    "Why is the sky blue?",
    "Write a short poem about rain.",
    "What is the capital of France?",
    "Explain photosynthesis to a child.",
    "How does a bicycle stay upright?",
    "Give me three tips for better sleep.",
    "What is the difference between a list and a tuple in Python?",
    "Describe a day at the sea.",
    "Who was Marie Curie?",
    "How many legs does a spider have?",
    "What is inflation?",
    "Suggest a name for a black cat.",
    "Summarise the story of Cinderella.",
    "What happens when water boils?",
    "How do I write a letter of complaint?",
    "What is a prime number?",
    "Tell me a joke about computers.",
];

/// Prints, for each dtype, the perplexity of a text, the mean distance of its logits from those of f32, and how many greedy
/// answers of 32 tokens are those of f32. Set `STACKELBERG_MODEL` to the path of another model, and `STACKELBERG_TEXT` to
/// that of another text.
#[test]
#[ignore = "it measures, and prints what it finds"]
fn dtypes_are_measured() {
    choose_kernel();
    let path = std::env::var_os("STACKELBERG_MODEL").map_or_else(|| fetch("smollm2-135m"), Into::into);
    let text = std::env::var_os("STACKELBERG_TEXT").map_or_else(
        || std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../LICENSE-APACHE"),
        Into::into,
    );
    let text = std::fs::read_to_string(text).unwrap();
    let mut exact: Option<(Vec<f32>, Vec<Vec<u32>>)> = None;
    for &dtype in Dtype::ALL {
        let checkpoint = Checkpoint::load(&path, dtype).unwrap();
        let model = &checkpoint.model;
        let mut tokens = checkpoint.tokens(&text, TextFormat::Raw).unwrap();
        tokens.truncate(1024);
        let logits = flat(&model.logits(&model.prefill(&tokens).unwrap().1).unwrap());
        let width = logits.len() / tokens.len();
        let nll: f64 = (logits.chunks_exact(width).zip(&tokens[1..]))
            .map(|(row, &next)| log_sum_exp(row) - f64::from(row[next as usize]))
            .sum();
        let answer = |question: &str| -> Vec<u32> {
            let prompt = checkpoint.tokens(question, TextFormat::Chat).unwrap();
            let (mut prefix, mut hidden) = model.prefill(&prompt).unwrap();
            let next = |hidden: &Tensor| -> u32 {
                let row = flat(&model.logits(&last(hidden)).unwrap());
                (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap() as u32
            };
            let mut tokens = vec![next(&hidden)];
            while tokens.len() < 32 {
                hidden = model.extend(&mut prefix, &tokens[tokens.len() - 1..]).unwrap();
                tokens.push(next(&hidden));
            }
            tokens
        };
        let answers: Vec<_> = QUESTIONS.iter().map(|question| answer(question)).collect();
        let (expected, greedy) = exact.get_or_insert_with(|| (logits.clone(), answers.clone()));
        let distance: f64 = expected.iter().zip(&logits).map(|(a, b)| f64::from((a - b).abs())).sum();
        println!(
            "{dtype}: {} MB, perplexity {:.4} of {} tokens, mean |delta logit| {:.4}, {} of 20 greedy answers",
            model.bytes() / 1_000_000,
            (nll / (tokens.len() - 1) as f64).exp(),
            tokens.len(),
            distance / logits.len() as f64,
            greedy.iter().zip(&answers).filter(|(a, b)| a == b).count(),
        );
    }
}
