//! The losses of one epoch.

use serde::{Deserialize, Serialize};

use super::loss::Errors;

/// One pass over the training samples.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    /// Mean loss of the training samples, as they were met.
    pub training: f64,
    /// Mean errors on the validation samples after it.
    pub validation: Errors,
}
