//! Chat templates, which lay out messages as the text that a model was trained on.

mod argument;
mod date;
mod dialect;
mod json;
mod strings;

use std::collections::BTreeMap;

use minijinja::{Value, context};

pub use argument::Argument;
pub use date::Date;
pub use stackelberg_data::{Message, Prompt};

use crate::error::{Error, Result};

/// A model's chat template, written in Jinja. It is rendered as `apply_chat_template` of transformers does without tools
/// and documents.
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    source: String,
    variables: BTreeMap<String, String>,
    args: BTreeMap<String, Argument>,
    date: Date,
}

/// The argument that sets the date.
const DATE: &str = "strftime_now";

impl ChatTemplate {
    /// A template with the texts of the BOS and EOS tokens, which templates can use as `bos_token` and `eos_token`. An
    /// empty text is a token that the model lacks, which is undefined in the template. The date that the template may
    /// write is the current one, in UTC; it does not change any more.
    pub fn new(source: impl AsRef<str>, bos: impl Into<String>, eos: impl Into<String>) -> Self {
        let template = Self {
            source: dialect::plain(source.as_ref()),
            variables: BTreeMap::new(),
            args: BTreeMap::new(),
            date: Date::now(),
        };
        template.with_variable("bos_token", bos.into()).with_variable("eos_token", eos.into())
    }

    /// Sets the date that the template gets from `strftime_now`.
    pub fn with_date(self, date: Date) -> Self {
        Self { date, ..self }
    }

    /// Sets a variable of the model, such as `pad_token`, unless its text is empty.
    pub(crate) fn with_variable(mut self, name: &str, text: String) -> Self {
        if !text.is_empty() {
            self.variables.insert(name.to_owned(), text);
        }
        self
    }

    /// Sets the user's variables, such as `enable_thinking`. The value of `strftime_now` is the date, such as 2025-06-30.
    ///
    /// # Errors
    /// A variable is set by the engine, or the date is not one.
    pub fn set_args(&mut self, args: &BTreeMap<String, Argument>) -> Result<()> {
        if let Some(date) = Self::check_args(args)? {
            self.date = date;
        }
        self.args = args.clone();
        Ok(())
    }

    /// Checks variables for [`ChatTemplate::set_args`]. Returns the date if one is set.
    ///
    /// # Errors
    /// As [`ChatTemplate::set_args`].
    pub fn check_args(args: &BTreeMap<String, Argument>) -> Result<Option<Date>> {
        if let Some(name) = ["messages", "add_generation_prompt"].iter().find(|n| args.contains_key(**n))
        {
            return Err(Error::Template(format!(
                "the argument {name} is set for every prompt: leave it out"
            )));
        }
        let Some(date) = args.get(DATE) else { return Ok(None) };
        let date = date.as_str().ok_or_else(|| format!("{} is not a date", date.0));
        let date = date.and_then(str::parse);
        date.map(Some).map_err(|e| Error::Template(format!("the argument {DATE}: {e}")))
    }

    /// The variables that decide what is rendered: the user's, and the date if the template writes it.
    pub fn args(&self) -> BTreeMap<String, Argument> {
        let mut args = self.args.clone();
        if let (true, Ok(date)) = (self.source.contains(DATE), self.date.strftime("%Y-%m-%d")) {
            args.entry(DATE.to_owned()).or_insert(date.into());
        }
        args
    }

    /// The template in Jinja, in the dialect that this crate renders.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// A variable of the model, such as `bos_token`; `None` if the model lacks it.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// A name for the template: the SHA-256 of its source and its tokens, in hexadecimal.
    pub fn fingerprint(&self) -> String {
        let token = |name: &str| self.variables.get(name).map_or("", String::as_str);
        let (bos, eos) = (token("bos_token"), token("eos_token"));
        stackelberg_data::hash::sha256(format!("{}\n{bos}\n{eos}", self.source))
    }

    /// The text of a conversation up to where the assistant's next answer begins.
    ///
    /// # Errors
    /// The template cannot be parsed, or it refuses the messages.
    pub fn prompt(&self, messages: &[Message]) -> Result<String> {
        self.render(messages, true)
    }

    /// The text of a complete conversation.
    ///
    /// # Errors
    /// As [`ChatTemplate::prompt`].
    pub fn conversation(&self, messages: &[Message]) -> Result<String> {
        self.render(messages, false)
    }

    fn render(&self, messages: &[Message], answers: bool) -> Result<String> {
        let turns = messages
            .iter()
            .map(|turn| context! { role => turn.role.as_str(), content => turn.content.as_str() });
        let mut variables: BTreeMap<&str, Value> =
            [("tools", Value::from(())), ("documents", Value::from(()))].into();
        variables.extend(self.variables.iter().map(|(name, text)| (name.as_str(), text.into())));
        let args = self.args.iter().filter(|(name, _)| *name != DATE);
        variables.extend(args.map(|(name, value)| (name.as_str(), value.0.clone())));
        variables.insert("messages", turns.collect());
        variables.insert("add_generation_prompt", answers.into());
        let rendered = dialect::environment(self.date).and_then(|environment| {
            let template = environment.template_from_str(&self.source)?;
            template.render(Value::from_pairs(variables))
        });
        rendered.map_err(|e| Error::Template(e.to_string()))
    }
}
