//! The rewards that are part of the program. Their cards lie beside them, in `rewards/`.

/// A reward head that is part of the program.
#[derive(Debug, Clone, Copy)]
pub struct Builtin {
    /// Its name.
    pub name: &'static str,
    /// The model whose hidden states or embeddings it reads.
    pub base: &'static str,
    /// One line on what it prefers.
    pub about: &'static str,
    /// Its safetensors file.
    pub bytes: &'static [u8],
}

/// All of them.
pub const BUILTIN: &[Builtin] = &[
    Builtin {
        name: "harmless",
        base: "smollm2-135m",
        about: "prefers the answer that people called less harmful (HH-RLHF)",
        bytes: include_bytes!("../rewards/harmless.safetensors"),
    },
    Builtin {
        name: "harmless-judge",
        base: "smollm2-135m",
        about: "the same from other pairs, on the same model: to judge what `harmless` guided",
        bytes: include_bytes!("../rewards/harmless-judge.safetensors"),
    },
    Builtin {
        name: "harmless-minilm",
        base: "all-minilm-l6-v2",
        about: "the same from other pairs, on another model: to judge what `harmless` guided",
        bytes: include_bytes!("../rewards/harmless-minilm.safetensors"),
    },
    Builtin {
        name: "sentiment",
        base: "smollm2-135m",
        about: "prefers what people found positive (VADER's rated snippets)",
        bytes: include_bytes!("../rewards/sentiment.safetensors"),
    },
];

impl Builtin {
    /// The reward of this name.
    pub fn find(name: &str) -> Option<&'static Self> {
        BUILTIN.iter().find(|builtin| builtin.name == name)
    }
}
