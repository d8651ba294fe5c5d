//! A policy on a server: its answers are those of the same model in this process, and what it cannot do is refused.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use proptest::prelude::*;
use stackelberg_decoding::policy::{
    Answered, Call, Drawn, Found, InFlight, Likeliest, PolicyServer, Wanted,
};
use stackelberg_decoding::{
    Error, Event, Generation, Keep, Method, Policy, Randomness, RemotePolicy, Request, Sampling,
    Session, Settings, Step, Want, generate, generate_all, rollout,
};
use stackelberg_engine::Checkpoint;
use stackelberg_shaping::Rule;

use crate::common::{Steps, Together, config, parts, run, settings, values};

/// A server with the tiny policy. It answers late, and in any order.
pub struct Server {
    model: Checkpoint,
    most: usize,
    calls: AtomicUsize,
    /// Answers of all calls.
    answers: Arc<AtomicUsize>,
    cancelled: Arc<AtomicUsize>,
    /// The most continuations of a call.
    together: usize,
    /// Prompts that begin with this token are refused.
    refuses: Option<u32>,
}

impl Server {
    pub fn new() -> Self {
        Self {
            model: parts().0.clone(),
            most: 20,
            calls: AtomicUsize::new(0),
            answers: Arc::default(),
            cancelled: Arc::default(),
            together: 3,
            refuses: None,
        }
    }

    pub fn policy(self) -> (Policy, Arc<Self>) {
        let (text, server) = (self.model.text.clone(), Arc::new(self));
        (Policy::Remote(RemotePolicy { text, server: server.clone(), states: None }), server)
    }
}

/// Log-probabilities of the next token, likeliest first.
fn next(model: &Checkpoint, tokens: &[u32]) -> Vec<(u32, f64)> {
    let (_, hidden) = model.model.prefill(tokens).unwrap();
    let last = hidden.narrow(0, tokens.len() - 1, 1).unwrap();
    let logits: Vec<f32> = model.model.logits(&last).unwrap().flatten_all().unwrap().to_vec1().unwrap();
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let log_z = logits.iter().map(|l| f64::from(l - most).exp()).sum::<f64>().ln() + f64::from(most);
    let mut all: Vec<(u32, f64)> = (0..).zip(logits.iter().map(|&l| f64::from(l) - log_z)).collect();
    all.sort_by(|(a, one), (b, other)| other.total_cmp(one).then(a.cmp(b)));
    all
}

fn answer(model: &Checkpoint, most: usize, call: &Call) -> Vec<Found> {
    match &call.wanted {
        Wanted::Likeliest { k } => {
            assert!(*k <= most);
            let likeliest = next(model, &call.tokens).into_iter().take(*k).collect();
            vec![Found::Likeliest(Likeliest(likeliest))]
        }
        Wanted::Continuation { n, tokens, settings, seed, log_probs, .. } => {
            assert!(*n == 1 || settings.sampling.temperature > 0.0, "servers refuse this");
            let drawn = |seed| continuation(model, &call.tokens, *tokens, settings, seed, *log_probs);
            (*seed..seed + *n as u64).map(drawn).collect()
        }
    }
}

fn continuation(
    model: &Checkpoint,
    prompt: &[u32],
    tokens: usize,
    settings: &Settings,
    seed: u64,
    log_probs: usize,
) -> Found {
    let mut randomness = Randomness::new(seed, "draws", 0);
    let (mut text, mut drawn) = (prompt.to_vec(), Vec::new());
    while drawn.len() < tokens {
        let all = next(model, &text);
        let mut left = randomness.uniform();
        let taken = all.iter().find(|(_, log_prob)| {
            left -= log_prob.exp();
            left < 0.0 || settings.sampling.temperature == 0.0
        });
        let &(token, log_prob) = taken.unwrap_or(&all[0]);
        let likeliest = Likeliest(all.into_iter().take(log_probs).collect());
        drawn.push(Drawn { token, log_prob, likeliest });
        text.push(token);
        if !settings.no_eos && model.eos.contains(&token) {
            return Found::Continuation { tokens: drawn, ended: true };
        }
    }
    Found::Continuation { tokens: drawn, ended: false }
}

impl PolicyServer for Server {
    fn context(&self) -> usize {
        self.model.model.context()
    }

    fn most_log_probs(&self) -> usize {
        self.most
    }

    fn most_continuations(&self) -> usize {
        self.together
    }

    fn model(&self) -> &str {
        "tiny"
    }

    fn identity(&self) -> String {
        "tiny".to_owned()
    }

