//! Tokenizers: text to tokens and back.

mod gguf;
mod literal;

pub(crate) use gguf::ends;

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use candle_core::quantized::gguf_file::Content;
use tokenizers::{Encoding, PostProcessor, TruncationDirection};

use self::literal::Controls;
use crate::error::{Error, Result, unwinding};

/// A model's tokenizer.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    controls: Controls,
}

/// The tokens of a text for an encoder.
pub(crate) struct Tokens {
    pub(crate) ids: Vec<u32>,
    /// Token types: which of two texts a token belongs to.
    pub(crate) kinds: Vec<u32>,
}

impl Tokens {
    pub(crate) fn len(&self) -> usize {
        self.ids.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }
}

impl Tokenizer {
    /// Loads a `tokenizer.json`.
    ///
    /// # Errors
    /// The file is missing or malformed.
    pub fn from_file(path: &Path) -> Result<Self> {
        let text = std::fs::read(path).map_err(Error::read(path))?;
        let inner = unwinding(|| tokenizers::Tokenizer::from_bytes(text));
        let broken = || Err("the tokenizer cannot be read".into());
        let inner =
            inner.unwrap_or_else(broken).map_err(|e: tokenizers::Error| Error::invalid(path, e))?;
        Ok(Self::of(inner))
    }

    fn of(inner: tokenizers::Tokenizer) -> Self {
        let controls = Controls::of(&inner);
        Self { inner, controls }
    }

    /// Builds the tokenizer in a GGUF file.
    pub(crate) fn from_gguf(path: &Path, content: &Content) -> Result<Self> {
        let inner = gguf::build(content).map_err(|what| {
            Error::invalid(path, format!("{what}: put the model's tokenizer.json beside the file"))
        })?;
        Ok(Self::of(inner))
    }

    /// Tokens of a text. With `special`, the tokenizer adds the special tokens of every text, such as BOS. Special
    /// tokens that are written in the text are recognised in both cases.
    ///
    /// # Errors
    /// The tokenizer fails.
    pub fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>> {
        Ok(tried(|| self.inner.encode_fast(text, special))?.get_ids().to_vec())
    }

    /// Tokens of a text without the special tokens of every text. Control tokens that are spelt in the ranges `literal`
    /// are text there, those elsewhere are control tokens.
    ///
    /// # Errors
    /// The tokenizer fails, or it has no other tokens for the text of a control token.
    pub(crate) fn encode_literal(&self, text: &str, literal: &[Range<usize>]) -> Result<Vec<u32>> {
        if literal.is_empty() {
            return self.encode(text, false);
        }
        let mut literal = literal.to_vec();
        literal.sort_unstable_by_key(|range| range.start);
        tried(|| self.controls.encode(&self.inner, text, &literal))
    }

    /// Where a text spells control tokens.
    pub(crate) fn controls_in(&self, text: &str) -> Vec<Range<usize>> {
        self.controls.find(text).map(|(range, _)| range).collect()
    }

    /// The text with marks instead of the control tokens that it spells.
    pub(crate) fn marked(&self, text: &str) -> String {
        self.controls.marked(text, &[])
    }

    /// The text with control tokens instead of their marks, and where they are.
    pub(crate) fn unmarked(&self, text: &str) -> (String, Vec<Range<usize>>) {
        self.controls.unmarked(text)
    }

    /// Whether a token is a control token: special, or by its text a marker of turns.
    pub(crate) fn is_control(&self, id: u32) -> bool {
        self.controls.contains(id)
    }

    /// The same tokenizer without the truncation and padding that `tokenizer.json` may configure.
    pub(crate) fn whole(mut self) -> Self {
        self.inner.with_padding(None);
        // Switching truncation off cannot fail.
        let _ = self.inner.with_truncation(None);
        self
    }

    /// The number of special tokens that are added to every text, or to a pair of texts.
    pub(crate) fn around(&self, pair: bool) -> usize {
        self.inner.get_post_processor().map_or(0, |processor| processor.added_tokens(pair))
    }

