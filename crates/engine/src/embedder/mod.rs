//! Sentence embedders: a text in, a vector out, and texts that mean alike get vectors that point alike.
//!
//! An embedder is a folder of an encoder (BERT, RoBERTa, XLM-RoBERTa, DistilBERT, ELECTRA, DeBERTa, ModernBERT):
//! `config.json`, `model.safetensors`, `tokenizer.json`. Where the files of sentence-transformers lie beside them
//! (`modules.json`, `1_Pooling/config.json`, `sentence_bert_config.json`), they decide the pooling and the
//! longest text. A folder without them is read as SimCSE is: see [`Pooling`].
//!
//! ```no_run
//! use stackelberg_engine::Embedder;
//! use stackelberg_hub::Hub;
//!
//! let hub = Hub::from_variables(|name| std::env::var_os(name));
//! let embedder = Embedder::load(&hub.resolve("all-minilm-l6-v2", &|_| ())?)?;
//! let found = embedder.embed(&["How do I bake bread?", "Mix flour, water, salt and yeast."])?;
//! let cosine: f32 = found[0].iter().zip(&found[1]).map(|(a, b)| a * b).sum();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod config;
mod encoder;
mod parts;
mod reading;
mod relative;

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

use config::Config;
use encoder::Encoder;
use reading::Reading;

pub(crate) use encoder::{Linear, bias};
use tokenizers::TruncationDirection;

use crate::checkpoint::fingerprint;
use crate::error::{Error, Result};
use crate::kernel;
use crate::tokenizer::{Tokenizer, Tokens};

/// How the states of a text's tokens become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// Their mean, special tokens included.
    Mean,
    /// The first token's state.
    Cls,
    /// The first token's state behind the model's own pooler, `tanh(W x + b)`: as SimCSE is used. The
    /// default of a folder without the files of sentence-transformers, if it has a pooler.
    Pooler,
}

impl Pooling {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mean => "mean",
            Self::Cls => "cls",
            Self::Pooler => "pooler",
        }
    }
}

impl std::fmt::Display for Pooling {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Pooling {
    type Err = String;

    fn from_str(name: &str) -> std::result::Result<Self, String> {
        let known = [Self::Mean, Self::Cls, Self::Pooler].into_iter().find(|p| p.name() == name);
        known.ok_or_else(|| format!("unknown pooling '{name}': known are mean, cls and pooler"))
    }
}

/// Which end of a text that is too long is cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Truncate {
    /// The end goes, the start is kept.
    End,
    /// The start goes, the end is kept.
    Start,
}

/// A loaded sentence embedder.
pub struct Embedder {
    encoder: Encoder,
    tokenizer: Tokenizer,
    pooling: Pooling,
    max_tokens: usize,
    lower_case: bool,
    /// Tells this embedder's weights from any other's: see [`fingerprint`].
    pub fingerprint: String,
    /// Where it was loaded from.
    pub path: PathBuf,
}

/// Rows of one forward: as many as the caches hold. No number depends on it.
const ROWS: usize = 256;

impl Embedder {
    /// Loads a folder.
    ///
    /// # Errors
    /// Files missing, cut short or malformed; another architecture; a tensor missing or misshapen; a pooling
    /// or a module that is not known.
    pub fn load(path: &Path) -> Result<Self> {
        if !path.is_dir() {
            let what = "no folder: an embedder is a folder with config.json, model.safetensors and tokenizer.json";
            return Err(Error::invalid(path, what));
        }
        let config = Config::read(path)?;
        let reading = Reading::of(path)?;
        let encoder = Encoder::load(path, &config)?;
        let tokenizer = Tokenizer::from_file(&path.join("tokenizer.json"))?.whole();
        let (found, vocabulary) = (tokenizer.vocabulary(), encoder.vocabulary());
        if found > vocabulary {
            let what = format!("the tokenizer knows {found} tokens, the model {vocabulary}");
            return Err(Error::invalid(path, what));
        }
        let max_tokens = reading.max_tokens.unwrap_or(usize::MAX).min(encoder.context());
        let around = tokenizer.around(false);
        if max_tokens <= around {
            let what = format!(
                "texts have at most {max_tokens} tokens, and {around} are put around each: there is no room"
            );
            return Err(Error::invalid(path, what));
        }
        let simcse = if encoder.has_pooler() { Pooling::Pooler } else { Pooling::Cls };
        Ok(Self {
            pooling: reading.pooling.unwrap_or(simcse),
            max_tokens,
            lower_case: reading.lower_case,
            encoder,
            tokenizer,
            fingerprint: fingerprint(path)?,
            path: path.to_owned(),
        })
    }

    /// The same embedder with another pooling than its folder asks for.
    ///
    /// # Errors
    /// The pooler is asked for and the model has none.
    pub fn with_pooling(self, pooling: Pooling) -> Result<Self> {
        if pooling == Pooling::Pooler && !self.encoder.has_pooler() {
            let name = "pooler.dense.weight".to_owned();
            return Err(Error::MissingTensor { path: self.path, name });
        }
        Ok(Self { pooling, ..self })
    }

    /// How the states of a text's tokens become one.
    pub fn pooling(&self) -> Pooling {
        self.pooling
    }

    /// Numbers of an embedding.
    pub fn width(&self) -> usize {
        self.encoder.width()
    }

    /// Most tokens of a text that are read, special tokens included.
    pub fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    /// Embeddings of texts, each of length 1, so that their products are cosines. What is too long loses its
    /// end; an empty text has an embedding too. No number depends on the other texts.
    ///
    /// # Errors
    /// The tokenizer fails.
    pub fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>> {
        self.embed_cut(texts, Truncate::End)
    }

