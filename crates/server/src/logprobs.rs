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

impl Names<'_> {
    /// The text of a token.
    fn text(&self, token: u32) -> String {
        // A token outside the tokenizer has no text.
        self.tokenizer.decode(&[token], true).unwrap_or_default()
    }

    fn name(&self, token: u32) -> String {
        if self.ids { format!("token_id:{token}") } else { self.text(token) }
    }

    fn one(&self, (token, logprob): (u32, f64)) -> TokenLogprob {
        TokenLogprob { token: self.name(token), logprob, bytes: self.text(token).into_bytes() }
    }

    /// A token of a chat: with the likeliest tokens.
    pub(crate) fn chat(&self, token: (u32, f64), top: &[(u32, f64)]) -> ChatLogprobs {
        let top_logprobs = top.iter().map(|&token| self.one(token)).collect();
        ChatLogprobs { content: vec![ChatLogprob { token: self.one(token), top_logprobs }] }
    }

    /// Adds a token to those of a completion. `log_prob` is `None` for the first token of a prompt; `offset` is where the
    /// token's text begins, and is moved behind it.
    pub(crate) fn completion(
        &self,
        list: &mut CompletionLogprobs,
        offset: &mut usize,
        (token, log_prob): (u32, Option<f64>),
        top: &[(u32, f64)],
    ) {
        let name = self.name(token);
        list.text_offset.push(*offset);
        *offset += name.chars().count();
        list.token_logprobs.push(log_prob);
        list.top_logprobs.push(log_prob.map(|log_prob| {
            let mut all = BTreeMap::new();
            // Of tokens with the same text the likeliest.
            for (token, log_prob) in top.iter().copied().chain([(token, log_prob)]) {
                let best = all.entry(self.name(token)).or_insert(log_prob);
                *best = log_prob.max(*best);
            }
            all
        }));
        list.tokens.push(name);
    }

    /// The tokens of a prompt, each with its `top` likeliest.
    pub(crate) fn prompt(&self, tokens: &[u32], rows: &[Row], top: usize) -> PromptLogprobs {
        let mut all = vec![None];
        for (&token, row) in tokens[1..].iter().zip(rows) {
            let entry = |token: u32, logprob: f64, rank: usize| {
                (token, PromptLogprob { logprob, rank, decoded_token: self.text(token) })
            };
            let likeliest = row.top.iter().take(top).enumerate();
            let mut place: BTreeMap<u32, PromptLogprob> =
                likeliest.map(|(i, &(token, log_prob))| entry(token, log_prob, i + 1)).collect();
            place.extend([entry(token, row.log_prob, row.rank)]);
            all.push(Some(place));
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
