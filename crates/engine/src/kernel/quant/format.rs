//! How quantised weights lie in a panel of 32 outputs.
//!
//! A panel is a row of blocks of 32 inputs. A block has its integers, then its scales. The integers are without a sign
//! and lie in words of 32 bits, `[words][32 outputs]`, where a type of n bits has n words. *Quad* j is the inputs 4j to
//! 4j + 3, one in each byte.
//!
//! - 8 bits: word j is quad j.
//! - 4 bits: word j has quad j in the low halves of its bytes and quad j + 4 in the high halves.
//! - 5 bits: as 4 bits; bit j of the bytes of word 4 is the highest bit of quad j.
//! - 6 bits: as 4 bits; bits 2j and 2j + 1 of the bytes of word 4 are the highest bits of quad j, those of word 5 of
//!   quad j + 4.
//!
//! Types that GGUF stores in blocks of 256 have factors that eight blocks share. They lie before these blocks.

use half::f16;

use crate::kernel::weight::LANES;

/// Inputs per block.
pub(in crate::kernel) const BLOCK: usize = 32;
/// Quads per block.
pub(super) const QUADS: usize = BLOCK / 4;
/// Blocks that share factors.
const GROUP: usize = 8;

/// A type of GGUF blocks that the kernels keep without loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, strum::VariantArray)]
pub enum Quant {
    /// 4 bits, with a scale per 32 weights.
    Q4_0,
    /// 4 bits, with a scale and a minimum per 32 weights.
    Q4_1,
    /// 5 bits, with a scale per 32 weights.
    Q5_0,
    /// 5 bits, with a scale and a minimum per 32 weights.
    Q5_1,
    /// 8 bits, with a scale per 32 weights.
    Q8_0,
    /// 4 bits, with a scale and a minimum of 6 bits per 32 weights, and a factor of both per 256.
    Q4K,
    /// 5 bits, otherwise as Q4K.
    Q5K,
    /// 6 bits, with a scale of 8 bits per 16 weights and its factor per 256.
    Q6K,
}

impl Quant {
    /// All types.
    pub const ALL: &'static [Self] = <Self as strum::VariantArray>::VARIANTS;

    /// Weights in a block of a file.
    pub fn weights(self) -> usize {
        match self {
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 => BLOCK,
            Self::Q4K | Self::Q5K | Self::Q6K => GROUP * BLOCK,
        }
    }

    /// Size of a block of a file in bytes.
    pub fn bytes(self) -> usize {
        match self {
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q8_0 => 34,
            Self::Q4K => 144,
            Self::Q5K => 176,
            Self::Q6K => 210,
        }
    }
}

/// The scales of a block.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Scales {
    /// `[32]` f16.
    One,
    /// Scales `[32]` and minima `[32]`, f16.
    Minimum,
    /// Scales `[32]` and minima `[32]`, u8. Shared factors of scales `[32]` and of minima `[32]`, f16, minima negated.
    Shared,
    /// Scales of the first and the second 16 inputs, each `[32]` i8. Shared factors `[32]`, f16.
    Halves,
}

/// The layout of a type.
pub(super) trait Format {
    /// Bits of an integer.
    const BITS: usize;
    const SCALES: Scales;
    /// Subtracted from the integers.
    const ZERO: i32;

    /// Size of a block's integers in bytes: its scales lie behind them.
    const INTEGERS: usize = 4 * LANES * Self::BITS;
    /// Size of a block in bytes.
    const BYTES: usize = Self::INTEGERS
        + match Self::SCALES {
            Scales::Minimum => 4 * LANES,
            Scales::One | Scales::Shared | Scales::Halves => 2 * LANES,
        };
    /// Size of the shared factors in bytes.
    const FACTORS: usize = match Self::SCALES {
        Scales::One | Scales::Minimum => 0,
        Scales::Shared => 4 * LANES,
        Scales::Halves => 2 * LANES,
    };
    /// Parts of a block that have scales of their own.
    const PARTS: usize = if matches!(Self::SCALES, Scales::Halves) { 2 } else { 1 };

    /// Whether blocks have minima.
    const MINIMUM: bool = matches!(Self::SCALES, Scales::Minimum | Scales::Shared);

    /// Size of a panel of so many blocks in bytes: whole groups, if the type has shared factors.
    fn panel(blocks: usize) -> usize {
        Self::factors(blocks) + blocks % GROUP * Self::BYTES
    }

    /// Where a block begins in its panel.
    #[inline(always)]
    fn at(block: usize) -> usize {
        Self::factors(block) + Self::FACTORS + block % GROUP * Self::BYTES
    }

    /// Where the factors of a block's group begin.
    #[inline(always)]
    fn factors(block: usize) -> usize {
        block / GROUP * (Self::FACTORS + GROUP * Self::BYTES)
    }
}

/// Declares the layout of each type.
macro_rules! layouts {
    ($($name:ident: $bits:literal, $scales:ident, $zero:literal;)*) => { $(
        pub(super) struct $name;
        impl Format for $name {
            const BITS: usize = $bits;
            const SCALES: Scales = Scales::$scales;
            const ZERO: i32 = $zero;
        }
    )* };
}

