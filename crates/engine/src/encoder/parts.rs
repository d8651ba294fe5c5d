//! Builds an encoder from its tensors.

use std::ops::Range;

use super::config::{Biases, Config, Family};
use super::linear::{Linear, bias};
use super::model::{Encoder, Layer};
use super::relative::{Distances, Relative};
use crate::error::Result;
use crate::kernel::{Dtype, Norm, Packed};
use crate::model::{Weights, stacked};

/// Builds the encoder with these weights.
///
/// # Errors
/// A tensor is missing or has the wrong shape.
pub(super) fn encoder(weights: &Weights, config: &Config) -> Result<Encoder> {
    let known = ["", "bert.", "roberta.", "electra.", "distilbert.", "deberta.", "model."];
    let names = names(config.family);
    let holds = |prefix: &&str| weights.contains(&format!("{prefix}{}.weight", names.words));
    let prefix = known.into_iter().find(holds).unwrap_or_default();
    Parts { weights, prefix, names, config }.encoder()
}

/// The names of a family's tensors.
struct Names {
    words: &'static str,
    norm: &'static str,
    project: &'static str,
    layers: &'static str,
    /// Three names for queries, keys and values, or one for all.
    qkv: &'static [&'static str],
    output: &'static str,
    attention_norm: &'static str,
    up: &'static str,
    down: &'static str,
    output_norm: &'static str,
}

fn names(family: Family) -> Names {
    let bert = Names {
        words: "embeddings.word_embeddings",
        norm: "embeddings.LayerNorm",
        project: "embeddings_project",
        layers: "encoder.layer",
        qkv: &["attention.self.query", "attention.self.key", "attention.self.value"],
        output: "attention.output.dense",
        attention_norm: "attention.output.LayerNorm",
        up: "intermediate.dense",
        down: "output.dense",
        output_norm: "output.LayerNorm",
    };
    match family {
        Family::Bert => bert,
        Family::Deberta => Names {
            project: "embeddings.embed_proj",
            qkv: &["attention.self.query_proj", "attention.self.key_proj", "attention.self.value_proj"],
            ..bert
        },
        Family::DistilBert => Names {
            layers: "transformer.layer",
            qkv: &["attention.q_lin", "attention.k_lin", "attention.v_lin"],
            output: "attention.out_lin",
            attention_norm: "sa_layer_norm",
            up: "ffn.lin1",
            down: "ffn.lin2",
            output_norm: "output_layer_norm",
            ..bert
        },
        Family::ModernBert => Names {
            words: "embeddings.tok_embeddings",
            norm: "embeddings.norm",
            layers: "layers",
            qkv: &["attn.Wqkv"],
            output: "attn.Wo",
            attention_norm: "attn_norm",
            up: "mlp.Wi",
            down: "mlp.Wo",
            output_norm: "mlp_norm",
            ..bert
        },
    }
}

/// Configuration and tensors of an encoder.
struct Parts<'a> {
    weights: &'a Weights,
    /// Prefix of the names.
    prefix: &'static str,
    names: Names,
    config: &'a Config,
}

