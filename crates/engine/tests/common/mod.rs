//! What several test modules share.

pub mod families;
pub mod tiny;
pub mod tiny_bert;
pub mod tiny_gguf;
pub mod weights;
