//! The built-in rewards. Their weights and cards are in the crate's folder `rewards/`.

/// A built-in reward head.
#[derive(Debug, Clone, Copy)]
pub struct Builtin {
    /// Its name.
    pub name: &'static str,
    /// The model whose hidden states or embeddings it reads.
    pub base: &'static str,
    /// One line on what it prefers.
    pub about: &'static str,
    /// The content of its safetensors file.
    pub bytes: &'static [u8],
    /// Its card (Markdown).
    pub card: &'static str,
}

/// All built-in rewards.
pub const BUILTIN: &[Builtin] = &[
    Builtin {
        name: "harmless",
        base: "smollm2-135m",
        about: "prefers answers that people labelled less harmful (HH-RLHF)",
        bytes: include_bytes!("../rewards/harmless.safetensors"),
        card: include_str!("../rewards/harmless.md"),
    },
    Builtin {
        name: "harmless-judge",
        base: "smollm2-135m",
        about: "like `harmless`, from other pairs, on the same model: a held-out reward",
        bytes: include_bytes!("../rewards/harmless-judge.safetensors"),
        card: include_str!("../rewards/harmless-judge.md"),
    },
    Builtin {
        name: "harmless-minilm",
        base: "all-minilm-l6-v2",
        about: "like `harmless`, from other pairs, on another model: a held-out reward",
        bytes: include_bytes!("../rewards/harmless-minilm.safetensors"),
        card: include_str!("../rewards/harmless-minilm.md"),
    },
    Builtin {
        name: "sentiment",
        base: "smollm2-135m",
        about: "prefers texts that people rated positive (VADER's rated snippets)",
        bytes: include_bytes!("../rewards/sentiment.safetensors"),
        card: include_str!("../rewards/sentiment.md"),
    },
];

impl Builtin {
    /// The built-in reward with this name.
    pub fn find(name: &str) -> Option<&'static Self> {
        BUILTIN.iter().find(|builtin| builtin.name == name)
    }
}
