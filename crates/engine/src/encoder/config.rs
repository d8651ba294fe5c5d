//! The shape of an encoder, from `config.json`.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::relative::Distances;
use super::settings::json;
use crate::error::{Error, Result};
use crate::kernel::{Activation, Rotary};
use crate::model::{plain, rotary};

/// Families of encoders, which differ in the names of their tensors or in their architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    Bert,
    DistilBert,
    /// Versions 2 and 3.
    Deberta,
    ModernBert,
}

/// The shape of an encoder.
pub(super) struct Config {
    pub(super) family: Family,
    /// Width of the hidden states, `d`.
    pub(super) hidden: usize,
    /// Width of the embeddings. If it is not `d`, a layer projects them.
    pub(super) embedding: usize,
    pub(super) intermediate: usize,
    pub(super) layers: usize,
    pub(super) heads: usize,
    pub(super) vocabulary: usize,
    /// The maximum number of tokens of a text.
    pub(super) context: usize,
    /// Number of position embeddings; 0 if positions are not learned.
    pub(super) positions: usize,
    /// Index of the first token's position embedding.
    pub(super) first_position: usize,
    /// Number of token types; 0 if the model has none.
    pub(super) types: usize,
    pub(super) norm_eps: f32,
    pub(super) activation: Activation,
    /// Relative positions of DeBERTa.
    pub(super) distances: Option<Distances>,
    /// Rotations and windows of ModernBERT.
    pub(super) sights: Option<Sights>,
    pub(super) biases: Biases,
}

/// Rotations and windows of ModernBERT.
pub(super) struct Sights {
    /// The rotation of layers with full attention, and that of layers with a window.
    pub(super) rotary: [Rotary; 2],
    /// The maximum distance of a visible token in layers with a window.
    pub(super) window: usize,
    layers: Alternate,
}

/// Which layers have full attention.
enum Alternate {
    Every(usize),
    Named(Vec<String>),
}

impl Sights {
    /// Whether this layer has a window.
    pub(super) fn is_local(&self, layer: usize) -> bool {
        match &self.layers {
            Alternate::Every(n) => !layer.is_multiple_of(*n),
            Alternate::Named(kinds) => kinds.get(layer).is_some_and(|kind| kind == "sliding_attention"),
        }
    }
}

/// Which layers have biases.
#[derive(Debug, Clone, Copy)]
pub(super) struct Biases {
    pub(super) attention: bool,
    pub(super) norm: bool,
    pub(super) feed_forward: bool,
}

const SUPPORTED: &str = "Bert, Roberta, XLMRoberta, Camembert, Electra, DistilBert, DebertaV2 (also v3), ModernBert, \
                         each Model or ForSequenceClassification";

/// Field names of DistilBERT and ModernBERT, and the usual names for the same fields.
const NAMES: [(&str, &str); 7] = [
    ("dim", "hidden_size"),
    ("hidden_dim", "intermediate_size"),
    ("n_layers", "num_hidden_layers"),
    ("n_heads", "num_attention_heads"),
    ("activation", "hidden_act"),
    ("hidden_activation", "hidden_act"),
    ("norm_eps", "layer_norm_eps"),
];

/// The fields of `config.json` that matter here.
#[derive(Deserialize)]
struct Hf {
    hidden_size: usize,
    embedding_size: Option<usize>,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    vocab_size: usize,
    max_position_embeddings: usize,
    type_vocab_size: Option<usize>,
    layer_norm_eps: Option<f32>,
    hidden_act: String,
    position_embedding_type: Option<String>,
    pad_token_id: Option<usize>,
    #[serde(flatten)]
    rest: Value,
}

impl Config {
    pub(super) fn read(folder: &Path) -> Result<Self> {
        let path = folder.join("config.json");
        let mut value: Value = json(&path)?;
        let said = |key: &str| value[key].as_str().map(str::to_owned);
        let found = value["architectures"][0].as_str().map(str::to_owned).or_else(|| said("model_type"));
        let found = found.unwrap_or_else(|| "none named".to_owned());
        let kind = said("model_type").unwrap_or_else(|| match () {
            () if found.starts_with("XLMRoberta") || found.starts_with("Roberta") => {
                "roberta".to_owned()
            }
            () if found.starts_with("Bert") => "bert".to_owned(),
            () if found.starts_with("DistilBert") => "distilbert".to_owned(),
            () if found.starts_with("Electra") => "electra".to_owned(),
            () if found.starts_with("DebertaV2") => "deberta-v2".to_owned(),
            () if found.starts_with("ModernBert") => "modernbert".to_owned(),
            () => found.clone(),
        });
        let family = match kind.as_str() {
            "bert" | "electra" | "roberta" | "xlm-roberta" | "camembert" => Family::Bert,
            "distilbert" => Family::DistilBert,
            "deberta-v2" => Family::Deberta,
            "modernbert" => Family::ModernBert,
            _ => return Err(Error::Architecture { path, found, supported: SUPPORTED.to_owned() }),
        };
        for (other, usual) in NAMES {
            if matches!(family, Family::DistilBert | Family::ModernBert) && !value[other].is_null() {
                value[usual] = value[other].take();
            }
        }
        let hf: Hf = serde_json::from_value(value).map_err(|e| Error::invalid(&path, e))?;
        let config = Reader { path: &path, family, hf }.config(&kind)?;
        config.check(&path)?;
        Ok(config)
    }

