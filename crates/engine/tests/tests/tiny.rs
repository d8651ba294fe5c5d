//! Tiny random checkpoints: properties of any model, and the error messages for invalid checkpoints.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use serde_json::json;
use stackelberg_engine::model::Segment;
use stackelberg_engine::reward::{Head, PromptInput, Question, RewardModel, ask};
use stackelberg_engine::{Checkpoint, Dtype, Message, Prompt, Reward, Tensor, reward::TextFormat};
use tempfile::TempDir;

use crate::common::tiny::{D, Tiny, VOCABULARY};

fn written(tiny: &Tiny) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    tiny.write(folder.path());
    folder
}

fn load(tiny: &Tiny) -> Checkpoint {
    Checkpoint::load(written(tiny).path(), Dtype::F32).unwrap()
}

fn rows(tensor: &Tensor) -> Vec<Vec<f32>> {
    tensor.to_vec2().unwrap()
}

#[track_caller]
fn close(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    for (a, b) in found.iter().zip(expected) {
        assert!((a - b).abs() < 1e-5, "{a} is not {b}");
    }
}

const TEXT: [u32; 7] = [5, 17, 9, 33, 4, 21, 8];

#[test]
fn branch_extend_and_forward_agree_with_reading_it_all() {
    let model = load(&Tiny::default()).model;
    let (prefix, hidden) = model.prefill(&TEXT).unwrap();
    assert_eq!((hidden.dims(), prefix.len()), (&[7, D][..], 7));
    // Token by token is all at once.
    let (mut grown, first) = model.prefill(&TEXT[..1]).unwrap();
    close(&rows(&first)[0], &rows(&hidden)[0]);
    for i in 1..7 {
        close(&rows(&model.extend(&mut grown, &TEXT[i..=i]).unwrap())[0], &rows(&hidden)[i]);
    }
    // A candidate has the hidden state of the whole sequence, whatever the other candidates are.
    let candidates = [0, 39, 12, 12, 7];
    let branches = model.branch(&prefix, &candidates).unwrap();
    for (i, &candidate) in candidates.iter().enumerate() {
        let whole = model.prefill(&[&TEXT[..], &[candidate]].concat()).unwrap().1;
        close(&rows(&branches.hidden)[i], &rows(&whole)[7]);
    }
    // Several prefixes, several shapes, one forward.
    let (mut other, _) = model.prefill(&TEXT[..3]).unwrap();
    let mut empty = model.empty();
    let out = model
        .forward(&mut [
            Segment::Read(&mut other, &TEXT[3..]),
            Segment::Branch(&prefix, &candidates),
            Segment::Read(&mut empty, &TEXT),
        ])
        .unwrap();
    assert_eq!(rows(&out[0].hidden)[3], rows(&hidden)[6]);
    assert_eq!(rows(&out[1].hidden)[4], rows(&branches.hidden)[4]);
    assert_eq!(rows(&out[2].hidden)[6], rows(&hidden)[6]);
    assert_eq!((other.tokens(), empty.tokens()), (&TEXT[..], &TEXT[..]));
}

#[test]
fn a_committed_branch_is_read() {
    let model = load(&Tiny::default()).model;
    let (mut prefix, _) = model.prefill(&TEXT).unwrap();
    // Beyond the memory that is allocated at first.
    for step in 0..300 {
        let candidates = [step % 40, (step + 7) % 40];
        let branches = model.branch(&prefix, &candidates).unwrap();
        prefix.commit(&branches, 1).unwrap();
        assert!(prefix.commit(&branches, 0).is_err(), "the prefix has changed");
    }
    let whole = model.prefill(prefix.tokens()).unwrap().1;
    let ahead = model.branch(&prefix, &[11]).unwrap();
    let read = model.prefill(&[prefix.tokens(), &[11]].concat()).unwrap().1;
    close(&rows(&ahead.hidden)[0], &rows(&read)[307]);
    assert_eq!(whole.dims(), [307, D]);
    let fork = prefix.clone();
    model.extend(&mut prefix, &[1]).unwrap();
    assert_eq!((fork.len(), prefix.len()), (307, 308));
}

