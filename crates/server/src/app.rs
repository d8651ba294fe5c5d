//! What all handlers share.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use rand::TryRng;
use rand::rngs::SysRng;
use serde_json::Value;
use stackelberg_decoding::Limits;
use stackelberg_registry::guidance::GuidanceSpec;
use tokio::sync::{Semaphore, oneshot, watch};

use crate::config::Config;
use crate::engine::Engine;
use crate::error::{ApiError, Error, Result};
use crate::metrics::Metrics;
use crate::models::Models;
use crate::openai::request::Common;
use crate::settings;

/// Requests that may wait for remote rewards at once.
const REMOTE: usize = 4;

/// Whether the server goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// It takes requests.
    Serving,
    /// It takes no new requests, and finishes those that run.
    Draining,
    /// It ends those that run where they are.
    Aborting,
}

/// The state of the server.
pub(crate) struct App {
    pub(crate) config: Config,
    pub(crate) models: Models,
    pub(crate) engine: Engine,
    pub(crate) metrics: Arc<Metrics>,
    /// The guidance of requests without any.
    pub(crate) default: Option<GuidanceSpec>,
    /// Requests that are not answered yet.
    pub(crate) asks: AtomicUsize,
    /// Bytes of bodies that are being read.
    pub(crate) bodies: Semaphore,
    /// Prompts whose log-probabilities are being computed: each holds its keys and values.
    pub(crate) readers: Semaphore,
    /// Requests that wait for remote rewards, each on a thread.
    pub(crate) remote: Semaphore,
    phase: watch::Sender<Phase>,
    /// Makes ids unique if the system has no random numbers.
    count: AtomicU64,
}

impl App {
    /// Starts the thread that decodes. The receiver gets a message if it ends.
    ///
    /// # Errors
    /// The default guidance or a limit is no good, or the thread cannot be started.
    pub(crate) fn start(
        config: Config,
        models: Models,
    ) -> Result<(Arc<Self>, oneshot::Receiver<String>)> {
        config.limits.check()?;
        let wrong = |error: ApiError| Error::Setting(format!("default guidance: {}", error.message));
        let read = |value: Value| match value.get("extends") {
            None => GuidanceSpec::read(value, None).map_err(ApiError::from),
            Some(_) => Err(ApiError::invalid("extends", "extends: it is for requests: leave it out")),
        };
        let default = config.default_guidance.clone().map(read);
        let default = default.transpose().map_err(wrong)?;
        if let Some(guidance) = &default {
            models.check(guidance).map_err(wrong)?;
            let options = settings::options(&Common::default(), guidance, &config.limits);
            let settings = options.and_then(|options| {
                let settings = options.settings().map_err(|error| ApiError::decoding(&error))?;
                let vocabulary = models.policy.vocabulary();
                settings.check(vocabulary).map_err(|error| ApiError::decoding(&error))
            });
            settings.map_err(wrong)?;
            if let Some(reward) = &guidance.reward {
                models.reward("reward", reward).map_err(wrong)?;
            }
            guidance.value.as_deref().map(|value| models.value(value)).transpose().map_err(wrong)?;
        }
        let metrics = Arc::new(Metrics::new(models.policy.bytes()));
        let own = &config.limits;
        let limits = Limits { sequences: own.sequences.max(1), cache: own.cache, ..Limits::default() };
        let (engine, ended) =
            Engine::start(models.policy.clone(), limits, own.queue, metrics.clone()).map_err(
                |source| Error::Io { what: "cannot start the decoding thread".to_owned(), source },
            )?;
        let (phase, count) = (watch::Sender::new(Phase::Serving), AtomicU64::new(0));
        let bodies = Semaphore::new(config.limits.bodies);
        let (readers, remote) = (Semaphore::new(limits.sequences), Semaphore::new(REMOTE));
        let asks = AtomicUsize::new(0);
        let app = Self {
            config,
            models,
            engine,
            metrics,
            default,
            asks,
            bodies,
            readers,
            remote,
            phase,
            count,
        };
        Ok((Arc::new(app), ended))
    }

    /// The phase now.
    pub(crate) fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Tells when the phase changes.
    pub(crate) fn watch(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// The next phase begins.
    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }

    /// Does this work, unless the server ends what runs before it is done.
    ///
    /// # Errors
    /// As the work; or the server is about to end.
    pub(crate) async fn unless_aborted<T>(
        &self,
        work: impl Future<Output = std::result::Result<T, ApiError>>,
    ) -> std::result::Result<T, ApiError> {
        let mut phase = self.watch();
        tokio::select! {
            biased;
            done = work => done,
            _ = phase.wait_for(|phase| *phase == Phase::Aborting) => Err(ApiError::stopping()),
        }
    }

    /// Waits until nothing has been asked for a second.
    pub(crate) async fn idle(&self) {
        const CHECKS: usize = 20;
        let mut idle = 0;
        while idle < CHECKS {
            tokio::time::sleep(Duration::from_secs(1) / CHECKS as u32).await;
            let asks = self.asks.load(Ordering::Relaxed) > 0 || !self.engine.is_idle();
            idle = if asks { 0 } else { idle + 1 };
        }
    }

    /// A random number, which JSON numbers hold exactly: 53 bits.
    pub(crate) fn random(&self) -> u64 {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        SysRng.try_next_u64().unwrap_or_else(|_| now() ^ count << 32) >> 11
    }

    /// A name for an answer.
    pub(crate) fn id(&self, prefix: &str) -> String {
        format!("{prefix}-{:014x}", self.random())
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.map_or(0, |now| now.as_secs())
}

/// Runs what takes long, such as tokenizing, on a thread where nothing else waits for it.
///
/// # Errors
/// As the work; or it panics.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::result::Result<T, ApiError> + Send + 'static,
) -> std::result::Result<T, ApiError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| ApiError::internal(&error))?
}
