//! A model with all that belongs to it: tokenizer, chat template, tokens that end a text.

use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use candle_core::quantized::gguf_file::Content;
use sha2::{Digest, Sha256};

use crate::chat::{ChatTemplate, Message, Prompt};
use crate::error::{Error, Result};
use crate::kernel::Dtype;
use crate::model::{Model, OneOrMany, as_u64, open, weight_files};
use crate::place::Place;
use crate::reward::TextFormat;
use crate::tokenizer::Tokenizer;

/// A loaded checkpoint.
pub struct Checkpoint {
    /// The model.
    pub model: Model,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// Its chat template, if it has one.
    pub template: Option<ChatTemplate>,
    /// Tokens that end a text.
    pub eos: Vec<u32>,
    /// Tells this model's weights from any other's: see [`fingerprint`].
    pub fingerprint: String,
    /// Where it was loaded from.
    pub path: PathBuf,
}

impl Checkpoint {
    /// Loads an HF folder or a GGUF file, to run on the CPU.
    ///
    /// # Errors
    /// As [`Model::load`]; and a missing or malformed tokenizer.
    pub fn load(path: &Path, dtype: Dtype) -> Result<Self> {
        Self::load_on(path, dtype, Place::Cpu)
    }

    /// The same, to run somewhere else.
    ///
    /// # Errors
    /// As [`Model::load_on`]; and a missing or malformed tokenizer.
    pub fn load_on(path: &Path, dtype: Dtype, place: Place) -> Result<Self> {
        let (architecture, weights) = open(path)?;
        let (tokenizer, template, extra_eos) = match path.is_dir() {
            true => hf(path)?,
            false => gguf(path, architecture.gguf.as_ref())?,
        };
        let model = Model::assemble(architecture, &weights, dtype, place)?;
        let fingerprint = fingerprint(path)?;
        let mut eos = model.config().eos.clone();
        eos.extend(extra_eos);
        eos.sort_unstable();
        eos.dedup();
        Ok(Self { model, tokenizer, template, eos, fingerprint, path: path.to_owned() })
    }
}

impl Checkpoint {
    /// The text that the model reads before it answers: the same for guidance, scoring and training.
    ///
    /// # Errors
    /// A chat is asked for and the model has no template, or it refuses the messages.
    pub fn lay_out(&self, prompt: &Prompt, system: Option<&str>, format: TextFormat) -> Result<String> {
        match (format, &self.template) {
            (TextFormat::Raw, _) => Ok(prompt.raw(system)),
            (TextFormat::Chat, Some(template)) => template.prompt(&prompt.messages(system)),
            (TextFormat::Chat, None) => {
                Err(Error::Template("this model has none: use the prompt format raw".to_owned()))
            }
        }
    }

    /// The text of a conversation that this answer ends.
    ///
    /// # Errors
    /// The model has no template, or it refuses the messages.
    pub(crate) fn close(&self, prompt: &Prompt, answer: &str) -> Result<String> {
        let Some(template) = &self.template else {
            return Err(Error::Template("this model has none".to_owned()));
        };
        let mut messages = prompt.messages(None);
        messages.push(Message::new("assistant", answer));
        template.conversation(&messages)
    }

    /// Tokens of a text laid out in this format. A template writes its own special tokens; a raw text
    /// gets those that the tokenizer puts around every text.
    ///
    /// # Errors
    /// The tokenizer fails.
    pub fn tokens(&self, text: &str, format: TextFormat) -> Result<Vec<u32>> {
        self.tokenizer.encode(text, format == TextFormat::Raw)
    }

    /// The special token that a text begins with twice, if it does: most often because it was laid out before, with a
    /// BOS of its own. Models have not seen such texts.
    pub fn begins_twice(&self, tokens: &[u32]) -> Option<String> {
        let [first, second, ..] = tokens else { return None };
        let special = || self.tokenizer.decode(&[*first], false).is_ok_and(|text| text.is_empty());
        if first == second && special() { self.tokenizer.token(*first) } else { None }
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
        false => template_source(&config["chat_template"]),
    };
    let template =
        source.map(|source| ChatTemplate::new(source, token("bos_token"), token("eos_token")));
    let generation = optional_json(&folder.join("generation_config.json"))?;
    let mut eos: Vec<u32> = serde_json::from_value::<OneOrMany>(generation["eos_token_id"].clone())
        .map_or_else(|_| Vec::new(), OneOrMany::into_vec);
    eos.extend(tokenizer.id(&token("eos_token")));
    Ok((tokenizer, template, eos))
}

/// A template, or the one called `default` of several.
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

fn gguf(path: &Path, content: Option<&Content>) -> Result<Parts> {
    let content = content.ok_or_else(|| Error::invalid(path, "no GGUF file"))?;
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
    let end_of_turn = content.metadata.get("tokenizer.ggml.eot_token_id").and_then(as_u64);
    Ok((tokenizer, template, end_of_turn.and_then(|id| u32::try_from(id).ok()).into_iter().collect()))
}

fn metadata_text(content: &Content, key: &str) -> Option<String> {
    content.metadata.get(key)?.to_string().ok().cloned()
}

/// Names a model's weights: SHA-256 over the size of each weight file, its two ends (1 MiB each) and 64
/// blocks of 4 KiB between. Reading all of a large model would take longer than loading it; any other
/// set of weights differs everywhere.
///
/// # Errors
/// A file cannot be read.
pub fn fingerprint(path: &Path) -> Result<String> {
    let files = if path.is_dir() { weight_files(path)? } else { vec![path.to_owned()] };
    let mut hash = Sha256::new();
    for file in files {
        digest(&file, &mut hash).map_err(Error::read(&file))?;
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn digest(path: &Path, hash: &mut Sha256) -> std::io::Result<()> {
    const END: u64 = 1 << 20;
    const BLOCK: u64 = 4096;
    let mut file = std::fs::File::open(path)?;
    let size = file.metadata()?.len();
    hash.update(size.to_le_bytes());
    let mut spans = vec![(0, END)];
    spans.extend((1..=64).map(|i| (size / 65 * i, BLOCK)));
    spans.push((size.saturating_sub(END), END));
    for (at, length) in spans {
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(at))?;
        file.by_ref().take(length).read_to_end(&mut bytes)?;
        hash.update(&bytes);
    }
    Ok(())
}
