//! Text classifiers over an encoder: BERT, RoBERTa, DistilBERT, ELECTRA, DeBERTa, ModernBERT.

use std::path::Path;

use serde_json::Value;

use super::format::{Exchange, RewardFormat};
use super::scorer::TextScorer;
use crate::chat::Prompt;
use crate::encoder::{Embedder, Linear, Pooling, Truncate, bias};
use crate::error::{Error, Result};
use crate::kernel::{Activation, Norm, tanh_all};
use crate::model::{Weights, labels};
use crate::reward::labels::Label;

/// A `*ForSequenceClassification` over an encoder. The reward is the logit of one label or the difference of two logits.
/// Texts that are too long lose their start.
pub struct Classifier {
    embedder: Embedder,
    dense: Option<Dense>,
    output: Linear,
    labels: Vec<String>,
    reward: Label,
    /// The architecture's name in `config.json`.
    architecture: String,
}

/// The first of a head's two layers, with its activation and norm.
struct Dense {
    layer: Linear,
    /// `None` means tanh.
    activation: Option<Activation>,
    norm: Option<Norm>,
}

impl Classifier {
    /// Whether a folder contains a classifier over an encoder.
    pub fn is_in(folder: &Path) -> bool {
        let text = std::fs::read_to_string(folder.join("config.json")).unwrap_or_default();
        let config: Value = serde_json::from_str(&text).unwrap_or_default();
        config["architectures"][0].as_str().and_then(family).is_some()
    }

    /// Loads a folder. `label` is the name of the label whose logit is the reward, or `GOOD-BAD` for the difference of
    /// two logits. For a classifier with one label, it can be left out.
    ///
    /// # Errors
    /// As [`Embedder::load`]; there is no such label, or there are several and none is chosen.
    pub fn load(folder: &Path, label: Option<&str>) -> Result<Self> {
        let path = folder.join("config.json");
        let text = std::fs::read_to_string(&path).map_err(Error::read(&path))?;
        let config: Value = serde_json::from_str(&text).map_err(|e| Error::invalid(&path, e))?;
        let names = labels(&config);
        let reward = Label::of(&names, label).map_err(|what| Error::reward(folder, what))?;
        let weights = Weights::open_hf(folder)?;
        let (embedder, n) = (Embedder::load(folder)?, names.len());
        let d = embedder.width();
        let head = Reader { path: &path, config: &config, weights: &weights, d };
        let (dense, pooling) = head.dense()?;
        let output = match weights.contains("classifier.out_proj.weight") {
            true => "classifier.out_proj",
            false => "classifier",
        };
        let output = Linear::load(&weights, output, n, d, true)?;
        let architecture = config["architectures"][0].as_str().unwrap_or_default().to_owned();
        let embedder = embedder.with_pooling(pooling)?;
        Ok(Self { embedder, dense, output, labels: names, reward, architecture })
    }

