//! The instruction sets that the kernels are written for, and which one is in use.

use std::sync::OnceLock;

/// An instruction set that the kernels are written for.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, strum::Display, strum::EnumString, strum::IntoStaticStr,
)]
#[strum(serialize_all = "lowercase", ascii_case_insensitive)]
pub enum Variant {
    /// AVX-512 with dot products of bf16 pairs (BF16) and of int8 quadruples (VNNI).
    Avx512Dot,
    /// AVX-512 (F, BW, VL, DQ): 16 lanes.
    Avx512,
    /// AVX2 with FMA and F16C: 8 lanes.
    Avx2,
    /// NEON, on ARM: 4 lanes.
    Neon,
    /// Plain Rust.
    Portable,
}

/// The variant in use. It is set once per process.
static IN_USE: OnceLock<Variant> = OnceLock::new();

/// Why a variant cannot be chosen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChooseError {
    /// There is no variant of this name, or this processor cannot run it.
    #[error(
        "the kernel '{asked}' is not available on this processor: available are {}",
        names(available)
    )]
    Unavailable {
        /// The name that was asked for.
        asked: String,
        /// The variants that this processor can run, best first.
        available: Vec<Variant>,
    },

    /// The kernels have already run with another variant, or another one was chosen before.
    #[error("the kernel cannot be changed to '{asked}': '{in_use}' is already in use")]
    InUse {
        /// The variant that was asked for.
        asked: Variant,
        /// The variant in use.
        in_use: Variant,
    },
}

/// Chooses the variant that all kernels of this process use, by its name (`avx512dot`, `avx512`, `avx2`, `neon`,
/// `portable`; case does not matter). Call it before the first model is loaded. Without a call, the kernels use the
/// best variant that the processor has.
///
/// # Errors
/// The processor has no such variant, or another variant is already in use.
pub fn choose(name: &str) -> Result<(), ChooseError> {
    let available = Variant::available();
    let Some(asked) = name.parse().ok().filter(|asked| available.contains(asked)) else {
        return Err(ChooseError::Unavailable { asked: name.to_owned(), available });
    };
    match *IN_USE.get_or_init(|| asked) {
        in_use if in_use == asked => Ok(()),
        in_use => Err(ChooseError::InUse { asked, in_use }),
    }
}

impl Variant {
    /// The variant in use: the one that [`choose`] set, or else the best that this processor has.
    pub fn detect() -> Self {
        *IN_USE.get_or_init(|| Self::available()[0])
    }

    /// The variant's name in lower case.
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// All variants that this processor can run, best first. The last one is always [`Variant::Portable`].
    pub fn available() -> Vec<Self> {
        let mut available = Vec::new();
        // Each variant needs every feature that one of its kernels enables.
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        {
            let avx2 = is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c");
            let avx512 = avx2
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512dq");
            let dot = is_x86_feature_detected!("avx512bf16") && is_x86_feature_detected!("avx512vnni");
            let found = [(Self::Avx512Dot, avx512 && dot), (Self::Avx512, avx512), (Self::Avx2, avx2)];
            available.extend(found.into_iter().filter(|(_, is)| *is).map(|(variant, _)| variant));
        }
        #[cfg(all(target_arch = "aarch64", not(miri)))]
        available.push(Self::Neon);
        available.push(Self::Portable);
        available
    }
}

fn names(variants: &[Variant]) -> String {
    variants.iter().map(|variant| variant.name()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_in_any_case() {
        for variant in Variant::available() {
            assert_eq!(variant.name().to_uppercase().parse(), Ok(variant));
        }
    }

    #[test]
    fn the_variant_in_use_cannot_be_changed() {
        let in_use = Variant::detect();
        assert_eq!(choose(in_use.name()), Ok(()));
        for asked in Variant::available().into_iter().filter(|asked| *asked != in_use) {
            assert_eq!(choose(asked.name()), Err(ChooseError::InUse { asked, in_use }));
        }
        let error = choose("mmx").unwrap_err().to_string();
        assert!(error.starts_with("the kernel 'mmx' is not available on this processor: "), "{error}");
        assert!(error.ends_with("portable"), "{error}");
    }
}
