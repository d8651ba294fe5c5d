//! Text to tokens and back.

mod gguf;

use std::path::Path;

use candle_core::quantized::gguf_file::Content;
use tokenizers::{Encoding, PostProcessor, TruncationDirection};

use crate::error::{Error, Result, unwinding};

/// A model's tokenizer.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
}

/// A text as an encoder reads it.
pub(crate) struct Tokens {
    pub(crate) ids: Vec<u32>,
    /// Which of two texts a token belongs to, as the tokenizer numbers them.
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
    /// Reads `tokenizer.json`.
    ///
    /// # Errors
    /// The file is missing or malformed.
    pub fn from_file(path: &Path) -> Result<Self> {
        let text = std::fs::read(path).map_err(Error::read(path))?;
        let inner = unwinding(|| tokenizers::Tokenizer::from_bytes(text));
        let broken = || Err("it is no tokenizer that can be read".into());
        let inner =
            inner.unwrap_or_else(broken).map_err(|e: tokenizers::Error| Error::invalid(path, e))?;
        Ok(Self { inner })
    }

    /// Reads the tokenizer inside a GGUF file.
    pub(crate) fn from_gguf(path: &Path, content: &Content) -> Result<Self> {
        let inner = gguf::build(content).map_err(|what| {
            Error::invalid(path, format!("{what}: put the model's tokenizer.json beside the file"))
        })?;
        Ok(Self { inner })
    }

    /// Tokens of a text. With `special`, those that the tokenizer puts around every text (a BOS for
    /// some, nothing for SmolLM2); names of special tokens in the text are read as such either way.
    ///
    /// # Errors
    /// The tokenizer fails.
    pub fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>> {
        Ok(tried(|| self.inner.encode_fast(text, special))?.get_ids().to_vec())
    }

    /// The same without the cutting and padding that `tokenizer.json` may ask for.
    pub(crate) fn whole(mut self) -> Self {
        self.inner.with_padding(None);
        // Taking it away cannot fail.
        let _ = self.inner.with_truncation(None);
        self
    }

    /// How many tokens are put around every text, or around two that are read as a pair.
    pub(crate) fn around(&self, pair: bool) -> usize {
        self.inner.get_post_processor().map_or(0, |processor| processor.added_tokens(pair))
    }

    /// Tokens of a text with those that the tokenizer puts around every text, `most` in all: what is too
    /// long loses its end or its start, not what is put around it.
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

    /// Tokens of two texts as the tokenizer puts them together, `most` in all. What is too long loses the start
    /// of the first text, then that of the second.
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

    /// Puts around texts what belongs there.
    fn bracket(&self, first: Encoding, second: Option<Encoding>) -> Result<Tokens> {
        let encoding = tried(|| self.inner.post_process(first, second, true))?;
        Ok(Tokens { ids: encoding.get_ids().to_vec(), kinds: encoding.get_type_ids().to_vec() })
    }

    /// Text of tokens; special tokens are left out unless asked for.
    ///
    /// # Errors
    /// The tokenizer fails.
    pub fn decode(&self, tokens: &[u32], special: bool) -> Result<String> {
        tried(|| self.inner.decode(tokens, !special))
    }

    /// Size of the vocabulary, added tokens included.
    pub fn vocabulary(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The number of a token by its text.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// A token's text as the vocabulary has it.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The first token that two tokenizers number differently; `None` if they are the same.
    pub fn difference(&self, other: &Self) -> Option<String> {
        let (ours, theirs) = (self.inner.get_vocab(true), other.inner.get_vocab(true));
        let differs =
            |(token, id): (&String, &u32)| (theirs.get(token) != Some(id)).then(|| token.clone());
        let missing = |token: &&String| !ours.contains_key(*token);
        ours.iter().filter_map(differs).min().or_else(|| theirs.keys().filter(missing).min().cloned())
    }
}

/// Asks the library. Some of what can be wrong with a tokenizer shows with a text only.
fn tried<T>(ask: impl FnOnce() -> tokenizers::Result<T>) -> Result<T> {
    let broken = || Err("its parts do not fit each other".into());
    unwinding(ask).unwrap_or_else(broken).map_err(|e| Error::Tokenizer(e.to_string()))
}

/// Text that grows token by token: gives out what is certain, keeps back halves of characters.
#[derive(Clone)]
pub struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    tokens: Vec<u32>,
    /// Tokens before this one have been given out; some are kept as context for the next.
    context: usize,
    done: usize,
}

impl<'a> TextStream<'a> {
    /// A stream without text.
    pub fn new(tokenizer: &'a Tokenizer) -> Self {
        Self { tokenizer, tokens: Vec::new(), context: 0, done: 0 }
    }

    /// Adds a token and gives the text that it completes, maybe none.
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
        // A stranger's decoder may change what it has given out: then only what is new by length counts.
        let Some(new) = text.get(before.len()..).map(str::to_owned) else { return Ok(String::new()) };
        (self.context, self.done) = (self.done, self.tokens.len());
        Ok(new)
    }
}
