//! What is measured of every answer.

use std::collections::{BTreeMap, HashMap};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use stackelberg_engine::embedder::Embedder;
use stackelberg_engine::{Message, Prompt};

use crate::error::Result;
use crate::text::{Repetition, cut};
use crate::words::words;
use stackelberg_data::generations::Response;

/// All that is measured of one answer, after it was cut where a next turn begins ([`cut`]). What is not known is `None`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// The prompt's id.
    pub id: String,
    /// Rewards by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rewards: BTreeMap<String, f64>,
    /// `100 (1 - distinct 2-grams / (2-grams + 1))`, in percent.
    pub rep_2: f64,
    /// The same of 3-grams.
    pub rep_3: f64,
    /// The same of 4-grams.
    pub rep_4: f64,
    /// Product of `1 - rep_n/100`, between 0 and 1.
    pub diversity: f64,
    /// Cosine of the sentence embeddings of prompt and answer.
    pub coherence: Option<f64>,
    /// Treebank words.
    pub length: usize,
    /// Tokens, as the policy counted them.
    pub tokens: Option<usize>,
    /// Tokens per second.
    pub tokens_per_second: Option<f64>,
    /// KL from the base policy over the candidates, in nats.
    pub kl: Option<f64>,
    /// `-ln` of the base mass of the candidates, summed over the guided steps, in nats.
    #[serde(alias = "outside")]
    pub tail_nll: Option<f64>,
    /// Mean log-probability per token under the base policy, in nats.
    pub log_prob: Option<f64>,
    /// Share of the tokens that are not the base policy's choice.
    pub steered: Option<f64>,
}

/// A number of an answer by the name that tables and files call it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Metric {
    /// A reward.
    Reward(String),
    /// rep-2.
    Rep2,
    /// rep-3.
    Rep3,
    /// rep-4.
    Rep4,
    /// Diversity.
    Diversity,
    /// Coherence.
    Coherence,
    /// Treebank words.
    Length,
    /// KL over the candidates, nats per answer.
    Kl,
    /// Tail NLL: `-ln` of the base mass of the candidates, summed over the steps, nats per answer.
    TailNll,
    /// Mean base log-probability per token, nats.
    LogProb,
    /// Share of tokens steered.
    Steered,
    /// Tokens per second.
    Speed,
}

impl Metric {
    /// All but the rewards, in the order of tables.
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

    /// Its name.
    pub fn name(&self) -> &str {
        match self {
            Self::Reward(name) => name,
            Self::Rep2 => "rep-2",
            Self::Rep3 => "rep-3",
            Self::Rep4 => "rep-4",
            Self::Diversity => "diversity",
            Self::Coherence => "coherence",
            Self::Length => "words",
            Self::Kl => "KL",
            Self::TailNll => "tail NLL",
            Self::LogProb => "log p",
            Self::Steered => "steered",
            Self::Speed => "tokens/s",
        }
    }

    /// Digits behind the point that mean something.
    pub fn digits(&self) -> usize {
        match self {
            Self::Rep2 | Self::Rep3 | Self::Rep4 | Self::Length | Self::Speed => 1,
            Self::Kl | Self::TailNll => 2,
            _ => 3,
        }
    }

    /// Whether more is better (1), less is (-1), or neither can be said (0).
    pub fn better(&self) -> i8 {
        match self {
            Self::Reward(_) | Self::Diversity | Self::Coherence => 1,
            Self::Rep2 | Self::Rep3 | Self::Rep4 => -1,
            _ => 0,
        }
    }

    /// Its value for an answer; what is not known is not a number.
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

/// Measures answers: text metrics, what their lines say, and coherence where there is an embedder. Rewards are left to
/// whoever has them.
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

/// Cosines of prompts and answers; prompts are embedded once, however many runs answer them.
pub struct Coherence<'a> {
    embedder: &'a Embedder,
    prompts: HashMap<String, Vec<f32>>,
}

impl<'a> Coherence<'a> {
    /// By this embedder.
    pub fn new(embedder: &'a Embedder) -> Self {
        Self { embedder, prompts: HashMap::new() }
    }

    /// Cosine of each prompt and its answer.
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

/// What was asked, as one text: of a conversation all turns, one a line, as they were said.
fn prompt_text(prompt: &Prompt) -> String {
    match prompt {
        Prompt::Text(text) => text.clone(),
        Prompt::Messages(turns) => {
            let said: Vec<&str> = turns.iter().map(|Message { content, .. }| content.as_str()).collect();
            said.join("\n")
        }
    }
}
