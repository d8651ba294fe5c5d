//! What an experiment found, as a page, as tables and as figures: every number is computed before it gets
//! here, and what is here only shows it.

mod data;

pub use data::{
    Answer, Cell, Chart, Curve, Estimate, Histogram, Matrix, Point, Question, Report, Row, Table, Trace,
    TraceStep, Wins,
};
