//! Hidden states from a second server: they are those of the model in this process, and what reads them scores as it does here.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use stackelberg_decoding::policy::{End, StateServer};
use stackelberg_decoding::{
    Error, Event, Guidance, Job, Method, Policy, Sample, Sampling, Session, Settings, Step, Want, Watch,
    generate_all, rollout,
};
use stackelberg_engine::Checkpoint;

use crate::common::tiny::D;
use crate::common::{Together, parts, values};
use crate::remote_policy::{Server, request};

/// A server with the states of the tiny policy.
struct States {
    model: Checkpoint,
    all: bool,
    fails: bool,
    /// What was asked in each call.
    calls: Mutex<Vec<Vec<End>>>,
}

impl StateServer for States {
    fn width(&self) -> usize {
        D
    }

    fn context(&self) -> usize {
        self.model.model.context()
    }

    fn gives_all(&self) -> bool {
        self.all
    }

    fn identity(&self) -> String {
        "tiny states".to_owned()
    }

    fn states(&self, ends: &[End]) -> Result<Vec<Vec<f32>>, String> {
        self.calls.lock().unwrap().push(ends.to_vec());
        match self.fails {
            true => Err("the states are broken".to_owned()),
            false => Ok(ends.iter().map(|end| states(&self.model, &end.tokens, end.rows)).collect()),
        }
    }
}

