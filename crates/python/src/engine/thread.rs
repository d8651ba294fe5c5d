//! The thread that decodes. It owns the [`Session`] and never needs the GIL.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;

use stackelberg_decoding::{Cancel, Error, Event, Limits, Request, Session, Ticket};

use super::failure::Failure;
use super::models::Models;

enum Command {
    Submit { requests: Vec<Request>, events: Sender<Told>, cancel: Cancel, reply: Sender<Submitted> },
    Close,
}

/// Models that are loaded, or why they are not.
pub(crate) type Loaded = Result<Arc<Models>, Failure>;

/// Whether requests are taken in.
pub(crate) type Submitted = Result<(), Error>;

/// An event of a request, with its place among those that were submitted together.
pub(crate) type Told = (usize, Event);

/// Hands requests to the thread.
pub(crate) struct Decoding {
    commands: Sender<Command>,
    thread: Mutex<Option<JoinHandle<()>>>,
    ended: Arc<OnceLock<String>>,
}

impl Decoding {
    /// Starts the thread, which loads the models first. They are received when they are loaded.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(crate) fn start(
        load: impl FnOnce() -> Result<Models, Failure> + Send + 'static,
        limits: Limits,
    ) -> std::io::Result<(Self, Receiver<Loaded>)> {
        let (commands, received) = channel();
        let (loaded, when_loaded) = channel();
        let ended = Arc::new(OnceLock::new());
        let why = ended.clone();
        let decode = move || {
            let load = catch_unwind(AssertUnwindSafe(load));
            let models = match load.unwrap_or_else(|panic| Err(Failure::Ended(said(&*panic)))) {
                Ok(models) => Arc::new(models),
                Err(failure) => return drop(loaded.send(Err(failure))),
            };
            let session = Session::new(models.policy.clone(), limits);
            // After a signal, nobody waits for the models. Then there are no commands either.
            let _ = loaded.send(Ok(models));
            let mut decoder = Decoder { session, routes: HashMap::new() };
            let outcome = catch_unwind(AssertUnwindSafe(|| decoder.run(&received)));
            let _ = why.set(match outcome {
                Ok(()) => "the policy is closed".to_owned(),
                Err(panic) => said(&*panic),
            });
            // Callers whose events end here read the reason.
            drop(decoder);
        };
        let thread = std::thread::Builder::new().name("decoding".to_owned()).spawn(decode)?;
        Ok((Self { commands, thread: Mutex::new(Some(thread)), ended }, when_loaded))
    }

    /// Submits requests, all or none. Their events are sent to `events` until `cancel` is cancelled. What is received first says
    /// whether they are taken in.
    ///
    /// # Errors
    /// The thread has ended.
    pub(crate) fn submit(
        &self,
        requests: Vec<Request>,
        events: Sender<Told>,
        cancel: Cancel,
    ) -> Result<Receiver<Submitted>, Failure> {
        let (reply, replied) = channel();
        let command = Command::Submit { requests, events, cancel, reply };
        self.commands.send(command).map_err(|_| self.failure())?;
        Ok(replied)
    }

    /// Ends the thread after its current step.
    pub(crate) fn close(&self) {
        let _ = self.commands.send(Command::Close);
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = thread.take() {
            let _ = thread.join();
        }
    }

    /// Why the thread has ended.
    pub(crate) fn failure(&self) -> Failure {
        Failure::Ended(self.ended.get().map_or("the policy is closed", String::as_str).to_owned())
    }
}

/// Where the events of a request go.
struct Route {
    number: usize,
    events: Sender<Told>,
    cancel: Cancel,
}

/// The state of the thread.
struct Decoder {
    session: Session,
    routes: HashMap<Ticket, Route>,
}

impl Decoder {
    /// Decodes until it is closed, or all handles are gone.
    fn run(&mut self, commands: &Receiver<Command>) {
        loop {
            let mut next = match self.routes.is_empty() {
                true => commands.recv().ok().or(Some(Command::Close)),
                false => commands.try_recv().ok(),
            };
            while let Some(command) = next {
                match command {
                    Command::Close => return,
                    Command::Submit { requests, events, cancel, reply } => {
                        // If the caller is gone, its token is cancelled.
                        let _ = reply.send(self.take(requests, &events, &cancel));
                    }
                }
                next = commands.try_recv().ok();
            }
            let cancelled = self.routes.iter().filter(|(_, route)| route.cancel.is_cancelled());
            for ticket in cancelled.map(|(ticket, _)| *ticket).collect::<Vec<_>>() {
                self.session.cancel(ticket);
                self.routes.remove(&ticket);
            }
            if !self.session.is_idle() {
                self.session.step().into_iter().for_each(|event| self.tell(event));
            }
        }
    }

    fn take(&mut self, requests: Vec<Request>, events: &Sender<Told>, cancel: &Cancel) -> Submitted {
        let mut tickets = Vec::with_capacity(requests.len());
        for request in requests {
            match self.session.submit(request) {
                Ok(ticket) => tickets.push(ticket),
                Err(error) => {
                    tickets.into_iter().for_each(|ticket| self.session.cancel(ticket));
                    return Err(error);
                }
            }
        }
        for (number, ticket) in tickets.into_iter().enumerate() {
            let route = Route { number, events: events.clone(), cancel: cancel.clone() };
            self.routes.insert(ticket, route);
        }
        Ok(())
    }

    /// Hands an event to whom it concerns.
    fn tell(&mut self, event: Event) {
        let ticket = event.ticket();
        let route = match &event {
            Event::Token { .. } => self.routes.get(&ticket).map(|route| (route.number, &route.events)),
            Event::Done { .. } | Event::Failed { .. } => {
                if let Some(route) = self.routes.remove(&ticket) {
                    let _ = route.events.send((route.number, event));
                }
                return;
            }
        };
        if let Some((number, events)) = route {
            // A receiver that is gone has cancelled the request.
            let _ = events.send((number, event));
        }
    }
}

/// What a panic said.
pub(super) fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "it panicked".to_owned())
}