    /// The same, but the caller says which end of a text that is too long goes.
    ///
    /// # Errors
    /// As [`Embedder::embed`].
    pub fn embed_cut(&self, texts: &[&str], truncate: Truncate) -> Result<Vec<Vec<f32>>> {
        let mut found = self.pooled(texts, truncate)?;
        for embedding in &mut found {
            let norm =
                embedding.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt().max(1e-12) as f32;
            embedding.iter_mut().for_each(|x| *x /= norm);
        }
        Ok(found)
    }

    /// The same before they are brought to length 1.
    ///
    /// # Errors
    /// As [`Embedder::embed`].
    pub fn pooled(&self, texts: &[&str], truncate: Truncate) -> Result<Vec<Vec<f32>>> {
        let side = match truncate {
            Truncate::End => TruncationDirection::Right,
            Truncate::Start => TruncationDirection::Left,
        };
        let encode =
            |text: &&str| self.tokenizer.encode_within(&self.as_read(text), self.max_tokens, side);
        Ok(self.run(&self.tokens(texts, encode)?))
    }

    /// The same of pairs of texts, as the tokenizer puts them together. What is too long loses the start of the
    /// first text, then that of the second.
    ///
    /// # Errors
    /// The tokenizer fails, or knows no pairs.
    pub(crate) fn pooled_pairs(&self, pairs: &[(String, &str)]) -> Result<Vec<Vec<f32>>> {
        if self.tokenizer.around(true) == 0 {
            let what = "its post_processor puts nothing between two texts, as the format pair needs";
            return Err(Error::invalid(&self.path.join("tokenizer.json"), what));
        }
        let (most, around) = (self.max_tokens, self.tokenizer.around(true));
        if most <= around {
            let what = format!(
                "texts have at most {most} tokens, and {around} are put around a pair: there is no room"
            );
            return Err(Error::invalid(&self.path, what));
        }
        let encode = |(first, second): &(String, &str)| {
            let (first, second) = (self.as_read(first), self.as_read(second));
            self.tokenizer.encode_pair(&first, &second, self.max_tokens)
        };
        Ok(self.run(&self.tokens(pairs, encode)?))
    }

    /// A text as the tokenizer is given it.
    fn as_read<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if self.lower_case { text.trim().to_lowercase().into() } else { text.trim().into() }
    }

    /// One state for each text.
    fn run(&self, tokens: &[Tokens]) -> Vec<Vec<f32>> {
        let found: Vec<Mutex<Vec<Vec<f32>>>> = batches(tokens).map(|_| Mutex::default()).collect();
        let work = |(batch, found): (&[Tokens], &Mutex<Vec<Vec<f32>>>)| {
            *found.lock().unwrap_or_else(PoisonError::into_inner) = self.states(batch);
        };
        let mut jobs = batches(tokens).zip(&found);
        match found.len() {
            // Its layers are shared among the threads instead.
            1 => jobs.for_each(work),
            // A few at a time, as the threads may be lent for a while only.
            _ => loop {
                let wave: Vec<_> = jobs.by_ref().take(16 * kernel::threads()).collect();
                if wave.is_empty() {
                    break;
                }
                kernel::share(wave.into_iter(), work);
            },
        }
        let found =
            found.into_iter().map(|found| found.into_inner().unwrap_or_else(PoisonError::into_inner));
        found.flatten().collect()
    }

    fn tokens<T: Sync>(
        &self,
        texts: &[T],
        encode: impl Fn(&T) -> Result<Tokens> + Sync,
    ) -> Result<Vec<Tokens>> {
        let vocabulary = self.encoder.vocabulary();
        let checked = |text: &T| {
            let tokens = encode(text)?;
            match tokens.ids.iter().find(|token| **token as usize >= vocabulary) {
                _ if tokens.is_empty() => Err(Error::NoTokens),
                Some(&token) => Err(Error::Token { token, vocabulary }),
                None => Ok(tokens),
            }
        };
        let mut found: Vec<Result<Tokens>> = texts.iter().map(|_| Err(Error::NoTokens)).collect();
        kernel::share(found.iter_mut().zip(texts), |(to, text)| *to = checked(text));
        found.into_iter().collect()
    }

    /// The same of a few.
    fn states(&self, texts: &[Tokens]) -> Vec<Vec<f32>> {
        let d = self.width();
        let hidden = self.encoder.forward(texts);
        let mut rest = &hidden[..];
        let one = |text: &Tokens| {
            let (own, behind) = rest.split_at(text.len() * d);
            rest = behind;
            match self.pooling {
                Pooling::Mean => mean(own, d),
                Pooling::Cls => own[..d].to_vec(),
                Pooling::Pooler => self.encoder.pooler(&own[..d]),
            }
        };
        texts.iter().map(one).collect()
    }
}

/// Texts that are run together: some rows in all, one text at least.
fn batches(texts: &[Tokens]) -> impl Iterator<Item = &[Tokens]> + Send {
    let mut rest = texts;
    std::iter::from_fn(move || {
        let mut rows = 0;
        let more = rest.iter().take_while(|text| {
            rows += text.len();
            rows <= ROWS
        });
        let count = more.count().max(1).min(rest.len());
        let (batch, behind) = rest.split_at(count);
        rest = behind;
        (count > 0).then_some(batch)
    })
}

/// Mean of rows `[n, d]`.
fn mean(rows: &[f32], d: usize) -> Vec<f32> {
    let mut sums = vec![0f64; d];
    for row in rows.chunks_exact(d) {
        sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(*x));
    }
    let n = (rows.len() / d) as f64;
    sums.into_iter().map(|sum| (sum / n) as f32).collect()
}
