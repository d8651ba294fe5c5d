//! The Treebank words of a text, as NLTK's `word_tokenize(text, preserve_line=True)` finds them, which is what the
//! paper counts n-grams of.
//!
//! NLTK's rules are a list of substitutions that put spaces around what stands alone; what is left is split at white
//! space. Where they look ahead, here the neighbour is looked at: every rule is a plain expression of linear time.
//! Python's ideas of white space and of a word's letters are kept.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::{Captures, Regex};

/// A rule and what it puts in place.
struct Rule {
    pattern: Regex,
    replacement: &'static str,
}

/// Rules in the order in which they apply.
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
        // Full stops, commas, marks.
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
        // The text stands between spaces from here on, so that a rule can tell its end.
        ("^((?s).*)$", " $1 "),
        // Quotes that close, and what hangs on a word.
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

/// The words of a text.
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

/// A quote before a word of one letter stands alone, unless the letter is one that hangs on a word.
fn quote_single(text: &mut Cow<'_, str>, pattern: &Regex) {
    let new = pattern.replace_all(text, |found: &Captures<'_>| {
        let (whole, end) = (&found[0], found.get(0).map_or(0, |found| found.end()));
        let letter = whole.chars().next_back().unwrap_or(' ');
        let alone = !text[end..].chars().next().is_some_and(is_letter);
        // The long s counts as an s where case does not count.
        let hangs = "mtsdn\u{17f}".contains(letter.to_lowercase().next().unwrap_or(letter));
        if alone && !hangs { format!("' {letter}") } else { whole.to_owned() }
    });
    if let Cow::Owned(new) = new {
        *text = Cow::Owned(new);
    }
}

/// Takes apart words that are two: cannot, gonna, 'tis.
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

/// What Python's `\w` matches.
fn is_letter(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// What Python's `split` splits at.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}
