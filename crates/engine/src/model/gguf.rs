//! The configuration of a decoder from the metadata of a GGUF file.

use std::path::Path;

use candle_core::quantized::gguf_file::{Content, Value};

use super::config::{Bias, Config};
use super::family::Family;
use super::rope::{Rope, Stretched, plain, rotary};
use super::weights::{Naming, Weights};
use crate::error::{Error, Result};
use crate::kernel::{Activation, Rotary, Sight};

/// Reads the configuration, and sets how the tensors are named.
pub(super) fn read(path: &Path, content: &Content, tensors: &mut Weights) -> Result<Config> {
    let found = content.metadata.get("general.architecture").and_then(|v| v.to_string().ok());
    let found = found.map_or("(none named)", String::as_str);
    let Some(family) = Family::of_gguf(found) else {
        let found = found.to_owned();
        return Err(Error::Architecture {
            path: path.to_owned(),
            found,
            supported: Family::supported(),
        });
    };
    tensors.name_as(Naming::Gguf(family));
    let config = Reader { path, content, tensors, family, prefix: found }.config()?;
    config.check(path)?;
    Ok(config)
}

struct Reader<'a> {
    path: &'a Path,
    content: &'a Content,
    tensors: &'a Weights,
    family: Family,
    /// Prefix of the keys.
    prefix: &'a str,
}

