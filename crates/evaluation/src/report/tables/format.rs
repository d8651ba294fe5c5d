//! What Markdown and LaTeX tables have in common: groups of rows, and numbers with a fixed number of digits.

use crate::report::{Cell, Row, Table};

/// Whether any row belongs to a group.
pub(super) fn has_groups(table: &Table) -> bool {
    table.rows.iter().any(|row| !row.group.is_empty())
}

/// The rows, each with whether it is the first of its group.
pub(super) fn by_group(table: &Table) -> impl Iterator<Item = (bool, &Row)> {
    table.rows.iter().enumerate().map(|(index, row)| {
        let first = index.checked_sub(1).is_none_or(|before| table.rows[before].group != row.group);
        (first, row)
    })
}

/// A number with a fixed number of digits. NaN and infinities give a dash; zero has no sign.
fn number(value: f64, digits: usize) -> String {
    if !value.is_finite() {
        return "–".into();
    }
    let text = format!("{value:.digits$}");
    match text.strip_prefix('-') {
        Some(rest) if !rest.contains(|c: char| c.is_ascii_digit() && c != '0') => rest.into(),
        _ => text,
    }
}

/// The mean and the interval of a cell, with the cell's digits.
pub(super) fn numbers(cell: &Cell) -> (String, Option<(String, String)>) {
    let interval =
        cell.interval.map(|(low, high)| (number(low, cell.digits), number(high, cell.digits)));
    (number(cell.mean, cell.digits), interval)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_has_no_sign() {
        assert_eq!(number(-0.001, 2), "0.00");
        assert_eq!(number(-0.01, 2), "-0.01");
        assert_eq!(number(-0.4, 0), "0");
        assert_eq!(number(f64::NAN, 2), "–");
    }
}
