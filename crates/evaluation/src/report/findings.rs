//! The findings as Markdown.

use std::fmt::Write;

use super::Report;
use super::tables::escape_markdown;

/// The findings as GitHub Markdown: the opening sentences as a list, then all other findings under a heading and folded.
pub fn findings(report: &Report) -> String {
    let title = if report.title.is_empty() { "Report" } else { &report.title };
    let mut out = format!("# {}\n", one_line(title));
    if !report.opening.is_empty() {
        out.push('\n');
        list(&mut out, &report.opening);
    }
    if !report.findings.is_empty() {
        let count = report.findings.len();
        let _ = write!(out, "\n## All findings\n\n<details>\n<summary>Show all ({count})</summary>\n\n");
        list(&mut out, &report.findings);
        out += "\n</details>\n";
    }
    out
}

fn list(out: &mut String, sentences: &[String]) {
    for sentence in sentences {
        *out += &format!("- {}\n", one_line(sentence));
    }
}

/// The text on one line. Code marks are Markdown's own; other characters that Markdown reads are escaped.
fn one_line(text: &str) -> String {
    escape_markdown(text, "\\*_[]~$")
}