    fn ask(&self, call: Call, answered: Answered) -> InFlight {
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        self.answers.fetch_add(call.wanted.n(), Ordering::Relaxed);
        let (model, most, cancelled) = (self.model.clone(), self.most, self.cancelled.clone());
        let refused = self.refuses.is_some_and(|token| call.tokens[0] == token);
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_micros(400 * (7 - number as u64 * 3 % 7)));
            answered(match refused {
                true => Err("the server is broken".to_owned()),
                false => Ok(answer(&model, most, &call)),
            });
        });
        InFlight::new(move || {
            cancelled.fetch_add(1, Ordering::Relaxed);
        })
    }
}

fn run_remote(policy: &Policy, prompt: &[u32], settings: &Settings) -> (Generation, Vec<Step>) {
    let mut steps = Steps::default();
    let answer = generate(policy, Some(&parts().1[1]), prompt, "p", settings, &mut steps).unwrap();
    (answer, steps.0)
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-4 * (1.0 + a.abs())
}

proptest! {
    #![proptest_config(config(40))]

    /// Greedy answers are those of the local model: base, token by token, and segment by segment.
    #[test]
    fn greedy_answers_are_the_local_ones(
        base in settings(), length in 1..20usize, method in 0..3usize, seed in 0..9u64,
        skip in any::<bool>(), eos in any::<bool>(),
    ) {
        let settings = Settings {
            method: if method == 0 { Method::Base } else { Method::Args },
            score_every: if method == 2 { 3 } else { 1 },
            skip,
            no_eos: !eos,
            ..base
        };
        let prompt: Vec<u32> = (0..length).map(|i| ((i * 7 + seed as usize) % 30) as u32).collect();
        let (policy, _) = Server::new().policy();
        let (local, remote) = (run(1, &prompt, &settings), run_remote(&policy, &prompt, &settings));
        let ((local, local_steps), (remote, remote_steps)) = (local, remote);
        prop_assert_eq!(&local.tokens, &remote.tokens);
        prop_assert_eq!(&local.text, &remote.text);
        prop_assert_eq!(local.finish, remote.finish);
        prop_assert_eq!(local.steered, remote.steered);
        prop_assert_eq!(local.skipped, remote.skipped);
        prop_assert!(close(local.mean_log_prob, remote.mean_log_prob));
        prop_assert!(close(local.tail_nll.unwrap(), remote.tail_nll.unwrap()));
        prop_assert_eq!(local.reward, remote.reward);
        prop_assert_eq!(local_steps.len(), remote_steps.len());
        for (local, remote) in local_steps.iter().zip(&remote_steps) {
            prop_assert_eq!(local.chosen, remote.chosen);
            prop_assert_eq!(&local.rewards, &remote.rewards);
            prop_assert_eq!(local.base_choice, remote.base_choice);
            prop_assert!(close(local.log_prob, remote.log_prob));
            if method > 0 {
                prop_assert_eq!(&local.candidates, &remote.candidates);
                prop_assert_eq!(&local.continuations, &remote.continuations);
            }
        }
    }
}

/// Methods that draw, with several samples each.
fn drawing() -> Vec<Settings> {
    let sampled = Settings {
        sampling: Sampling { temperature: 1.0, ..Sampling::default() },
        max_new_tokens: 9,
        samples: 4,
        ..Settings::default()
    };
    let of = |method, block, keep| {
        let mut settings = Settings { method, block, keep, ..sampled.clone() };
        settings.shaping.rule = Rule::Srs;
        settings
    };
    vec![
        of(Method::Base, 4, Keep::Best),
        of(Method::BestOfN, 4, Keep::Best),
        of(Method::Follower, 4, Keep::Best),
        of(Method::Blockwise, 4, Keep::Best),
        of(Method::Blockwise, 3, Keep::Draw),
        of(Method::Particles, 2, Keep::Draw),
        Settings { reject: 0.4, ..of(Method::BestOfN, 3, Keep::Best) },
        Settings { score_every: 3, candidates: 4, ..of(Method::Args, 4, Keep::Best) },
        of(Method::Args, 4, Keep::Best),
    ]
}

