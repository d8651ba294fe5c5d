//! The number formats of weights, and of keys and values, in memory.

use strum::{VariantArray, VariantNames};

/// The number format of weights in memory. Sums are always f32.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    Hash,
    strum::Display,
    strum::EnumString,
    strum::IntoStaticStr,
    strum::VariantArray,
    strum::VariantNames,
)]
#[strum(serialize_all = "lowercase", parse_err_ty = String, parse_err_fn = unknown)]
pub enum Dtype {
    /// 32-bit floating point.
    F32,
    /// bfloat16. The inputs of a layer are rounded to bfloat16 too.
    #[default]
    Bf16,
    /// Blocks of 32 int8 with one scale, as Q8_0 of GGUF. The inputs of a layer are rounded in the same way.
    Int8,
    /// Blocks of 4 bits, as Q4_K of GGUF, or of 5 bits, as Q5_1, where a layer's inputs are not a multiple of 256. Embeddings,
    /// the output layer and half of the down projections are as for [`Dtype::Int8`], and so are layers whose inputs are not a
    /// multiple of 32. Blocks of a GGUF file stay as they are. The inputs of a layer are rounded as for int8.
    Q4,
    /// The blocks of a GGUF file, without loss (see [`Quant`](super::Quant)); blocks of other types are rounded to
    /// [`Dtype::Int8`]. The inputs of such a layer are rounded as for int8. A layer that is not stored in blocks is as
    /// for [`Dtype::Bf16`], and so is every layer on another device than the CPU.
    Native,
}

impl Dtype {
    /// All dtypes.
    pub const ALL: &'static [Self] = <Self as VariantArray>::VARIANTS;

    /// The dtype's name: `f32`, `bf16`, `int8`, `q4` or `native`.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

fn unknown(name: &str) -> String {
    crate::names::unknown("dtype", name, <Dtype as VariantNames>::VARIANTS)
}

/// The number format of cached keys and values on the CPU. Sums are always f32.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    Hash,
    strum::Display,
    strum::EnumString,
    strum::IntoStaticStr,
    strum::VariantArray,
    strum::VariantNames,
)]
#[strum(serialize_all = "lowercase", parse_err_ty = String, parse_err_fn = unknown_kv)]
pub enum KvDtype {
    /// 32-bit floating point.
    #[default]
    F32,
    /// bfloat16, which takes half of the memory.
    Bf16,
}

impl KvDtype {
    /// All formats.
    pub const ALL: &'static [Self] = <Self as VariantArray>::VARIANTS;

    /// The format's name: `f32` or `bf16`.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

fn unknown_kv(name: &str) -> String {
    crate::names::unknown("dtype of keys and values", name, <KvDtype as VariantNames>::VARIANTS)
}
