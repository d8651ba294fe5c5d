//! How weights are kept.

use std::fmt;
use std::str::FromStr;

/// What weights are kept as; sums are always f32.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// 32 bits: exact.
    F32,
    /// bfloat16; the inputs of a layer are rounded to it too.
    #[default]
    Bf16,
    /// Blocks of 32 int8 with a scale (as Q8_0 of GGUF); the inputs of a layer are rounded likewise.
    Int8,
}

impl Dtype {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::F32, Self::Bf16, Self::Int8];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Dtype {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|dtype| dtype.name() == name);
        known.ok_or_else(|| format!("unknown dtype '{name}': known are f32, bf16 and int8"))
    }
}
