//! Variables that users set in chat templates.

use serde::{Deserialize, Serialize};

/// A value for a variable of a chat template: JSON, whose objects keep the order of their keys as in Python.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Argument(pub(super) minijinja::Value);

impl Argument {
    /// The value, if it is a text.
    pub fn as_str(&self) -> Option<&str> {
        self.0.as_str()
    }
}

impl From<&str> for Argument {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl From<String> for Argument {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}
