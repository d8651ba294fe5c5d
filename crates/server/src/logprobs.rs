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

impl Names<'_> {
    /// The text that a token adds here: nothing if it leaves a character incomplete, the whole character if it completes one.
    fn text(&self, context: &Context, token: u32) -> String {
        // A token outside the tokenizer has no text.
        let decode = |tokens: &[u32]| self.tokenizer.decode(tokens, true).unwrap_or_default();
        let before = decode(&context.0);
        let after = decode(&[&context.0[..], &[token]].concat());
        if after.ends_with(BROKEN) {
            return String::new();
        }
        let new = after.strip_prefix(before.trim_end_matches(BROKEN));
        new.map_or_else(|| decode(&[token]), str::to_owned)
    }

    fn name(&self, context: &Context, token: u32) -> String {
        if self.ids { format!("token_id:{token}") } else { self.text(context, token) }
    }

    fn one(&self, context: &Context, (token, logprob): (u32, f64)) -> TokenLogprob {
        let bytes = self.text(context, token).into_bytes();
        TokenLogprob { token: self.name(context, token), logprob, bytes }
    }

    /// A token of a chat: with the likeliest tokens. The context moves behind it.
    pub(crate) fn chat(
        &self,
        context: &mut Context,
        token: (u32, f64),
        top: &[(u32, f64)],
    ) -> ChatLogprobs {
        let top_logprobs = top.iter().map(|&token| self.one(context, token)).collect();
        let content = vec![ChatLogprob { token: self.one(context, token), top_logprobs }];
        let text = self.text(context, token.0);
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
        let name = self.name(context, token);
        list.text_offset.push(*offset);
        *offset += name.chars().count();
        list.token_logprobs.push(log_prob);
        list.top_logprobs.push(log_prob.map(|log_prob| {
            let mut all = BTreeMap::new();
            // Of tokens with the same text the likeliest.
            for (token, log_prob) in top.iter().copied().chain([(token, log_prob)]) {
                let best = all.entry(self.name(context, token)).or_insert(log_prob);
                *best = log_prob.max(*best);
            }
            all
        }));
        list.tokens.push(name);
        let text = self.text(context, token);
        context.push(token, &text);
    }

    /// The tokens of a prompt, each with its `top` likeliest.
    pub(crate) fn prompt(&self, tokens: &[u32], rows: &[Row], top: usize) -> PromptLogprobs {
        let mut all = vec![None];
        let mut context = Context::after(&tokens[..1]);
        for (&token, row) in tokens[1..].iter().zip(rows) {
            let entry = |token: u32, logprob: f64, rank: usize| {
                (token, PromptLogprob { logprob, rank, decoded_token: self.text(&context, token) })
            };
            let likeliest = row.top.iter().take(top).enumerate();
            let mut place: BTreeMap<u32, PromptLogprob> =
                likeliest.map(|(i, &(token, log_prob))| entry(token, log_prob, i + 1)).collect();
            place.extend([entry(token, row.log_prob, row.rank)]);
            all.push(Some(place));
            let text = self.text(&context, token);
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