impl Reader<'_> {
    fn config(&self) -> Result<Config> {
        use Family::{Gemma2, Gemma3, Gpt2, Qwen2};
        let family = self.family;
        let (gemma, gpt2) = (matches!(family, Gemma2 | Gemma3), family == Gpt2);
        let (heads, hidden) = (self.number("attention.head_count")?, self.number("embedding_length")?);
        let layers = self.number("block_count")?;
        let head_dim = self.number("attention.key_length").unwrap_or(hidden / heads.max(1));
        let embedding = self.content.tensor_infos.get("token_embd.weight");
        let rows = embedding.and_then(|info| info.shape.dims().first().copied());
        let eps = if gpt2 { "attention.layer_norm_epsilon" } else { "attention.layer_norm_rms_epsilon" };
        let context = self.number("context_length")?;
        // The largest models of both families use another scale, which GGUF does not store.
        let big = matches!((family, layers), (Gemma2, 46) | (Gemma3, 62));
        let scaled = if big { hidden / heads.max(1) } else { head_dim };
        let has = |name: &str| self.tensors.contains(name);
        let (rotary, context) = self.rotary(head_dim, context)?;
        let eos = self.content.metadata.get("tokenizer.ggml.eos_token_id").and_then(as_u64);
        Ok(Config {
            architecture: self.prefix.to_owned(),
            hidden,
            intermediate: self.number("feed_forward_length")?,
            layers,
            heads,
            kv_heads: self.number("attention.head_count_kv").unwrap_or(heads),
            head_dim,
            vocabulary: rows.ok_or_else(|| Error::MissingTensor {
                path: self.path.to_owned(),
                name: "token_embd.weight".into(),
            })?,
            context,
            norm_eps: self.real(eps).ok_or_else(|| self.missing(eps))? as f32,
            layer_norm: gpt2,
            norms: family.norms(),
            qk_norm: family.qk_norm(),
            bias: Bias {
                qkv: family == Qwen2 || has("blk.0.attn_q.bias") || has("blk.0.attn_qkv.bias"),
                output: has("blk.0.attn_output.bias"),
                feed_forward: gpt2,
            },
            activation: if gemma || gpt2 { Activation::GeluTanh } else { Activation::Silu },
            gated: !gpt2,
            attention_scale: 1.0 / (scaled as f32).sqrt(),
            attention_cap: self.cap("attn_logit_softcapping", 50.0),
            logit_cap: self.cap("final_logit_softcapping", 30.0),
            embedding_scale: if gemma { (hidden as f32).sqrt() } else { 1.0 },
            learned_positions: gpt2,
            sight: self.sight(layers, context),
            rotary,
            tied: !has("output.weight"),
            eos: eos.map(|id| id as u32).into_iter().collect(),
        })
    }

    /// A soft cap of Gemma 2.
    fn cap(&self, key: &str, usual: f64) -> Option<f32> {
        (self.family == Family::Gemma2).then(|| self.real(key).unwrap_or(usual) as f32)
    }

    /// The rotations, and the context that they are valid for.
    fn rotary(&self, head_dim: usize, context: usize) -> Result<(Vec<Rotary>, usize)> {
        let theta = self.real("rope.freq_base").unwrap_or(1e4);
        let width = self.number("rope.dimension_count").unwrap_or(head_dim);
        // The same fields as `rope_scaling` in config.json.
        let mut scaling =
            serde_json::json!({ "type": self.text("rope.scaling.type").unwrap_or("default") });
        if scaling["type"] == "none" {
            scaling["type"] = "default".into();
        }
        for (key, name) in [
            ("rope.scaling.factor", "factor"),
            ("rope.scaling.original_context_length", "original_max_position_embeddings"),
            ("rope.scaling.attn_factor", "attention_factor"),
        ] {
            if let Some(number) = self.real(key) {
                scaling[name] = number.into();
            }
        }
        let original = self.real("rope.scaling.original_context_length");
        if self.tensors.contains("rope_factors_short.weight") {
            scaling["type"] = "longrope".into();
            for (tensor, name) in [
                ("rope_factors_short.weight", "short_factor"),
                ("rope_factors_long.weight", "long_factor"),
            ] {
                scaling[name] = serde_json::json!(self.tensors.vector(tensor, width / 2)?);
            }
        }
        let path = self.path;
        let Stretched { rotary: mut global, context: reach } =
            Rope { path, theta, width, head_dim, context, original }.scaled(&scaling)?;
        if self.tensors.contains("rope_freqs.weight") {
            // Llama 3: each frequency is divided by a stored factor.
            let factors = self.tensors.vector("rope_freqs.weight", width / 2)?;
            global.frequencies.iter_mut().zip(factors).for_each(|(f, factor)| *f /= factor);
        }
        let mut rotations = vec![global];
        match self.family {
            Family::Gemma3 => {
                let local = self.real("rope.freq_base_swa").unwrap_or(1e4);
                rotations.push(rotary(plain(local, width), 1.0));
            }
            Family::Gpt2 => rotations.clear(),
            _ => {}
        }
        Ok((rotations, reach.map_or(context, |reach| reach.min(context))))
    }

    /// Rotation and window of each layer. GGUF does not store which layers have a sliding window; it follows from the
    /// architecture.
    fn sight(&self, layers: usize, context: usize) -> Vec<Sight> {
        let window = self.number("attention.sliding_window").ok();
        let slides = |i: usize| match self.family {
            Family::Gemma2 => i.is_multiple_of(2),
            Family::Gemma3 => !(i + 1).is_multiple_of(6),
            Family::Phi3 => true,
            _ => false,
        };
        let turns = |i: usize| match self.family {
            Family::Gpt2 => false,
            Family::SmolLm3 => !(i + 1).is_multiple_of(4),
            _ => true,
        };
        let sight = |i: usize| Sight {
            rotary: turns(i).then_some(usize::from(self.family == Family::Gemma3 && slides(i))),
            window: window.filter(|window| slides(i) && *window > 0 && *window < context),
        };
        (0..layers.min(1 << 16)).map(sight).collect()
    }

    fn get(&self, key: &str) -> Option<&Value> {
        self.content.metadata.get(&format!("{}.{key}", self.prefix))
    }

    fn number(&self, key: &str) -> Result<usize> {
        self.get(key).and_then(as_u64).map(|n| n as usize).ok_or_else(|| self.missing(key))
    }

    fn real(&self, key: &str) -> Option<f64> {
        let value = self.get(key)?;
        value.to_f32().ok().map(f64::from).or_else(|| as_u64(value).map(|n| n as f64))
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.get(key)?.to_string().ok().map(String::as_str)
    }

    fn missing(&self, key: &str) -> Error {
        Error::invalid(self.path, format!("the metadata lack '{}.{key}'", self.prefix))
    }
}

/// The value of any GGUF integer type that is not negative.
pub(crate) fn as_u64(value: &Value) -> Option<u64> {
    match value {
        Value::U8(n) => Some(u64::from(*n)),
        Value::U16(n) => Some(u64::from(*n)),
        Value::U32(n) => Some(u64::from(*n)),
        Value::U64(n) => Some(*n),
        Value::I8(n) => u64::try_from(*n).ok(),
        Value::I16(n) => u64::try_from(*n).ok(),
        Value::I32(n) => u64::try_from(*n).ok(),
        Value::I64(n) => u64::try_from(*n).ok(),
        _ => None,
    }
}
