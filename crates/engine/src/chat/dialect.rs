//! The dialect of Jinja that chat templates are written in: what transformers provides, in terms of minijinja.

use std::borrow::Cow;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::ValueKind;
use minijinja::{Environment, Error, ErrorKind, State, Value};

use super::date::Date;
use super::{json, strings};

/// The maximum number of template instructions: a thousand times what the longest conversations need.
const FUEL: u64 = 10_000_000;

/// An environment as that of transformers: block tags take their line with them, and methods of Python are known.
pub(super) fn environment(date: Date) -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    // A template is untrusted code: one that does not terminate is stopped.
    environment.set_fuel(Some(FUEL));
    environment.set_unknown_method_callback(strings::method);
    environment.add_filter("tojson", json::tojson);
    environment.add_filter("string", string);
    environment.add_filter("trim", |value: &Value, chars: Option<&str>| {
        let text = if value.is_undefined() { String::new() } else { value.to_string() };
        strings::strip(&text, chars).to_owned()
    });
    environment.set_formatter(|out, state, value| match is_float(value) {
        true => out.write_str(&json::number(value)).map_err(Error::from),
        false => minijinja::escape_formatter(out, state, value),
    });
    // None has no items, unlike what is undefined.
    environment.add_test("iterable", |value: &Value| !value.is_none() && value.try_iter().is_ok());
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

fn is_float(value: &Value) -> bool {
    value.kind() == ValueKind::Number && !value.is_integer()
}

/// The filter `string`, which writes floats as Python does.
fn string(state: &State<'_, '_>, value: &Value) -> Result<Value, Error> {
    match is_float(value) {
        true => Ok(Value::from(json::number(value))),
        false => minijinja::filters::string(state, value),
    }
}

/// The template in plain Jinja: line ends are normalised, as Jinja does, and the tags `generation` and `endgeneration`,
/// which mark for training what the assistant has written, become blocks
/// with a scope of their own.
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

/// A tag `generation` as a `with`, which keeps the marks for white space; another tag as it is.
fn transparent(tag: &str) -> Cow<'_, str> {
    let name = name(tag);
    let instead = match name {
        "generation" => "with",
        "endgeneration" => "endwith",
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
