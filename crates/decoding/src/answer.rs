//! The answer as it grows, and what ends it.

use std::sync::Arc;

use stackelberg_engine::{TextProcessor, TextStream, Tokenizer};

use crate::error::Result;
use crate::generation::{Finish, StoppedBy};
use crate::settings::Settings;

/// Tokens and text of one answer.
#[derive(Clone)]
pub(crate) struct Answer {
    tokenizer: Arc<Tokenizer>,
    /// Tokens that end an answer.
    eos: Arc<[u32]>,
    settings: Arc<Settings>,
    /// Maximum length, in tokens.
    max_tokens: usize,
    stream: TextStream,
    pub(crate) tokens: Vec<u32>,
    pub(crate) text: String,
    /// Bytes of the text that have been given out. They are never taken back.
    emitted: usize,
    pub(crate) finish: Option<Finish>,
    pub(crate) stopped_by: Option<StoppedBy>,
}

impl Answer {
    pub(crate) fn new(policy: &TextProcessor, settings: Arc<Settings>, max_tokens: usize) -> Self {
        Self {
            tokenizer: policy.tokenizer.clone(),
            eos: policy.eos.clone().into(),
            settings,
            max_tokens,
            stream: TextStream::new(&policy.tokenizer),
            tokens: Vec::new(),
            text: String::new(),
            emitted: 0,
            finish: None,
            stopped_by: None,
        }
    }

    /// Whether this token would end the answer without being part of it.
    pub(crate) fn is_ended_by(&self, token: u32) -> bool {
        let stop = !self.settings.include_stop && self.settings.stop_tokens.contains(&token);
        stop || self.is_end(token)
    }

    /// Whether it is an end-of-text token that ends the answer.
    fn is_end(&self, token: u32) -> bool {
        !self.settings.no_eos && self.eos.contains(&token)
    }

    /// Tokens that may not come next, since the answer would be too short.
    pub(crate) fn banned(&self) -> Vec<u32> {
        let settings = &self.settings;
        if self.tokens.len() >= settings.min_tokens {
            return Vec::new();
        }
        let ends = self.eos.iter().filter(|_| !settings.no_eos);
        ends.chain(&settings.stop_tokens).copied().collect()
    }

    /// Tokens that it may still get.
    pub(crate) fn room(&self) -> usize {
        self.max_tokens.saturating_sub(self.tokens.len())
    }

    /// Ends where a server says that the text ends. Returns the text that is certain now.
    pub(crate) fn end(&mut self) -> String {
        self.finish.get_or_insert(Finish::Stop);
        self.emit(self.text.len())
    }

    /// Adds a token. Returns the text that is certain now: what may turn out to be the beginning of a stop text is held
    /// back, so that all returned texts together are the final text.
    pub(crate) fn push(&mut self, token: u32) -> Result<String> {
        let stops = self.settings.stop_tokens.contains(&token) && !self.is_end(token);
        self.stopped_by = stops.then_some(StoppedBy::Token(token));
        if self.is_ended_by(token) {
            self.finish = Some(Finish::Stop);
            return Ok(self.emit(self.text.len()));
        }
        self.tokens.push(token);
        self.text.push_str(&self.stream.push(token)?);
        if stops {
            self.finish = Some(Finish::Stop);
            return Ok(self.emit(self.text.len()));
        }
        // What is given out is not searched any more.
        let early = self.tokens.len() < self.settings.min_tokens;
        let stops = if early { &[][..] } else { &self.settings.stop };
        let new = &self.text[self.emitted..];
        let found = stops.iter().filter_map(|stop| Some((new.find(stop.as_str())?, stop)));
        if let Some((at, stop)) = found.min_by_key(|(at, _)| *at) {
            let kept = if self.settings.include_stop { stop.len() } else { 0 };
            let (end, stop) = (self.emitted + at + kept, stop.clone());
            self.text.truncate(end);
            self.finish = Some(Finish::Stop);
            self.stopped_by = Some(StoppedBy::Text(stop));
            self.drop_ending()?;
            return Ok(self.emit(self.text.len()));
        }
        if self.tokens.len() == self.max_tokens {
            self.finish = Some(Finish::Length);
            return Ok(self.emit(self.text.len()));
        }
        let held = stops.iter().map(|stop| longest_beginning(new, stop)).max().unwrap_or(0);
        Ok(self.emit(self.text.len() - held))
    }

    /// Gives out the text up to here.
    fn emit(&mut self, end: usize) -> String {
        let new = self.text[self.emitted..end].to_owned();
        self.emitted = end;
        new
    }

    /// Drops the tokens that are wholly part of the text that ended the answer.
    fn drop_ending(&mut self) -> Result<()> {
        while let Some((_, rest)) = self.tokens.split_last() {
            if self.tokenizer.decode(rest, false)?.len() < self.text.len() {
                break;
            }
            self.tokens.pop();
        }
        Ok(())
    }
}

/// Bytes of the longest end of `text` with which `stop` begins.
fn longest_beginning(text: &str, stop: &str) -> usize {
    let lengths = (1..stop.len()).rev().filter(|&length| stop.is_char_boundary(length));
    lengths.into_iter().find(|&length| text.ends_with(&stop[..length])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::longest_beginning;

    #[test]
    fn ends_that_begin_a_stop_text() {
        for (text, stop, held) in [
            ("one\n\nHu", "\n\nHuman:", 4),
            ("one\n", "\n\nHuman:", 1),
            ("one\n\n\n", "\n\nHuman:", 2),
            ("one", "\n\nHuman:", 0),
            ("caf", "fé", 1),
            ("aaa", "aab", 2),
            ("", "x", 0),
        ] {
            assert_eq!(longest_beginning(text, stop), held, "{text:?} {stop:?}");
        }
    }
}
