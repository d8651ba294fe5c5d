//! Errors of the shaping crate as Python exceptions, with the same words.

use pyo3::PyErr;
use pyo3::exceptions::PyValueError;
use stackelberg_shaping::Error;

pyo3::create_exception!(
    stackelberg._lib,
    RowError,
    PyValueError,
    "An error in one row, with the arguments (row, index in the row or None, message)."
);

/// An error about settings, or about all rows.
pub(crate) fn general(error: &Error) -> PyErr {
    PyValueError::new_err(error.to_string())
}

/// An error in one row. The Python package adds how the caller knows the row: by its number, or by its group.
pub(crate) fn in_row(row: usize, error: &Error) -> PyErr {
    let index = match error {
        Error::NotFinite { index, .. } | Error::NegativeWeight { index, .. } => Some(*index),
        Error::TwoPriors => return general(error),
        _ => None,
    };
    RowError::new_err((row, index, error.to_string()))
}
