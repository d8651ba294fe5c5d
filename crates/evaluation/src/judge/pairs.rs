//! What is asked: pairs of answers, and one call per pair and order.

use serde::{Deserialize, Serialize};

use stackelberg_data::generations::{Response, Run};

use super::hash::hash;
use crate::text::cut;

/// Two answers to one prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The id in the first run.
    pub id: String,
    /// What was asked; a conversation as `role: text` paragraphs.
    pub prompt: String,
    /// The first run's answer, as the judge sees it.
    pub a: String,
    /// The second run's.
    pub b: String,
}

impl Pair {
    /// Whether both answers are the same text: a tie that no judge needs to be asked about.
    pub fn identical(&self) -> bool {
        self.a == self.b
    }

    /// Characters of A's answer minus those of B's.
    pub fn longer_by(&self) -> f64 {
        self.a.chars().count() as f64 - self.b.chars().count() as f64
    }
}

/// Which answer the judge is shown first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// A's answer first.
    Ab,
    /// B's answer first.
    Ba,
}

/// One question to the judge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call<'a> {
    /// The pair's id.
    pub id: &'a str,
    /// Which answer comes first.
    pub order: Order,
    /// What was asked.
    pub prompt: &'a str,
    /// The answer shown first.
    pub first: &'a str,
    /// The answer shown second.
    pub second: &'a str,
    /// Names prompt, first and second answer, by their texts.
    pub texts: [String; 3],
}

/// The pairs of two runs; `partners` are those that [`stackelberg_data::generations::pair`] found.
pub fn pairs(first: &Run, second: &Run, partners: &[usize]) -> Vec<Pair> {
    let pair = |(ours, &partner): (&Response, &usize)| Pair {
        id: ours.id.clone(),
        prompt: ours.prompt.readable(),
        a: judged_text(&ours.text).to_owned(),
        b: judged_text(&second.responses[partner].text).to_owned(),
    };
    first.responses.iter().zip(partners).map(pair).collect()
}

/// An answer as far as it is judged: up to where the model begins to speak for its user, as the paper cuts.
pub fn judged_text(text: &str) -> &str {
    cut(text).trim()
}

/// The calls that these pairs take: none for identical answers, else one per order.
pub fn calls<'a>(pairs: &'a [Pair], orders: &[Order]) -> Vec<Call<'a>> {
    let asked = pairs.iter().filter(|pair| !pair.identical());
    asked.flat_map(|pair| orders.iter().map(|&order| Call::new(pair, order))).collect()
}

impl<'a> Call<'a> {
    /// The question about a pair, in one order.
    pub fn new(pair: &'a Pair, order: Order) -> Self {
        let (first, second) = match order {
            Order::Ab => (pair.a.as_str(), pair.b.as_str()),
            Order::Ba => (pair.b.as_str(), pair.a.as_str()),
        };
        let texts = [pair.prompt.as_str(), first, second].map(|text| hash(&[text]));
        Self { id: &pair.id, order, prompt: &pair.prompt, first, second, texts }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_end_where_the_user_is_made_to_speak() {
        assert_eq!(judged_text(" Sure.\n\nHuman: more\n\nAssistant: no"), "Sure.");
        assert_eq!(judged_text("Sure.###Human: x\n\nHuman: y"), "Sure.");
        assert_eq!(judged_text("A Human: is named"), "A Human: is named");
        assert_eq!(judged_text("\n\nHuman: nothing of its own"), "");
    }
}
