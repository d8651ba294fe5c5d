//! Counters for Prometheus.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use stackelberg_decoding::{CacheCounts, Generation};

/// Labels, each a name and a value.
type Labels = Vec<(&'static str, String)>;

/// All counters.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<Labels, Counter>,
    answers: Family<Labels, Counter>,
    first_token: Histogram,
    between_tokens: Histogram,
    answer_time: Histogram,
    step_time: Histogram,
    running: Gauge,
    waiting: Gauge,
    prompt_tokens: Counter,
    generated_tokens: Counter,
    policy_tokens: Counter,
    scored_tokens: Counter,
    reward_calls: Counter,
    skipped: Counter,
    steered: Counter,
    reward_time: Counter<f64, AtomicU64>,
    cache_hits: Counter,
    cache_misses: Counter,
    cache_evicted: Counter,
    cache_bytes: Gauge,
}

/// From a millisecond to a minute.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 17))
}

impl Metrics {
    /// Counters at zero; `model_bytes` is the size of the policy's weights.
    pub(crate) fn new(model_bytes: usize) -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("stackelberg"),
            requests: Family::default(),
            answers: Family::default(),
            first_token: seconds(),
            between_tokens: seconds(),
            answer_time: seconds(),
            step_time: seconds(),
            running: Gauge::default(),
            waiting: Gauge::default(),
            prompt_tokens: Counter::default(),
            generated_tokens: Counter::default(),
            policy_tokens: Counter::default(),
            scored_tokens: Counter::default(),
            reward_calls: Counter::default(),
            skipped: Counter::default(),
            steered: Counter::default(),
            reward_time: Counter::default(),
            cache_hits: Counter::default(),
            cache_misses: Counter::default(),
            cache_evicted: Counter::default(),
            cache_bytes: Gauge::default(),
        };
        metrics.register(model_bytes);
        metrics
    }

    fn register(&mut self, model_bytes: usize) {
        let all = &mut self.registry;
        all.register("http_requests", "HTTP requests by path and status", self.requests.clone());
        all.register(
            "answers",
            "Choices by outcome: stop, length, failed, cancelled",
            self.answers.clone(),
        );
        all.register(
            "time_to_first_token_seconds",
            "From submission to the first token",
            self.first_token.clone(),
        );
        all.register(
            "time_between_tokens_seconds",
            "Between two tokens of a choice",
            self.between_tokens.clone(),
        );
        all.register(
            "answer_seconds",
            "From submission to the end of a choice",
            self.answer_time.clone(),
        );
        all.register("step_seconds", "Time of a step of all sequences", self.step_time.clone());
        all.register("running", "Choices that are decoded", self.running.clone());
        all.register("waiting", "Choices that wait", self.waiting.clone());
        all.register("prompt_tokens", "Tokens of prompts", self.prompt_tokens.clone());
        all.register("generated_tokens", "Tokens of answers", self.generated_tokens.clone());
        let what = "Tokens that were run through the policy, candidates and unchosen samples included";
        all.register("policy_tokens", what, self.policy_tokens.clone());
        all.register(
            "scored_tokens",
            "Tokens that rewards read in order to guide",
            self.scored_tokens.clone(),
        );
        let what = "Guided steps, and texts that were scored in order to choose";
        all.register("guided_steps", what, self.reward_calls.clone());
        all.register(
            "skipped_steps",
            "Steps whose rewards could not change the choice",
            self.skipped.clone(),
        );
        all.register(
            "steered_steps",
            "Steps whose choice was not the base policy's",
            self.steered.clone(),
        );
        all.register("reward_seconds", "Time spent on rewards", self.reward_time.clone());
        all.register(
            "cache_hit_tokens",
            "Tokens of prompts found in the cache",
            self.cache_hits.clone(),
        );
        all.register(
            "cache_miss_tokens",
            "Tokens of prompts that were prefilled",
            self.cache_misses.clone(),
        );
        all.register(
            "cache_evicted_pages",
            "Pages that were dropped from the cache",
            self.cache_evicted.clone(),
        );
        all.register("cache_bytes", "Size of the cache of prefilled prompts", self.cache_bytes.clone());
        let bytes: Gauge = Gauge::default();
        bytes.set(model_bytes as i64);
        all.register("model_bytes", "Size of the policy's weights in memory", bytes);
    }

    /// All counters as text.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }

    /// A request was answered with this status; `path` is a route, not what the client wrote.
    pub(crate) fn request(&self, path: &str, status: u16) {
        let labels = vec![("path", path.to_owned()), ("status", status.to_string())];
        self.requests.get_or_create(&labels).inc();
    }

    /// A choice with a prompt of so many tokens was submitted.
    pub(crate) fn submitted(&self, prompt: usize) {
        self.prompt_tokens.inc_by(prompt as u64);
    }

    /// The first token of a choice, or a further one, after this time.
    pub(crate) fn token(&self, first: bool, took: Duration) {
        let histogram = if first { &self.first_token } else { &self.between_tokens };
        histogram.observe(took.as_secs_f64());
        self.generated_tokens.inc();
    }

    /// A choice ended after this time.
    pub(crate) fn ended(&self, outcome: &'static str, took: Duration, answer: Option<&Generation>) {
        self.answers.get_or_create(&vec![("outcome", outcome.to_owned())]).inc();
        self.answer_time.observe(took.as_secs_f64());
        let Some(answer) = answer else { return };
        self.policy_tokens.inc_by(answer.tokens_run as u64);
        self.scored_tokens.inc_by(answer.tokens_scored as u64);
        self.reward_calls.inc_by(answer.reward_calls as u64);
        self.skipped.inc_by(answer.skipped as u64);
        self.steered.inc_by(answer.steered as u64);
    }

    /// A step of all sequences took this time, of which rewards took their part.
    pub(crate) fn step(&self, took: Duration, rewards: Duration) {
        self.step_time.observe(took.as_secs_f64());
        self.reward_time.inc_by(rewards.as_secs_f64());
    }

    /// What is under way now.
    pub(crate) fn load(&self, running: usize, waiting: usize, cache: CacheCounts) {
        self.running.set(running as i64);
        self.waiting.set(waiting as i64);
        for (counter, now) in [
            (&self.cache_hits, cache.hits),
            (&self.cache_misses, cache.misses),
            (&self.cache_evicted, cache.evicted),
        ] {
            counter.inc_by((now as u64).saturating_sub(counter.get()));
        }
        self.cache_bytes.set(cache.bytes as i64);
    }
}
