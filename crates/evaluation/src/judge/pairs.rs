//! Pairs of answers, and calls: one call per pair and order.

use serde::{Deserialize, Serialize};

use stackelberg_data::generations::{Response, Run};

use super::hash::hash;
use crate::text::cut;

/// Two answers to one prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The id in the first run.
    pub id: String,
    /// The prompt; a conversation is shown as `role: text` paragraphs.
    pub prompt: String,
    /// The first run's answer, as the judge sees it.
    pub a: String,
    /// The second run's answer, as the judge sees it.
    pub b: String,
}

impl Pair {
    /// Whether both answers are the same text. Such a pair is a tie and needs no call.
    pub fn identical(&self) -> bool {
        self.a == self.b
    }

    /// The number of characters of A's answer minus that of B's.
    pub fn longer_by(&self) -> f64 {
        self.a.chars().count() as f64 - self.b.chars().count() as f64
    }
}

/// The order in which the judge sees the answers.
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
    /// The order of the answers.
    pub order: Order,
    /// The prompt.
    pub prompt: &'a str,
    /// The answer shown first.
    pub first: &'a str,
    /// The answer shown second.
    pub second: &'a str,
    /// The hashes of the prompt, the first and the second answer.
    pub texts: [String; 3],
}

/// Pairs two runs. `partners` is the result of [`stackelberg_data::generations::pair`]: for each answer of the first run,
/// the index of its partner in the second.
pub fn pairs(first: &Run, second: &Run, partners: &[usize]) -> Vec<Pair> {
    let pair = |(ours, &partner): (&Response, &usize)| Pair {
        id: ours.id.clone(),
        prompt: ours.prompt.readable(),
        a: judged_text(&ours.text).to_owned(),
        b: judged_text(&second.responses[partner].text).to_owned(),
    };
    first.responses.iter().zip(partners).map(pair).collect()
}

/// The part of an answer that is judged: the text before the next turn of the user, if the model wrote one.
pub fn judged_text(text: &str) -> &str {
    cut(text).trim()
}

/// The calls for these pairs: one per pair and order, and none for identical answers.
pub fn calls<'a>(pairs: &'a [Pair], orders: &[Order]) -> Vec<Call<'a>> {
    let asked = pairs.iter().filter(|pair| !pair.identical());
    asked.flat_map(|pair| orders.iter().map(|&order| Call::new(pair, order))).collect()
}

impl<'a> Call<'a> {
    /// The call about a pair in one order.
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
