//! Attention by candle's operations: rows of several sequences, each over its own keys and values.

use std::collections::HashMap;
use std::ops::Range;

use candle_core::{D, Device, Tensor};

use super::linear::Norm;
use crate::error::{Error, Result};
use crate::model::{Config, QkNorm};

/// Rows of a forward pass that belong to one sequence.
pub(super) struct Run {
    pub(super) rows: Range<usize>,
    /// Number of tokens before these rows.
    pub(super) past: usize,
    /// Keys and values of the tokens before, if they are not in `own`.
    pub(super) before: Option<Tensor>,
    /// The tensor that the rows' keys and values are written to, and the slot of the first one.
    pub(super) own: Tensor,
    pub(super) from: usize,
    /// The visible keys, by the window of a layer.
    pub(super) views: HashMap<Option<usize>, View>,
}

/// The keys that are visible to the rows of a run.
pub(super) struct View {
    /// The first key that is visible to any row.
    pub(super) start: usize,
    /// `[rows, keys]`: 0 where a row sees a key, else -∞. `None` if all rows see all keys.
    pub(super) mask: Option<Tensor>,
}

/// One rotation's cosines and sines, `[rows, 1, half]`.
pub(super) type Angles = (Tensor, Tensor);

impl View {
    /// The view of `count` tokens after `past` others. The tokens are consecutive if `reads`, else alternatives.
    pub(super) fn new(
        past: usize,
        count: usize,
        reads: bool,
        window: Option<usize>,
        device: &Device,
    ) -> Result<Self> {
        let first = |place: usize| window.map_or(0, |window| (place + 1).saturating_sub(window));
        let start = first(past);
        if count == 1 {
            return Ok(Self { start, mask: None });
        }
        let sees = |row: usize, key: usize| match reads {
            true => key <= past + row && key >= first(past + row),
            false => key < past || key == past + row,
        };
        let keys = start..past + count;
        let mask = (0..count).flat_map(|row| {
            keys.clone().map(move |key| if sees(row, key) { 0f32 } else { f32::NEG_INFINITY })
        });
        let mask = Tensor::from_vec(mask.collect::<Vec<_>>(), (count, keys.len()), device)?;
        Ok(Self { start, mask: Some(mask) })
    }
}

/// Attention of the layer with the index `number`. `qkv` holds queries, keys and values of all rows side by side; the
/// result is `[rows, heads * dim]`. New keys and values are written where the runs say.
pub(super) fn attend(
    config: &Config,
    qk_norm: Option<&[Norm; 2]>,
    number: usize,
    qkv: &Tensor,
    angles: &[Angles],
    runs: &[Run],
) -> Result<Tensor> {
    let Config { heads, kv_heads, head_dim: dim, .. } = *config;
    let (rows, sight) = (qkv.dim(0)?, config.sight[number]);
    let part = |first: usize, count: usize| qkv.narrow(1, first * dim, count * dim)?.contiguous();
    let (mut q, mut k, v) = (part(0, heads)?, part(heads, kv_heads)?, part(heads + kv_heads, kv_heads)?);
    if let Some([q_norm, k_norm]) = qk_norm {
        let over = |heads: usize| match config.qk_norm {
            Some(QkNorm::All) => (rows, heads * dim),
            _ => (rows * heads, dim),
        };
        q = q_norm.apply(&q.reshape(over(heads))?)?;
        k = k_norm.apply(&k.reshape(over(kv_heads))?)?;
    }
    let (q, k) = (q.reshape((rows, heads, dim))?, k.reshape((rows, kv_heads, dim))?);
    let angles = sight.rotary.map(|rotary| &angles[rotary]);
    let q = (rotate(q, angles)? * f64::from(config.attention_scale))?;
    let kv = Tensor::cat(&[rotate(k, angles)?, v.reshape((rows, kv_heads, dim))?], 1)?;
    let (q, kv) = (q.transpose(0, 1)?.contiguous()?, kv.transpose(0, 1)?.contiguous()?);
    let mut attended = Vec::with_capacity(runs.len());
    for run in runs {
        let Run { rows, past, before, own, from, views } = run;
        let of_run = |all: &Tensor| all.narrow(1, rows.start, rows.len())?.contiguous();
        // [2 kv_heads, slots, dim]
        let in_layer = |slots: &Tensor| slots.narrow(0, number * 2 * kv_heads, 2 * kv_heads);
        let own = in_layer(own)?;
        own.slice_set(&of_run(&kv)?, 1, *from)?;
        let View { start, mask } = &views[&sight.window];
        let seen = match before {
            // The rows' keys follow those of the prefix in the same tensor.
            _ if from == past => vec![own.narrow(1, *start, past - start + rows.len())?],
            Some(before) if past > start => {
                vec![in_layer(before)?.narrow(1, *start, past - start)?, own]
            }
            _ => vec![own],
        };
        attended.push(look_back(config, &of_run(&q)?, &seen, mask.as_ref())?);
    }
    let attended = Tensor::cat(&attended, 1)?; // [heads, rows, dim]
    Ok(attended.transpose(0, 1)?.contiguous()?.reshape((rows, heads * dim))?)
}

