//! Sentence embedders, which map texts to vectors.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use tokenizers::TruncationDirection;

use super::config::Config;
use super::model::Encoder;
use super::parts;
use super::pooling::Pooling;
use super::settings::Settings;
use crate::error::{Error, Result};
use crate::fingerprint::fingerprint;
use crate::kernel;
use crate::model::Weights;
use crate::tokenizer::{Tokenizer, Tokens};

/// The side on which a text that is too long is truncated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Truncate {
    /// The end is removed.
    End,
    /// The start is removed.
    Start,
}

/// A sentence embedder: it maps a text to a vector, so that texts of similar meaning have vectors of similar direction.
///
/// An embedder is a folder with an encoder (BERT, RoBERTa, XLM-RoBERTa, DistilBERT, ELECTRA, DeBERTa, ModernBERT):
/// `config.json`, `model.safetensors` and `tokenizer.json`. If the folder also has the files of sentence-transformers
/// (`modules.json`, `1_Pooling/config.json`, `sentence_bert_config.json`), they determine the pooling and the maximum
/// length of a text. Without them the defaults are those of SimCSE, see [`Pooling`].
///
/// ```no_run
/// use stackelberg_engine::Embedder;
///
/// let embedder = Embedder::load("all-MiniLM-L6-v2".as_ref())?;
/// let found = embedder.embed(&["How do I bake bread?", "Mix flour, water, salt and yeast."])?;
/// let cosine: f32 = found[0].iter().zip(&found[1]).map(|(a, b)| a * b).sum();
/// # Ok::<(), stackelberg_engine::Error>(())
/// ```
pub struct Embedder {
    encoder: Encoder,
    tokenizer: Tokenizer,
    pooling: Pooling,
    max_tokens: usize,
    lower_case: bool,
    /// The name of the embedder's weights, see [`fingerprint`].
    pub fingerprint: String,
    /// The folder that the embedder was loaded from.
    pub path: PathBuf,
}

/// Rows of one forward pass. The activations of this many rows fit the CPU caches; results do not depend on it.
const ROWS: usize = 256;

impl Embedder {
    /// Loads a folder.
    ///
    /// # Errors
    /// Files are missing, truncated or malformed; the architecture is not supported; a tensor is missing or has the
    /// wrong shape; a pooling or a module of sentence-transformers is not supported.
    pub fn load(path: &Path) -> Result<Self> {
        if !path.is_dir() {
            let what = "not a folder: an embedder is a folder with config.json, model.safetensors and tokenizer.json";
            return Err(Error::invalid(path, what));
        }
        let config = Config::read(path)?;
        let settings = Settings::read(path)?;
        let encoder = parts::encoder(&Weights::open_hf(path)?, &config)?;
        let tokenizer = Tokenizer::from_file(&path.join("tokenizer.json"))?.whole();
        let (found, vocabulary) = (tokenizer.vocabulary(), encoder.vocabulary());
        if found > vocabulary {
            let what = format!("the tokenizer knows {found} tokens, the model {vocabulary}");
            return Err(Error::invalid(path, what));
        }
        let max_tokens = settings.max_tokens.unwrap_or(usize::MAX).min(encoder.context());
        let around = tokenizer.around(false);
        if max_tokens <= around {
            let what = format!(
                "texts have at most {max_tokens} tokens, of which {around} are special tokens: there is no room for text"
            );
            return Err(Error::invalid(path, what));
        }
        let simcse = if encoder.has_pooler() { Pooling::Pooler } else { Pooling::Cls };
        Ok(Self {
            pooling: settings.pooling.unwrap_or(simcse),
            max_tokens,
            lower_case: settings.lower_case,
            encoder,
            tokenizer,
            fingerprint: fingerprint(path)?,
            path: path.to_owned(),
        })
    }

    /// The same embedder with another pooling than its folder specifies.
    ///
    /// # Errors
    /// The pooling is [`Pooling::Pooler`] and the model has no pooler.
    pub fn with_pooling(self, pooling: Pooling) -> Result<Self> {
        if pooling == Pooling::Pooler && !self.encoder.has_pooler() {
            let name = "pooler.dense.weight".to_owned();
            return Err(Error::MissingTensor { path: self.path, name });
        }
        Ok(Self { pooling, ..self })
    }

    /// How the hidden states of a text's tokens become one embedding.
    pub fn pooling(&self) -> Pooling {
        self.pooling
    }

    /// Width of an embedding.
    pub fn width(&self) -> usize {
        self.encoder.width()
    }

    /// The maximum number of tokens of a text, including special tokens. Longer texts are truncated.
    pub fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    /// Embeddings of texts, normalised to length 1, so that their dot products are cosines. Texts that are too long lose
    /// their end. An empty text has an embedding, too. Results are batch-invariant.
    ///
    /// # Errors
    /// The tokenizer fails.
    pub fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>> {
        self.embed_cut(texts, Truncate::End)
    }

    /// As [`Embedder::embed`], with the choice of the side on which long texts are truncated.
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

    /// As [`Embedder::embed_cut`], without the normalisation to length 1.
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

    /// As [`Embedder::pooled`], for pairs of texts that the tokenizer joins. Pairs that are too long lose the start of
    /// the first text, then that of the second.
    ///
    /// # Errors
    /// The tokenizer fails, or it does not support pairs.
    pub(crate) fn pooled_pairs(&self, pairs: &[(String, &str)]) -> Result<Vec<Vec<f32>>> {
        if self.tokenizer.around(true) == 0 {
            let what = "its post_processor puts nothing between two texts, as the format pair needs";
            return Err(Error::invalid(&self.path.join("tokenizer.json"), what));
        }
        let (most, around) = (self.max_tokens, self.tokenizer.around(true));
        if most <= around {
            let what = format!(
                "texts have at most {most} tokens, of which a pair has {around} special tokens: there is no room for text"
            );
            return Err(Error::invalid(&self.path, what));
        }
        let encode = |(first, second): &(String, &str)| {
            let (first, second) = (self.as_read(first), self.as_read(second));
            self.tokenizer.encode_pair(&first, &second, self.max_tokens)
        };
        Ok(self.run(&self.tokens(pairs, encode)?))
    }

    /// A text as it is passed to the tokenizer: trimmed, and in lower case if the settings say so.
    fn as_read<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if self.lower_case { text.trim().to_lowercase().into() } else { text.trim().into() }
    }

    /// One pooled hidden state for each text.
    fn run(&self, tokens: &[Tokens]) -> Vec<Vec<f32>> {
        let found: Vec<Mutex<Vec<Vec<f32>>>> = batches(tokens).map(|_| Mutex::default()).collect();
        let work = |(batch, found): (&[Tokens], &Mutex<Vec<Vec<f32>>>)| {
            *found.lock().unwrap_or_else(PoisonError::into_inner) = self.states(batch);
        };
        let mut jobs = batches(tokens).zip(&found);
        match found.len() {
            // The kernels run each layer of a single batch on all threads.
            1 => jobs.for_each(work),
            // Some batches per region, so that a region does not last too long.
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

    /// Pooled hidden states of the texts of one batch.
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

/// Splits texts into batches of at most [`ROWS`] rows, but at least one text.
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

/// The mean of rows `[n, d]`.
fn mean(rows: &[f32], d: usize) -> Vec<f32> {
    let mut sums = vec![0f64; d];
    for row in rows.chunks_exact(d) {
        sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(*x));
    }
    let n = (rows.len() / d) as f64;
    sums.into_iter().map(|sum| (sum / n) as f32).collect()
}
