//! An encoder that classifies texts: BERT, RoBERTa, DistilBERT, ELECTRA.

use std::path::Path;

use serde_json::Value;

use super::{Exchange, RewardFormat, TextScorer};
use crate::embedder::{Embedder, Linear, Pooling, Truncate};
use crate::error::{Error, Result};
use crate::kernel::{Activation, tanh_all};
use crate::model::{Weights, labels};
use crate::reward::labels::Label;

/// `*ForSequenceClassification` over an encoder. Its reward is the logit of one label, or the difference of
/// two; of a text that is too long the end is read.
pub struct Classifier {
    embedder: Embedder,
    dense: Option<(Linear, Between)>,
    output: Linear,
    labels: usize,
    reward: Label,
}

/// What lies between the two layers of a head.
#[derive(Clone, Copy)]
enum Between {
    Tanh,
    Of(Activation),
}

impl Classifier {
    /// Whether a folder holds one.
    pub fn is_in(folder: &Path) -> bool {
        let text = std::fs::read_to_string(folder.join("config.json")).unwrap_or_default();
        let config: Value = serde_json::from_str(&text).unwrap_or_default();
        let family = ["Bert", "Roberta", "XLMRoberta", "Camembert", "DistilBert", "Electra"];
        let name = config["architectures"][0].as_str().unwrap_or_default();
        name.strip_suffix("ForSequenceClassification").is_some_and(|name| family.contains(&name))
    }

    /// Loads a folder. `label` names the label that is the reward, or two as `GOOD-BAD`, whose difference is; a
    /// classifier with one label needs none.
    ///
    /// # Errors
    /// As [`Embedder::load`]; several labels and none chosen, or one that is not there.
    pub fn load(folder: &Path, label: Option<&str>) -> Result<Self> {
        let path = folder.join("config.json");
        let text = std::fs::read_to_string(&path).map_err(Error::read(&path))?;
        let config: Value = serde_json::from_str(&text).map_err(|e| Error::invalid(&path, e))?;
        let names = labels(&config);
        let reward = Label::of(&names, label).map_err(|what| Error::reward(folder, what))?;
        let weights = Weights::open_hf(folder)?;
        let (embedder, n) = (Embedder::load(folder)?, names.len());
        let d = embedder.width();
        let (dense, output) = if weights.contains("classifier.dense.weight") {
            let electra = config["model_type"] == "electra";
            let between = if electra { Between::Of(Activation::Gelu) } else { Between::Tanh };
            (Some(("classifier.dense", between)), "classifier.out_proj")
        } else if weights.contains("pre_classifier.weight") {
            (Some(("pre_classifier", Between::Of(Activation::Relu))), "classifier")
        } else {
            (None, "classifier")
        };
        // BERT's dense layer is its pooler.
        let pooling = if dense.is_some() { Pooling::Cls } else { Pooling::Pooler };
        let dense = match dense {
            Some((name, between)) => Some((Linear::load(&weights, name, d, d)?, between)),
            None => None,
        };
        let output = Linear::load(&weights, output, n, d)?;
        Ok(Self { embedder: embedder.with_pooling(pooling)?, dense, output, labels: n, reward })
    }

    /// Logits of texts, `[texts][labels]`.
    ///
    /// # Errors
    /// The tokenizer fails.
    pub fn logits(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>> {
        let states = self.embedder.pooled(texts, Truncate::Start)?.concat();
        let rows = texts.len();
        let (mut inner, mut logits) = (states, Vec::new());
        if let Some((dense, between)) = &self.dense {
            let mut y = Vec::new();
            dense.forward(&inner, rows, &mut y);
            match between {
                Between::Tanh => tanh_all(&mut y),
                Between::Of(activation) => activation.apply(&mut y),
            }
            inner = y;
        }
        self.output.forward(&inner, rows, &mut logits);
        Ok(logits.chunks_exact(self.labels).map(<[f32]>::to_vec).collect())
    }
}

impl TextScorer for Classifier {
    fn score(&self, exchanges: &[Exchange<'_>], format: RewardFormat) -> Result<Vec<f64>> {
        let texts: Vec<String> = exchanges.iter().map(|exchange| format.lay_out(*exchange)).collect();
        let logits = self.logits(&texts.iter().map(String::as_str).collect::<Vec<_>>())?;
        let logit = |logits: &[f32], label| f64::from(logits[label]);
        Ok(logits.iter().map(|logits| self.reward.value(|label| logit(logits, label))).collect())
    }

    /// The answer alone: most classifiers learned from single texts.
    fn usual_format(&self) -> RewardFormat {
        RewardFormat::Answer
    }
}
