//! Results as NumPy arrays.

use numpy::{Element, PyArray1};
use pyo3::{Bound, Python};

/// One number per prompt, or per response.
pub(crate) type Column<'py, T = f64> = Bound<'py, PyArray1<T>>;

/// A column with a number of each prompt.
pub(crate) fn column<'py, T, N: Element>(
    py: Python<'py>,
    prompts: &[T],
    number: impl Fn(&T) -> N,
) -> Column<'py, N> {
    PyArray1::from_iter(py, prompts.iter().map(number))
}

/// A column with a number of each prompt that has it, and NaN elsewhere.
pub(crate) fn optional<'py, T>(
    py: Python<'py>,
    prompts: &[T],
    number: impl Fn(&T) -> Option<f64>,
) -> Column<'py> {
    column(py, prompts, |prompt| number(prompt).unwrap_or(f64::NAN))
}
