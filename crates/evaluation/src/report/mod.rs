/*!
Reports: one HTML page with tables, charts and answers, and tables as files. The module shows numbers and does not
compute them.

# Overview

[`Report`] is the data. [`page`](fn@page) writes it as one HTML file that needs no network. [`csv`], [`markdown`] and
[`latex`] write a single table, and [`findings`](fn@findings) writes the findings as Markdown.

```
use stackelberg_evaluation::report::{self, Cell, Report, Row, Table};

let cell = Cell { mean: 1.725, interval: Some((1.2, 2.25)), digits: 2, bold: true, differs: 1 };
let row = Row { group: "args".into(), label: "srs, λ 1".into(), cells: vec![Some(cell)] };
let table = Table { columns: vec!["reward".into()], rows: vec![row], ..Table::default() };
assert_eq!(report::csv(&table), "group,name,reward,reward low,reward high\nargs,\"srs, λ 1\",1.725,1.2,2.25\n");

let html = report::page(&Report { title: "Which shaping?".into(), tables: vec![table], ..Report::default() })?;
assert!(html.starts_with("<!doctype html>"));
# Ok::<(), stackelberg_evaluation::Error>(())
```
*/

mod check;
mod data;
mod findings;
mod page;
mod tables;

pub use crate::estimate::{Estimate, Wins};
pub use data::{
    Answer, Cell, Chart, Curve, Histogram, Matrix, Point, Question, Report, Row, Table, Trace, TraceStep,
};
pub use findings::findings;
pub use page::page;
pub use tables::{csv, latex, markdown, plain};
