//! Tables of the report as files: CSV, Markdown and LaTeX.

mod csv;
mod format;
mod latex;
mod markdown;

pub use csv::csv;
pub use latex::latex;
pub use markdown::markdown;
