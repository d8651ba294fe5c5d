//! The configuration of a decoder from `config.json`.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::config::{Bias, Config};
use super::family::{Family, Task};
use super::rope::{Rope, Stretched, plain, rotary};
use crate::error::{Error, Result};
use crate::kernel::{Activation, Rotary, Sight};

/// The content of `config.json`.
pub(super) struct Described {
    pub(super) config: Config,
    pub(super) family: Family,
    /// The labels of a classifier.
    pub(super) labels: Option<Labels>,
}

/// The labels of a classifier.
#[derive(Debug, Clone)]
pub(crate) struct Labels {
    pub(crate) names: Vec<String>,
    /// Name of the score head's tensor.
    pub(crate) tensor: &'static str,
}

/// The fields of `config.json` that matter here. GPT-2 has older names for some of them.
#[derive(Deserialize)]
struct Hf {
    #[serde(alias = "n_embd")]
    hidden_size: usize,
    #[serde(alias = "n_inner")]
    intermediate_size: Option<usize>,
    #[serde(alias = "n_layer")]
    num_hidden_layers: usize,
    #[serde(alias = "n_head")]
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    vocab_size: usize,
    #[serde(alias = "n_positions")]
    max_position_embeddings: usize,
    #[serde(alias = "layer_norm_epsilon")]
    rms_norm_eps: f64,
    rope_theta: Option<f64>,
    #[serde(default)]
    rope_scaling: Value,
    /// Newer files have the two fields above in here; those of Gemma 3 have them for each kind of layer.
    #[serde(default)]
    rope_parameters: Value,
    rope_local_base_freq: Option<f64>,
    partial_rotary_factor: Option<f64>,
    original_max_position_embeddings: Option<f64>,
    no_rope_layers: Option<Vec<usize>>,
    no_rope_layer_interval: Option<usize>,
    tie_word_embeddings: Option<bool>,
    eos_token_id: Option<OneOrMany>,
    sliding_window: Option<usize>,
    use_sliding_window: Option<bool>,
    max_window_layers: Option<usize>,
    sliding_window_pattern: Option<usize>,
    layer_types: Option<Vec<String>>,
    attention_bias: Option<bool>,
    #[serde(default)]
    mlp_bias: bool,
    #[serde(alias = "hidden_activation", alias = "activation_function")]
    hidden_act: Option<String>,
    query_pre_attn_scalar: Option<f64>,
    attn_logit_softcapping: Option<f32>,
    final_logit_softcapping: Option<f32>,
    #[serde(default)]
    scale_attn_by_inverse_layer_idx: bool,
    scale_attn_weights: Option<bool>,
}

/// The type of `eos_token_id`: a number or a list.
#[derive(Deserialize)]
#[serde(untagged)]
pub(crate) enum OneOrMany {
    One(u32),
    Many(Vec<u32>),
}

impl OneOrMany {
    pub(crate) fn into_vec(self) -> Vec<u32> {
        match self {
            Self::One(id) => vec![id],
            Self::Many(ids) => ids,
        }
    }
}

/// Reads `config.json`.
pub(super) fn read(path: &Path) -> Result<Described> {
    let adapter = path.with_file_name("adapter_config.json");
    if adapter.is_file() && !path.is_file() {
        let what = "an adapter (LoRA), not a model: merge it into its base model and give that folder";
        return Err(Error::invalid(&adapter, what));
    }
    let text = std::fs::read_to_string(path).map_err(Error::read(path))?;
    let mut value: Value = serde_json::from_str(&text).map_err(|e| Error::invalid(path, e))?;
    let name = value["architectures"][0].as_str().unwrap_or("(none named)").to_owned();
    let Some((family, task)) = Family::of_hf(&name) else {
        return Err(Error::Architecture {
            path: path.to_owned(),
            found: name,
            supported: Family::supported(),
        });
    };
    if value["quantization_config"].is_object() {
        let method = value["quantization_config"]["quant_method"].as_str().unwrap_or("(none named)");
        let what = format!(
            "the weights are quantised ({method}), which is not supported: take the model without it, or a GGUF \
             file of it"
        );
        return Err(Error::invalid(path, what));
    }
    // Multimodal models have the configuration of the text model in a field of its own.
    if value["text_config"].is_object() {
        let (text, whole) = (value["text_config"].take(), value);
        value = text;
        for key in ["eos_token_id", "tie_word_embeddings", "id2label", "num_labels"] {
            if value[key].is_null() {
                value[key] = whole[key].clone();
            }
        }
    }
    // GPT-2 has null under the newer names.
    if let Some(fields) = value.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
    }
    let names = labels(&value);
    let hf: Hf = serde_json::from_value(value).map_err(|e| Error::invalid(path, e))?;
    let labels = match task {
        Task::Language => None,
        Task::Classifier => Some(Labels { names, tensor: "score.weight" }),
        Task::Regression => {
            Some(Labels { names: vec!["reward".to_owned()], tensor: "regression_head.weight" })
        }
    };
    let config = Reader { path, family, hf }.config(name)?;
    config.check(path)?;
    Ok(Described { config, family, labels })
}

