//! One session for requests that come and go: every answer is what it would be alone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use stackelberg_decoding::{
    Error, Event, Generation, Keep, Limits, Method, Perturbation, Request, Sampling, Session, Settings,
    Step, Ticket, Want,
};
use stackelberg_engine::reward::{Exchange, RewardFormat, TextReward, TextScorer};
use stackelberg_engine::{Prompt, Reward, kernel};
use stackelberg_shaping::{Rule, Shaping};

use crate::common::{config, parts, settings, values};

/// A reward that reads text and answers late, as a server does. It refuses some texts.
struct Late;

impl TextScorer for Late {
    fn score(
        &self,
        exchanges: &[Exchange<'_>],
        _: RewardFormat,
    ) -> stackelberg_engine::Result<Vec<f64>> {
        let thread = std::thread::current();
        assert_eq!(
            thread.name(),
            Some("reward"),
            "what takes long must not be asked where tokens are decoded"
        );
        std::thread::sleep(Duration::from_micros(300));
        if exchanges.iter().any(|exchange| *exchange.prompt == Prompt::Text("refused".to_owned())) {
            return Err(stackelberg_engine::Error::Scorer("the server refuses".to_owned()));
        }
        let value = |e: &Exchange<'_>| {
            e.answer.bytes().enumerate().map(|(i, b)| f64::from(b) * (i as f64).sin()).sum::<f64>()
                / 40.0
        };
        Ok(exchanges.iter().map(value).collect())
    }

    fn usual_format(&self) -> RewardFormat {
        RewardFormat::Answer
    }

    fn is_remote(&self) -> bool {
        true
    }
}

fn late() -> &'static Reward {
    static LATE: OnceLock<Reward> = OnceLock::new();
    LATE.get_or_init(|| Reward::Text(Arc::new(TextReward::new(Late))))
}

/// What a request is made of, drawn at random.
#[derive(Debug, Clone)]
struct Plan {
    settings: Settings,
    method: usize,
    reward: usize,
    prompt: Vec<u32>,
    all: bool,
    /// The step of the session with which it arrives, and the one with which it is cancelled, if it is.
    arrives: usize,
    cancelled: Option<usize>,
}

fn plan() -> impl Strategy<Value = Plan> {
    let more = (0..12usize, 0..4usize, 1..30usize, any::<bool>(), 1..9usize, 0..40u64);
    let temperature = prop_oneof![Just(0.0), Just(0.8)];
    let coming = (0..12usize, prop::option::weighted(0.15, 0..10usize));
    let budget = prop::option::weighted(0.2, 0.05..1.0f64);
    let stops = prop::collection::vec(prop::sample::select(vec!["w1 w", "w2", "1 w3", " w", "9"]), 0..3);
    (settings(), more, temperature, coming, (budget, stops)).prop_map(
        |(
            base,
            (method, reward, length, all, tokens, seed),
            temperature,
            (arrives, after),
            (budget, stops),
        )| {
            let mut settings = Settings {
                max_new_tokens: tokens,
                samples: 3,
                seed,
                sampling: Sampling { temperature, ..Sampling::default() },
                stop: stops.into_iter().map(str::to_owned).collect(),
                ..base
            };
            settings.method = [
                Method::Base,
                Method::Args,
                Method::Args,
                Method::Cd,
                Method::BestOfN,
                Method::SoftBestOfN,
                Method::Follower,
                Method::Args,
                Method::Cd,
                Method::Blockwise,
                Method::Blockwise,
                Method::Particles,
            ][method];
            match method {
                2 => settings.score_every = 3,
                7 => settings.perturbation = Perturbation::Noise(0.5),
                8 => {
                    settings.beams = 3;
                    settings.sampling.temperature = 0.0;
                }
                // Every other best-of-n drops samples.
                4 if seed % 2 == 1 => {
                    settings.sampling.temperature = 0.8;
                    settings.block = 1 + seed as usize % tokens;
                    settings.reject = 0.4;
                }
                4..=6 => settings.sampling.temperature = 0.8,
                9..=11 => {
                    settings.sampling.temperature = 0.8;
                    settings.block = 1 + seed as usize % tokens;
                    settings.keep = if method == 9 { Keep::Best } else { Keep::Draw };
                }
                _ => {}
            }
            if method == 1 {
                settings.kl_budget = budget;
                settings.shaping = Shaping { rule: Rule::Srs, ..settings.shaping };
            }
            let prompt = (0..length).map(|i| ((i * 7 + seed as usize) % 30) as u32).collect();
            let cancelled = after.map(|after| arrives + after);
            Plan { settings, method, reward, prompt, all: all && method == 0, arrives, cancelled }
        },
    )
}

