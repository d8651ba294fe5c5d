//! Tables as GitHub Markdown.

use super::format::{has_groups, numbers};
use crate::report::{Cell, Table};

/// The table as Markdown, with cells like `**1.73** [1.18, 2.25] ▲`: bold cells are bold, and a triangle marks a
/// difference from the base policy.
pub fn markdown(table: &Table) -> String {
    let grouped = has_groups(table);
    let mut out = String::new();
    let mut heading = vec![String::new(); if grouped { 2 } else { 1 }];
    heading.extend(table.columns.iter().map(|name| escape(name)));
    line(&mut out, &heading);
    let rule: Vec<String> = (0..heading.len())
        .map(|column| if column < heading.len() - table.columns.len() { "---" } else { "---:" }.into())
        .collect();
    line(&mut out, &rule);
    for row in &table.rows {
        let mut fields = Vec::with_capacity(heading.len());
        if grouped {
            fields.push(escape(&row.group));
        }
        fields.push(escape(&row.label));
        fields.extend(row.cells.iter().map(|cell| cell.as_ref().map_or("–".into(), text)));
        line(&mut out, &fields);
    }
    out
}

fn text(cell: &Cell) -> String {
    let (mean, interval) = numbers(cell);
    let mut out = if cell.bold { format!("**{mean}**") } else { mean };
    if let Some((low, high)) = interval {
        out += &format!(" [{low}, {high}]");
    }
    match cell.differs {
        0 => {}
        below if below < 0 => out += " ▼",
        _ => out += " ▲",
    }
    out
}

fn line(out: &mut String, fields: &[String]) {
    *out += &format!("| {} |\n", fields.join(" | "));
}

fn escape(text: &str) -> String {
    escape_markdown(text, "|\\*_`[]~$#")
}

/// The text for Markdown, on one line: characters of HTML are entities, and `marks` have a backslash.
pub(in crate::report) fn escape_markdown(text: &str, marks: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '\n' | '\r' => out.push(' '),
            '<' => out += "&lt;",
            '&' => out += "&amp;",
            c if marks.contains(c) => out.extend(['\\', c]),
            _ => out.push(c),
        }
    }
    out
}
