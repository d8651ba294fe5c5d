//! Log-probabilities in the shapes of answers. They are the base policy's at temperature 1, whatever guides and however tokens
//! are drawn.

use std::collections::BTreeMap;

use stackelberg_engine::Tokenizer;

use crate::openai::answer::PromptLogprobs;
use crate::openai::logprobs::{
    ChatLogprob, ChatLogprobs, CompletionLogprobs, PromptLogprob, TokenLogprob,
};
use crate::prompt_rows::Row;

/// How tokens are written.
#[derive(Clone, Copy)]
pub(crate) struct Names<'a> {
    pub(crate) tokenizer: &'a Tokenizer,
    /// Whether as `token_id:N`.
    pub(crate) ids: bool,
}

/// The last tokens before a place. What a token adds to a text depends on them: it may complete a character.
#[derive(Debug, Clone, Default)]
pub(crate) struct Context(Vec<u32>);

impl Context {
    /// Tokens that are kept where the text before is complete.
    const COMPLETE: usize = 6;
    /// Tokens that are kept at most.
    const MOST: usize = 64;

    /// The place behind these tokens.
    pub(crate) fn after(tokens: &[u32]) -> Self {
        Self(tokens[tokens.len().saturating_sub(Self::COMPLETE)..].to_vec())
    }

    /// The place behind one more token, whose text is this.
    fn push(&mut self, token: u32, text: &str) {
        self.0.push(token);
        // Bytes that are no character yet wait for those that complete it.
        let keep = if text.is_empty() { Self::MOST } else { Self::COMPLETE };
        self.0.drain(..self.0.len().saturating_sub(keep));
    }
}

/// What stands for bytes that are no character.
const BROKEN: char = '\u{fffd}';

/// A place between tokens.
struct Place<'a> {
    names: Names<'a>,
    /// The last tokens before it, and their text.
    tokens: &'a [u32],
    before: String,
}

impl Place<'_> {
    /// The text that a token adds here: without a character that it leaves incomplete, and with the whole of one that it
    /// completes.
    fn text(&self, token: u32) -> String {
        let after = self.names.decode(&[self.tokens, &[token]].concat());
        let complete = after.trim_end_matches(BROKEN);
        match complete.strip_prefix(self.before.trim_end_matches(BROKEN)) {
            Some(new) => new.to_owned(),
            None if complete.len() < after.len() => String::new(),
            None => self.names.decode(&[token]),
        }
    }

    /// The name of a token with this text.
    fn name(&self, token: u32, text: &str) -> String {
        if self.names.ids { format!("token_id:{token}") } else { text.to_owned() }
    }

    fn one(&self, (token, logprob): (u32, f64), text: String) -> TokenLogprob {
        TokenLogprob { token: self.name(token, &text), logprob, bytes: text.into_bytes() }
    }
}

impl Names<'_> {
    /// A token outside the tokenizer has no text.
    fn decode(&self, tokens: &[u32]) -> String {
        self.tokenizer.decode(tokens, true).unwrap_or_default()
    }

    fn place<'a>(&'a self, context: &'a Context) -> Place<'a> {
        Place { names: *self, tokens: &context.0, before: self.decode(&context.0) }
    }

    /// A token of a chat: with the likeliest tokens. The context moves behind it.
    pub(crate) fn chat(
        &self,
        context: &mut Context,
        token: (u32, f64),
        top: &[(u32, f64)],
    ) -> ChatLogprobs {
        let place = self.place(context);
        let top_logprobs = top.iter().map(|&token| place.one(token, place.text(token.0))).collect();
        let text = place.text(token.0);
        let content = vec![ChatLogprob { token: place.one(token, text.clone()), top_logprobs }];
        context.push(token.0, &text);
        ChatLogprobs { content }
    }

    /// Adds a token to those of a completion. `log_prob` is `None` for the first token of a prompt; `offset` is where the
    /// token's text begins. It and the context move behind the token.
    pub(crate) fn completion(
        &self,
        list: &mut CompletionLogprobs,
        (context, offset): (&mut Context, &mut usize),
        (token, log_prob): (u32, Option<f64>),
        top: &[(u32, f64)],
    ) {
        let place = self.place(context);
        let text = place.text(token);
        let name = place.name(token, &text);
        list.text_offset.push(*offset);
        *offset += name.chars().count();
        list.token_logprobs.push(log_prob);
        list.top_logprobs.push(log_prob.map(|log_prob| {
            let mut all = BTreeMap::new();
            // Of tokens with the same text the likeliest.
            let top =
                top.iter().map(|&(token, log_prob)| (place.name(token, &place.text(token)), log_prob));
            for (name, log_prob) in top.chain([(name.clone(), log_prob)]) {
                let best = all.entry(name).or_insert(log_prob);
                *best = log_prob.max(*best);
            }
            all
        }));
        list.tokens.push(name);
        context.push(token, &text);
    }

    /// The tokens of a prompt, each with its `top` likeliest.
    pub(crate) fn prompt(&self, tokens: &[u32], rows: &[Row], top: usize) -> PromptLogprobs {
        let mut all = vec![None];
        let mut context = Context::after(&tokens[..1]);
        for (&token, row) in tokens[1..].iter().zip(rows) {
            let place = self.place(&context);
            let text = place.text(token);
            let entry = |token: u32, logprob: f64, rank: usize, decoded_token: String| {
                (token, PromptLogprob { logprob, rank, decoded_token })
            };
            let likeliest = row.top.iter().take(top).enumerate();
            let likeliest = likeliest
                .map(|(i, &(token, log_prob))| entry(token, log_prob, i + 1, place.text(token)));
            let mut likeliest: BTreeMap<u32, PromptLogprob> = likeliest.collect();
            likeliest.extend([entry(token, row.log_prob, row.rank, text.clone())]);
            all.push(Some(likeliest));
            context.push(token, &text);
        }
        all
    }
}

/// Puts two lists together.
pub(crate) fn join(list: &mut CompletionLogprobs, more: CompletionLogprobs) {
    list.text_offset.extend(more.text_offset);
    list.token_logprobs.extend(more.token_logprobs);
    list.tokens.extend(more.tokens);
    list.top_logprobs.extend(more.top_logprobs);
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use stackelberg_engine::Tokenizer;

    use super::{Context, Names};

    #[test]
    fn a_token_keeps_its_text_before_a_character_that_others_complete() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokenizer.json");
        // Bytes as letters: the second token is a space and half of a character of four bytes.
        let tokenizer = json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true},
            "post_processor": null, "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true},
            "model": {"type": "BPE", "merges": [], "vocab": {"a": 0, "ĠðŁ": 1, "ĺ": 2, "Ģ": 3, "Ġb": 4}},
        });
        std::fs::write(&path, tokenizer.to_string()).unwrap();
        let tokenizer = Tokenizer::from_file(&path).unwrap();
        let names = Names { tokenizer: &tokenizer, ids: false };
        let mut context = Context::default();
        let mut text = |token: u32| {
            let found = names.place(&context).text(token);
            context.push(token, &found);
            found
        };
        assert_eq!([0, 1, 2, 3, 4, 2, 0].map(&mut text), ["a", " ", "", "😀", " b", "", "\u{fffd}a"]);
    }
}
