//! Parallel jobs, and held-out predictions along a path of regularisations.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use crate::error::Error;
use crate::folds::Folds;

/// A linear score `weight·h + bias` in raw feature units, in `f64`.
#[derive(Debug, Clone)]
pub(crate) struct Linear {
    pub(crate) weight: Vec<f64>,
    pub(crate) bias: f64,
}

/// A linear model that can be fitted on a part of its rows.
pub(crate) trait Problem: Sync {
    /// Fits on all rows except those of fold `without`, for each of the `lambdas` (largest first), and calls `visit`
    /// with each solution. With `exact`, the last solution is computed to full precision; the others only as needed
    /// for comparing metrics.
    fn path(
        &self,
        without: Option<usize>,
        lambdas: &[f64],
        exact: bool,
        visit: &mut dyn FnMut(Linear),
    ) -> Result<(), Error>;

    /// The prediction of a solution for one row.
    fn predict(&self, linear: &Linear, row: usize) -> f64;
}

/// Counts finished units of work and reports them to a callback.
pub(crate) struct Progress<'a> {
    pub(crate) tell: &'a dyn Fn(usize, usize),
    pub(crate) done: std::cell::Cell<usize>,
    pub(crate) total: usize,
}

impl Progress<'_> {
    pub(crate) fn tick(&self) {
        self.done.set(self.done.get() + 1);
        (self.tell)(self.done.get(), self.total);
    }
}

/// A message from a worker thread.
enum Message<T> {
    Tick,
    Done(usize, T),
}

/// Runs `jobs` jobs on up to `threads` threads and returns their results in the order of the jobs. Jobs can report
/// progress. The progress callback runs on the calling thread.
pub(crate) fn fan_out<T: Send>(
    threads: usize,
    jobs: usize,
    progress: &Progress<'_>,
    work: impl Fn(usize, &dyn Fn()) -> T + Sync,
) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let mut results: Vec<(usize, T)> = std::thread::scope(|scope| {
        let (send, receive) = mpsc::channel();
        for _ in 0..threads.clamp(1, jobs.max(1)) {
            let (send, next, work) = (send.clone(), &next, &work);
            scope.spawn(move || {
                loop {
                    let job = next.fetch_add(1, Ordering::Relaxed);
                    if job >= jobs {
                        break;
                    }
                    // The receiver outlives the workers, unless the callback panicked.
                    let result = work(job, &|| drop(send.send(Message::Tick)));
                    if send.send(Message::Done(job, result)).is_err() {
                        break;
                    }
                }
            });
        }
        drop(send);
        let mut results = Vec::with_capacity(jobs);
        for message in receive {
            match message {
                Message::Tick => progress.tick(),
                Message::Done(job, result) => results.push((job, result)),
            }
        }
        results
    });
    results.sort_by_key(|(job, _)| *job);
    results.into_iter().map(|(_, result)| result).collect()
}

/// Held-out predictions `[lambdas][rows]`: each row is predicted by the fit without its fold.
pub(crate) fn held_out(
    problem: &impl Problem,
    folds: &Folds,
    lambdas: &[f64],
    threads: usize,
    progress: &Progress<'_>,
) -> Result<Vec<Vec<f64>>, Error> {
    let parts = fan_out(threads, folds.count(), progress, |fold, tick| {
        let mut predictions = Vec::with_capacity(lambdas.len());
        let mut visit = |linear: Linear| {
            let one = |&row: &usize| problem.predict(&linear, row);
            predictions.push(folds.held(fold).iter().map(one).collect::<Vec<f64>>());
            tick();
        };
        problem.path(Some(fold), lambdas, false, &mut visit).map(|()| predictions)
    });
    let rows = (0..folds.count()).map(|fold| folds.held(fold).len()).sum();
    let mut all = vec![vec![0.0; rows]; lambdas.len()];
    for (fold, part) in parts.into_iter().enumerate() {
        for (all, part) in all.iter_mut().zip(part?) {
            folds.held(fold).iter().zip(part).for_each(|(&row, value)| all[row] = value);
        }
    }
    Ok(all)
}
