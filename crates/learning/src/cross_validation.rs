//! Jobs over threads, and held-out predictions along a path of regularisations.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use crate::error::Error;
use crate::folds::Folds;

/// A linear score `weight·h + bias` in raw feature units, in full precision.
#[derive(Debug, Clone)]
pub(crate) struct Linear {
    pub(crate) weight: Vec<f64>,
    pub(crate) bias: f64,
}

/// Something that can be fitted on part of its rows.
pub(crate) trait Problem: Sync {
    /// Fits on all rows but those of fold `without`, at each of the `lambdas` (largest first), calling
    /// `visit` with each solution in turn. `exact` asks for all digits of the last one, otherwise enough for
    /// comparing.
    fn path(
        &self,
        without: Option<usize>,
        lambdas: &[f64],
        exact: bool,
        visit: &mut dyn FnMut(Linear),
    ) -> Result<(), Error>;

    /// What a solution predicts for one row.
    fn predict(&self, linear: &Linear, row: usize) -> f64;
}

/// Counts finished pieces of work and tells whoever asked.
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

enum News<T> {
    Tick,
    Done(usize, T),
}

/// Runs `jobs` pieces of work on up to `threads` threads. Results come in order of the job, whoever did
/// it; each job may tick. The callback stays on this thread.
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
                    let result = work(job, &|| drop(send.send(News::Tick)));
                    if send.send(News::Done(job, result)).is_err() {
                        break;
                    }
                }
            });
        }
        drop(send);
        let mut results = Vec::with_capacity(jobs);
        for news in receive {
            match news {
                News::Tick => progress.tick(),
                News::Done(job, result) => results.push((job, result)),
            }
        }
        results
    });
    results.sort_by_key(|(job, _)| *job);
    results.into_iter().map(|(_, result)| result).collect()
}

/// Held-out predictions [lambdas][rows]: each row's by the fit that did not see its fold.
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
