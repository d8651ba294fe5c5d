//! Reads two scores from a judge's reply.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::Value;

/// The two scores of a reply, first and second answer, each from 1 to 10; decimals are allowed.
///
/// The form asks for a line of two numbers. The function also accepts text before and after that line, markup, a comma
/// between the numbers, "/10" after them, one label per score ("Answer 1: 8") and a JSON object. It ignores the reasoning
/// between `<think>` marks. It rejects all other replies, in particular those with two different pairs of scores.
///
/// ```
/// use stackelberg_evaluation::judge::reply::scores;
/// assert_eq!(scores("8 6.5\nThe first is more helpful."), Ok([8.0, 6.5]));
/// assert!(scores("Both are good.").is_err());
/// ```
///
/// # Errors
/// Why there are no two scores.
pub fn scores(reply: &str) -> Result<[f64; 2], String> {
    let reply = spoken(reply)?;
    if reply.is_empty() {
        return Err("the reply is empty".to_owned());
    }
    let found = match of_json(reply) {
        Some(found) => found,
        None => {
            let mut found: Vec<[f64; 2]> = reply.lines().filter_map(of_line).collect();
            if found.is_empty() {
                found.extend(of_labels(reply)?);
            }
            found.dedup();
            match found[..] {
                [scores] => scores,
                [] => return Err("the reply holds no line of two scores".to_owned()),
                [one, other, ..] => {
                    return Err(format!(
                        "the reply holds more than one pair of scores: {} {}, then {} {}",
                        one[0], one[1], other[0], other[1]
                    ));
                }
            }
        }
    };
    match found.iter().find(|score| !(1.0..=10.0).contains(*score)) {
        Some(score) => Err(format!("the score {score} is not between 1 and 10")),
        None => Ok(found),
    }
}

/// The reply without reasoning and without a code fence around it.
fn spoken(reply: &str) -> Result<&str, String> {
    let mut reply = reply.trim();
    // Some servers omit the opening mark.
    if let Some((_, said)) = reply.rsplit_once("</think>") {
        reply = said.trim();
    } else if reply.starts_with("<think>") {
        return Err("the reply ends inside the judge's reasoning".to_owned());
    }
    if let Some(inner) = reply.strip_prefix("```").and_then(|rest| rest.strip_suffix("```")) {
        reply = inner.trim_start_matches(|c: char| c.is_ascii_alphabetic()).trim();
    }
    Ok(reply)
}

/// An array of two numbers, alone or as "scores", or an object with a number for each answer.
fn of_json(reply: &str) -> Option<[f64; 2]> {
    let pair = |value: &Value| match value.as_array()?.as_slice() {
        [first, second] => Some([first.as_f64()?, second.as_f64()?]),
        _ => None,
    };
    let value: Value = serde_json::from_str(reply).ok()?;
    let Some(map) = value.as_object() else { return pair(&value) };
    let arrays: Vec<_> = map.values().filter_map(pair).collect();
    if let [scores] = arrays[..] {
        return Some(scores);
    }
    let of = |ends: &[&str]| -> Option<f64> {
        let named = |key: &str| {
            let key = key.to_lowercase();
            let words = key.split(|c: char| !c.is_alphanumeric());
            words.into_iter().any(|word| {
                ends.iter().any(|end| word == *end || word.strip_suffix(end).is_some_and(is_noun))
            })
        };
        let mut numbers = map.iter().filter(|(key, _)| named(key)).filter_map(|(_, v)| v.as_f64());
        numbers.next().filter(|_| numbers.next().is_none())
    };
    Some([of(&["1", "a", "first"])?, of(&["2", "b", "second"])?])
}

fn is_noun(word: &str) -> bool {
    ["assistant", "answer", "response", "score"].contains(&word)
}

const NUMBER: &str = r"([0-9]+(?:\.[0-9]+)?)(?:\s*/\s*10)?";

/// A line of two numbers, with an optional label before them that contains no numbers.
fn of_line(line: &str) -> Option<[f64; 2]> {
    static LINE: LazyLock<Option<Regex>> = LazyLock::new(|| {
        let between = r"(?:\s*[,;|&]\s*|\s+(?:and|vs\.?)\s+|\s+)";
        Regex::new(&format!(r"^(?:[^0-9:]*:)?\s*\[?\(?\s*{NUMBER}{between}{NUMBER}\s*\)?\]?\s*\.?$"))
            .ok()
    });
    let bare: String = line.chars().filter(|c| !"*_`#".contains(*c)).collect();
    let found = LINE.as_ref()?.captures(bare.trim())?;
    Some([found[1].parse().ok()?, found[2].parse().ok()?])
}

