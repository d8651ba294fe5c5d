//! Tables as CSV.

use crate::report::{Cell, Table};

/// The table as CSV (RFC 4180): one line per row, numbers with all digits. A column with intervals is followed by the
/// columns `... low` and `... high`. A cell without a number is empty.
pub fn csv(table: &Table) -> String {
    let mut out = String::new();
    let with_interval: Vec<bool> = (0..table.columns.len())
        .map(|column| table.rows.iter().any(|row| interval(row.cells.get(column)).is_some()))
        .collect();
    let mut heading = vec!["group".to_string(), "name".to_string()];
    for (name, with_interval) in table.columns.iter().zip(&with_interval) {
        heading.push(name.clone());
        if *with_interval {
            heading.extend([format!("{name} low"), format!("{name} high")]);
        }
    }
    line(&mut out, &heading);
    for row in &table.rows {
        let mut fields = vec![row.group.clone(), row.label.clone()];
        for (column, with_interval) in with_interval.iter().enumerate() {
            let cell = row.cells.get(column);
            fields.push(cell.and_then(Option::as_ref).map_or(String::new(), |cell| number(cell.mean)));
            if *with_interval {
                let ends = interval(cell)
                    .map_or([String::new(), String::new()], |(low, high)| [number(low), number(high)]);
                fields.extend(ends);
            }
        }
        line(&mut out, &fields);
    }
    out
}

fn interval(cell: Option<&Option<Cell>>) -> Option<(f64, f64)> {
    cell.and_then(Option::as_ref).and_then(|cell| cell.interval)
}

fn number(value: f64) -> String {
    if value.is_finite() { value.to_string() } else { String::new() }
}

fn line(out: &mut String, fields: &[String]) {
    for (index, field) in fields.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        if field.contains([',', '"', '\n', '\r']) {
            *out += &format!("\"{}\"", field.replace('"', "\"\""));
        } else {
            *out += field;
        }
    }
    out.push('\n');
}
