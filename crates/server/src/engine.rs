//! The thread that decodes. It owns the [`Session`], as the kernels are one caller's.
//!
//! ```text
//! handlers ── Submit, Job ──► channel ──► [ commands ─► one job ─► one step ─► events by ticket ] ──► channel of each request
//! ```
//!
//! A request whose receiver is gone is cancelled before the next step: so a client that disconnects, streaming or not, costs
//! one step at most.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use stackelberg_decoding::{Event, Limits, Policy, Request, Session, Ticket};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use crate::error::ApiError;
use crate::metrics::Metrics;

/// Work on the policy that is done between two steps.
type Job = Box<dyn FnOnce(&Policy) + Send>;

enum Command {
    Submit { requests: Vec<Request>, events: Teller, reply: Reply },
    Job(Job),
}

type Reply = oneshot::Sender<Result<(), ApiError>>;

/// An event of a choice, with the choice's place in its request.
type Told = (usize, Result<Event, ApiError>);

/// Candidates of steps that a request may have unread. A client that reads so slowly is given up.
const UNREAD: usize = 250_000;

/// Tells the events of a request.
#[derive(Clone)]
struct Teller {
    events: UnboundedSender<Told>,
    unread: Arc<AtomicUsize>,
}

/// Events of the choices of a request.
pub(crate) struct Events {
    events: UnboundedReceiver<Told>,
    unread: Arc<AtomicUsize>,
}

impl Events {
    /// The next event; `None` if there are no more.
    pub(crate) async fn next(&mut self) -> Option<Told> {
        let told = self.events.recv().await?;
        self.unread.fetch_sub(size(&told.1), Ordering::Relaxed);
        Some(told)
    }

    /// An event that is there already.
    pub(crate) fn ready(&mut self) -> Option<Told> {
        let told = self.events.try_recv().ok()?;
        self.unread.fetch_sub(size(&told.1), Ordering::Relaxed);
        Some(told)
    }
}

/// What an event counts while it is unread.
fn size(event: &Result<Event, ApiError>) -> usize {
    match event {
        Ok(Event::Token { step, .. }) => 1 + step.candidates.len(),
        _ => 1,
    }
}

impl Teller {
    /// Whether the receiver is gone.
    fn is_closed(&self) -> bool {
        self.events.is_closed()
    }

    /// Tells an event. Whether the receiver keeps up.
    fn tell(&self, choice: usize, event: Result<Event, ApiError>) -> bool {
        let size = size(&event);
        let unread = self.unread.fetch_add(size, Ordering::Relaxed) + size;
        let _ = self.events.send((choice, event));
        unread <= UNREAD
    }
}

/// Hands requests to the thread.
pub(crate) struct Engine {
    commands: Sender<Command>,
    /// Choices and jobs that are under way or wait.
    taken: Arc<AtomicUsize>,
    /// The most of them.
    capacity: usize,
    sequences: usize,
    /// Milliseconds that a choice took lately.
    pace: Arc<AtomicUsize>,
}

/// Places of a request's choices, or of its jobs. They are given back when it is dropped.
pub(crate) struct Places {
    taken: Arc<AtomicUsize>,
    count: usize,
}

impl Drop for Places {
    fn drop(&mut self) {
        self.taken.fetch_sub(self.count, Ordering::Relaxed);
    }
}

impl Engine {
    /// Starts the thread. The receiver gets a message when the thread has ended, with the reason.
    pub(crate) fn start(
        policy: Policy,
        limits: Limits,
        queue: usize,
        metrics: Arc<Metrics>,
    ) -> std::io::Result<(Self, oneshot::Receiver<String>)> {
        let (commands, received) = channel();
        let (ended, when_ended) = oneshot::channel();
        let (taken, pace) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let places = taken.clone();
        let thread_pace = pace.clone();
        let decode = move || {
            let mut decoder = Decoder {
                sequences: limits.sequences,
                session: Session::new(policy.clone(), limits),
                policy,
                routes: HashMap::new(),
                jobs: VecDeque::new(),
                taken: places,
                pace: thread_pace,
                metrics,
            };
            let outcome = catch_unwind(AssertUnwindSafe(|| decoder.run(&received)));
            let why = match outcome {
                Ok(()) => "all handles of the engine are gone".to_owned(),
                Err(panic) => said(&*panic),
            };
            // The server may be gone.
            let _ = ended.send(why);
        };
        std::thread::Builder::new().name("decoding".to_owned()).spawn(decode)?;
        let (sequences, capacity) = (limits.sequences, limits.sequences + queue);
        Ok((Self { commands, taken, capacity, sequences, pace }, when_ended))
    }

