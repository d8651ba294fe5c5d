//! Sends all calls, several at a time, and stores every verdict when it arrives.

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

/// How calls are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asking {
    /// The number of calls at the same time.
    pub concurrency: usize,
    /// How often a call is sent again if the reply has no scores.
    pub ask_again: u32,
    /// Whether calls that failed in an earlier run are sent again.
    pub retry_failed: bool,
}

impl Default for Asking {
    fn default() -> Self {
        Self { concurrency: 8, ask_again: 1, retry_failed: false }
    }
}

impl Asking {
    /// The calls that are still to be sent: those without scores in the store. Failed calls are among them only if
    /// `retry_failed` is set.
    pub fn open<'c, 'a>(&self, calls: &'c [Call<'a>], store: &Store) -> Vec<&'c Call<'a>> {
        let done = |verdict: &Verdict| verdict.scores.is_some() || !self.retry_failed;
        calls.iter().filter(|call| !store.get(call).is_some_and(done)).collect()
    }
}

/// Callbacks during a run. They are called from many threads.
pub trait Watch: Sync {
    /// A verdict was stored.
    fn done(&self, _: &Verdict) {}

    /// Whether to start no more calls. Calls that were sent are waited for and stored.
    fn stop(&self) -> bool {
        false
    }
}

/// No callbacks.
impl Watch for () {}

/// The result of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// The number of verdicts stored, including failures.
    pub asked: usize,
    /// Whether the caller stopped the run before its end.
    pub stopped: bool,
}

/// Sends all calls that are [open](Asking::open) and stores their verdicts.
///
/// # Errors
/// The concurrency is 0; the server refuses all calls or cannot be reached; as many calls in a row as run at the same
/// time (at least five) failed at the server; the store cannot be written. Verdicts that were stored stay stored.
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
    let shared = Shared {
        client,
        ask_again: asking.ask_again,
        patience: asking.concurrency.max(5),
        watch,
        over: AtomicBool::new(false),
        state: Mutex::new(State { store, asked: 0, in_a_row: 0, ended: None }),
    };
    // The first call is sent alone, so that a missing or refusing server costs one request.
    if let Some(first) = open.first().filter(|_| !shared.stop()) {
        shared.take(first);
    }
    let next = AtomicUsize::new(1);
    std::thread::scope(|scope| {
        for _ in 0..asking.concurrency.min(open.len()) {
            scope.spawn(|| {
                while !shared.stop()
                    && let Some(call) = open.get(next.fetch_add(1, Ordering::Relaxed))
                {
                    shared.take(call);
                }
            });
        }
    });
    let state = shared.state.into_inner().unwrap_or_else(PoisonError::into_inner);
    match state.ended {
        Some(error) => Err(error),
        None => Ok(Outcome { asked: state.asked, stopped: state.asked < open.len() }),
    }
}

/// The state that the threads share.
struct Shared<'a> {
    client: &'a Client,
    ask_again: u32,
    /// The number of calls in a row after whose failure the run ends.
    patience: usize,
    watch: &'a dyn Watch,
    /// Whether no more calls are started.
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

impl<'a> Shared<'a> {
    fn stop(&self) -> bool {
        self.over.load(Ordering::Relaxed) || self.watch.stop()
    }

    /// Sends one call and stores its verdict.
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
        // The state is consistent even if a thread panicked, because every change is a single step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The verdict on one call, which is sent again if the reply has no scores.
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
