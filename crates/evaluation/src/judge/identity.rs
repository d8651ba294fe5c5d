//! The identity of a judge.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The judge's model, form and sampling settings. Verdicts with different identities are different measurements.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Identity {
    /// The model's name in requests.
    pub model: String,
    /// The version of the rating form, see [`form::version`](super::form::version).
    pub form: String,
    /// The sampling temperature; `None` leaves the field out, for models that accept only their default.
    pub temperature: Option<f64>,
    /// The sampling seed, for servers that support one.
    pub seed: Option<u64>,
    /// More fields of the request: `reasoning_effort`, `grammar`, ...
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub extra: Map<String, Value>,
}
