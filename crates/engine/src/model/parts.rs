//! Puts a model together from its tensors.

use super::config::{Config, QkNorm};
use super::decoder::{Layer, Model, Residual, ScoreHead};
use super::hf::Labels;
use super::weights::{Matrix, Weights, stacked};
use crate::error::{Error, Result};
use crate::kernel::{Attention, Dtype, Layout, Norm, Packed};

/// Where a model's parts come from. Tensors go by the names of GGUF.
pub(super) struct Parts<'a> {
    pub(super) config: &'a Config,
    pub(super) weights: &'a Weights,
    pub(super) dtype: Dtype,
}

impl Parts<'_> {
    pub(super) fn model(&self, labels: Option<Labels>) -> Result<Model> {
        let Self { config, weights, .. } = self;
        let Config { hidden: d, layers, heads, kv_heads, head_dim: dim, vocabulary, .. } = **config;
        let embedding = weights.matrix("token_embd.weight", vocabulary, d)?;
        let embedding = self.packed(&embedding, vocabulary, d)?;
        let positions = match config.learned_positions {
            true => Some(self.rows("position_embd.weight", config.context, d)?),
            false => None,
        };
        let head = match labels.is_none() && !config.tied {
            true => {
                Some(self.packed(&weights.matrix("output.weight", vocabulary, d)?, vocabulary, d)?)
            }
            false => None,
        };
        let score = labels.map(|Labels { names, tensor }| -> Result<ScoreHead> {
            let rows = self.rows(tensor, names.len(), d)?;
            if let Some(at) = rows.iter().position(|x| !x.is_finite()) {
                return Err(Error::reward(weights.path(), format!("{tensor}[{at}] is {}", rows[at])));
            }
            Ok(ScoreHead { names, rows: rows.chunks_exact(d).map(<[f32]>::to_vec).collect() })
        });
        Ok(Model {
            config: (*config).clone(),
            embedding,
            positions,
            layers: (0..layers).map(|i| self.layer(i)).collect::<Result<_>>()?,
            norm: self.norm("output_norm", d)?,
            head,
            score: score.transpose()?,
            attention: Attention {
                heads,
                layout: Layout { layers, kv_heads, dim },
                scale: config.attention_scale,
                cap: config.attention_cap,
                rotary: config.rotary.clone(),
                sight: config.sight.clone(),
            },
        })
    }

    fn layer(&self, i: usize) -> Result<Layer> {
        let Config { hidden: d, intermediate, heads, kv_heads, head_dim: dim, norms, bias, .. } =
            *self.config;
        let name = |part: &str| format!("blk.{i}.{part}");
        let before = |layer: Packed, part: &str| -> Result<Packed> {
            if norms.before() { Ok(layer.after_norm(self.norm(&name(part), d)?)) } else { Ok(layer) }
        };
        let after = |linear: Packed, part: &str| -> Result<Residual> {
            let norm = if norms.after() { Some(self.norm(&name(part), d)?) } else { None };
            Ok(Residual { linear, norm })
        };
        let qkv = before(self.qkv(&name)?, "attn_norm")?;
        let output = self.linear(&name("attn_output"), d, heads * dim, bias.output)?;
        let down = self.linear(&name("ffn_down"), d, intermediate, bias.feed_forward)?;
        Ok(Layer {
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

    /// Queries, keys and values, which some families store as one.
    fn qkv(&self, name: &dyn Fn(&str) -> String) -> Result<Packed> {
        let Config { hidden: d, heads, kv_heads, head_dim: dim, bias, .. } = *self.config;
        let (q, kv, weights) = (heads * dim, kv_heads * dim, self.weights);
        let whole = name("attn_qkv.weight");
        if weights.contains(&whole) {
            return self.linear(&name("attn_qkv"), q + 2 * kv, d, bias.qkv);
        }
        let parts = [
            (weights.rotary(&name("attn_q.weight"), heads, dim, d)?, q),
            (weights.rotary(&name("attn_k.weight"), kv_heads, dim, d)?, kv),
            (weights.linear(&name("attn_v.weight"), kv, d)?, kv),
        ];
        let rows = |rows: std::ops::Range<usize>, to: &mut [f32]| stacked(&parts, d, rows, to);
        let layer = Packed::new(q + 2 * kv, d, self.dtype, rows)?;
        if !bias.qkv {
            return Ok(layer);
        }
        let mut all = weights.rotary_bias(&name("attn_q.bias"), heads, dim)?;
        all.extend(weights.rotary_bias(&name("attn_k.bias"), kv_heads, dim)?);
        all.extend(weights.vector(&name("attn_v.bias"), kv)?);
        Ok(layer.with_bias(all))
    }

    /// What comes before `down`: gate and up, which some families store as one; or `up` alone.
    fn up(&self, name: &dyn Fn(&str) -> String) -> Result<Packed> {
        let Config { hidden: d, intermediate: n, bias, activation, gated, .. } = *self.config;
        if !gated {
            return Ok(self.linear(&name("ffn_up"), n, d, bias.feed_forward)?.then(activation));
        }
        let (gate, up) = (name("ffn_gate.weight"), name("ffn_up.weight"));
        let (gate, up) = match self.weights.contains(&gate) {
            true => (self.weights.linear(&gate, n, d)?, self.weights.linear(&up, n, d)?),
            false => (self.weights.linear(&up, 2 * n, d)?, self.weights.linear(&up, 2 * n, d)?.from(n)),
        };
        Packed::gated(
            n,
            d,
            self.dtype,
            activation,
            |rows, to: &mut [f32]| gate.read(rows, to),
            |rows, to: &mut [f32]| up.read(rows, to),
        )
    }

    fn linear(&self, name: &str, n: usize, k: usize, bias: bool) -> Result<Packed> {
        let layer = self.packed(&self.weights.linear(&format!("{name}.weight"), n, k)?, n, k)?;
        if !bias {
            return Ok(layer);
        }
        Ok(layer.with_bias(self.weights.vector(&format!("{name}.bias"), n)?))
    }

    fn packed(&self, matrix: &Matrix<'_>, n: usize, k: usize) -> Result<Packed> {
        Packed::new(n, k, self.dtype, |rows, to: &mut [f32]| matrix.read(rows, to))
    }

    fn rows(&self, name: &str, n: usize, k: usize) -> Result<Vec<f32>> {
        let matrix = self.weights.matrix(name, n, k)?;
        let mut rows = vec![0.0; n * k];
        matrix.read(0..n, &mut rows)?;
        Ok(rows)
    }

    fn norm(&self, name: &str, n: usize) -> Result<Norm> {
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
