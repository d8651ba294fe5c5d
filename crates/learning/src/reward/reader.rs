//! The model that computes the features a reward head is trained on.

use stackelberg_data::Conversation;
use stackelberg_engine::{Checkpoint, Embedder};
use stackelberg_registry::layout::OddTokens;

use super::watch::Watch;
use crate::error::Error;
use crate::{Backbone, TextFormat, extract};

/// Sets of texts between two looks at whether to stop.
const SETS: usize = 64;

/// A model whose hidden states, or embeddings, a head is trained on.
pub enum Reader {
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

    /// Features of the texts of a file, row by row, `[texts, width]`. The texts of a set share a prefix, which is computed once.
    /// The tokens that a policy reads are added to `odd`.
    pub(super) fn features(
        &self,
        sets: &[Vec<&Conversation>],
        name: &str,
        odd: &mut OddTokens,
        watch: &(dyn Watch + Sync),
    ) -> Result<Vec<f32>, Error> {
        let rows = match self {
            Self::Policy(policy, format) => of_policy(policy, *format, sets, odd, &|done| {
                watch.progress(name, done, sets.len());
                watch.stop()
            }),
            Self::Embedder(embedder) => of_embedder(embedder, &sets.concat(), &|done, total| {
                watch.progress(name, done, total);
                watch.stop()
            }),
        };
        watch.done();
        rows.map_err(|error| match error {
            Error::Stopped => error,
            error => Error::Judged { file: name.to_owned(), source: Box::new(error) },
        })
    }
}

/// `told` receives the number of sets that are done, and says whether to stop.
fn of_policy(
    policy: &Checkpoint,
    format: TextFormat,
    sets: &[Vec<&Conversation>],
    odd: &mut OddTokens,
    told: &(dyn Fn(usize) -> bool + Sync),
) -> Result<Vec<f32>, Error> {
    let mut tokens = |text: &&Conversation| -> Result<Vec<u32>, Error> {
        let tokens = extract::tokens(policy, text, format)?;
        match format {
            // The start of a long text is not read, but tells whether the text has a BOS of its own.
            TextFormat::Raw => odd.add(policy, format, &policy.tokens(&text.raw, format)?),
            TextFormat::Chat => odd.add(policy, format, &tokens),
        }
        Ok(tokens)
    };
    let sets: Vec<Vec<Vec<u32>>> = sets
        .iter()
        .map(|set| set.iter().map(&mut tokens).collect::<Result<_, _>>())
        .collect::<Result<_, _>>()?;
    let mut rows = Vec::new();
    for (before, part) in (0..).step_by(SETS).zip(sets.chunks(SETS)) {
        if told(before) {
            return Err(Error::Stopped);
        }
        rows.extend(extract::features(policy, part, &|done, _| {
            told(before + done);
        })?);
    }
    Ok(rows)
}

/// As [`of_policy`], with the numbers of texts.
fn of_embedder(
    embedder: &Embedder,
    texts: &[&Conversation],
    told: &dyn Fn(usize, usize) -> bool,
) -> Result<Vec<f32>, Error> {
    let mut rows = Vec::new();
    for (before, part) in (0..).step_by(SETS).zip(texts.chunks(SETS)) {
        if told(before, texts.len()) {
            return Err(Error::Stopped);
        }
        rows.extend(extract::embeddings(embedder, part, &|done, _| {
            told(before + done, texts.len());
        })?);
    }
    Ok(rows)
}