    /// Takes places, if there are as many.
    ///
    /// # Errors
    /// The queue is full.
    pub(crate) fn reserve(&self, count: usize) -> Result<Places, ApiError> {
        let fits = |taken: usize| Some(taken + count).filter(|all| *all <= self.capacity);
        match self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits) {
            Ok(_) => Ok(Places { taken: self.taken.clone(), count }),
            Err(waiting) => Err(ApiError::busy(self.retry_after(waiting))),
        }
    }

    /// Seconds until about half of the queue is done, between 1 and 60.
    fn retry_after(&self, waiting: usize) -> u64 {
        let rounds = waiting.div_ceil(2 * self.sequences.max(1));
        let milliseconds = rounds.saturating_mul(self.pace.load(Ordering::Relaxed)) as u64;
        milliseconds.div_ceil(1000).clamp(1, 60)
    }

    /// Whether nothing is under way or waits.
    pub(crate) fn is_idle(&self) -> bool {
        self.taken.load(Ordering::Relaxed) == 0
    }

    /// Submits the choices of a request, each with a place: all or none. They stop when the receiver is dropped.
    ///
    /// # Errors
    /// A choice cannot be decoded as it is asked for.
    pub(crate) async fn submit(
        &self,
        mut places: Places,
        requests: Vec<Request>,
    ) -> Result<Events, ApiError> {
        debug_assert!(requests.len() <= places.count, "each choice needs a place");
        let (events, received) = unbounded_channel();
        let unread = Arc::new(AtomicUsize::new(0));
        let received = Events { events: received, unread: unread.clone() };
        let events = Teller { events, unread };
        let (reply, replied) = oneshot::channel();
        let count = requests.len();
        let command = Command::Submit { requests, events, reply };
        if self.commands.send(command).is_err() {
            return Err(ApiError::stopping());
        }
        // From here on the thread gives the places of the choices back.
        places.count -= count;
        drop(places);
        replied.await.map_err(|_| ApiError::stopping())?.map(|()| received)
    }

    /// Computes something with the policy between two steps, for a request that has a place. Long work should be several jobs.
    ///
    /// # Errors
    /// The server is about to end.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        _place: &Places,
        job: impl FnOnce(&Policy) -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        let (reply, replied) = oneshot::channel();
        let job: Job = Box::new(move |policy| {
            if !reply.is_closed() {
                let _ = reply.send(job(policy));
            }
        });
        self.commands.send(Command::Job(job)).map_err(|_| ApiError::stopping())?;
        replied.await.map_err(|_| ApiError::stopping())
    }

    /// The most choices that may be under way or wait.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }
}

/// Where the events of a choice go.
struct Route {
    choice: usize,
    events: Teller,
    began: Instant,
    last: Option<Instant>,
}

/// The state of the thread.
struct Decoder {
    policy: Policy,
    session: Session,
    sequences: usize,
    routes: HashMap<Ticket, Route>,
    jobs: VecDeque<Job>,
    taken: Arc<AtomicUsize>,
    pace: Arc<AtomicUsize>,
    metrics: Arc<Metrics>,
}

impl Decoder {
    /// Decodes until all handles are gone.
    fn run(&mut self, commands: &Receiver<Command>) {
        loop {
            if self.routes.is_empty() && self.jobs.is_empty() {
                self.report();
                match commands.recv() {
                    Ok(command) => self.take(command),
                    Err(_) => return,
                }
            }
            while let Ok(command) = commands.try_recv() {
                self.take(command);
            }
            self.cancel_unheard();
            if let Some(job) = self.jobs.pop_front() {
                job(&self.policy);
            }
            if !self.session.is_idle() {
                let (began, before) = (Instant::now(), self.session.reward_time());
                let events = self.session.step();
                self.metrics.step(began.elapsed(), self.session.reward_time() - before);
                events.into_iter().for_each(|event| self.tell(event));
                self.report();
            }
        }
    }

