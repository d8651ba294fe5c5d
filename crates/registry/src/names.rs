//! The parts of a reward's name: `FORMAT:REFERENCE#LABEL`, and combinations of several.

use std::path::Path;

use stackelberg_engine::reward::{Combination, RewardFormat};
use stackelberg_remote::{HttpReward, without_secrets};

use crate::builtin::Builtin;
use crate::error::{Error, Result};

/// Splits `FORMAT:NAME`. For example, `answer:NAME` is the reward NAME that reads the answer only. The text format is part
/// of the name, so that it is the same wherever the reward is used.
pub fn split_format(name: &str) -> (Option<RewardFormat>, &str) {
    match name.split_once(':').map(|(format, rest)| (format.parse(), rest)) {
        Some((Ok(format), rest)) => (Some(format), rest),
        _ => (None, name),
    }
}

/// Splits `REFERENCE#LABEL`.
pub fn split_label(name: &str) -> (&str, Option<&str>) {
    name.split_once('#').map_or((name, None), |(name, label)| (name, Some(label)))
}

/// A reward's name as records and messages show it: without the passwords and keys in the addresses of servers.
pub fn shown(name: &str) -> String {
    let Ok(combination) = parts(name) else { return without_secrets(name) };
    combination.names().iter().fold(name.to_owned(), |text, part| match without_secrets(part) {
        shown if shown == *part => text,
        shown => text.replace(part, &shown),
    })
}

/// Parses a name into its rewards. The name of an existing file is a single reward, even if it has operators in it.
///
/// # Errors
/// The expression is malformed.
pub fn combination(name: &str) -> Result<Combination> {
    parts(name).map_err(|error| Error::Name(without_secrets(&error)))
}

fn parts(name: &str) -> std::result::Result<Combination, String> {
    let bare = split_format(name).1;
    let parsed: std::result::Result<Combination, String> = name.parse();
    let several = parsed.as_ref().is_ok_and(|combination| combination.only().is_none());
    let is_file = Path::new(bare).exists() || !several && Path::new(split_label(bare).0).exists();
    // A comma separates the addresses of servers with one model. In an expression it is within parentheses.
    let is_list = HttpReward::is_address(bare) && bare.contains(',') && !bare.contains(is_operator);
    if is_file || is_list { Ok(Combination::one(name)) } else { parsed }
}

fn is_operator(c: char) -> bool {
    matches!(c, '+' | '*' | '(' | ')' | '"')
}

/// Whether a name can stand for a reward in an expression: letters, digits, `-`, `_` and `.`, and no number.
pub fn is_plain(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !name.is_empty() && name.chars().all(plain) && name.parse::<f64>().is_err()
}

/// Whether a name is neither a built-in reward nor a reference.
pub(crate) fn is_unknown(name: &str) -> bool {
    let name = split_label(name).0;
    Builtin::find(name).is_none() && !Path::new(name).exists() && !name.contains([':', '/', '.'])
}

/// The held-out rewards that share a part with the guide: each one's name, and the shared part, as they are shown.
///
/// # Errors
/// A name is malformed.
pub fn shared(guide: &str, held_out: &[String]) -> Result<Vec<(String, String)>> {
    let guides = combination(guide)?;
    let mut shared = Vec::new();
    for name in held_out {
        let judges = combination(name)?;
        let also_guides =
            |part: &&String| guides.names().iter().any(|g| split_format(g).1 == split_format(part).1);
        shared.extend(judges.names().iter().find(also_guides).map(|part| (shown(name), shown(part))));
    }
    Ok(shared)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Registry;
    use stackelberg_hub::Hub;

    #[test]
    fn names_are_shown_without_secrets() {
        for (name, is_shown) in [
            ("harmless", "harmless"),
            ("hh:http://me:p@h/score", "hh:http://***@h/score"),
            ("a*0.5+http://me:p@h/score?key=k#good * 2", "a*0.5+http://***@h/score?key=***#good * 2"),
            ("\"HTTP://me:p+w@h/score\"*0.5+b", "\"HTTP://***@h/score\"*0.5+b"),
            // This does not parse.
            ("http://me:p*w@h/score", "http://***@h/score"),
        ] {
            assert_eq!(shown(name), is_shown, "{name}");
        }
        let error = combination("http://me:p*w@h/score").unwrap_err().to_string();
        assert!(!error.contains("me:"), "{error}");
    }

    #[test]
    fn a_list_of_servers_is_one_reward() {
        let list = "hh:http://a/classify,http://me:p@b/classify#good";
        assert_eq!(combination(list).unwrap().only(), Some(list));
        assert_eq!(shown(list), "hh:http://a/classify,http://***@b/classify#good");
        let within = format!("min(\"{list}\", harmless)");
        assert_eq!(combination(&within).unwrap().names(), [list, "harmless"]);
        assert_eq!(combination("min(http://a/score,http://b/score)").unwrap().names().len(), 2);
    }

    #[test]
    fn another_key_is_no_other_reward() {
        let registry = Registry::new(Hub::default());
        let hash = |name: &str| registry.reward_hash(name).unwrap();
        assert_eq!(hash("http://a:b@h/score?api_key=1"), hash("http://c:d@h/score?api_key=2"));
        assert_eq!(hash("answer:http://a:b@h/score"), hash("answer:http://c:d@h/score"));
        assert_ne!(hash("http://a:b@h/score?model=m"), hash("http://a:b@h/score?model=n"));
        assert_ne!(hash("http://h/score"), hash("http://i/score"));
        assert_eq!(hash("http://h/score"), stackelberg_data::hash::sha256("http://h/score"));
    }
}
