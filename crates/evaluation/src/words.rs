//! Treebank words: the tokenization of NLTK's `word_tokenize(text, preserve_line=True)`, with which the paper counts
//! n-grams.
//!
//! NLTK's rules are a list of substitutions that put spaces around tokens. The result is split at white space. Where
//! NLTK's expressions look ahead, this module examines the neighbouring character instead, so every rule takes linear
//! time. White space and word characters are those of Python.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::{Captures, Regex};

/// A pattern and its replacement.
struct Rule {
    pattern: Regex,
    replacement: &'static str,
}

/// The rules, in the order in which they apply.
struct Rules {
    opening: Vec<Rule>,
    closing: Vec<Rule>,
    single: Regex,
    contractions: Vec<Regex>,
}

static RULES: LazyLock<Rules> = LazyLock::new(|| Rules {
    opening: rules(&[
        ("([«“‘„]|`+)", " $1 "),
        ("^\"", "``"),
        ("(``)", " $1 "),
        ("([ (\\[{<])(\"|'{2})", "$1 `` "),
    ]),
    single: regex("'[\\p{L}\\p{N}_]"),
    closing: rules(&[
        // Punctuation.
        ("([^.])(\\.)([\\])}>\"'»”’ ]*)[\\s\\x1c-\\x1f]*$", "$1 $2 $3 "),
        ("([:,])([^\\d])", " $1 $2"),
        ("([:,])$", " $1 "),
        ("(\\.{2,})", " $1 "),
        ("([;@#$%&])", " $1 "),
        ("([^.])(\\.)([\\])}>\"']*)[\\s\\x1c-\\x1f]*$", "$1 $2$3 "),
        ("([?!])", " $1 "),
        ("([^'])' ", "$1 ' "),
        ("([*])", " $1 "),
        ("([\\]\\[(){}<>])", " $1 "),
        ("--", " -- "),
        // From here on, the text begins and ends with a space, which later rules match.
        ("^((?s).*)$", " $1 "),
        // Closing quotes and clitics.
        ("([»”’])", " $1 "),
        ("''", " '' "),
        ("\"", " '' "),
        ("[\\s\\x1c-\\x1f]+", " "),
        ("([^' ])('[sS]|'[mM]|'[dD]|') ", "$1 $2 "),
        ("([^' ])('ll|'LL|'re|'RE|'ve|'VE|n't|N'T) ", "$1 $2 "),
    ]),
    contractions: [
        "(can)(not)",
        "(d)('ye)",
        "(gim)(me)",
        "(gon)(na)",
        "(got)(ta)",
        "(lem)(me)",
        "(more)('n)",
        "(wan)(na)",
        " ('t)(is)",
        " ('t)(was)",
    ]
    .map(|pattern| regex(&format!("(?i){pattern}")))
    .into(),
});

#[allow(clippy::expect_used, reason = "the patterns are constants, and a test compiles them all")]
fn regex(pattern: &str) -> Regex {
    Regex::new(pattern).expect("a constant pattern")
}

fn rules(rules: &[(&str, &'static str)]) -> Vec<Rule> {
    rules.iter().map(|&(p, replacement)| Rule { pattern: regex(p), replacement }).collect()
}

/// The Treebank words of a text.
///
/// ```
/// let words = stackelberg_evaluation::words::words("Don't stop.");
/// assert_eq!(words, ["Do", "n't", "stop", "."]);
/// ```
pub fn words(text: &str) -> Vec<String> {
    let rules = &*RULES;
    let mut text = Cow::Borrowed(text);
    substitute(&mut text, &rules.opening);
    quote_single(&mut text, &rules.single);
    substitute(&mut text, &rules.closing);
    rules.contractions.iter().for_each(|pattern| contract(&mut text, pattern));
    text.split(is_space).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

fn substitute(text: &mut Cow<'_, str>, rules: &[Rule]) {
    for Rule { pattern, replacement } in rules {
        if let Cow::Owned(new) = pattern.replace_all(text, *replacement) {
            *text = Cow::Owned(new);
        }
    }
}

/// Separates a quote from a word of one letter, unless the two are a clitic such as `'s`.
fn quote_single(text: &mut Cow<'_, str>, pattern: &Regex) {
    let new = pattern.replace_all(text, |found: &Captures<'_>| {
        let (whole, end) = (&found[0], found.get(0).map_or(0, |found| found.end()));
        let letter = whole.chars().next_back().unwrap_or(' ');
        let alone = !text[end..].chars().next().is_some_and(is_letter);
        // Without regard to case, the long s is an s.
        let hangs = "mtsdn\u{17f}".contains(letter.to_lowercase().next().unwrap_or(letter));
        if alone && !hangs { format!("' {letter}") } else { whole.to_owned() }
    });
    if let Cow::Owned(new) = new {
        *text = Cow::Owned(new);
    }
}

/// Splits contractions such as cannot, gonna and 'tis.
fn contract(text: &mut Cow<'_, str>, pattern: &Regex) {
    let new = pattern.replace_all(text, |found: &Captures<'_>| {
        let whole = found.get(0).map_or(0..0, |found| found.range());
        let (before, after) =
            (text[..whole.start].chars().next_back(), text[whole.end..].chars().next());
        let mut parts = found.iter().skip(1).flatten().map(|part| part.as_str());
        let (first, second) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let begins = first.starts_with('\'') || !before.is_some_and(is_letter);
        let ends = match first.eq_ignore_ascii_case("wan") {
            true => after.is_some_and(is_space),
            false => !after.is_some_and(is_letter),
        };
        if begins && ends { format!(" {first} {second} ") } else { found[0].to_owned() }
    });
    if let Cow::Owned(new) = new {
        *text = Cow::Owned(new);
    }
}

/// Whether Python's `\w` matches.
fn is_letter(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Whether Python's `split` splits here.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}
