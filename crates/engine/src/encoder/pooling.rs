//! Pooling: one embedding from the hidden states of a text.

use strum::VariantNames;

/// How the hidden states of a text's tokens become one embedding.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    strum::Display,
    strum::EnumString,
    strum::IntoStaticStr,
    strum::VariantNames,
)]
#[strum(serialize_all = "lowercase", parse_err_ty = String, parse_err_fn = unknown)]
pub enum Pooling {
    /// The mean of all hidden states, including those of special tokens.
    Mean,
    /// The hidden state of the first token.
    Cls,
    /// `tanh(W x + b)` of the first token's hidden state, by the model's own pooler, as in SimCSE. This is the default
    /// for a folder without the files of sentence-transformers, if the model has a pooler.
    Pooler,
}

impl Pooling {
    /// The pooling's name: `mean`, `cls` or `pooler`.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

fn unknown(name: &str) -> String {
    crate::names::unknown("pooling", name, Pooling::VARIANTS)
}