    /// At most `most` tokens of a text, including special tokens. A longer text is truncated on this side; its special
    /// tokens are kept.
    ///
    /// # Errors
    /// The tokenizer fails.
    pub(crate) fn encode_within(
        &self,
        text: &str,
        most: usize,
        side: TruncationDirection,
    ) -> Result<Tokens> {
        let encoding = self.cut(text, most.saturating_sub(self.around(false)), side)?;
        self.bracket(encoding, None)
    }

    /// At most `most` tokens of a pair of texts, including special tokens. A longer pair loses the start of the first
    /// text, then that of the second.
    ///
    /// # Errors
    /// The tokenizer fails.
    pub(crate) fn encode_pair(&self, first: &str, second: &str, most: usize) -> Result<Tokens> {
        let room = most.saturating_sub(self.around(true));
        let second = self.cut(second, room, TruncationDirection::Left)?;
        let first = self.cut(first, room - second.len(), TruncationDirection::Left)?;
        self.bracket(first, Some(second))
    }

    fn cut(&self, text: &str, most: usize, side: TruncationDirection) -> Result<Encoding> {
        tried(|| {
            let mut encoding = self.inner.encode_fast(text, false)?;
            encoding.truncate(most, 0, side);
            encoding.take_overflowing();
            Ok(encoding)
        })
    }

    /// Adds special tokens to one text or a pair.
    fn bracket(&self, first: Encoding, second: Option<Encoding>) -> Result<Tokens> {
        let encoding = tried(|| self.inner.post_process(first, second, true))?;
        Ok(Tokens { ids: encoding.get_ids().to_vec(), kinds: encoding.get_type_ids().to_vec() })
    }

    /// The text of tokens. Special tokens are left out unless `special` is set.
    ///
    /// # Errors
    /// The tokenizer fails.
    pub fn decode(&self, tokens: &[u32], special: bool) -> Result<String> {
        tried(|| self.inner.decode(tokens, !special))
    }

    /// Size of the vocabulary, including added tokens.
    pub fn vocabulary(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The ID of the token with this text in the vocabulary.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The text in the vocabulary of the token with this ID.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// A token that has different IDs in the two tokenizers; `None` if their vocabularies are equal.
    pub fn difference(&self, other: &Self) -> Option<String> {
        let (ours, theirs) = (self.inner.get_vocab(true), other.inner.get_vocab(true));
        let differs =
            |(token, id): (&String, &u32)| (theirs.get(token) != Some(id)).then(|| token.clone());
        let missing = |token: &&String| !ours.contains_key(*token);
        ours.iter().filter_map(differs).min().or_else(|| theirs.keys().filter(missing).min().cloned())
    }
}

/// Calls the tokenizers library. Some defects of a tokenizer only show when it is used, and may cause a panic.
fn tried<T>(ask: impl FnOnce() -> tokenizers::Result<T>) -> Result<T> {
    let broken = || Err("the parts of the tokenizer do not fit each other".into());
    unwinding(ask).unwrap_or_else(broken).map_err(|e| Error::Tokenizer(e.to_string()))
}

/// An incremental decoder from tokens to text. It holds back incomplete characters.
#[derive(Clone)]
pub struct TextStream {
    tokenizer: Arc<Tokenizer>,
    tokens: Vec<u32>,
    /// Index of the first token that is decoded again as context for the next one.
    context: usize,
    /// Number of tokens whose text has been returned.
    done: usize,
}

impl TextStream {
    /// An empty stream.
    pub fn new(tokenizer: &Arc<Tokenizer>) -> Self {
        Self { tokenizer: tokenizer.clone(), tokens: Vec::new(), context: 0, done: 0 }
    }

    /// Adds a token and returns the text that it completes, which may be empty.
    ///
    /// # Errors
    /// The tokenizer fails.
    pub fn push(&mut self, token: u32) -> Result<String> {
        self.tokens.push(token);
        let before = self.tokenizer.decode(&self.tokens[self.context..self.done], false)?;
        let text = self.tokenizer.decode(&self.tokens[self.context..], false)?;
        if text.ends_with('\u{fffd}') || text.len() <= before.len() {
            return Ok(String::new());
        }
        // An unusual decoder may change earlier text. Then only the part beyond the earlier length counts as new.
        let Some(new) = text.get(before.len()..).map(str::to_owned) else { return Ok(String::new()) };
        (self.context, self.done) = (self.done, self.tokens.len());
        Ok(new)
    }
}