/// The hidden states of the last tokens of a text.
fn states(model: &Checkpoint, text: &[u32], rows: usize) -> Vec<f32> {
    let (_, hidden) = model.model.prefill(text).unwrap();
    hidden.narrow(0, text.len() - rows, rows).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn with_states(all: bool, fails: bool) -> (Policy, Arc<States>) {
    let Policy::Remote(mut remote) = Server::new().policy().0 else { unreachable!() };
    let states = Arc::new(States { model: parts().0.clone(), all, fails, calls: Mutex::default() });
    remote.states = Some(states.clone());
    (Policy::Remote(remote), states)
}

fn sampled() -> Settings {
    Settings {
        sampling: Sampling { temperature: 1.0, ..Sampling::default() },
        samples: 4,
        max_new_tokens: 9,
        ..Settings::default()
    }
}

/// Keeps the samples of each prompt.
#[derive(Default)]
struct Kept(BTreeMap<usize, Vec<Sample>>);

impl Watch for Kept {
    fn samples(&mut self, job: usize, samples: Vec<Sample>) {
        self.0.insert(job, samples);
    }
}

fn samples(policy: impl Into<Policy>, settings: &Settings) -> BTreeMap<usize, Vec<Sample>> {
    let prompts: Vec<Vec<u32>> = (0..30).map(|i| vec![i, 7, i * 3 % 30]).collect();
    let jobs: Vec<Job<'_>> = prompts.iter().map(|prompt| Job { id: "p", prompt, asked: None }).collect();
    let mut kept = Kept::default();
    rollout(policy, Some(&parts().1[0]), &jobs, settings, true, 8, &mut kept).unwrap();
    kept.0
}

#[test]
fn rollouts_have_the_states_and_rewards_of_the_local_policy() {
    let greedy = Settings { samples: 1, max_new_tokens: 40, ..Settings::default() };
    let (policy, server) = with_states(true, false);
    let (here, there) = (samples(&parts().0, &greedy), samples(&policy, &greedy));
    let mut ended = 0;
    for (local, remote) in here.values().flatten().zip(there.values().flatten()) {
        assert_eq!(local.answer.tokens, remote.answer.tokens);
        assert_eq!(local.hidden.len(), D * local.answer.tokens.len());
        assert_eq!(local.hidden, remote.hidden);
        assert_eq!(local.answer.reward, remote.answer.reward);
        ended += usize::from(local.answer.tokens.len() < 40);
    }
    assert!(ended > 0, "no answer ends by itself");
    server.calls.lock().unwrap().clear();
    let drawn = samples(&policy, &sampled());
    for (i, samples) in (0..).zip(drawn.into_values()) {
        for Sample { answer, hidden } in samples {
            let text = [&[i, 7, i * 3 % 30], &answer.tokens[..]].concat();
            assert_eq!(hidden, states(&parts().0, &text, answer.tokens.len()));
            assert_eq!(answer.reward, Some(parts().1[0].of_tokens(&parts().0, &text).unwrap()));
        }
    }
    // One call for all samples of a prompt, unless one is empty: the reward reads the prompt's state then.
    let calls = server.calls.lock().unwrap();
    assert!((30..=60).contains(&calls.len()), "{}", calls.len());
    assert!(calls.iter().any(|ends| ends.len() == 4));
}

/// What a text is worth.
type Scores<'a> = &'a dyn Fn(&[u32]) -> f64;

/// Checks the blocks of an answer: each score is that of the model in this process, and the best one was kept; of finished
/// answers the one with the best reward. Returns how many blocks there were.
fn check_blocks(prompt: &[u32], steps: &[Step], score: Scores<'_>, reward: Scores<'_>) -> usize {
    let (mut text, mut blocks) = (prompt.to_vec(), 0);
    let mut at = 0;
    while at < steps.len() {
        let block = steps[at].block.as_ref().unwrap();
        for (continuation, found) in block.continuations.iter().zip(&block.scores) {
            let expected = score(&[&text[..], continuation].concat());
            assert!((expected - found).abs() < 1e-6, "{expected} {found}");
        }
        let chosen = steps[at].continuation.unwrap();
        at += block.continuations[chosen].len();
        let worth = |continuation: &Vec<u32>| match at == steps.len() {
            true => reward(&[&text[..], continuation].concat()),
            false => score(&[&text[..], continuation].concat()),
        };
        let best = worth(&block.continuations[chosen]) + 1e-6;
        assert!(block.continuations.iter().all(|continuation| worth(continuation) <= best));
        text.extend(&block.continuations[chosen]);
        blocks += 1;
    }
    blocks
}

#[test]
fn blocks_are_scored_by_states_all_at_once() {
    let (model, [head, reward, _]) = parts();
    let value = &values()[0];
    let of_value = |text: &[u32]| {
        let (_, hidden) = model.model.prefill(text).unwrap();
        value.score(&hidden.narrow(0, text.len() - 1, 1).unwrap()).unwrap()[0]
    };
    let of_head = |text: &[u32]| head.of_tokens(model, text).unwrap();
    let cases: [(Guidance<'_>, Scores<'_>); 2] = [
        (Guidance { reward: Some(reward), value: Some(value) }, &of_value),
        (Guidance { reward: Some(head), value: None }, &of_head),
    ];
    for (guidance, score) in cases {
        // The last states alone are enough.
        let (policy, server) = with_states(false, false);
        let settings = Settings { method: Method::Blockwise, block: 3, no_eos: true, ..sampled() };
        let prompts: Vec<Vec<u32>> = (0..6).map(|i| vec![i, 7, i * 3 % 30]).collect();
        let ids: Vec<String> = (0..6).map(|i| format!("prompt {i}")).collect();
        let jobs: Vec<Job<'_>> =
            ids.iter().zip(&prompts).map(|(id, prompt)| Job { id, prompt, asked: None }).collect();
        let mut together = Together::default();
        generate_all(&policy, guidance, &jobs, &settings, 3, &mut together).unwrap();
        for (job, (steps, answer)) in &together.0 {
            let of_reward = |text: &[u32]| guidance.reward.unwrap().of_tokens(model, text).unwrap();
            assert_eq!(check_blocks(&prompts[*job], steps, score, &of_reward), 3);
            let answer = answer.as_ref().unwrap();
            let whole = [&prompts[*job][..], &answer.tokens].concat();
            assert!((answer.reward.unwrap() - of_reward(&whole)).abs() < 1e-6);
        }
        let calls = server.calls.lock().unwrap();
        assert_eq!(calls.len(), 6 * 3);
        assert!(calls.iter().all(|ends| ends.len() == 4 && ends.iter().all(|end| end.rows == 1)));
    }
    // Of particles and of finished answers.
    for method in [Method::Particles, Method::BestOfN, Method::Follower, Method::Base] {
        let (policy, server) = with_states(false, false);
        let settings = Settings { method, block: 3, ..sampled() };
        let guidance = Guidance { reward: Some(head), value: None };
        let job = Job { id: "p", prompt: &[3, 1, 4], asked: None };
        let mut together = Together::default();
        generate_all(&policy, guidance, &[job], &settings, 8, &mut together).unwrap();
        let answer = together.0[&0].1.as_ref().unwrap();
        let whole = [&[3, 1, 4], &answer.tokens[..]].concat();
        assert!((answer.reward.unwrap() - of_head(&whole)).abs() < 1e-6, "{method}");
        assert!(!server.calls.lock().unwrap().is_empty());
    }
}

#[test]
fn a_failure_is_that_of_its_request() {
    let (policy, _) = with_states(true, true);
    let mut session = Session::new(policy, 8.into());
    let blocks = Settings { method: Method::Blockwise, block: 3, ..sampled() };
    let mut by_value = request(vec![1, 2], blocks);
    by_value.value = Some(values()[0].clone());
    let mut by_head = request(vec![1, 2], Settings { method: Method::BestOfN, ..sampled() });
    by_head.reward = Some(parts().1[0].clone());
    let mut hidden = request(vec![1, 2], sampled());
    (hidden.want, hidden.reward) = (Want::Samples { hidden: true }, None);
    let broken = [by_value, by_head, hidden].map(|request| session.submit(request).unwrap());
    let good = session.submit(request(vec![1, 2], sampled())).unwrap();
    let mut outcomes = BTreeMap::new();
    while !session.is_idle() {
        for event in session.step() {
            match event {
                Event::Done { ticket, .. } => drop(outcomes.insert(ticket, "done".to_owned())),
                Event::Failed { ticket, error } => drop(outcomes.insert(ticket, error.to_string())),
                Event::Token { .. } => {}
            }
        }
    }
    assert_eq!(outcomes[&good], "done");
    assert!(broken.iter().all(|ticket| outcomes[ticket] == "the states are broken"), "{outcomes:?}");
}

#[test]
fn what_states_are_not_enough_for_is_refused() {
    let (policy, server) = with_states(false, false);
    assert!(policy.fingerprint().ends_with("; states of tiny states"), "{}", policy.fingerprint());
    let mut session = Session::new(policy, 8.into());
    let mut hidden = request(vec![1, 2], sampled());
    hidden.want = Want::Samples { hidden: true };
    let args = Settings { method: Method::Args, candidates: 5, ..Settings::default() };
    let mut head = request(vec![1, 2], args.clone());
    head.reward = Some(parts().1[0].clone());
    let mut cd = request(vec![1, 2], Settings { method: Method::Cd, ..args });
    cd.value = Some(values()[0].clone());
    for (request, problem) in [
        (hidden, "start that server with --pooler-config.task token_embed"),
        (head, "the hidden states of candidates, which this reward reads"),
        (cd, "the hidden states of candidates, which the method cd reads"),
    ] {
        match session.submit(request) {
            Err(Error::NotRemote(said)) => assert!(said.contains(problem), "{said} lacks {problem}"),
            other => panic!("{problem}: {other:?}"),
        }
    }
    assert!(server.calls.lock().unwrap().is_empty());
}