    fn take(&mut self, command: Command) {
        let (requests, events, reply) = match command {
            Command::Submit { requests, events, reply } => (requests, events, reply),
            Command::Job(job) => return self.jobs.push_back(job),
        };
        let mut tickets = Vec::with_capacity(requests.len());
        let all = requests.len();
        for request in requests {
            let prompt = request.prompt.len();
            match self.session.submit(request) {
                Ok(ticket) => {
                    self.metrics.submitted(prompt);
                    tickets.push(ticket);
                }
                Err(error) => {
                    tickets.into_iter().for_each(|ticket| self.session.cancel(ticket));
                    self.taken.fetch_sub(all, Ordering::Relaxed);
                    let _ = reply.send(Err(ApiError::decoding(&error)));
                    return;
                }
            }
        }
        let began = Instant::now();
        for (choice, ticket) in tickets.into_iter().enumerate() {
            let route = Route { choice, events: events.clone(), began, last: None };
            self.routes.insert(ticket, route);
        }
        // If the client is gone, so is the receiver of the events.
        let _ = reply.send(Ok(()));
    }

    /// Cancels choices whose client is gone.
    fn cancel_unheard(&mut self) {
        let gone = self.routes.iter().filter(|(_, route)| route.events.is_closed());
        let gone: Vec<Ticket> = gone.map(|(ticket, _)| *ticket).collect();
        for ticket in gone {
            self.session.cancel(ticket);
            if let Some(route) = self.close(ticket) {
                self.metrics.ended("cancelled", route.began.elapsed(), None);
            }
        }
    }

    /// Hands an event to whom it concerns.
    fn tell(&mut self, event: Event) {
        let ticket = event.ticket();
        let (outcome, answer) = match &event {
            Event::Token { .. } => {
                let Some(route) = self.routes.get_mut(&ticket) else { return };
                let now = Instant::now();
                let since = route.last.replace(now).unwrap_or(route.began);
                self.metrics.token(since == route.began, now - since);
                if !route.events.tell(route.choice, Ok(event)) {
                    route.events.tell(route.choice, Err(ApiError::slow_reader()));
                    self.session.cancel(ticket);
                    if let Some(route) = self.close(ticket) {
                        self.metrics.ended("cancelled", route.began.elapsed(), None);
                    }
                }
                return;
            }
            Event::Done { samples, .. } => {
                let answer = samples.first().map(|sample| &sample.answer);
                (answer.map_or("failed", |answer| answer.finish.name()), answer)
            }
            Event::Failed { .. } => ("failed", None),
        };
        let Some(route) = self.close(ticket) else { return };
        let took = route.began.elapsed();
        self.metrics.ended(outcome, took, answer);
        let pace = self.pace.load(Ordering::Relaxed);
        let took = took.as_millis().min(Duration::from_secs(600).as_millis()) as usize;
        self.pace.store(if pace == 0 { took } else { (7 * pace + took) / 8 }, Ordering::Relaxed);
        route.events.tell(route.choice, Ok(event));
    }

    /// A choice ends: its place is free.
    fn close(&mut self, ticket: Ticket) -> Option<Route> {
        let route = self.routes.remove(&ticket)?;
        self.taken.fetch_sub(1, Ordering::Relaxed);
        Some(route)
    }

    fn report(&self) {
        let running = self.routes.len().min(self.sequences);
        self.metrics.load(running, self.routes.len() - running, self.session.cache());
    }
}

/// What a panic said.
fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "it panicked".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receiver_that_does_not_read_is_noticed() {
        let (events, received) = unbounded_channel();
        let unread = Arc::new(AtomicUsize::new(0));
        let mut received = Events { events: received, unread: unread.clone() };
        let teller = Teller { events, unread };
        let tell = || teller.tell(0, Err(ApiError::stopping()));
        assert!((0..UNREAD).all(|_| tell()));
        assert!(!tell());
        while received.ready().is_some() {}
        assert!(tell(), "what is read does not count");
        assert!(received.ready().is_some() && received.ready().is_none());
    }
}
