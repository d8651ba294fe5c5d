//! Tests of the public API, as one program.

mod entries;
mod papers;
