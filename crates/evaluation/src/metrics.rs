//! Metrics of single answers.

use std::collections::{BTreeMap, HashMap};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use stackelberg_data::generations::Response;
use stackelberg_engine::embedder::Embedder;
use stackelberg_engine::{Message, Prompt};

use crate::error::Result;
use crate::text::{Repetition, cut};
use crate::words::words;

/// The metrics of one answer. The answer is cut where another turn begins ([`cut`]). Unknown values are `None`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// The prompt's id.
    pub id: String,
    /// Rewards by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rewards: BTreeMap<String, f64>,
    /// `100 (1 - distinct 2-grams / (2-grams + 1))`, in percent.
    pub rep_2: f64,
    /// The same for 3-grams, in percent.
    pub rep_3: f64,
    /// The same for 4-grams, in percent.
    pub rep_4: f64,
    /// The product of `1 - rep_n/100` for n = 2, 3, 4, between 0 and 1.
    pub diversity: f64,
    /// The cosine similarity of the sentence embeddings of prompt and answer, between -1 and 1.
    pub coherence: Option<f64>,
    /// The number of Treebank words.
    pub length: usize,
    /// The number of tokens, by the policy's tokenizer.
    pub tokens: Option<usize>,
    /// Tokens per second.
    pub tokens_per_second: Option<f64>,
    /// The KL divergence from the base policy over the candidates, in nats per answer.
    pub kl: Option<f64>,
    /// `-ln` of the base mass of the candidates, summed over the guided steps, in nats.
    #[serde(alias = "outside")]
    pub tail_nll: Option<f64>,
    /// Mean log-probability per token under the base policy, in nats.
    pub log_prob: Option<f64>,
    /// Share of the tokens that are not the base policy's choice.
    pub steered: Option<f64>,
}

/// A metric of an answer. Its string form is its name in tables and files.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, strum::AsRefStr)]
#[strum(serialize_all = "kebab-case")]
pub enum Metric {
    /// A reward, by its name.
    #[strum(transparent)]
    Reward(String),
    /// [`Measured::rep_2`].
    #[strum(serialize = "rep-2")]
    Rep2,
    /// [`Measured::rep_3`].
    #[strum(serialize = "rep-3")]
    Rep3,
    /// [`Measured::rep_4`].
    #[strum(serialize = "rep-4")]
    Rep4,
    /// [`Measured::diversity`].
    Diversity,
    /// [`Measured::coherence`].
    Coherence,
    /// [`Measured::length`].
    #[strum(serialize = "words")]
    Length,
    /// [`Measured::kl`].
    #[strum(serialize = "KL")]
    Kl,
    /// [`Measured::tail_nll`].
    #[strum(serialize = "tail NLL")]
    TailNll,
    /// [`Measured::log_prob`].
    #[strum(serialize = "log p")]
    LogProb,
    /// [`Measured::steered`].
    Steered,
    /// [`Measured::tokens_per_second`].
    #[strum(serialize = "tokens/s")]
    Speed,
}

impl Metric {
    /// All metrics except rewards, in the order of tables.
    pub const TEXT: [Self; 11] = [
        Self::Rep2,
        Self::Rep3,
        Self::Rep4,
        Self::Diversity,
        Self::Coherence,
        Self::Length,
        Self::Kl,
        Self::TailNll,
        Self::LogProb,
        Self::Steered,
        Self::Speed,
    ];

    /// The name of the metric, or of the reward.
    pub fn name(&self) -> &str {
        self.as_ref()
    }

    /// The number of decimals that tables show.
    pub fn digits(&self) -> usize {
        match self {
            Self::Rep2 | Self::Rep3 | Self::Rep4 | Self::Length | Self::Speed => 1,
            Self::Kl | Self::TailNll => 2,
            _ => 3,
        }
    }

    /// 1 if higher values are better, -1 if lower values are, and 0 if neither is the case.
    pub fn better(&self) -> i8 {
        match self {
            Self::Reward(_) | Self::Diversity | Self::Coherence => 1,
            Self::Rep2 | Self::Rep3 | Self::Rep4 => -1,
            _ => 0,
        }
    }

