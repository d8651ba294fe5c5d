//! The dialect of Jinja that chat templates are written in: what transformers provides, in terms of minijinja.

use std::borrow::Cow;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{ValueKind, from_args};
use minijinja::{Environment, Error, ErrorKind, State, Value};
use minijinja_contrib::pycompat::unknown_method_callback;

use super::date::Date;
use super::json;

/// The maximum number of template instructions: a thousand times what the longest conversations need.
const FUEL: u64 = 10_000_000;

/// An environment as that of transformers: block tags take their line with them, and methods of Python are known.
pub(super) fn environment(date: Date) -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    // A template is untrusted code: one that does not terminate is stopped.
    environment.set_fuel(Some(FUEL));
    environment.set_unknown_method_callback(method);
    environment.add_filter("tojson", json::tojson);
    // In Jinja, whatever has a length and items.
    environment.add_test("sequence", |value: &Value| {
        matches!(value.kind(), ValueKind::String | ValueKind::Seq | ValueKind::Map)
    });
    let failed = |what: String| Error::new(ErrorKind::InvalidOperation, what);
    environment
        .add_function("raise_exception", move |said: String| -> Result<String, _> { Err(failed(said)) });
    environment
        .add_function("strftime_now", move |format: String| date.strftime(&format).map_err(failed));
    Ok(environment)
}

/// Methods of strings that minijinja lacks.
fn method(
    state: &mut State<'_, '_>,
    value: &Value,
    method: &str,
    args: &[Value],
) -> Result<Value, Error> {
    let Some(text) = value.as_str() else {
        return unknown_method_callback(state, value, method, args);
    };
    Ok(match method {
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
            let mut left = text.trim_end();
            while !left.is_empty() {
                let cut = left.rfind(char::is_whitespace).filter(|_| parts.len() < most);
                let Some(cut) = cut else {
                    parts.push(left);
                    break;
                };
                let space = left[cut..].chars().next().map_or(1, char::len_utf8);
                parts.push(&left[cut + space..]);
                left = left[..cut].trim_end();
            }
        }
    }
    parts.into_iter().rev().map(Value::from).collect()
}

/// The template in plain Jinja: line ends are normalised, as Jinja does, and the tags `generation` and `endgeneration`,
/// which mark for training what the assistant has written, become blocks that are always rendered.
pub(super) fn plain(source: &str) -> String {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let mut plain = String::with_capacity(source.len());
    let mut left = source.as_str();
    while let Some(at) = left.find("{%").into_iter().chain(left.find("{#")).min() {
        plain.push_str(&left[..at]);
        left = &left[at..];
        let end = if left.starts_with("{#") { "#}" } else { "%}" };
        // A tag may hold its end in a string. What is copied too early is copied none the less.
        let Some(length) = left.find(end).map(|at| at + end.len()) else { break };
        let (tag, rest) = left.split_at(length);
        plain.push_str(&transparent(tag));
        left = rest;
        if name(tag) == "raw"
            && let Some(end) = rest.match_indices("{%").find(|(at, _)| name(&rest[*at..]) == "endraw")
        {
            plain.push_str(&rest[..end.0]);
            left = &rest[end.0..];
        }
    }
    plain + left
}

/// The name of the tag that a text begins with.
fn name(tag: &str) -> &str {
    let inside = tag.strip_prefix("{%").unwrap_or_default();
    let inside = inside.strip_prefix(['-', '+']).unwrap_or(inside).trim_start();
    let end = inside.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(inside.len());
    &inside[..end]
}

/// A tag `generation` as an `if`, which keeps the marks for white space; another tag as it is.
fn transparent(tag: &str) -> Cow<'_, str> {
    let name = name(tag);
    let instead = match name {
        "generation" => "if true",
        "endgeneration" => "endif",
        _ => return tag.into(),
    };
    let around: Vec<&str> = tag.splitn(2, name).collect();
    match around[..] {
        [before, after] if matches!(after.trim_start(), "%}" | "-%}" | "+%}") => {
            format!("{before}{instead}{after}").into()
        }
        _ => tag.into(),
    }
}