fn request(number: usize, plan: &Plan) -> Request {
    let reward = match plan.reward {
        3 => late().clone(),
        reward => parts().1[reward].clone(),
    };
    let valued = plan.settings.method == Method::Cd || plan.method == 10;
    let value = valued.then(|| values()[plan.method % 2].clone());
    Request {
        id: format!("request {number}"),
        prompt: plan.prompt.clone(),
        asked: Some(Arc::new(Prompt::Text("asked".to_owned()))),
        settings: Arc::new(plan.settings.clone()),
        reward: Some(reward),
        value,
        want: if plan.all { Want::Samples { hidden: true } } else { Want::Answer },
        steps: true,
    }
}

/// What came of a request: its answers with hidden states, its steps, and the text as it was told.
#[derive(Debug, Default, PartialEq)]
struct Outcome {
    samples: Vec<(Generation, Vec<u32>)>,
    steps: Vec<Step>,
    text: String,
    failed: Option<String>,
    done: bool,
}

impl Outcome {
    fn take(&mut self, event: Event, all: bool) {
        assert!(!self.done, "an event after the end");
        match event {
            Event::Token { number, step, text, .. } => {
                // The samples of a prompt are told in whatever order they are decoded.
                if !all {
                    assert_eq!(number, self.steps.len());
                    self.steps.push(*step);
                    self.text.push_str(&text);
                }
            }
            Event::Done { samples, .. } => {
                let bits = |hidden: Vec<f32>| hidden.into_iter().map(f32::to_bits).collect();
                let timeless = |answer| Generation { elapsed: Duration::ZERO, ..answer };
                let samples = samples.into_iter().map(|s| (timeless(s.answer), bits(s.hidden)));
                self.samples = samples.collect();
                self.done = true;
            }
            Event::Failed { error, .. } => {
                self.failed = Some(error.to_string());
                self.done = true;
            }
        }
    }
}

/// The outcome of a request in a session of its own.
fn alone(number: usize, plan: &Plan) -> Outcome {
    let limits = Limits { sequences: 1, prefill: 1000, cache: 0 };
    let mut session = Session::new(parts().0.clone(), limits);
    session.submit(request(number, plan)).unwrap();
    let mut outcome = Outcome::default();
    while !session.is_idle() {
        session.step().into_iter().for_each(|event| outcome.take(event, plan.all));
    }
    outcome
}

proptest! {
    #![proptest_config(config(60))]

    /// Random requests, random arrival, cancellation and limits; with one thread and with two.
    #[test]
    fn every_answer_is_what_it_would_be_alone(
        plans in prop::collection::vec(plan(), 2..9), sequences in 1..8usize, prefill in 1..20usize,
        cache in prop_oneof![Just(0), Just(1 << 30)], threads in 1..3usize,
    ) {
        kernel::set_threads(threads);
        let mut session = Session::new(parts().0.clone(), Limits { sequences, prefill, cache });
        let mut outcomes: BTreeMap<Ticket, (usize, Outcome)> = BTreeMap::new();
        let mut tickets = vec![None; plans.len()];
        let mut now = 0;
        while !session.is_idle() || plans.iter().any(|plan| plan.arrives >= now) {
            for (number, plan) in plans.iter().enumerate() {
                if plan.arrives == now {
                    let ticket = session.submit(request(number, plan)).unwrap();
                    tickets[number] = Some(ticket);
                    outcomes.insert(ticket, (number, Outcome::default()));
                }
                if plan.cancelled == Some(now)
                    && let Some(ticket) = tickets[number]
                {
                    session.cancel(ticket);
                }
            }
            for event in session.step() {
                let (number, outcome) = outcomes.get_mut(&event.ticket()).unwrap();
                outcome.take(event, plans[*number].all);
            }
            now += 1;
        }
        for (number, outcome) in outcomes.into_values() {
            let plan = &plans[number];
            if !outcome.done {
                prop_assert!(plan.cancelled.is_some(), "request {} never ended", number);
                continue;
            }
            prop_assert_eq!(&outcome, &alone(number, plan), "request {}: {:?}", number, plan);
            if !plan.all && outcome.failed.is_none() {
                prop_assert_eq!(&outcome.text, &outcome.samples[0].0.text);
            }
        }
        kernel::set_threads(2);
    }
}

/// A plan of a method with its usual settings.
fn usual(method: usize, reward: usize, length: usize) -> Plan {
    let settings = Settings {
        method: if method == 0 { Method::Base } else { Method::Args },
        max_new_tokens: 8,
        no_eos: true,
        candidates: 4,
        ..Settings::default()
    };
    let prompt = (0..length).map(|i| (i * 5 % 30) as u32).collect();
    Plan { settings, method, reward, prompt, all: false, arrives: 0, cancelled: None }
}