impl Parts<'_> {
    fn encoder(&self) -> Result<Encoder> {
        let Self { config, names, .. } = self;
        let Config { family, hidden, embedding, heads, first_position, vocabulary, types, .. } =
            **config;
        let table = |name: &str, n: usize| match n {
            0 => Ok(Vec::new()),
            n => self.table(&format!("embeddings.{name}"), n, embedding),
        };
        let mut positions = table("position_embeddings", config.positions)?;
        positions.drain(..(first_position * embedding).min(positions.len()));
        let mut kinds = table("token_type_embeddings", types)?;
        if first_position > 0 {
            // RoBERTa uses one token type for both texts of a pair, whatever its tokenizer says.
            kinds.truncate(embedding);
        }
        let (deberta, modern) = (family == Family::Deberta, family == Family::ModernBert);
        let project = match embedding == hidden {
            true => None,
            false => Some(self.linear(names.project, hidden, embedding, !deberta)?),
        };
        let pooler = match self.weights.contains(&self.name("pooler.dense.weight")) {
            true => Some(self.linear("pooler.dense", hidden, hidden, true)?),
            false => None,
        };
        let distances = match &config.distances {
            Some(distances) => Some(self.distances(distances)?),
            None => None,
        };
        let layer = |i: usize| self.layer(i, distances.as_deref());
        Ok(Encoder {
            hidden,
            embedding,
            heads,
            context: config.context,
            words: self.table(names.words, vocabulary, embedding)?,
            positions,
            kinds,
            norm: self.norm(names.norm, if deberta { hidden } else { embedding })?,
            project,
            rotary: config.sights.iter().flat_map(|sights| sights.rotary.clone()).collect(),
            distances: config.distances,
            layers: (0..config.layers).map(layer).collect::<Result<_>>()?,
            activation: if modern { None } else { Some(config.activation) },
            last_norm: if modern { Some(self.norm("final_norm", hidden)?) } else { None },
            pooler,
        })
    }

    /// The layer with the index `i`. `distances` is DeBERTa's table of relative positions.
    fn layer(&self, i: usize, distances: Option<&[f32]>) -> Result<Layer> {
        let Self { config, names, .. } = self;
        let Config { hidden, intermediate, biases, ref sights, .. } = **config;
        let part = |name: &str| format!("{}.{i}.{name}", names.layers);
        let local = sights.as_ref().is_some_and(|sights| sights.is_local(i));
        let (mut qkv, mut up) = (self.qkv(&part)?, self.up(&part(names.up))?);
        let [mut attention_norm, mut output_norm] = [None, None];
        if config.family == Family::ModernBert {
            // The first layer has no norm here, because the embeddings have just been normalised.
            if i > 0 {
                qkv.weight = qkv.weight.after_norm(self.norm(&part(names.attention_norm), hidden)?);
            }
            up.weight = up.weight.after_norm(self.norm(&part(names.output_norm), hidden)?);
        } else {
            attention_norm = Some(self.norm(&part(names.attention_norm), hidden)?);
            output_norm = Some(self.norm(&part(names.output_norm), hidden)?);
        }
        Ok(Layer {
            qkv,
            rotary: sights.as_ref().map(|_| usize::from(local)),
            window: sights.as_ref().filter(|_| local).map(|sights| sights.window),
            relative: match (config.distances, distances) {
                (Some(distances), Some(table)) => Some(self.relative(distances, table, &part)?),
                _ => None,
            },
            output: self.linear(&part(names.output), hidden, hidden, biases.attention)?,
            attention_norm,
            up,
            down: self.linear(&part(names.down), hidden, intermediate, biases.feed_forward)?,
            output_norm,
        })
    }

    fn name(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn table(&self, name: &str, n: usize, k: usize) -> Result<Vec<f32>> {
        let matrix = self.weights.matrix(&self.name(&format!("{name}.weight")), n, k)?;
        let mut rows = vec![0.0; n * k];
        matrix.read(0..n, &mut rows)?;
        Ok(rows)
    }

    fn linear(&self, name: &str, n: usize, k: usize, biased: bool) -> Result<Linear> {
        Linear::load(self.weights, &self.name(name), n, k, biased)
    }

    fn qkv(&self, part: &dyn Fn(&str) -> String) -> Result<Linear> {
        let (d, biased) = (self.config.hidden, self.config.biases.attention);
        let (mut parts, mut biases) = (Vec::new(), Vec::new());
        let n = 3 * d / self.names.qkv.len();
        for name in self.names.qkv {
            let name = self.name(&part(name));
            parts.push((self.weights.matrix(&format!("{name}.weight"), n, d)?, n));
            biases.extend(bias(self.weights, &name, n, biased)?);
        }
        let rows = |rows: Range<usize>, to: &mut [f32]| stacked(&parts, rows, to);
        Ok(Linear { weight: Packed::new(3 * d, d, Dtype::F32, rows)?, bias: biases })
    }

    /// The first layer of a feed-forward block. ModernBERT's includes a gate and the activation.
    fn up(&self, name: &str) -> Result<Linear> {
        let Config { family, hidden: d, intermediate: n, activation, biases, .. } = *self.config;
        if family != Family::ModernBert {
            return self.linear(name, n, d, biases.feed_forward);
        }
        let name = self.name(&format!("{name}.weight"));
        let matrix = || self.weights.matrix(&name, n.saturating_mul(2), d);
        let (gate, up) = (matrix()?, matrix()?.from(n));
        let gate = |rows: Range<usize>, to: &mut [f32]| gate.read(rows, to);
        let up = |rows: Range<usize>, to: &mut [f32]| up.read(rows, to);
        let weight = Packed::gated(n, d, Dtype::F32, activation, gate, up)?;
        Ok(Linear { weight, bias: vec![0.0; n] })
    }

    /// The table of relative positions, `[rows][d]`.
    fn distances(&self, distances: &Distances) -> Result<Vec<f32>> {
        let d = self.config.hidden;
        let mut table = self.table("encoder.rel_embeddings", distances.rows(), d)?;
        if distances.norm {
            self.norm("encoder.LayerNorm", d)?.apply(&mut table);
        }
        Ok(table)
    }

    /// The table of relative positions, projected for one layer.
    fn relative(
        &self,
        distances: Distances,
        table: &[f32],
        part: &dyn Fn(&str) -> String,
    ) -> Result<Relative> {
        let Config { hidden: d, heads, .. } = *self.config;
        let [keys, queries] = match distances.shared {
            true => ["key_proj", "query_proj"],
            false => ["pos_key_proj", "pos_query_proj"],
        };
        let read = |name: &str, wanted: bool| -> Result<Option<Vec<f32>>> {
            if !wanted {
                return Ok(None);
            }
            let mut read = Vec::new();
            let layer = self.linear(&part(&format!("attention.self.{name}")), d, d, true)?;
            layer.forward(table, distances.rows(), &mut read);
            Ok(Some(read))
        };
        let (keys, queries) = (read(keys, distances.of_keys)?, read(queries, distances.of_queries)?);
        Relative::new(heads, d / heads, distances.scale(d / heads), keys.as_deref(), queries.as_deref())
    }

    /// A LayerNorm. In old checkpoints, weight and bias are named gamma and beta.
    fn norm(&self, name: &str, width: usize) -> Result<Norm> {
        let name = self.name(name);
        let Biases { norm: biased, .. } = self.config.biases;
        let old = self.weights.contains(&format!("{name}.gamma"));
        let [weight, bias] = if old { ["gamma", "beta"] } else { ["weight", "bias"] };
        let vector = |part: &str| self.weights.vector(&format!("{name}.{part}"), width);
        let bias = if biased { vector(bias)? } else { vec![0.0; width] };
        Ok(Norm::layer(vector(weight)?, bias, self.config.norm_eps))
    }
}
