//! API keys.

use std::fmt;

use reqwest::header::HeaderValue;

/// An API key, sent as `Authorization: Bearer KEY`. Its `Debug` output does not show it.
///
/// ```
/// let key = stackelberg_remote::Key::new("sk-secret\n");
/// assert_eq!(format!("{key:?}"), "Key(...)");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Key(String);

impl Key {
    /// Removes white space around the key. An empty key is not sent.
    pub fn new(key: &str) -> Self {
        Self(key.trim().to_owned())
    }

    pub(crate) fn text(&self) -> &str {
        &self.0
    }

    /// The value of the header `Authorization`; `None` if the key holds characters that a header cannot hold.
    pub(crate) fn header(&self) -> Option<HeaderValue> {
        let mut value = HeaderValue::from_str(&format!("Bearer {}", self.0)).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(...)")
    }
}
