//! Repetition and diversity of a text.

use std::collections::HashSet;

use crate::words::words;

/// Texts that begin the next turn of the user, for models that continue the conversation by themselves.
const NEXT_TURN: [&str; 2] = ["###Human:", "\n\nHuman:"];

/// The part of an answer that is measured: the text before the user's next turn, if the model wrote one. Returns one
/// space if that part is empty.
pub fn cut(answer: &str) -> &str {
    let end = NEXT_TURN.iter().filter_map(|turn| answer.find(turn)).min().unwrap_or(answer.len());
    if end == 0 { " " } else { &answer[..end] }
}

/// Repetition and diversity of an answer, as in the paper.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Repetition {
    /// rep-n in percent, `100 (1 - distinct n-grams / (n-grams + 1))`, for n = 2, 3, 4. A text without n-grams has 100.
    pub rep: [f64; 3],
    /// `(1 - rep_2/100) (1 - rep_3/100) (1 - rep_4/100)`, between 0 and 1.
    pub diversity: f64,
}

impl Repetition {
    /// Measures a text by the n-grams of its Treebank [`words`].
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
