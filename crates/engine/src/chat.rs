//! Chat templates, which lay out messages as the text that a model was trained on.

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, ErrorKind, Value, context};

pub use stackelberg_data::{Message, Prompt};

use crate::error::{Error, Result};

/// A model's chat template, written in Jinja.
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    source: String,
    bos: String,
    eos: String,
}

/// The maximum number of template instructions: a thousand times what the longest conversations need.
const FUEL: u64 = 10_000_000;

impl ChatTemplate {
    /// A template with the texts of the BOS and EOS tokens, which templates can use as `bos_token` and `eos_token`.
    pub fn new(source: impl Into<String>, bos: impl Into<String>, eos: impl Into<String>) -> Self {
        Self { source: source.into(), bos: bos.into(), eos: eos.into() }
    }

    /// A name for the template: the SHA-256 of its source and its tokens, in hexadecimal.
    pub fn fingerprint(&self) -> String {
        stackelberg_data::hash::sha256(format!("{}\n{}\n{}", self.source, self.bos, self.eos))
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
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|e| Error::Template(e.to_string()))?);
        // A template is untrusted code: one that does not terminate is stopped.
        environment.set_fuel(Some(FUEL));
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |said: String| -> std::result::Result<String, _> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, said))
        });
        let turns: Vec<Value> = messages
            .iter()
            .map(|turn| context! { role => turn.role.as_str(), content => turn.content.as_str() })
            .collect();
        // `strftime_now` is not provided, so that texts do not depend on the date; templates have a fallback.
        let render = environment.template_from_str(&self.source).and_then(|template| {
            template.render(context! {
                messages => turns,
                bos_token => self.bos.as_str(),
                eos_token => self.eos.as_str(),
                add_generation_prompt => answers,
            })
        });
        render.map_err(|e| Error::Template(e.to_string()))
    }
}