/// Attention of queries `[heads, rows, dim]` over the concatenation of some keys and values, each
/// `[2 kv_heads, tokens, dim]`. They are not copied.
fn look_back(config: &Config, q: &Tensor, seen: &[Tensor], mask: Option<&Tensor>) -> Result<Tensor> {
    let (kv_heads, (heads, rows, dim)) = (config.kv_heads, q.dims3()?);
    // All heads of a group are rows of one product.
    let q = q.reshape((kv_heads, heads / kv_heads * rows, dim))?;
    let scores = seen.iter().map(|kv| q.matmul(&kv.narrow(0, 0, kv_heads)?.t()?));
    let scores = Tensor::cat(&scores.collect::<candle_core::Result<Vec<_>>>()?, 2)?;
    let scores = capped(scores, config.attention_cap)?;
    let scores = match mask {
        Some(mask) => scores.reshape((heads, rows, mask.dim(1)?))?.broadcast_add(mask)?,
        None => scores,
    };
    let shares = softmax(&scores)?.reshape((kv_heads, heads / kv_heads * rows, ()))?;
    let (mut sum, mut from) = (None, 0);
    for kv in seen {
        let shares = shares.narrow(2, from, kv.dim(1)?)?.contiguous()?;
        let part = shares.matmul(&kv.narrow(0, kv_heads, kv_heads)?)?;
        from += kv.dim(1)?;
        sum = Some(match sum {
            Some(sum) => (sum + part)?,
            None => part,
        });
    }
    sum.map_or(Err(Error::NoTokens), |sum| Ok(sum.reshape((heads, rows, dim))?))
}

/// Soft-caps scores or logits: `c tanh(x / c)`, if there is a cap `c`.
pub(super) fn capped(x: Tensor, cap: Option<f32>) -> Result<Tensor> {
    let Some(cap) = cap.map(f64::from) else { return Ok(x) };
    Ok(((x / cap)?.tanh()? * cap)?)
}

/// Rotates heads `[rows, heads, dim]` to their positions.
fn rotate(x: Tensor, angles: Option<&Angles>) -> Result<Tensor> {
    let Some((cos, sin)) = angles else { return Ok(x) };
    let (half, dim) = (cos.dim(D::Minus1)?, x.dim(D::Minus1)?);
    let (a, b) = (x.narrow(2, 0, half)?.contiguous()?, x.narrow(2, half, half)?.contiguous()?);
    let first = (a.broadcast_mul(cos)? - b.broadcast_mul(sin)?)?;
    let second = (b.broadcast_mul(cos)? + a.broadcast_mul(sin)?)?;
    let still = x.narrow(2, 2 * half, dim - 2 * half)?;
    let parts = [first, second, still];
    Ok(Tensor::cat(&parts[..if dim == 2 * half { 2 } else { 3 }], 2)?)
}

/// Softmax over the last dimension.
fn softmax(x: &Tensor) -> Result<Tensor> {
    let masses = x.broadcast_sub(&x.max_keepdim(D::Minus1)?)?.exp()?;
    Ok(masses.broadcast_div(&masses.sum_keepdim(D::Minus1)?)?)
}