layouts! {
    Q4_0: 4, One, 8;
    Q4_1: 4, Minimum, 0;
    Q5_0: 5, One, 16;
    Q5_1: 5, Minimum, 0;
    Q8_0: 8, One, 128;
    Q4K: 4, Shared, 0;
    Q5K: 5, Shared, 0;
    Q6K: 6, Halves, 32;
}

/// Evaluates an expression that is generic over the layout `F`, for the layout of a type.
macro_rules! with_format {
    ($quant:expr, $F:ident => $call:expr) => {
        with_format!($quant, $F => $call, Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q4K Q5K Q6K)
    };
    ($quant:expr, $F:ident => $call:expr, $($name:ident)*) => {
        match $quant {
            $($crate::kernel::quant::format::Quant::$name => {
                type $F = $crate::kernel::quant::format::$name;
                $call
            })*
        }
    };
}
pub(super) use with_format;

impl Quant {
    /// Size of a panel of so many blocks of 32 inputs, in bytes.
    pub(super) fn panel(self, blocks: usize) -> usize {
        with_format!(self, F => F::panel(blocks))
    }
}

/// The integers of one output in a block, in the order of the inputs.
#[inline(always)]
pub(super) fn integers<F: Format>(block: &[u8], lane: usize) -> [u8; BLOCK] {
    let mut quads = [[0; 4]; QUADS];
    for (j, quad) in quads.iter_mut().enumerate() {
        let bits = match F::BITS {
            8 => word(block, j, lane),
            bits => {
                let half = word(block, j % 4, lane) >> (j / 4 * 4) & 0x0f0f_0f0f;
                let high = match bits {
                    4 => 0,
                    5 => word(block, 4, lane) >> j & 0x0101_0101,
                    _ => word(block, 4 + j / 4, lane) >> (j % 4 * 2) & 0x0303_0303,
                };
                half | high << 4
            }
        };
        *quad = bits.to_le_bytes();
    }
    let mut all = [0; BLOCK];
    all.copy_from_slice(quads.as_flattened());
    all
}

/// Stores the integers of one output in a block of zeros.
#[inline(always)]
pub(super) fn store<F: Format>(block: &mut [u8], lane: usize, integers: &[u8; BLOCK]) {
    let mut words = [0u32; QUADS];
    for (j, &quad) in integers.as_chunks::<4>().0.iter().enumerate() {
        let quad = u32::from_le_bytes(quad);
        if F::BITS == 8 {
            words[j] = quad;
            continue;
        }
        words[j % 4] |= (quad & 0x0f0f_0f0f) << (j / 4 * 4);
        match F::BITS {
            4 => {}
            5 => words[4] |= (quad >> 4 & 0x0101_0101) << j,
            _ => words[4 + j / 4] |= (quad >> 4 & 0x0303_0303) << (j % 4 * 2),
        }
    }
    for (i, word) in words[..F::BITS].iter().enumerate() {
        let at = (i * LANES + lane) * 4;
        block[at..at + 4].copy_from_slice(&word.to_le_bytes());
    }
}

#[inline(always)]
fn word(block: &[u8], word: usize, lane: usize) -> u32 {
    let at = (word * LANES + lane) * 4;
    u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
}

/// The minimum of weights that have none: adding it changes no number, not even the sign of zero.
const NONE: f32 = -0.0;

/// The weights of one output in a block: `scale * (integer - zero) + minimum`.
pub(super) struct Lane {
    /// Without the zero.
    pub(super) integers: [i32; BLOCK],
    /// Scales of the first and the second half of the block.
    pub(super) scales: [f32; 2],
    pub(super) minimum: f32,
}

impl Lane {
    /// Reads a block of a panel.
    #[inline(always)]
    pub(super) fn of<F: Format>(panel: &[u8], block: usize, lane: usize) -> Self {
        let factors = &panel[F::factors(block)..];
        let block = &panel[F::at(block)..][..F::BYTES];
        let scales = &block[F::INTEGERS..];
        let (scales, minimum) = match F::SCALES {
            Scales::One => ([f16_at(scales, lane); 2], NONE),
            Scales::Minimum => ([f16_at(scales, lane); 2], f16_at(scales, LANES + lane)),
            Scales::Shared => (
                [f16_at(factors, lane) * f32::from(scales[lane]); 2],
                f16_at(factors, LANES + lane) * f32::from(scales[LANES + lane]),
            ),
            Scales::Halves => {
                let factor = f16_at(factors, lane);
                ([0, LANES].map(|half| factor * f32::from(scales[half + lane] as i8)), NONE)
            }
        };
        let integers = integers::<F>(block, lane).map(|integer| i32::from(integer) - F::ZERO);
        Self { integers, scales, minimum }
    }

    /// The weights as numbers. Products are exact, and the sum is rounded once.
    #[inline(always)]
    pub(super) fn numbers(&self) -> [f32; BLOCK] {
        std::array::from_fn(|i| self.scales[i / (BLOCK / 2)] * self.integers[i] as f32 + self.minimum)
    }
}

#[inline(always)]
fn f16_at(bytes: &[u8], i: usize) -> f32 {
    f16::from_le_bytes([bytes[2 * i], bytes[2 * i + 1]]).to_f32()
}
