//! Tables for a terminal.

use super::format::numbers;
use crate::report::{Cell, Table};

/// The table as aligned text: the columns of the table downwards, its rows across. Intervals are in brackets.
pub fn plain(table: &Table) -> String {
    let mut lines = vec![vec![String::new()]];
    lines[0].extend(table.rows.iter().map(|row| row.label.clone()));
    for (column, name) in table.columns.iter().enumerate() {
        let cell =
            |cell: Option<&Option<Cell>>| cell.and_then(Option::as_ref).map_or("–".to_owned(), text);
        let cells = table.rows.iter().map(|row| cell(row.cells.get(column)));
        lines.push(std::iter::once(name.clone()).chain(cells).collect());
    }
    let width =
        |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..lines[0].len()).map(width).collect();
    let mut out = String::new();
    for line in &lines {
        let mut padded = format!("{:<w$}", line[0], w = widths[0]);
        for (cell, w) in line.iter().zip(&widths).skip(1) {
            padded.push_str(&format!("  {cell:>w$}"));
        }
        out.push_str(padded.trim_end());
        out.push('\n');
    }
    out
}

fn text(cell: &Cell) -> String {
    match numbers(cell) {
        (mean, Some((low, high))) => format!("{mean} [{low}, {high}]"),
        (mean, None) => mean,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Row;

    #[test]
    fn metrics_are_downwards_and_aligned() {
        let cell = |mean, interval| Some(Cell { mean, interval, digits: 1, bold: false, differs: 0 });
        let row = |label: &str, cells| Row { label: label.to_owned(), cells, ..Row::default() };
        let table = Table {
            columns: vec!["reward é".to_owned(), "length".to_owned()],
            rows: vec![
                row("base.jsonl (2)", vec![cell(0.5, Some((0.0, 1.0))), cell(123.0, None)]),
                row("b", vec![None, cell(-7.0, None)]),
            ],
            ..Table::default()
        };
        assert_eq!(
            plain(&table),
            "          base.jsonl (2)     b\n\
             reward é  0.5 [0.0, 1.0]     –\n\
             length             123.0  -7.0\n"
        );
        // The same table the other way round.
        assert_eq!(
            plain(&table.transposed()),
            "                      reward é  length\n\
             base.jsonl (2)  0.5 [0.0, 1.0]   123.0\n\
             b                            –    -7.0\n"
        );
        assert_eq!(table.transposed().transposed(), table);
    }
}