fn run(session: &mut Session) -> BTreeMap<Ticket, Outcome> {
    let mut outcomes: BTreeMap<Ticket, Outcome> = BTreeMap::new();
    while !session.is_idle() {
        for event in session.step() {
            outcomes.entry(event.ticket()).or_default().take(event, false);
        }
    }
    outcomes
}

/// A request whose reward fails is told, and nobody else notices.
#[test]
fn a_failing_request_fails_alone() {
    let mut session = Session::new(parts().0.clone(), Limits::default());
    let plans = [usual(1, 3, 5), usual(1, 3, 6), usual(1, 0, 4), usual(0, 1, 3)];
    let mut tickets = Vec::new();
    for (number, plan) in plans.iter().enumerate() {
        let mut request = request(number, plan);
        if number == 1 {
            request.asked = Some(Arc::new(Prompt::Text("refused".to_owned())));
        }
        tickets.push(session.submit(request).unwrap());
    }
    let outcomes = run(&mut session);
    for (number, plan) in plans.iter().enumerate() {
        let outcome = &outcomes[&tickets[number]];
        match number {
            1 => assert!(outcome.failed.as_ref().unwrap().contains("the server refuses")),
            _ => assert_eq!(outcome, &alone(number, plan)),
        }
    }
}

/// What cannot be answered is refused when it is handed in.
#[test]
fn requests_that_cannot_be_answered_are_refused() {
    let mut session = Session::new(parts().0.clone(), Limits::default());
    let refused = |session: &mut Session, request: Request| session.submit(request).unwrap_err();
    let good = || request(0, &usual(1, 0, 4));
    assert!(matches!(
        refused(&mut session, Request { reward: None, ..good() }),
        Error::NoReward("args")
    ));
    let settings = Arc::new(Settings { method: Method::Cd, ..Settings::default() });
    let cd = Request { settings, value: None, ..good() };
    assert!(matches!(refused(&mut session, cd), Error::NoValueHead));
    let long = Request { prompt: vec![1; 10_000], ..good() };
    assert!(refused(&mut session, long).to_string().contains("10001 tokens"));
    assert!(matches!(refused(&mut session, Request { prompt: Vec::new(), ..good() }), Error::Engine(_)));
    assert!(session.is_idle());
}

/// The second request behind the same beginning prefills its own rest only, and answers as it would without the cache.
#[test]
fn prompts_with_the_same_beginning_share_their_pages() {
    let limits = Limits { sequences: 1, prefill: 64, cache: 1 << 30 };
    let mut session = Session::new(parts().0.clone(), limits);
    let shared: Vec<u32> = (0..150).map(|i| (i * 11 % 29) as u32).collect();
    let mut plans = [usual(1, 0, 1), usual(1, 1, 1), usual(0, 0, 1)];
    for (number, plan) in plans.iter_mut().enumerate() {
        plan.prompt = shared.clone();
        plan.prompt.extend([number as u32 + 1, 7]);
        session.submit(request(number, plan)).unwrap();
    }
    let outcomes: Vec<Outcome> = run(&mut session).into_values().collect();
    for (number, (plan, outcome)) in plans.iter().zip(outcomes).enumerate() {
        assert_eq!(outcome, alone(number, plan));
    }
    let counts = session.cache();
    assert_eq!((counts.hits, counts.misses, counts.evicted), (2 * 128, 152 + 2 * 24, 0));
    assert!(counts.bytes > 0);

    // A cache of one page keeps one page.
    let one = counts.bytes / 2;
    let mut session = Session::new(parts().0.clone(), Limits { cache: one, ..limits });
    for (number, plan) in plans.iter().enumerate() {
        session.submit(request(number, plan)).unwrap();
    }
    run(&mut session);
    let counts = session.cache();
    assert_eq!((counts.hits, counts.bytes), (2 * 64, one));
}

/// Requests that come at the same time with the same prompt run its full pages once.
#[test]
fn the_same_prompt_is_prefilled_once() {
    let limits = Limits { sequences: 8, prefill: 64, cache: 1 << 30 };
    let mut session = Session::new(parts().0.clone(), limits);
    let mut plans: Vec<_> = (0..6).map(|seed| usual(0, seed % 3, 1)).collect();
    for (number, plan) in plans.iter_mut().enumerate() {
        plan.prompt = (0..150).map(|i| (i * 11 % 29) as u32).collect();
        session.submit(request(number, plan)).unwrap();
    }
    let outcomes: Vec<Outcome> = run(&mut session).into_values().collect();
    for (number, (plan, outcome)) in plans.iter().zip(outcomes).enumerate() {
        assert_eq!(outcome, alone(number, plan));
    }
    let counts = session.cache();
    assert_eq!((counts.hits, counts.misses), (5 * 128, 150 + 5 * 22));

    // A cache that cannot hold it makes nobody wait.
    let mut session = Session::new(parts().0.clone(), Limits { cache: 0, ..limits });
    for (number, plan) in plans.iter().enumerate() {
        session.submit(request(number, plan)).unwrap();
    }
    assert_eq!(run(&mut session).len(), 6);
    assert_eq!(session.cache().misses, 6 * 150);
}

