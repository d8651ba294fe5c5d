//! Tables as LaTeX.

use super::format::{by_group, has_groups, numbers};
use crate::report::{Cell, Table};

/// The table as LaTeX for the package `booktabs`. Intervals follow the numbers in a small font, bold cells are bold, and
/// an arrow marks a difference from the base policy. The caption holds title and note.
pub fn latex(table: &Table) -> String {
    let grouped = has_groups(table);
    let width = table.columns.len() + 1;
    let mut out = format!(
        "\\begin{{table}}\n\\centering\n\\caption{{{}}}\n\\label{{tab:{}}}\n\\begin{{tabular}}{{l{}}}\n\\toprule\n",
        caption(table),
        table.name.replace(|c: char| !c.is_ascii_alphanumeric() && c != '-', ""),
        "r".repeat(table.columns.len())
    );
    let heading: Vec<String> = table.columns.iter().map(|name| escape(name)).collect();
    line(&mut out, "", &heading);
    out += "\\midrule\n";
    for (index, (first, row)) in by_group(table).enumerate() {
        if grouped && first {
            if index > 0 {
                out += "\\addlinespace\n";
            }
            if !row.group.is_empty() {
                out +=
                    &format!("\\multicolumn{{{width}}}{{l}}{{\\emph{{{}}}}} \\\\\n", escape(&row.group));
            }
        }
        let indent = if grouped && !row.group.is_empty() { "\\quad " } else { "" };
        let cells: Vec<String> =
            row.cells.iter().map(|cell| cell.as_ref().map_or("--".into(), text)).collect();
        line(&mut out, &format!("{indent}{}", escape(&row.label)), &cells);
    }
    out + "\\bottomrule\n\\end{tabular}\n\\end{table}\n"
}

fn caption(table: &Table) -> String {
    match (table.title.trim(), table.note.trim()) {
        (title, "") => escape(title),
        (title, note) => {
            format!("{}. {}", escape(title.trim_end_matches('.')), escape(note))
        }
    }
}

fn text(cell: &Cell) -> String {
    let (mean, interval) = numbers(cell);
    let mean = math(&mean);
    let mut out = if cell.bold { format!("\\textbf{{{mean}}}") } else { mean };
    match cell.differs {
        0 => {}
        below if below < 0 => out += "$^{\\downarrow}$",
        _ => out += "$^{\\uparrow}$",
    }
    if let Some((low, high)) = interval {
        out += &format!(" {{\\scriptsize [{}, {}]}}", math(&low), math(&high));
    }
    out
}

/// A number with a minus sign in place of a hyphen.
fn math(number: &str) -> String {
    match number.strip_prefix('-') {
        Some(rest) => format!("$-${rest}"),
        None => number.replace('–', "--"),
    }
}

fn line(out: &mut String, label: &str, cells: &[String]) {
    *out += label;
    for cell in cells {
        *out += " & ";
        *out += cell;
    }
    *out += " \\\\\n";
}

/// Escapes text for LaTeX, on one line. Greek letters and signs become mathematics, so that the file compiles without
/// fonts that have them.
fn escape(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '\\' => out += "\\textbackslash{}",
            '~' => out += "\\textasciitilde{}",
            '^' => out += "\\textasciicircum{}",
            '<' => out += "\\textless{}",
            '>' => out += "\\textgreater{}",
            '|' => out += "\\textbar{}",
            // Two hyphens would become a dash, and a bracket after a line break would become its option.
            '-' if out.ends_with('-') => out += "{}-",
            '[' => out += "{[}",
            '&' | '%' | '$' | '#' | '_' | '{' | '}' => out.extend(['\\', c]),
            '\n' | '\r' => out.push(' '),
            'λ' => out += "$\\lambda$",
            'α' => out += "$\\alpha$",
            'β' => out += "$\\beta$",
            'σ' => out += "$\\sigma$",
            '≥' => out += "$\\geq$",
            '≤' => out += "$\\leq$",
            '±' => out += "$\\pm$",
            '−' => out += "$-$",
            '–' => out += "--",
            _ => out.push(c),
        }
    }
    out
}
