//! The largest counts that settings may have. They are checked before anything is allocated.

/// Sequences decoded in parallel.
pub const BATCH_SIZE: usize = 4096;
/// Candidates per step.
pub const CANDIDATES: usize = 4096;
/// Beams.
pub const BEAMS: usize = 1024;
/// Samples per prompt.
pub const SAMPLES: usize = 100_000;
/// Tokens of a block.
pub const BLOCK: usize = 1_000_000;
/// Texts that blockwise decoding and particles decode together.
pub const CONTINUATIONS: usize = 1024;
/// New tokens of an answer.
pub const NEW_TOKENS: usize = 1_000_000;
/// Standard deviation of perturbed rewards, in reward units.
pub const DEVIATION: f64 = 1e6;
/// Strength, bound and the other settings of a shaping rule. Sums of such rewards and logits are finite.
pub const SHAPING: f64 = 1e9;
/// Tokens of a segment.
pub const SCORE_EVERY: usize = 4096;
