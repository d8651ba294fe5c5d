//! Products of hidden states with a weight vector.

use candle_core::Tensor;

use crate::error::{Error, Result};

/// `h · w` for each row of hidden states `[n, d]`, summed in f64.
///
/// # Errors
/// The hidden states have another width than the weights.
pub(crate) fn project(hidden: &Tensor, weight: &[f32]) -> Result<Vec<f64>> {
    let rows: Vec<Vec<f32>> = hidden.to_vec2()?;
    if let Some(row) = rows.iter().find(|row| row.len() != weight.len()) {
        let (found, expected) = (row.len(), weight.len());
        return Err(Error::Width { found, expected });
    }
    Ok(rows.iter().map(|row| dot(row, weight)).collect())
}

/// `h · w`, summed in f64.
pub(super) fn dot(h: &[f32], w: &[f32]) -> f64 {
    h.iter().zip(w).map(|(h, w)| f64::from(*h) * f64::from(*w)).sum()
}
