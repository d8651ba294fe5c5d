//! Asks all calls, several at a time, and keeps every verdict as it comes.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use stackelberg_remote::chat::{self, Completion};

use super::client::Client;
use super::error::Error;
use super::pairs::Call;
use super::store::Store;
use super::verdict::{Failure, Kind, Verdict};
use super::{form, reply};

/// How calls are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asking {
    /// Calls under way at once.
    pub concurrency: usize,
    /// How often a judge whose reply had no scores is asked once more.
    pub ask_again: u32,
    /// Ask those calls again that failed in an earlier run.
    pub retry_failed: bool,
}

impl Default for Asking {
    fn default() -> Self {
        Self { concurrency: 8, ask_again: 1, retry_failed: false }
    }
}

impl Asking {
    /// Which of the calls are still to be asked: those that the store has no scores for, and no failure either
    /// unless failed ones are to be retried.
    pub fn open<'c, 'a>(&self, calls: &'c [Call<'a>], store: &Store) -> Vec<&'c Call<'a>> {
        let done = |verdict: &Verdict| verdict.scores.is_some() || !self.retry_failed;
        calls.iter().filter(|call| !store.get(call).is_some_and(done)).collect()
    }
}

/// What a caller may watch, from many threads.
pub trait Watch: Sync {
    /// A verdict was kept.
    fn done(&self, _: &Verdict) {}

    /// Whether to begin nothing more: calls under way are waited for and kept.
    fn stop(&self) -> bool {
        false
    }
}

/// Watches nothing.
impl Watch for () {}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// Verdicts kept, failures among them.
    pub asked: usize,
    /// Whether the caller stopped it before its end.
    pub stopped: bool,
}

/// Asks all calls that are [open](Asking::open).
///
/// # Errors
/// No concurrency; the server refuses or is not there; as many calls in a row as are under way at once (five
/// at least) failed at the server; the store cannot be written. What was kept before stays.
pub fn ask(
    calls: &[Call<'_>],
    client: &Client,
    store: &mut Store,
    asking: &Asking,
    watch: &dyn Watch,
) -> Result<Outcome, Error> {
    if asking.concurrency == 0 {
        let problem = "0: at least one call at a time is needed".to_owned();
        return Err(Error::Setting { name: "concurrency", problem });
    }
    let open = asking.open(calls, store);
    let desk = Desk {
        client,
        ask_again: asking.ask_again,
        patience: asking.concurrency.max(5),
        watch,
        over: AtomicBool::new(false),
        state: Mutex::new(State { store, asked: 0, in_a_row: 0, ended: None }),
    };
    // The first call goes alone: if the server is not there or refuses, it says so once.
    if let Some(first) = open.first().filter(|_| !desk.stop()) {
        desk.take(first);
    }
    let next = AtomicUsize::new(1);
    std::thread::scope(|scope| {
        for _ in 0..asking.concurrency.min(open.len()) {
            scope.spawn(|| {
                while !desk.stop()
                    && let Some(call) = open.get(next.fetch_add(1, Ordering::Relaxed))
                {
                    desk.take(call);
                }
            });
        }
    });
    let state = desk.state.into_inner().unwrap_or_else(PoisonError::into_inner);
    match state.ended {
        Some(error) => Err(error),
        None => Ok(Outcome { asked: state.asked, stopped: state.asked < open.len() }),
    }
}

/// What the threads share.
struct Desk<'a> {
    client: &'a Client,
    ask_again: u32,
    /// Calls in a row that the server may fail.
    patience: usize,
    watch: &'a dyn Watch,
    /// Nothing more is begun.
    over: AtomicBool,
    state: Mutex<State<'a>>,
}

struct State<'a> {
    store: &'a mut Store,
    asked: usize,
    in_a_row: usize,
    /// The first error that ended the run.
    ended: Option<Error>,
}