#[test]
fn shards_are_one_model() {
    let (single, sharded) =
        (load(&Tiny::default()).model, load(&Tiny { shards: 3, ..Tiny::default() }).model);
    let hidden = |model: &stackelberg_engine::Model| rows(&model.prefill(&TEXT).unwrap().1);
    assert_eq!(hidden(&single), hidden(&sharded));
}

#[test]
fn bf16_is_near() {
    let folder = written(&Tiny::default());
    let exact = Checkpoint::load(folder.path(), Dtype::F32).unwrap();
    let half = Checkpoint::load(folder.path(), Dtype::Bf16).unwrap();
    let hidden = |checkpoint: &Checkpoint| rows(&checkpoint.model.prefill(&TEXT).unwrap().1).concat();
    let off = hidden(&exact).iter().zip(hidden(&half)).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(off > 1e-5 && off < 0.1, "{off}");
    assert_eq!(2 * half.model.bytes(), exact.model.bytes());
}

#[test]
fn llama_3_stretches_low_frequencies_only() {
    let scaling = json!({"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 64}});
    let plain = load(&Tiny::default());
    let scaled = load(&Tiny { config: scaling, ..Tiny::default() });
    let hidden = |c: &Checkpoint, n: usize| rows(&c.model.prefill(&TEXT[..n]).unwrap().1);
    // Newer configurations have all parameters in one field.
    let together = json!({"rope_theta": null, "rope_parameters": {"rope_type": "llama3", "rope_theta": 1000.0,
        "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}});
    let together = load(&Tiny { config: together, ..Tiny::default() });
    assert_eq!(hidden(&together, 7), hidden(&scaled, 7));
    // There is no rotation at position 0. At later positions, the rotations differ.
    close(&hidden(&plain, 1)[0], &hidden(&scaled, 1)[0]);
    let off = hidden(&plain, 7)[6]
        .iter()
        .zip(&hidden(&scaled, 7)[6])
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max);
    assert!(off > 1e-4, "{off}");
}

#[test]
fn a_causal_reward_model_scores_candidates_as_whole_texts() {
    let policy = load(&Tiny::default());
    let folder = written(&Tiny { seed: 5, labels: Some(1), ..Tiny::default() });
    let reward = Reward::load(folder.path(), &policy, Dtype::F32).unwrap();
    let asked = PromptInput { tokens: &TEXT, prompt: None };
    let mut state = reward.state(&policy, asked).unwrap();
    assert!(!state.needs_policy());
    let mut text = TEXT.to_vec();
    for step in 0..4 {
        let candidates = [3, 30, 14 + step];
        let question =
            Question { state: &mut state, candidates: &candidates, further: &[], ahead: None };
        let scores = ask(&mut [question]).remove(0).unwrap();
        for (&candidate, score) in candidates.iter().zip(&scores) {
            let whole = reward.of_tokens(&policy, &[&text[..], &[candidate]].concat()).unwrap();
            assert!((score - whole).abs() < 1e-5, "{score} is not {whole}");
        }
        // One token by a guided step, then one by a skipped step.
        state.commit(1).unwrap();
        state.read(25).unwrap();
        text.extend([candidates[1], 25]);
    }
}

#[test]
fn a_reward_model_of_the_policys_own_weights_is_a_head() {
    let policy = load(&Tiny::default());
    let weight: Vec<f32> = (0..D).map(|i| (i as f32).sin()).collect();
    let head = Reward::Head(Arc::new(Head::new(weight.clone())));
    let model = RewardModel::new(load(&Tiny::default()), weight.clone()).unwrap();
    let model = Reward::Model(Arc::new(model));
    let score = |reward: &Reward| reward.of_tokens(&policy, &TEXT).unwrap();
    assert!((score(&head) - score(&model)).abs() < 1e-5);
    let error = RewardModel::new(load(&Tiny::default()), weight[1..].to_vec()).err().unwrap();
    assert!(error.to_string().ends_with("the score has 15 weights, the hidden states have 16"));
}

#[test]
fn end_of_text_and_templates() {
    let folder = written(&Tiny::default());
    let settings = json!({"eos_token": "w7", "bos_token": {"content": "w1"}, "chat_template":
        "{% for m in messages %}\n  {{ bos_token }} {{ m['role'].upper() }} {{ m.content.strip() }}\n{% endfor %}\n{% if add_generation_prompt %}w4{% endif %}"});
    fs::write(folder.path().join("tokenizer_config.json"), settings.to_string()).unwrap();
    fs::write(folder.path().join("generation_config.json"), r#"{"eos_token_id": 9}"#).unwrap();
    let checkpoint = Checkpoint::load(folder.path(), Dtype::F32).unwrap();
    assert_eq!(checkpoint.eos, [2, 3, 7, 9]);
    let prompt = Prompt::Text(" w5 ".into());
    let text = checkpoint.lay_out(&prompt, Some("w6"), TextFormat::Chat).unwrap();
    assert_eq!(text.text(), "  w1 SYSTEM w6\n  w1 USER w5\nw4");
    let turns =
        vec![Message::new("user", "a"), Message::new("assistant", "b"), Message::new("user", "c")];
    let raw = checkpoint.lay_out(&Prompt::Messages(turns), None, TextFormat::Raw).unwrap();
    assert_eq!(raw.text(), "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:");

    fs::write(folder.path().join("chat_template.jinja"), "{{ raise_exception('no') }}").unwrap();
    let refuses = Checkpoint::load(folder.path(), Dtype::F32).unwrap();
    let error = refuses.lay_out(&prompt, None, TextFormat::Chat).unwrap_err().to_string();
    assert!(error.starts_with("chat template: ") && error.contains("no"), "{error}");
    let without =
        load(&Tiny::default()).lay_out(&prompt, None, TextFormat::Chat).unwrap_err().to_string();
    assert_eq!(without, "chat template: this model has none: use the prompt format raw");
}

#[track_caller]
fn refused(folder: &Path) -> String {
    let Err(error) = Checkpoint::load(folder, Dtype::F32) else { panic!("was loaded") };
    let error = error.to_string();
    assert_eq!(error.lines().count(), 1, "{error}");
    error.replace(&folder.display().to_string(), "F")
}

#[test]
fn broken_checkpoints_are_named() {
    let with = |config| written(&Tiny { config, ..Tiny::default() });
    let error = refused(with(json!({"architectures": ["MambaForCausalLM"]})).path());
    assert!(error.starts_with(
        "F/config.json: architecture 'MambaForCausalLM' is not supported; supported are Llama, "
    ));
    for (scaling, said) in [
        (
            json!({"type": "dynamic", "factor": 2.0}),
            "type 'dynamic' is not supported; default, linear, ",
        ),
        (json!({"type": "yarn"}), "missing field `factor`"),
        (json!({"type": "linear", "factor": 0.0}), "0 is given where a positive number is needed"),
        (
            json!({"type": "longrope", "short_factor": [1.0], "long_factor": [1.0],
                "original_max_position_embeddings": 64}),
            "1 short and 1 long factors for 2 pairs",
        ),
    ] {
        let error = refused(with(json!({"rope_scaling": scaling})).path());
        assert!(error.starts_with(&format!("F/config.json: rope_scaling: {said}")), "{error}");
    }
    let error = refused(with(json!({"rope_theta": 0.5})).path());
    assert_eq!(error, "F/config.json: rope rotates 4 of 4 numbers of a head with the base 0.5");
    let error = refused(with(json!({"num_hidden_layers": 1})).path());
    assert_eq!(
        error,
        "F: a LlamaForCausalLM has no tensor 'model.layers.1.input_layernorm.weight' and 8 more: the file is \
         another model's"
    );
    let error = refused(with(json!({"num_key_value_heads": 3})).path());
    assert_eq!(error, "F/config.json: 4 heads of size 4 cannot share 3 key-value heads");
    let error = refused(with(json!({"hidden_size": 0})).path());
    assert_eq!(error, "F/config.json: the hidden size is 0");
    let error = refused(with(json!({"num_hidden_layers": 3})).path());
    assert!(
        error.starts_with("F: the tensor 'model.layers.2.self_attn.q_proj.weight' is missing"),
        "{error}"
    );
    let classifier = written(&Tiny { labels: Some(1), ..Tiny::default() });
    Tiny { config: json!({"architectures": ["LlamaForCausalLM"]}), labels: Some(1), ..Tiny::default() }
        .write(classifier.path());
    assert!(refused(classifier.path()).contains("the tensor 'lm_head.weight' is missing"));
    let error = refused(with(json!({"vocab_size": 41})).path());
    assert!(error.contains(
        "'model.embed_tokens.weight' has shape [40, 16] where the configuration says [41, 16]"
    ));

    let folder = written(&Tiny::default());
    let weights = folder.path().join("model.safetensors");
    let bytes = fs::read(&weights).unwrap();
    for cut in [4, 100, bytes.len() - 1] {
        fs::write(&weights, &bytes[..cut]).unwrap();
        let error = refused(folder.path());
        assert!(error.starts_with("F/model.safetensors: not a whole safetensors file ("), "{error}");
    }
    fs::remove_file(&weights).unwrap();
    assert!(refused(folder.path()).contains("neither model.safetensors nor"));
    fs::write(folder.path().join("pytorch_model.bin"), "x").unwrap();
    assert!(refused(folder.path()).contains("are a pickle"));
    fs::write(folder.path().join("config.json"), "{").unwrap();
    assert!(refused(folder.path()).contains("config.json: EOF"));
    let folder = written(&Tiny::default());
    fs::remove_file(folder.path().join("tokenizer.json")).unwrap();
    assert!(refused(folder.path()).starts_with("cannot read F/tokenizer.json"));

    let sharded = written(&Tiny { shards: 3, ..Tiny::default() });
    fs::remove_file(sharded.path().join("model-00001.safetensors")).unwrap();
    assert!(refused(sharded.path()).ends_with("model-00001.safetensors is not there"));
    // The index lists a tensor that is not in its shard.
    let index = sharded.path().join("model.safetensors.index.json");
    let map = json!({"weight_map": {"model.norm.weight": "model-00000.safetensors"}});
    fs::write(&index, map.to_string()).unwrap();
    let error = refused(sharded.path());
    assert!(error.starts_with("F: the tensor 'model.") && error.contains("' is missing: "), "{error}");
    for (text, said) in [
        ("no JSON", "F/model.safetensors.index.json: expected"),
        ("{}", "F/model.safetensors.index.json: invalid type: null"),
        (
            "{\"weight_map\": {\"a\": \"../b\"}}",
            "F/model.safetensors.index.json: names the shard '../b', outside",
        ),
    ] {
        fs::write(&index, text).unwrap();
        assert!(refused(sharded.path()).starts_with(said), "{}", refused(sharded.path()));
    }

    let gguf = folder.path().join("x.gguf");
    for bytes in [
        &b""[..],
        b"GGUF",
        b"not a model at all, but text",
        b"GGUF\x03\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff",
    ] {
        fs::write(&gguf, bytes).unwrap();
        let Err(error) = Checkpoint::load(&gguf, Dtype::F32) else { panic!("was loaded") };
        assert!(error.to_string().contains("x.gguf: not a whole GGUF file ("), "{error}");
    }
}

#[test]
fn quantised_models_adapters_and_pickles_are_refused() {
    let quantised = json!({"quantization_config": {"quant_method": "gptq", "bits": 4}});
    let error = refused(written(&Tiny { config: quantised, ..Tiny::default() }).path());
    assert!(
        error.starts_with(
            "F/config.json: the weights are quantised (gptq), which is not supported: take"
        )
    );

    let adapter = tempfile::tempdir().unwrap();
    fs::write(adapter.path().join("adapter_config.json"), "{}").unwrap();
    let error = refused(adapter.path());
    assert!(
        error.starts_with("F/adapter_config.json: an adapter (LoRA), not a model: merge it"),
        "{error}"
    );

    let pickle = written(&Tiny::default());
    fs::rename(pickle.path().join("model.safetensors"), pickle.path().join("model.pt")).unwrap();
    assert!(
        refused(pickle.path()).contains("are a pickle (.bin, .pt), which can run code; convert them")
    );
}

#[test]
fn rewards_that_do_not_fit_are_named() {
    let policy = load(&Tiny::default());
    let refused = |path: &Path| {
        let Err(error) = Reward::load(path, &policy, Dtype::F32) else { panic!("was loaded") };
        error.to_string().replace(&path.display().to_string(), "F")
    };
    let language_model = written(&Tiny::default());
    assert!(refused(language_model.path()).starts_with("F: a language model, not a reward model"));
    let three = written(&Tiny { labels: Some(3), ..Tiny::default() });
    let said =
        "F: has the labels LABEL_0, LABEL_1, LABEL_2: choose one behind a '#', or two as GOOD-BAD";
    assert_eq!(refused(three.path()), said);
    let broken = written(&Tiny { labels: Some(1), broken_score: true, ..Tiny::default() });
    assert_eq!(refused(broken.path()), "F: score.weight[0] is NaN");
    assert!(refused(Path::new("/no/such/head")).contains("there is no such file or folder"));

    let head = |metadata: serde_json::Value, width: usize, value: f32| {
        let header = json!({"__metadata__": metadata,
            "score.weight": {"dtype": "F32", "shape": [1, width], "data_offsets": [0, 4 * width]}})
        .to_string();
        let data = value.to_le_bytes().repeat(width);
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat()
    };
    let parse = |bytes: &[u8]| {
        Head::parse(Path::new("F"), bytes).and_then(|h| h.fits(&policy)).unwrap_err().to_string()
    };
    let ours = json!({"format": "stackelberg-head"});
    assert!(Head::parse(Path::new("F"), &head(ours.clone(), D, 1.0)).unwrap().fits(&policy).is_ok());
    assert!(parse(b"short").starts_with("F: not a whole safetensors file"));
    assert!(parse(&head(json!({}), D, 1.0)).contains("its metadata lack format=stackelberg-head"));
    assert_eq!(
        parse(&head(ours.clone(), 8, 1.0)),
        "F: reads hidden states of width 8, the policy's have 16"
    );
    assert_eq!(parse(&head(ours, D, f32::NAN)), "F: score.weight[0] is NaN");
    for (key, value, said) in [
        ("base", "abc", "was trained on the model abc, not on this policy"),
        ("reward_std", "0", "reward_std is 0: it must be above zero"),
        ("reward_mean", "x", "reward_mean is 'x', not a number"),
        ("text_format", "hh", "unknown text format 'hh'"),
    ] {
        let found = parse(&head(json!({"format": "stackelberg-head", key: value}), D, 1.0));
        assert!(found.contains(said), "{found}");
    }
}

#[test]
fn tokens_that_cannot_be_read() {
    let model = load(&Tiny::default()).model;
    let error = |tokens: &[u32]| model.prefill(tokens).unwrap_err().to_string();
    assert_eq!(error(&[]), "no tokens: a prompt must hold at least one");
    assert_eq!(error(&[40]), format!("token 40 is outside the vocabulary of {VOCABULARY}"));
    assert!(error(&[1; 401]).starts_with("401 tokens do not fit the model's context of 400"));
    let (full, _) = model.prefill(&[1; 400]).unwrap();
    assert!(model.branch(&full, &[1]).is_err());
}