/// The labels of a classifier in order, as transformers reads them: the names in `id2label`, or else `num_labels` labels
/// without names, or else two.
pub(crate) fn labels(config: &Value) -> Vec<String> {
    let named = config["id2label"].as_object();
    let said = config["num_labels"].as_u64().map(|n| n.min(1 << 16) as usize);
    let n = named.map(serde_json::Map::len).or(said).unwrap_or(2);
    let name = |i: usize| named?.get(&i.to_string())?.as_str().map(str::to_owned);
    (0..n).map(|i| name(i).unwrap_or_else(|| format!("LABEL_{i}"))).collect()
}

struct Reader<'a> {
    path: &'a Path,
    family: Family,
    hf: Hf,
}

impl Reader<'_> {
    fn config(&self, architecture: String) -> Result<Config> {
        use Family::{Gemma2, Gemma3, Gpt2, Olmo2, Phi3, Qwen2, Qwen3};
        let Self { family, hf, .. } = self;
        let family = *family;
        let gemma = matches!(family, Gemma2 | Gemma3);
        let heads = hf.num_attention_heads;
        let head_dim = hf.head_dim.unwrap_or(hf.hidden_size / heads.max(1));
        if hf.mlp_bias {
            return Err(self.refuse("biases in feed-forward layers are not supported"));
        }
        if hf.scale_attn_by_inverse_layer_idx || hf.scale_attn_weights == Some(false) {
            return Err(self.refuse("attention scaled by the layer, or not at all, is not supported"));
        }
        let gpt2 = family == Gpt2;
        let biased = hf.attention_bias.unwrap_or(false) || gpt2;
        let scalar = hf.query_pre_attn_scalar.filter(|_| gemma).unwrap_or(head_dim as f64);
        let (rotary, context) = self.rotary(head_dim)?;
        Ok(Config {
            architecture,
            hidden: hf.hidden_size,
            intermediate: hf.intermediate_size.unwrap_or(hf.hidden_size.saturating_mul(4)),
            layers: hf.num_hidden_layers,
            heads,
            kv_heads: hf.num_key_value_heads.filter(|_| !gpt2).unwrap_or(heads),
            head_dim,
            vocabulary: hf.vocab_size,
            context,
            norm_eps: hf.rms_norm_eps as f32,
            layer_norm: gpt2,
            norms: family.norms(),
            qk_norm: family.qk_norm(),
            bias: Bias { qkv: biased || family == Qwen2, output: biased, feed_forward: gpt2 },
            activation: self.activation()?,
            gated: !gpt2,
            attention_scale: (1.0 / scalar.sqrt()) as f32,
            attention_cap: hf.attn_logit_softcapping.filter(|_| gemma),
            logit_cap: hf.final_logit_softcapping.filter(|_| gemma),
            embedding_scale: if gemma { (hf.hidden_size as f32).sqrt() } else { 1.0 },
            learned_positions: gpt2,
            rotary,
            sight: self.sight(context)?,
            // The default of transformers.
            tied: hf.tie_word_embeddings.unwrap_or(!matches!(
                family,
                Family::Llama | Family::Mistral | Qwen2 | Qwen3 | Phi3 | Olmo2
            )),
            eos: match &hf.eos_token_id {
                Some(OneOrMany::One(id)) => vec![*id],
                Some(OneOrMany::Many(ids)) => ids.clone(),
                None => Vec::new(),
            },
        })
    }

    fn activation(&self) -> Result<Activation> {
        let usual = match self.family {
            Family::Gpt2 | Family::Gemma2 | Family::Gemma3 => "gelu_pytorch_tanh",
            _ => "silu",
        };
        // Configurations of Gemma 2 say gelu, but the model uses the tanh approximation.
        let name = match (self.family, self.hf.hidden_act.as_deref()) {
            (Family::Gemma2 | Family::Gemma3, _) | (_, None) => usual,
            (_, Some(name)) => name,
        };
        Activation::named(name).ok_or_else(|| {
            self.refuse(&format!("the activation '{name}' is not supported; silu, gelu and relu are"))
        })
    }

    /// The rotations, and the context that they are valid for. Gemma 3 has one rotation for layers with full attention
    /// and a second one for layers with a window.
    fn rotary(&self, head_dim: usize) -> Result<(Vec<Rotary>, usize)> {
        let Self { path, hf, family } = self;
        let context = hf.max_position_embeddings;
        if *family == Family::Gpt2 {
            return Ok((Vec::new(), context));
        }
        let nested = &hf.rope_parameters["full_attention"];
        let parameters = if nested.is_object() { nested } else { &hf.rope_parameters };
        let scaling = if hf.rope_scaling.is_object() { &hf.rope_scaling } else { parameters };
        let share = hf.partial_rotary_factor.or(parameters["partial_rotary_factor"].as_f64());
        let theta = hf.rope_theta.or(parameters["rope_theta"].as_f64());
        let theta = theta.unwrap_or(if *family == Family::Gemma3 { 1e6 } else { 1e4 });
        let width = (head_dim as f64 * share.unwrap_or(1.0)) as usize;
        let original = hf.original_max_position_embeddings;
        let Stretched { rotary: global, context: reach } =
            Rope { path, theta, width, head_dim, context, original }.scaled(scaling)?;
        let mut rotations = vec![global];
        if *family == Family::Gemma3 {
            let local = hf.rope_parameters["sliding_attention"]["rope_theta"].as_f64();
            let theta = local.or(hf.rope_local_base_freq).unwrap_or(1e4);
            rotations.push(rotary(plain(theta, width), 1.0));
        }
        Ok((rotations, reach.map_or(context, |reach| reach.min(context))))
    }

    /// Rotation and window of each layer.
    fn sight(&self, context: usize) -> Result<Vec<Sight>> {
        let Self { family, hf, .. } = self;
        let layers = hf.num_hidden_layers.min(1 << 16);
        let lengths = [
            ("layer_types", hf.layer_types.as_ref().map(Vec::len)),
            ("no_rope_layers", hf.no_rope_layers.as_ref().map(Vec::len)),
        ];
        if let Some((name, Some(n))) = lengths.into_iter().find(|(_, n)| n.is_some_and(|n| n != layers))
        {
            return Err(self.refuse(&format!("{name} has {n} entries for {layers} layers")));
        }
        let may_slide = match family {
            Family::Qwen2 | Family::Qwen3 | Family::SmolLm3 => hf.use_sliding_window.unwrap_or(false),
            Family::Mistral | Family::Phi3 | Family::Gemma2 | Family::Gemma3 => true,
            Family::Llama | Family::Olmo2 | Family::Gpt2 => false,
        };
        let window = hf.sliding_window.filter(|_| may_slide);
        let slides = |i: usize| match (&hf.layer_types, family) {
            (Some(types), _) => types[i] == "sliding_attention",
            (None, Family::Gemma2) => i.is_multiple_of(2),
            (None, Family::Gemma3) => {
                !(i + 1).is_multiple_of(hf.sliding_window_pattern.unwrap_or(6).max(1))
            }
            (None, Family::Qwen2 | Family::Qwen3) => i >= hf.max_window_layers.unwrap_or(0),
            (None, _) => true,
        };
        let turns = |i: usize| match (&hf.no_rope_layers, family) {
            (_, Family::Gpt2) => false,
            (Some(layers), Family::SmolLm3) => layers[i] != 0,
            (None, Family::SmolLm3) => {
                !(i + 1).is_multiple_of(hf.no_rope_layer_interval.unwrap_or(4).max(1))
            }
            _ => true,
        };
        let sight = |i: usize| Sight {
            rotary: turns(i).then_some(usize::from(*family == Family::Gemma3 && slides(i))),
            // A window as large as the context has no effect; 0 means no window.
            window: window.filter(|window| slides(i) && (1..context).contains(window)),
        };
        Ok((0..layers).map(sight).collect())
    }

    fn refuse(&self, what: &str) -> Error {
        Error::invalid(self.path, what)
    }
}
