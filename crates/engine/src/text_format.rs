//! The layout of prompt and response as text.

use strum::VariantNames;

/// The layout of prompt and response as text.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    strum::Display,
    strum::EnumString,
    strum::IntoStaticStr,
    strum::VariantNames,
)]
#[strum(serialize_all = "lowercase", parse_err_ty = String, parse_err_fn = unknown)]
pub enum TextFormat {
    /// Prompt and response as they are, one after the other.
    #[default]
    Raw,
    /// The prompt in the policy's chat template, followed by the response.
    Chat,
}

impl TextFormat {
    /// The format's name: `raw` or `chat`.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

fn unknown(name: &str) -> String {
    crate::names::unknown("text format", name, TextFormat::VARIANTS)
}
