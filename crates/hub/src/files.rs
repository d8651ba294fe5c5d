//! The names of a model's files, and of an adapter's (LoRA).

/// The configuration of a model.
pub const CONFIG: &str = "config.json";
/// The weights of a model in one file.
pub const WEIGHTS: &str = "model.safetensors";
/// The index of weights in several files.
pub const INDEX: &str = "model.safetensors.index.json";
/// The tokenizer.
pub const TOKENIZER: &str = "tokenizer.json";
/// The configuration of an adapter.
pub const ADAPTER: &str = "adapter_config.json";
/// The weights of an adapter.
pub const ADAPTER_WEIGHTS: &str = "adapter_model.safetensors";
/// The files of the tokenizer that an adapter may have of its own.
pub const ADAPTER_TOKENIZER: [&str; 5] = [
    TOKENIZER,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
];
