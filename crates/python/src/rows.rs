//! The rewards of many prompts, read from NumPy arrays in place.

use std::ops::Range;

use numpy::ndarray::{ArrayView2, s};
use numpy::{PyReadonlyArray1, PyReadonlyArray2, PyUntypedArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::{FromPyObject, PyResult};
use stackelberg_shaping::{Error, Samples};

/// The attributes of a Python object, such as `stackelberg._rows.Rows`.
///
/// Without offsets, each array is `(P, M)`: a row is a prompt. With them, each array is `(1, N)`, and prompt `i` has the columns from
/// `offsets[i]` to `offsets[i + 1]`. Any strides are allowed.
#[derive(FromPyObject)]
pub(crate) struct Rows<'py> {
    rewards: Array<'py>,
    offsets: Option<PyReadonlyArray1<'py, i64>>,
    weights: Option<Array<'py>>,
    logits: Option<Array<'py>>,
    shaped: Option<Array<'py>>,
}

/// Numbers of either precision.
#[derive(FromPyObject)]
enum Array<'py> {
    Double(PyReadonlyArray2<'py, f64>),
    Single(PyReadonlyArray2<'py, f32>),
}

/// Rows that can be read without the GIL.
pub(crate) struct Views<'a> {
    rewards: View<'a>,
    offsets: Option<Vec<usize>>,
    weights: Option<View<'a>>,
    logits: Option<View<'a>>,
    shaped: Option<View<'a>>,
}

enum View<'a> {
    Double(ArrayView2<'a, f64>),
    Single(ArrayView2<'a, f32>),
}

/// One prompt's numbers, each in the order of its responses.
pub(crate) struct Prompt<'s> {
    rewards: &'s [f64],
    weights: Option<&'s [f64]>,
    pub(crate) logits: Option<&'s [f64]>,
    shaped: Option<&'s [f64]>,
}

/// Room for a prompt's numbers where they do not lie side by side as `f64` in an array.
#[derive(Default)]
pub(crate) struct Scratch([Vec<f64>; 4]);

impl Rows<'_> {
    /// Views of the arrays.
    ///
    /// # Errors
    /// The arrays differ in shape, or the offsets do not divide the columns.
    pub(crate) fn views(&self) -> PyResult<Views<'_>> {
        let shape = self.rewards.shape();
        let others = [&self.weights, &self.logits, &self.shaped];
        if others.into_iter().flatten().any(|other| other.shape() != shape) {
            return Err(PyValueError::new_err("the arrays differ in shape"));
        }
        let offsets = self.offsets.as_ref().map(|offsets| divide(offsets, shape)).transpose()?;
        Ok(Views {
            rewards: self.rewards.view(),
            offsets,
            weights: self.weights.as_ref().map(Array::view),
            logits: self.logits.as_ref().map(Array::view),
            shaped: self.shaped.as_ref().map(Array::view),
        })
    }
}

/// The offsets, which must rise from 0 to the number of columns of one row.
fn divide(offsets: &PyReadonlyArray1<'_, i64>, shape: [usize; 2]) -> PyResult<Vec<usize>> {
    let found: Vec<usize> = offsets.as_array().iter().map(|&at| at as usize).collect();
    let ends = [found.first(), found.last()] == [Some(&0), Some(&shape[1])];
    if ends && shape[0] == 1 && found.is_sorted() {
        Ok(found)
    } else {
        Err(PyValueError::new_err("the offsets do not divide the columns of one row"))
    }
}

impl Array<'_> {
    fn shape(&self) -> [usize; 2] {
        let shape = match self {
            Array::Double(array) => array.shape(),
            Array::Single(array) => array.shape(),
        };
        [shape[0], shape[1]]
    }

    fn view(&self) -> View<'_> {
        match self {
            Array::Double(array) => View::Double(array.as_array()),
            Array::Single(array) => View::Single(array.as_array()),
        }
    }
}

impl Views<'_> {
    /// The number of prompts.
    pub(crate) fn prompts(&self) -> usize {
        match &self.offsets {
            Some(offsets) => offsets.len() - 1,
            None => self.rewards.shape()[0],
        }
    }

    /// The number of responses to these prompts.
    pub(crate) fn responses(&self, prompts: &Range<usize>) -> usize {
        match &self.offsets {
            Some(offsets) => offsets[prompts.end] - offsets[prompts.start],
            None => prompts.len() * self.rewards.shape()[1],
        }
    }

    /// One prompt's numbers.
    pub(crate) fn prompt<'s>(&'s self, prompt: usize, scratch: &'s mut Scratch) -> Prompt<'s> {
        let (row, columns) = match &self.offsets {
            Some(offsets) => (0, offsets[prompt]..offsets[prompt + 1]),
            None => (prompt, 0..self.rewards.shape()[1]),
        };
        let [rewards, weights, logits, shaped] = &mut scratch.0;
        Prompt {
            rewards: self.rewards.part(row, columns.clone(), rewards),
            weights: self.weights.as_ref().map(|view| view.part(row, columns.clone(), weights)),
            logits: self.logits.as_ref().map(|view| view.part(row, columns.clone(), logits)),
            shaped: self.shaped.as_ref().map(|view| view.part(row, columns, shaped)),
        }
    }
}

impl View<'_> {
    fn shape(&self) -> [usize; 2] {
        let (rows, columns) = match self {
            View::Double(view) => view.dim(),
            View::Single(view) => view.dim(),
        };
        [rows, columns]
    }

    /// A part of a row: in place where it can be, else copied into `scratch`.
    fn part<'s>(&'s self, row: usize, columns: Range<usize>, scratch: &'s mut Vec<f64>) -> &'s [f64] {
        scratch.clear();
        match self {
            View::Double(view) => {
                let part = view.slice(s![row, columns]);
                if let Some(part) = part.to_slice() {
                    return part;
                }
                scratch.extend(part);
            }
            View::Single(view) => {
                scratch.extend(view.slice(s![row, columns]).iter().map(|&x| f64::from(x)))
            }
        }
        scratch
    }
}

impl<'s> Prompt<'s> {
    /// The responses.
    ///
    /// # Errors
    /// As [`Samples::given`].
    pub(crate) fn samples(&self) -> Result<Samples<'s>, Error> {
        Samples::given(self.rewards, self.weights, self.logits)
    }

    /// The shaped rewards that were given; empty if there are none.
    pub(crate) fn shaped(&self) -> &'s [f64] {
        self.shaped.unwrap_or_default()
    }
}
