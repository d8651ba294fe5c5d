//! What is measured on the text of an answer alone: repetition and diversity.

use std::collections::HashSet;

use crate::words::words;

/// Where a model that plays both parts begins the human's next turn.
const NEXT_TURN: [&str; 2] = ["###Human:", "\n\nHuman:"];

/// The part of an answer that is measured: up to the next turn, if the model wrote one. If nothing is left, one
/// space.
pub fn cut(answer: &str) -> &str {
    let end = NEXT_TURN.iter().filter_map(|turn| answer.find(turn)).min().unwrap_or(answer.len());
    if end == 0 { " " } else { &answer[..end] }
}

/// Repetition of an answer: the paper's rep-2, rep-3, rep-4, in percent, and diversity, between 0 and 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Repetition {
    /// `100 (1 - distinct n-grams / (n-grams + 1))` for n = 2, 3, 4; 100 where there are none.
    pub rep: [f64; 3],
    /// `(1 - rep_2/100) (1 - rep_3/100) (1 - rep_4/100)`.
    pub diversity: f64,
}

impl Repetition {
    /// Of a text, by its Treebank [`words`].
    pub fn of(text: &str) -> Self {
        let words = words(text);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let rep = [2, 3, 4].map(|n| {
            let ngrams = words.windows(n);
            let all = ngrams.len() as f64;
            let distinct = ngrams.collect::<HashSet<_>>().len() as f64;
            100.0 * (1.0 - distinct / (all + 1.0))
        });
        Self { rep, diversity: rep.iter().map(|rep| 1.0 - rep / 100.0).product() }
    }
}
