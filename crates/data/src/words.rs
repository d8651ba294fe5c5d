//! Words of messages: counts with their noun, and commands that can be pasted into a shell.

use std::fmt::Display;

/// A count and its noun, which gets an s unless the count is one: `1 token`, `2 tokens`.
pub fn count(number: impl Display, noun: &str) -> String {
    let number = number.to_string();
    let end = if number == "1" { "" } else { "s" };
    format!("{number} {noun}{end}")
}

/// The beginning of a text on one line, of at most so many characters and an ellipsis.
pub fn beginning(text: &str, characters: usize) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(characters) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// A command line that a POSIX shell reads as these arguments.
pub fn command_line<S: AsRef<str>>(arguments: impl IntoIterator<Item = S>) -> String {
    let quoted: Vec<String> = arguments.into_iter().map(|argument| quote(argument.as_ref())).collect();
    quoted.join(" ")
}

fn quote(argument: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=,@%+".contains(c);
    match !argument.is_empty() && argument.chars().all(plain) {
        true => argument.to_owned(),
        false => format!("'{}'", argument.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_can_be_pasted() {
        let arguments = ["generate", "is polite", "", "it's", "a*0.7+b", "$HOME!", "--out=x.jsonl", "é"];
        let line = command_line(arguments);
        assert_eq!(line, r"generate 'is polite' '' 'it'\''s' 'a*0.7+b' '$HOME!' --out=x.jsonl 'é'");
        let printed = std::process::Command::new("sh")
            .args(["-c", &format!("printf '%s\\n' {line}")])
            .output()
            .unwrap();
        assert_eq!(String::from_utf8(printed.stdout).unwrap().lines().collect::<Vec<_>>(), arguments);
    }

    #[test]
    fn one_is_singular() {
        assert_eq!(count(0, "token"), "0 tokens");
        assert_eq!(count(1, "token"), "1 token");
        assert_eq!(count(2, "token"), "2 tokens");
    }
}
