//! The layers of a decoder among the tensors of a checkpoint, for both ways to run it. Shapes are checked against the
//! configuration, and the weights can be read a few rows at a time.

use std::ops::Range;

use super::config::{Config, QkNorm};
use super::hf::Labels;
use super::matrix::{Matrix, stacked, stacked_blocks, stacked_quant};
use super::score::ScoreHead;
use super::weights::Weights;
use crate::error::{Error, Result};
use crate::kernel::{Norm, Quant};

/// Configuration and tensors of a model. Tensors are requested by the names of GGUF.
pub(super) struct Parts<'a> {
    pub(super) config: &'a Config,
    pub(super) weights: &'a Weights,
}

/// A linear layer as it is stored: stacked matrices, each with its number of rows.
pub(super) struct Stored<'a> {
    pub(super) matrices: Vec<(Matrix<'a>, usize)>,
    pub(super) inputs: usize,
    pub(super) bias: Option<Vec<f32>>,
}

impl Stored<'_> {
    pub(super) fn outputs(&self) -> usize {
        self.matrices.iter().map(|(_, rows)| rows).sum()
    }

    /// Reads some rows, `[rows, inputs]`.
    pub(super) fn read(&self, rows: Range<usize>, to: &mut [f32]) -> Result<()> {
        stacked(&self.matrices, rows, to)
    }

    /// The type of these rows' blocks, if all of them have the same type.
    pub(super) fn quant(&self, rows: Range<usize>) -> Option<Quant> {
        stacked_quant(&self.matrices, &rows)
    }

    /// Reads the blocks of some rows, which all have the same type.
    pub(super) fn blocks(&self, rows: Range<usize>, to: &mut [u8]) -> Result<()> {
        stacked_blocks(&self.matrices, rows, to)
    }

    /// Whether a matrix is stored in blocks.
    pub(super) fn is_quantised(&self) -> bool {
        self.matrices.iter().any(|(matrix, _)| matrix.is_quantised())
    }
}

/// A linear layer and the norms around it.
pub(super) struct Normed<'a> {
    pub(super) before: Option<Norm>,
    pub(super) linear: Stored<'a>,
    pub(super) after: Option<Norm>,
}

/// One layer of a decoder.
pub(super) struct LayerParts<'a> {
    /// Rows of queries, keys and values.
    pub(super) qkv: Normed<'a>,
    pub(super) qk_norm: Option<[Norm; 2]>,
    pub(super) output: Normed<'a>,
    /// Rows of the gate, if there is one, then of the up projection.
    pub(super) up: Normed<'a>,
    pub(super) down: Normed<'a>,
}

