//! Texts that spell control tokens but hold none.
//!
//! A tokenizer recognises control tokens by their text. In a chat, only the template may write them: what users have
//! written is text, whatever it spells. To tell the two apart, the control tokens in messages are replaced by marks before
//! the template is rendered. Afterwards, the marks become text again, and the control tokens of the template are marked
//! for a second tokenizer that knows them by their marks only.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::sync::OnceLock;

use tokenizers::{AddedToken, Tokenizer};

use super::gguf::is_end;

/// The control tokens of a tokenizer.
pub(super) struct Controls {
    /// Texts and IDs.
    tokens: Vec<(String, u32)>,
    ids: HashSet<u32>,
    /// Numbers of the tokens that begin with a byte, the longest token first.
    by_first_byte: HashMap<u8, Vec<usize>>,
    /// What every mark begins with: characters for private use that nobody can guess.
    salt: String,
    by_marks: OnceLock<Result<ByMarks, String>>,
}

/// A tokenizer that knows control tokens by their marks.
struct ByMarks {
    inner: Tokenizer,
    /// The IDs of its added tokens in the other tokenizer.
    ids: HashMap<u32, u32>,
}

impl Controls {
    pub(super) fn of(tokenizer: &Tokenizer) -> Self {
        let added = tokenizer.get_added_tokens_decoder();
        let mut tokens: Vec<(String, u32)> = added
            .into_iter()
            .filter(|(_, token)| is_control(token))
            .map(|(id, token)| (token.content, id))
            .collect();
        tokens.sort_by(|a, b| b.0.len().cmp(&a.0.len()).then_with(|| a.cmp(b)));
        // A mark has one character for the number of its token.
        tokens.truncate(0xfffe);
        let mut by_first_byte: HashMap<u8, Vec<usize>> = HashMap::new();
        for (number, (text, _)) in tokens.iter().enumerate() {
            by_first_byte.entry(text.as_bytes()[0]).or_default().push(number);
        }
        let salt = || char::from_u32(0xf_0000 + (RandomState::new().hash_one(0) % 0xfffe) as u32);
        let salt = (0..8).filter_map(|_| salt()).collect();
        let ids = tokens.iter().map(|(_, id)| *id).collect();
        Self { tokens, ids, by_first_byte, salt, by_marks: OnceLock::new() }
    }

    /// The control tokens that a text spells: where, and the number of each.
    pub(super) fn find<'a>(&'a self, text: &'a str) -> impl Iterator<Item = (Range<usize>, usize)> + 'a {
        let mut at = 0;
        std::iter::from_fn(move || {
            while let Some(&byte) = text.as_bytes().get(at) {
                let of_byte = self.by_first_byte.get(&byte).map_or(&[][..], Vec::as_slice);
                let spelt =
                    |number: &&usize| text.as_bytes()[at..].starts_with(self.text(**number).as_bytes());
                if let Some(&number) = of_byte.iter().find(spelt) {
                    let found = at..at + self.text(number).len();
                    at = found.end;
                    return Some((found, number));
                }
                at += 1;
            }
            None
        })
    }

    /// The text of a control token.
    pub(super) fn text(&self, number: usize) -> &str {
        &self.tokens[number].0
    }

    /// Whether a token is a control token.
    pub(super) fn contains(&self, id: u32) -> bool {
        self.ids.contains(&id)
    }

    fn mark(&self, number: usize) -> String {
        let number = char::from_u32(0x10_0000 + number as u32);
        self.salt.chars().chain(number).collect()
    }

    /// The text with marks instead of its control tokens, but for those in `except`, whose ranges are in order.
    pub(super) fn marked(&self, text: &str, except: &[Range<usize>]) -> String {
        let (mut marked, mut done) = (String::with_capacity(text.len()), 0);
        let mut except = except.iter().peekable();
        for (found, number) in self.find(text) {
            while except.next_if(|range| range.end <= found.start).is_some() {}
            if except.peek().is_some_and(|range| range.start < found.end) {
                continue;
            }
            marked.push_str(&text[done..found.start]);
            marked.push_str(&self.mark(number));
            done = found.end;
        }
        marked + &text[done..]
    }