    /// The value for an answer; NaN if it is unknown.
    pub fn of(&self, answer: &Measured) -> f64 {
        let value = match self {
            Self::Reward(name) => answer.rewards.get(name).copied(),
            Self::Rep2 => Some(answer.rep_2),
            Self::Rep3 => Some(answer.rep_3),
            Self::Rep4 => Some(answer.rep_4),
            Self::Diversity => Some(answer.diversity),
            Self::Coherence => answer.coherence,
            Self::Length => Some(answer.length as f64),
            Self::Kl => answer.kl,
            Self::TailNll => answer.tail_nll,
            Self::LogProb => answer.log_prob,
            Self::Steered => answer.steered,
            Self::Speed => answer.tokens_per_second,
        };
        value.unwrap_or(f64::NAN)
    }
}

/// Measures answers: text metrics, the statistics in their lines, and coherence if there is an embedder. It does not
/// compute rewards.
///
/// # Errors
/// The embedder fails.
pub fn measure(responses: &[Response], coherence: Option<&mut Coherence<'_>>) -> Result<Vec<Measured>> {
    let mut measured: Vec<Measured> = responses.par_iter().map(of_text).collect();
    if let Some(coherence) = coherence {
        for (measured, cosine) in measured.iter_mut().zip(coherence.of(responses)?) {
            measured.coherence = Some(cosine);
        }
    }
    Ok(measured)
}

fn of_text(response: &Response) -> Measured {
    let (text, record) = (cut(&response.text), &response.record);
    let Repetition { rep: [rep_2, rep_3, rep_4], diversity } = Repetition::of(text);
    let tokens = record.tokens;
    let per_token = |count: f64| tokens.filter(|&tokens| tokens > 0).map(|tokens| count / tokens as f64);
    Measured {
        id: response.id.clone(),
        rewards: BTreeMap::new(),
        rep_2,
        rep_3,
        rep_4,
        diversity,
        coherence: None,
        length: words(text).len(),
        tokens,
        tokens_per_second: record.elapsed.zip(tokens).map(|(seconds, tokens)| tokens as f64 / seconds),
        kl: record.kl,
        tail_nll: record.tail_nll,
        log_prob: record.mean_log_prob,
        steered: record.steered.and_then(|steered| per_token(steered as f64)),
    }
}

/// Measures coherence. It embeds each prompt once, even if several runs answer it.
pub struct Coherence<'a> {
    embedder: &'a Embedder,
    prompts: HashMap<String, Vec<f32>>,
}

impl<'a> Coherence<'a> {
    /// Measures with this sentence embedder.
    pub fn new(embedder: &'a Embedder) -> Self {
        Self { embedder, prompts: HashMap::new() }
    }

    /// The cosine similarity of each prompt with its answer.
    ///
    /// # Errors
    /// The embedder fails.
    pub fn of(&mut self, responses: &[Response]) -> Result<Vec<f64>> {
        let asked: Vec<String> = responses.iter().map(|r| prompt_text(&r.prompt)).collect();
        let mut new: Vec<&str> = asked.iter().map(String::as_str).collect();
        new.retain(|prompt| !self.prompts.contains_key(*prompt));
        new.sort_unstable();
        new.dedup();
        let embedded = self.embedder.embed(&new)?;
        self.prompts.extend(new.into_iter().map(str::to_owned).zip(embedded));
        let answers: Vec<&str> = responses.iter().map(|r| cut(&r.text)).collect();
        let answers = self.embedder.embed(&answers)?;
        let cosine = |(prompt, answer): (&String, &Vec<f32>)| {
            let prompt = &self.prompts[prompt];
            prompt.iter().zip(answer).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
        };
        Ok(asked.iter().zip(&answers).map(cosine).collect())
    }
}

/// The prompt as one text: for a conversation, the contents of all turns, one per line.
fn prompt_text(prompt: &Prompt) -> String {
    match prompt {
        Prompt::Text(text) => text.clone(),
        Prompt::Messages(turns) => {
            let said: Vec<&str> = turns.iter().map(|Message { content, .. }| content.as_str()).collect();
            said.join("\n")
        }
    }
}
