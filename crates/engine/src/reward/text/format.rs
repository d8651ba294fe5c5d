//! The layouts of prompt and answer for rewards that read text.

use strum::VariantNames;

use crate::chat::{Message, Prompt};

/// A prompt and its answer so far.
#[derive(Debug, Clone, Copy)]
pub struct Exchange<'a> {
    /// The prompt.
    pub prompt: &'a Prompt,
    /// The answer, which may be incomplete.
    pub answer: &'a str,
}

/// The layout of prompt and answer for a reward that reads text.
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
pub enum RewardFormat {
    /// Prompt and answer, one after the other; a conversation in the layout of HH-RLHF.
    Raw,
    /// `\n\nHuman: ...\n\nAssistant: ...`, the layout of HH-RLHF.
    Hh,
    /// The prompt in the reward model's own chat template, followed by the answer.
    Chat,
    /// Prompt and answer in the reward model's own chat template, as a complete conversation. The reward is read at the
    /// end of the assistant's turn. This is how model cards of reward models score conversations.
    Closed,
    /// The answer alone, for classifiers of single texts.
    Answer,
    /// Prompt and answer as the two texts of a pair, `[CLS] prompt [SEP] answer [SEP]`, for classifiers.
    Pair,
}

impl RewardFormat {
    /// The format's name in lower case.
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// The text in this format. [`RewardFormat::Chat`] and [`RewardFormat::Closed`], which need a chat template, give
    /// the text of [`RewardFormat::Hh`]; [`RewardFormat::Pair`], which is two texts, gives that of [`RewardFormat::Raw`].
    pub fn lay_out(self, Exchange { prompt, answer }: Exchange<'_>) -> String {
        match self {
            Self::Raw | Self::Pair => prompt.raw(None) + answer,
            Self::Hh | Self::Chat | Self::Closed => hh(prompt, answer),
            Self::Answer => answer.to_owned(),
        }
    }
}

fn unknown(name: &str) -> String {
    format!("unknown reward format '{name}': known are {}", RewardFormat::VARIANTS.join(", "))
}

/// Names of formats, for error messages.
pub(super) fn names(formats: &[RewardFormat]) -> String {
    formats.iter().map(|format| format.name()).collect::<Vec<_>>().join(", ")
}

/// A prompt and its answer as one text in the layout of HH-RLHF. A prompt that is a single text becomes a human's turn,
/// unless it already has that layout.
pub(super) fn hh(prompt: &Prompt, answer: &str) -> String {
    let prompt = match prompt {
        Prompt::Text(text) if text.trim_start().starts_with("Human:") => {
            let open = text.trim_end();
            if open.ends_with("Assistant:") { open.to_owned() } else { format!("{open}\n\nAssistant:") }
        }
        Prompt::Text(text) => Prompt::Messages(vec![Message::new("user", text)]).raw(None),
        Prompt::Messages(_) => prompt.raw(None),
    };
    format!("{prompt} {}", answer.trim_start())
}