impl<'a> Desk<'a> {
    fn stop(&self) -> bool {
        self.over.load(Ordering::Relaxed) || self.watch.stop()
    }

    /// Asks one call and keeps what came of it.
    fn take(&self, call: &Call<'_>) {
        let kept = match self.verdict(call) {
            Ok(verdict) => self.keep(verdict),
            Err(chat::Failure::Fatal(error)) => Err(error.into()),
            Err(chat::Failure::Stopped | chat::Failure::Request { .. }) => return,
        };
        if let Err(error) = kept {
            self.over.store(true, Ordering::Relaxed);
            self.state().ended.get_or_insert(error);
        }
    }

    fn keep(&self, verdict: Verdict) -> Result<(), Error> {
        let mut state = self.state();
        state.store.add(verdict.clone())?;
        state.asked += 1;
        self.watch.done(&verdict);
        match verdict.failure {
            Some(failure) if failure.kind.is_of_server() => {
                state.in_a_row += 1;
                if state.in_a_row < self.patience {
                    return Ok(());
                }
                let (url, count) = (self.client.url().to_owned(), state.in_a_row);
                Err(Error::GaveUp { url, count, problem: failure.problem })
            }
            _ => {
                state.in_a_row = 0;
                Ok(())
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State<'a>> {
        // What a thread that panicked left is whole: every change is a single step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One call, asked again where the reply holds no scores.
    fn verdict(&self, call: &Call<'_>) -> Result<Verdict, chat::Failure> {
        let began = Instant::now();
        let form = form::fill(call.prompt, call.first, call.second);
        let mut verdict = self.blank(call);
        for _ in 0..=self.ask_again {
            match self.client.ask(&form, &mut verdict.requests, &|| self.stop()) {
                Ok(reply) => take_reply(&mut verdict, reply),
                Err(chat::Failure::Request { kind, problem }) => {
                    verdict.failure = Some(Failure { kind: kind.into(), problem });
                }
                // Replies that were paid for are kept.
                Err(chat::Failure::Stopped) if verdict.replies > 0 => {}
                Err(failure) => return Err(failure),
            }
            let unread = verdict.failure.as_ref().is_some_and(|failure| failure.kind == Kind::Reply);
            if !unread || self.stop() {
                break;
            }
        }
        verdict.seconds = began.elapsed().as_secs_f64();
        Ok(verdict)
    }

    fn blank(&self, call: &Call<'_>) -> Verdict {
        let [prompt, first, second] = call.texts.clone();
        Verdict {
            id: call.id.to_owned(),
            order: call.order,
            scores: None,
            failure: None,
            identity: self.client.identity().clone(),
            served: None,
            prompt,
            first,
            second,
            reply: None,
            replies: 0,
            requests: 0,
            tokens_in: None,
            tokens_out: None,
            seconds: 0.0,
        }
    }
}

fn take_reply(verdict: &mut Verdict, reply: Completion) {
    let scores = reply::scores(&reply.text).map_err(|problem| match reply.finish.as_deref() {
        Some("content_filter") => Failure { kind: Kind::Refused, problem: "content filter".to_owned() },
        Some("length") => {
            let problem = format!("{problem}; it was cut at the most tokens: raise --max-tokens");
            Failure { kind: Kind::Reply, problem }
        }
        _ => Failure { kind: Kind::Reply, problem },
    });
    let sum = |before: Option<u64>, now: Option<u64>| match (before, now) {
        (None, None) => None,
        (before, now) => Some(before.unwrap_or(0) + now.unwrap_or(0)),
    };
    verdict.tokens_in = sum(verdict.tokens_in, reply.tokens_in);
    verdict.tokens_out = sum(verdict.tokens_out, reply.tokens_out);
    verdict.replies += 1;
    verdict.served = reply.served.or(verdict.served.take());
    verdict.reply = Some(reply.text);
    verdict.scores = scores.as_ref().ok().copied();
    verdict.failure = scores.err();
}
