//! Rewards that read text, not the policy's tokens: another model with a tokenizer of its own, a program, a
//! server. They guide too: every candidate is read as the text that it would make.
//!
//! What such a reward sees is laid out in one way wherever it is asked, see [`RewardFormat`].

mod classifier;
mod embedded;
mod foreign;

use std::str::FromStr;

pub use classifier::Classifier;
pub use embedded::EmbeddedHead;
pub use foreign::ForeignModel;

use crate::chat::{Message, Prompt};
use crate::error::{Error, Result};

/// A prompt and what was answered so far.
#[derive(Debug, Clone, Copy)]
pub struct Exchange<'a> {
    /// What was asked.
    pub prompt: &'a Prompt,
    /// The answer, maybe not finished.
    pub answer: &'a str,
}

/// What scores texts.
pub trait TextScorer: Send + Sync {
    /// One reward for each exchange, laid out in this format. None may depend on the others.
    ///
    /// # Errors
    /// What the scorer says.
    fn score(&self, exchanges: &[Exchange<'_>], format: RewardFormat) -> Result<Vec<f64>>;

    /// The format that it was made for.
    fn usual_format(&self) -> RewardFormat;

    /// What there is to say of it, by name: what it is, what it reads.
    fn about(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// The formats that it can be asked in.
    fn formats(&self) -> &[RewardFormat] {
        &[RewardFormat::Raw, RewardFormat::Hh, RewardFormat::Answer]
    }
}

/// How an exchange is laid out for a reward that reads text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RewardFormat {
    /// Prompt and answer, one behind the other; a conversation in the layout of HH-RLHF.
    Raw,
    /// `\n\nHuman: ...\n\nAssistant: ...`, the layout of HH-RLHF.
    Hh,
    /// The reward model's own chat template around the prompt, the answer behind it.
    Chat,
    /// The reward model's own chat template around both, as if the answer were finished: where cards of reward models say
    /// how to score a conversation, they mean this. The reward is of the turn's end.
    Closed,
    /// The answer alone: what classifiers of single texts read.
    Answer,
    /// Prompt and answer as the two texts of a classifier's tokenizer, `[CLS] prompt [SEP] answer [SEP]`.
    Pair,
}

impl RewardFormat {
    const ALL: [Self; 6] = [Self::Raw, Self::Hh, Self::Chat, Self::Closed, Self::Answer, Self::Pair];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Hh => "hh",
            Self::Chat => "chat",
            Self::Closed => "closed",
            Self::Answer => "answer",
            Self::Pair => "pair",
        }
    }

    /// Prompt and answer as one text. Formats that need a chat template give the text of [`RewardFormat::Hh`];
    /// [`RewardFormat::Pair`], which is two texts, gives that of [`RewardFormat::Raw`].
    pub fn lay_out(self, Exchange { prompt, answer }: Exchange<'_>) -> String {
        match self {
            Self::Raw | Self::Pair => prompt.raw(None) + answer,
            Self::Hh | Self::Chat | Self::Closed => TextReward::lay_out(prompt, answer),
            Self::Answer => answer.to_owned(),
        }
    }
}

impl std::fmt::Display for RewardFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for RewardFormat {
    type Err = String;

    fn from_str(name: &str) -> std::result::Result<Self, String> {
        let known = Self::ALL.into_iter().find(|format| format.name() == name);
        known.ok_or_else(|| format!("unknown reward format '{name}': known are {}", names(&Self::ALL)))
    }
}

/// Names of formats, for messages.
fn names(formats: &[RewardFormat]) -> String {
    formats.iter().map(|format| format.name()).collect::<Vec<_>>().join(", ")
}

/// A reward that reads text.
pub struct TextReward {
    scorer: Box<dyn TextScorer>,
    format: RewardFormat,
}

impl TextReward {
    /// A scorer, with the format that it was made for.
    pub fn new(scorer: impl TextScorer + 'static) -> Self {
        let format = scorer.usual_format();
        Self { scorer: Box::new(scorer), format }
    }

    /// The same with another format.
    ///
    /// # Errors
    /// The scorer cannot be asked in it.
    pub fn with_format(self, format: RewardFormat) -> Result<Self> {
        let formats = self.scorer.formats();
        if !formats.contains(&format) {
            let why = match format {
                RewardFormat::Chat | RewardFormat::Closed => "it has no chat template",
                RewardFormat::Pair => "that is for classifiers over an encoder",
                _ => "it was not made for it",
            };
            let known = names(formats);
            let what = format!("this reward does not read {format} text, as {why}: it reads {known}");
            return Err(Error::Scorer(what));
        }
        Ok(Self { format, ..self })
    }

    /// The format that the scorer was made for.
    pub fn usual_format(&self) -> RewardFormat {
        self.scorer.usual_format()
    }

    /// How it lays out what it reads.
    pub fn format(&self) -> RewardFormat {
        self.format
    }

    /// What there is to say of it, by name.
    pub fn about(&self) -> Vec<(&'static str, String)> {
        self.scorer.about()
    }

    /// Rewards of prompts with their answers. None depends on the others.
    ///
    /// # Errors
    /// What the scorer says; it reads no pairs and is asked to.
    pub fn score(&self, exchanges: &[Exchange<'_>]) -> Result<Vec<f64>> {
        if exchanges.is_empty() { Ok(Vec::new()) } else { self.scorer.score(exchanges, self.format) }
    }

    /// Rewards of texts as they are.
    ///
    /// # Errors
    /// What the scorer says.
    pub fn score_texts(&self, texts: &[&str]) -> Result<Vec<f64>> {
        let prompt = Prompt::Text(String::new());
        let exchanges: Vec<_> =
            texts.iter().map(|answer| Exchange { prompt: &prompt, answer }).collect();
        self.scorer.score(&exchanges, RewardFormat::Answer)
    }

    /// A prompt and its answer as one text in the layout of HH-RLHF, whatever the policy was shown. A
    /// prompt that is one text counts as a human's turn, unless it has that layout itself.
    pub fn lay_out(prompt: &Prompt, answer: &str) -> String {
        let prompt = match prompt {
            Prompt::Text(text) if text.trim_start().starts_with("Human:") => {
                let open = text.trim_end();
                if open.ends_with("Assistant:") {
                    open.to_owned()
                } else {
                    format!("{open}\n\nAssistant:")
                }
            }
            Prompt::Text(text) => Prompt::Messages(vec![Message::new("user", text)]).raw(None),
            Prompt::Messages(_) => prompt.raw(None),
        };
        format!("{prompt} {}", answer.trim_start())
    }
}
