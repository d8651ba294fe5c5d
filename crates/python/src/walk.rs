//! Applies a function to every prompt, on several threads and without the GIL.

use std::ops::Range;
use std::thread;

use pyo3::exceptions::PyValueError;
use pyo3::{PyResult, Python};
use stackelberg_shaping::Error;

use crate::error::in_row;
use crate::rows::{Prompt, Rows, Scratch, Views};

/// What a function returned for all prompts, in their order.
pub(crate) struct Walked<T> {
    /// One result per prompt.
    pub(crate) prompts: Vec<T>,
    /// The numbers that belong to single responses, those of all prompts in one.
    pub(crate) responses: Vec<f64>,
}

/// Applies `each` to every prompt, on at most `threads` threads, of which this is one. `each` adds numbers of single responses
/// to the vector that it is given. The other threads end before this returns, so that a process can be forked afterwards.
///
/// # Errors
/// The first row's error; no threads.
pub(crate) fn walk<T: Send>(
    py: Python<'_>,
    rows: &Rows<'_>,
    threads: isize,
    each: impl Fn(&Prompt<'_>, &mut Vec<f64>) -> Result<T, Error> + Sync,
) -> PyResult<Walked<T>> {
    let threads = usize::try_from(threads)
        .ok()
        .filter(|&threads| threads > 0)
        .ok_or_else(|| PyValueError::new_err(format!("threads is {threads}: it must be one or more")))?;
    let views = rows.views()?;
    py.detach(|| {
        let prompts = views.prompts();
        let parts = threads.min(prompts).max(1);
        let part = |i: usize| prompts * i / parts..prompts * (i + 1) / parts;
        let (views, each) = (&views, &each);
        thread::scope(|scope| {
            let others = (1..parts)
                .map(|i| {
                    thread::Builder::new().spawn_scoped(scope, move || walk_part(views, part(i), each))
                })
                .collect::<Result<Vec<_>, _>>()?;
            let mut all = walk_part(views, part(0), each)?;
            for other in others {
                let other = other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
                all.prompts.extend(other.prompts);
                all.responses.extend(other.responses);
            }
            Ok(all)
        })
    })
}

fn walk_part<T>(
    views: &Views<'_>,
    prompts: Range<usize>,
    each: impl Fn(&Prompt<'_>, &mut Vec<f64>) -> Result<T, Error>,
) -> PyResult<Walked<T>> {
    let mut walked = Walked {
        prompts: Vec::with_capacity(prompts.len()),
        responses: Vec::with_capacity(views.responses(&prompts)),
    };
    let mut scratch = Scratch::default();
    for row in prompts {
        let prompt = views.prompt(row, &mut scratch);
        let result = each(&prompt, &mut walked.responses).map_err(|error| in_row(row, &error))?;
        walked.prompts.push(result);
    }
    Ok(walked)
}
