//! The losses of one epoch.

use serde::{Deserialize, Serialize};

use super::loss::Errors;

/// Losses of one pass over the training set.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    /// Mean training loss, accumulated during the epoch.
    pub training: f64,
    /// Validation MSE after the epoch.
    pub validation: Errors,
}
