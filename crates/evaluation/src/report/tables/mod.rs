//! Tables of the report as files: CSV, Markdown and LaTeX, and as text.

mod csv;
mod format;
mod latex;
mod markdown;
mod plain;

pub use csv::csv;
pub use latex::latex;
pub(super) use markdown::escape_markdown;
pub use markdown::markdown;
pub use plain::plain;
