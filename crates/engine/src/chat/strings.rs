//! Methods of Python's strings, which chat templates call.

use minijinja::value::from_args;
use minijinja::{Error, ErrorKind, State, Value};
use minijinja_contrib::pycompat::unknown_method_callback;

/// Methods of strings that minijinja lacks, or that Python defines otherwise.
pub(super) fn method(
    state: &mut State<'_, '_>,
    value: &Value,
    method: &str,
    args: &[Value],
) -> Result<Value, Error> {
    let Some(text) = value.as_str() else {
        return unknown_method_callback(state, value, method, args);
    };
    Ok(match method {
        "strip" | "lstrip" | "rstrip" => {
            let (chars,): (Option<&str>,) = from_args(args)?;
            Value::from(match method {
                "strip" => strip(text, chars),
                "lstrip" => text.trim_start_matches(of(chars)),
                _ => text.trim_end_matches(of(chars)),
            })
        }
        "split" if args.first().is_none_or(Value::is_none) => {
            let (_, most): (Option<&Value>, Option<i64>) = from_args(args)?;
            Value::from(split(text, most))
        }
        "splitlines" => {
            let (ends,): (Option<bool>,) = from_args(args)?;
            Value::from(lines(text, ends.unwrap_or(false)))
        }
        "isspace" => {
            let () = from_args(args)?;
            Value::from(!text.is_empty() && text.chars().all(is_space))
        }
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            Value::from(text.strip_prefix(prefix).unwrap_or(text))
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            Value::from(text.strip_suffix(suffix).unwrap_or(text))
        }
        "rsplit" => {
            let (by, most): (Option<&str>, Option<i64>) = from_args(args)?;
            let most = most.and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX - 1);
            Value::from(rsplit(text, by, most))
        }
        "partition" | "rpartition" => {
            let (by,): (&str,) = from_args(args)?;
            let (found, missing) = match method {
                "partition" => (text.split_once(by), [text, "", ""]),
                _ => (text.rsplit_once(by), ["", "", text]),
            };
            let parts = found.map_or(missing, |(before, after)| [before, by, after]);
            Value::from(parts.map(Value::from).to_vec())
        }
        "zfill" => {
            let (width,): (usize,) = from_args(args)?;
            let (sign, digits) = text.split_at(usize::from(text.starts_with(['+', '-'])));
            let zeros = width.min(1 << 10).saturating_sub(text.chars().count());
            Value::from(format!("{sign}{}{digits}", "0".repeat(zeros)))
        }
        "index" => {
            let (what,): (&str,) = from_args(args)?;
            let found = text.find(what).map(|at| text[..at].chars().count());
            let missing =
                || Error::new(ErrorKind::InvalidOperation, format!("index: there is no '{what}'"));
            Value::from(found.ok_or_else(missing)?)
        }
        "casefold" => Value::from(text.to_lowercase()),
        _ => return unknown_method_callback(state, value, method, args),
    })
}

/// `str.rsplit` of Python.
fn rsplit(text: &str, by: Option<&str>, most: usize) -> Vec<Value> {
    let mut parts: Vec<&str> = Vec::new();
    match by.filter(|by| !by.is_empty()) {
        Some(by) => parts.extend(text.rsplitn(most.saturating_add(1), by)),
        None => {
            let mut left = text.trim_end_matches(is_space);
            while !left.is_empty() {
                let cut = left.rfind(is_space).filter(|_| parts.len() < most);
                let Some(cut) = cut else {
                    parts.push(left);
                    break;
                };
                let space = left[cut..].chars().next().map_or(1, char::len_utf8);
                parts.push(&left[cut + space..]);
                left = left[..cut].trim_end_matches(is_space);
            }
        }
    }
    parts.into_iter().rev().map(Value::from).collect()
}

/// Whether Python takes a character for white space. Unlike Unicode, it takes the separators of ASCII, too.
fn is_space(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\x1c'..='\x1f')
}

/// Whether a character is one of these, or white space by default.
fn of(chars: Option<&str>) -> impl Fn(char) -> bool + Copy {
    move |c| chars.map_or_else(|| is_space(c), |chars| chars.contains(c))
}

/// `str.strip` of Python.
pub(super) fn strip<'t>(text: &'t str, chars: Option<&str>) -> &'t str {
    text.trim_start_matches(of(chars)).trim_end_matches(of(chars))
}

/// `str.split` of Python at white space.
fn split(text: &str, most: Option<i64>) -> Vec<Value> {
    let mut most = most.and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX);
    let (mut parts, mut left) = (Vec::new(), text.trim_start_matches(is_space));
    while !left.is_empty() {
        let end = left.find(is_space).filter(|_| most > 0).unwrap_or(left.len());
        most = most.saturating_sub(1);
        parts.push(Value::from(&left[..end]));
        left = left[end..].trim_start_matches(is_space);
    }
    parts
}

/// `str.splitlines` of Python.
fn lines(text: &str, ends: bool) -> Vec<Value> {
    const ENDS: [char; 10] =
        ['\n', '\r', '\x0b', '\x0c', '\x1c', '\x1d', '\x1e', '\u{85}', '\u{2028}', '\u{2029}'];
    let (mut lines, mut left) = (Vec::new(), text);
    while !left.is_empty() {
        let line = left.find(ENDS).unwrap_or(left.len());
        let end = match left[line..].chars().next() {
            Some('\r') if left[line..].starts_with("\r\n") => 2,
            end => end.map_or(0, char::len_utf8),
        };
        lines.push(Value::from(&left[..line + if ends { end } else { 0 }]));
        left = &left[line + end..];
    }
    lines
}
