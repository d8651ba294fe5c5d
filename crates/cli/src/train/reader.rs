//! The model that computes the features a reward head is trained on.

use anyhow::{Context, Result};
use indicatif::ProgressBar;
use stackelberg_data::Conversation;
use stackelberg_engine::{Checkpoint, Embedder};
use stackelberg_learning::{Backbone, TextFormat, extract};
use stackelberg_registry::layout::OddTokens;

use crate::progress::style;

/// A model whose hidden states, or embeddings, a head is trained on.
pub(super) enum Reader {
    /// A policy, and the format of its texts.
    Policy(Box<Checkpoint>, TextFormat),
    /// A sentence embedder.
    Embedder(Box<Embedder>),
}

impl Reader {
    pub(super) fn width(&self) -> usize {
        match self {
            Self::Policy(policy, _) => policy.model.config().hidden,
            Self::Embedder(embedder) => embedder.width(),
        }
    }

    pub(super) fn fingerprint(&self) -> &str {
        match self {
            Self::Policy(policy, _) => &policy.fingerprint,
            Self::Embedder(embedder) => &embedder.fingerprint,
        }
    }

    pub(super) fn backbone(&self) -> Backbone {
        match self {
            Self::Policy(..) => Backbone::Policy,
            Self::Embedder(embedder) => Backbone::Embedder(embedder.pooling()),
        }
    }

    pub(super) fn text_format(&self) -> TextFormat {
        match self {
            Self::Policy(_, format) => *format,
            Self::Embedder(_) => TextFormat::Raw,
        }
    }

    /// Features of texts, row by row, `[texts, width]`. The texts of a set share a prefix, which is computed once. The
    /// tokens that a policy reads are added to `odd`.
    pub(super) fn features(
        &self,
        sets: &[Vec<&Conversation>],
        name: &str,
        odd: &mut OddTokens,
    ) -> Result<Vec<f32>> {
        let bar = bar(name)?;
        let progress = |done: usize, total: usize| {
            bar.set_length(total as u64);
            bar.set_position(done as u64);
        };
        let rows = match self {
            Self::Policy(policy, format) => {
                let mut tokens = |text: &&Conversation| -> Result<Vec<u32>> {
                    let tokens = extract::tokens(policy, text, *format)?;
                    match format {
                        // The start of a long text is not read, but tells whether the text has a BOS of its own.
                        TextFormat::Raw => odd.add(policy, *format, &policy.tokens(&text.raw, *format)?),
                        TextFormat::Chat => odd.add(policy, *format, &tokens),
                    }
                    Ok(tokens)
                };
                let sets: Vec<Vec<Vec<u32>>> = sets
                    .iter()
                    .map(|set| set.iter().map(&mut tokens).collect::<Result<_, _>>())
                    .collect::<Result<_, _>>()?;
                extract::features(policy, &sets, &progress)
            }
            Self::Embedder(embedder) => extract::embeddings(embedder, &sets.concat(), &progress),
        };
        bar.finish_and_clear();
        rows.with_context(|| name.to_owned())
    }
}

/// A progress bar.
pub(super) fn bar(what: &str) -> Result<ProgressBar> {
    let style = style("{msg} {bar:40} {pos}/{len} {eta} left");
    Ok(ProgressBar::new(0).with_style(style).with_message(what.to_owned()))
}