    fn check(&self, path: &Path) -> Result<()> {
        let sizes = [
            ("hidden_size", self.hidden),
            ("intermediate_size", self.intermediate),
            ("num_attention_heads", self.heads),
            ("vocab_size", self.vocabulary),
            ("embedding_size", self.embedding),
        ];
        if let Some((name, _)) = sizes.iter().find(|(_, size)| *size == 0) {
            return Err(Error::invalid(path, format!("{name} is 0")));
        }
        if !self.hidden.is_multiple_of(self.heads) {
            let (hidden, heads) = (self.hidden, self.heads);
            let what =
                format!("hidden_size is {hidden}, not a multiple of num_attention_heads, {heads}");
            return Err(Error::invalid(path, what));
        }
        if self.context == 0 {
            let what = "max_position_embeddings leaves no room for text";
            return Err(Error::invalid(path, what));
        }
        Ok(())
    }
}

struct Reader<'a> {
    path: &'a Path,
    family: Family,
    hf: Hf,
}

impl Reader<'_> {
    fn config(&self, kind: &str) -> Result<Config> {
        let Self { family, hf, .. } = self;
        let family = *family;
        let activation = Activation::named(&hf.hidden_act).ok_or_else(|| {
            let known = "known are gelu, gelu_new, silu and relu";
            self.refuse(format!("hidden_act is '{}': {known}", hf.hidden_act))
        })?;
        if let Some(kind) = hf.position_embedding_type.as_deref().filter(|kind| *kind != "absolute") {
            let what = format!("position_embedding_type is '{kind}': only absolute is supported");
            return Err(self.refuse(what));
        }
        let (deberta, modern) = (family == Family::Deberta, family == Family::ModernBert);
        // RoBERTa's positions begin after the padding token's ID.
        let roberta = matches!(kind, "roberta" | "xlm-roberta" | "camembert");
        let first_position = if roberta { hf.pad_token_id.unwrap_or(1).saturating_add(1) } else { 0 };
        let usual_types = if family == Family::Bert { 2 } else { 0 };
        let tables = [Family::Bert, Family::Deberta].contains(&family);
        let unplaced = deberta && self.flag("position_biased_input") == Some(false);
        let own_width = deberta || kind == "electra";
        let narrow = hf.embedding_size.filter(|_| own_width);
        Ok(Config {
            family,
            hidden: hf.hidden_size,
            embedding: narrow.unwrap_or(hf.hidden_size),
            intermediate: hf.intermediate_size,
            layers: hf.num_hidden_layers,
            heads: hf.num_attention_heads,
            vocabulary: hf.vocab_size,
            context: hf.max_position_embeddings.saturating_sub(first_position),
            positions: if modern || unplaced { 0 } else { hf.max_position_embeddings },
            first_position,
            types: hf.type_vocab_size.filter(|_| tables).unwrap_or(usual_types),
            norm_eps: hf.layer_norm_eps.unwrap_or(match family {
                Family::Deberta => 1e-7,
                Family::ModernBert => 1e-5,
                _ => 1e-12,
            }),
            activation,
            distances: if deberta { self.distances()? } else { None },
            sights: if modern { Some(self.sights()?) } else { None },
            biases: Biases {
                attention: !modern || self.flag("attention_bias") == Some(true),
                norm: !modern || self.flag("norm_bias") == Some(true),
                feed_forward: !modern,
            },
        })
    }

    fn distances(&self) -> Result<Option<Distances>> {
        if self.number("conv_kernel_size").is_some_and(|size| size > 0) {
            return Err(self.refuse("conv_kernel_size: DeBERTa's convolution is not supported"));
        }
        let words = |value: &Value| -> Vec<String> {
            let split = |text: &str| text.split('|').map(|word| word.trim().to_lowercase()).collect();
            match value {
                Value::String(text) => split(text),
                Value::Array(all) => {
                    all.iter().map(|word| word.as_str().unwrap_or("?").to_lowercase()).collect()
                }
                _ => Vec::new(),
            }
        };
        let (met, norm) = (words(&self.hf.rest["pos_att_type"]), words(&self.hf.rest["norm_rel_ebd"]));
        if let Some(other) = met.iter().find(|word| !["c2p", "p2c"].contains(&word.as_str())) {
            return Err(
                self.refuse(format!("pos_att_type has '{other}': only c2p and p2c are supported"))
            );
        }
        if let Some(other) = norm.iter().find(|word| !["none", "layer_norm"].contains(&word.as_str())) {
            let what = format!("norm_rel_ebd is '{other}': only layer_norm and none are supported");
            return Err(self.refuse(what));
        }
        if self.flag("relative_attention") != Some(true) {
            return match met.is_empty() {
                true => Ok(None),
                false => Err(self.refuse("pos_att_type names terms, but relative_attention is off")),
            };
        }
        let met = |word: &str| met.iter().any(|known| known == word);
        let buckets = self.number("position_buckets").unwrap_or(0);
        let reach = self.number("max_relative_positions").filter(|reach| *reach > 0);
        let reach = reach.unwrap_or(self.hf.max_position_embeddings);
        if buckets == 1 || buckets > 0 && reach.saturating_sub(1) <= buckets / 2 {
            let what = format!("position_buckets is {buckets} for distances up to {reach} tokens");
            return Err(self.refuse(what));
        }
        Ok(Some(Distances {
            buckets,
            reach,
            norm: norm.iter().any(|word| word == "layer_norm"),
            shared: self.flag("share_att_key") == Some(true),
            of_keys: met("c2p"),
            of_queries: met("p2c"),
        }))
    }

    fn sights(&self) -> Result<Sights> {
        if self.flag("mlp_bias") == Some(true) {
            return Err(self.refuse("mlp_bias: biases in feed-forward layers are not supported"));
        }
        let rest = &self.hf.rest;
        // transformers 5 writes rope_parameters, older versions other fields.
        let theta = |kind: &str, old: &str, usual: f64| {
            let new = &rest["rope_parameters"][kind];
            match new["rope_type"].as_str() {
                None | Some("default") => {
                    Ok(new["rope_theta"].as_f64().or(rest[old].as_f64()).unwrap_or(usual))
                }
                Some(other) => Err(self.refuse(format!("rope_type '{other}' is not supported"))),
            }
        };
        let global = theta("full_attention", "global_rope_theta", 160_000.0)?;
        // Null and a missing field mean different things here.
        let usual = if rest.get("local_rope_theta").is_some() { global } else { 10_000.0 };
        let local = theta("sliding_attention", "local_rope_theta", usual)?;
        let dim = self.hf.hidden_size / self.hf.num_attention_heads.max(1);
        // No head is wider than 65536 numbers.
        if !dim.is_multiple_of(2) || dim > 1 << 16 || !(global > 1.0 && local > 1.0) {
            let what =
                format!("heads of width {dim} cannot be rotated with the bases {global} and {local}");
            return Err(self.refuse(what));
        }
        let layers = match &rest["layer_types"] {
            Value::Array(kinds) => {
                let kinds: Vec<&str> = kinds.iter().map(|kind| kind.as_str().unwrap_or("?")).collect();
                let known = ["full_attention", "sliding_attention"];
                let other = kinds.iter().find(|kind| !known.contains(kind));
                if other.is_some() || kinds.len() != self.hf.num_hidden_layers {
                    let what = "layer_types: one of full_attention and sliding_attention for each layer is expected";
                    return Err(self.refuse(what));
                }
                Alternate::Named(kinds.into_iter().map(str::to_owned).collect())
            }
            _ => Alternate::Every(self.number("global_attn_every_n_layers").unwrap_or(3)),
        };
        if matches!(layers, Alternate::Every(0)) {
            return Err(self.refuse("global_attn_every_n_layers is 0"));
        }
        let turned = |theta| rotary(plain(theta, dim), 1.0);
        let window = self.number("local_attention").unwrap_or(128) / 2;
        Ok(Sights { rotary: [turned(global), turned(local)], window, layers })
    }

    /// A field that is an integer of at least 0.
    fn number(&self, name: &str) -> Option<usize> {
        self.hf.rest[name].as_u64().and_then(|number| usize::try_from(number).ok())
    }

    fn flag(&self, name: &str) -> Option<bool> {
        self.hf.rest[name].as_bool()
    }

    fn refuse(&self, what: impl Into<String>) -> Error {
        Error::invalid(self.path, what.into())
    }
}