/// A short prompt is prefilled beside a long one that came first.
#[test]
fn a_short_prompt_does_not_wait_for_a_long_one() {
    let mut session = Session::new(parts().0.clone(), Limits { sequences: 4, prefill: 64, cache: 0 });
    session.submit(request(0, &usual(0, 0, 390))).unwrap();
    let short = session.submit(request(1, &usual(0, 0, 5))).unwrap();
    let first = session.step().into_iter().chain(session.step()).find(|event| event.ticket() == short);
    assert!(matches!(first, Some(Event::Token { .. })), "{first:?}");
}

/// A long prompt is prefilled beside running requests, a chunk a step.
#[test]
fn a_long_prompt_does_not_stall_the_others() {
    let mut session = Session::new(parts().0.clone(), Limits { sequences: 4, prefill: 10, cache: 0 });
    let running = session.submit(request(0, &usual(0, 0, 3))).unwrap();
    let mut told = 0;
    while told == 0 {
        told += session.step().len();
    }
    session.submit(request(1, &usual(0, 0, 100))).unwrap();
    for _ in 0..4 {
        let events = session.step();
        assert!(events.iter().all(|event| event.ticket() == running) && !events.is_empty());
    }
}

/// A short request that arrives while long ones run does not wait for them: its first token comes within 3 steps of its
/// prefill, and all 8 within 12. This holds for every method that decides step by step.
#[test]
fn a_late_request_is_answered_at_once() {
    for (method, reward) in [(0, 0), (1, 0), (1, 1), (1, 2)] {
        let limits = Limits { sequences: 17, prefill: 64, cache: 0 };
        let mut session = Session::new(parts().0.clone(), limits);
        for number in 0..16 {
            let mut long = usual(number % 2, number % 3, 5 + number);
            long.settings.max_new_tokens = 60;
            session.submit(request(number, &long)).unwrap();
        }
        (0..20).for_each(|_| drop(session.step()));
        // A prompt of two chunks.
        let late = session.submit(request(99, &usual(method, reward, 100))).unwrap();
        let chunks = 100_usize.div_ceil(limits.prefill);
        let mut told = Vec::new();
        let mut others = 0;
        for step in 1.. {
            for event in session.step() {
                match event {
                    Event::Token { ticket, .. } if ticket == late => told.push(step),
                    Event::Token { .. } => others += 1,
                    Event::Done { ticket, .. } if ticket == late => {}
                    event => panic!("{event:?}"),
                }
            }
            if told.len() == 8 {
                break;
            }
        }
        assert!(told[0] <= chunks + 3, "{told:?}");
        assert!(told[7] <= chunks + 12, "{told:?}");
        // The long ones went on, a token a step.
        assert!(others >= 16 * (told[7] - 1), "{others} tokens of the others, {told:?}");
    }
}

/// The time of an answer is that of all its steps, those that prefill the prompt included, however many answers share them.
#[test]
fn the_time_of_an_answer_includes_its_prompt() {
    /// The times that the answers have, and the time that all steps took.
    fn times(requests: usize) -> (Duration, Duration) {
        let limits = Limits { sequences: 4, prefill: 8, cache: 0 };
        let mut session = Session::new(parts().0.clone(), limits);
        for number in 0..requests {
            let mut plan = usual(0, 0, 120);
            plan.settings.max_new_tokens = 1;
            session.submit(Request { reward: None, ..request(number, &plan) }).unwrap();
        }
        let (mut wall, mut elapsed) = (Duration::ZERO, Duration::ZERO);
        while !session.is_idle() {
            let began = Instant::now();
            let events = session.step();
            wall += began.elapsed();
            for event in events {
                if let Event::Done { samples, .. } = event {
                    elapsed += samples[0].answer.elapsed;
                }
            }
        }
        assert!(elapsed <= wall, "{elapsed:?} of {wall:?}");
        (elapsed, wall)
    }
    for requests in [1, 3] {
        // The rest is the last step, which hands the answer over. It takes longer if the system runs something else then, so
        // one of several attempts is enough.
        let most = |(elapsed, wall): (Duration, Duration)| elapsed > wall.mul_f64(0.7);
        assert!((0..8).any(|_| most(times(requests))), "{requests} requests");
    }
}