impl<'a> Parts<'a> {
    pub(super) fn embedding(&self) -> Result<Stored<'a>> {
        self.table("token_embd.weight")
    }

    /// Learned position embeddings, `[context][d]`, if the model has them.
    pub(super) fn positions(&self) -> Result<Option<Vec<f32>>> {
        let Config { learned_positions, context, hidden, .. } = *self.config;
        learned_positions.then(|| self.rows("position_embd.weight", context, hidden)).transpose()
    }

    /// The output layer of a model in which it is not the embedding table.
    pub(super) fn head(&self) -> Result<Stored<'a>> {
        self.table("output.weight")
    }

    fn table(&self, name: &str) -> Result<Stored<'a>> {
        let Config { vocabulary: n, hidden: inputs, .. } = *self.config;
        let matrices = vec![(self.weights.matrix(name, n, inputs)?, n)];
        Ok(Stored { matrices, inputs, bias: None })
    }

    pub(super) fn score(&self, Labels { names, tensor }: Labels) -> Result<ScoreHead> {
        let d = self.config.hidden;
        let rows = self.rows(tensor, names.len(), d)?;
        if let Some(at) = rows.iter().position(|x| !x.is_finite()) {
            return Err(Error::reward(self.weights.path(), format!("{tensor}[{at}] is {}", rows[at])));
        }
        Ok(ScoreHead { names, rows: rows.chunks_exact(d).map(<[f32]>::to_vec).collect() })
    }

    pub(super) fn layer(&self, i: usize) -> Result<LayerParts<'a>> {
        let Config { hidden: d, intermediate, heads, kv_heads, head_dim: dim, norms, bias, .. } =
            *self.config;
        let name = |part: &str| format!("blk.{i}.{part}");
        let norm = |stands: bool, part: &str| -> Result<Option<Norm>> {
            stands.then(|| self.norm(&name(part), d)).transpose()
        };
        let before = |linear: Stored<'a>, part: &str| -> Result<Normed<'a>> {
            Ok(Normed { before: norm(norms.before(), part)?, linear, after: None })
        };
        let after = |linear: Stored<'a>, part: &str| -> Result<Normed<'a>> {
            Ok(Normed { before: None, linear, after: norm(norms.after(), part)? })
        };
        let qkv = before(self.qkv(&name)?, "attn_norm")?;
        let output = self.linear(&name("attn_output"), d, heads * dim, bias.output)?;
        let down = self.linear(&name("ffn_down"), d, intermediate, bias.feed_forward)?;
        Ok(LayerParts {
            qkv,
            qk_norm: match self.config.qk_norm {
                Some(over) => {
                    let (q, k) = match over {
                        QkNorm::Head => (dim, dim),
                        QkNorm::All => (heads * dim, kv_heads * dim),
                    };
                    Some([self.norm(&name("attn_q_norm"), q)?, self.norm(&name("attn_k_norm"), k)?])
                }
                None => None,
            },
            output: after(output, "post_attention_norm")?,
            up: before(self.up(&name)?, "ffn_norm")?,
            down: after(down, "post_ffw_norm")?,
        })
    }

    /// Queries, keys and values. Some families store them as one matrix.
    fn qkv(&self, name: &dyn Fn(&str) -> String) -> Result<Stored<'a>> {
        let Config { hidden: d, heads, kv_heads, head_dim: dim, bias, .. } = *self.config;
        let (q, kv, weights) = (heads * dim, kv_heads * dim, self.weights);
        if weights.contains(&name("attn_qkv.weight")) {
            return self.linear(&name("attn_qkv"), q + 2 * kv, d, bias.qkv);
        }
        let matrices = vec![
            (weights.rotary(&name("attn_q.weight"), heads, dim, d)?, q),
            (weights.rotary(&name("attn_k.weight"), kv_heads, dim, d)?, kv),
            (weights.linear(&name("attn_v.weight"), kv, d)?, kv),
        ];
        if !bias.qkv {
            return Ok(Stored { matrices, inputs: d, bias: None });
        }
        let mut all = weights.rotary_bias(&name("attn_q.bias"), heads, dim)?;
        all.extend(weights.rotary_bias(&name("attn_k.bias"), kv_heads, dim)?);
        all.extend(weights.vector(&name("attn_v.bias"), kv)?);
        Ok(Stored { matrices, inputs: d, bias: Some(all) })
    }

    /// The gate and the up projection, which some families store as one matrix; or the up projection alone.
    fn up(&self, name: &dyn Fn(&str) -> String) -> Result<Stored<'a>> {
        let Config { hidden: d, intermediate: n, bias, gated, .. } = *self.config;
        if !gated {
            return self.linear(&name("ffn_up"), n, d, bias.feed_forward);
        }
        let (gate, up) = (name("ffn_gate.weight"), name("ffn_up.weight"));
        let (gate, up) = match self.weights.contains(&gate) {
            true => (self.weights.linear(&gate, n, d)?, self.weights.linear(&up, n, d)?),
            false => (self.weights.linear(&up, 2 * n, d)?, self.weights.linear(&up, 2 * n, d)?.from(n)),
        };
        Ok(Stored { matrices: vec![(gate, n), (up, n)], inputs: d, bias: None })
    }

    fn linear(&self, name: &str, n: usize, inputs: usize, bias: bool) -> Result<Stored<'a>> {
        let matrices = vec![(self.weights.linear(&format!("{name}.weight"), n, inputs)?, n)];
        let bias = bias.then(|| self.weights.vector(&format!("{name}.bias"), n)).transpose()?;
        Ok(Stored { matrices, inputs, bias })
    }

    fn rows(&self, name: &str, n: usize, k: usize) -> Result<Vec<f32>> {
        let matrix = self.weights.matrix(name, n, k)?;
        let mut rows = vec![0.0; n * k];
        matrix.read(0..n, &mut rows)?;
        Ok(rows)
    }

    pub(super) fn norm(&self, name: &str, n: usize) -> Result<Norm> {
        let weight = self.weights.norm(&format!("{name}.weight"), n)?;
        Ok(match self.config.layer_norm {
            true => Norm::layer(
                weight,
                self.weights.vector(&format!("{name}.bias"), n)?,
                self.config.norm_eps,
            ),
            false => Norm::rms(weight, self.config.norm_eps),
        })
    }
}