    /// Logits of texts, `[texts][labels]`.
    ///
    /// # Errors
    /// The tokenizer fails.
    pub fn logits(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>> {
        Ok(self.head(&self.embedder.pooled(texts, Truncate::Start)?))
    }

    /// The head's logits of pooled hidden states.
    fn head(&self, states: &[Vec<f32>]) -> Vec<Vec<f32>> {
        let (rows, mut inner, mut logits) = (states.len(), states.concat(), Vec::new());
        if let Some(Dense { layer, activation, norm }) = &self.dense {
            let mut y = Vec::new();
            layer.forward(&inner, rows, &mut y);
            match activation {
                Some(activation) => activation.apply(&mut y),
                None => tanh_all(&mut y),
            }
            norm.iter().for_each(|norm| norm.apply(&mut y));
            inner = y;
        }
        self.output.forward(&inner, rows, &mut logits);
        logits.chunks_exact(self.labels.len()).map(<[f32]>::to_vec).collect()
    }
}

impl TextScorer for Classifier {
    fn score(&self, exchanges: &[Exchange<'_>], format: RewardFormat) -> Result<Vec<f64>> {
        let logits = if format == RewardFormat::Pair {
            let pairs: Vec<_> =
                exchanges.iter().map(|exchange| (asked(exchange.prompt), exchange.answer)).collect();
            self.head(&self.embedder.pooled_pairs(&pairs)?)
        } else {
            let texts: Vec<String> =
                exchanges.iter().map(|exchange| format.lay_out(*exchange)).collect();
            self.logits(&texts.iter().map(String::as_str).collect::<Vec<_>>())?
        };
        let logit = |logits: &[f32], label| f64::from(logits[label]);
        Ok(logits.iter().map(|logits| self.reward.value(|label| logit(logits, label))).collect())
    }

    fn formats(&self) -> &[RewardFormat] {
        &[RewardFormat::Raw, RewardFormat::Hh, RewardFormat::Answer, RewardFormat::Pair]
    }

    fn about(&self) -> Vec<(&'static str, String)> {
        let (width, most) = (self.embedder.width(), self.embedder.max_tokens());
        vec![
            ("architecture", self.architecture.clone()),
            ("shape", format!("width {width}, f32")),
            ("context", format!("{most} tokens")),
            ("labels", self.labels.join(", ")),
        ]
    }

    /// The answer alone, because most classifiers are trained on single texts.
    fn usual_format(&self) -> RewardFormat {
        RewardFormat::Answer
    }
}

/// The first text of a pair: a single message as it is, a longer conversation in the layout of HH-RLHF.
fn asked(prompt: &Prompt) -> String {
    match prompt {
        Prompt::Messages(messages) if messages.len() == 1 => messages[0].content.clone(),
        _ => prompt.raw(None),
    }
}

/// The family of a classifier, from the name of its architecture.
fn family(architecture: &str) -> Option<&str> {
    let known = [
        "Bert",
        "Roberta",
        "XLMRoberta",
        "Camembert",
        "DistilBert",
        "Electra",
        "DebertaV2",
        "ModernBert",
    ];
    architecture.strip_suffix("ForSequenceClassification").filter(|family| known.contains(family))
}

/// Loads a head from the weights.
struct Reader<'a> {
    path: &'a Path,
    config: &'a Value,
    weights: &'a Weights,
    d: usize,
}

impl Reader<'_> {
    /// The first of the head's two layers, if it is not the pooler, and the pooling that it needs.
    fn dense(&self) -> Result<(Option<Dense>, Pooling)> {
        let Self { config, weights, d, .. } = *self;
        let dense = |name: &str, activation, norm, biased| -> Result<Option<Dense>> {
            let layer = Linear::load(weights, name, d, d, biased)?;
            Ok(Some(Dense { layer, activation, norm }))
        };
        let found = match config["architectures"][0].as_str().and_then(family) {
            Some("DebertaV2") => {
                dense("pooler.dense", Some(self.activation("pooler_hidden_act")?), None, true)?
            }
            Some("ModernBert") => {
                let flag = |name: &str| config[name].as_bool().unwrap_or(false);
                let eps = config["norm_eps"].as_f64().unwrap_or(1e-5) as f32;
                let weight = weights.vector("head.norm.weight", d)?;
                let norm = Norm::layer(weight, bias(weights, "head.norm", d, flag("norm_bias"))?, eps);
                let activation = self.activation("classifier_activation")?;
                let found = dense("head.dense", Some(activation), Some(norm), flag("classifier_bias"))?;
                let pooling = match &config["classifier_pooling"] {
                    Value::Null => Pooling::Cls,
                    known if *known == "cls" => Pooling::Cls,
                    known if *known == "mean" => Pooling::Mean,
                    other => {
                        let what = format!("classifier_pooling is {other}: known are cls and mean");
                        return Err(Error::invalid(self.path, what));
                    }
                };
                return Ok((found, pooling));
            }
            Some("Electra") => dense("classifier.dense", Some(Activation::Gelu), None, true)?,
            Some("DistilBert") => dense("pre_classifier", Some(Activation::Relu), None, true)?,
            // BERT's dense layer is the pooler.
            Some("Bert") => return Ok((None, Pooling::Pooler)),
            _ => dense("classifier.dense", None, None, true)?,
        };
        Ok((found, Pooling::Cls))
    }

    /// The activation that this field names; gelu if the field is missing.
    fn activation(&self, field: &str) -> Result<Activation> {
        let name = self.config[field].as_str().unwrap_or("gelu");
        Activation::named(name).ok_or_else(|| {
            let what = format!("{field} is '{name}': known are gelu, gelu_new, silu and relu");
            Error::invalid(self.path, what)
        })
    }
}