    /// The text with control tokens instead of their marks, and where they are.
    pub(super) fn unmarked(&self, text: &str) -> (String, Vec<Range<usize>>) {
        let (mut unmarked, mut ranges) = (String::with_capacity(text.len()), Vec::new());
        let mut parts = text.split(&self.salt);
        unmarked.push_str(parts.next().unwrap_or_default());
        for part in parts {
            let number = part.chars().next().and_then(|c| (c as usize).checked_sub(0x10_0000));
            // A template may have cut a mark into pieces.
            let Some(number) = number.filter(|number| *number < self.tokens.len()) else {
                unmarked.push_str(part);
                continue;
            };
            let start = unmarked.len();
            unmarked.push_str(self.text(number));
            ranges.push(start..unmarked.len());
            unmarked.push_str(&part['\u{10_0000}'.len_utf8()..]);
        }
        (unmarked, ranges)
    }

    /// Tokens of a text whose control tokens in `literal` are text.
    pub(super) fn encode(
        &self,
        tokenizer: &Tokenizer,
        text: &str,
        literal: &[Range<usize>],
    ) -> tokenizers::Result<Vec<u32>> {
        let by_marks = self.by_marks.get_or_init(|| self.by_marks(tokenizer)).as_ref();
        let ByMarks { inner, ids } = by_marks.map_err(|e| e.clone())?;
        let encoded = inner.encode_fast(self.marked(text, literal), false)?;
        let of = |&id: &u32| match ids.get(&id) {
            Some(id) => Ok(*id),
            None if self.contains(id) => {
                let name = tokenizer.id_to_token(id).unwrap_or_default();
                Err(format!(
                    "a message holds {name}, which this tokenizer cannot read as text: remove it"
                ))
            }
            None => Ok(id),
        };
        Ok(encoded.get_ids().iter().map(of).collect::<Result<_, _>>()?)
    }

    /// The same tokenizer, in which control tokens are known by their marks.
    fn by_marks(&self, tokenizer: &Tokenizer) -> Result<ByMarks, String> {
        let failed = |e: tokenizers::Error| e.to_string();
        let mut inner = Tokenizer::new(tokenizer.get_model().clone());
        inner.with_normalizer(tokenizer.get_normalizer().cloned()).map_err(failed)?;
        inner.with_pre_tokenizer(tokenizer.get_pre_tokenizer().cloned());
        inner.with_post_processor(tokenizer.get_post_processor().cloned());
        inner.with_padding(tokenizer.get_padding().cloned());
        inner.with_truncation(tokenizer.get_truncation().cloned()).map_err(failed)?;
        // New tokens get the IDs after the size of the vocabulary; those must not be IDs of the vocabulary.
        let last = tokenizer.get_vocab(false).values().max().map_or(0, |last| *last as usize);
        let unused = (last + 1).saturating_sub(tokenizer.get_vocab_size(false));
        if unused > 1 << 16 {
            return Err(format!(
                "the vocabulary has {unused} unused IDs: remove control tokens from the text"
            ));
        }
        let unused = (0..unused).map(|i| AddedToken::from(format!("{}{i}", self.salt), false));
        let mut names: Vec<(u32, AddedToken)> =
            tokenizer.get_added_tokens_decoder().into_iter().collect();
        names.sort_by_key(|(id, _)| *id);
        for (id, token) in &mut names {
            if let Some(number) = self.tokens.iter().position(|(_, control)| control == id) {
                token.content = self.mark(number);
            }
        }
        let added = names.iter().map(|(_, token)| token.clone());
        inner.add_tokens(unused.chain(added).collect::<Vec<_>>()).map_err(failed)?;
        let ids = names.iter().filter_map(|(id, token)| Some((inner.token_to_id(&token.content)?, *id)));
        let ids = ids.collect();
        Ok(ByMarks { inner, ids })
    }
}

/// Whether a token is a control token: special, or by its text a marker of turns.
fn is_control(token: &AddedToken) -> bool {
    let text = token.content.as_str();
    let within = |open, close| text.len() > 4 && text.starts_with(open) && text.ends_with(close);
    let marker = within("<|", "|>") || within("<｜", "｜>");
    !text.is_empty() && (token.special || marker || is_end(text))
}
