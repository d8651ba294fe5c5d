//! The families of decoders, and the names of their tensors.
//!
//! This crate uses the names of GGUF internally, because they describe the purpose of a tensor in the same way for every
//! family: `blk.3.ffn_norm.weight` is applied before the feed-forward block, `post_ffw_norm` after it.

use super::config::{Norms, QkNorm};

/// A family of decoders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    /// Llama 2, 3, 3.1, 3.2; SmolLM and SmolLM2.
    Llama,
    Mistral,
    /// Qwen2 and Qwen2.5.
    Qwen2,
    Qwen3,
    Gemma2,
    /// The text model only.
    Gemma3,
    /// Phi-3, Phi-3.5 and Phi-4-mini.
    Phi3,
    SmolLm3,
    Olmo2,
    Gpt2,
}

/// The task of a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Task {
    /// Predicts the next token.
    Language,
    /// Scores texts: `*ForSequenceClassification`.
    Classifier,
    /// Scores texts with a head named `regression_head`, as UltraRM does.
    Regression,
}

/// The families, with the prefix of their architecture names in `config.json` and their name in GGUF.
const FAMILIES: [(Family, &str, &str); 10] = [
    (Family::Llama, "Llama", "llama"),
    (Family::Mistral, "Mistral", "llama"),
    (Family::Qwen2, "Qwen2", "qwen2"),
    (Family::Qwen3, "Qwen3", "qwen3"),
    (Family::Gemma2, "Gemma2", "gemma2"),
    (Family::Gemma3, "Gemma3", "gemma3"),
    (Family::Phi3, "Phi3", "phi3"),
    (Family::SmolLm3, "SmolLM3", "smollm3"),
    (Family::Olmo2, "Olmo2", "olmo2"),
    (Family::Gpt2, "GPT2", "gpt2"),
];

impl Family {
    /// The family and the task of an architecture name in `config.json`.
    pub(super) fn of_hf(architecture: &str) -> Option<(Self, Task)> {
        FAMILIES.into_iter().find_map(|(family, begins, _)| {
            let task = match architecture.strip_prefix(begins)? {
                "ForCausalLM" | "LMHeadModel" | "ForConditionalGeneration" => Task::Language,
                "ForSequenceClassification" | "TextForSequenceClassification" => Task::Classifier,
                "RewardModel" => Task::Regression,
                _ => return None,
            };
            Some((family, task))
        })
    }

    /// The family of a `general.architecture` in a GGUF file.
    pub(super) fn of_gguf(architecture: &str) -> Option<Self> {
        FAMILIES.into_iter().find(|(_, _, name)| *name == architecture).map(|(family, ..)| family)
    }

    /// The names of all families, for error messages.
    pub(crate) fn supported() -> String {
        let names: Vec<&str> = FAMILIES.iter().map(|(_, begins, _)| *begins).collect();
        let mut gguf: Vec<&str> = FAMILIES.iter().map(|(.., name)| *name).collect();
        gguf.dedup();
        format!(
            "{}, each ForCausalLM or ForSequenceClassification; GGUF: {}",
            names.join(", "),
            gguf.join(", ")
        )
    }

    /// The position of the norms in a layer.
    pub(super) fn norms(self) -> Norms {
        match self {
            Self::Gemma2 | Self::Gemma3 => Norms::Both,
            Self::Olmo2 => Norms::After,
            _ => Norms::Before,
        }
    }

    /// The norm of queries and keys, if there is one.
    pub(super) fn qk_norm(self) -> Option<QkNorm> {
        match self {
            Self::Qwen3 | Self::Gemma3 => Some(QkNorm::Head),
            Self::Olmo2 => Some(QkNorm::All),
            _ => None,
        }
    }

    /// Whether GGUF stores the rows of queries and keys interleaved, `(0, 1), (2, 3)...`, for other families by halves.
    pub(super) fn interleaved(self) -> bool {
        matches!(self, Self::Llama | Self::Mistral | Self::SmolLm3)
    }

    /// Whether norms in `model.safetensors` are stored minus one: the norm multiplies by `1 + weight`.
    pub(super) fn norms_from_one(self) -> bool {
        matches!(self, Self::Gemma2 | Self::Gemma3)
    }

    /// Whether linear layers in `model.safetensors` are stored `[inputs, outputs]`.
    pub(super) fn transposed(self) -> bool {
        self == Self::Gpt2
    }

    /// The name in `model.safetensors` of the tensor that GGUF calls `name`.
    pub(super) fn hf_name(self, name: &str) -> String {
        let (base, suffix) = name.rsplit_once('.').unwrap_or((name, ""));
        let own = match base.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) {
            None => self.outside(base).to_owned(),
            Some((layer, part)) if self == Self::Gpt2 => format!("h.{layer}.{}", gpt2(part)),
            Some((layer, part)) => format!("layers.{layer}.{}", self.inside(part)),
        };
        format!("{own}.{suffix}")
    }

    fn outside(self, name: &str) -> &str {
        match (name, self) {
            ("token_embd", Self::Gpt2) => "wte",
            ("position_embd", _) => "wpe",
            ("output_norm", Self::Gpt2) => "ln_f",
            ("token_embd", _) => "embed_tokens",
            ("output_norm", _) => "norm",
            ("output", _) => "lm_head",
            (other, _) => other,
        }
    }

    fn inside(self, part: &str) -> &str {
        match (part, self) {
            ("attn_norm", _) => "input_layernorm",
            ("attn_q", _) => "self_attn.q_proj",
            ("attn_k", _) => "self_attn.k_proj",
            ("attn_v", _) => "self_attn.v_proj",
            ("attn_qkv", _) => "self_attn.qkv_proj",
            ("attn_q_norm", _) => "self_attn.q_norm",
            ("attn_k_norm", _) => "self_attn.k_norm",
            ("attn_output", _) => "self_attn.o_proj",
            ("post_attention_norm", _) => "post_attention_layernorm",
            ("ffn_norm", Self::Gemma2 | Self::Gemma3) => "pre_feedforward_layernorm",
            ("ffn_norm", _) => "post_attention_layernorm",
            ("ffn_gate", _) => "mlp.gate_proj",
            ("ffn_up", Self::Phi3) => "mlp.gate_up_proj",
            ("ffn_up", _) => "mlp.up_proj",
            ("ffn_down", _) => "mlp.down_proj",
            ("post_ffw_norm", _) => "post_feedforward_layernorm",
            (other, _) => other,
        }
    }
}

fn gpt2(part: &str) -> &str {
    match part {
        "attn_norm" => "ln_1",
        "attn_qkv" => "attn.c_attn",
        "attn_output" => "attn.c_proj",
        "ffn_norm" => "ln_2",
        "ffn_up" => "mlp.c_fc",
        "ffn_down" => "mlp.c_proj",
        other => other,
    }
}
