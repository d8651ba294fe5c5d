//! JSON in chat templates: the filter `tojson` as transformers has it.

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Error, ErrorKind, Value};

/// The filter: `json.dumps` of Python, by default without escapes for other than ASCII characters. Nothing is escaped
/// for HTML.
pub(super) fn tojson(of: &Value, options: Kwargs) -> Result<Value, Error> {
    let indent = match options.get::<Option<Value>>("indent")? {
        None => None,
        Some(indent) if indent.kind() == ValueKind::None => None,
        Some(indent) => Some(match indent.as_str() {
            Some(text) => text.to_owned(),
            None => " ".repeat(usize::try_from(indent)?.min(64)),
        }),
    };
    let ascii = options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false);
    let sorted = options.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    let (mut item, mut key) = (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned());
    if let Some(separators) = options.get::<Option<Value>>("separators")?
        && separators.kind() != ValueKind::None
    {
        (item, key) =
            (separators.get_item_by_index(0)?.to_string(), separators.get_item_by_index(1)?.to_string());
    }
    options.assert_all_used()?;
    let mut writer = Writer { text: String::new(), depth: 0, indent, ascii, sorted, item, key };
    writer.write(of)?;
    Ok(Value::from(writer.text))
}

struct Writer {
    text: String,
    depth: usize,
    indent: Option<String>,
    ascii: bool,
    sorted: bool,
    /// Separators.
    item: String,
    key: String,
}

/// The longest text and the deepest value: a template is untrusted.
const LONGEST: usize = 1 << 24;
const DEEPEST: usize = 100;

impl Writer {
    fn write(&mut self, value: &Value) -> Result<(), Error> {
        if self.text.len() > LONGEST || self.depth > DEEPEST {
            return Err(refused("the value is too large for tojson"));
        }
        match value.kind() {
            ValueKind::None => self.text.push_str("null"),
            ValueKind::Bool => self.text.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.text.push_str(&number(value)),
            ValueKind::String => self.string(value.as_str().unwrap_or_default())?,
            ValueKind::Seq | ValueKind::Iterable => {
                let items: Vec<Value> = value.try_iter()?.collect();
                self.list(['[', ']'], &items, Self::write)?;
            }
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if self.sorted {
                    keys.sort();
                }
                self.list(['{', '}'], &keys, |writer, key| {
                    match key.as_str() {
                        Some(text) => writer.string(text)?,
                        None => {
                            writer.text.push('"');
                            writer.write(key)?;
                            writer.text.push('"');
                        }
                    }
                    writer.text.push_str(&writer.key.clone());
                    writer.write(&value.get_item(key)?)
                })?;
            }
            kind => return Err(refused(&format!("tojson cannot write a value that is {kind}"))),
        }
        Ok(())
    }

    fn list(
        &mut self,
        [open, close]: [char; 2],
        items: &[Value],
        write: impl Fn(&mut Self, &Value) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.text.push(open);
        self.depth += 1;
        for (i, item) in items.iter().enumerate() {
            if i > 0 {
                self.text.push_str(&self.item.clone());
            }
            self.line();
            write(self, item)?;
        }
        self.depth -= 1;
        if !items.is_empty() {
            self.line();
        }
        self.text.push(close);
        Ok(())
    }

    fn line(&mut self) {
        if let Some(indent) = &self.indent {
            self.text.push('\n');
            self.text.push_str(&indent.repeat(self.depth));
        }
    }

    fn string(&mut self, text: &str) -> Result<(), Error> {
        let text = serde_json::to_string(text).map_err(|e| refused(&e.to_string()))?;
        if !self.ascii {
            self.text.push_str(&text);
            return Ok(());
        }
        for c in text.chars() {
            let mut units = [0; 2];
            match c.is_ascii() {
                true => self.text.push(c),
                false => c.encode_utf16(&mut units).iter().for_each(|unit| {
                    self.text.push_str(&format!("\\u{unit:04x}"));
                }),
            }
        }
        Ok(())
    }
}

/// A number as Python writes it. A float has the shortest digits that are read back as the same float.
pub(super) fn number(value: &Value) -> String {
    let float = match value.is_integer() {
        true => None,
        false => f64::try_from(value.clone()).ok(),
    };
    let Some(float) = float else { return value.to_string() };
    if !float.is_finite() {
        let name = if float.is_nan() { "NaN" } else { "Infinity" };
        return format!("{}{name}", if float < 0.0 { "-" } else { "" });
    }
    let digits = format!("{float:e}");
    let (digits, exponent) = digits.split_once('e').unwrap_or((&digits, "0"));
    match exponent.parse::<i32>() {
        Ok(exponent) if !(-4..16).contains(&exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", exponent.abs())
        }
        _ => format!("{float:?}"),
    }
}

fn refused(what: &str) -> Error {
    Error::new(ErrorKind::InvalidOperation, what.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_python_does() {
        for (value, text) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (-2.5, "-2.5"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (-1.25e17, "-1.25e+17"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (1.5e-7, "1.5e-07"),
            (0.1 + 0.2, "0.30000000000000004"),
            (f64::MAX, "1.7976931348623157e+308"),
            (5e-324, "5e-324"),
            (f64::NEG_INFINITY, "-Infinity"),
            (f64::NAN, "NaN"),
        ] {
            assert_eq!(number(&Value::from(value)), text);
        }
        assert_eq!(number(&Value::from(u64::MAX)), "18446744073709551615");
        assert_eq!(number(&Value::from(-7)), "-7");
    }
}
