//! All integration tests of this crate but those that need a process of their own.
//!
//! `.ci/run` repeats `bits`, `kernel`, `quantised`, `tiny`, `embedder` and `text_reward` for each kernel that the processor
//! has, with `STACKELBERG_KERNEL` set. Every helper that loads a model or runs a kernel calls `common::tiny::choose_kernel` first.

#[path = "../common/mod.rs"]
mod common;

mod bits;
mod chat;
mod circles;
mod device;
mod embedder;
mod families;
mod gguf;
mod golden;
mod hostile;
mod kernel;
mod literal;
mod quantised;
mod scorers;
mod text_reward;
mod tiny;
mod tokenizers;
mod value;
