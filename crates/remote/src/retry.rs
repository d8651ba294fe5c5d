//! The retry policy: which waits lie between a request and its repetitions.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};

/// The longest `Retry-After` that is waited for. A server that asks for more is not asked again.
pub(crate) const LONGEST_ASKED: Duration = Duration::from_secs(600);

/// The longest wait that doubling leads to.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Repeats requests to one server. It may be used from many threads: a `Retry-After` holds for all of them.
#[derive(Debug)]
pub(crate) struct Retry {
    /// How often a request is repeated.
    repeats: u32,
    /// The wait before the first repetition.
    first_wait: Duration,
    /// The time until which the server asked not to be asked.
    not_before: Mutex<Option<Instant>>,
}

/// The result of sending a request once.
pub(crate) enum Attempt<T, E> {
    /// It succeeded.
    Done(T),
    /// It failed and may succeed later, after the time that the server asked for.
    Again(E, Option<Duration>),
    /// It failed and would fail again.
    Never(E),
}

/// Why a request did not succeed.
pub(crate) enum Ended<E> {
    /// The error of the last attempt.
    Failed(E),
    /// The caller asked to stop.
    Stopped,
}

impl Retry {
    pub(crate) fn new(repeats: u32, first_wait: Duration) -> Self {
        Self { repeats, first_wait, not_before: Mutex::new(None) }
    }

    /// Sends until `send` succeeds, fails for good, has failed `1 + repeats` times, or `stop` returns true.
    pub(crate) fn run<T, E>(
        &self,
        stop: &dyn Fn() -> bool,
        mut send: impl FnMut() -> Attempt<T, E>,
    ) -> Result<T, Ended<E>> {
        let mut tries = 0;
        loop {
            if !self.wait_for_server(stop) {
                return Err(Ended::Stopped);
            }
            tries += 1;
            let asked = match send() {
                Attempt::Done(value) => return Ok(value),
                Attempt::Never(error) => return Err(Ended::Failed(error)),
                Attempt::Again(error, asked) => {
                    if tries > self.repeats || asked.is_some_and(|asked| asked > LONGEST_ASKED) {
                        return Err(Ended::Failed(error));
                    }
                    asked
                }
            };
            if let Some(asked) = asked {
                let mut until = self.not_before.lock().unwrap_or_else(PoisonError::into_inner);
                *until = (*until).max(Some(Instant::now() + asked));
            }
            if !pause(Instant::now() + self.wait(tries - 1).mul_f64(0.5 + 0.5 * uniform()), stop) {
                return Err(Ended::Stopped);
            }
        }
    }

    /// The wait before a repetition, numbered from 0, before it is shortened at random.
    fn wait(&self, repetition: u32) -> Duration {
        self.first_wait.saturating_mul(1 << repetition.min(16)).min(LONGEST_WAIT)
    }

    /// Waits as long as the server asked any thread to; false if the caller asks to stop.
    fn wait_for_server(&self, stop: &dyn Fn() -> bool) -> bool {
        loop {
            let until = *self.not_before.lock().unwrap_or_else(PoisonError::into_inner);
            match until {
                Some(until) if until > Instant::now() => {
                    if !pause(until, stop) {
                        return false;
                    }
                }
                _ => return !stop(),
            }
        }
    }
}

/// Sleeps until a time; returns false as soon as the caller asks to stop.
fn pause(until: Instant, stop: &dyn Fn() -> bool) -> bool {
    loop {
        if stop() {
            return false;
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return true;
        }
        std::thread::sleep(left.min(Duration::from_millis(50)));
    }
}

/// A random number in [0, 1), from the randomness that the standard library seeds its hash maps with.
pub(crate) fn uniform() -> f64 {
    (RandomState::new().hash_one(0_u64) >> 11) as f64 / (1_u64 << 53) as f64
}

/// Whether a request that was answered with this status may succeed when it is sent again.
pub(crate) fn is_temporary(status: StatusCode) -> bool {
    status.is_server_error() || [408, 409, 425, 429].contains(&status.as_u16())
}

/// The wait that `Retry-After` asks for: seconds, or the time until a date.
pub(crate) fn asked_wait(headers: &HeaderMap) -> Option<Duration> {
    let asked = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    match asked.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).ok(),
        Err(_) => httpdate::parse_http_date(asked).ok()?.duration_since(SystemTime::now()).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::header::HeaderValue;

    const NEVER: &dyn Fn() -> bool = &|| false;

    #[test]
    fn waits_are_seconds_or_dates() {
        let asked = |value: &str| {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_str(value).unwrap())]);
            asked_wait(&headers)
        };
        assert_eq!(asked("3"), Some(Duration::from_secs(3)));
        let soon = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(100));
        let found = asked(&soon).unwrap().as_secs_f64();
        assert!((98.0..=100.0).contains(&found), "{found}");
        for nothing in ["-1", "soon", "Wed, 21 Oct 2015 07:28:00 GMT", "NaN", "1e300"] {
            assert_eq!(asked(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn waits_double_up_to_a_minute() {
        let retry = Retry::new(9, Duration::from_secs(1));
        let waits: Vec<u64> = [0, 1, 5, 6, 40].map(|n| retry.wait(n).as_secs()).into();
        assert_eq!(waits, [1, 2, 32, 60, 60]);
        let shares: Vec<f64> = (0..100).map(|_| uniform()).collect();
        assert!(shares.iter().all(|share| (0.0..1.0).contains(share)));
        assert!(shares.iter().any(|&share| share < 0.3) && shares.iter().any(|&share| share > 0.7));
    }

    #[test]
    fn attempts_are_counted() {
        let retry = Retry::new(2, Duration::ZERO);
        let mut sent = 0;
        let mut run = |attempt: &dyn Fn(u32) -> Attempt<u32, &'static str>| {
            sent = 0;
            let ended = retry.run(NEVER, || {
                sent += 1;
                attempt(sent)
            });
            match ended {
                Ok(value) => Ok(value),
                Err(Ended::Failed(error)) => Err((error, sent)),
                Err(Ended::Stopped) => panic!("nobody stopped it"),
            }
        };
        assert_eq!(run(&|_| Attempt::Again("busy", None)), Err(("busy", 3)));
        assert_eq!(run(&|_| Attempt::Never("no")), Err(("no", 1)));
        assert_eq!(run(&|_| Attempt::Again("hours", Some(Duration::from_secs(601)))), Err(("hours", 1)));
        let second = |sent| if sent == 2 { Attempt::Done(7) } else { Attempt::Again("busy", None) };
        assert_eq!(run(&second), Ok(7));
    }

    #[test]
    fn a_stop_ends_a_wait() {
        let retry = Retry::new(2, Duration::from_secs(60));
        let began = Instant::now();
        let stop = || began.elapsed() > Duration::from_millis(20);
        let ended = retry.run(&stop, || Attempt::<(), _>::Again((), None));
        assert!(matches!(ended, Err(Ended::Stopped)));
        assert!(began.elapsed() < Duration::from_secs(10));
    }
}
