//! Checkpoints: a model with its tokenizer, its chat template and its end-of-sequence tokens.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::quantized::gguf_file::Content;

use crate::chat::ChatTemplate;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::fingerprint::fingerprint;
use crate::kernel::Dtype;
use crate::model::{Model, OneOrMany, as_u64, open};
use crate::tokenizer::{Tokenizer, ends};

/// A model with everything that is needed to use it on text. A clone shares the weights.
#[derive(Clone)]
pub struct Checkpoint {
    /// The model.
    pub model: Arc<Model>,
    /// The model's tokenizer.
    pub tokenizer: Arc<Tokenizer>,
    /// The model's chat template, if it has one.
    pub template: Option<ChatTemplate>,
    /// The tokens that end a text, sorted: those of `config.json` and `generation_config.json`; in a GGUF file also
    /// control tokens whose text is a known end of turn, such as `<|eot_id|>`.
    pub eos: Vec<u32>,
    /// The name of the model's weights, see [`fingerprint`].
    pub fingerprint: String,
    /// The folder or file that the checkpoint was loaded from.
    pub path: PathBuf,
}

impl Checkpoint {
    /// Loads a Hugging Face folder or a GGUF file, to run on the CPU.
    ///
    /// # Errors
    /// As [`Model::load`]; the tokenizer is missing or malformed.
    pub fn load(path: &Path, dtype: Dtype) -> Result<Self> {
        Self::load_on(path, dtype, Device::Cpu)
    }

    /// As [`Checkpoint::load`], to run on another device.
    ///
    /// # Errors
    /// As [`Model::load_on`]; the tokenizer is missing or malformed.
    pub fn load_on(path: &Path, dtype: Dtype, place: Device) -> Result<Self> {
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
        let (model, tokenizer) = (Arc::new(model), Arc::new(tokenizer));
        Ok(Self { model, tokenizer, template, eos, fingerprint, path: path.to_owned() })
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
    let mut eos: Vec<u32> = serde_json::from_value::<OneOrMany>(generation["eos_token_id"].clone())
        .map_or_else(|_| Vec::new(), OneOrMany::into_vec);
    eos.extend(tokenizer.id(&token("eos_token")));
    Ok((tokenizer, template, eos))
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

fn gguf(path: &Path, content: Option<&Content>) -> Result<Parts> {
    let content = content.ok_or_else(|| Error::invalid(path, "not a GGUF file"))?;
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
