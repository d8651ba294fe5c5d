//! The HTML page: one file with its style, its script and all data. Its content security policy forbids other resources.

use std::io::{self, Write};

use base64::prelude::{BASE64_STANDARD, Engine};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, Serializer};
use sha2::{Digest, Sha256};

use super::check::check;
use super::{Chart, Histogram, Matrix, Report, Table};
use crate::error::{Error, Result};

const STYLE: &str = concat!(
    include_str!("page/page.css"),
    include_str!("page/tables.css"),
    include_str!("page/figures.css"),
    include_str!("page/browser.css"),
    include_str!("page/print.css")
);

const SCRIPT: &str = concat!(
    include_str!("page/base.js"),
    include_str!("page/tables.js"),
    include_str!("page/plot.js"),
    include_str!("page/charts.js"),
    include_str!("page/figures.js"),
    include_str!("page/prompts.js"),
    include_str!("page/answers.js"),
    include_str!("page/trace.js"),
    include_str!("page/page.js")
);

/// The data that is drawn first, as plain JSON with all digits.
#[derive(Serialize)]
struct Head<'a> {
    title: &'a str,
    about: &'a str,
    opening: &'a [String],
    findings: &'a [String],
    facts: &'a [(String, String)],
    tables: &'a [Table],
    charts: &'a [Chart],
    matrices: &'a [Matrix],
    histograms: &'a [Histogram],
    methods: &'a [String],
    rewards: &'a [String],
    /// The number of prompts in the compressed part.
    questions: usize,
}

/// Writes the report as one self-contained HTML file. Its content security policy forbids network access, so texts of
/// models cannot load anything.
///
/// The file holds tables, charts, matrices and histograms as JSON with all digits. It holds the prompts with their
/// answers as one gzipped block and each trace as another, with numbers rounded to four significant digits; the browser
/// unpacks them after it has drawn the rest. 1,000 prompts with 12 answers of 128 tokens take about 5 MB, and the trace
/// of an answer of 128 tokens with 10 candidates takes about 20 KB, so a page can hold a few hundred traces.
///
/// # Errors
/// The parts of the report are inconsistent: for example, a row has more cells than there are columns, or an answer
/// refers to a trace that does not exist.
pub fn page(report: &Report) -> Result<String> {
    check(report)?;
    let head = Head {
        title: &report.title,
        about: &report.about,
        opening: &report.opening,
        findings: &report.findings,
        facts: &report.facts,
        tables: &report.tables,
        charts: &report.charts,
        matrices: &report.matrices,
        histograms: &report.histograms,
        methods: &report.methods,
        rewards: &report.rewards,
        questions: report.questions.len(),
    };
    let head = serde_json::to_string(&head).map_err(unwritable)?;
    let mut packed = String::new();
    if !report.questions.is_empty() {
        packed += &block("questions", &pack(&report.questions)?);
    }
    for (index, trace) in report.traces.iter().enumerate() {
        packed += &block(&format!("trace-{index}"), &pack(trace)?);
    }
    // The title of a window has no markup.
    let title =
        if report.title.is_empty() { "Report".to_owned() } else { report.title.replace('`', "") };
    Ok(format!(
        include_str!("page/page.html"),
        title = escape_html(&title),
        style_hash = hash(STYLE),
        script_hash = hash(SCRIPT),
        style = STYLE,
        head = escape_json(&head),
        script = SCRIPT,
        packed = packed,
    ))
}

/// A script element with data, which the browser does not run.
fn block(id: &str, content: &str) -> String {
    format!("<script type=\"text/plain\" id=\"{id}\">{content}</script>\n")
}

/// JSON with rounded numbers, gzipped, in base64.
fn pack(value: &impl Serialize) -> Result<String> {
    let mut writer = GzEncoder::new(Vec::new(), Compression::default());
    // The serializer writes a few bytes at a time, which is slow to compress.
    let mut json = Vec::new();
    value.serialize(&mut Serializer::with_formatter(&mut json, Rounded)).map_err(unwritable)?;
    let bytes = writer.write_all(&json).and_then(|()| writer.finish()).map_err(unwritable)?;
    Ok(BASE64_STANDARD.encode(bytes))
}

fn unwritable(error: impl std::fmt::Display) -> Error {
    Error::Report { problem: error.to_string() }
}

/// The hash by which a content security policy allows this text.
fn hash(text: &str) -> String {
    format!("sha256-{}", BASE64_STANDARD.encode(Sha256::digest(text)))
}

fn escape_html(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Escapes JSON for a script element: no text in it can end the element or open a comment. The two line separators that
/// JSON allows and old JavaScript does not are escaped, too.
fn escape_json(json: &str) -> String {
    json.replace('<', "\\u003c").replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029")
}

/// Formats JSON without white space, with numbers rounded to four significant digits.
struct Rounded;

impl Formatter for Rounded {
    fn write_f64<W: ?Sized + Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        CompactFormatter.write_f64(writer, four_digits(value))
    }
}

/// Rounds to four significant digits.
fn four_digits(value: f64) -> f64 {
    format!("{value:.3e}").parse().unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_four_digits() {
        for (value, rounded) in
            [(1.234_56, "1.235"), (-0.000_123_456, "-0.0001235"), (0.0, "0.0"), (123_456.0, "123500.0")]
        {
            let mut json = Vec::new();
            value.serialize(&mut Serializer::with_formatter(&mut json, Rounded)).unwrap();
            assert_eq!(String::from_utf8(json).unwrap(), rounded);
        }
    }

    #[test]
    fn no_text_ends_the_element() {
        let text = "</script><!-- \u{2028}\u{2029}";
        let json = escape_json(&serde_json::to_string(text).unwrap());
        assert!(!json.contains(['<', '\u{2028}', '\u{2029}']), "{json}");
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
    }
}
