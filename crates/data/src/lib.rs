/*!
The files that Stackelberg reads and writes. Each format is one type, which is both read and written.

# Overview

- [`Prompt`] and [`Message`] are what is asked; they serialize as JSON the way the field writes them.
- [`hash`] names contents by SHA-256.
*/

#![cfg_attr(not(test), warn(clippy::unwrap_used))]

pub mod hash;
mod prompt;

pub use prompt::{Message, Prompt};
