//! The text side of a model: its tokenizer, its chat template and its end-of-text tokens.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::quantized::gguf_file::Content;

use crate::chat::ChatTemplate;
use crate::error::{Error, Result};
use crate::model::{OneOrMany, as_u64, gguf_header};
use crate::tokenizer::{Tokenizer, ends};

/// Turns prompts into a model's tokens and tokens into text. It has no weights: a model on a server needs one, too.
#[derive(Clone)]
pub struct TextProcessor {
    /// The model's tokenizer.
    pub tokenizer: Arc<Tokenizer>,
    /// The model's chat template, if it has one.
    pub template: Option<ChatTemplate>,
    /// The tokens that end a text, sorted: those of `config.json` and `generation_config.json`; in a GGUF file also
    /// control tokens whose text is a known end of turn, such as `<|eot_id|>`.
    pub eos: Vec<u32>,
    /// The folder or file that it was loaded from.
    pub path: PathBuf,
}

impl TextProcessor {
    /// Loads the tokenizer, the chat template and the end-of-text tokens of a Hugging Face folder or a GGUF file. Weights are
    /// not read; a folder needs none.
    ///
    /// # Errors
    /// The tokenizer is missing, or a file is malformed.
    pub fn load(path: &Path) -> Result<Self> {
        if !path.is_dir() {
            return Self::of_gguf(path, &gguf_header(path)?);
        }
        let mut text = Self::of_folder(path)?;
        text.add_ends(end_tokens(&optional_json(&path.join("config.json"))?));
        Ok(text)
    }

    /// Adds tokens that end a text.
    pub(crate) fn add_ends(&mut self, tokens: impl IntoIterator<Item = u32>) {
        self.eos.extend(tokens);
        self.eos.sort_unstable();
        self.eos.dedup();
    }

    fn new(path: &Path, (tokenizer, template, eos): Parts) -> Self {
        let mut text =
            Self { tokenizer: Arc::new(tokenizer), template, eos: Vec::new(), path: path.to_owned() };
        text.add_ends(eos);
        text
    }

    /// Of a Hugging Face folder, without the end-of-text tokens of `config.json`.
    pub(crate) fn of_folder(path: &Path) -> Result<Self> {
        Ok(Self::new(path, hf(path)?))
    }

    /// Of a GGUF file with this header.
    pub(crate) fn of_gguf(path: &Path, content: &Content) -> Result<Self> {
        Ok(Self::new(path, gguf(path, content)?))
    }
}

type Parts = (Tokenizer, Option<ChatTemplate>, Vec<u32>);

fn hf(folder: &Path) -> Result<Parts> {
    let tokenizer = Tokenizer::from_file(&folder.join("tokenizer.json"))?;
    let config = optional_json(&folder.join("tokenizer_config.json"))?;
    let token = |key: &str| {
        let value = &config[key];
        value.as_str().or(value["content"].as_str()).unwrap_or_default().to_owned()
    };
    let beside = folder.join("chat_template.jinja");
    let source = match beside.is_file() {
        true => Some(std::fs::read_to_string(&beside).map_err(Error::read(&beside))?),
        false => match template_source(&config["chat_template"]) {
            Some(source) => Some(source),
            // Where processors of texts and images keep it.
            None => {
                template_source(&optional_json(&folder.join("chat_template.json"))?["chat_template"])
            }
        },
    };
    let template = source.map(|source| {
        let template = ChatTemplate::new(source, token("bos_token"), token("eos_token"));
        let others = ["unk_token", "pad_token", "sep_token", "cls_token", "mask_token"];
        others.into_iter().fold(template, |template, name| template.with_variable(name, token(name)))
    });
    let generation = optional_json(&folder.join("generation_config.json"))?;
    let mut eos = end_tokens(&generation);
    eos.extend(tokenizer.id(&token("eos_token")));
    Ok((tokenizer, template, eos))
}

/// The end-of-text tokens that a configuration names.
fn end_tokens(config: &serde_json::Value) -> Vec<u32> {
    serde_json::from_value::<OneOrMany>(config["eos_token_id"].clone())
        .map_or_else(|_| Vec::new(), OneOrMany::into_vec)
}

/// The source of a template: the only one, or the one named `default` of several, or the first.
fn template_source(value: &serde_json::Value) -> Option<String> {
    let named = |list: &Vec<serde_json::Value>| {
        let default = list.iter().find(|t| t["name"] == "default").or(list.first())?;
        default["template"].as_str().map(str::to_owned)
    };
    value.as_str().map(str::to_owned).or_else(|| value.as_array().and_then(named))
}

fn optional_json(path: &Path) -> Result<serde_json::Value> {
    if !path.is_file() {
        return Ok(serde_json::Value::Null);
    }
    let text = std::fs::read_to_string(path).map_err(Error::read(path))?;
    serde_json::from_str(&text).map_err(|e| Error::invalid(path, e))
}

fn gguf(path: &Path, content: &Content) -> Result<Parts> {
    let beside = path.with_file_name("tokenizer.json");
    let tokenizer = match beside.is_file() {
        true => Tokenizer::from_file(&beside)?,
        false => Tokenizer::from_gguf(path, content)?,
    };
    let token = |key: &str| {
        let id = content.metadata.get(key).and_then(as_u64)?;
        tokenizer.token(u32::try_from(id).ok()?)
    };
    let (bos, eos) = (token("tokenizer.ggml.bos_token_id"), token("tokenizer.ggml.eos_token_id"));
    let template = metadata_text(content, "tokenizer.chat_template")
        .map(|source| ChatTemplate::new(source, bos.unwrap_or_default(), eos.unwrap_or_default()));
    Ok((tokenizer, template, ends(content)))
}

fn metadata_text(content: &Content, key: &str) -> Option<String> {
    content.metadata.get(key)?.to_string().ok().cloned()
}
