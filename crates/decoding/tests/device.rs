//! A guided answer is the same, token by token, whichever way the models are run.

use std::sync::Arc;

use crate::common::tiny::{D, Tiny};
use stackelberg_decoding::{Generation, Guidance, Method, Settings, Step, Watch, generate};
use stackelberg_engine::reward::{Head, ValueHead};
use stackelberg_engine::{Checkpoint, Device, Dtype, Reward};

#[derive(Default)]
struct Steps(Vec<Step>);

impl Watch for Steps {
    fn step(&mut self, _: usize, _: usize, step: &Step, _: &str) {
        self.0.push(step.clone());
    }
}

fn wave(n: usize) -> Vec<f32> {
    (0..n).map(|i| (i as f32 * 2.3).sin()).collect()
}

#[test]
fn guided_answers_are_the_same_on_a_device() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    Tiny::default().write(&at("policy"));
    Tiny { seed: 5, labels: Some(1), ..Tiny::default() }.write(&at("reward"));
    let mut places = vec![Device::Candle];
    places.extend(cfg!(feature = "cuda").then_some(Device::Cuda(0)));
    places.extend(cfg!(feature = "metal").then_some(Device::Metal(0)));
    let answers = |place: Device| {
        let policy = Checkpoint::load_on(&at("policy"), Dtype::F32, place).unwrap();
        let model = Reward::load(&at("reward"), &policy, Dtype::F32).unwrap();
        let head = Reward::Head(Arc::new(Head::new(wave(D))));
        let value = [(wave(6 * D), wave(6)), (wave(6 * 35), wave(35)), (wave(35), wave(1))];
        let value = Arc::new(ValueHead::new(D, value));
        let value = Guidance { reward: Some(&head), value: Some(&value) };
        let mut all: Vec<(Generation, Vec<Step>)> = Vec::new();
        for (method, guidance) in [
            (Method::Base, Some(&head).into()),
            (Method::Args, Some(&head).into()),
            (Method::Args, Some(&model).into()),
            (Method::Cd, value),
            (Method::BestOfN, Some(&model).into()),
        ] {
            for prompt in [&[4, 9][..], &[7; 70]] {
                let mut settings = Settings { method, samples: 3, no_eos: true, ..Settings::default() };
                settings.max_new_tokens = 40;
                settings.sampling.temperature = if method == Method::BestOfN { 1.0 } else { 0.0 };
                let mut steps = Steps::default();
                let answer = generate(&policy, guidance, prompt, "p", &settings, &mut steps).unwrap();
                all.push((answer, steps.0));
            }
        }
        all
    };
    let expected = answers(Device::Cpu);
    assert!(expected[2].0.tokens != expected[0].0.tokens, "guidance says nothing");
    for place in places {
        for ((found, steps), (answer, known)) in answers(place).iter().zip(&expected) {
            assert_eq!(found.tokens, answer.tokens, "{place}");
            assert_eq!(steps.len(), known.len());
            let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-4, "{a} is not {b}");
            near(found.reward.unwrap(), answer.reward.unwrap());
            for (step, known) in steps.iter().zip(known) {
                assert_eq!(step.candidates, known.candidates, "{place}");
                step.logits.iter().zip(&known.logits).for_each(|(a, b)| near(*a, *b));
                let rewards = step.rewards.iter().flatten().zip(known.rewards.iter().flatten());
                rewards.for_each(|(a, b)| near(*a, *b));
            }
        }
    }
}