/// "Answer 1: 8" and "Answer 2: 7", in any order. A repeated label must have the same score.
fn of_labels(reply: &str) -> Result<Option<[f64; 2]>, String> {
    static LABEL: LazyLock<Option<Regex>> = LazyLock::new(|| {
        let noun = r"\b(?:assistant|answer|response|score)";
        let rest = r"(?:'s)?(?:\s+(?:score|rating))?\s*[:=]\s*";
        Regex::new(&format!(r"(?i){noun}[\s_-]*#?([12ab])\b{rest}{NUMBER}([0-9.,/]*)")).ok()
    });
    let Some(label) = LABEL.as_ref() else { return Ok(None) };
    let bare: String = reply.chars().filter(|c| !"*_`#\"".contains(*c)).collect();
    let mut scores = [None, None];
    for found in label.captures_iter(&bare) {
        let side = usize::from(matches!(&found[1], "2" | "b" | "B"));
        // "8/5" and "8.5.1" are no scores. A full stop or comma may follow a score.
        let stray = found[3].trim_end_matches(['.', ',']);
        let (Ok(score), true) = (found[2].parse::<f64>(), stray.is_empty()) else { return Ok(None) };
        if scores[side].is_some_and(|before| before != score) {
            return Err(format!("the reply gives answer {} more than one score", side + 1));
        }
        scores[side] = Some(score);
    }
    Ok(match scores {
        [Some(first), Some(second)] => Some([first, second]),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chatter_is_tolerated() {
        for reply in [
            "8 7",
            "8 7\nBecause the first is better.\n",
            "  8   7  ",
            "8, 7",
            "8.0 7.0",
            "**8 7**",
            "[8, 7]",
            "(8, 7).",
            "8/10 7/10",
            "8 | 7",
            "8 and 7",
            "Scores: 8 7",
            "Sure! Here are my scores:\n\n8 7\n\nAnswer 1 has 3 examples, answer 2 has 1.",
            "8 7\n\nTo repeat:\n8 7",
            "```\n8 7\n```",
            "<think>Maybe 3 4?\n3 4\n</think>\n\n8 7",
            "Maybe 3 4?\n3 4\n</think>\n\n8 7",
            "Assistant 1: 8\nAssistant 2: 7",
            "**Answer 1:** 8/10\n**Answer 2:** 7/10",
            "Answer 2: 7, Answer 1: 8.",
            "Response A: 8\nResponse B: 7",
            "Assistant 1's score: 8. Assistant 2's score: 7.",
            "{\"answer_1\": 8, \"answer_2\": 7}",
            "{\"answer_1\": 8, \"answer_2\": \"7\"}",
            "{\"Answer 2\": 7, \"Answer 1\": 8, \"reason\": \"3 4\"}",
            "{\"assistant1\": 8, \"assistant2\": 7}",
            "{\"scores\": [8, 7], \"why\": \"\"}",
            "```json\n{\"a\": 8, \"b\": 7}\n```",
        ] {
            assert_eq!(scores(reply), Ok([8.0, 7.0]), "{reply}");
        }
        assert_eq!(scores("10 1"), Ok([10.0, 1.0]));
        assert_eq!(scores("8.5 9.25"), Ok([8.5, 9.25]));
    }

    #[test]
    fn garbage_is_no_verdict() {
        for reply in [
            "",
            "   ",
            "8",
            "8 7 6",
            "0 5",
            "11 5",
            "5 10.5",
            "-3 4",
            "8 -7",
            "8-7",
            "8/7",
            "1. 8",
            "1: 8\n2: 7",
            "1 8\n2 7",
            "8 7\n7 8",
            "eight seven",
            "Answer 1 deserves 8 and answer 2 deserves 7",
            "Answer 1: 8",
            "Answer 1: 8\nAnswer 1: 6\nAnswer 2: 7",
            "Answer 1: 8/5\nAnswer 2: 7/5",
            "8,5 7,5",
            "NaN NaN",
            "1e1 5",
            "9999999999999999999999 1",
            "<think>8 7",
            "{\"answer_1\": 8}",
            "{\"error\": \"8 7\"}",
            "I cannot rate these answers.",
            "Both get 8 7 or so",
        ] {
            assert!(scores(reply).is_err(), "{reply}: {:?}", scores(reply));
        }
    }
}