/// Seeds decide what a server draws: not how many sequences are under way, nor the order of its answers.
#[test]
fn seeds_decide_drawn_answers() {
    let (policy, _) = Server::new().policy();
    let reward = Some(&parts().1[1]);
    for settings in drawing() {
        let prompts: Vec<Vec<u32>> = (0..5).map(|i| vec![i, 7, i * 3 % 30]).collect();
        let ids: Vec<String> = (0..5).map(|i| format!("prompt {i}")).collect();
        let jobs: Vec<_> = ids
            .iter()
            .zip(&prompts)
            .map(|(id, prompt)| stackelberg_decoding::Job { id, prompt, asked: None })
            .collect();
        let mut runs = Vec::new();
        for at_once in [1, 4] {
            let mut together = Together::default();
            generate_all(&policy, reward, &jobs, &settings, at_once, &mut together).unwrap();
            let timeless = |answer: Generation| Generation { elapsed: Duration::ZERO, ..answer };
            let answers: BTreeMap<usize, _> = together
                .0
                .into_iter()
                .map(|(job, (steps, answer))| (job, (steps, answer.map(timeless))))
                .collect();
            runs.push(answers);
        }
        assert_eq!(runs[0], runs[1], "{settings:?}");
        for (steps, answer) in runs[0].values() {
            let answer = answer.as_ref().unwrap();
            // Of what is scored at the end, the reward is that of the text.
            let whole = &parts().1[1];
            let job = runs[0].values().position(|(_, other)| other.as_ref() == Some(answer)).unwrap();
            let text = [&prompts[job][..], &answer.tokens].concat();
            assert!(close(whole.of_tokens(&parts().0, &text).unwrap(), answer.reward.unwrap()));
            assert!(answer.tokens_run >= answer.tokens.len());
            let chosen: Vec<u32> = steps.iter().map(|step| step.chosen).collect();
            assert!(chosen.starts_with(&answer.tokens));
            for block in steps.iter().filter_map(|step| Some((step.block.as_ref()?, step.continuation?)))
            {
                let (block, chosen) = block;
                assert_eq!(block.scores.len(), 4);
                if settings.keep == Keep::Best && settings.method == Method::Blockwise {
                    assert!(block.scores.iter().all(|score| *score <= block.scores[chosen]));
                }
            }
        }
    }
}

/// Samples of a prompt, and continuations of the same text, share calls; what is asked for is the same.
#[test]
fn lines_that_continue_the_same_text_share_a_call() {
    let count = |settings: &Settings, together: usize| {
        let (policy, server) = Server { together, ..Server::new() }.policy();
        let prompt = [4, 7, 12];
        let job = stackelberg_decoding::Job { id: "p", prompt: &prompt, asked: None };
        let reward = Some(&parts().1[1]);
        generate_all(&policy, reward, &[job], settings, 1, &mut Together::default()).unwrap();
        (server.calls.load(Ordering::Relaxed), server.answers.load(Ordering::Relaxed))
    };
    let sampled = drawing()[1].clone();
    let best = Settings { method: Method::BestOfN, samples: 20, no_eos: true, ..sampled };
    assert_eq!(count(&best, 1), (20, 20));
    assert_eq!(count(&best, 16), (2, 20));
    let blocks = Settings { method: Method::Blockwise, samples: 6, block: 3, ..best.clone() };
    assert_eq!(count(&blocks, 16), (3, 18));
    // A call for several greedy continuations would be refused.
    let greedy =
        Settings { sampling: Sampling { temperature: 0.0, ..best.sampling }, samples: 5, ..best };
    assert_eq!(count(&greedy, 16), (5, 5));
}

/// Samples of the server are samples of the policy: the first tokens have its distribution.
#[test]
fn samples_have_the_distribution_of_the_policy() {
    let (policy, _) = Server::new().policy();
    let settings = Settings {
        samples: 600,
        max_new_tokens: 1,
        sampling: Sampling { temperature: 1.0, ..Sampling::default() },
        ..Settings::default()
    };
    struct Samples(Vec<u32>);
    impl stackelberg_decoding::Watch for Samples {
        fn samples(&mut self, _: usize, samples: Vec<stackelberg_decoding::Sample>) {
            self.0 = samples
                .iter()
                .map(|sample| sample.answer.tokens.first().copied().unwrap_or(u32::MAX))
                .collect();
        }
    }
    let prompt = [3, 1, 4];
    let job = stackelberg_decoding::Job { id: "p", prompt: &prompt, asked: None };
    let mut samples = Samples(Vec::new());
    rollout(&policy, None, &[job], &settings, false, 50, &mut samples).unwrap();
    assert_eq!(samples.0.len(), 600);
    for (token, log_prob) in next(&parts().0, &prompt).into_iter().take(5) {
        let token = if parts().0.eos.contains(&token) { u32::MAX } else { token };
        let (p, n) = (log_prob.exp(), samples.0.iter().filter(|&&other| other == token).count() as f64);
        assert!(
            (n / 600.0 - p).abs() < 4.5 * (p * (1.0 - p) / 600.0).sqrt(),
            "{token}: {n} of 600, {p}"
        );
    }
}

/// A request whose reward is a model of its own.
pub fn request(prompt: Vec<u32>, settings: Settings) -> Request {
    Request {
        id: "p".to_owned(),
        prompt,
        asked: None,
        settings: Arc::new(settings),
        reward: Some(parts().1[1].clone()),
        value: None,
        want: Want::Answer,
        steps: false,
    }
}

