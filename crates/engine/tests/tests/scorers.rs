//! Rewards that read text: a reward model with another tokenizer, a head on an embedder.

use std::sync::Arc;

use serde_json::json;
use stackelberg_engine::reward::{
    Exchange, ForeignModel, PromptInput, Question, RewardFormat, RewardModel, RewardState, TextReward,
    TextScorer, ask,
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
    let foreign = Reward::Text(Arc::new(foreign.with_format(RewardFormat::Raw).unwrap()));

    // The tokenizer's words are cut at spaces, of which none stands before an answer.
    let prompt = Prompt::Text("w4 w9 w6 ".to_owned());
    let tokens = policy.tokens("w4 w9 w6", stackelberg_engine::reward::TextFormat::Raw).unwrap();
    let asked = PromptInput { tokens: &tokens, prompt: Some(&prompt) };
    let (mut a, mut b) = (own.state(&policy, asked).unwrap(), foreign.state(&policy, asked).unwrap());
    assert!(!b.needs_policy() && b.span().is_none());
    let mut answer = Vec::new();
    for step in 0..40u32 {
        let candidates = [4 + step % 30, 5 + step * 7 % 30, 10];
        let score = |state: &mut RewardState| {
            ask(&mut [Question { state, candidates: &candidates, further: &[], ahead: None }])
                .remove(0)
                .unwrap()
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
    assert!(foreign.state(&policy, PromptInput { tokens: &tokens, prompt: None }).is_err());
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

/// Rewards the length of an answer.
struct Length;

impl TextScorer for Length {
    fn score(
        &self,
        exchanges: &[Exchange<'_>],
        _: RewardFormat,
    ) -> stackelberg_engine::Result<Vec<f64>> {
        Ok(exchanges.iter().map(|exchange| exchange.answer.len() as f64).collect())
    }

    fn usual_format(&self) -> RewardFormat {
        RewardFormat::Hh
    }
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
    let model = Reward::Model(Arc::new(model));
    let expected = [open, closed].map(|tokens| model.of_tokens(&policy, &tokens).unwrap());
    let Reward::Model(model) = model else { unreachable!() };
    let prompt = Prompt::Messages(vec![Message::new("user", "w4 w5")]);
    let mut reward = TextReward::new(ForeignModel::of(RewardModel::clone(&model)));
    for (format, expected) in [RewardFormat::Chat, RewardFormat::Closed].into_iter().zip(expected) {
        reward = reward.with_format(format).unwrap();
        assert_eq!(reward.score(&exchanges(&prompt, &["w6 w7"])).unwrap(), [expected], "{format}");
    }
    let refused = |format| TextReward::new(Length).with_format(format).err().unwrap().to_string();
    let closed = refused(RewardFormat::Closed);
    assert!(
        closed.contains("closed text, as it has no chat template: it reads raw, hh, answer"),
        "{closed}"
    );
    assert!(refused(RewardFormat::Pair).contains("for classifiers over an encoder"));
}
