//! Formatted texts, which know what users have written in them.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::chat::{Argument, Message, Prompt};
use crate::error::{Error, Result};
use crate::text_format::TextFormat;
use crate::text_processor::TextProcessor;

/// A text in a prompt format. In a chat, only the template writes control tokens: what messages and answers spell is
/// text. A raw text is tokenised as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaidOut {
    text: String,
    format: TextFormat,
    /// Where messages and answers spell control tokens.
    literal: Vec<Range<usize>>,
}

impl LaidOut {
    /// A text that is formatted already: what it spells as control tokens are control tokens.
    pub fn as_is(text: impl Into<String>, format: TextFormat) -> Self {
        Self { text: text.into(), format, literal: Vec::new() }
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// How a chat ends, and the variables of its template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChatEnd {
    /// The template begins the assistant's next message.
    Answer,
    /// The conversation is complete.
    Complete,
    /// The last message is not complete: the text ends with its content.
    Continue,
}

/// Stands behind the last message's content while a template lays out a chat whose last message is continued.
const CONTINUED: &str = "STACKELBERG_LAST_MESSAGE_ENDS_HERE ";

impl TextProcessor {
    /// A prompt in this format, up to where the response begins. Guidance, scoring and training all use this text.
    ///
    /// # Errors
    /// `system` is given and the prompt has a system message; the format is [`TextFormat::Chat`] and the model has no chat
    /// template, or the template refuses the messages.
    pub fn lay_out(&self, prompt: &Prompt, system: Option<&str>, format: TextFormat) -> Result<LaidOut> {
        if let (Some(_), Prompt::Messages(messages)) = (system, prompt)
            && messages.iter().any(|message| message.role == "system")
        {
            return Err(Error::SystemTwice);
        }
        match (format, &self.template) {
            (TextFormat::Raw, _) => Ok(LaidOut::as_is(prompt.raw(system), format)),
            (TextFormat::Chat, Some(template)) => {
                Ok(self.chat(&template.prompt(&self.marked(prompt.messages(system)))?))
            }
            (TextFormat::Chat, None) => {
                Err(Error::Template("this model has none: use the prompt format raw".to_owned()))
            }
        }
    }

    /// A chat by the model's template, with this end. `args` are variables of the template beside those that are set
    /// already, see [`ChatTemplate::set_args`](crate::ChatTemplate::set_args).
    ///
    /// # Errors
    /// The model has no chat template; a variable cannot be set; the template refuses the messages, or does not write the
    /// last one that is to be continued.
    pub fn lay_out_chat(
        &self,
        messages: &[Message],
        end: ChatEnd,
        args: BTreeMap<String, Argument>,
    ) -> Result<LaidOut> {
        let Some(own) = &self.template else {
            return Err(Error::Template("this model has none".to_owned()));
        };
        let mut template = own.clone();
        if !args.is_empty() {
            let mut all = own.args();
            all.extend(args);
            template.set_args(&all)?;
        }
        let mut messages = self.marked(messages.to_vec());
        match end {
            ChatEnd::Answer => Ok(self.chat(&template.prompt(&messages)?)),
            ChatEnd::Complete => Ok(self.chat(&template.conversation(&messages)?)),
            ChatEnd::Continue => {
                let missing = || Error::Template("the last message cannot be continued".to_owned());
                messages.last_mut().ok_or_else(missing)?.content.push_str(CONTINUED);
                let text = template.conversation(&messages)?;
                let end = text.rfind(CONTINUED.trim_end()).ok_or_else(missing)?;
                // A template that trims contents would have trimmed this one, too.
                let trims = !text[end..].starts_with(CONTINUED);
                let text = if trims { text[..end].trim_end() } else { &text[..end] };
                Ok(self.chat(text))
            }
        }
    }

    /// A conversation that ends with this answer, by the chat template.
    ///
    /// # Errors
    /// The model has no chat template, or the template refuses the messages.
    pub(crate) fn close(&self, prompt: &Prompt, answer: &str) -> Result<LaidOut> {
        let Some(template) = &self.template else {
            return Err(Error::Template("this model has none".to_owned()));
        };
        let mut messages = prompt.messages(None);
        messages.push(Message::new("assistant", answer));
        Ok(self.chat(&template.conversation(&self.marked(messages))?))
    }

    /// The text with an answer behind it.
    pub fn answered(&self, prompt: &LaidOut, answer: &str) -> LaidOut {
        let mut whole = prompt.clone();
        if prompt.format == TextFormat::Chat {
            let behind = prompt.text.len();
            let found = self.tokenizer.controls_in(answer).into_iter();
            whole.literal.extend(found.map(|range| range.start + behind..range.end + behind));
        }
        whole.text.push_str(answer);
        whole
    }

    /// Tokens of a formatted text. A raw text gets the special tokens that the tokenizer adds to every text, such as BOS;
    /// a chat template has written them already.
    ///
    /// # Errors
    /// The tokenizer fails, or it cannot read a control token in a message as text.
    pub fn read(&self, LaidOut { text, format, literal }: &LaidOut) -> Result<Vec<u32>> {
        match format {
            TextFormat::Raw => self.tokenizer.encode(text, true),
            TextFormat::Chat => self.tokenizer.encode_literal(text, literal),
        }
    }

    /// Tokens of a text that is formatted already, see [`TextProcessor::read`] and [`LaidOut::as_is`].
    ///
    /// # Errors
    /// The tokenizer fails.
    pub fn tokens(&self, text: &str, format: TextFormat) -> Result<Vec<u32>> {
        self.tokenizer.encode(text, format == TextFormat::Raw)
    }

    /// The special token with which a text begins twice, if there is one. Most often the text had a BOS token of its own
    /// and the tokenizer added another. Models are not trained on such texts.
    pub fn begins_twice(&self, tokens: &[u32]) -> Option<String> {
        let [first, second, ..] = tokens else { return None };
        let special = || self.tokenizer.decode(&[*first], false).is_ok_and(|text| text.is_empty());
        if first == second && special() { self.tokenizer.token(*first) } else { None }
    }

    /// A control token that is spelt in a raw text with these tokens, if there is one.
    pub fn spells_control(&self, tokens: &[u32]) -> Option<String> {
        let added = self.tokenizer.around(false);
        let control = |id: &&u32| self.tokenizer.is_control(**id);
        if tokens.iter().filter(control).count() <= added {
            return None;
        }
        self.tokenizer.token(*tokens.iter().skip(added.min(1)).find(control)?)
    }

    fn marked(&self, mut messages: Vec<Message>) -> Vec<Message> {
        for message in &mut messages {
            message.role = self.tokenizer.marked(&message.role);
            message.content = self.tokenizer.marked(&message.content);
        }
        messages
    }

    fn chat(&self, rendered: &str) -> LaidOut {
        let (text, literal) = self.tokenizer.unmarked(rendered);
        LaidOut { text, format: TextFormat::Chat, literal }
    }
}