/// A call that fails ends its own request alone; calls of a cancelled request are cancelled.
#[test]
fn failures_and_cancelled_requests_are_their_own() {
    let (policy, server) = Server { refuses: Some(9), ..Server::new() }.policy();
    let mut session = Session::new(policy, 8.into());
    let settings = Settings { method: Method::Blockwise, ..drawing()[3].clone() };
    let good = session.submit(request(vec![1, 2], settings.clone())).unwrap();
    let bad = session.submit(request(vec![9, 2], settings.clone())).unwrap();
    let gone =
        session.submit(request(vec![3, 2], Settings { max_new_tokens: 900, ..settings })).unwrap();
    let mut outcomes = BTreeMap::new();
    let mut steps = 0;
    while !session.is_idle() {
        for event in session.step() {
            match event {
                Event::Done { ticket, .. } => drop(outcomes.insert(ticket, "done".to_owned())),
                Event::Failed { ticket, error } => drop(outcomes.insert(ticket, error.to_string())),
                Event::Token { .. } => {}
            }
        }
        steps += 1;
        if steps == 3 {
            session.cancel(gone);
        }
    }
    let expected = [(good, "done".to_owned()), (bad, "the server is broken".to_owned())];
    assert_eq!(outcomes, BTreeMap::from(expected));
    // Every call is let go once, whether or not it was answered.
    let deadline = std::time::Instant::now() + Duration::from_secs(5);
    while server.cancelled.load(Ordering::Relaxed) < server.calls.load(Ordering::Relaxed) {
        assert!(std::time::Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// What a server cannot do is refused before anything is asked, with what to do.
#[test]
fn what_a_server_cannot_do_is_refused() {
    let (policy, server) = Server { most: 5, ..Server::new() }.policy();
    let mut session = Session::new(policy, 8.into());
    let args = Settings { method: Method::Args, candidates: 5, ..Settings::default() };
    let sampled = Sampling { temperature: 1.0, ..Sampling::default() };
    let blocks = Settings { method: Method::Blockwise, sampling: sampled, ..args.clone() };
    let penalty = |sampling: Sampling| Sampling { presence_penalty: 0.5, ..sampling };
    let mut said = |change: &dyn Fn(&mut Request), settings: Settings| {
        let mut request = request(vec![1], settings);
        change(&mut request);
        match session.submit(request) {
            Err(Error::NotRemote(problem)) => problem,
            Err(other) => panic!("{other}"),
            Ok(ticket) => {
                session.cancel(ticket);
                String::new()
            }
        }
    };
    let none = |_: &mut Request| ();
    assert_eq!(said(&none, args.clone()), "");
    assert_eq!(said(&none, blocks.clone()), "");
    let head = |request: &mut Request| request.reward = Some(parts().1[0].clone());
    let value = |request: &mut Request| request.value = Some(values()[0].clone());
    let hidden = |request: &mut Request| request.want = Want::Samples { hidden: true };
    type Change<'a> = &'a dyn Fn(&mut Request);
    let cases: [(Change<'_>, Settings, &str); 10] = [
        (&head, args.clone(), "hidden states of candidates, which this reward reads"),
        (&head, blocks.clone(), "hidden states, which this reward reads: name a server"),
        (&value, blocks.clone(), "hidden states, which value heads read"),
        (&hidden, args.clone(), "hidden states: leave them out"),
        (&value, Settings { method: Method::Cd, ..args.clone() }, "which the method cd reads"),
        (
            &none,
            Settings { candidates: 6, ..args.clone() },
            "gives 5 log-probabilities a step: lower --candidates to 5",
        ),
        (&none, Settings { sampling: penalty(args.sampling), ..args.clone() }, "penalties and biases"),
        (&none, Settings { logit_bias: [(1, 1.0)].into(), ..args.clone() }, "penalties and biases"),
        (
            &none,
            Settings { entropy_gate: 0.5, sampling: sampled, ..args.clone() },
            "leave out --entropy-gate",
        ),
        (&none, Settings { sampling: penalty(sampled), ..blocks.clone() }, "each block alone"),
    ];
    for (change, settings, problem) in cases {
        let found = said(change, settings);
        assert!(found.contains(problem), "{found:?} lacks {problem:?}");
    }
    let repeats = Sampling { repetition_penalty: 1.2, ..sampled };
    let base = Settings { method: Method::Base, sampling: repeats, ..Settings::default() };
    assert!(said(&none, base).contains("counts the prompt"));
    assert_eq!(server.calls.load(Ordering::Relaxed), 0);
}
